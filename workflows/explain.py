"""`python -m workflows.refresh --explain`: what each step does to one document, in words, for a terminal."""

from __future__ import annotations

import ipaddress
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.decontaminate import protected
from data_pipeline.errors import InputError
from data_pipeline.explain import (
    Passage,
    difference,
    explain_duplicates,
    explain_record,
    find_again,
    find_records,
)
from data_pipeline.quality.scoring import with_model
from data_pipeline.sources import PACKINGS, Record, list_files
from data_pipeline.wording import short_number
from workflows.console import say
from workflows.workspace import Workspace, exists

MAX_RECORDS = 5
DOC_ID = re.compile("[0-9a-f]{32}")
ENDINGS = {
    "web": ("warc", "arc", "wacz", "html", "htm", "xhtml"),
    "wiki": ("xml", "7z"),
    "books": ("epub", "zip"),
}
COLUMNS = ["doc_id", "source", "uri", "input_file", "version"]
VERDICT = ["stage", "reason", "value", "threshold", "duplicate_of", "similarity"]


def show(
    target: str,
    location: str,
    config: RefreshConfig,
    contact: str,
    private_hosts: Sequence[str],
    as_of: int = 0,
) -> None:
    """Print what the steps do to a file's records, a document of the corpus or a page.

    Args:
        target: FILE, FILE#URI, a uri or doc_id of the corpus, or a URL.
        location: of the workspace; it need not exist.
        config: of the sources; a file that none of them names is read by its name.
        as_of: the corpus version to look at; 0 for the newest.

    Raises:
        InputError: nothing of that name, or a page that cannot be fetched.
    """
    workspace = Workspace.existing(location, as_of) if exists(location) else None
    corpus = workspace.corpus if workspace is not None and workspace.corpus.latest() is not None else None
    file, uri = _file_of(target)
    if file is not None:
        _show_file(file, uri, _ready(config, workspace), corpus)
    elif workspace is not None and corpus is not None and (rows := _documents(corpus, target)):
        for row in rows:
            _show_document(row, corpus, workspace)
    elif urlsplit(target).scheme in ("http", "https"):
        _show_page(target, _ready(config, workspace), corpus, contact, private_hosts)
    else:
        raise InputError(
            f"explain: {target} is no file, no uri or doc_id in the corpus of {location}, and no URL of a page"
        )


def _ready(config: RefreshConfig, workspace: Workspace | None) -> RefreshConfig:
    """The configuration as a refresh uses it: its quality model and its evaluation sets found."""
    root = workspace.root if workspace is not None else Path()
    folder = root / "evaluation" if workspace is not None else None
    config = with_model(config, root / "corpus")
    return replace(config, decontamination=protected(config.decontamination, folder))


# --------------------------------------------------------------------------------------------------------- files


def _file_of(target: str) -> tuple[Path | None, str]:
    """(the file that is meant, the uri of the record in it; "" for all); no file for anything else."""
    name, _, uri = target.partition("#")
    for path, record in ((Path(target), ""), (Path(name), uri)):
        try:
            if path.is_file():
                return path, record
        except OSError:  # a name that no file can have
            continue
    return None, ""


def _show_file(path: Path, uri: str, config: RefreshConfig, corpus: Corpus | None) -> None:
    source, why = _source_of(path, config)
    say(f"{path}, read as kind {source.kind} with preset {source.preset or 'of that kind'} ({why})")
    config = replace(config, sources=[source])
    errors: list[str] = []
    number = 0
    for number, record in enumerate(find_records(source, path, errors, uri), start=1):
        if number > MAX_RECORDS:
            say(f"\nThe file holds more; name one with {path}#URI.")
            break
        _show_record(record, source, config, path.name, corpus)
    if errors:
        say(f"\nThe file breaks off: {errors[0]}")
    if not number:
        raise InputError(f"explain: {path} holds no record{f' of the uri {uri}' if uri else ''}")


def _source_of(path: Path, config: RefreshConfig) -> tuple[SourceConfig, str]:
    """(the source that a file is read by, why): a configured one that names it, else by the file's name."""
    resolved = path.resolve()
    for source in config.sources:
        if resolved in [Path(str(file)).resolve() for file in list_files(source)]:
            return source, f"source {source.name}"
    kind = _kind_of(path)
    return SourceConfig(
        name=kind, kind=kind, paths=[str(path)]
    ), "by its name; a source that names it decides"


def _kind_of(path: Path) -> str:
    name = path.name.lower()
    for packing in filter(None, PACKINGS):
        name = name.removesuffix(packing)
    parts = name.split(".")[1:]
    for kind, endings in ENDINGS.items():
        # Dumps in parts are named articles1.xml-p1p30302.
        if any(part.partition("-")[0] in endings for part in parts):
            return kind
    if path.suffix.lower() == ".txt" and b"Project Gutenberg" in path.open("rb").read(20_000):
        return "books"
    return "files"


def _show_record(
    record: Record, source: SourceConfig, config: RefreshConfig, input_file: str, corpus: Corpus | None
) -> None:
    say(f"\n{record.uri or input_file}")
    passages, text = explain_record(record, source, config, input_file)
    for passage in passages:
        _show_passage(passage)
    if text is not None and corpus is not None:
        _show_passage(explain_duplicates(text, record.uri or input_file, corpus, corpus.at(), config.dedup))


