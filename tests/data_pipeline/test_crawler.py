"""A crawl of a real server on this machine: what is fetched, what is left alone, and what a kill leaves."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

from data_pipeline.config import CrawlConfig
from data_pipeline.crawl import crawl, finished_crawl
from data_pipeline.errors import InputError
from data_pipeline.sources import Record, web
from data_pipeline.staging import guarded
from tests.data_pipeline.made_inputs import prose

HTML = {"Content-Type": "text/html; charset=utf-8"}
Answer = tuple[int, dict[str, str], bytes]


def linked(*hrefs: str, text: str = "") -> Answer:
    anchors = "".join(f'<a href="{href}">go</a>' for href in hrefs)
    return 200, HTML, f"<html><body><p>{text}</p>{anchors}</body></html>".encode()


class Site:
    """A server whose pages are a dict of path to answer, or to a function of the path's query."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer | Callable[[str], Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.delay = 0.0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append((self.path, dict(self.headers)))
                time.sleep(site.delay)
                path, _, query = self.path.partition("?")
                answer = site.pages.get(path, (404, HTML, b"none"))
                status, headers, body = answer(query) if callable(answer) else answer
                if status == 0:  # hang up
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def asked(self) -> list[str]:
        """Paths that were asked for, robots.txt aside."""
        return [path for path, _ in self.requests if path != "/robots.txt"]


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def config(site: Site, **options: Any) -> CrawlConfig:
    values = {
        "seeds": [f"{site.url}/"],
        "delay": 0.0,
        "retries": 0,
        "allow_private": ["127.0.0.1"],
        **options,
    }
    return CrawlConfig(**values)


def outcomes(folder: Path) -> dict[str, str]:
    """{path and query: outcome} of the frontier."""
    with sqlite3.connect(folder / "frontier.sqlite") as db:
        rows = db.execute("SELECT url, outcome FROM pages").fetchall()
    return {"/" + url.split("/", 3)[3]: outcome for url, outcome in rows}


def captures(folder: Path) -> list[Record]:
    """What our reader finds in the archives of a crawl."""
    return [record for path in sorted(folder.glob("*.warc.gz")) for record in web.read(path)]


# -------------------------------------------------------------------------------------------- what is followed


def test_links_are_followed_within_host_and_depth(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": linked(
            "/a", "b#part", "/a", "http://other.test/x", "mailto:me@a.test", "http://[bad", "", text="root"
        ),
        "/a": linked("/a/deep"),
        "/b": linked("/"),
        "/a/deep": linked("/a/deeper"),
    }
    result = crawl(config(site, max_depth=1), tmp_path)
    assert sorted(site.asked()) == ["/", "/a", "/b"]
    assert (result.fetched, result.known, result.outcomes) == (3, 0, {"done": 3})
    site.requests.clear()
    crawl(config(site, max_depth=3), tmp_path / "deeper")
    assert sorted(site.asked()) == ["/", "/a", "/a/deep", "/a/deeper", "/b"]


def test_a_link_in_a_compressed_page_is_followed(site: Site, tmp_path: Path) -> None:
    status, headers, body = linked("/a", text="root")
    site.pages = {"/": (status, {**headers, "Content-Encoding": "gzip"}, gzip.compress(body)), "/a": linked()}
    assert crawl(config(site), tmp_path).fetched == 2
    # The archive has the body as it was sent, and our reader takes it apart.
    assert "root" in captures(tmp_path)[0].content


def test_include_and_exclude_choose_among_the_links(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/keep/1", "/keep/skip", "/other")} | {
        path: linked() for path in ("/keep/1", "/keep/skip", "/other")
    }
    crawl(config(site, include=["/keep/"], exclude=["skip"]), tmp_path)
    assert sorted(site.asked()) == ["/", "/keep/1"]


def test_one_page_is_fetched_once_whatever_its_spelling(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": linked("/", "/#top", site.url, site.url.replace("http", "HTTP"), "/a", "a", "./a#x"),
        "/a": linked("/"),
    }
    crawl(config(site, seeds=[site.url, f"{site.url}/", f"{site.url}/#seed"]), tmp_path)
    assert sorted(site.asked()) == ["/", "/a"]
    assert len(captures(tmp_path)) == 2


