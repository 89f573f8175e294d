"""The data report: the right counts, complete in one file, and nothing of a document can run in it."""

from __future__ import annotations

import re
from pathlib import Path

import lxml.html
import pyarrow as pa
import pytest

from data_pipeline import schema
from data_pipeline.corpus import Corpus
from data_pipeline.report import write_report

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }}{% raw %}</title><!--"


def _corpus(root: Path, evil: str) -> Corpus:
    corpus = Corpus(root)
    corpus.prepare()
    document = {
        "doc_id": "d1",
        "source": "web",
        "uri": f"http://a.test/{evil}",
        "title": evil,
        "text": evil,
        "version": 1,
        "lang": evil,
        "num_words": 1234,
        "num_chars": 56789,
        "input_file": evil,
    }
    documents = [document, {**document, "doc_id": "d2", "num_words": 10, "num_chars": 20, "uri": "u2"}]
    removed = [
        {"doc_id": "r1", "source": "web", "uri": evil, "stage": "filter", "reason": "too_few_words", "value": 3.0,
         "threshold": 50.0, "text_sample": evil, "version": 1},
        {"doc_id": "r2", "source": "web", "uri": evil, "stage": "near_dedup", "reason": "near_duplicate",
         "duplicate_of": "d1", "similarity": 0.875, "text_sample": evil, "version": 1},
        {"doc_id": "r3", "source": "wiki", "uri": "u", "stage": "read", "reason": evil, "version": 1},
    ]  # fmt: skip
    inputs = [
        {"path": evil, "source": "web", "size": 4321, "status": "damaged", "error": evil, "num_documents": 5,
         "num_kept": 2, "num_removed": 3, "version": 1}
    ]  # fmt: skip
    files = [
        corpus.write_file(
            name, pa.Table.from_pylist(rows, schema=getattr(schema, name.upper())), "part.parquet"
        )
        for name, rows in (("documents", documents), ("removed", removed))
    ]
    version = {
        "version": 1, "created_at": "2024-05-06T07:08:09+00:00", "config_hash": "ab" * 32, "gptmill_version": evil
    }  # fmt: skip
    corpus.commit(files, pa.Table.from_pylist(inputs, schema=schema.INPUTS), version)
    return corpus


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    corpus = _corpus(folder / "corpus", EVIL)
    write_report(corpus, corpus.at(), folder / "reports" / "data.html")
    assert [path.name for path in (folder / "reports").iterdir()] == ["data.html"]
    return (folder / "reports" / "data.html").read_text(encoding="utf-8")


def text_of(report: str) -> str:
    return " ".join(lxml.html.document_fromstring(report).text_content().split())


def test_the_report_counts_what_was_read_kept_and_removed(report: str) -> None:
    text = text_of(report)
    assert "5documents read" in text
    assert "2kept (40.0 %)" in text
    assert "1input files, 1 damaged" in text
    assert "56,809characters kept" in text
    assert "web 4 read, 2 kept" in text
    assert "wiki 1 read, 0 kept" in text


def test_each_reason_has_its_count_and_what_was_measured(report: str) -> None:
    rows = [
        [" ".join(cell.text_content().split()) for cell in row.iter("td")]
        for row in lxml.html.document_fromstring(report).iter("tr")
    ]
    (words,) = (row for row in rows if "too_few_words" in row)
    assert words[:4] == ["web", "filter", "too_few_words", "1"]
    assert "measured 3, bound 50" in words[4]
    assert [row[-1] for row in rows if row and row[-1] == "0.875"] == ["0.875"]
    (language,) = (row for row in rows if len(row) == 6 and row[3] == "1,244")
    assert language[2:] == ["2", "1,244", "56,809", "28,404"]


def test_nothing_of_a_document_becomes_markup(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    for tag in ("script", "img", "iframe", "object", "embed", "form", "link", "base", "svg"):
        assert list(page.iter(tag)) == []
    for element in page.iter(lxml.etree.Element):
        for name in element.attrib:
            assert not name.lower().startswith("on")
            assert name not in ("href", "src", "action")
    assert "<script" not in report
    assert not re.search(r"<[^>]*onerror", report)
    # It is still there to read, every time as text.
    assert text_of(report).count("<script>alert(1)</script>") >= 6
    assert "{{ 7*7 }}" in text_of(report)


def test_the_page_forbids_scripts_and_requests_and_loads_nothing(report: str) -> None:
    page = lxml.html.document_fromstring(report)
    (policy,) = (
        meta.get("content")
        for meta in page.iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "script-src" not in rules
    assert "url(" not in report
    head = report.index("<title>")
    assert report.index("Content-Security-Policy") < head


def test_a_version_that_kept_nothing_has_a_report(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "corpus")
    corpus.prepare()
    version = {"version": 1, "created_at": "now", "config_hash": "0" * 64, "gptmill_version": "0"}
    corpus.commit([], schema.INPUTS.empty_table(), version)
    write_report(corpus, corpus.at(), tmp_path / "r.html")
    assert "0documents read" in text_of((tmp_path / "r.html").read_text())
