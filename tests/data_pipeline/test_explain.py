"""An explanation walks the refresh's own steps, comes to its verdicts, and says what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_pipeline import schema, staging
from data_pipeline.config import (
    CleanConfig,
    DedupConfig,
    ExtractConfig,
    LanguageConfig,
    RefreshConfig,
    SourceConfig,
)
from data_pipeline.corpus import Corpus
from data_pipeline.explain import Passage, explain_duplicates, explain_record, find_again, find_records
from data_pipeline.filter_values import rule_values
from data_pipeline.refresh import refresh
from data_pipeline.sources import Record, list_files
from data_pipeline.staging import process, raw_table
from tests.data_pipeline.made_inputs import HTML, page, prose, reworded, write_warc
from tests.data_pipeline.test_corpus_refresh import write_sources

WEB = SourceConfig(name="web", kind="web", paths=["unused"])
CONFIG = RefreshConfig(sources=[WEB], language=LanguageConfig(keep=["en"]))


def html(text: str, title: str = "A page", **changes: Any) -> Record:
    return Record("http://a.test/", page(text, title).decode(), "html", **changes)


def passages_of(record: Record, config: RefreshConfig = CONFIG) -> dict[str, Passage]:
    passages, _ = explain_record(record, config.sources[0], config, "a.warc.gz")
    return {passage.step: passage for passage in passages}


def assert_same_verdict(record: Record, source: SourceConfig, config: RefreshConfig, input_file: str) -> None:
    passages, text = explain_record(record, source, config, input_file)
    (row,) = process(raw_table([record], 0, source, input_file), config.of(source)).to_pylist()
    *before, last = passages
    assert all(passage.outcome == "kept" for passage in before)
    if row["reason"] is None:
        assert (last.outcome, text) == ("kept", row["text"])
        assert [passage.step for passage in passages] == ["read", *(name for name, _ in staging.STEPS)]
    else:
        assert (last.step, last.outcome, text) == (row["stage"], row["reason"], None)


def test_an_explanation_comes_to_the_verdict_of_a_refresh(tmp_path: Path) -> None:
    config = write_sources(tmp_path)
    number = 0
    for source in config.sources:
        for path in list_files(source):
            for record in find_records(source, path, []):
                assert_same_verdict(record, source, config, path.name)
                number += 1
    assert number == 10 + 2 + 4 + 9


def test_real_documents_are_explained_as_a_refresh_treats_them(shared_data: Path) -> None:
    for kind, name in (
        ("web", "web/warc/dolma-sample-0001.warc.gz"),
        ("web", "web/warc/cc-whirlwind.warc.wet.gz"),
        ("wiki", "wiki/dbpedia-minidump-jawiki.xml.bz2"),
        ("books", "books/pg-en/41-0.txt"),
    ):
        source = SourceConfig(name=kind, kind=kind, paths=[str(shared_data / name)])
        config = RefreshConfig(sources=[source])
        for path in list_files(source):
            for record in find_records(source, path, []):
                assert_same_verdict(record, source, config, path.name)


def test_each_step_says_what_it_did(tmp_path: Path) -> None:
    found = passages_of(html(f"{prose(1)} A cafÃ©.", "Titles &amp; such", date="2024-05-06"))
    assert list(found) == ["read", *(name for name, _ in staging.STEPS)]
    assert {passage.outcome for passage in found.values()} == {"kept"}
    assert "characters of html" in found["read"].lines[0]
    assert "date: 2024-05-06" in found["read"].lines
    assert "title: Titles &amp; such" in found["extract"].lines
    assert any(line.startswith("begins: ") for line in found["extract"].lines)
    assert any(
        "[-cafÃ©-]{+café+}" in line and "encode latin-1, decode utf-8" in line
        for line in found["clean"].lines
    )
    assert found["language"].lines[0].startswith("en, certainty 0.")
    assert found["language"].lines[1] == "wanted: en, certainty at least 0"


def test_what_was_masked_is_counted_and_shown(tmp_path: Path) -> None:
    found = passages_of(html(f"{prose(1)} Write to jane.doe@example.org or bob@example.org."))["privacy"]
    assert found.lines[0] == "masked: email 2"
    assert "[-jane.doe@example.org-]" in found.lines[1]
    assert passages_of(html(prose(1)))["privacy"].lines == ["found no personal data"]
    book = RefreshConfig(sources=[dataclasses.replace(WEB, kind="books", name="b")])
    assert passages_of(html(prose(1)), book)["privacy"].lines == ["not looked for in this source"]


def test_stock_lines_that_went_are_shown() -> None:
    source = SourceConfig(name="w", kind="files", paths=["x"], preset="web")
    record = Record("u", f"{prose(1)}\nRead more »\n{prose(2)}")
    passages, text = explain_record(record, source, RefreshConfig(sources=[source]), "x")
    (found,) = [passage for passage in passages if passage.step == "clean"]
    assert "stock line taken out: Read more »" in found.lines
    assert text is not None
    assert "Read more" not in text


def test_the_record_that_a_reader_refused_says_so() -> None:
    found = passages_of(Record("http://a.test/x", reason="redirect", title="moved"))
    assert list(found) == ["read"]
    assert (found["read"].outcome, found["read"].lines) == ("redirect", ["title: moved"])


def test_a_step_that_removes_is_the_last() -> None:
    german = "Der Bauer ging langsam über die Brücke und wartete auf den Zug am Abend. " * 20
    found = passages_of(html(german))
    assert list(found)[-1] == "language"
    assert found["language"].outcome == "language_de"
    assert found["language"].lines[0].startswith("de, ")


def test_every_rule_shows_its_value_beside_its_bound() -> None:
    found = passages_of(html("Too short to keep."))["filter"]
    assert found.outcome == "too_few_words"
    words = next(line for line in found.lines if line.startswith("too_few_words")).split()
    assert words == ["too_few_words", "6", "at", "least", "50", "FAILS"]
    # It is the first of those that fail; the others are shown, too.
    verdicts = {line.split()[0]: line.split()[-1] for line in found.lines}
    assert next(reason for reason, verdict in verdicts.items() if verdict == "FAILS") == "too_few_words"
    assert list(verdicts.values()).count("passes") >= 8
    assert set(verdicts.values()) == {"FAILS", "passes"}


@pytest.mark.parametrize(
    "text", [prose(1), "", "short", "# " * 500, "- a b c\n" * 200, "1 2 3 4 " * 100, "a " * 200_000]
)
@pytest.mark.parametrize("preset", ["web", "books", "permissive"])
def test_the_first_rule_that_fails_is_the_reason(text: str, preset: str) -> None:
    source = dataclasses.replace(WEB, preset=preset)
    config = RefreshConfig(sources=[source])
    row = pa.table({"text": [text], "lang": ["en"], "uri": ["u"], "source": ["web"]})
    values = rule_values(row, config.of(source))
    fails = [value.reason for value in values if value.fails]
    _, removed = dict(staging.STEPS)["filter"](row, config.of(source))
    assert fails[:1] == removed["reason"].to_pylist()
    for value in values:
        if value.value is not None and value.bound is not None:
            assert value.fails == (value.value < value.bound if value.is_least else value.value > value.bound)
    if removed.num_rows:
        first = next(value for value in values if value.fails)
        assert (first.value, first.bound) == (removed["value"][0].as_py(), removed["threshold"][0].as_py())


def test_a_step_that_nobody_described_shows_the_columns_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(table: pa.Table, treatment: Any) -> tuple[pa.Table, pa.Table]:
        texts = [text.replace("river", "RIVER") for text in table["text"].to_pylist()]
        table = schema.replace_column(table, "text", pa.array(texts))
        return schema.keep_all(schema.replace_column(table, "a_score", pa.array([0.123456])))

    def refuse(table: pa.Table, treatment: Any) -> tuple[pa.Table, pa.Table]:
        return schema.split(table, "refuse", [schema.Verdict("unwanted", 3.0, 2.0)])

    monkeypatch.setattr(staging, "STEPS", (*staging.STEPS, ("score", score), ("refuse", refuse)))
    found = passages_of(html(prose(1, 400)))
    assert "a_score: 0.123" in found["score"].lines
    assert any("[-river-]{+RIVER+}" in line for line in found["score"].lines)
    assert found["refuse"].outcome == "unwanted"
    assert found["refuse"].lines == ["reason: unwanted", "value: 3", "threshold: 2"]


# ----------------------------------------------------------------------------------------------- with a corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> tuple[Path, RefreshConfig]:
    folder = tmp_path_factory.mktemp("explained")
    captures = [(f"http://a.test/{n}", "200 OK", HTML, page(prose(n), f"P{n}")) for n in range(4)]
    # The same page again, changed: both are of one uri.
    captures += [("http://a.test/1", "200 OK", HTML, page(prose(71), "P1 anew"))]
    write_warc(folder / "a.warc.gz", captures)
    config = RefreshConfig(sources=[SourceConfig(name="web", kind="web", paths=[str(folder / "a.warc.gz")])])
    refresh(Corpus(folder / "corpus"), config, folder)
    return folder, config


def test_the_most_similar_documents_of_a_corpus_are_found(made: tuple[Path, RefreshConfig]) -> None:
    folder, config = made
    corpus = Corpus(folder / "corpus")
    stored = {row["uri"]: row for row in corpus.scan("documents", corpus.at()).to_table().to_pylist()}
    text = stored["http://a.test/2"]["text"]

    def asked(text: str, uri: str = "http://new.test/", dedup: DedupConfig = config.dedup) -> Passage:
        return explain_duplicates(text, uri, corpus, corpus.at(), dedup)

    copy = asked(text.upper())
    assert copy.outcome == "exact_duplicate"
    assert stored["http://a.test/2"]["doc_id"] in copy.lines[1]
    near = asked(reworded(text, 2))
    assert near.outcome == "near_duplicate"
    assert near.lines[1].startswith("similarity 0.8")
    assert "changed0x0" in near.lines[1]
    far = asked(reworded(text, 9))
    assert far.outcome == "kept"
    assert far.lines[1].startswith("similarity 0.")
    assert asked(prose(99)).lines == ["threshold 0.8", "none is similar"]
    half = " ".join(text.split()[: len(text.split()) * 2 // 3])
    assert asked(half).outcome == "kept"
    assert "has 100% of it" in asked(half).lines[1]
    assert asked(half, dedup=DedupConfig(containment=0.9)).outcome == "excerpt"
    itself = asked(text, "http://a.test/2")
    assert itself.outcome == "kept"
    assert "the corpus holds it" in itself.lines[1]
    other = asked(text, dedup=DedupConfig(num_permutations=64))
    assert other.outcome == "not asked"


def test_a_document_is_found_again_among_captures_of_its_uri(made: tuple[Path, RefreshConfig]) -> None:
    folder, config = made
    corpus = Corpus(folder / "corpus")
    rows = [
        row
        for row in corpus.scan("documents", corpus.at()).to_table().to_pylist()
        if row["uri"] == "http://a.test/1"
    ]
    assert len(rows) == 2
    for row in rows:
        record = find_again(row, config.sources[0], config, folder)
        assert record is not None
        assert row["title"] in record.content
    assert find_again({**rows[0], "doc_id": "0" * 32}, config.sources[0], config, folder) is None
    assert find_again({**rows[0], "input_file": "gone.warc.gz"}, config.sources[0], config, folder) is None


def test_a_configuration_comes_back_from_what_a_version_keeps() -> None:
    source = SourceConfig(
        name="a", kind="web", paths=["x"], preset="wiki", weight=2.0, metadata_columns=["b"],
        extraction=ExtractConfig("fast"), clean=CleanConfig(strip_addresses=True), language=LanguageConfig(["en"], 0.5),
    )  # fmt: skip
    plain = SourceConfig(name="b", paths=["y"])
    config = RefreshConfig(
        [source, plain], clean=CleanConfig(fix_encoding=False), dedup=DedupConfig(threshold=0.7)
    )
    content = config.content()
    restored = RefreshConfig.from_content({**content, "unknown": 1})
    assert restored.content() == content
    assert restored.config_hash == config.config_hash
    assert restored.sources[0].language == LanguageConfig(["en"], 0.5)
    assert restored.sources[1].extraction is None
