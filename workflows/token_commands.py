"""Commands on tokens: python -m workflows.tokenize verify, import, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from data_pipeline.tokenizer_config import ShardConfig, TokenizerConfig
from workflows import cli
from workflows.summary import ReportOptions, summarised

if TYPE_CHECKING:
    from data_pipeline.shards import Manifest
    from data_pipeline.tokenizer import Tokenizer
    from workflows.workspace import Workspace

MAX_SHOWN = 20


@dataclass(frozen=True)
class VerifyOptions(ReportOptions):
    """Options of tokenize verify."""

    workspace: str = "workspace"
    """Folder that everything is kept in, or an s3:// or gs:// URI."""
    dataset: str = ""
    """Name of a token dataset; empty: all of them."""
    all_versions: bool = False
    """Every version of them, not only the newest (--all-versions will do)."""
    shards: ShardConfig = field(default_factory=ShardConfig)
    """How they were cut: compared with the corpus, where these are the settings that they were made with."""


def verify(options: VerifyOptions) -> None:
    """Read token datasets from the first byte to the last: hashes, counts, order, ids, and that they hold the documents of their corpus version."""
    from data_pipeline.shard_checks import verify_dataset
    from workflows.console import say, step
    from workflows.workspace import Workspace

    with summarised("tokenize verify", options) as summary:
        workspace = Workspace.existing(options.workspace)
        chosen = _datasets(workspace, options)
        problems: list[str] = []
        summary["datasets"] = []
        for folder, manifest in chosen:
            with step("verify") as shown:
                tokenizer = _tokenizer_of(workspace, manifest)
                found = verify_dataset(folder, manifest, tokenizer, shown.update)
                checked = _against_corpus(workspace, manifest, tokenizer, options.shards)
                here = [*found.problems, *(checked or [])]
                shown.summary = (
                    f"{manifest.name}/{folder.name}: {found.num_shards} shards, {found.num_docs:,} documents, "
                    f"{found.num_tokens:,} tokens, {found.num_bytes / 1e6:,.1f} MB"
                    + (", the documents of its corpus version" if checked == [] else "")
                    + (f"; {len(here)} problems" if here else ", all good")
                )
            for line in here[:MAX_SHOWN]:
                say(f"  {line}")
            summary["datasets"].append(
                {
                    "dataset": f"{manifest.name}/{folder.name}",
                    "manifest_hash": manifest.manifest_hash,
                    "problems": here,
                }
            )
            problems += here
        if problems:
            raise InputError(f"{len(problems)} problems in token datasets; the first: {problems[0]}")


def _datasets(workspace: Workspace, options: VerifyOptions) -> list[tuple[Path, Manifest]]:
    """The datasets to verify; what has no readable manifest is an error here."""
    from data_pipeline.shard_writer import latest_dataset
    from data_pipeline.shards import MANIFEST_NAME, Manifest

    names = (
        [options.dataset]
        if options.dataset
        else sorted(path.parent.name for path in workspace.tokens.glob("*/latest.json"))
    )
    folders = [latest_dataset(workspace.tokens, name) for name in names or ["bpe"]]
    if options.all_versions:
        folders = [
            path.parent
            for name in names
            for path in sorted((workspace.tokens / name).glob(f"v*/{MANIFEST_NAME}"))
        ]
    return [(folder, Manifest.load(folder)) for folder in folders]


def _tokenizer_of(workspace: Workspace, manifest: Manifest) -> Tokenizer | None:
    from data_pipeline.tokenizer import Tokenizer

    path = workspace.tokenizer(manifest.tokenizer) / "tokenizer.json"
    return Tokenizer.load(path) if path.exists() else None


def _against_corpus(
    workspace: Workspace, manifest: Manifest, tokenizer: Tokenizer | None, shards: ShardConfig
) -> list[str] | None:
    """Problems with the documents; None where the settings or the corpus version are others or gone."""
    from data_pipeline.shard_checks import verify_documents
    from data_pipeline.shard_writer import config_hash_of

    try:
        version = workspace.corpus.at(manifest.corpus_version)
    except InputError:
        return None
    if tokenizer is None or config_hash_of(version, shards) != manifest.config_hash:
        return None
    return verify_documents(workspace.corpus, manifest, tokenizer, shards)