def _show_passage(passage: Passage) -> None:
    first, *lines = passage.lines or [""]
    if len(passage.lines) > 4:
        first, lines = "", passage.lines
    outcome = passage.outcome if passage.outcome in ("kept", "not asked") else f"REMOVED, {passage.outcome}"
    say(f"  {passage.step:<11}{outcome}{f'; {first}' if first else ''}")
    for line in lines:
        say(f"             {line}")


# ------------------------------------------------------------------------------------------ documents of the corpus


def _documents(corpus: Corpus, target: str) -> list[dict[str, Any]]:
    """The documents, kept and removed, of a uri or a doc_id; those of the newest version first."""
    version = corpus.at()
    column = "doc_id" if DOC_ID.fullmatch(target) else "uri"
    rows = [
        row
        for table, columns in (
            ("documents", [*COLUMNS, "text"]),
            ("removed", [*COLUMNS, *VERDICT, "text_sample"]),
        )
        for row in corpus.find(table, version, column, [target], columns)
    ]
    return sorted(rows, key=lambda row: (-row["version"], row["doc_id"]))[:MAX_RECORDS]


def _show_document(row: dict[str, Any], corpus: Corpus, workspace: Workspace) -> None:
    version = corpus.at(row["version"])
    config = _ready(RefreshConfig.from_content(json.loads(version["config"])), workspace)
    say(f"\n{row['uri']} ({row['doc_id']})")
    say(f"  source {row['source']}, read from {row['input_file']} for corpus version {row['version']}")
    source = next((source for source in config.sources if source.name == row["source"]), None)
    record = find_again(row, source, config, workspace.root) if source is not None else None
    text = row.get("text")
    if record is None or source is None:
        say("  its input file is gone or has changed; what the corpus itself says of it:")
    else:
        passages, after = explain_record(record, source, config, row["input_file"])
        for passage in passages:
            _show_passage(passage)
        if text is not None and after is not None and text != after:
            # Its host's shared lines (dedup.boilerplate_share), or block lists and sets that were given by path.
            _show_passage(Passage("later", "kept", [f"changed after these steps: {difference(after, text)}"]))
        text = text or after
    if row.get("duplicate_of"):
        _show_duplicate(row, text, corpus)
    elif row.get("reason") and record is None:
        _show_passage(Passage(row["stage"], row["reason"], list(_measured(row))))
    elif not row.get("reason") and text is not None:
        _show_passage(explain_duplicates(text, row["uri"], corpus, corpus.at(), config.dedup))
    say(f"  {'in corpus/removed' if row.get('reason') else 'in corpus/documents'}")


def _measured(row: dict[str, Any]) -> Iterator[str]:
    if row["value"] is not None:
        bound = "" if row["threshold"] is None else f", bound {short_number(row['threshold'])}"
        yield f"measured {short_number(row['value'])}{bound}"
    if row["text_sample"]:
        yield "begins: " + " ".join(row["text_sample"].split())


def _show_duplicate(row: dict[str, Any], text: str | None, corpus: Corpus) -> None:
    columns = ["doc_id", "source", "uri", "text"]
    keepers = corpus.find("documents", corpus.at(), "doc_id", [row["duplicate_of"]], columns)
    bound = "" if row["threshold"] is None else f", threshold {short_number(row['threshold'])}"
    lines = [f"similarity {row['similarity']:.3f}{bound}"]
    for keeper in keepers[:1]:
        lines.append(f"kept for it: {keeper['uri']} ({keeper['source']}, {keeper['doc_id']})")
        if text is not None and row["similarity"] < 1:
            lines.append(difference(text, keeper["text"]))
    _show_passage(Passage(row["stage"], row["reason"], lines))


# --------------------------------------------------------------------------------------------------------- pages


def _show_page(
    url: str, config: RefreshConfig, corpus: Corpus | None, contact: str, private_hosts: Sequence[str]
) -> None:
    """Fetch a page as the crawler does (robots.txt, addresses, delays, redirects), and show what becomes of it."""
    from data_pipeline.crawl import crawl

    host = urlsplit(url).hostname or ""
    local = [*private_hosts, *([host] if _is_this_machine(host) else [])]
    polite = CrawlConfig(
        seeds=[url], max_depth=0, max_pages=1, follow_sitemaps=False, retries=0, contact=contact, allow_private=local
    )  # fmt: skip
    source = next((source for source in config.sources if source.kind == "web"), None)
    source = source or SourceConfig(name="web", kind="web", paths=[url])
    config = replace(config, sources=[source])
    with tempfile.TemporaryDirectory(prefix="gptmill-") as folder:
        try:
            outcomes = crawl(polite, Path(folder)).outcomes
        except InputError as error:
            raise InputError(f"explain: {_with_our_options(str(error))}") from None
        archives = sorted(Path(folder).glob("*.warc.gz"))
        records = [record for path in archives for record in find_records(source, path, [])]
        if not records:
            raise InputError(
                f"explain: {url} could not be fetched ({', '.join(outcomes) or 'nothing came back'})"
            )
        for record in records[:MAX_RECORDS]:
            _show_record(record, source, config, "fetched now", corpus)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _with_our_options(message: str) -> str:
    return message.replace("crawl.contact", "explain_contact").replace(
        "crawl.allow_private", "explain_private"
    )
