"""Scrape a site politely into WARC: robots.txt, one request at a time a host, a frontier that survives a kill.

`<out>/frontier.sqlite` remembers every URL and what became of it; `<out>/<name>-NNNNN.warc.gz` holds what was
fetched, one file a run. A page is marked done only after its record is on disk, so a crawl that is killed goes
on where it stopped; a crawl that is done fetches nothing.
"""

from __future__ import annotations

import io
import ipaddress
import itertools
import re
import socket
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
import lxml.etree
import lxml.html
from protego import Protego
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipeline.config import CrawlConfig
from data_pipeline.errors import InputError
from data_pipeline.sources.web import decode_body, page_record

Progress = Callable[[str], None]
MAX_REDIRECTS = 5
UNAVAILABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, zlib.error)
PART = ".part"


@dataclass(frozen=True)
class CrawlResult:
    """What a crawl did: pages fetched now, pages known before, counts by outcome, and its WARC folder."""

    fetched: int
    known: int
    outcomes: dict[str, int]
    folder: Path


def crawl(config: CrawlConfig, folder: Path, progress: Progress = lambda line: None) -> CrawlResult:
    """Fetch what the frontier still holds.

    Args:
        config: validated by the call.
        folder: <workspace>/raw/<name>; made when it does not exist.
        progress: told pages and bytes, one short line at a time.

    Raises:
        InputError: a configuration that cannot work, or a seed's host with a private address.
    """
    config.validate()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Frontier(folder / "frontier.sqlite")) as frontier:
        frontier.add(_seeds(config), depth=0)
        known = frontier.count("done")
        _adopt_unfinished(folder)
        if frontier.next() is None or known >= config.max_pages:
            return CrawlResult(0, known, frontier.outcomes(), folder)
        path = _new_archive(folder, config.name)
        fetched = 0
        total_bytes = 0
        with path.open("xb") as file, _client(config) as client:
            site = _Site(config, client)
            archive = _Archive(file, config)
            while known + fetched < config.max_pages and (entry := frontier.next()) is not None:
                url, depth, redirects = entry
                outcome, links, size = _fetch(url, site, archive)
                if outcome == "done":
                    fetched += 1
                    total_bytes += size
                links = _in_scope(links, config)
                if outcome != "redirect":
                    if depth < config.max_depth:
                        frontier.add(links, depth + 1)
                elif redirects < MAX_REDIRECTS:
                    # A redirect is no step further from the seed.
                    frontier.add(links, depth, redirects + 1)
                frontier.finish(url, outcome)
                progress(f"{fetched} pages, {total_bytes / 1e6:.1f} MB, {frontier.count('queued')} waiting")
        path.rename(path.with_name(path.name.removesuffix(PART)))
        return CrawlResult(fetched, known, frontier.outcomes(), folder)


def finished_crawl(config: CrawlConfig, folder: Path) -> CrawlResult | None:
    """What an earlier crawl left, if this configuration would fetch nothing more; else None."""
    path = folder / "frontier.sqlite"
    if not path.exists():
        return None
    with closing(Frontier(path)) as frontier:
        frontier.add(_seeds(config), depth=0)
        known = frontier.count("done")
        if frontier.next() is not None and known < config.max_pages:
            return None
        return CrawlResult(0, known, frontier.outcomes(), folder)


