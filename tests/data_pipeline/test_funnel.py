"""Every document read is kept or removed for a reason, by source and version, or nothing is committed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from data_pipeline import refresh as refresh_module
from data_pipeline import schema
from data_pipeline.config import LanguageConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import TABLES, Corpus, DataFile, LostDocuments
from data_pipeline.refresh import refresh
from data_pipeline.report import write_report
from data_pipeline.sources import list_files, read_records
from tests.data_pipeline.made_inputs import inputs_of, prose
from tests.data_pipeline.test_corpus_refresh import write_sources

Row = dict[str, Any]


def kept(source: str, number: int) -> Row:
    return {"doc_id": f"{source}{number}", "source": source, "text": "a text", "version": 1}


def removed(source: str, number: int, **changes: Any) -> Row:
    row = {"doc_id": f"{source}{number}", "source": source, "stage": "filter", "reason": "too_few_words"}
    return row | {"version": 1} | changes


def commit(corpus: Corpus, documents: list[Row], removals: list[Row], read: list[Row]) -> Row:
    files = [
        corpus.write_file(table, pa.Table.from_pylist(rows, schema=TABLES[table]), "part.parquet")
        for table, rows in (("documents", documents), ("removed", removals))
        if rows
    ]
    return corpus.commit(files, inputs_of(read), {"version": 1})


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus(tmp_path / "corpus")
    corpus.prepare()
    return corpus


def test_what_was_read_is_committed_when_it_adds_up(corpus: Corpus) -> None:
    documents, removals = [kept("a", 1), kept("a", 2)], [removed("a", 3), removed("b", 4)]
    version = commit(corpus, documents, removals, documents + removals)
    assert {(row["source"], row["stage"], row["reason"]): row["count"] for row in corpus.funnel(version)} == {
        ("a", "kept", ""): 2,
        ("a", "filter", "too_few_words"): 1,
        ("b", "filter", "too_few_words"): 1,
    }


ALL = [kept("a", 1), removed("a", 2), kept("b", 3), removed("b", 4)]


@pytest.mark.parametrize(
    ("documents", "removals", "message"),
    [
        (ALL[::2], ALL[1:2], "source b: 2 documents were read, but 1 are kept and 0 removed"),
        (ALL[2:3], ALL[1::2], "source a: 2 documents were read, but 0 are kept and 1 removed"),
        (
            ALL[::2],
            [*ALL[1::2], removed("a", 2)],
            "source a: 2 documents were read, but 1 are kept and 2 rem",
        ),
        # One too many in one source does not make up for one too few in another.
        (
            [*ALL[::2], kept("a", 5)],
            ALL[1:2],
            "source a: 2 documents were read, but 2 are kept and 1 removed",
        ),
        ([*ALL[::2], kept("c", 5)], ALL[1::2], "source c: 0 documents were read, but 1 are kept"),
        (
            ALL[::2],
            [ALL[1], removed("b", 4, reason=None)],
            "source b: documents are removed without a reason",
        ),
        (ALL[::2], [ALL[1], removed("b", 4, stage="")], "source b: documents are removed without a reason"),
    ],
)
def test_a_version_that_does_not_add_up_is_not_committed(
    corpus: Corpus, documents: list[Row], removals: list[Row], message: str
) -> None:
    with pytest.raises(LostDocuments, match=message):
        commit(corpus, documents, removals, ALL)
    assert corpus.latest() is None
    assert all(DeltaTable(str(corpus.path(name))).file_uris() == [] for name in TABLES)


def test_an_older_workspace_gains_the_columns_it_lacks_and_keeps_its_rows(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    later = ("num_chars", "num_words", "lang", "lang_score")
    older = pa.schema([field for field in schema.REMOVED if field.name not in later])
    path = corpus.path("removed")
    path.mkdir(parents=True)
    DeltaTable.create(str(path), older)
    # As an older gptmill wrote it: the first call adds the columns, so its version is made without it.
    corpus.path("documents").mkdir()
    for name in ("documents", "signatures", "inputs"):
        DeltaTable.create(str(corpus.path(name)), TABLES[name])
    first = commit(corpus, [kept("a", 1)], [removed("a", 2)], ALL[:2])
    assert "lang" not in [field.name for field in DeltaTable(str(path)).schema().fields]
    assert corpus.read("removed", first, ["doc_id", "lang"]).to_pylist() == [{"doc_id": "a2", "lang": None}]

    assert corpus.prepare() == corpus.at(1)
    row = removed("a", 3, version=2, lang="en", num_chars=7)
    file = corpus.write_file("removed", pa.Table.from_pylist([row], schema=schema.REMOVED), "two.parquet")
    second = corpus.commit([file], inputs_of([row]), {"version": 2})
    assert corpus.prepare() == corpus.at(2)
    rows = corpus.read("removed", second, ["doc_id", "lang", "num_chars"]).sort_by("doc_id").to_pylist()
    assert rows == [
        {"doc_id": "a2", "lang": None, "num_chars": None},
        {"doc_id": "a3", "lang": "en", "num_chars": 7},
    ]
    assert corpus.scan("removed", second).schema.equals(schema.REMOVED)
    # Any reader of Delta Lake sees them, too.
    assert set(DeltaTable(str(path)).to_pyarrow_table().column_names) == set(schema.REMOVED.names)


# ---------------------------------------------------------------------------------------------- with a refresh


@pytest.mark.usefixtures("ray_cluster")
def test_a_refresh_that_lost_a_file_of_removed_documents_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_sources(tmp_path / "in")
    write = refresh_module.write_tables

    def lossy(*arguments: Any) -> tuple[list[DataFile], Any]:
        files, counts = write(*arguments)
        return [file for file in files if file.table != "removed"], counts

    monkeypatch.setattr(refresh_module, "write_tables", lossy)
    with pytest.raises(
        LostDocuments, match="source book: 2 documents were read, but 1 are kept and 0 removed"
    ):
        refresh(Corpus(tmp_path / "corpus"), config, tmp_path)
    assert Corpus(tmp_path / "corpus").latest() is None


@pytest.mark.usefixtures("ray_cluster")
def test_running_twice_changes_not_one_byte(tmp_path: Path) -> None:
    config = write_sources(tmp_path / "in")
    corpus = Corpus(tmp_path / "corpus")
    refresh(corpus, config, tmp_path)
    before = digests(corpus.root)
    again = refresh(corpus, config, tmp_path)
    assert not again.changed
    assert digests(corpus.root) == before


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("ray_cluster")
def test_removed_documents_say_what_was_measured_before(tmp_path: Path) -> None:
    german = "Der Bauer ging langsam über die Brücke und wartete auf den Zug am Abend. " * 20
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(f'{{"text": "{text}", "id": "{name}"}}' for name, text in (
            ("short", "Too short to keep, this one."), ("german", german), ("good", prose(1)), ("copy", prose(1)),
            ("empty", " "),
        )) + "\n{bad\n"
    )  # fmt: skip
    source = SourceConfig(
        name="rows", paths=[str(tmp_path / "rows.jsonl")], preset="web", uri_column="id",
        language=LanguageConfig(keep=["en"]),
    )  # fmt: skip
    corpus = Corpus(tmp_path / "corpus")
    version = refresh(corpus, RefreshConfig(sources=[source]), tmp_path).version
    rows = {row["uri"]: row for row in corpus.scan("removed", version).to_table().to_pylist()}
    (copy,) = rows.keys() & {"good", "copy"}
    assert (rows[copy]["num_words"], rows[copy]["lang"]) == (160, "en")
    assert rows[copy]["lang_score"] > 0.5
    assert (rows["german"]["lang"], rows["german"]["num_words"]) == ("de", None)
    assert rows["german"]["num_chars"] == len(german.strip())
    assert (rows["short"]["num_chars"], rows["short"]["num_words"]) == (28, 6)
    # What came to no text has no length and no language.
    for uri in ("empty", *(rows.keys() - {"short", "german", copy, "empty"})):
        assert [rows[uri][name] for name in ("num_chars", "num_words", "lang", "lang_score")] == [None] * 4
        assert rows[uri]["stage"] in schema.BEFORE_TEXT
    assert len(rows) == 5


@pytest.mark.usefixtures("ray_cluster")
def test_the_funnel_adds_up_on_every_kind_of_real_data(shared_data: Path, tmp_path: Path) -> None:
    small = [
        str(path)
        for path in sorted((shared_data / "web" / "warc").iterdir())
        if path.stat().st_size < 100_000
    ]
    sources = [
        SourceConfig(name="web", kind="web", paths=small),
        SourceConfig(name="c4", paths=[str(shared_data / "web" / "text" / "c4_demo.jsonl")], preset="web"),
        SourceConfig(name="dolma", paths=[str(shared_data / "web" / "text" / "*.jsonl.gz")], preset="web"),
        SourceConfig(name="wiki", kind="wiki", paths=[str(shared_data / "wiki" / "dbpedia-*.bz2")]),
        SourceConfig(name="book-en", kind="books", paths=[str(shared_data / "books" / "pg-en" / "4*-0.txt")]),
        SourceConfig(
            name="book-fr", kind="books", paths=[str(shared_data / "books" / "pg-fr" / "Candide.txt")]
        ),
        SourceConfig(
            name="book-zh", kind="books", paths=[str(shared_data / "books" / "pg-zh" / "23950-0.txt")]
        ),
        SourceConfig(
            name="epub", kind="books", paths=[str(shared_data / "books" / "epub" / "wasteland.epub")]
        ),
        SourceConfig(
            name="alpaca",
            paths=[str(shared_data / "instruct" / "seed_tasks.jsonl")],
            text_column="instruction",
        ),
        SourceConfig(name="words", paths=[str(shared_data / "lm" / "wiki_demo.txt")]),
    ]
    corpus = Corpus(tmp_path / "corpus")
    version = refresh(corpus, RefreshConfig(sources=sources), tmp_path).version
    read = {
        source.name: sum(1 for path in list_files(source) for _ in read_records(source, path))
        for source in sources
    }
    funnel = corpus.funnel(version)
    for source, number in read.items():
        rows = [row for row in funnel if row["source"] == source]
        assert number == sum(row["count"] for row in rows) > 0, source
        assert all(row["stage"] == "kept" or row["reason"] for row in rows)
    assert sum(read.values()) == version["num_documents"]
    assert len({row["reason"] for row in funnel}) > 10
    # And the report says so.
    write_report(corpus, version, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for source, number in read.items():
        assert f'<td>{source}</td><td class="n">{number:,}</td>' in text
