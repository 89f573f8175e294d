"""The driver of a crawl: hands URLs out by host, takes in what became of them, and says how far it is."""

from __future__ import annotations

import heapq
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from data_pipeline.crawl import urls
from data_pipeline.crawl.archive import adopt, recover
from data_pipeline.crawl.frontier import Frontier
from data_pipeline.crawl.pools import Pool, WorkerDied
from data_pipeline.crawl.scope import Scope, same_domain
from data_pipeline.crawl.visits import Entry, Turn, Visit
from data_pipeline.crawl_config import CrawlConfig

Progress = Callable[[str], None]
MAX_REDIRECTS = 5
# Entries of a host that are handed out at once, where it sets no pause between them.
TURN_ENTRIES = 16
PROGRESS_SECONDS = 0.25
# Pages of a host that fail one after the other before the rest is left to a later run.
MAX_FAILURES_IN_A_ROW = 10
MAX_SEEN = 1 << 19
MAX_DEATHS = 20


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that is set by the first Ctrl-C, which then breaks into no transaction."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only that one hears of it
        yield event
        return

    def note(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


class Driver:
    """One run over a frontier.

    Args:
        scope: knows the seeds.
        pool: fetches.
    """

    def __init__(
        self, config: CrawlConfig, folder: Path, frontier: Frontier, scope: Scope, progress: Progress
    ) -> None:
        self._config, self._folder, self._frontier, self._scope = config, folder, frontier, scope
        self._progress = progress
        self._ready: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._scheduled: set[str] = set()
        self._starved: list[str] = []
        self._put_off: set[str] = set()
        self._running: dict[Future[Turn], tuple[str, list[Entry]]] = {}
        self._delays: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._seen: dict[str, int] = {}
        self._num_deaths = 0
        self._done = frontier.count("done")
        self._done_by_host = Counter(frontier.num_done_by_host())
        self.counts: Counter[str] = Counter()
        self._num_bytes = 0
        self._began = self._said = time.monotonic()

    # ------------------------------------------------------------------------------------------------ before a run

    def absorb_unfinished(self, in_use_too: bool) -> None:
        """Take in what killed workers had stored, and name their archives."""
        for part, visits in recover(self._folder, wait=in_use_too):
            with self._frontier.transaction():
                for visit in visits:
                    entry = self._frontier.entry(visit.url)
                    if entry is not None:
                        self._record(entry, visit)
            adopt(part)

    def schedule_all(self, killed_hosts: Sequence[str]) -> None:
        """Schedule every host with something in the queue, each when its pause since the last run is over."""
        self._ready.clear()
        self._scheduled.clear()
        paces = self._frontier.paces()
        now, today = time.monotonic(), time.time()
        for host, (delay, not_before) in paces.items():
            self._delays[host] = delay
            if not_before - today > max(delay, self._config.max_retry_after):
                self._put_off.add(host)
        for host in self._frontier.queued_hosts():
            delay, not_before = paces.get(host, (self._config.delay, 0.0))
            # A killed run may have asked just now, whatever the frontier knows.
            pause = delay if host in killed_hosts else min(max(0.0, not_before - today), 24 * 3600.0)
            self._schedule(host, now + pause)

    def _schedule(self, host: str, at: float) -> None:
        if host not in self._scheduled and host not in self._put_off:
            self._scheduled.add(host)
            heapq.heappush(self._ready, (at, next(self._order), host))

    # ---------------------------------------------------------------------------------------------------- the run

    def run(self, pool: Pool) -> bool:
        """Fetch until nothing is left that may be fetched; True where an interrupt (Ctrl-C) ended it before.

        The pages under way are taken in then; a second interrupt ends at once, as a kill does.
        """
        with _interrupts() as interrupted:
            while not interrupted.is_set():
                self._hand_out(pool)
                if not self._running and not self._ready:
                    break
                self._wait()
                self._report()
            if interrupted.is_set():
                pool.stop()
                for future in list(wait(self._running).done):
                    self._take_in(future)
            self._report(last=True)
            return interrupted.is_set()

    def _wait(self) -> None:
        """Until a turn ends or a host is ready, and not so long that nobody hears of progress."""
        pause = PROGRESS_SECONDS
        if self._ready:
            pause = min(pause, max(0.0, self._ready[0][0] - time.monotonic()))
        if not self._running:
            time.sleep(pause)
            return
        for future in wait(self._running, timeout=pause or 0.01, return_when=FIRST_COMPLETED).done:
            self._take_in(future)

    def _hand_out(self, pool: Pool) -> None:
        while self._ready and len(self._running) < pool.slots and self._ready[0][0] <= time.monotonic():
            host = heapq.heappop(self._ready)[2]
            entries = self._claim(host)
            if entries:
                self._running[pool.take_turn(host, entries)] = (host, entries)
            else:
                self._scheduled.discard(host)

    def _claim(self, host: str) -> list[Entry]:
        under_way = sum(not entry.digest for _, entries in self._running.values() for entry in entries)
        num_new = self._config.max_pages - self._done - under_way
        # A host that wants a pause gets one entry a turn.
        limit = 1 if self._delays.get(host, self._config.delay) > 0 else TURN_ENTRIES
        with self._frontier.transaction():
            if self._config.max_pages_per_host:
                of_host = self._config.max_pages_per_host - self._done_by_host[host]
                if of_host <= 0:
                    self._frontier.leave_out_host(host, "host_limit")
                num_new = min(num_new, of_host)
            entries = self._frontier.claim(host, limit, num_new)
        if not entries and under_way:
            self._starved.append(host)
        return entries

    def _take_in(self, future: Future[Turn]) -> None:
        host, entries = self._running.pop(future)
        try:
            turn = future.result()
        except WorkerDied:
            turn = self._after_death(host, entries)
        with self._frontier.transaction():
            by_url = {entry.url: entry for entry in entries}
            for visit in turn.visits:
                self._record(by_url.pop(visit.url), visit)
            self._frontier.release(list(by_url.values()))
            if self._config.follow_sitemaps:
                found = [urls.link("", sitemap) for sitemap in turn.sitemaps]
                self._add([Entry(url, kind="sitemap") for url in found if url])
            self._delays[host] = turn.delay
            self._frontier.set_pace(host, turn.delay, time.time() + turn.wait)
            if self._failures[host] >= MAX_FAILURES_IN_A_ROW:
                self._frontier.finish_host(host, "host_unreachable")
        self._scheduled.discard(host)
        if turn.wait > max(turn.delay, self._config.max_retry_after):
            self._put_off.add(host)
        self._schedule(host, time.monotonic() + turn.wait)
        for starved in self._starved:
            self._schedule(starved, time.monotonic())
        self._starved.clear()

    def _after_death(self, host: str, entries: list[Entry]) -> Turn:
        """What a dead worker's archive says of its entries, and a pause: it may have asked the host just now."""
        self._num_deaths += 1
        if self._num_deaths > MAX_DEATHS:
            raise RuntimeError(f"{self._num_deaths} workers died; see Ray's logs for why")
        self.absorb_unfinished(in_use_too=False)
        left = [entry for entry in entries if self._frontier.entry(entry.url) is not None]
        entries[:] = left
        delay = self._delays.get(host, self._config.delay)
        # The page that was under way may be what killed it.
        retries = self._config.retries
        visits = [Visit(entry.url, "failed_worker_died", retry=entry.tries < retries) for entry in left[:1]]
        return Turn(visits, delay=delay, wait=max(delay, 1.0))

    # -------------------------------------------------------------------------------------- what became of an entry

    def _record(self, entry: Entry, visit: Visit) -> None:
        self._frontier.finish(visit)
        if visit.retry:
            return
        host = urls.host_of(entry.url)
        self.counts[visit.outcome] += 1
        self._num_bytes += visit.num_bytes
        self._failures[host] = self._failures[host] + 1 if visit.outcome.startswith("failed_") else 0
        if visit.outcome == "done" and not entry.digest:
            self._done += 1
            self._done_by_host[host] += 1
        if visit.redirect:
            self._follow(entry, visit.redirect)
        found = [Entry(url, entry.depth + 1, via=entry.url) for url in visit.links]
        found += [Entry(url, entry.depth, kind="sitemap", via=entry.url) for url in visit.sitemaps]
        self._add(found)

    def _follow(self, entry: Entry, target: str) -> None:
        """Queue where a redirect leads: no step further from the seed, but only so many in a row."""
        if entry.redirects >= MAX_REDIRECTS:
            return
        # http://example.org/ is often but a pointer to https://www.example.org/: the crawl may go there too.
        is_seed = entry.seed and same_domain(entry.url, target) and self._may_ask(target)
        onward = replace(entry, url=target, redirects=entry.redirects + 1, seed=is_seed, via=entry.url)
        if is_seed:
            self._scope.add_seed(target)
            if self._frontier.fact("scope") != self._scope.fingerprint():
                hosts = self._frontier.judge_again(self._scope.reason_against, self._config.max_queries)
                self._frontier.set_fact("scope", self._scope.fingerprint())
                self._schedule_now(hosts)
        self._add([onward])

    def _may_ask(self, url: str) -> bool:
        return bool(self._config.contact) or self._config.is_local(urls.host_of(url))

    def _add(self, entries: Sequence[Entry]) -> None:
        # Most links of a page lead where others led: those need no look into the database.
        new = [entry for entry in entries if self._seen.get(entry.url, 1 << 30) > entry.depth or entry.seed]
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
        self._seen.update((entry.url, entry.depth) for entry in new)
        hosts = self._frontier.add(new, self._scope.reason_against, self._config.max_queries)
        self._schedule_now(hosts)

    def _schedule_now(self, hosts: set[str]) -> None:
        for host in sorted(hosts):
            self._schedule(host, time.monotonic())

    # ---------------------------------------------------------------------------------------------------- progress

    def _report(self, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        pages = self.counts["done"] + self.counts["unchanged"]
        rate = pages / max(now - self._began, 1e-3)
        hosts = len({host for host, _ in self._running.values()})
        line = (
            f"{pages} pages, {self._num_bytes / 1e6:.1f} MB, {rate:.0f} pages/s, {hosts} hosts at work, "
            f"{self._frontier.num_waiting()} waiting"
        )
        errors = [
            f"{count} {kind}"
            for kind, count in self.counts.most_common()
            if kind not in ("done", "unchanged")
        ]
        self._progress(", ".join([line, *errors[:4]]))