class Frontier:
    """URLs to fetch and URLs done, in SQLite: the order is that of discovery, breadth first."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS pages "
            "(id INTEGER PRIMARY KEY, url TEXT UNIQUE, depth INTEGER, redirects INTEGER, outcome TEXT, "
            "fetched_at REAL)"
        )

    def add(self, urls: list[str], depth: int, redirects: int = 0) -> None:
        """Queue URLs that were never seen; `redirects` led to them in a row."""
        rows = [(url, depth, redirects) for url in urls]
        self._db.executemany(
            "INSERT OR IGNORE INTO pages (url, depth, redirects, outcome) VALUES (?, ?, ?, 'queued')", rows
        )
        self._db.commit()

    def next(self) -> tuple[str, int, int] | None:
        """The next (url, depth, redirects), or None when all are done."""
        return self._db.execute(
            "SELECT url, depth, redirects FROM pages WHERE outcome = 'queued' ORDER BY depth, id LIMIT 1"
        ).fetchone()

    def finish(self, url: str, outcome: str) -> None:
        """Record what became of a URL."""
        self._db.execute(
            "UPDATE pages SET outcome = ?, fetched_at = ? WHERE url = ?", (outcome, time.time(), url)
        )
        self._db.commit()

    def count(self, outcome: str) -> int:
        """Number of URLs with an outcome."""
        return self._db.execute("SELECT count(*) FROM pages WHERE outcome = ?", (outcome,)).fetchone()[0]

    def outcomes(self) -> dict[str, int]:
        """Number of URLs by outcome."""
        return dict(self._db.execute("SELECT outcome, count(*) FROM pages GROUP BY outcome ORDER BY outcome"))

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class _Site:
    """Requests to hosts, each with its robots.txt and its pace."""

    def __init__(self, config: CrawlConfig, client: httpx.Client) -> None:
        self.config, self._client = config, client
        self._robots: dict[str, Protego | None] = {}
        self._last: dict[str, float] = {}

    def allowed(self, url: str) -> bool:
        """Whether robots.txt lets us fetch a URL (RFC 9309: a missing file allows all, a failing server nothing)."""
        parts = urlsplit(url)
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in self._robots:
            try:
                status, body = self._robots_txt(f"{key}/robots.txt")
                if status >= 500:
                    self._robots[key] = None
                else:
                    self._robots[key] = Protego.parse(
                        body[:500_000].decode("utf-8", "replace") if status == 200 else ""
                    )
            except (httpx.HTTPError, zlib.error):
                self._robots[key] = None
        robots = self._robots[key]
        return robots is not None and robots.can_fetch(url, self.config.user_agent)

    def _robots_txt(self, url: str) -> tuple[int, bytes]:
        """(status, body) of a robots.txt, over the redirects that RFC 9309, section 2.3.1.2, asks to follow."""
        status, fields, body = self.get(url)
        for _ in range(MAX_REDIRECTS):
            target = _link(url, fields["location"]) if 300 <= status < 400 and "location" in fields else ""
            if not target:
                break
            try:
                status, fields, body = self.get(target)
            except InputError:  # the site points into a private network
                return 404, b""
            url = target
        return status, decode_body(body, None, fields.get("content-encoding"))

    def get(self, url: str) -> tuple[int, httpx.Headers, bytes]:
        """(status, headers, raw body) of a URL, no redirect followed; failures and 5xx answers are tried again.

        Raises:
            InputError: the host resolves to an address that the crawl must not touch.
            httpx.HTTPError: no answer.
        """
        for pause in [min(30.0, 0.5 * 2**attempt) for attempt in range(self.config.retries)]:
            try:
                answer = self._request(url)
            except httpx.TransportError:
                pass
            else:
                if answer[0] < 500:
                    return answer
            time.sleep(pause)
        return self._request(url)

    def _request(self, url: str) -> tuple[int, httpx.Headers, bytes]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._wait(host, url)
        target = self.config.connect_to.get(host)
        if target is None:
            self._refuse_private(host)
        netloc = target or parts.netloc
        request = self._client.build_request(
            "GET", parts._replace(netloc=netloc).geturl(), headers={"Host": parts.netloc}
        )
        request.extensions["sni_hostname"] = host
        response = self._client.send(request, stream=True)
        try:
            pieces, size = [], 0
            for piece in response.iter_raw(64 << 10):
                pieces.append(piece)
                size += len(piece)
                if size > self.config.max_page_bytes:
                    break
        finally:
            response.close()
        return response.status_code, response.headers, b"".join(pieces)

    def _wait(self, host: str, url: str) -> None:
        robots = self._robots.get(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}")
        asked = robots.crawl_delay(self.config.user_agent) if robots is not None else None
        pause = max(self.config.delay, float(asked or 0)) - (time.monotonic() - self._last.get(host, -1e9))
        if pause > 0:
            time.sleep(pause)
        self._last[host] = time.monotonic()

    def _refuse_private(self, host: str) -> None:
        if host in self.config.allow_private:
            return
        for info in socket.getaddrinfo(host, None):
            if not ipaddress.ip_address(info[4][0]).is_global:
                raise InputError(
                    f"{host} resolves to the private address {info[4][0]}; name it in crawl.allow_private"
                )


class _Archive:
    """A WARC file being written; every record is on disk before the frontier hears of it."""

    def __init__(self, file: io.BufferedIOBase, config: CrawlConfig) -> None:
        self._file = file
        self._writer = WARCWriter(file, gzip=True)
        self._writer.write_record(
            self._writer.create_warcinfo_record(
                config.name, {"software": config.user_agent, "format": "WARC/1.0"}
            )
        )

    def write(self, url: str, status: int, headers: httpx.Headers, body: bytes, user_agent: str) -> None:
        """Add the request and the response of one page."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw]
        # The HTTP library has taken the chunks apart, so the header that announces them must go.
        kept = [(name, value) for name, value in pairs if name.lower() != "transfer-encoding"]
        response = self._writer.create_warc_record(
            url,
            "response",
            payload=io.BytesIO(body),
            http_headers=StatusAndHeaders(str(status), kept, protocol="HTTP/1.1"),
        )
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = self._writer.create_warc_record(
            url,
            "request",
            http_headers=StatusAndHeaders(
                f"GET {path} HTTP/1.1",
                [("Host", parts.netloc), ("User-Agent", user_agent)],
                is_http_request=True,
            ),
        )
        self._writer.write_request_response_pair(request, response)
        self._file.flush()


