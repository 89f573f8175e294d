"""The options of a crawl. Light: `--help` imports nothing heavier."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from data_pipeline.errors import InputError


@dataclass(frozen=True)
class CrawlConfig:
    """What to scrape, and how politely."""

    name: str = "web"
    """Name of the crawl: its folder below raw/ and the stem of its WARC files."""
    seeds: list[str] = field(default_factory=list)
    """URLs to begin with."""
    sitemaps: list[str] = field(default_factory=list)
    """Sitemaps (XML or text, also compressed, also indexes of sitemaps) whose URLs are links of a seed."""
    follow_sitemaps: bool = True
    """Also read the sitemaps that the robots.txt of a host names."""
    scope: Literal["host", "domain", "prefix", "any"] = "host"
    """Where links may lead: the hosts of the seeds, their registered domains (example.co.uk with all below it), the
    folders of the seeds, or any host."""
    max_depth: int = 1
    """Links to follow from a seed, at most; a later run with more goes on from there."""
    max_pages: int = 1000
    """Pages to fetch, at most, in all runs together; a later run with more goes on from there."""
    max_pages_per_host: int = 0
    """Pages to fetch from one host, at most; 0 for no such limit."""
    max_queries: int = 1000
    """Different query strings (?page=2) that are fetched of one path, at most: calendars and searches never end."""
    include: list[str] = field(default_factory=list)
    """Regular expressions; the URL of a link must match one of them (empty: all do). Seeds need not."""
    exclude: list[str] = field(default_factory=list)
    """Regular expressions; the URL of a link that matches one is left out."""
    strip_tracking: bool = True
    """Take utm_*, fbclid, gclid and the like out of URLs, so that a page is fetched once, not once a campaign."""
    delay: float = 1.0
    """Seconds between the end of a request and the next to the same host; robots.txt may ask for more."""
    max_crawl_delay: float = 60.0
    """Seconds that robots.txt may ask for; a host that asks for more is left alone."""
    max_retry_after: float = 300.0
    """Seconds that a busy server (429, 503) may ask for; one that asks for more is put off to a later run."""
    timeout: float = 30.0
    """Seconds to wait for a server to connect, or to send its next bytes."""
    page_timeout: float = 120.0
    """Seconds for a whole page, at most, however steadily it drips."""
    max_page_bytes: int = 8 << 20
    """Bytes of a page that are fetched, at most; larger pages are left out."""
    retries: int = 2
    """Further tries in a run after a failed connection, a 429 or a 5xx answer."""
    revisit_after: float = 0.0
    """Hours after which a later run asks again whether a page has changed (ETag, Last-Modified); 0 for never."""
    workers: int = 1
    """Processes; 1 fetches in this one, more are Ray actors over the whole cluster, each with hosts of its own."""
    hosts_at_once: int = 16
    """Hosts that a worker asks at the same time; each host gets one request at a time."""
    archive_bytes: int = 1 << 30
    """Bytes after which a new WARC file is begun."""
    contact: str = ""
    """Your e-mail address or web page, sent with each request; must be set for any host but this machine."""
    connect_to: dict[str, str] = field(default_factory=dict)
    """Fetch HOST, or HOST:PORT, from ADDRESS:PORT instead, like curl's --connect-to; WARC and corpus keep HOST."""
    allow_private: list[str] = field(default_factory=list)
    """Hosts that may resolve to private or loopback addresses."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for a crawl that cannot or must not run."""
        if not self.seeds and not self.sitemaps:
            raise InputError("crawl.seeds: no URL to begin with; give at least one, or a sitemap")
        for option, urls in (("seeds", self.seeds), ("sitemaps", self.sitemaps)):
            for url in urls:
                if not _is_web_url(url):
                    raise InputError(f"crawl.{option}: {url!r} is no http or https URL")
        self._validate_numbers()
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(f"crawl.name: {self.name!r} must be letters, digits, - and _; it names a folder")
        for option, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise InputError(
                        f"crawl.{option}: {pattern!r} is no regular expression ({error})"
                    ) from None
        for host, address in self.connect_to.items():
            if not _is_web_url(f"http://{address}"):
                raise InputError(
                    f"crawl.connect_to: {address!r} (for {host}) is not of the form ADDRESS:PORT"
                )
        if not self.contact.isprintable() or not self.contact.isascii():
            raise InputError(f"crawl.contact: {self.contact!r} goes into a header; use printable ASCII")
        self._validate_contact()

    def _validate_numbers(self) -> None:
        not_negative = ("max_depth", "max_pages_per_host", "delay", "max_crawl_delay", "max_retry_after")
        for option in (*not_negative, "retries", "revisit_after"):
            if getattr(self, option) < 0:
                raise InputError(f"crawl.{option}: {getattr(self, option)} must not be negative")
        positive = ("max_pages", "max_queries", "timeout", "page_timeout", "max_page_bytes", "workers")
        for option in (*positive, "hosts_at_once", "archive_bytes"):
            if getattr(self, option) <= 0:
                raise InputError(f"crawl.{option}: {getattr(self, option)} must be positive")

    def _validate_contact(self) -> None:
        hosts = {urlsplit(url).hostname or "" for url in [*self.seeds, *self.sitemaps]}
        strangers = sorted(host for host in hosts if not self.is_local(host))
        if strangers and not self.contact:
            raise InputError(
                f"crawl.contact: say who you are (an e-mail address or a page) before you crawl {strangers[0]}; "
                "a host of your own goes into crawl.allow_private instead"
            )

    def is_local(self, host: str) -> bool:
        """Whether the user named this host as one on the own machine or network."""
        return host in self.allow_private or any(
            key == host or (key.startswith(f"{host}:") and key[len(host) + 1 :].isdecimal())
            for key in self.connect_to
        )

    def place_to_connect(self, host: str, port: int) -> str:
        """The ADDRESS:PORT that the user named for a host, or ""."""
        return self.connect_to.get(f"{host}:{port}", self.connect_to.get(host, ""))

    @property
    def user_agent(self) -> str:
        """What the crawler says it is."""
        return f"gptmill/0.1 (+{self.contact or 'local crawl'})"


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when it is asked for
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
