"""Write documents (Parquet, JSON lines, as a Hugging Face dataset) or tokens (nanoGPT, Megatron-LM) for other people's tools."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_pipeline.errors import InputError
from workflows import cli
from workflows.summary import ReportOptions, Summary, summarised


@dataclass(frozen=True)
class Options(ReportOptions):
    """Options of workflows.export."""

    workspace: str = "workspace"
    """Folder that everything is kept in. An s3:// or gs:// URI will do as well."""
    to: str = ""
    """New folder (or URI) to write."""
    format: Literal["parquet", "jsonl", "nanogpt", "megatron"] = "parquet"
    """parquet and jsonl: the documents of a corpus version; nanogpt and megatron: a token dataset."""
    as_of: int = 0
    """Corpus version to write; 0 is the newest."""
    val_share: float = 0.05
    """Share of the documents, by hash of their text, that goes into the validation split."""
    dataset: str = "bpe"
    """Name of the token dataset to write; its newest version."""
    name: str = "gptmill corpus"
    """Name of the dataset, for its card."""

    def validate(self) -> None:
        """Raise InputError, naming the option, for values that cannot work."""
        super().validate()
        if not self.to.strip():
            raise InputError("to: name the folder to write")
        if self.as_of < 0:
            raise InputError(f"as_of: {self.as_of} must not be negative; 0 is the newest version")
        if not 0 <= self.val_share < 1:
            raise InputError(f"val_share: {self.val_share} is outside 0 to 1")


def main(options: Options) -> None:
    """Write an export."""
    with summarised("export", options) as summary:
        options.validate()
        if options.format in ("parquet", "jsonl"):
            _documents(options, summary)
        else:
            _tokens(options, summary)


def _target(options: Options) -> Path:
    from data_pipeline.sources import as_path

    return as_path(options.to) if "://" in options.to else Path(options.to).expanduser().resolve()


def _documents(options: Options, summary: Summary) -> None:
    from data_pipeline.cluster import ray_session
    from data_pipeline.exports import export_documents
    from workflows.console import step
    from workflows.workspace import Workspace

    workspace = Workspace.existing(options.workspace)
    version = workspace.corpus.at(options.as_of or None)
    folder = _target(options)
    with step("export") as shown, ray_session(workspace.logs / "export.log"):
        totals = export_documents(
            workspace.corpus, version, folder, options.format, options.val_share, options.name, shown.update
        )
        shown.summary = f"{sum(totals.values()):,} documents of version {version['version']} in {folder}"
    summary |= {"corpus_version": version["version"], "documents": totals}


def _tokens(options: Options, summary: Summary) -> None:
    from data_pipeline import exports
    from workflows.console import step
    from workflows.workspace import Workspace

    write = exports.export_nanogpt if options.format == "nanogpt" else exports.export_megatron
    dataset = Workspace.existing(options.workspace).dataset(options.dataset)
    folder = _target(options)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"to: {folder} holds files already; give a new folder")
    with step("export") as shown:
        totals = write(dataset, folder)
        shown.summary = f"{options.dataset}/{dataset.name} in {folder}"
    summary |= {"dataset": f"{options.dataset}/{dataset.name}", "totals": totals}


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "export", __doc__))
