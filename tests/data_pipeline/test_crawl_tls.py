"""HTTPS: certificates are checked against the host's own name, wherever it is connected to, and counted when refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipeline.crawl import crawl
from tests.data_pipeline.certificates import Authority
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.site_server import Site, captures, config, linked

Secure = Callable[..., Site]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Whom the crawler trusts, by the variable that OpenSSL reads."""
    (tmp_path / "certificates").mkdir()
    made = Authority(tmp_path / "certificates", "trusted")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.path))
    return made


@pytest.fixture
def secure(authority: Authority) -> Iterator[Secure]:
    """Starts sites over TLS."""
    sites: list[Site] = []

    def start(*names: str, by: Authority = authority, expired: bool = False) -> Site:
        sites.append(Site(by.server(*names, expired=expired)))
        return sites[-1]

    yield start
    for site in sites:
        site.close()


@pytest.fixture
def plain() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def test_a_site_over_tls_is_crawled_under_its_own_name(secure: Secure, tmp_path: Path) -> None:
    site = secure("www.site.test")
    text = prose(1, 80)
    site.pages = {"/": linked("/a", "https://www.site.test/b"), "/a": linked(text=text), "/b": linked()}
    chosen = config(site, seeds=["https://www.site.test/"], connect_to={"www.site.test": site.host})
    result = crawl(chosen, tmp_path / "crawl")
    assert result.outcomes == {"done": 3}
    assert sorted(site.asked()) == ["/", "/a", "/b"]
    # The name in the handshake is the site's, not the address that it is fetched from.
    assert site.names
    assert set(site.names) == {"www.site.test"}
    found = {record.uri: record for record in captures(tmp_path / "crawl")}
    assert set(found) == {f"https://www.site.test{path}" for path in ("/", "/a", "/b")}
    assert text in found["https://www.site.test/a"].content


def test_a_redirect_from_http_to_https_is_followed(secure: Secure, plain: Site, tmp_path: Path) -> None:
    site = secure("www.a.org", "a.org")
    plain.pages = {
        "/": (301, {"Location": "https://www.a.org/"}, b""),
        "/old": (301, {"Location": "https://a.org/new"}, b""),
    }
    site.pages = {"/": linked("/a", "http://a.org/old"), "/a": linked(), "/new": linked()}
    addresses = {"a.org:80": plain.host, "a.org:443": site.host, "www.a.org": site.host}
    chosen = config(site, seeds=["http://a.org/"], scope="domain", connect_to=addresses, max_depth=2)
    result = crawl(chosen, tmp_path / "crawl")
    assert sorted(plain.asked()) == ["/", "/old"]
    assert sorted(site.asked()) == ["/", "/a", "/new"]
    assert result.outcomes == {"redirect": 2, "done": 3}
    assert set(site.names) == {"www.a.org", "a.org"}


@pytest.mark.parametrize("wrong", ["unknown authority", "expired", "another host"])
def test_a_certificate_that_cannot_be_trusted_is_counted_as_such_and_nothing_is_asked(
    secure: Secure, plain: Site, tmp_path: Path, wrong: str
) -> None:
    (tmp_path / "stranger").mkdir()
    site = {
        "unknown authority": lambda: secure("bad.test", by=Authority(tmp_path / "stranger", "stranger")),
        "expired": lambda: secure("bad.test", expired=True),
        "another host": lambda: secure("other.test"),
    }[wrong]()
    site.pages = {"/": linked("/a"), "/a": linked()}
    plain.pages = {"/": linked("https://bad.test/x"), "/good": linked()}
    chosen = config(
        plain,
        seeds=["https://bad.test/", "http://good.test/", "http://good.test/good"],
        scope="any",
        retries=2,
        connect_to={"bad.test": site.host, "good.test": plain.host},
    )
    said: list[str] = []
    result = crawl(chosen, tmp_path / "crawl", said.append)
    assert result.outcomes == {"failed_certificate": 2, "done": 2}
    assert site.requests == []
    # Another try would change nothing.
    assert len(site.names) == 1
    assert "2 failed_certificate" in said[-1]


def test_a_certificate_that_goes_bad_after_robots_txt_is_counted_alike(
    secure: Secure, tmp_path: Path
) -> None:
    good, bad = secure("www.site.test"), secure("www.site.test", expired=True)
    good.pages = {"/robots.txt": linked()}
    addresses = {"www.site.test:443": good.host, "www.site.test:444": bad.host}
    good.pages = {"/": linked("https://www.site.test:444/")}
    chosen = config(good, seeds=["https://www.site.test/"], scope="domain", connect_to=addresses)
    result = crawl(chosen, tmp_path / "crawl")
    assert result.outcomes == {"done": 1, "failed_certificate": 1}


def test_a_server_that_speaks_no_tls_is_counted_as_unreachable(plain: Site, tmp_path: Path) -> None:
    chosen = config(plain, seeds=["https://www.site.test/"], connect_to={"www.site.test": plain.host})
    assert crawl(chosen, tmp_path / "crawl").outcomes == {"robots_unreachable": 1}
    assert plain.requests == []


def test_a_handshake_that_never_ends_costs_the_timeout_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        threading.Thread(target=silent.accept, daemon=True).start()
        chosen = config(
            Site(), seeds=["https://www.site.test/"], connect_to={"www.site.test": host}, timeout=0.5
        )
        assert crawl(chosen, tmp_path / "crawl").outcomes == {"robots_unreachable": 1}
