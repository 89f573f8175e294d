"""What a crawl leaves: archives that any WARC tool reads, second looks at pages, and what a kill does to it."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

from data_pipeline.crawl import crawl, finished_crawl
from data_pipeline.sources import web
from data_pipeline.staging import guarded
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.site_server import HTML, Answer, Site, captures, config, linked, outcomes, rows


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def records(path: Path) -> list[tuple[str, Any, bytes]]:
    """(type, WARC headers, payload) of each record; raises where a digest is wrong."""
    with path.open("rb") as file:
        return [
            (record.rec_type, record.rec_headers, record.content_stream().read())
            for record in ArchiveIterator(file, check_digests="raise")
        ]


def assert_clean(path: Path) -> None:
    """`warcio check` finds nothing wrong, and gzip reads the file to its end."""
    done = subprocess.run(
        [sys.executable, "-c", "from warcio.cli import main; main()", "check", "-v", str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "digest pass" in done.stdout
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


def test_the_archive_can_be_read_by_warcio_and_by_our_reader(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a?x=1", text=prose(1)), "/a": linked(text="wide \u5bbd text", X_Own="yes")}
    crawl(config(site, contact="me@a.test"), tmp_path)
    (path,) = tmp_path.glob("*.warc.gz")
    assert path.name == "web-00001.warc.gz"
    assert_clean(path)
    found = records(path)
    page = ["response", "request", "metadata"]
    assert [kind for kind, _, _ in found] == ["warcinfo", *page, *page]
    assert b"software: gptmill/0.1\r\n" in found[0][2]
    assert b"robots: obey\r\n" in found[0][2]
    assert b"operator: me@a.test\r\n" in found[0][2]
    _, response, body = found[4]
    assert response.get_header("WARC-Target-URI") == f"{site.url}/a?x=1"
    assert response.get_header("WARC-IP-Address") == "127.0.0.1"
    assert body == linked(text="wide \u5bbd text")[2]
    for _, headers, _ in found[5:]:
        assert headers.get_header("WARC-Concurrent-To") == response.get_header("WARC-Record-ID")
    told = found[6][2].decode()
    assert "outcome: done\r\n" in told
    assert f"via: {site.url}/\r\n" in told
    assert f"outlink: {site.url}/a?x=1\r\n" in found[3][2].decode()
    errors: list[str] = []
    read = list(guarded(web.read(path), errors))
    assert errors == []
    assert [record.uri for record in read] == [f"{site.url}/", f"{site.url}/a?x=1"]
    assert prose(1) in read[0].content
    assert "\u5bbd" in read[1].content


def test_headers_are_kept_as_they_were_sent(site: Site, tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 Fine\r\nContent-Type: text/html\r\nX-ODD: a\r\nx-odd: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.drip = {"/": [chunked, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"]}
    crawl(config(site), tmp_path)
    with (tmp_path / "web-00001.warc.gz").open("rb") as file:
        _, response, request, _ = ArchiveIterator(file)
        # The iterator reads on from record to record, so only headers are looked at.
        assert response.http_headers.statusline == "200 Fine"
        assert response.http_headers.headers == [
            ("Content-Type", "text/html"),
            ("X-ODD", "a"),
            ("x-odd", "b"),
        ]
        assert request.http_headers.get_header("User-Agent") == "gptmill/0.1 (+local crawl)"
    assert captures(tmp_path)[0].content == "abcde"


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


def test_a_long_crawl_is_cut_into_several_archives(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(9)))} | {
        f"/{n}": linked(text=prose(n)) for n in range(9)
    }
    crawl(config(site, archive_bytes=4_000), tmp_path)
    paths = sorted(tmp_path.glob("*.warc.gz"))
    assert len(paths) > 2
    for path in paths:
        assert_clean(path)
    assert len(captures(tmp_path)) == 10


# ------------------------------------------------------------------------------------------------- second looks


def age(folder: Path, hours: float) -> None:
    """Make all that was fetched so much older."""
    with sqlite3.connect(folder / "frontier.sqlite") as db:
        db.execute("UPDATE pages SET fetched_at = fetched_at - ?", (3600 * hours,))


def test_a_later_look_stores_what_changed_and_notes_what_did_not(site: Site, tmp_path: Path) -> None:
    dated = {**HTML, "Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}
    site.pages = {
        "/": linked("/tagged", "/dated", "/same", "/changed", "/gone"),
        "/tagged": linked(text="tagged", ETag='"v1"'),
        "/dated": (200, dated, b"dated"),
        "/same": linked(text="same"),
        "/changed": linked(text="old", ETag='"v1"'),
        "/gone": linked(text="gone"),
    }
    crawl(config(site), tmp_path)
    site.requests.clear()
    assert finished_crawl(config(site, revisit_after=1.0), tmp_path) is not None
    assert crawl(config(site, revisit_after=1.0), tmp_path).fetched == 0

    age(tmp_path, 2)
    site.pages["/changed"] = linked("/new", text="new", ETag='"v2"')
    site.pages["/new"] = linked()
    del site.pages["/gone"]
    assert finished_crawl(config(site, revisit_after=1.0), tmp_path) is None
    assert finished_crawl(config(site), tmp_path) is not None
    result = crawl(config(site, revisit_after=1.0, max_depth=2, max_pages=7), tmp_path)
    assert (result.fetched, result.unchanged, result.known) == (2, 4, 6)
    assert result.outcomes == {"done": 6, "status_404": 1}
    asked = {request.path: request.headers for request in site.requests}
    assert asked["/tagged"]["If-None-Match"] == '"v1"'
    assert asked["/dated"]["If-Modified-Since"] == dated["Last-Modified"]
    assert "If-None-Match" not in asked["/same"]
    assert rows(tmp_path, "etag")["/changed"] == '"v2"'

    path = tmp_path / "web-00002.warc.gz"
    assert_clean(path)
    first = {
        headers.get_header("WARC-Target-URI"): headers
        for kind, headers, _ in records(tmp_path / "web-00001.warc.gz")
        if kind == "response"
    }
    revisits = {
        headers.get_header("WARC-Target-URI"): headers
        for kind, headers, _ in records(path)
        if kind == "revisit"
    }
    profiles = {
        uri.rpartition("/")[2]: headers.get_header("WARC-Profile").rpartition("/")[2]
        for uri, headers in revisits.items()
    }
    same = "identical-payload-digest"
    assert profiles == {"": same, "tagged": "server-not-modified", "dated": same, "same": same}
    for uri, headers in revisits.items():
        assert headers.get_header("WARC-Refers-To-Target-URI") == uri
        assert headers.get_header("WARC-Refers-To-Date") == first[uri].get_header("WARC-Date")
        assert headers.get_header("WARC-Payload-Digest") == first[uri].get_header("WARC-Payload-Digest")
    stored = [record.uri.rpartition("/")[2] for record in web.read(path) if not record.reason]
    assert stored == ["changed", "new"]


# ------------------------------------------------------------------------------------------------------- kills


def crawl_in_a_process(site: Site, folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    script = (
        "from pathlib import Path; from data_pipeline.crawl_config import CrawlConfig; "
        "from data_pipeline.crawl import crawl; "
        f"crawl(CrawlConfig(**{config(site, **options)!r}.__dict__), Path({str(folder)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])


def wait_for(site: Site, num_pages: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while len(site.asked()) < num_pages and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("num_pages", [12, 27])
def test_a_killed_crawl_goes_on_and_fetches_nothing_twice(site: Site, tmp_path: Path, num_pages: int) -> None:
    paths = [f"/{number}" for number in range(40)]
    site.pages = {"/": linked(*paths)} | {
        path: linked(f"{path}/more", text=prose(int(path[1:]), 400)) for path in paths
    }
    site.pages |= {f"{path}/more": linked() for path in paths}
    site.delay = 0.05
    process = crawl_in_a_process(site, tmp_path, max_depth=2)
    wait_for(site, num_pages, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed_at = time.monotonic()
    under_way = site.asked()[-1]
    assert len(site.asked()) < 40
    assert list(tmp_path.glob("*.part"))
    assert finished_crawl(config(site, max_depth=2), tmp_path) is None

    site.delay = 0.0
    result = crawl(config(site, max_depth=2), tmp_path)
    assert result.known + result.fetched == 81
    assert list(tmp_path.glob("*.part")) == []
    # Only the page that the kill fell into may be asked for again.
    again = {path for path, times in Counter(site.asked()).items() if times > 1}
    assert again <= {under_way}
    assert site.requests[-1].began > killed_at
    for path in tmp_path.glob("*.warc.gz"):
        assert_clean(path)
    found = [(record.uri, record.content) for record in captures(tmp_path)]
    assert len(found) == len(dict(found)) == 81
    assert all(prose(int(path[1:]), 400) in dict(found)[f"{site.url}{path}"] for path in paths)


def test_the_torn_end_of_an_archive_is_cut_off(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a", "/b"), "/a": linked(), "/b": linked("/c"), "/c": linked()}
    crawl(config(site, max_depth=2), tmp_path)
    path = tmp_path / "web-00001.warc.gz"
    whole = path.read_bytes()
    members = [at for at in range(len(whole)) if whole[at : at + 4] == b"\x1f\x8b\x08\x00"]
    assert len(members) == 13
    # As a kill would leave it: the frontier has heard of the seed only, and /b is stored, /c half so.
    torn = path.with_name(path.name + ".part")
    path.rename(torn)
    torn.write_bytes(whole[: members[11] + 20])
    with sqlite3.connect(tmp_path / "frontier.sqlite") as db:
        db.execute("UPDATE pages SET state = 'claimed', outcome = '', digest = '' WHERE url NOT LIKE '%/'")
        db.execute("DELETE FROM pages WHERE url LIKE '%/c'")
    site.requests.clear()
    result = crawl(config(site, max_depth=2), tmp_path)
    assert site.asked() == ["/c"]
    assert result.outcomes == {"done": 4}
    assert path.read_bytes() == whole[: members[10]]
    assert len(captures(tmp_path)) == 4


def test_an_archive_without_a_page_goes(site: Site, tmp_path: Path) -> None:
    (tmp_path / "web-00001.warc.gz.part").write_bytes(gzip.compress(b"WARC/1.0\r\n")[:-3])
    site.pages = {"/": linked()}
    crawl(config(site), tmp_path)
    assert [path.name for path in tmp_path.glob("*.warc*")] == ["web-00001.warc.gz"]
    assert len(captures(tmp_path)) == 1


def test_a_pause_outlasts_a_kill_within_a_page(site: Site, tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def kill_once(query: str) -> Answer:
        if processes:
            processes[0].kill()
            processes[0].wait()
            processes.clear()
        return linked()

    site.pages = {"/": kill_once}
    processes.append(crawl_in_a_process(site, tmp_path, delay=2.0))
    deadline = time.monotonic() + 60
    while processes and time.monotonic() < deadline:
        time.sleep(0.01)
    crawl(config(site, delay=2.0), tmp_path)
    assert site.asked() == ["/", "/"]
    assert min(site.gaps()) >= 2.0


def test_a_pause_outlasts_a_kill_between_archive_and_frontier(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a"), "/a": linked()}
    crawl(config(site, delay=2.0, max_pages=1), tmp_path)
    path = tmp_path / "web-00001.warc.gz"
    path.rename(path.with_name(path.name + ".part"))
    with sqlite3.connect(tmp_path / "frontier.sqlite") as db:
        db.execute("DELETE FROM pages WHERE depth = 1")
        db.execute("UPDATE pages SET state = 'claimed', outcome = '', digest = ''")
    crawl(config(site, delay=2.0), tmp_path)
    assert site.asked() == ["/", "/a"]
    assert min(site.gaps()) >= 2.0


def test_an_interrupted_crawl_ends_in_order(site: Site, tmp_path: Path) -> None:
    paths = [f"/{number}" for number in range(40)]
    site.pages = {"/": linked(*paths)} | dict.fromkeys(paths, linked())
    site.delay = 0.05
    process = crawl_in_a_process(site, tmp_path)
    wait_for(site, 10, process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert list(tmp_path.glob("*.part")) == []
    assert Counter(rows(tmp_path, "state").values())["claimed"] == 0
    num_stored = len(captures(tmp_path))
    assert list(outcomes(tmp_path).values()).count("done") == num_stored == len(site.asked())
    site.delay = 0.0
    assert crawl(config(site), tmp_path).known == num_stored
    assert max(Counter(site.asked()).values()) == 1


def test_progress_says_how_far_a_crawl_is(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(20)), "/none")} | {
        f"/{n}": linked() for n in range(20)
    }
    site.delay = 0.05
    lines: list[str] = []
    crawl(config(site), tmp_path, lines.append)
    assert 2 <= len(lines) <= 12
    assert lines[-1].startswith("21 pages, 0.0 MB, ")
    assert lines[-1].endswith(" pages/s, 0 hosts at work, 0 waiting, 1 status_404")


# ----------------------------------------------------------------------------------------------- many processes


def many_hosts(sites: list[Site]) -> dict[str, str]:
    for one in sites:
        one.pages = {"/": linked(*(f"/{n}" for n in range(6)))} | {
            f"/{n}": linked(text=prose(n)) for n in range(6)
        }
    return {f"h{number}.test": one.host for number, one in enumerate(sites)}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_actors_share_the_hosts_and_each_keeps_its_pace(site: Site, tmp_path: Path) -> None:
    sites = [site, *(Site() for _ in range(5))]
    addresses = many_hosts(sites)
    chosen = config(
        site, seeds=[f"http://{host}/" for host in addresses], connect_to=addresses, delay=0.2, workers=2
    )
    result = crawl(chosen, tmp_path)
    assert result.outcomes == {"done": 42}
    assert len(list(tmp_path.glob("*.warc.gz"))) == 2
    for path in tmp_path.glob("*.warc.gz"):
        assert_clean(path)
    for one in sites:
        assert max(Counter(one.asked()).values()) == 1
        assert min(one.gaps()) >= 0.2
    for one in sites[1:]:
        one.close()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_that_dies_loses_nothing(site: Site, tmp_path: Path) -> None:
    import psutil

    sites = [site, *(Site() for _ in range(5))]
    addresses = many_hosts(sites)
    chosen = config(
        site,
        seeds=[f"http://{host}/" for host in addresses],
        connect_to=addresses,
        delay=0.3,
        workers=2,
        retries=2,
    )
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(crawl(chosen, tmp_path)))
    thread.start()
    deadline = time.monotonic() + 60
    while sum(len(one.asked()) for one in sites) < 15 and time.monotonic() < deadline:
        time.sleep(0.02)
    actors = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::Worker") or "ray::Worker" in " ".join(process.cmdline())
    ]
    assert len(actors) == 2
    actors[0].kill()
    thread.join(timeout=120)
    (result,) = found
    assert result.outcomes == {"done": 42}
    assert list(tmp_path.glob("*.part")) == []
    uris = [record.uri for path in tmp_path.glob("*.warc.gz") for record in web.read(path)]
    assert len(uris) == len(set(uris)) == 42
    for path in tmp_path.glob("*.warc.gz"):
        assert_clean(path)
    for one in sites:
        # At most the page that the kill fell into is asked for again.
        assert sum(times - 1 for times in Counter(one.asked()).values()) <= 1
        assert min(one.gaps()) >= 0.3
    for one in sites[1:]:
        one.close()
