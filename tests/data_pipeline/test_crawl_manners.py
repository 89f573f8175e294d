"""How a crawl behaves towards servers: robots.txt, pauses, who it says it is, and whom it leaves alone."""

from __future__ import annotations

import gzip
import socket
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.crawl import crawl, finished_crawl
from data_pipeline.crawl.addresses import is_public
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.errors import InputError
from tests.data_pipeline.site_server import Answer, Site, config, linked, outcomes


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


# -------------------------------------------------------------------------------------------------- robots.txt


def test_what_robots_txt_disallows_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    rules = b"User-agent: *\nDisallow: /private\nDisallow: /*.pdf$\nDisallow: /a*/x\nAllow: /private/open\n"
    site.pages = {
        "/robots.txt": (200, {"Content-Type": "text/plain"}, rules),
        "/": linked("/private/x", "/private/open", "/f.pdf", "/f.pdf?x", "/abc/x", "/%70rivate/y"),
        "/private/open": linked(),
        "/f.pdf": linked(),
    }
    result = crawl(config(site), tmp_path)
    assert sorted(site.asked()) == ["/", "/f.pdf?x", "/private/open"]
    assert result.outcomes == {"done": 3, "robots": 4}
    assert [request.path for request in site.requests].count("/robots.txt") == 1


RULES = b"User-agent: gptmill\nDisallow: /\n"


@pytest.mark.parametrize(
    "pages",
    [
        {"/robots.txt": (200, {"Content-Encoding": "gzip"}, gzip.compress(RULES))},
        {"/robots.txt": (301, {"Location": "/moved.txt"}, b""), "/moved.txt": (200, {}, RULES)},
        {"/robots.txt": (200, {}, b"\xef\xbb\xbf" + RULES)},
        {"/robots.txt": (200, {}, RULES + b"#" * 2_000_000)},
    ],
    ids=["compressed", "redirected", "with a byte order mark", "huge"],
)
def test_robots_txt_counts_however_it_comes(site: Site, tmp_path: Path, pages: dict[str, Answer]) -> None:
    site.pages = {**pages, "/": linked()}
    assert crawl(config(site, max_page_bytes=1_000_000), tmp_path).outcomes == {"robots": 1}
    assert "/" not in site.asked()


@pytest.mark.parametrize(
    "failure", [(503, {}, b""), (429, {}, b""), (0, {}, b"")], ids=["5xx", "429", "hangs up"]
)
def test_a_robots_txt_that_cannot_be_had_forbids_all_until_a_later_run(
    site: Site, tmp_path: Path, failure: Answer
) -> None:
    site.pages = {"/robots.txt": failure, "/": linked("/a"), "/a": linked()}
    assert crawl(config(site), tmp_path).outcomes == {"robots_unreachable": 1}
    assert site.asked() == []
    assert finished_crawl(config(site), tmp_path) is None
    site.pages["/robots.txt"] = (404, {}, b"")
    assert crawl(config(site), tmp_path).outcomes == {"done": 2}


def test_one_bad_moment_of_robots_txt_is_waited_out(site: Site, tmp_path: Path) -> None:
    answers: list[Answer] = [(503, {}, b""), (200, {}, b"User-agent: *\nDisallow: /a\n")]
    site.pages = {"/robots.txt": lambda query: answers.pop(0), "/": linked("/a", "/b"), "/b": linked()}
    assert crawl(config(site, retries=1), tmp_path).outcomes == {"done": 2, "robots": 1}
    assert site.gaps()[0] >= 0.5


def test_a_host_that_never_answers_is_given_up_after_some_runs(site: Site, tmp_path: Path) -> None:
    site.pages = {"/robots.txt": (503, {}, b"")}
    for _ in range(3):
        assert finished_crawl(config(site), tmp_path) is None
        crawl(config(site), tmp_path)
    assert finished_crawl(config(site), tmp_path) is not None
    assert len(site.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (404, {}, b""),
        (403, {}, b""),
        (301, {"Location": "/robots.txt"}, b""),
        (301, {"Location": "http://10.0.0.1/"}, b""),
    ],
)
def test_without_a_robots_txt_all_is_allowed(site: Site, tmp_path: Path, answer: Answer) -> None:
    site.pages = {"/robots.txt": answer, "/": linked()}
    assert crawl(config(site), tmp_path).outcomes == {"done": 1}


