"""All of the real web archives, the English books and the English wiki dump through one refresh."""

from __future__ import annotations

from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from data_pipeline.corpus import Corpus
from tests.browser import opened
from tests.workflows.conftest import run_workflow

pytestmark = pytest.mark.slow

CAPTURES = {"response", "resource", "conversion", "revisit"}


@pytest.fixture(scope="module")
def corpus(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    workspace = tmp_path_factory.mktemp("real") / "ws"
    done = run_workflow(
        *("refresh", "--workspace", str(workspace), "--web", str(shared_data / "web" / "warc")),
        *("--books", str(shared_data / "books" / "pg-en")),
        *("--wiki", str(shared_data / "wiki" / "dbpedia-minidump-enwiki.xml.bz2")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Corpus(workspace / "corpus")


def test_every_input_file_is_accounted_for(corpus: Corpus, shared_data: Path) -> None:
    inputs = corpus.scan("inputs", corpus.at()).to_table().to_pylist()
    wanted = {str(path) for path in (shared_data / "web" / "warc").iterdir()}
    wanted |= {str(path) for path in (shared_data / "books" / "pg-en").glob("*.txt")}
    wanted.add(str(shared_data / "wiki" / "dbpedia-minidump-enwiki.xml.bz2"))
    resolved = {str(Path(path).resolve()) for path in wanted}
    assert {row["path"] for row in inputs} == resolved
    assert [row["path"] for row in inputs if row["status"] != "ok"] == []
    assert all(row["num_kept"] + row["num_removed"] == row["num_documents"] for row in inputs)


def test_what_was_read_is_kept_or_removed_and_the_counts_are_these(corpus: Corpus) -> None:
    version = corpus.at()
    funnel = corpus.funnel(version)
    read = {
        source: sum(row["count"] for row in funnel if row["source"] == source)
        for source in ("book", "web", "wiki")
    }
    # 45 archives: every response, resource, conversion and revisit record; 108 books; 27 pages.
    assert read == {"book": 108, "web": 1819, "wiki": 27}
    assert version["num_documents"] == sum(read.values()) == version["num_kept"] + version["num_removed"]
    assert corpus.scan("documents", version).count_rows() == version["num_kept"]
    assert corpus.scan("removed", version).count_rows() == version["num_removed"]


def test_records_that_are_no_pages_are_counted_by_reason(corpus: Corpus) -> None:
    counts = {
        row["reason"]: row["count"]
        for row in corpus.funnel(corpus.at())
        if row["source"] == "web" and row["stage"] == "read"
    }
    assert counts == {
        "not_text": 866,
        "revisit": 179,
        "redirect": 109,
        "http_status": 97,
        "not_a_page": 63,
        "empty_body": 4,
    }


def test_as_many_captures_are_read_as_warcio_counts(corpus: Corpus, shared_data: Path) -> None:
    counted = {}
    for path in (shared_data / "web" / "warc").iterdir():
        if path.suffix == ".lz4":  # warcio reads no lz4; this one holds the same records as its gzip twin
            path = path.with_suffix(".gz")
        with path.open("rb") as file:
            kinds = [record.rec_type for record in ArchiveIterator(file, arc2warc=True)]
        counted[path.name] = counted.get(path.name, 0) + sum(kind in CAPTURES for kind in kinds)
    inputs = corpus.scan("inputs", corpus.at()).to_table().to_pylist()
    read = sum(row["num_documents"] for row in inputs if row["source"] == "web")
    assert read == sum(counted.values())


def test_no_distinct_book_is_lost(corpus: Corpus) -> None:
    lost = [row for row in corpus.funnel(corpus.at()) if row["source"] == "book" and row["stage"] != "kept"]
    assert sum(row["count"] for row in lost) <= 5, lost


def test_the_report_opens_in_a_browser_without_a_complaint(
    corpus: Corpus, browser: str, tmp_path: Path
) -> None:
    report = corpus.root / "reports" / "version-000001.html"
    assert 50_000 < report.stat().st_size < 5_000_000
    elements, console = opened(browser, report, tmp_path / "profile")
    assert console == []
    assert f"<b>{corpus.at()['num_documents']:,}</b>documents read" in elements
    assert elements.count("<details") > 15
