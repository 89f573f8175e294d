"""Scrape sites politely into WARC: robots.txt, one request at a time a host, a frontier that survives a kill.

`<out>/frontier.sqlite` remembers every URL and what became of it; `<out>/<name>-NNNNN.warc.gz` holds what was
fetched. A page is finished in the frontier only after its records are in an archive, and after a kill the frontier
learns from the archives what it had not heard of: no page that was stored is fetched again.

    urls, scope, addresses    which URLs, which hosts, which addresses
    robots, sitemaps, pages   what servers say: rules, lists of URLs, pages with links
    fetch, worker             one exchange; turns at hosts, at their pace
    archive, frontier         what is kept: WARC files, and SQLite
    pools, driver             threads or Ray actors; the loop that hands out and takes in
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.crawl import urls
from data_pipeline.crawl.addresses import RefusedAddress, targets
from data_pipeline.crawl.driver import Driver, Progress
from data_pipeline.crawl.frontier import Frontier
from data_pipeline.crawl.pools import open_pool
from data_pipeline.crawl.scope import Scope
from data_pipeline.crawl.visits import Entry
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.errors import InputError
from data_pipeline.locks import locked

__all__ = ["CrawlResult", "Frontier", "Progress", "crawl", "finished_crawl"]

LOOKUPS_AT_ONCE = 32


@dataclass(frozen=True)
class CrawlResult:
    """What a crawl did.

    Attributes:
        fetched: pages stored by this run, new or changed.
        known: pages that earlier runs stored.
        outcomes: URLs that were asked for, by what became of them, over all runs.
        folder: where the WARC files are.
        unchanged: pages of earlier runs that this one asked for again, and that were the same.
        waiting: URLs left in the queue: beyond max_pages, or of hosts that asked to be left alone for long.
        left_out: URLs that scope, depth or another limit keeps out, by the limit.
    """

    fetched: int
    known: int
    outcomes: dict[str, int]
    folder: Path
    unchanged: int = 0
    waiting: int = 0
    left_out: dict[str, int] = field(default_factory=dict)


def crawl(config: CrawlConfig, folder: Path, progress: Progress = lambda line: None) -> CrawlResult:
    """Fetch what the frontier still holds, what failed before, and what is due to be looked at again.

    Args:
        config: validated by the call; with more than one worker, Ray must be running.
        folder: <workspace>/raw/<name>; made when it does not exist. Workers on other machines must see it too.
        progress: told pages, bytes, rate, hosts and errors, one short line a few times a second.

    Raises:
        InputError: a configuration that cannot work, a seed's host with a private address, or a crawl of the
            same folder that is under way.
        KeyboardInterrupt: after the pages under way were stored.
    """
    config.validate()
    entries = _seeds(config)
    folder.mkdir(parents=True, exist_ok=True)
    what = f"crawl.name: crawl {config.name}"
    with locked(folder / "frontier.lock", what), closing(Frontier(folder / "frontier.sqlite")) as frontier:
        scope = _scope(config, entries, frontier)
        driver = Driver(config, folder, frontier, scope, progress)
        killed_hosts = frontier.claimed_hosts()
        driver.absorb_unfinished(in_use_too=True)
        frontier.unclaim()
        known = frontier.count("done")
        with frontier.transaction():
            frontier.begin_run(_due_before(config))
            frontier.add(entries, scope.reason_against, config.max_queries)
            if frontier.fact("scope") != scope.fingerprint():
                frontier.judge_again(scope.reason_against, config.max_queries)
                frontier.set_fact("scope", scope.fingerprint())
        if not frontier.has_work(0.0, config.max_pages - known):
            return _result(frontier, folder, known)
        _refuse_private_seeds(config, entries, frontier)
        driver.counts.clear()
        driver.schedule_all(killed_hosts)
        pool = open_pool(config, folder)
        try:
            interrupted = driver.run(pool)
        except BaseException:
            pool.close(finished=False)
            raise
        pool.close(finished=True)
        if interrupted:
            raise KeyboardInterrupt
        return _result(frontier, folder, known, driver.counts["done"], driver.counts["unchanged"])


def finished_crawl(config: CrawlConfig, folder: Path) -> CrawlResult | None:
    """What an earlier crawl left, if this configuration would fetch nothing more; else None."""
    path = folder / "frontier.sqlite"
    if not path.exists() or any(folder.glob("*.part")):
        return None
    entries = _seeds(config)
    with closing(Frontier(path)) as frontier:
        known = frontier.count("done")
        if (
            not frontier.knows(entry.url for entry in entries)
            or frontier.fact("scope") != _scope(config, entries, frontier).fingerprint()
            or frontier.has_work(_due_before(config), config.max_pages - known)
        ):
            return None
        return _result(frontier, folder, known)


def _result(
    frontier: Frontier, folder: Path, known: int, fetched: int = 0, unchanged: int = 0
) -> CrawlResult:
    return CrawlResult(
        fetched, known, frontier.outcomes(), folder, unchanged, frontier.num_waiting(), frontier.left_out()
    )


def _seeds(config: CrawlConfig) -> list[Entry]:
    entries = []
    for option, kind in (("seeds", "page"), ("sitemaps", "sitemap")):
        for url in getattr(config, option):
            try:
                spelled = urls.canonical(url, config.strip_tracking)
            except ValueError as error:
                raise InputError(f"crawl.{option}: {url!r} cannot be fetched ({error})") from None
            entries.append(Entry(spelled, kind=kind, seed=True))
    return entries


def _scope(config: CrawlConfig, entries: list[Entry], frontier: Frontier) -> Scope:
    return Scope(config, [*(entry.url for entry in entries), *frontier.redirected_seeds()])


def _due_before(config: CrawlConfig) -> float:
    """The time of day (in seconds) before which a page must have been fetched to be asked for again; 0 for never."""
    return time.time() - 3600 * config.revisit_after if config.revisit_after else 0.0


def _refuse_private_seeds(config: CrawlConfig, entries: list[Entry], frontier: Frontier) -> None:
    """Tell the user before the run: a seed on a private address is a mistake, or wants to be allowed by name."""
    hosts = {urls.host_of(entry.url) for entry in entries if frontier.entry(entry.url) is not None}

    def refusal(host: str) -> str:
        try:
            targets(host, 80, config)
        except RefusedAddress as error:
            return str(error)
        except (OSError, UnicodeError):
            pass  # a name that cannot be resolved is one more outcome
        return ""

    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as threads:
        for message in filter(None, threads.map(refusal, sorted(hosts))):
            raise InputError(message)
