"""The frontier: every URL a crawl has met and what became of it, in SQLite.

States of a page: queued (to fetch), claimed (handed to a worker), finished (see its outcome), left_out (its outcome
says which limit keeps it out; a later run with other limits judges it again).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.crawl import urls
from data_pipeline.crawl.visits import Entry, Visit
from data_pipeline.errors import InputError

FORMAT = 2
SCHEMA = """
CREATE TABLE pages (
    id INTEGER PRIMARY KEY, url TEXT UNIQUE NOT NULL, host TEXT NOT NULL, depth INTEGER NOT NULL,
    redirects INTEGER NOT NULL, kind TEXT NOT NULL, seed INTEGER NOT NULL, via INTEGER, state TEXT NOT NULL,
    outcome TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, failed_runs INTEGER NOT NULL DEFAULT 0,
    fetched_at REAL, etag TEXT NOT NULL DEFAULT '', last_modified TEXT NOT NULL DEFAULT '',
    digest TEXT NOT NULL DEFAULT '', stored_at TEXT NOT NULL DEFAULT '');
CREATE INDEX pages_in_order ON pages (state, host, depth, id);
CREATE INDEX pages_by_outcome ON pages (state, outcome);
CREATE TABLE queries (path TEXT PRIMARY KEY, num INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE hosts (host TEXT PRIMARY KEY, delay REAL NOT NULL, not_before REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# Why a page may be tried again by a later run; so often, and never again.
MAX_FAILED_RUNS = 3
FAILED = (
    "(outcome LIKE 'failed\\_%' ESCAPE '\\' OR outcome LIKE 'status\\_5%' ESCAPE '\\' "
    "OR outcome IN ('status_429', 'robots_unreachable', 'host_unreachable'))"
)
RETRIED = f"state = 'finished' AND failed_runs < {MAX_FAILED_RUNS} AND {FAILED}"
DUE = "state = 'finished' AND fetched_at < ?"
ENTRY = (
    "SELECT p.url, p.depth, p.redirects, p.kind, p.seed, p.tries, p.etag, p.last_modified, p.digest, "
    "p.stored_at, coalesce(v.url, '') FROM pages p LEFT JOIN pages v ON v.id = p.via "
)
Judge = Callable[[str, int, str], str]


class Frontier:
    """URLs in order of depth, then of discovery, by host."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing; after a power cut the archives are read again.
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
        elif version != FORMAT:
            self._db.close()
            raise InputError(
                f"{path} is of another version of the crawler; remove its folder, or set crawl.name"
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of a `with` block, or none of them."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # ---------------------------------------------------------------------------------------- what is to be fetched

    def add(self, entries: Iterable[Entry], judge: Judge, max_queries: int) -> set[str]:
        """Add URLs that were never met, queued or left out; one met again nearer to a seed is judged again.

        Args:
            judge: (url, depth, kind) to the reason against it, or "".
            max_queries: query strings of one path that are queued.

        Returns:
            The hosts with something new in the queue.
        """
        hosts = set()
        for entry in entries:
            known = self._db.execute(
                "SELECT depth, state, seed FROM pages WHERE url = ?", (entry.url,)
            ).fetchone()
            if known is not None and known[0] <= entry.depth and (known[2] or not entry.seed):
                continue
            if known is not None and known[1] != "left_out":
                self._db.execute(
                    "UPDATE pages SET depth = min(depth, ?), seed = max(seed, ?) WHERE url = ?",
                    (entry.depth, entry.seed, entry.url),
                )
                continue
            reason = "" if entry.seed else judge(entry.url, entry.depth, entry.kind)
            if self._insert(entry, reason or self._over_queries(entry.url, max_queries)):
                hosts.add(urls.host_of(entry.url))
        return hosts

    def _insert(self, entry: Entry, reason: str) -> bool:
        """Add or replace a row; whether it is queued."""
        self._db.execute(
            "INSERT INTO pages (url, host, depth, redirects, kind, seed, via, state, outcome) "
            "VALUES (?, ?, ?, ?, ?, ?, (SELECT id FROM pages WHERE url = ?), ?, ?) ON CONFLICT (url) DO UPDATE SET "
            "depth = excluded.depth, redirects = excluded.redirects, seed = excluded.seed, via = excluded.via, "
            "state = excluded.state, outcome = excluded.outcome",
            (entry.url, urls.host_of(entry.url), entry.depth, entry.redirects, entry.kind, entry.seed,
             entry.via, "left_out" if reason else "queued", reason),
        )  # fmt: skip
        return not reason

    def _over_queries(self, url: str, max_queries: int) -> str:
        """`query_limit` where a path has had its share of query strings; else count one more."""
        if "?" not in url:
            return ""
        path = urls.path_of(url)
        row = self._db.execute("SELECT num FROM queries WHERE path = ?", (path,)).fetchone()
        if row is not None and row[0] >= max_queries:
            return "query_limit"
        self._db.execute(
            "INSERT INTO queries VALUES (?, 1) ON CONFLICT (path) DO UPDATE SET num = num + 1", (path,)
        )
        return ""

    def judge_again(self, judge: Judge, max_queries: int) -> set[str]:
        """Apply other limits to all that is not fetched yet; the hosts with something in the queue."""
        rows = self._db.execute(
            "SELECT url, depth, kind, state, outcome FROM pages "
            "WHERE state IN ('queued', 'left_out') AND NOT seed AND digest = '' ORDER BY depth, id"
        ).fetchall()
        hosts = set()
        for url, depth, kind, state, outcome in rows:
            reason = judge(url, depth, kind)
            if not reason and state == "left_out":
                reason = self._over_queries(url, max_queries)
            if not reason:
                hosts.add(urls.host_of(url))
            if reason != outcome or (state == "left_out" and not reason):
                self._db.execute(
                    "UPDATE pages SET state = ?, outcome = ? WHERE url = ?",
                    ("left_out" if reason else "queued", reason, url),
                )
        return hosts

    def begin_run(self, due_before: float) -> None:
        """Queue what failed in earlier runs, and pages fetched before a time (0 for none)."""
        self._db.execute(f"UPDATE pages SET state = 'queued', tries = 0 WHERE {RETRIED}")
        self._db.execute(f"UPDATE pages SET state = 'queued', tries = 0 WHERE {DUE}", (due_before,))

    def claimed_hosts(self) -> list[str]:
        """Hosts that a killed run was at work on."""
        rows = self._db.execute("SELECT DISTINCT host FROM pages WHERE state = 'claimed'")
        return [row[0] for row in rows]

    def unclaim(self) -> None:
        """Queue what a killed run had handed out."""
        self._db.execute("UPDATE pages SET state = 'queued' WHERE state = 'claimed'")

    def claim(self, host: str, limit: int, num_new: int) -> list[Entry]:
        """Hand out the next entries of a host.

        Args:
            limit: entries, at most.
            num_new: of these, pages that were never fetched, at most.
        """
        known = "AND (p.digest != '' OR p.kind = 'sitemap') " if num_new <= 0 else ""
        rows = self._db.execute(
            f"{ENTRY} WHERE p.state = 'queued' AND p.host = ? {known} ORDER BY p.depth, p.id LIMIT ?",
            (host, limit if num_new <= 0 else min(limit, num_new)),
        ).fetchall()
        entries = [_entry(row) for row in rows]
        self._set_state(entries, "claimed")
        return entries

    def release(self, entries: Sequence[Entry]) -> None:
        """Take entries back into the queue."""
        self._set_state(entries, "queued")

    def _set_state(self, entries: Sequence[Entry], state: str) -> None:
        self._db.executemany(
            "UPDATE pages SET state = ? WHERE url = ?", [(state, entry.url) for entry in entries]
        )

    def entry(self, url: str) -> Entry | None:
        """A URL that is queued or handed out."""
        row = self._db.execute(
            f"{ENTRY} WHERE p.url = ? AND p.state IN ('queued', 'claimed')", (url,)
        ).fetchone()
        return _entry(row) if row else None

    # ------------------------------------------------------------------------------------------- what became of it

    def finish(self, visit: Visit) -> None:
        """Record what became of an entry; one to be tried again goes back to the queue."""
        if visit.retry:
            self._db.execute(
                "UPDATE pages SET state = 'queued', tries = tries + 1 WHERE url = ?", (visit.url,)
            )
            return
        self._db.execute(
            "UPDATE pages SET state = 'finished', outcome = ?, fetched_at = ? WHERE url = ?",
            ("done" if visit.outcome == "unchanged" else visit.outcome, time.time(), visit.url),
        )
        self._db.execute(
            f"UPDATE pages SET failed_runs = CASE WHEN {FAILED} THEN failed_runs + 1 ELSE 0 END WHERE url = ?",
            (visit.url,),
        )
        if visit.digest:
            self._db.execute(
                "UPDATE pages SET etag = ?, last_modified = ?, digest = ?, stored_at = ? WHERE url = ?",
                (visit.etag, visit.last_modified, visit.digest, visit.stored_at, visit.url),
            )

    def finish_host(self, host: str, outcome: str) -> None:
        """Give up all that is queued of a host, for this run."""
        self._db.execute(
            "UPDATE pages SET state = 'finished', outcome = ?, failed_runs = failed_runs + 1, fetched_at = ? "
            "WHERE state = 'queued' AND host = ?",
            (outcome, time.time(), host),
        )

    def leave_out_host(self, host: str, reason: str) -> None:
        """Leave out what is queued of a host and was never fetched."""
        self._db.execute(
            "UPDATE pages SET state = 'left_out', outcome = ? "
            "WHERE state = 'queued' AND host = ? AND digest = '' AND kind = 'page'",
            (reason, host),
        )

    def set_pace(self, host: str, delay: float, not_before: float) -> None:
        """Remember the seconds between requests to a host, and the time (of day) before which it is left alone."""
        self._db.execute("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?)", (host, delay, not_before))

    def paces(self) -> dict[str, tuple[float, float]]:
        """{host: (delay, not before)} of the hosts that were asked so far."""
        return {host: (delay, at) for host, delay, at in self._db.execute("SELECT * FROM hosts")}

    # --------------------------------------------------------------------------------------------------- questions

    def queued_hosts(self) -> list[str]:
        """Hosts with something in the queue, in order of discovery."""
        rows = self._db.execute(
            "SELECT host FROM pages WHERE state = 'queued' GROUP BY host ORDER BY min(depth), min(id)"
        )
        return [row[0] for row in rows]

    def count(self, outcome: str) -> int:
        """Number of URLs with an outcome; a page to be fetched again has the one of its last fetch."""
        return self._db.execute(
            "SELECT count(*) FROM pages WHERE outcome = ? AND state != 'left_out'", (outcome,)
        ).fetchone()[0]

    def num_waiting(self) -> int:
        """Number of URLs in the queue."""
        return self._db.execute("SELECT count(*) FROM pages WHERE state = 'queued'").fetchone()[0]

    def num_done_by_host(self) -> dict[str, int]:
        """Number of pages done, by host."""
        return dict(self._db.execute("SELECT host, count(*) FROM pages WHERE outcome = 'done' GROUP BY host"))

    def outcomes(self) -> dict[str, int]:
        """Number of URLs that were asked for, by outcome."""
        return self._counts("state != 'left_out' AND outcome != ''")

    def left_out(self) -> dict[str, int]:
        """Number of URLs that a limit keeps out, by the limit."""
        return self._counts("state = 'left_out'")

    def _counts(self, condition: str) -> dict[str, int]:
        return dict(
            self._db.execute(
                f"SELECT outcome, count(*) FROM pages WHERE {condition} GROUP BY outcome ORDER BY outcome"
            )
        )

    def redirected_seeds(self) -> list[str]:
        """URLs that seeds redirect to."""
        return [
            row[0]
            for row in self._db.execute("SELECT url FROM pages WHERE seed AND redirects > 0 ORDER BY id")
        ]

    def knows(self, seeds: Iterable[str]) -> bool:
        """Whether all these URLs are there as seeds."""
        return all(
            self._db.execute("SELECT 1 FROM pages WHERE url = ? AND seed", (url,)).fetchone() for url in seeds
        )

    def has_work(self, due_before: float, num_new: int) -> bool:
        """Whether a run would fetch anything, of pages never fetched at most `num_new`."""
        new = "" if num_new > 0 else "AND (digest != '' OR kind = 'sitemap')"
        return any(
            self._db.execute(f"SELECT 1 FROM pages WHERE {condition} LIMIT 1", values).fetchone()
            for condition, values in (
                (f"state IN ('queued', 'claimed') {new}", ()),
                (f"{RETRIED} {new}", ()),
                (DUE, (due_before,)),
            )
        )

    def fact(self, name: str) -> str:
        """A value that an earlier run left; "" for none."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def set_fact(self, name: str, value: str) -> None:
        """Leave a value for later runs."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _entry(row: Sequence[object]) -> Entry:
    url, depth, redirects, kind, seed, *rest = row
    return Entry(url, depth, redirects, kind, bool(seed), *rest)  # type: ignore[arg-type]