def test_no_more_pages_than_asked_for_and_a_second_crawl_may_go_on(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(10)))} | {f"/{n}": linked() for n in range(10)}
    assert crawl(config(site, max_pages=4), tmp_path).fetched == 4
    assert len(site.asked()) == 4
    done = finished_crawl(config(site, max_pages=4), tmp_path)
    assert done is not None
    assert (done.fetched, done.known) == (0, 4)
    assert crawl(config(site, max_pages=4), tmp_path).fetched == 0
    assert finished_crawl(config(site, max_pages=6), tmp_path) is None
    result = crawl(config(site, max_pages=6), tmp_path)
    assert (result.fetched, result.known) == (2, 4)
    assert max(Counter(site.asked()).values()) == 1


# ---------------------------------------------------------------------------------------------------- manners


def test_what_robots_txt_disallows_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/robots.txt": (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /private\n"),
        "/": linked("/private/x", "/open"),
        "/open": linked(),
        "/private/x": linked(),
    }
    result = crawl(config(site), tmp_path)
    assert sorted(site.asked()) == ["/", "/open"]
    assert result.outcomes == {"done": 2, "robots": 1}
    assert [path for path, _ in site.requests].count("/robots.txt") == 1


RULES = b"User-agent: gptmill\nDisallow: /\n"


@pytest.mark.parametrize(
    "pages",
    [
        {"/robots.txt": (200, {"Content-Encoding": "gzip"}, gzip.compress(RULES))},
        {"/robots.txt": (301, {"Location": "/moved.txt"}, b""), "/moved.txt": (200, {}, RULES)},
        {"/robots.txt": (503, {}, b"")},
        {"/robots.txt": (0, {}, b"")},
    ],
    ids=["compressed", "redirected", "failing", "hanging up"],
)
def test_robots_txt_counts_however_it_comes(site: Site, tmp_path: Path, pages: dict[str, Answer]) -> None:
    site.pages = {**pages, "/": linked()}
    assert crawl(config(site), tmp_path).outcomes == {"robots": 1}
    assert "/" not in site.asked()


@pytest.mark.parametrize(
    "answer",
    [(404, {}, b""), (301, {"Location": "/robots.txt"}, b""), (301, {"Location": "http://10.0.0.1/"}, b"")],
)
def test_without_a_robots_txt_all_is_allowed(site: Site, tmp_path: Path, answer: Answer) -> None:
    site.pages = {"/robots.txt": answer, "/": linked()}
    assert crawl(config(site), tmp_path).outcomes == {"done": 1}


def test_requests_keep_their_distance(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/robots.txt": (200, {}, b"User-agent: *\nCrawl-delay: 0.2\n"),
        "/": linked("/a", "/b"),
        "/a": linked(),
        "/b": linked(),
    }
    begin = time.monotonic()
    assert crawl(config(site), tmp_path).fetched == 3
    # Three pauses between four requests: a lower bound, which no load on this machine can break.
    assert time.monotonic() - begin >= 0.6


def test_the_crawler_says_who_it_is(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked()}
    crawl(config(site, contact="me@a.test"), tmp_path)
    assert {headers["User-Agent"] for _, headers in site.requests} == {"gptmill/0.1 (+me@a.test)"}


# ------------------------------------------------------------------------------------------ redirects, failures


def test_a_redirect_is_followed_without_a_step_in_depth(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": (302, {"Location": "/home"}, b""),
        "/home": linked("/a"),
        "/a": (301, {"Location": "http://elsewhere.test/"}, b""),
    }
    result = crawl(config(site, max_depth=1), tmp_path)
    assert result.outcomes == {"done": 1, "redirect": 2}
    assert site.asked() == ["/", "/home", "/a"]


def test_redirects_in_a_circle_and_without_end_stop(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": linked("/x", "/endless?0"),
        "/x": (301, {"Location": "/y"}, b""),
        "/y": (301, {"Location": "/x"}, b""),
        "/endless": lambda query: (301, {"Location": f"/endless?{int(query) + 1}"}, b""),
    }
    crawl(config(site), tmp_path)
    assert Counter(site.asked())["/x"] == Counter(site.asked())["/y"] == 1
    assert 3 <= sum(path.startswith("/endless") for path in site.asked()) <= 7


@pytest.mark.parametrize("location", ["http://[bad", "ftp://127.0.0.1/x", "javascript:alert(1)", "/\x01", ""])
def test_a_redirect_to_nowhere_does_not_end_the_crawl(site: Site, tmp_path: Path, location: str) -> None:
    site.pages = {"/": linked("/bad", "/good"), "/bad": (301, {"Location": location}, b""), "/good": linked()}
    result = crawl(config(site), tmp_path)
    assert outcomes(tmp_path)["/good"] == "done"
    assert outcomes(tmp_path)["/bad"].startswith(("redirect", "failed_"))
    assert result.fetched == 2


