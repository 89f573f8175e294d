"""What servers do wrong, or do on purpose: redirects, failures, slow and swollen bodies, odd links and types."""

from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.crawl import crawl, finished_crawl
from tests.data_pipeline.site_server import HTML, Answer, Site, captures, config, linked, outcomes


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


# ---------------------------------------------------------------------------------------------------- redirects


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
    assert sum(path.startswith("/endless") for path in site.asked()) == 6


@pytest.mark.parametrize("location", ["http://[bad", "ftp://127.0.0.1/x", "javascript:alert(1)", "/\x01", ""])
def test_a_redirect_to_nowhere_does_not_end_the_crawl(site: Site, tmp_path: Path, location: str) -> None:
    site.pages = {"/": linked("/bad", "/good"), "/bad": (301, {"Location": location}, b""), "/good": linked()}
    result = crawl(config(site), tmp_path)
    assert outcomes(tmp_path)["/good"] == "done"
    assert outcomes(tmp_path)["/bad"].startswith(("redirect", "failed_"))
    assert result.fetched == 2


def test_an_odd_link_does_not_end_the_crawl(site: Site, tmp_path: Path) -> None:
    odd = [
        "/\x01",
        "/" + "long" * 20_000,
        "/a b",
        "/\u00fc",
        "//[",
        "http://127.0.0.1:99999/",
        "/%zz",
        "?q=<x>",
    ]
    odd += ["http://[x/", "http://a\x00b/", "http://" + "a." * 200, "https:///x", "//user@127.0.0.1/"]
    site.pages = {"/": linked(*odd, "/good"), "/good": linked()}
    crawl(config(site, scope="any", contact="me@a.test"), tmp_path)
    assert outcomes(tmp_path)["/good"] == "done"
    # What can be asked for is asked for in its one spelling.
    assert {"/%C3%BC", "/a%20b", "/?q=%3Cx%3E"} <= set(site.asked())


# ----------------------------------------------------------------------------------------------------- failures


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
    assert site.gaps()[-1] >= 0.5
    (record,) = captures(tmp_path)
    assert "at last" in record.content


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [((503, HTML, b"busy"), "status_503"), ((0, {}, b""), "failed_RemoteProtocolError")],
)
def test_a_failure_that_stays_is_given_up_and_tried_by_some_later_runs(
    site: Site, tmp_path: Path, failure: Answer, outcome: str
) -> None:
    site.pages = {"/": linked("/bad", "/good"), "/bad": failure, "/good": linked()}
    result = crawl(config(site, retries=1), tmp_path)
    assert site.asked().count("/bad") == 2
    assert result.outcomes == {"done": 2, outcome: 1}
    for run in (2, 3):
        assert finished_crawl(config(site), tmp_path) is None
        crawl(config(site), tmp_path)
        assert site.asked().count("/bad") == 1 + run
    assert finished_crawl(config(site), tmp_path) is not None
    assert site.asked().count("/good") == 1


def test_a_page_that_mends_is_fetched_by_a_later_run_with_its_links(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/bad"), "/bad": (500, HTML, b""), "/beyond": linked()}
    crawl(config(site, max_depth=2), tmp_path)
    site.pages["/bad"] = linked("/beyond")
    assert crawl(config(site, max_depth=2), tmp_path).outcomes == {"done": 3}


def test_a_host_where_everything_fails_is_given_up_early(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(60)))} | {f"/{n}": (0, {}, b"") for n in range(60)}
    result = crawl(config(site), tmp_path)
    assert len(site.asked()) < 40
    assert result.outcomes["host_unreachable"] > 20


# ------------------------------------------------------------------------------------------------ bodies and types


