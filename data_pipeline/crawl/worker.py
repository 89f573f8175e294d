"""A worker: takes turns at hosts, each politely, and writes what it fetches into WARC files of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from data_pipeline.crawl import pages, urls
from data_pipeline.crawl.addresses import RefusedAddress
from data_pipeline.crawl.archive import Archive, payload_digest
from data_pipeline.crawl.fetch import Answer, Fetcher, FetchError, Headers
from data_pipeline.crawl.robots import MAX_REDIRECTS, Rules, is_busy, parse_rules
from data_pipeline.crawl.sitemaps import read_sitemap
from data_pipeline.crawl.visits import Entry, Turn, Visit
from data_pipeline.crawl_config import CrawlConfig

# A shorter pause is slept through; for a longer one the turn ends, and the thread is free for another host.
SHORT_PAUSE = 0.25
FIRST_BACKOFF = 0.5
STORED = ("done", "redirect", "undecodable", "unchanged")


class _Host:
    """The pace of one host: a request at a time, and a delay from the end of one to the start of the next."""

    def __init__(self, delay: float) -> None:
        self.lock = threading.Lock()
        self.delay = delay
        self.ended = -1e9

    def pause(self) -> float:
        """Seconds until the host may be asked again."""
        return max(0.0, self.delay - (time.monotonic() - self.ended))


class Worker:
    """Fetches; safe to use from many threads, as long as each host has one turn at a time."""

    def __init__(self, config: CrawlConfig, folder: Path) -> None:
        self._config = config
        self._fetcher = Fetcher(config)
        self._archive = Archive(folder, config)
        self._hosts: dict[str, _Host] = {}
        self._rules: dict[str, Rules] = {}
        self._robots_tries: dict[str, int] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all turns after the page they are at."""
        self._stopped.set()

    def close(self, finished: bool) -> None:
        """Close connections and archive; no turn may be under way."""
        self._fetcher.close()
        self._archive.close(finished)

    def take_turn(self, host: str, entries: Sequence[Entry]) -> Turn:
        """Fetch entries of one host, until they are done or the host asks for a longer pause."""
        turn = Turn()
        for entry in entries:
            if self._stopped.is_set():
                break
            try:
                visit = self._visit(entry, turn)
            except RefusedAddress:
                visit = Visit(entry.url, "private_address")
            if visit is None:
                break
            turn.visits.append(visit)
            turn.wait = max(turn.wait, visit.wait)
            if visit.wait:
                break
        state = self._host(host)
        turn.delay, turn.wait = state.delay, max(turn.wait, state.pause())
        return turn

    def _visit(self, entry: Entry, turn: Turn) -> Visit | None:
        """Fetch one entry as far as robots.txt allows; None where the host has to be left alone for now."""
        state = self._host(urls.host_of(entry.url))
        origin = urls.origin_of(entry.url)
        rules = self._rules.get(origin)
        if rules is None or not rules.is_fresh:
            if state.pause() > SHORT_PAUSE:
                return None
            rules = self._ask_robots(origin, turn)
            if rules is None:
                return None
            self._rules[origin] = rules
            turn.sitemaps += rules.sitemaps
            if rules.delay <= self._config.max_crawl_delay:
                state.delay = max(state.delay, rules.delay)
        if rules.parsed is None:
            return Visit(entry.url, rules.failure)
        if not rules.allows(entry.url):
            return Visit(entry.url, "robots")
        if rules.delay > self._config.max_crawl_delay:
            return Visit(entry.url, "crawl_delay_too_long")
        return None if state.pause() > SHORT_PAUSE else self._fetch(entry)

    def _host(self, host: str) -> _Host:
        return self._hosts.setdefault(host, _Host(self._config.delay))

    def _get(self, url: str, headers: Headers, only_wanted: bool) -> Answer:
        """One request at the host's pace."""
        state = self._host(urls.host_of(url))
        with state.lock:
            self._stopped.wait(state.pause())
            try:
                if only_wanted:
                    return self._fetcher.get(url, headers, pages.is_wanted)
                return self._fetcher.get(url, headers)
            finally:
                state.ended = time.monotonic()

    # -------------------------------------------------------------------------------------------------- robots.txt

    def _ask_robots(self, origin: str, turn: Turn) -> Rules | None:
        """The rules of an origin; None, with the time to wait in `turn`, where they are to be asked for later."""
        tries = self._robots_tries.get(origin, 0)
        wait = FIRST_BACKOFF * 2**tries
        try:
            answer = self._robots_txt(f"{origin}/robots.txt")
            if answer is None or not is_busy(answer.status):
                self._robots_tries.pop(origin, None)
                return parse_rules(answer)
            wait = max(wait, _retry_after(answer))
        except FetchError as error:
            if error.outcome == "failed_certificate":
                return Rules(None, failure=error.outcome)
        if tries >= self._config.retries:
            self._robots_tries.pop(origin, None)
            return Rules(None)
        self._robots_tries[origin] = tries + 1
        turn.wait = max(turn.wait, wait)
        return None

    def _robots_txt(self, url: str) -> Answer | None:
        """The answer to a robots.txt over up to five redirects (RFC 9309, 2.3.1.2); None where they lead nowhere."""
        for hop in range(MAX_REDIRECTS + 1):
            try:
                answer = self._get(url, [], only_wanted=False)
            except RefusedAddress:
                if hop:  # the site points into a private network
                    return None
                raise
            if not 300 <= answer.status < 400:
                return answer
            url = urls.link(url, answer.header("location"))
            # A stranger's file is asked for by those only who said who they are.
            if not url or not (self._config.contact or self._config.is_local(urls.host_of(url))):
                return None
        return None

    # ------------------------------------------------------------------------------------------------------- pages

    def _fetch(self, entry: Entry) -> Visit:
        try:
            answer = self._get(entry.url, _conditions(entry), only_wanted=entry.kind == "page")
        except FetchError as error:
            if error.transient and entry.tries < self._config.retries:
                return Visit(entry.url, error.outcome, retry=True, wait=FIRST_BACKOFF * 2**entry.tries)
            visit = Visit(entry.url, error.outcome)
            self._archive.note(entry, visit)
            return visit
        wait = 0.0
        if is_busy(answer.status):
            wait = _retry_after(answer)
            if entry.tries < self._config.retries:
                wait = max(wait, FIRST_BACKOFF * 2**entry.tries)
                return Visit(entry.url, f"status_{answer.status}", retry=True, wait=wait)
        return replace(self._keep(entry, answer), wait=wait)

    def _keep(self, entry: Entry, answer: Answer) -> Visit:
        """Write an answer into the archive; the visit says what it comes to."""
        if entry.kind == "sitemap" and answer.status == 200:
            links, sitemaps = read_sitemap(entry.url, answer, self._config.strip_tracking)
            visit = Visit(entry.url, "sitemap", links, sitemaps=sitemaps, num_bytes=len(answer.body))
            self._archive.note(entry, visit, answer)
            return visit
        try:
            page = pages.assess(entry.url, answer, self._config.strip_tracking)
        except Exception:  # a page may trip any library; it must never end the crawl
            page = pages.Page("unreadable")
        visit = Visit(
            entry.url, page.outcome, page.links, page.redirect, stored_at=_now(), num_bytes=len(answer.body)
        )
        if page.outcome in ("done", "unchanged"):
            visit = _with_validators(entry, visit, answer)
        if visit.outcome in STORED or visit.outcome.startswith("status_"):
            self._archive.store(entry, visit, answer)
        else:
            self._archive.note(entry, visit, answer)
        return visit


