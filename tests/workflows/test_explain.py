"""`refresh --explain` as a person runs it: a file, a record of one, a document of the corpus, a page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.config import RefreshConfig
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from tests.data_pipeline.made_inputs import HTML, book, page, prose, reworded, write_warc
from tests.data_pipeline.site_server import HTML as HTML_HEADERS
from tests.data_pipeline.site_server import Site
from tests.workflows.conftest import run_workflow
from workflows import explain


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a few pages in its corpus, made by the workflow itself."""
    workspace = tmp_path_factory.mktemp("explain") / "ws"
    (workspace / "in").mkdir(parents=True)
    write_warc(
        workspace / "in" / "a.warc.gz",
        [
            ("http://a.test/good", "200 OK", HTML, page(prose(1) + " It was a cafÃ©.", "Good")),
            ("http://a.test/near", "200 OK", HTML, page(reworded(prose(1), 1), "Good")),
            ("http://a.test/short", "200 OK", HTML, page("Too short to keep.")),
            ("http://a.test/moved", "301 Moved Permanently", HTML, b""),
        ],
    )
    done = run_workflow(
        "refresh", "--workspace", str(workspace), "--web", str(workspace / "in"), "--language.keep", "[en]"
    )
    assert done.returncode == 0, done.stderr
    return workspace


def explained(workspace: Path, target: str, *arguments: str) -> str:
    done = run_workflow("refresh", "--workspace", str(workspace), "--explain", target, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def said(capsys: pytest.CaptureFixture[str], workspace: Path, target: str) -> str:
    """The same in this process, which saves its start."""
    explain.show(target, str(workspace), RefreshConfig(), "", [])
    return capsys.readouterr().out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_document_of_the_corpus_is_explained_by_its_uri_or_id_and_nothing_is_written(
    workspace: Path,
) -> None:
    before = digests(workspace)
    shown = explained(workspace, "http://a.test/good")
    # The configuration of the refresh is used, not that of this call.
    assert "wanted: en, certainty" in shown
    assert "[-cafÃ©-]{+café+}" in shown
    assert "too_few_words" in shown
    assert "in corpus/documents" in shown
    corpus = Corpus(workspace / "corpus")
    (row,) = corpus.find("documents", corpus.at(), "uri", ["http://a.test/good"], ["doc_id"])
    assert explained(workspace, row["doc_id"]) == shown
    assert digests(workspace) == before


def test_a_removed_document_names_the_one_it_was_removed_for(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said(capsys, workspace, "http://a.test/near")
    assert "near_dedup REMOVED, near_duplicate; similarity 0." in shown
    assert "kept for it: http://a.test/good (web, " in shown
    assert "changed0x0" in shown
    assert "in corpus/removed" in shown
    short = said(capsys, workspace, "http://a.test/short")
    assert "REMOVED, too_few_words" in short
    assert "at least 50" in short
    assert "REMOVED, redirect" in said(capsys, workspace, "http://a.test/moved")


def test_without_its_input_file_the_corpus_still_says_why(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = workspace / "in" / "a.warc.gz"
    away = archive.rename(tmp_path / "away.warc.gz")
    try:
        for uri, words in (
            (
                "http://a.test/short",
                ["filter", "REMOVED, too_few_words; measured 6, bound 50", "begins: A page Too short"],
            ),
            ("http://a.test/near", ["near_dedup", "kept for it: http://a.test/good"]),
            ("http://a.test/good", ["duplicates", "the corpus holds it"]),
        ):
            explain.show(uri, str(workspace), RefreshConfig(), "", [])
            shown = capsys.readouterr().out
            assert "its input file is gone" in shown
            assert all(word in shown for word in words), shown
    finally:
        away.rename(archive)


def test_a_file_is_read_by_its_name_or_by_the_source_that_names_it(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = workspace / "in" / "a.warc.gz"
    shown = said(capsys, tmp_path / "none", str(archive))
    assert "read as kind web" in shown
    assert [line for line in shown.splitlines() if line.startswith("http")] == [
        *("http://a.test/good", "http://a.test/near", "http://a.test/short", "http://a.test/moved"),
    ]
    assert not (tmp_path / "none").exists()
    one = said(capsys, tmp_path / "none", f"{archive}#http://a.test/short")
    assert one.count("http://a.test/") == 1
    assert "REMOVED, too_few_words" in one
    (tmp_path / "book.txt").write_text(book("A short book."))
    assert "read as kind books" in said(capsys, tmp_path / "none", str(tmp_path / "book.txt"))
    rows = [json.dumps({"text": prose(number)}) for number in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    many = explained(tmp_path / "none", str(tmp_path / "rows.jsonl"), "--sources",
                     f"[{{name: mine, kind: files, paths: [{tmp_path}/rows.jsonl], preset: web}}]")  # fmt: skip
    assert "source mine" in many
    assert "The file holds more" in many
    # A document that the corpus has already is no duplicate of itself, but its copy is one.
    again = said(capsys, workspace, f"{archive}#http://a.test/good")
    assert "the corpus holds it" in again
    (tmp_path / "copy.html").write_bytes(page(prose(1) + " It was a cafÃ©.", "Good"))
    assert "duplicates REMOVED, exact_duplicate" in said(capsys, workspace, str(tmp_path / "copy.html"))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://nowhere.test/x", ["explain_contact", "nowhere.test"]),
        ("no/such/file", ["explain: no/such/file is no file", "no uri or doc_id"]),
        ("x" * 5000, ["is no file"]),
    ],
)
def test_what_cannot_be_explained_is_one_line(workspace: Path, target: str, words: list[str]) -> None:
    done = run_workflow("refresh", "--workspace", str(workspace), "--explain", target)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


def test_a_file_without_the_record_is_one_line(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"holds no record of the uri http://a\.test/none"):
        explain.show(f"{workspace}/in/a.warc.gz#http://a.test/none", str(workspace), RefreshConfig(), "", [])


# --------------------------------------------------------------------------------------------------------- pages


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def test_a_page_is_fetched_as_the_crawler_does(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.pages["/robots.txt"] = (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /private\n")
    site.pages["/page"] = (200, HTML_HEADERS, page(prose(5), "Live"))
    site.pages["/private"] = (200, HTML_HEADERS, page(prose(6)))
    site.pages["/old"] = (302, {"Location": "/page"}, b"")
    explain.show(f"{site.url}/page", str(tmp_path / "none"), RefreshConfig(), "", [])
    shown = capsys.readouterr().out
    assert "title: Live" in shown
    assert "filter     kept" in shown
    assert [request.path for request in site.requests] == ["/robots.txt", "/page"]
    explain.show(f"{site.url}/old", str(tmp_path / "none"), RefreshConfig(), "", [])
    shown = capsys.readouterr().out
    assert "REMOVED, redirect" in shown
    assert "title: Live" in shown
    with pytest.raises(InputError, match=r"could not be fetched \(robots\)"):
        explain.show(f"{site.url}/private", str(tmp_path / "none"), RefreshConfig(), "", [])
    assert "/private" not in site.asked()
    explain.show(f"{site.url}/gone", str(tmp_path / "none"), RefreshConfig(), "", [])
    assert "REMOVED, http_status" in capsys.readouterr().out