def test_a_page_beyond_the_size_limit_is_left_out(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/big", "/small"), "/big": (200, HTML, b"x" * 300_000), "/small": linked()}
    result = crawl(config(site, max_page_bytes=200_000), tmp_path)
    assert result.outcomes == {"done": 2, "too_large": 1}
    assert f"{site.url}/big" not in {record.uri for record in captures(tmp_path)}


BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [BEGIN, *[b"x"] * 200],
        [BEGIN, *[b""] * 200],
        [b"HTTP/1.1 200 OK\r\n", *[b"X-Y: z\r\n"] * 200],
        [BEGIN.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), *[b"1\r\nx\r\n"] * 200],
    ],
    ids=["body", "silence", "headers", "chunks"],
)
def test_a_page_that_drips_ends_with_its_time(site: Site, tmp_path: Path, pieces: list[bytes]) -> None:
    site.pages = {"/": linked("/slow", "/good"), "/good": linked()}
    site.drip = {"/slow": pieces}
    began = time.monotonic()
    result = crawl(config(site, page_timeout=1.0), tmp_path)
    assert result.outcomes == {"done": 2, "failed_page_timeout": 1}
    assert time.monotonic() - began < 8


def test_headers_without_end_are_refused(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/endless", "/good"), "/good": linked()}
    site.drip = {
        "/endless": itertools.chain([BEGIN[:-2]], itertools.repeat(b"X-Y: " + b"z" * 60_000 + b"\r\n", 50))
    }
    assert crawl(config(site), tmp_path).outcomes == {"done": 2, "failed_RemoteProtocolError": 1}


def test_a_decompression_bomb_costs_neither_memory_nor_the_crawl(site: Site, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(1 << 30), 1)
    assert len(bomb) < 8 << 20
    site.pages = {
        "/": linked("/bomb", "/good"),
        "/bomb": (200, {**HTML, "Content-Encoding": "gzip"}, bomb),
        "/good": linked(),
    }
    script = (
        "import json, re; from pathlib import Path; from data_pipeline.crawl_config import CrawlConfig; "
        "from data_pipeline.crawl import crawl; "
        f"chosen = CrawlConfig(seeds=[{site.url + '/'!r}], delay=0.0, allow_private=['127.0.0.1']); "
        f"result = crawl(chosen, Path({str(tmp_path)!r})); "
        # Unlike ru_maxrss, this peak does not count what the process that started it had.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text()).group(1); "
        "print(json.dumps([int(peak), result.outcomes]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    kilobytes, outcomes = json.loads(done.stdout)
    assert outcomes == {"decompression_bomb": 1, "done": 2}
    assert kilobytes < 400 << 10


def test_what_is_no_text_is_not_even_read(site: Site, tmp_path: Path) -> None:
    film = {"Content-Type": "video/mp4"}
    site.pages = {
        "/": linked("/film", "/text", "/shown", "/untold"),
        "/film": (200, film, b"x" * 1000),
        "/text": (200, {"Content-Type": "text/plain"}, b"words"),
        "/shown": (200, {"Content-Type": "Text/HTML ; charset=latin-1"}, b'<a href="/e">\xe9</a>'),
        "/untold": (200, {}, b"words"),
    }
    result = crawl(config(site, max_depth=1), tmp_path)
    assert result.outcomes == {"done": 4, "not_text": 1}
    assert f"{site.url}/film" not in {record.uri for record in captures(tmp_path)}


def test_a_body_that_is_not_what_it_claims_to_be_does_not_end_the_crawl(site: Site, tmp_path: Path) -> None:
    broken = gzip.compress(b"<a href='/x'>" * 1000)[:-30]
    site.pages = {
        "/": linked("/broken", "/plain", "/picture", "/good"),
        "/broken": (200, {**HTML, "Content-Encoding": "gzip"}, broken),
        "/plain": (200, {**HTML, "Content-Encoding": "gzip"}, b"<a href='/good'>not compressed</a>"),
        "/picture": (200, HTML, bytes(range(256)) * 40),
        "/good": linked(),
    }
    crawl(config(site), tmp_path)
    assert outcomes(tmp_path)["/good"] == "done"
    assert not any(outcome.startswith("failed") for outcome in outcomes(tmp_path).values())
