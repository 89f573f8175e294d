"""Which links a crawl follows: spelling, scope, depth, limits, and what authors ask for in their pages."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.crawl import crawl, finished_crawl, urls
from data_pipeline.crawl.pages import header_directives
from data_pipeline.crawl.scope import registered_domain
from tests.data_pipeline.site_server import HTML, Answer, Site, captures, config, linked, outcomes, rows


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


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
    assert result.left_out == {"beyond_depth": 1, "out_of_scope": 1}


def test_wider_limits_in_a_later_run_go_on_from_where_the_old_ones_stopped(
    site: Site, tmp_path: Path
) -> None:
    site.pages = {
        "/": linked("/a", "/skip"),
        "/a": linked("/b"),
        "/b": linked("/c"),
        "/c": linked(),
        "/skip": linked(),
    }
    crawl(config(site, max_depth=1, exclude=["skip"]), tmp_path)
    assert site.asked() == ["/", "/a"]
    assert finished_crawl(config(site, max_depth=1, exclude=["skip"]), tmp_path) is not None
    assert finished_crawl(config(site, max_depth=2, exclude=["skip"]), tmp_path) is None
    crawl(config(site, max_depth=2, exclude=["skip"]), tmp_path)
    assert site.asked() == ["/", "/a", "/b"]
    crawl(config(site, max_depth=3), tmp_path)
    assert site.asked() == ["/", "/a", "/b", "/skip", "/c"]


def test_narrower_limits_in_a_later_run_leave_out_what_was_queued(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("/a", "/b"), "/a": linked(), "/b": linked()}
    crawl(config(site, max_pages=1), tmp_path)
    result = crawl(config(site, exclude=["/b"]), tmp_path)
    assert site.asked() == ["/", "/a"]
    assert result.left_out == {"out_of_scope": 1}


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
    spellings = [
        "/",
        "/#top",
        site.url,
        site.url.replace("http", "HTTP"),
        "/a",
        "a",
        "./a#x",
        "/%61",
        "/b/../a",
    ]
    site.pages = {"/": linked(*spellings, "/a?utm_source=mail&fbclid=1"), "/a": linked("/")}
    crawl(config(site, seeds=[site.url, f"{site.url}/", f"{site.url}/#seed"]), tmp_path)
    assert sorted(site.asked()) == ["/", "/a"]
    assert len(captures(tmp_path)) == 2


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("HTTP://Example.ORG:80/a/../b/./c?x=1#f", "http://example.org/b/c?x=1"),
        ("https://example.org:443", "https://example.org/"),
        ("https://example.org:8443/", "https://example.org:8443/"),
        ("http://example.org./%7euser/%c3%bc%2F", "http://example.org/~user/%C3%BC%2F"),
        ("http://example.org/%2e%2e/x", "http://example.org/x"),
        ("http://b\u00fccher.de/\u00fc?\u00fc= 1", "http://xn--bcher-kva.de/%C3%BC?%C3%BC=%201"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        # What may name another page stays: order, empty parameters, double slashes, session ids.
        (
            "http://example.org//a//?b=2&a=1&c&d=&PHPSESSID=1",
            "http://example.org//a//?b=2&a=1&c&d=&PHPSESSID=1",
        ),
        ("http://example.org/?utm_source=x&q=1&gclid=2", "http://example.org/?q=1"),
        ("http://example.org/?fbclid=2", "http://example.org/"),
    ],
)
def test_a_url_has_one_spelling(given: str, spelled: str) -> None:
    assert urls.canonical(given) == spelled
    assert urls.canonical(spelled) == spelled


@pytest.mark.parametrize(
    "given",
    [
        "ftp://a.test/",
        "http://me:secret@a.test/",
        "http://",
        "/x",
        "http://a.test/" + "x" * 3000,
        "http://[x/",
    ],
)
def test_what_is_no_web_page_has_no_spelling(given: str) -> None:
    with pytest.raises(ValueError, match=r"no http|longer|[Ii]nvalid"):
        urls.canonical(given)


@given(st.sampled_from(["", "//", "http://", "/", "https://["]), st.text(max_size=40), st.text(max_size=40))
def test_the_spelling_of_any_link_is_its_own_spelling(begin: str, path: str, query: str) -> None:
    link = urls.link("http://a.test/x/", f"{begin}{path}?{query}")
    assert link == "" or urls.link("http://b.test/", link) == link
    assert link.isascii()
    assert link.isprintable()
    assert link == "" or urls.host_of(link)


# ------------------------------------------------------------------------------------------------------- scope


def crawled_hosts(site: Site, tmp_path: Path, **options: Any) -> set[str]:
    """Hosts that were asked, in a crawl whose names all lead to one server."""
    names = ["www.a.co.uk", "b.a.co.uk", "a.co.uk", "other.co.uk"]
    links = [f"http://{name}/docs/x" for name in names] + ["http://www.a.co.uk/blog/", "/docs/y"]
    site.pages = {"/docs/": linked(*links), "/docs/x": linked(), "/docs/y": linked(), "/blog/": linked()}
    addresses = dict.fromkeys(names, site.host)
    crawl(config(site, seeds=["http://www.a.co.uk/docs/"], connect_to=addresses, **options), tmp_path)
    return {request.headers["Host"] for request in site.requests}


def test_scope_domain_takes_in_all_below_the_registered_domain(site: Site, tmp_path: Path) -> None:
    assert crawled_hosts(site, tmp_path, scope="domain") == {"www.a.co.uk", "b.a.co.uk", "a.co.uk"}
    assert registered_domain("me.github.io") == "me.github.io"


def test_scope_host_and_scope_any(site: Site, tmp_path: Path) -> None:
    assert crawled_hosts(site, tmp_path / "host") == {"www.a.co.uk"}
    site.requests.clear()
    assert len(crawled_hosts(site, tmp_path / "any", scope="any")) == 4


def test_scope_prefix_stays_in_the_folder_of_the_seed(site: Site, tmp_path: Path) -> None:
    assert crawled_hosts(site, tmp_path, scope="prefix") == {"www.a.co.uk"}
    assert sorted(site.asked()) == ["/docs/", "/docs/x", "/docs/y"]


def test_a_seed_that_points_to_its_own_www_host_is_followed(site: Site, tmp_path: Path) -> None:
    addresses = dict.fromkeys(("a.org", "www.a.org", "evil.org"), site.host)
    site.pages["/a"] = linked("http://evil.org/")
    site.pages["/"] = lambda query: (
        linked("/a")
        if site.requests[-1].headers["Host"] == "www.a.org"
        else (301, {"Location": "http://www.a.org/"}, b"")
    )
    chosen = config(site, seeds=["http://a.org/"], connect_to=addresses)
    assert crawl(chosen, tmp_path).outcomes == {"done": 2, "redirect": 1}
    assert finished_crawl(chosen, tmp_path) is not None


def test_without_a_contact_no_link_leads_to_a_stranger(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": linked("http://example.org/", "/a"),
        "/a": (301, {"Location": "http://example.org/b"}, b""),
    }
    result = crawl(config(site, scope="any"), tmp_path)
    assert result.outcomes == {"done": 1, "redirect": 1}
    assert result.left_out == {"out_of_scope": 2}


# ------------------------------------------------------------------------------------------------------ limits


def test_no_more_pages_than_asked_for_and_a_second_crawl_may_go_on(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(10)))} | {f"/{n}": linked() for n in range(10)}
    assert crawl(config(site, max_pages=4), tmp_path).fetched == 4
    assert site.asked() == ["/", "/0", "/1", "/2"]
    done = finished_crawl(config(site, max_pages=4), tmp_path)
    assert done is not None
    assert (done.fetched, done.known, done.waiting) == (0, 4, 7)
    assert crawl(config(site, max_pages=4), tmp_path).fetched == 0
    assert finished_crawl(config(site, max_pages=6), tmp_path) is None
    result = crawl(config(site, max_pages=6), tmp_path)
    assert (result.fetched, result.known) == (2, 4)
    assert max(Counter(site.asked()).values()) == 1


def test_many_hosts_share_the_page_limit_to_the_page(site: Site, tmp_path: Path) -> None:
    hosts = [f"h{number}.test" for number in range(8)]
    site.pages = {"/": linked("/ok", "/none"), "/ok": linked()}
    chosen = config(
        site,
        seeds=[f"http://{host}/" for host in hosts],
        connect_to=dict.fromkeys(hosts, site.host),
        max_pages=13,
    )
    assert crawl(chosen, tmp_path).fetched == 13


def test_an_endless_calendar_ends(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": linked("/calendar?month=1", "/deeper/x"),
        "/calendar": lambda query: linked(f"/calendar?month={int(query.partition('=')[2]) + 1}"),
    } | {"/deeper" * n + "/x": linked("deeper/x") for n in range(1, 9)}
    result = crawl(config(site, max_depth=100, max_queries=5), tmp_path)
    assert sum(path.startswith("/calendar") for path in site.asked()) == 5
    assert max(path.count("deeper") for path in site.asked()) == 3
    assert result.left_out == {"query_limit": 1, "trap": 1}
    assert crawl(config(site, max_depth=100, max_queries=7), tmp_path).fetched == 2


def test_a_host_has_its_own_page_limit(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked(*(f"/{n}" for n in range(5)))} | {f"/{n}": linked() for n in range(5)}
    addresses = {"a.test": site.host, "b.test": site.host}
    chosen = config(
        site, seeds=["http://a.test/", "http://b.test/"], connect_to=addresses, max_pages_per_host=3
    )
    result = crawl(chosen, tmp_path)
    assert Counter(request.headers["Host"] for request in site.requests if request.path != "/robots.txt") == {
        "a.test": 3,
        "b.test": 3,
    }
    assert result.left_out == {"host_limit": 6}
    assert finished_crawl(chosen, tmp_path) is not None


# ----------------------------------------------------------------------------------------- what the pages ask for


def test_a_base_element_changes_where_links_lead(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": linked("x", head='<base href="/sub/">'), "/sub/x": linked()}
    crawl(config(site), tmp_path)
    assert site.asked() == ["/", "/sub/x"]


def test_frames_and_refreshes_lead_on_as_links_do(site: Site, tmp_path: Path) -> None:
    page = (
        b'<html><head><meta http-equiv="Refresh" content="0; URL=/moved"></head><body><iframe src="/frame"></iframe>'
        b'<map><area href="/area"></map></body></html>'
    )
    site.pages = {"/": (200, HTML, page), "/moved": linked(), "/frame": linked(), "/area": linked()}
    crawl(config(site), tmp_path)
    assert sorted(site.asked()) == ["/", "/area", "/frame", "/moved"]


@pytest.mark.parametrize("rel", ["nofollow", "ugc", "external Sponsored"])
def test_a_link_that_its_author_does_not_vouch_for_is_not_taken(site: Site, tmp_path: Path, rel: str) -> None:
    page = f'<a rel="{rel}" href="/no">x</a><a rel="next" href="/yes">y</a>'.encode()
    site.pages = {"/": (200, HTML, page), "/no": linked(), "/yes": linked()}
    crawl(config(site), tmp_path)
    assert site.asked() == ["/", "/yes"]


META = '<meta name="{}" content="{}">'


@pytest.mark.parametrize(
    ("page", "follows", "stores"),
    [
        (linked("/a", head=META.format("robots", "nofollow")), False, True),
        (linked("/a", head=META.format("ROBOTS", "NoIndex")), True, False),
        (linked("/a", head=META.format("gptmill", "none")), False, False),
        (linked("/a", head=META.format("googlebot", "none")), True, True),
        (linked("/a", X_Robots_Tag="noindex, nofollow"), False, False),
        (linked("/a", X_Robots_Tag="otherbot: noindex, nofollow"), True, True),
        (linked("/a", X_Robots_Tag="otherbot: nofollow, gptmill: noindex"), True, False),
        (linked("/a", X_Robots_Tag="unavailable_after: 25 Jun 2030 15:00:00 PST"), True, True),
    ],
)
def test_nofollow_and_noindex_are_honoured(
    site: Site, tmp_path: Path, page: Answer, follows: bool, stores: bool
) -> None:
    site.pages = {"/": page, "/a": linked()}
    crawl(config(site), tmp_path)
    assert ("/a" in site.asked()) == follows
    assert (f"{site.url}/" in {record.uri for record in captures(tmp_path)}) == stores
    assert outcomes(tmp_path)["/"] == ("done" if stores else "noindex")


def test_each_header_of_directives_speaks_for_itself() -> None:
    assert header_directives(["otherbot: noindex", "nofollow"]) == {"nofollow"}


# ----------------------------------------------------------------------------------------------------- sitemaps


def sitemap(*urls: str, tag: str = "url") -> bytes:
    entries = "".join(f"<{tag}><loc> {url} </loc><lastmod>2024-01-01</lastmod></{tag}>" for url in urls)
    return (
        f'<?xml version="1.0"?><set xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</set>'
    ).encode()


XML = {"Content-Type": "application/xml"}


def test_sitemaps_of_robots_txt_are_read_with_their_indexes(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/robots.txt": (
            200,
            {},
            f"Disallow: /secret\nSitemap: {site.url}/index.xml\nSitemap: /gone.xml\n".encode(),
        ),
        "/index.xml": (200, XML, sitemap(f"{site.url}/1.xml.gz", f"{site.url}/2.txt", tag="sitemap")),
        "/1.xml.gz": (
            200,
            {"Content-Type": "application/gzip"},
            gzip.compress(sitemap(f"{site.url}/a", "http://x.test/")),
        ),
        "/2.txt": (200, {"Content-Type": "text/plain"}, f"{site.url}/b\n{site.url}/c\n".encode()),
        **{path: linked() for path in ("/", "/a", "/b", "/c")},
    }
    result = crawl(config(site), tmp_path)
    assert {"/a", "/b", "/c"} <= set(site.asked())
    assert result.outcomes == {"done": 4, "sitemap": 3}
    assert max(Counter(site.asked()).values()) == 1
    # A sitemap is no document.
    assert {record.uri for record in captures(tmp_path)} == {
        f"{site.url}{path}" for path in ("/", "/a", "/b", "/c")
    }
    assert rows(tmp_path, "depth")["/b"] == 1


def test_a_given_sitemap_is_enough_to_begin_with_and_others_can_be_left_unread(
    site: Site, tmp_path: Path
) -> None:
    site.pages = {
        "/robots.txt": (200, {}, f"Sitemap: {site.url}/other.xml\n".encode()),
        "/map.xml": (200, XML, sitemap(f"{site.url}/a")),
        "/a": linked(),
    }
    crawl(config(site, seeds=[], sitemaps=[f"{site.url}/map.xml"], follow_sitemaps=False), tmp_path)
    assert site.asked() == ["/map.xml", "/a"]


def test_a_hostile_sitemap_costs_nothing_and_ends_nothing(site: Site, tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY l0 "lol">{laughs}<!ENTITY f SYSTEM "file:///etc/hostname">]>'
    bomb += f"<urlset><url><loc>{site.url}/a</loc></url><url><loc>&l11;</loc></url><url><loc>/&f;</loc></url></urlset>"
    maps = ["/bomb.xml", "/broken.xml", "/zeros.gz"]
    site.pages = {
        "/bomb.xml": (200, XML, bomb.encode()),
        "/broken.xml": (200, XML, sitemap(f"{site.url}/b")[:-20] + b"<url><loc>"),
        "/zeros.gz": (200, {}, gzip.compress(bytes(200 << 20), 1)),
        "/a": linked(),
        "/b": linked(),
    }
    crawl(config(site, seeds=[], sitemaps=[site.url + path for path in maps]), tmp_path)
    assert {"/a", "/b"} <= set(site.asked())
    assert len(site.asked()) <= 6