def test_an_odd_link_does_not_end_the_crawl(site: Site, tmp_path: Path) -> None:
    odd = ["/\x01", "/" + "long" * 20_000, "/a b", "/ü", "//[", "http://127.0.0.1:99999/", "/%zz", "?q=<x>"]
    site.pages = {"/": linked(*odd, "/good"), "/good": linked()}
    crawl(config(site), tmp_path)
    assert outcomes(tmp_path)["/good"] == "done"
    assert "queued" not in outcomes(tmp_path).values()
    # What can be asked for is asked for in its one spelling.
    assert {"/%C3%BC", "/a%20b", "/?q=%3Cx%3E"} <= set(site.asked())


def test_a_missing_page_is_kept_as_what_it_is(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/none")}
    result = crawl(config(site), tmp_path)
    assert result.outcomes == {"done": 1, "status_404": 1}
    assert [(record.uri, record.reason) for record in captures(tmp_path)] == [
        (f"{site.url}/", ""),
        (f"{site.url}/none", "http_status"),
    ]


@pytest.mark.parametrize("failure", [(503, HTML, b"busy"), (0, {}, b"")], ids=["5xx", "hangs up"])
def test_a_failure_is_tried_again(site: Site, tmp_path: Path, failure: Answer) -> None:
    answers = [failure, linked(text="at last")]
    site.pages = {"/": lambda query: answers.pop(0)}
    assert crawl(config(site, retries=1), tmp_path).outcomes == {"done": 1}
    assert site.asked() == ["/", "/"]
    (record,) = captures(tmp_path)
    assert "at last" in record.content


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [((503, HTML, b"busy"), "status_503"), ((0, {}, b""), "failed_RemoteProtocolError")],
)
def test_a_failure_that_stays_is_given_up(site: Site, tmp_path: Path, failure: Answer, outcome: str) -> None:
    site.pages = {"/": linked("/bad", "/good"), "/bad": failure, "/good": linked()}
    result = crawl(config(site, retries=1), tmp_path)
    assert site.asked().count("/bad") == 2
    assert result.outcomes == {"done": 2, outcome: 1}