@dataclass(frozen=True)
class ImportOptions(ReportOptions):
    """Options of tokenize import."""

    workspace: str = "workspace"
    """Folder that everything is kept in, or an s3:// or gs:// URI."""
    name: str = ""
    """Name that the tokenizer gets."""
    encoder: str = ""
    """Ids by token: encoder.json of GPT-2, encoder_bpe_40000.json of GPT-1."""
    merges: str = ""
    """Merges: vocab.bpe of GPT-2, vocab_40000.bpe of GPT-1."""


def import_tokenizer(options: ImportOptions) -> None:
    """Take over a vocabulary of GPT-2 or GPT-1; tokenize --tokenizer.name NAME then encodes with it."""
    from data_pipeline.foreign_tokenizer import import_vocabulary
    from data_pipeline.tokenizer import open_tokenizer, store_import
    from workflows.console import say
    from workflows.workspace import Workspace

    with summarised("tokenize import", options) as summary:
        replace(TokenizerConfig(), name=options.name).validate()
        for option in ("encoder", "merges"):
            if not getattr(options, option):
                raise InputError(f"{option}: name the file")
        workspace = Workspace.open(options.workspace)
        text = import_vocabulary(Path(options.encoder), Path(options.merges))
        tokenizer = open_tokenizer(options.name, text)
        path = store_import(tokenizer, workspace.tokenizer(options.name))
        summary |= {"tokenizer": options.name, "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256}
        say(f"{path}: {tokenizer.vocab_size:,} tokens; encode with --tokenizer.name {options.name}")


@dataclass(frozen=True)
class CompressionOptions(ReportOptions):
    """Options of tokenize report."""

    workspace: str = "workspace"
    """Folder that everything is kept in, or an s3:// or gs:// URI."""
    tokenizers: list[str] | str = field(default_factory=list)
    """Names of tokenizers to compare, the first against the others; empty: all in the workspace."""
    as_of: int = 0
    """Corpus version to look at; 0 is the newest."""
    val_share: float = 0.05
    """Share of the documents that was held out from training the tokenizers."""


def report(options: CompressionOptions) -> None:
    """Bytes a token of held-out text, by source and language, of one tokenizer beside others (import GPT-2's first)."""
    from data_pipeline import tokenizer_report
    from data_pipeline.tokenizer import Tokenizer
    from workflows.console import table
    from workflows.workspace import Workspace

    with summarised("tokenize report", options) as summary:
        workspace = Workspace.existing(options.workspace)
        version = workspace.corpus.at(options.as_of or None)
        given = options.tokenizers.split(",") if isinstance(options.tokenizers, str) else options.tokenizers
        names = [name.strip() for name in given] or sorted(
            path.parent.name for path in (workspace.root / "tokenizer").glob("*/tokenizer.json")
        )
        tokenizers = [Tokenizer.load(workspace.tokenizer(name) / "tokenizer.json") for name in names]
        if not tokenizers:
            raise InputError(f"{workspace.root} has no tokenizer; make one with python -m workflows.tokenize")
        rows = tokenizer_report.compression(workspace.corpus, version, tokenizers, options.val_share)
        shown = [*rows, tokenizer_report.total(rows)]
        table(
            ["source", "language", "documents", "MB", *names],
            [
                [row.source, row.lang, f"{row.num_docs:,}", f"{row.num_bytes / 1e6:.1f}",
                 *(f"{row.bytes_per_token(name):.3f}" for name in names)]
                for row in shown
            ],
            title=f"Bytes a token of held-out text, corpus version {version['version']}",
        )  # fmt: skip
        summary["compression"] = tokenizer_report.as_json(shown)


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "verify": (VerifyOptions, verify),
    "import": (ImportOptions, import_tokenizer),
    "report": (CompressionOptions, report),
}


def run(argv: Sequence[str]) -> int:
    """Run `tokenize COMMAND ...`; its exit code."""
    options_class, main = COMMANDS[argv[0]]
    return cli.run(options_class, main, f"tokenize {argv[0]}", main.__doc__ or "", list(argv[1:]))
