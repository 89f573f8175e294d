"""Train a tokenizer on the corpus, once, and write the corpus as token shards.

Commands, each with a --help of its own: verify (are the shards what they should be?), import (the vocabularies of GPT-2
and GPT-1), report (bytes a token, beside other vocabularies).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from workflows import cli, token_commands

if TYPE_CHECKING:
    from data_pipeline.shards import Manifest
    from workflows.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """Options of workflows.tokenize."""

    workspace: str = "workspace"
    """Folder that everything is kept in. An s3:// or gs:// URI will do as well."""
    as_of: int = 0
    """Corpus version to tokenise; 0 is the newest."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How the tokenizer is trained."""
    shards: ShardConfig = field(default_factory=ShardConfig)
    """How token shards are cut."""

    def validate(self) -> None:
        """Raise InputError, naming the option, for values that cannot work."""
        if self.as_of < 0:
            raise InputError(f"as_of: {self.as_of} must not be negative; 0 is the newest version")
        self.tokenizer.validate()
        self.shards.validate()


def main(options: Options) -> None:
    """Tokenise one corpus version."""
    options.validate()

    from data_pipeline.cluster import ray_session
    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    version = workspace.corpus.at(options.as_of or None)
    with ray_session(workspace.logs / "tokenize.log"):
        _, manifest = tokenize_corpus(workspace, version, options.tokenizer, options.shards)
    show_tokens(manifest)


def tokenize_corpus(
    workspace: Workspace, version: dict, tokenizer_config: TokenizerConfig, shard_config: ShardConfig
) -> tuple[Path, Manifest]:
    """Tokenizer and shards of a corpus version under a running Ray; (folder, manifest)."""
    from data_pipeline.report import write_report
    from data_pipeline.shard_writer import write_shards
    from data_pipeline.tokenizer import Tokenizer, train_tokenizer
    from workflows import tracking
    from workflows.console import step

    with step("tokenise") as shown:
        path = train_tokenizer(
            workspace.corpus,
            version,
            tokenizer_config,
            workspace.tokenizer(tokenizer_config.name),
            shard_config.val_share,
            shown.update,
        )
        tokenizer = Tokenizer.load(path)
        folder, manifest, is_new = write_shards(
            workspace.corpus,
            version,
            tokenizer,
            tokenizer_config.name,
            shard_config,
            workspace.tokens,
            shown.update,
        )
        tokens = sum(shard.num_tokens for shard in manifest.shards)
        shown.summary = (
            f"{tokens:,} tokens in {len(manifest.shards)} shards, manifest {manifest.manifest_hash[:12]}"
            + ("" if is_new else " (there already)")
        )
        # Not only where the shards are new: an earlier call may have been killed before it logged them.
        if tracking.find_tokenize_run(workspace, manifest) is None:
            settings = {"tokenizer": asdict(tokenizer_config), "shards": asdict(shard_config)}
            began = shown.began_at if is_new else None
            shown.update("writing the data report again, with tokens by source")
            report = workspace.report(version["version"])
            write_report(workspace.corpus, version, report, workspace.tokens)
            _log_run(workspace, settings, manifest, [folder / "manifest.json", path, report], began)
    return folder, manifest


def _log_run(
    workspace: Workspace,
    settings: dict[str, Any],
    manifest: Manifest,
    files: Sequence[Path],
    began: float | None,
) -> None:
    from workflows import tracking

    tags = tracking.corpus_tags(workspace, manifest.corpus_version)
    parent = tracking.find_run(workspace, "refresh", tags)
    tags |= {"gptmill.manifest_hash": manifest.manifest_hash}
    with tracking.start_run(
        workspace,
        "tokenize",
        f"{manifest.name}-v{manifest.corpus_version}",
        settings,
        tags=tags,
        parent=parent,
        run_id=tracking.find_run(workspace, "tokenize", tags, finished=False),
        began=began,
    ) as run:
        run.metrics(_counts(manifest), step=manifest.corpus_version)
        for file in files:
            run.artifact(file)


def _counts(manifest: Manifest) -> dict[str, float]:
    return {
        f"{name.removeprefix('num_')}/{source}/{split}": float(value)
        for source, splits in manifest.totals.items()
        for split, cell in splits.items()
        for name, value in cell.items()
    }


def show_tokens(manifest: Manifest) -> None:
    """Print tokens and documents by source and split."""
    from workflows.console import table

    rows = []
    for source, splits in manifest.totals.items():
        cells = [splits.get(split, {}) for split in ("train", "val")]
        num_bytes = sum(cell.get("num_bytes", 0) for cell in cells)
        num_tokens = sum(cell.get("num_tokens", 0) for cell in cells)
        rows.append(
            [
                source,
                *(f"{cell.get('num_tokens', 0):,}" for cell in cells),
                *(f"{cell.get('num_docs', 0):,}" for cell in cells),
                f"{num_bytes / max(1, num_tokens):.2f}",
            ]
        )
    columns = ["", "train tokens", "val tokens", "train docs", "val docs", "bytes/token"]
    table(columns, rows, title=f"Tokens by source (manifest {manifest.manifest_hash[:12]})")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in token_commands.COMMANDS:
        sys.exit(token_commands.run(sys.argv[1:]))
    sys.exit(cli.run(Options, main, "tokenize", __doc__))