def test_only_the_name_of_the_crawler_chooses_its_rules(site: Site, tmp_path: Path) -> None:
    # The contact is part of the user agent, and says "bot".
    site.pages = {"/robots.txt": (200, {}, b"User-agent: bot\nDisallow: /\n"), "/": linked()}
    assert crawl(config(site, contact="bot@a.test"), tmp_path).outcomes == {"done": 1}


# ------------------------------------------------------------------------------------------------------- pauses


def test_requests_keep_their_distance(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/robots.txt": (200, {}, b"User-agent: *\nCrawl-delay: 0.4\n"),
        "/": linked("/a", "/b"),
        "/a": linked(),
        "/b": linked(),
    }
    assert crawl(config(site), tmp_path).fetched == 3
    assert len(site.gaps()) == 3
    assert min(site.gaps()) >= 0.4


def test_each_of_many_hosts_has_its_own_pace_side_by_side(site: Site, tmp_path: Path) -> None:
    sites = [site, *(Site() for _ in range(5))]
    for one in sites:
        one.pages = {"/": linked("/a", "/b"), "/a": linked(), "/b": linked()}
    addresses = {f"h{number}.test": one.host for number, one in enumerate(sites)}
    chosen = config(site, seeds=[f"http://{host}/" for host in addresses], connect_to=addresses, delay=0.5)
    began = time.monotonic()
    try:
        assert crawl(chosen, tmp_path).fetched == 18
    finally:
        for one in sites[1:]:
            one.close()
    assert all(min(one.gaps()) >= 0.5 for one in sites)
    # One after the other these are 6 x 3 pauses of half a second.
    assert time.monotonic() - began < 6