def _client(config: CrawlConfig) -> httpx.Client:
    # trust_env=False: a proxy from the environment would see, and could redirect, loopback requests.
    return httpx.Client(
        timeout=config.timeout,
        follow_redirects=False,
        headers={"User-Agent": config.user_agent},
        trust_env=False,
    )


def _fetch(url: str, site: _Site, archive: _Archive) -> tuple[str, list[str], int]:
    """Fetch one page into the archive; (outcome, links, bytes)."""
    try:
        if not site.allowed(url):
            return "robots", [], 0
        status, headers, body = site.get(url)
    except InputError:
        raise
    except UNAVAILABLE as error:
        return f"failed_{type(error).__name__}", [], 0
    if len(body) > site.config.max_page_bytes:
        return "too_large", [], 0
    archive.write(url, status, headers, body, site.config.user_agent)
    if 300 <= status < 400:
        return "redirect", [_link(url, headers.get("location", ""))], len(body)
    if status != 200:
        return f"status_{status}", [], len(body)
    is_html = "html" in headers.get("content-type", "").lower()
    return "done", _links(url, body, headers) if is_html else [], len(body)


def _links(url: str, body: bytes, headers: httpx.Headers) -> list[str]:
    try:
        decoded = decode_body(body, None, headers.get("content-encoding"))
        content = page_record(url, decoded, headers["content-type"], "").content
        page = lxml.html.document_fromstring(content.encode("utf-8"), lxml.html.HTMLParser(encoding="utf-8"))
    except (lxml.etree.LxmlError, *UNAVAILABLE):
        return []
    return [_link(url, node.get("href") or "") for node in page.iter("a")]


def _link(base: str, reference: str) -> str:
    """The address that a reference on a page leads to; "" where that is no web page."""
    try:
        link = _canonical(urljoin(base, reference.strip()))
    except (ValueError, httpx.InvalidURL):
        return ""
    return link if link.startswith(("http://", "https://")) else ""


def _seeds(config: CrawlConfig) -> list[str]:
    seeds = []
    for url in config.seeds:
        try:
            seeds.append(_canonical(url))
        except httpx.InvalidURL as error:
            raise InputError(f"crawl.seeds: {url!r} is no URL ({error})") from None
    return seeds


def _canonical(url: str) -> str:
    """The one spelling of a URL that the frontier and the archive know: ASCII, no fragment, never an empty path."""
    parts = urlsplit(str(httpx.URL(urldefrag(url).url)))
    return parts._replace(path=parts.path or "/").geturl()


def _in_scope(links: list[str], config: CrawlConfig) -> list[str]:
    hosts = {urlsplit(seed).netloc for seed in _seeds(config)}
    return [
        link
        for link in dict.fromkeys(links)
        if urlsplit(link).netloc in hosts
        and (not config.include or any(re.search(pattern, link) for pattern in config.include))
        and not any(re.search(pattern, link) for pattern in config.exclude)
    ]


def _adopt_unfinished(folder: Path) -> None:
    """Give the archive of a killed crawl its name: what it holds is good up to the kill."""
    for part in sorted(folder.glob(f"*{PART}")):
        part.rename(part.with_name(part.name.removesuffix(PART)))


def _new_archive(folder: Path, name: str) -> Path:
    paths = (folder / f"{name}-{number:05d}.warc.gz" for number in itertools.count(1))
    free = next(path for path in paths if not path.exists())
    return free.with_name(free.name + PART)
