"""A refresh on a real Ray: every document is accounted for, versions add up, and nothing half-done is seen."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data._internal.execution import resource_manager, streaming_executor_state

from data_pipeline import schema
from data_pipeline.config import CleanConfig, DedupConfig, LanguageConfig, RefreshConfig, SourceConfig
from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.dedup.member_files import members_of
from data_pipeline.engine import collect, from_tables, map_tables
from data_pipeline.errors import InputError
from data_pipeline.filter_presets import PRESETS
from data_pipeline.refresh import RefreshResult, refresh
from tests.data_pipeline.made_inputs import HTML, book, dump, page, prose, reworded, write_pages, write_warc

pytestmark = pytest.mark.usefixtures("ray_cluster")

HOSTILE = [
    "a lone surrogate \ud800 in the middle",
    "NUL \x00 and controls \x01\x02\x1b[31m",
    "x" * 200_000,
    "word " * 30_000,
    "\u202eright to left\u202c and \ufeff marks",
    "<script>alert(1)</script>",
]


def write_sources(folder: Path) -> RefreshConfig:
    """Ten web captures, two books, a wiki of four pages, and a file of odd rows."""
    for name in ("web", "books", "wiki", "rows"):
        (folder / name).mkdir(parents=True)
    write_pages(folder / "web" / "a.warc.gz", [prose(seed) for seed in range(5)])
    write_warc(
        folder / "web" / "b.warc.gz",
        [
            ("http://b.test/gone", "404 Not Found", HTML, b"gone"),
            ("http://b.test/short", "200 OK", HTML, page("Too short to keep.")),
            ("http://b.test/copy", "200 OK", HTML, page(prose(0), "Page 0")),
            ("http://b.test/near", "200 OK", HTML, page(reworded(prose(1), 2), "Page 1")),
            ("http://b.test/empty", "200 OK", HTML, b""),
        ],
    )
    (folder / "books" / "one.txt").write_text(book("\n\n".join(prose(seed) for seed in range(10, 15))))
    (folder / "books" / "two.txt").write_bytes(b"\0\0\0")
    pages = [("A", prose(20)), ("B", prose(21)), ("C", "#REDIRECT [[A]]"), ("D", "")]
    (folder / "wiki" / "dump.xml").write_text(dump(pages))
    rows = [{"text": text} for text in HOSTILE] + [{"text": prose(2)}, {"other": 1}]
    rows = [{"id": f"row-{number}", **row} for number, row in enumerate(rows, start=1)]
    (folder / "rows" / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n{bad\n")
    return RefreshConfig(
        sources=[
            SourceConfig(name="web", kind="web", paths=[str(folder / "web")], license="CC0"),
            SourceConfig(name="book", kind="books", paths=[str(folder / "books")]),
            SourceConfig(name="wiki", kind="wiki", paths=[str(folder / "wiki")]),
            SourceConfig(name="rows", kind="files", paths=[str(folder / "rows")], uri_column="id"),
        ]
    )


def run(workspace: Path, config: RefreshConfig) -> RefreshResult:
    return refresh(Corpus(workspace / "corpus"), config, workspace)


def rows_of(corpus: Corpus, table: str) -> list[dict]:
    version = corpus.latest()
    assert version is not None
    return corpus.scan(table, version).to_table().to_pylist()


def only(config: RefreshConfig, name: str) -> RefreshConfig:
    return dataclasses.replace(config, sources=[source for source in config.sources if source.name == name])


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> tuple[Path, RefreshConfig, RefreshResult]:
    """One refresh of all sources that the tests below look at and do not change."""
    workspace = tmp_path_factory.mktemp("workspace")
    config = write_sources(workspace / "in")
    return workspace, config, run(workspace, config)


Made = tuple[Path, RefreshConfig, RefreshResult]


def test_every_document_read_is_kept_or_removed(made: Made) -> None:
    workspace, _, result = made
    corpus = Corpus(workspace / "corpus")
    documents, removed = rows_of(corpus, "documents"), rows_of(corpus, "removed")
    assert result.changed
    assert result.version["num_documents"] == 10 + 2 + 4 + 9
    assert len(documents) == result.version["num_kept"]
    assert len(removed) == result.version["num_removed"]
    assert len(documents) + len(removed) == result.version["num_documents"]
    assert sum(row["count"] for row in corpus.funnel(result.version)) == result.version["num_documents"]


def test_each_document_is_removed_for_its_own_reason(made: Made) -> None:
    removed = rows_of(Corpus(made[0] / "corpus"), "removed")
    reasons = Counter((row["source"], row["stage"], row["reason"]) for row in removed)
    expected = {
        ("web", "read", "http_status"): 1,
        ("web", "read", "empty_body"): 1,
        ("web", "filter", "too_few_words"): 1,
        ("web", "exact_dedup", "exact_duplicate"): 1,
        ("web", "near_dedup", "near_duplicate"): 1,
        ("book", "read", "not_text"): 1,
        ("wiki", "read", "redirect"): 1,
        ("wiki", "read", "empty_page"): 1,
        ("rows", "read", "no_text_field"): 1,
        ("rows", "read", "bad_json"): 1,
    }
    assert {key: reasons[key] for key in expected} == expected


def test_a_removed_copy_names_the_document_kept_for_it(made: Made) -> None:
    corpus = Corpus(made[0] / "corpus")
    kept = {row["doc_id"]: row for row in rows_of(corpus, "documents")}
    copies = [row for row in rows_of(corpus, "removed") if row["duplicate_of"]]
    # Of the near copies the longer text stays, of equal texts that of the smaller id, which is a hash.
    removed = {row["uri"]: row for row in copies}
    equal = {"http://b.test/copy", "http://pages.test/0"}
    assert set(removed) in ({"http://pages.test/1", "row-7", uri} for uri in equal)
    for row in copies:
        assert row["duplicate_of"] in kept
        assert 0.8 <= row["similarity"] <= 1.0
    (copy,) = equal & set(removed)
    assert {kept[removed[copy]["duplicate_of"]]["uri"]} == equal - {copy}


def test_of_equal_documents_the_earlier_source_keeps_its_own(made: Made) -> None:
    corpus = Corpus(made[0] / "corpus")
    (row,) = (row for row in rows_of(corpus, "removed") if row["uri"] == "row-7")
    kept = {row["doc_id"]: row["source"] for row in rows_of(corpus, "documents")}
    # The web page has its title in front, so the texts are near, not equal.
    assert (row["stage"], kept[row["duplicate_of"]]) == ("near_dedup", "web")


def test_a_document_has_the_columns_of_the_contract(made: Made) -> None:
    corpus = Corpus(made[0] / "corpus")
    version = corpus.latest()
    assert version is not None
    for table, columns in TABLES.items():
        assert corpus.scan(table, version).schema.equals(columns)
    documents = {row["uri"]: row for row in rows_of(corpus, "documents")}
    web = documents["http://pages.test/3"]
    assert (web["source"], web["title"], web["lang"], web["license"]) == ("web", "Page 3", "en", "CC0")
    assert (web["date"], web["input_file"], web["version"]) == ("2024-05-06T07:08:09Z", "in/web/a.warc.gz", 1)
    assert prose(3) in web["text"]
    assert web["num_chars"] == len(web["text"])
    assert web["num_words"] >= 160
    (book,) = (row for row in documents.values() if row["source"] == "book")
    assert (book["title"], book["date"]) == ("A Book", "March 1, 2004")
    assert json.loads(book["metadata"])["author"] == "Some One"
    assert documents["https://wiki.test/wiki/A"]["text"] == prose(20)
    assert len({row["doc_id"] for row in documents.values()}) == len(documents)


def test_each_kept_document_has_its_signature(made: Made) -> None:
    corpus = Corpus(made[0] / "corpus")
    signatures = {row["doc_id"]: row for row in rows_of(corpus, "signatures")}
    documents = rows_of(corpus, "documents")
    assert set(signatures) == {row["doc_id"] for row in documents}
    assert all(len(row["signature"]) == 4 * 128 for row in signatures.values())


def test_every_input_file_is_recorded_with_its_counts(made: Made) -> None:
    inputs = {row["path"]: row for row in rows_of(Corpus(made[0] / "corpus"), "inputs")}
    assert {path: row["num_documents"] for path, row in inputs.items()} == {
        "in/web/a.warc.gz": 5,
        "in/web/b.warc.gz": 5,
        "in/books/one.txt": 1,
        "in/books/two.txt": 1,
        "in/wiki/dump.xml": 4,
        "in/rows/rows.jsonl": 9,
    }
    for row in inputs.values():
        assert row["num_kept"] + row["num_removed"] == row["num_documents"]
        assert (row["status"], row["error"], row["version"]) == ("ok", None, 1)
    assert inputs["in/web/a.warc.gz"]["size"] == (made[0] / "in/web/a.warc.gz").stat().st_size


def test_hostile_texts_end_as_clean_documents_or_as_reasons(made: Made) -> None:
    corpus = Corpus(made[0] / "corpus")
    rows = {row["uri"]: row for table in ("documents", "removed") for row in rows_of(corpus, table)}
    assert {f"row-{number}" for number in range(1, 7)} <= set(rows)
    assert rows["row-1"]["reason"] == "undecodable_characters"
    assert rows["row-1"]["text_sample"] == "a lone surrogate \ufffd in the middle"
    assert rows["row-2"]["text"] == "NUL  and controls"
    assert rows["row-3"]["text"] == "x" * 200_000
    assert rows["row-6"]["text"] == "<script>alert(1)</script>"


def test_nothing_of_the_work_is_left_beside_the_tables(made: Made) -> None:
    corpus = made[0] / "corpus"
    assert sorted(path.name for path in corpus.iterdir()) == sorted([".lock", *TABLES, "versions", "reports"])
    reports = sorted(path.name for path in (corpus / "reports").iterdir())
    assert reports == ["dedup-000001.json", "version-000001.json"]


def test_two_workspaces_with_the_same_inputs_hold_the_same_documents(made: Made, tmp_path: Path) -> None:
    config = write_sources(tmp_path / "in")
    # Other units, so other blocks, files and order of the tasks.
    run(tmp_path, dataclasses.replace(config, unit_bytes=1))
    for table in ("documents", "removed", "signatures", "inputs"):
        columns = [name for name in TABLES[table].names if name not in ("sha256", "modified")]
        order = [(name, "ascending") for name in ("doc_id", "uri", "path") if name in columns]
        mine, theirs = (
            Corpus(folder / "corpus").read(table, Corpus(folder / "corpus").latest(), columns).sort_by(order)
            for folder in (tmp_path, made[0])
        )
        if table == "inputs":  # gzip writes the time into the archives
            mine, theirs = (side.drop_columns(["size"]) for side in (mine, theirs))
        assert mine.to_pylist() == theirs.to_pylist(), table


# ---------------------------------------------------------------------------------------------------- versions


def test_a_second_refresh_finds_nothing_new_and_a_new_file_adds_a_version(tmp_path: Path) -> None:
    config = only(write_sources(tmp_path / "in"), "web")
    corpus = Corpus(tmp_path / "corpus")
    first = run(tmp_path, config)
    before = {row["doc_id"]: row for row in rows_of(corpus, "documents")}

    again = run(tmp_path, config)
    assert (again.changed, again.new_inputs, again.known_inputs) == (False, 0, 2)
    assert again.version == first.version
    assert len(corpus.versions()) == 1

    write_pages(tmp_path / "in" / "web" / "c.warc.gz", [prose(50), prose(3), prose(51)], host="c.test")
    second = run(tmp_path, config)
    assert (second.changed, second.new_inputs, second.known_inputs) == (True, 1, 2)
    assert [row["version"] for row in corpus.versions()] == [1, 2]
    after = {row["doc_id"]: row for row in rows_of(corpus, "documents")}
    assert {key: row for key, row in after.items() if row["version"] == 1} == before
    assert sorted(row["uri"] for row in after.values() if row["version"] == 2) == [
        *("http://c.test/0", "http://c.test/2"),
    ]
    (copy,) = (row for row in rows_of(corpus, "removed") if row["version"] == 2)
    assert before[copy["duplicate_of"]]["uri"] == "http://pages.test/3"

    # The old version still reads as it was, and each refresh has its own funnel.
    assert corpus.read("documents", corpus.at(1), ["doc_id"])["doc_id"].to_pylist() == list(before)
    assert sum(row["count"] for row in corpus.funnel(corpus.at(2), only=True)) == 3
    assert sum(row["count"] for row in corpus.funnel(corpus.at(2))) == 13


def test_a_damaged_file_gives_what_is_good_in_it_and_is_named(tmp_path: Path) -> None:
    config = only(write_sources(tmp_path / "in"), "web")
    path = tmp_path / "in" / "web" / "a.warc.gz"
    path.write_bytes(path.read_bytes()[:-200])
    result = run(tmp_path, config)
    ((name, error),) = result.damaged
    assert name == "in/web/a.warc.gz"
    assert "EOFError" in error
    corpus = Corpus(tmp_path / "corpus")
    inputs = {row["path"]: row for row in rows_of(corpus, "inputs")}
    assert (inputs[name]["status"], inputs[name]["error"], inputs[name]["num_documents"]) == (
        "damaged",
        error,
        5,
    )
    assert ("read", "damaged_file") in {(row["stage"], row["reason"]) for row in rows_of(corpus, "removed")}


def test_files_without_a_single_good_document_make_a_version_that_keeps_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "bad.jsonl").write_text("{nonsense\n")
    source = SourceConfig(name="rows", paths=[str(tmp_path / "empty.jsonl"), str(tmp_path / "bad.jsonl")])
    result = run(tmp_path / "ws", RefreshConfig(sources=[source]))
    assert (result.version["num_documents"], result.version["num_kept"]) == (1, 0)
    assert {row["num_documents"] for row in rows_of(Corpus(tmp_path / "ws" / "corpus"), "inputs")} == {0, 1}


def test_only_the_wanted_languages_are_kept(tmp_path: Path) -> None:
    german = "Der Bauer ging langsam über die Brücke und wartete auf den Zug am Abend."
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (german, prose(1))))
    source = SourceConfig(name="rows", paths=[str(tmp_path / "a.jsonl")])
    run(tmp_path / "ws", RefreshConfig(sources=[source], language=LanguageConfig(keep=["de"])))
    assert [row["text"] for row in rows_of(Corpus(tmp_path / "ws" / "corpus"), "documents")] == [german]


def test_the_newest_refresh_that_names_a_source_says_its_weight(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "ws" / "corpus")
    for number, weights in enumerate(({"a": 2.0, "b": 3.0}, {"a": 1.0}), start=1):
        sources = []
        for name, weight in weights.items():
            path = tmp_path / f"{name}{number}.jsonl"
            path.write_text(json.dumps({"text": f"{prose(number)} {name}"}))
            sources.append(SourceConfig(name=name, paths=[str(path)], weight=weight))
        run(tmp_path / "ws", RefreshConfig(sources=sources))
    assert corpus.source_weights(corpus.at(1)) == {"a": 2.0, "b": 3.0}
    assert corpus.source_weights(corpus.at(2)) == {"b": 3.0}


def test_a_source_is_treated_by_options_of_its_own(tmp_path: Path) -> None:
    german = "Der Bauer ging langsam über die Brücke und wartete auf den Zug am Abend."
    for name in ("a", "b"):
        rows = [
            f"{text} {name}" for text in (german, prose(1), "½ full-width ＡＢＣ and a good many words more")
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in rows))
    own = SourceConfig(
        name="own",
        paths=[str(tmp_path / "a.jsonl")],
        language=LanguageConfig(keep=["en"]),
        clean=CleanConfig(normalization="NFKC"),
        filters={"max_words": 20},
    )
    common = SourceConfig(name="common", paths=[str(tmp_path / "b.jsonl")])
    config = RefreshConfig(sources=[own, common], language=LanguageConfig(keep=["en", "de"]))
    assert config.of(common) == dataclasses.replace(
        config.of(own),
        language=config.language,
        # Lines of stock are taken out of web pages only, where nothing else is said.
        clean=dataclasses.replace(config.clean, stock_lines=False),
        filters=PRESETS["permissive"],
    )
    run(tmp_path / "ws", config)
    corpus = Corpus(tmp_path / "ws" / "corpus")
    kept = {(row["source"], row["text"]) for row in rows_of(corpus, "documents")}
    assert kept == {
        ("own", "1⁄2 full-width ABC and a good many words more a"),
        ("common", "½ full-width ＡＢＣ and a good many words more b"),
        ("common", f"{german} b"),
        ("common", f"{prose(1)} b"),
    }
    removed = {(row["source"], row["stage"], row["reason"]) for row in rows_of(corpus, "removed")}
    assert removed == {("own", "language", "language_de"), ("own", "filter", "too_many_words")}


# ------------------------------------------------------------------------------------- what must not come through


def _half_commit(corpus: Corpus, uri: str) -> None:
    """What a refresh that was killed within its commit leaves: files in the tables and no row in versions."""
    corpus.prepare()
    row = {"doc_id": uri, "source": "web", "uri": uri, "text": "never committed", "version": 99}
    for table in ("documents", "removed"):
        file = corpus.write_file(table, pa.Table.from_pylist([row]), f"part-{uri}.parquet")
        corpus._write(table, [file], "append")


@pytest.mark.parametrize("when", ["before the first version", "after the first version"])
def test_a_half_commit_is_seen_by_nobody_and_rolled_back(tmp_path: Path, when: str) -> None:
    config = only(write_sources(tmp_path / "in"), "web")
    corpus = Corpus(tmp_path / "corpus")
    if when == "after the first version":
        run(tmp_path, config)
        write_pages(tmp_path / "in" / "web" / "c.warc.gz", [prose(60)], host="c.test")
    kept_before = len(rows_of(corpus, "documents")) if corpus.latest() else 0
    _half_commit(corpus, "ghost")
    if corpus.latest():
        assert len(rows_of(corpus, "documents")) == kept_before

    run(tmp_path, config)
    for table in ("documents", "removed"):
        assert "ghost" not in {row["doc_id"] for row in rows_of(corpus, table)}
    assert len(rows_of(corpus, "documents")) == (kept_before + 1 if kept_before else 5)
    # A reader that knows nothing of versions sees no ghost either.
    from deltalake import DeltaTable

    newest = DeltaTable(str(corpus.path("documents"))).to_pyarrow_table()
    assert newest.num_rows == len(rows_of(corpus, "documents"))


def test_a_source_that_would_lose_too_much_commits_nothing(tmp_path: Path) -> None:
    text = prose(1, 400)
    rows = [json.dumps({"text": reworded(text, 3, seed)}) for seed in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    source = SourceConfig(name="mine", paths=[str(tmp_path / "rows.jsonl")])
    config = RefreshConfig(sources=[source])
    with pytest.raises(InputError, match=r"dedup\.max_source_loss: source mine would lose 11 of 12 .*raise"):
        run(tmp_path / "ws", config)
    corpus = Corpus(tmp_path / "ws" / "corpus")
    assert corpus.latest() is None
    assert not (corpus.root / ".staging").exists()
    allowed = dataclasses.replace(config, dedup=DedupConfig(max_source_loss=1.0))
    assert run(tmp_path / "ws", allowed).version["num_kept"] == 1


@pytest.mark.parametrize(
    "dedup", [DedupConfig(num_permutations=64), DedupConfig(seed=2), DedupConfig(shingle_size=4)]
)
def test_signatures_of_another_scheme_are_refused(made: Made, dedup: DedupConfig) -> None:
    workspace, config, result = made
    with pytest.raises(InputError, match=r"dedup: the corpus was built with signatures .* new workspace"):
        run(workspace, dataclasses.replace(config, dedup=dedup))
    assert Corpus(workspace / "corpus").latest() == result.version


def test_another_threshold_fits_the_same_signatures(made: Made) -> None:
    workspace, config, _ = made
    assert not run(workspace, dataclasses.replace(config, dedup=DedupConfig(threshold=0.7))).changed


def test_nothing_to_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sources: there is nothing to read"):
        run(tmp_path, RefreshConfig())


def test_a_version_that_is_not_there_is_one_line(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no corpus yet"):
        Corpus(tmp_path).at()
    with pytest.raises(InputError, match="has no version 7; it has 1 to 1"):
        Corpus(made[0] / "corpus").at(7)


def test_a_task_that_kills_its_worker_ends_in_an_error_after_a_few_tries(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def deadly(table: pa.Table) -> pa.Table:
        open(f"{folder}/try-{os.getpid()}-{os.urandom(4).hex()}", "w").close()
        os._exit(1)

    with pytest.raises(Exception, match=r"(?i)worker|crash|died"):
        collect(map_tables(from_tables([pa.table({"n": [1]})]), deadly), pa.schema([("n", pa.int64())]))
    assert 1 <= len(list(tmp_path.glob("try-*"))) <= 3


def test_an_error_in_a_task_is_an_error_of_the_caller() -> None:
    def failing(table: pa.Table) -> pa.Table:
        raise RuntimeError("the reason of it all")

    with pytest.raises(Exception, match="the reason of it all"):
        collect(map_tables(from_tables([pa.table({"n": [1]})]), failing), pa.schema([("n", pa.int64())]))


def test_the_schema_of_staged_rows_holds_every_column_of_the_tables() -> None:
    staged = set(schema.STAGED.names)
    decided_later = {"version", "duplicate_of", "similarity", "text_sample"}
    for name in ("documents", "removed", "signatures"):
        assert set(TABLES[name].names) <= staged | decided_later


# -------------------------------------------------------------------------------------- deduplication in a refresh


def test_the_message_of_a_loss_shows_examples_and_an_accepted_one_goes_on(tmp_path: Path) -> None:
    text = prose(1, 400)
    rows = [{"id": f"row-{seed}", "text": reworded(text, 3, seed)} for seed in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = SourceConfig(name="mine", paths=[str(tmp_path / "rows.jsonl")], uri_column="id")
    with pytest.raises(
        InputError,
        match=r"12 like row-\d+ \(.{20,60}\), for example row-\d+ \(.*\) at 0\.\d\d.*--accept-loss mine",
    ):
        run(tmp_path / "ws", RefreshConfig(sources=[source]))
    for accepted in ("mine", ["other", "mine"]):
        config = RefreshConfig(sources=[source], accept_loss=accepted)
        assert run(tmp_path / f"ws-{len(accepted)}", config).version["num_kept"] == 1


def test_books_may_lose_less_than_web_pages(tmp_path: Path) -> None:
    texts = [prose(seed, 300) for seed in range(16)]
    copies = [reworded(text, 2) for text in texts[:3]]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts + copies))
    (tmp_path / "books").mkdir()
    for number, text in enumerate(texts + copies):
        (tmp_path / "books" / f"{number:02d}.txt").write_text(book(text, title=f"Book {number}"))
    rows = SourceConfig(name="rows", paths=[str(tmp_path / "rows.jsonl")])
    books = SourceConfig(name="book", kind="books", paths=[str(tmp_path / "books")])
    assert run(tmp_path / "rows", RefreshConfig(sources=[rows])).version["num_removed"] == 3
    with pytest.raises(InputError, match=r"source book would lose 3 of 19 documents \(16%\).* more than 10%"):
        run(tmp_path / "ws", RefreshConfig(sources=[books]))


def test_the_figures_of_deduplication_are_kept_beside_the_tables(made: Made) -> None:
    report = json.loads(Corpus(made[0] / "corpus").dedup_report(1).read_text())
    removed = [row for row in rows_of(Corpus(made[0] / "corpus"), "removed") if row["duplicate_of"]]
    assert (report["version"], report["threshold"]) == (1, 0.8)
    assert report["num_exact"] + report["num_near"] == len(removed) == 3
    assert report["histogram"] == [{"least": 2, "most": 3, "clusters": 3, "removed": 3}]
    assert len(report["largest"]) == 3
    for cluster in report["largest"]:
        assert cluster["size"] == 2
        (example,) = cluster["examples"]
        assert example["text"]
        assert cluster["kept"]["uri"] != example["uri"]


def test_a_refresh_reads_texts_of_kept_documents_only_where_a_new_one_meets_them(
    tmp_path: Path,
) -> None:
    source = SourceConfig(name="rows", paths=[str(tmp_path / "in")])
    config = RefreshConfig(sources=[source])
    (tmp_path / "in").mkdir()
    for number in range(3):
        texts = [prose(10 * number + seed, 200) for seed in range(5)]
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        (tmp_path / "in" / f"{number}.jsonl").write_text(lines)
        run(tmp_path / "ws", config)
    corpus = Corpus(tmp_path / "ws" / "corpus")
    version = corpus.latest()
    assert version is not None
    files = corpus.files("documents", version)
    assert len(files) == 3
    # Whoever reads one of the other two files, trips over it.
    meets = next(path for path in files if prose(12, 200) in pq.read_table(path)["text"].to_pylist())
    for path in set(files) - {meets}:
        Path(path).write_bytes(b"no Parquet")
    (tmp_path / "in" / "new.jsonl").write_text(json.dumps({"text": reworded(prose(12, 200), 1)}))
    assert run(tmp_path / "ws", config).version["num_removed"] == 1


def test_a_compacted_table_gives_its_texts_all_the_same(tmp_path: Path) -> None:
    source = SourceConfig(name="rows", paths=[str(tmp_path / "in")])
    (tmp_path / "in").mkdir()
    for number in range(2):
        lines = "\n".join(json.dumps({"text": prose(10 * number + seed, 200)}) for seed in range(5))
        (tmp_path / "in" / f"{number}.jsonl").write_text(lines)
        run(tmp_path / "ws", RefreshConfig(sources=[source]))
    corpus = Corpus(tmp_path / "ws" / "corpus")
    members = members_of(
        [], corpus.files("signatures", corpus.at()), corpus.files("documents", corpus.at()), {}
    )
    wanted = pa.table({"key": pa.array([-4, -2, -1], pa.int64())})
    schema_ = pa.schema([("key", pa.int64()), ("doc_id", pa.string()), ("text", pa.string())])
    before = collect(members.load(wanted, ["doc_id", "text"]), schema_).sort_by("key")
    assert before["text"].to_pylist() == [
        dict(
            zip(*corpus.read("documents", corpus.at(), ["doc_id", "text"]).to_pydict().values(), strict=True)
        )[doc]
        for doc in before["doc_id"].to_pylist()
    ]
    merged = tmp_path / "merged.parquet"
    pq.write_table(corpus.scan("documents", corpus.at()).to_table().sort_by("doc_id"), merged)
    moved = members_of([], corpus.files("signatures", corpus.at()), [str(merged)], {})
    assert collect(moved.load(wanted, ["doc_id", "text"]), schema_).sort_by("key").equals(before)


def test_rebuilding_makes_the_next_version_from_the_sources_alone(tmp_path: Path) -> None:
    config = only(write_sources(tmp_path / "in"), "web")
    run(tmp_path, config)
    write_pages(tmp_path / "in" / "web" / "c.warc.gz", [prose(50), prose(3)], host="c.test")
    run(tmp_path, config)
    (tmp_path / "in" / "web" / "b.warc.gz").unlink()
    corpus = Corpus(tmp_path / "corpus")

    # Another scheme is what a rebuild is for.
    other = dataclasses.replace(config, dedup=DedupConfig(num_permutations=64))
    with pytest.raises(InputError, match="--rebuild"):
        run(tmp_path, other)
    result = refresh(corpus, other, tmp_path, rebuild=True)
    assert (result.version["version"], result.new_inputs, result.known_inputs) == (3, 2, 0)
    fresh = run_elsewhere(tmp_path, other)
    for table in ("documents", "removed", "signatures", "inputs"):
        columns = [name for name in TABLES[table].names if name not in ("version", "modified")]
        mine, theirs = (
            sorted((tuple(row[name] for name in columns) for row in rows_of(side, table)), key=repr)
            for side in (corpus, fresh)
        )
        assert mine == theirs, table
    # Earlier versions still read as they were, and the next refresh goes on from the new one.
    assert [corpus.read("inputs", corpus.at(number), ["path"]).num_rows for number in (1, 2, 3)] == [2, 3, 2]
    write_pages(tmp_path / "in" / "web" / "d.warc.gz", [prose(50), prose(70)], host="d.test")
    after = run(tmp_path, other)
    assert (after.version["version"], after.version["num_kept"], after.version["num_removed"]) == (4, 1, 1)


def run_elsewhere(base: Path, config: RefreshConfig) -> Corpus:
    """The first version of another corpus with the same inputs, recorded under the same names."""
    corpus = Corpus(base / "elsewhere" / "corpus")
    refresh(corpus, config, base)
    return corpus


def test_ray_data_still_has_the_intervals_that_the_engine_shortens() -> None:
    source = inspect.getsource(resource_manager.ResourceManager.get_global_limits)
    assert "GLOBAL_LIMITS_UPDATE_INTERVAL_S" in source
    source = inspect.getsource(streaming_executor_state.process_completed_tasks)
    assert "timeout=WAIT_FOR_TASK_COMPLETION_TIMEOUT_S" in source