def test_a_page_beyond_the_size_limit_is_left_out(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/big", "/small"), "/big": (200, HTML, b"x" * 300_000), "/small": linked()}
    result = crawl(config(site, max_page_bytes=200_000), tmp_path)
    assert result.outcomes == {"done": 2, "too_large": 1}
    assert f"{site.url}/big" not in {record.uri for record in captures(tmp_path)}


# ------------------------------------------------------------------------------------------------- who may be asked


def test_a_host_that_is_not_the_users_own_asks_for_a_contact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"crawl\.contact: say who you are .*example\.org"):
        crawl(CrawlConfig(seeds=["https://example.org/"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_private_address_is_refused_until_it_is_named(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked()}
    with pytest.raises(
        InputError, match=r"127\.0\.0\.1 resolves to the private address .*crawl\.allow_private"
    ):
        crawl(config(site, allow_private=[], contact="me@a.test"), tmp_path)
    assert site.requests == []
    assert crawl(config(site), tmp_path).fetched == 1


def test_a_host_is_fetched_from_where_the_user_says(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a"), "/a": linked()}
    crawl(config(site, seeds=["http://www.site.test/"], connect_to={"www.site.test": site.host}), tmp_path)
    assert {headers["Host"] for _, headers in site.requests} == {"www.site.test"}
    assert [record.uri for record in captures(tmp_path)] == [
        "http://www.site.test/",
        "http://www.site.test/a",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": []}, r"crawl\.seeds"),
        ({"seeds": ["ftp://a.test/"]}, r"crawl\.seeds: 'ftp://a\.test/'"),
        ({"seeds": ["http://[::1"]}, r"crawl\.seeds"),
        ({"seeds": ["http://a.test:port/"]}, r"crawl\.seeds"),
        ({"seeds": ["http://127.0.0.1/\x01"]}, r"crawl\.seeds"),
        ({"name": "a/b"}, r"crawl\.name"),
        ({"include": ["("]}, r"crawl\.include: '\('"),
        ({"exclude": ["["]}, r"crawl\.exclude"),
        ({"delay": -1.0}, r"crawl\.delay"),
        ({"retries": -1}, r"crawl\.retries"),
        ({"max_pages": 0}, r"crawl\.max_pages"),
        ({"timeout": 0.0}, r"crawl\.timeout"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    values = {"seeds": ["http://127.0.0.1/"], "allow_private": ["127.0.0.1"], **options}
    with pytest.raises(InputError, match=words) as error:
        crawl(CrawlConfig(**values), tmp_path)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------- archives, second runs, kills


def test_the_archive_can_be_read_by_warcio_and_by_our_reader(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a?x=1", text=prose(1)), "/a": linked(text="wide 宽 text")}
    crawl(config(site), tmp_path)
    (path,) = tmp_path.glob("*.warc.gz")
    assert path.name == "web-00001.warc.gz"
    with path.open("rb") as file:
        found = [
            (
                record.rec_type,
                record.rec_headers.get_header("WARC-Target-URI"),
                record.content_stream().read(),
            )
            for record in ArchiveIterator(file, check_digests="raise")
        ]
    assert [kind for kind, _, _ in found] == ["warcinfo", "response", "request", "response", "request"]
    assert found[3][1] == f"{site.url}/a?x=1"
    assert found[3][2].decode() == linked(text="wide 宽 text")[2].decode()
    errors: list[str] = []
    records = list(guarded(web.read(path), errors))
    assert errors == []
    assert [record.uri for record in records] == [f"{site.url}/", f"{site.url}/a?x=1"]
    assert prose(1) in records[0].content
    assert "宽" in records[1].content


def test_a_second_crawl_fetches_nothing_and_writes_nothing(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a", "/none"), "/a": linked()}
    crawl(config(site), tmp_path)
    before = sorted(path.name for path in tmp_path.glob("*.warc.gz"))
    site.requests.clear()
    result = crawl(config(site), tmp_path)
    assert (result.fetched, result.known, site.requests) == (0, 2, [])
    assert sorted(path.name for path in tmp_path.glob("*.warc.gz*")) == before
    assert finished_crawl(config(site), tmp_path) == result
    assert finished_crawl(config(site, seeds=[f"{site.url}/", f"{site.url}/new"]), tmp_path) is None
    assert finished_crawl(config(site), tmp_path / "nothing yet") is None


def test_a_new_archive_never_takes_the_place_of_an_old_one(site: Site, tmp_path: Path) -> None:
    for number in range(3):
        site.pages[f"/{number}"] = linked(text=f"page {number}")
        crawl(config(site, seeds=[f"{site.url}/{number}"]), tmp_path)
    kept = (tmp_path / "web-00003.warc.gz").read_bytes()
    (tmp_path / "web-00001.warc.gz").unlink()
    site.pages["/3"] = linked(text="page 3")
    crawl(config(site, seeds=[f"{site.url}/3"]), tmp_path)
    assert (tmp_path / "web-00003.warc.gz").read_bytes() == kept
    assert {record.uri[-1] for record in captures(tmp_path)} == {"1", "2", "3"}


def test_a_killed_crawl_goes_on_and_every_page_is_in_some_archive(site: Site, tmp_path: Path) -> None:
    paths = [f"/{number}" for number in range(40)]
    site.pages = {"/": linked(*paths)} | {path: linked(text=prose(int(path[1:]), 400)) for path in paths}
    site.delay = 0.05
    script = (
        "from pathlib import Path; from data_pipeline.config import CrawlConfig; "
        "from data_pipeline.crawl import crawl; "
        f"crawl(CrawlConfig(seeds=[{site.url + '/'!r}], delay=0.0, allow_private=['127.0.0.1']), Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while len(site.asked()) < 12 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    num_before = len(site.asked())
    assert 12 <= num_before < 40
    assert list(tmp_path.glob("*.part"))

    site.delay = 0.0
    result = crawl(config(site), tmp_path)
    assert result.known + result.fetched == 41
    assert list(tmp_path.glob("*.part")) == []
    # Only the page that the kill fell into is asked for again.
    assert len(site.asked()) <= 42
    found: dict[str, str] = {}
    for path in sorted(tmp_path.glob("*.warc.gz")):
        for record in guarded(web.read(path), []):
            if not record.reason:
                found[record.uri] = record.content
    assert set(found) == {f"{site.url}/", *(f"{site.url}{path}" for path in paths)}
    assert all(prose(int(path[1:]), 400) in found[f"{site.url}{path}"] for path in paths)