def _with_validators(entry: Entry, visit: Visit, answer: Answer) -> Visit:
    """The visit with what a later one can ask by; unchanged where the body is the one we have."""
    etag, last_modified = answer.header("etag")[:1000], answer.header("last-modified")[:1000]
    if visit.outcome == "unchanged":
        return replace(
            visit,
            etag=etag or entry.etag,
            last_modified=last_modified or entry.last_modified,
            digest=entry.digest,
            stored_at=entry.stored_at,
        )
    digest = payload_digest(answer.body)
    is_same = digest == entry.digest
    return replace(
        visit,
        outcome="unchanged" if is_same else "done",
        etag=etag,
        last_modified=last_modified,
        digest=digest,
        stored_at=entry.stored_at if is_same else _now(),
    )


def _conditions(entry: Entry) -> Headers:
    """Headers that make the server say 304 instead of what we have (RFC 9110, 13.1)."""
    headers = [("If-None-Match", entry.etag), ("If-Modified-Since", entry.last_modified)]
    return [(name, value) for name, value in headers if value and entry.digest]


def _retry_after(answer: Answer) -> float:
    """Seconds that a Retry-After header asks for; 0 where it says nothing that can be read."""
    given = answer.header("retry-after").strip()
    if given.isdecimal():
        return float(given[:9])
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