def test_a_second_run_keeps_the_distance_to_the_first(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a"), "/a": linked()}
    crawl(config(site, delay=0.6, max_pages=1), tmp_path)
    crawl(config(site, delay=0.6), tmp_path)
    assert len(site.requests) == 4
    assert min(site.gaps()) >= 0.6


def test_a_host_that_wants_too_long_pauses_is_left_alone(site: Site, tmp_path: Path) -> None:
    site.pages = {"/robots.txt": (200, {}, b"User-agent: *\nCrawl-delay: 3600\n"), "/": linked()}
    assert crawl(config(site), tmp_path).outcomes == {"crawl_delay_too_long": 1}
    assert site.asked() == []


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("in_words", [False, True])
def test_a_busy_server_is_left_alone_as_long_as_it_asks(
    site: Site, tmp_path: Path, status: int, in_words: bool
) -> None:
    def busy_once(query: str) -> Answer:
        if site.asked().count("/a") > 1:
            return linked()
        # A date has whole seconds only, so it may come out up to one too early.
        return status, {"Retry-After": formatdate(time.time() + 2, usegmt=True) if in_words else "1"}, b""

    site.pages = {"/": linked("/a", "/b"), "/a": busy_once, "/b": linked()}
    assert crawl(config(site, retries=1), tmp_path).outcomes == {"done": 3}
    assert site.asked() == ["/", "/a", "/a", "/b"]
    assert site.gaps()[2] >= 1.0


def test_a_server_that_is_busy_for_hours_is_put_off_to_a_later_run(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a", "/b"), "/a": (429, {"Retry-After": "7200"}, b""), "/b": linked()}
    began = time.monotonic()
    result = crawl(config(site, retries=1), tmp_path)
    assert time.monotonic() - began < 30
    assert site.asked() == ["/", "/a"]
    assert result.waiting == 2
    assert finished_crawl(config(site), tmp_path) is None
    # The two hours are not over.
    crawl(config(site), tmp_path)
    assert site.asked() == ["/", "/a"]


# ----------------------------------------------------------------------------------------- who asks, who is asked


def test_the_crawler_says_who_it_is_and_keeps_no_cookie(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a", Set_Cookie="id=1; Path=/"), "/a": linked()}
    crawl(config(site, contact="me@a.test"), tmp_path)
    assert {request.headers["User-Agent"] for request in site.requests} == {"gptmill/0.1 (+me@a.test)"}
    assert all("Cookie" not in request.headers for request in site.requests)


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


@pytest.mark.parametrize(
    "name", ["localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_no_link_or_redirect_leads_to_a_private_address(site: Site, tmp_path: Path, name: str) -> None:
    port = site.host.rpartition(":")[2]
    site.pages = {
        "/": linked(f"http://{name}:{port}/secret", "/to"),
        "/to": (302, {"Location": f"http://{name}:{port}/secret?2"}, b""),
    }
    result = crawl(config(site, scope="any", contact="me@a.test"), tmp_path)
    assert sorted(site.asked()) == ["/", "/to"]
    assert result.outcomes["private_address"] + result.outcomes.get("failed_ConnectError", 0) == 2


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:a00:1::1",
        "2002:808:808::1",
        "2001:0:808:808::1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_no_address_outside_the_public_internet_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111"])
def test_addresses_of_the_public_internet_are(address: str) -> None:
    assert is_public(address)


def test_a_name_is_looked_up_once_and_that_address_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name server of an attacker: first a public address, then ours. Connecting by name would reach the site.
    port = int(site.host.rpartition(":")[2])
    real, answers = socket.getaddrinfo, iter(["192.0.2.1"] + ["127.0.0.1"] * 50)

    def lookup(host: Any, *rest: Any, **options: Any) -> Any:
        return real(next(answers) if host == "rebind.test" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr("data_pipeline.crawl.addresses.is_public", lambda address: address == "192.0.2.1")
    site.pages = {"/": linked(f"http://rebind.test:{port}/x")}
    result = crawl(config(site, scope="any", contact="me@a.test", timeout=0.5), tmp_path)
    assert site.asked() == ["/"]
    assert set(result.outcomes) <= {"done", "robots_unreachable", "private_address"}


def test_a_host_is_fetched_from_where_the_user_says(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a"), "/a": linked()}
    crawl(config(site, seeds=["http://www.site.test/"], connect_to={"www.site.test": site.host}), tmp_path)
    assert {request.headers["Host"] for request in site.requests} == {"www.site.test"}
    assert outcomes(tmp_path) == {"/": "done", "/a": "done"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": []}, r"crawl\.seeds"),
        ({"seeds": ["ftp://a.test/"]}, r"crawl\.seeds: 'ftp://a\.test/'"),
        ({"seeds": ["http://[::1"]}, r"crawl\.seeds"),
        ({"seeds": ["http://a.test:port/"]}, r"crawl\.seeds"),
        ({"seeds": ["http://127.0.0.1/\x01"]}, r"crawl\.seeds"),
        ({"seeds": ["http://me:secret@127.0.0.1/"]}, r"crawl\.seeds"),
        ({"sitemaps": ["/sitemap.xml"]}, r"crawl\.sitemaps: '/sitemap\.xml'"),
        ({"name": "a/b"}, r"crawl\.name"),
        ({"include": ["("]}, r"crawl\.include: '\('"),
        ({"exclude": ["["]}, r"crawl\.exclude"),
        ({"delay": -1.0}, r"crawl\.delay"),
        ({"retries": -1}, r"crawl\.retries"),
        ({"max_pages": 0}, r"crawl\.max_pages"),
        ({"timeout": 0.0}, r"crawl\.timeout"),
        ({"workers": 0}, r"crawl\.workers"),
        ({"contact": "me\r\nX: y"}, r"crawl\.contact"),
        ({"connect_to": {"a.test": "127.0.0.1:http"}}, r"crawl\.connect_to: '127\.0\.0\.1:http'"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    values = {"seeds": ["http://127.0.0.1/"], "allow_private": ["127.0.0.1"], **options}
    with pytest.raises(InputError, match=words) as error:
        crawl(CrawlConfig(**values), tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_has_one_crawl_at_a_time(site: Site, tmp_path: Path) -> None:
    said: list[str] = []

    def second(query: str) -> Answer:
        with pytest.raises(InputError, match="worked on by another process") as error:
            crawl(config(site), tmp_path)
        said.append(str(error.value))
        return linked()

    site.pages = {"/": second}
    crawl(config(site), tmp_path)
    assert len(said) == 1
    assert Counter(site.asked()) == {"/": 1}
