"""The data report: the right numbers, complete in one file of bounded size, and nothing of a document in its markup."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import lxml.html
import pyarrow as pa
import pytest

from data_pipeline import evidence, schema
from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.report import sections, write_report
from data_pipeline.report.measures import measure
from data_pipeline.shards import Manifest, ShardInfo
from data_pipeline.wording import short_number, visible
from tests.data_pipeline.made_inputs import inputs_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }}{% raw %}</title></style><!--\u202e"
Row = dict[str, Any]


def corpus_of(
    root: Path, documents: list[Row], removed: list[Row], inputs: list[Row] | None = None
) -> Corpus:
    """A corpus of one version with these rows."""
    corpus = Corpus(root)
    corpus.prepare()
    files = [
        corpus.write_file(name, pa.Table.from_pylist(rows, schema=TABLES[name]), "part.parquet")
        for name, rows in (("documents", documents), ("removed", removed))
        if rows
    ]
    table = inputs_of([*documents, *removed])
    if inputs is not None:
        table = pa.Table.from_pylist(inputs, schema=schema.INPUTS)
    version = {
        "version": 1,
        "created_at": "2024-05-06T07:08:09+00:00",
        "config_hash": "ab" * 32,
        "config": "{}",
    }
    corpus.commit(files, table, {**version, "gptmill_version": EVIL})
    return corpus


def document(number: int, **changes: Any) -> Row:
    row = {
        "doc_id": f"d{number}", "source": "web", "uri": f"http://a{number}.test/", "title": "", "text": "", "version": 1,
        "lang": "en", "lang_score": 0.9, "num_words": 10, "num_chars": 20,
    }  # fmt: skip
    return row | changes


def removal(number: int, stage: str, reason: str, **changes: Any) -> Row:
    row = {"doc_id": f"r{number}", "source": "web", "uri": f"http://a{number}.test/", "stage": stage}
    return row | {"reason": reason, "version": 1} | changes


def write(corpus: Corpus, path: Path, tokens: Path | None = None) -> str:
    write_report(corpus, corpus.at(), path, tokens)
    return path.read_text(encoding="utf-8")


def text_of(report: str) -> str:
    page = lxml.html.document_fromstring(report)
    for style in page.xpath("//style"):
        style.drop_tree()
    return " ".join(page.text_content().split())


def rows_of(report: str) -> list[list[str]]:
    page = lxml.html.document_fromstring(report)
    return [
        [" ".join(cell.text_content().split()) for cell in row.iter("td", "th")] for row in page.iter("tr")
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of seven documents whose every text is hostile."""
    folder = tmp_path_factory.mktemp("report")
    same = {"text_sample": EVIL, "uri": EVIL, "num_chars": 300, "lang": "en", "lang_score": 0.4}
    documents = [
        document(
            1, uri=f"http://a.test/{EVIL}", title=EVIL, text=EVIL, lang=EVIL, num_words=1234, num_chars=56789
        ),
        document(2, lang=EVIL, num_words=10, num_chars=20),
    ]
    removed = [
        removal(1, "filter", "too_few_words", value=3.0, threshold=50.0, **same),
        removal(2, "near_dedup", "near_duplicate", duplicate_of="d1", similarity=0.875, **same),
        removal(3, "exact_dedup", "exact_duplicate", duplicate_of="d1", similarity=1.0, **same),
        removal(4, "a_new_step</style>", "a_new_reason", **same),
        removal(5, "read", EVIL, source="wiki", uri="u"),
    ]
    inputs = [
        {"path": EVIL, "source": "web", "kind": "web", "size": 4321, "status": "damaged", "error": EVIL,
         "num_documents": 6, "num_kept": 2, "num_removed": 4, "version": 1},
        {"path": "w.xml", "source": "wiki", "kind": "wiki", "size": 1, "status": "ok", "num_documents": 1,
         "num_kept": 0, "num_removed": 1, "version": 1},
    ]  # fmt: skip
    corpus = corpus_of(folder / "corpus", documents, removed, inputs)
    line = {
        "before": EVIL,
        "after": EVIL.replace("alert", "b"),
        "steps": [["apply", EVIL], ["encode", "latin-1"]],
    }
    pair = {"doc_id": "r2", "source": "web", "uri": EVIL, "similarity": 0.875, "keeper": "d1", "keeper_source": "web",
            "keeper_uri": EVIL, "left": f"one {EVIL} two", "right": f"one {EVIL} three"}  # fmt: skip
    found = evidence.Evidence(
        {"web": 3}, [{"source": "web", "uri": EVIL, "doc_id": "d1", "lines": [line]}], [pair]
    )
    evidence.save(found, corpus.evidence(1))
    return write(corpus, folder / "out" / "data.html")


# ------------------------------------------------------------------------------------------------- what it says


def test_the_report_counts_what_was_read_kept_and_removed(report: str) -> None:
    text = text_of(report)
    assert "7documents read" in text
    assert "2kept (28.6 %)" in text
    assert "2input files, 1 damaged" in text
    assert "56,809characters kept" in text
    assert "1,244words kept" in text
    assert "web 6 read, 2 kept" in text
    assert "wiki 1 read, 0 kept" in text
    (head,) = (row for row in rows_of(report) if row[:2] == ["Source", "Read"])
    assert head == [
        "Source",
        "Read",
        "kept",
        "read",
        "filter",
        "exact_dedup",
        "near_dedup",
        "a_new_step</style>",
        "Share kept",
    ]
    (web,) = (row for row in rows_of(report) if row[:2] == ["web", "6"])
    assert web == ["web", "6", "2", "", "1", "1", "1", "1", "33.3 %"]


def test_each_reason_has_its_count_what_was_measured_and_its_examples(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    cards = {card.find("summary").text_content().split()[1]: card for card in page.iter("details")
             if card.find("summary").find("b") is not None}  # fmt: skip
    words = cards["too_few_words"]
    assert "1 document, 14.3 % of all" in " ".join(words.text_content().split())
    (row,) = (row for row in rows_of(lxml.html.tostring(words, encoding="unicode")) if row[0] == "web")
    assert [row[1], row[2], *row[4:]] == ["1", "16.7 %", "3", "50"]
    assert "1 measured values, median 3, bound 50" in row[3]
    (example,) = words.find_class("example")
    assert "measured 3, bound 50" in example.text_content()
    assert "<script>alert(1)</script>" in example.find_class("text")[0].text_content()


def test_languages_domains_and_duplicates_are_counted(report: str) -> None:
    (language,) = (row for row in rows_of(report) if row[-3:-1] == ["1,244", "56,809"])
    assert (language[3], language[4], language[-1]) == ("2", "2", "28,404")
    assert ["web", "en"] in [row[:2] for row in rows_of(report)]
    domains = {row[0]: row[1:3] for row in rows_of(report) if row and row[0].endswith(".test")}
    assert domains == {"a.test": ["1", "0"], "a2.test": ["1", "0"]}
    assert "Removed as copies: 2 documents, for 1 that is kept; 1 near-duplicate, the rest" in text_of(report)
    assert ["3", "web"] in [row[:2] for row in rows_of(report)]
    assert "similarity 0.875" in text_of(report)
    assert "3 texts repaired" in text_of(report)


def test_the_damaged_file_is_said_first(report: str) -> None:
    odd = lxml.html.document_fromstring(report).find_class("odd")[0].text_content()
    assert "1 of 2 input files are damaged" in odd
    assert "Source wiki: none of 1 documents was kept" in odd


def test_a_source_that_lost_more_than_its_share_is_named(tmp_path: Path) -> None:
    documents = [document(n, source="good", uri=f"http://a.test/{n}") for n in range(30)]
    documents += [
        document(100 + n, source="bad", lang_score=0.2, uri=f"http://b{n % 10}.test") for n in range(25)
    ]
    documents += [document(900 + n, source="half", uri=f"http://c{n}.test") for n in range(25)]
    removed = [
        removal(n, "filter", "too_few_words", source="bad", value=1.0, threshold=2.0) for n in range(75)
    ]
    removed += [removal(200 + n, "read", "not_text", source="good") for n in range(300)]
    removed += [removal(600 + n, "near_dedup", "near_duplicate", source="half", duplicate_of="d1", similarity=0.9)
                for n in range(10)]  # fmt: skip
    corpus = corpus_of(tmp_path / "corpus", documents, removed)
    evidence.save(evidence.Evidence({"good": 20}), corpus.evidence(1))
    report = write(corpus, tmp_path / "r.html")
    found = [
        line.text_content() for line in lxml.html.document_fromstring(report).find_class("odd")[0].iter("li")
    ]
    assert found == [
        "Source bad lost 75% of the documents that had a text.",
        "Source bad: filter, too_few_words alone removed 75% of the documents that had a text.",
        "Source bad: the language of 100% of the kept documents is uncertain (score below 0.5).",
        "Source good: the encoding of 67% of the texts had to be repaired.",
    ]
    # Ten pages from each of two domains, the rest from one.
    documents = [document(n, uri=f"http://{'big' if n > 10 else n}.test/{n}") for n in range(30)]
    (line,) = _odd(corpus_of(tmp_path / "other", documents, []), tmp_path / "o.html")
    assert line == "Source web: 63% of the kept pages are from one domain, big.test."
    copies = [
        removal(n, "exact_dedup", "exact_duplicate", duplicate_of="d1", similarity=1.0) for n in range(29)
    ]
    lines = _odd(corpus_of(tmp_path / "third", [document(n) for n in range(40)], copies), tmp_path / "c.html")
    assert "42% of the documents that had a text are copies of others." in lines
    assert "30 documents are one group of duplicates; kept for them: http://a1.test/." in lines


def _odd(corpus: Corpus, path: Path) -> list[str]:
    found = lxml.html.document_fromstring(write(corpus, path)).find_class("odd")
    return [line.text_content() for section in found for line in section.iter("li")]


def test_nothing_odd_is_no_warning(tmp_path: Path) -> None:
    documents = [document(n) for n in range(30)]
    removed = [removal(n, "filter", "too_few_words", uri=f"http://b{n}.test") for n in range(5)]
    assert _odd(corpus_of(tmp_path / "corpus", documents, removed), tmp_path / "r.html") == []


def test_tokens_are_those_of_the_newest_dataset_of_this_version(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [document(1)], [])
    common: Row = {
        "tokenizer": "t",
        "tokenizer_sha256": "0",
        "vocab_size": 300,
        "eot_id": 0,
        "config_hash": "0",
    }
    assert "has not been tokenised yet" in text_of(write(corpus, tmp_path / "r.html", tmp_path / "tokens"))
    for place, (name, version, tokens) in enumerate((("old", 1, 111), ("new", 1, 1234), ("other", 2, 999))):
        shards = tuple(
            ShardInfo(f"{split}.arrow", "web", split, tokens * weight, weight, tokens * weight * 4, 1, "0")
            for split, weight in (("train", 9), ("val", 1))
        )
        folder = tmp_path / "tokens" / name / "v1"
        folder.mkdir(parents=True)
        manifest = Manifest(name=name, corpus_version=version, shards=shards, **common)
        (folder / "manifest.json").write_text(manifest.to_json())
        os.utime(folder / "manifest.json", (place, place))
    (tmp_path / "tokens" / "broken" / "v1").mkdir(parents=True)
    (tmp_path / "tokens" / "broken" / "v1" / "manifest.json").write_text("{")
    report = write(corpus, tmp_path / "r.html", tmp_path / "tokens")
    assert ["web", "12,340", "100.0 %", "11,106", "1,234", "10", "4.00"] in rows_of(report)
    assert "12,340tokens" in text_of(report)


def test_before_is_what_had_a_text_of_its_own(tmp_path: Path) -> None:
    removed = [
        removal(1, "filter", "too_few_words", num_chars=5, lang="en", lang_score=0.3),
        removal(2, "language", "language_de", num_chars=500, lang="de", lang_score=0.8),
        removal(3, "read", "redirect"),
        removal(4, "extract", "no_main_text"),
    ]
    corpus = corpus_of(tmp_path / "corpus", [document(1, num_chars=1000)], removed)
    version = corpus.at()
    found = measure(corpus, version, {}, [], corpus.scan("inputs", version).to_table())
    assert found.lengths["web"].sum(axis=1).tolist() == [1, 2]
    assert [found.lengths["web"][0][24], found.lengths["web"][1][[5, 21]].tolist()] == [1, [1, 1]]
    assert found.scores["lang_score", "web"][1][[7, 20]].tolist() == [1, 1]
    assert {key: cell.tolist() for key, cell in found.languages.items()} == {
        ("web", "en"): [1, 1, 10, 1000],
        ("web", "de"): [0, 1, 0, 0],
    }


def test_a_version_that_kept_nothing_has_a_report(tmp_path: Path) -> None:
    assert "0documents read" in text_of(write(corpus_of(tmp_path / "corpus", [], []), tmp_path / "r.html"))
    nothing = [removal(1, "read", "not_text", source="a"), removal(2, "read", "bad_json", source="b")]
    assert "2documents read" in text_of(
        write(corpus_of(tmp_path / "other", [], nothing), tmp_path / "o.html")
    )


def test_the_same_version_gives_the_same_bytes(tmp_path: Path) -> None:
    removed = [
        removal(n, "filter", f"reason{n % 3}", value=float(n), threshold=1.0, text_sample=f"{n}")
        for n in range(40)
    ]
    corpus = corpus_of(tmp_path / "corpus", [document(n) for n in range(40)], removed)
    assert write(corpus, tmp_path / "a.html") == write(corpus, tmp_path / "b.html")


# ------------------------------------------------------------------------------------------------- what it is not


def test_nothing_of_a_document_becomes_markup(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    for tag in (
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "a[not(starts-with(@href, '#'))]",
    ):
        assert page.xpath(f"//{tag}") == []
    assert [link.get("href") for link in page.iter("link")] == ["data:,"]
    assert (
        len(list(page.iter("style"))) == len(list(page.iter("title"))) - len(page.xpath("//svg//title")) == 1
    )
    for element in page.iter(lxml.etree.Element):
        for name in element.attrib:
            assert not name.lower().startswith("on")
            assert name not in ("src", "action", "style", "srcdoc", "xlink:href")
    assert "<script" not in report
    assert not re.search(r"<[^>\"]*onerror", report)
    # It is still there to read, every time as text.
    assert text_of(report).count("<script>alert(1)</script>") >= 12
    assert "{{ 7*7 }}" in text_of(report)
    # What turns the direction of a line is written out.
    assert "\u202e" not in report
    assert "[U+202E]" in report


def test_the_page_forbids_scripts_requests_and_foreign_styles_and_loads_nothing(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert set(rules) == {"default-src", "style-src", "img-src", "base-uri", "form-action"}
    assert [rules[name] for name in ("default-src", "base-uri", "form-action")] == ["'none'"] * 3
    assert rules["img-src"] == "data:"
    # The one style that may apply is the one that is there, to the byte.
    (style,) = re.findall(r"<style>(.*?)</style>", report, re.DOTALL)
    assert (
        b64decode(rules["style-src"].removeprefix("'sha256-").rstrip("'"))
        == hashlib.sha256(style.encode()).digest()
    )
    assert "url(" not in report
    assert "@import" not in report
    assert report.index("Content-Security-Policy") < report.index("<title>")


def test_every_picture_says_in_words_what_it_shows(report: str) -> None:
    pictures = list(lxml.html.document_fromstring(report).iter("svg"))
    assert len(pictures) > 10
    for picture in pictures:
        assert picture.get("role") == "img"
        assert picture.get("aria-label") == picture.find("title").text
        assert re.search(r"\d", picture.get("aria-label"))


def test_the_table_of_contents_leads_to_every_section(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    ids = [heading.get("id") for heading in page.iter("h2")]
    assert [link.get("href") for link in page.find(".//nav").iter("a")] == [f"#{name}" for name in ids]
    assert len(set(ids)) == len(ids) == 10


# ---------------------------------------------------------------------------------------------------- bounded


def test_the_report_of_a_corpus_with_too_much_of_everything_stays_small(tmp_path: Path) -> None:
    worst = "<&\"'\u202e" * 400
    long = {"text_sample": worst[:300], "uri": worst}
    documents = [
        document(n, source=f"s{n % 60:03}", lang=f"x{n % 50}", uri=f"http://d{n}.{'e' * 60}.test/{worst}")
        for n in range(3000)
    ]
    removed = [
        removal(number * 1000 + source * 10 + copy, stage, f"reason_{number}", source=f"s{source:03}",
                value=float(copy), threshold=float(number % 3), **long)
        for number in range(90)
        for stage in (["filter", "language", "near_dedup"][number % 3],)
        for source in range(0, 60, 2)
        for copy in range(3)
    ]  # fmt: skip
    inputs = [
        {"path": worst, "source": row["source"], "kind": "web", "size": 1, "status": "damaged", "error": worst,
         "num_documents": 1, "num_kept": 0, "num_removed": 0, "version": 1}
        for row in [*documents, *removed]
    ]  # fmt: skip
    corpus = corpus_of(tmp_path / "corpus", documents, removed, inputs)
    line = {"before": worst[:160], "after": worst[1:161], "steps": [["apply", worst]] * 30}
    pair = {"source": "s001", "uri": worst, "similarity": 0.9, "keeper_source": "s001", "keeper_uri": worst}
    evidence.save(
        evidence.Evidence(
            {f"s{n:03}": 9 for n in range(60)},
            [{"source": f"s{n:03}", "uri": worst, "doc_id": "", "lines": [line] * 3} for n in range(60) for _ in range(8)],
            [{**pair, "doc_id": f"{n}", "keeper": f"{n}", "left": worst[:1500], "right": worst[1:1501]} for n in range(40)],
        ),
        corpus.evidence(1),
    )  # fmt: skip
    report = write(corpus, tmp_path / "r.html")
    assert len(report.encode()) < 5_000_000, f"{len(report.encode()):,}"
    text = text_of(report)
    assert "11,100documents read" in text
    assert sections.OTHERS in text
    assert f"{90 - sections.MAX_REASONS} more reasons, each rarer than these" in text
    # Cut lists still add up: what is in no row of its own is in the row of the others.
    (head, *rows) = [row for row in rows_of(report) if len(row) == 6 + 1][: sections.MAX_SOURCES + 2]
    assert head[:2] == ["Source", "Read"]
    assert (
        sum(int(row[1].replace(",", "")) for row in rows if row[0].startswith(("s0", sections.OTHERS)))
        == 11_100
    )


def test_the_texts_of_a_corpus_are_never_in_memory(tmp_path: Path) -> None:
    documents = [document(n, text="x" * 2_000_000) for n in range(100)]
    corpus_of(tmp_path / "corpus", documents, [])
    program = (
        "import sys, pyarrow as pa; from pathlib import Path; from data_pipeline.corpus import Corpus; "
        "from data_pipeline.report import write_report; corpus = Corpus(Path(sys.argv[1])); "
        "write_report(corpus, corpus.at(), Path(sys.argv[2])); print(pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "corpus"), str(tmp_path / "r.html")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 20_000_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\u202eb\x00\u200b", "a[U+202E]b[U+0000][U+200B]"),
        ("x" * 30, "x" * 20 + " ..."),
        (None, ""),
        ("naïve 漢字 \U0001f600", "naïve 漢字 \U0001f600"),
    ],
)
def test_a_text_is_cut_and_what_cannot_be_seen_is_written_out(text: str | None, shown: str) -> None:
    assert visible(text, 20) == shown


def test_numbers_are_for_reading() -> None:
    assert [
        short_number(value) for value in (None, 0, 3.0, 1234567, 0.123456, 1e300, float("inf"), float("nan"))
    ] == [
        *("", "0", "3", "1,234,567", "0.123", "1e+300", "inf", "nan"),
    ]


def test_the_evidence_file_of_a_version_is_json(tmp_path: Path) -> None:
    evidence.save(evidence.Evidence({"web": 1}), tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text()) == {
        "num_repaired": {"web": 1},
        "repairs": [],
        "pairs": [],
    }
