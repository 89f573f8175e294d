"""Where workers run: in threads of this process, or as Ray actors that share the hosts among them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import xxhash

from data_pipeline.crawl.visits import Entry, Turn
from data_pipeline.crawl.worker import Worker
from data_pipeline.crawl_config import CrawlConfig

MAX_RESTARTS = 5


class WorkerDied(Exception):
    """A worker's process ended in the middle of a turn."""


class Pool(Protocol):
    """Takes turns at hosts.

    Attributes:
        slots: turns that can be under way at once.
    """

    slots: int

    def take_turn(self, host: str, entries: Sequence[Entry]) -> Future[Turn]:
        """Begin a turn; its future may raise WorkerDied."""

    def stop(self) -> None:
        """End all turns after the page they are at."""

    def close(self, finished: bool) -> None:
        """End turns and close archives; they get their names where all that they hold was taken in."""


def open_pool(config: CrawlConfig, folder: Path) -> Pool:
    """The pool that a configuration asks for."""
    return _Threads(config, folder) if config.workers == 1 else _Actors(config, folder)


class _Threads:
    def __init__(self, config: CrawlConfig, folder: Path) -> None:
        self.slots = config.hosts_at_once
        self._worker = Worker(config, folder)
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="crawl")

    def take_turn(self, host: str, entries: Sequence[Entry]) -> Future[Turn]:
        return self._threads.submit(self._worker.take_turn, host, entries)

    def stop(self) -> None:
        self._worker.stop()

    def close(self, finished: bool) -> None:
        self._worker.stop()
        self._threads.shutdown()
        self._worker.close(finished)


class _Actors:
    """A host is always the same actor's, so that its pace and its robots.txt hold for the whole cluster."""

    def __init__(self, config: CrawlConfig, folder: Path) -> None:
        import ray  # a crawl in one process needs none

        self._ray = ray
        self.slots = config.workers * config.hosts_at_once
        actor = ray.remote(Worker).options(
            num_cpus=0,  # they wait for servers most of the time
            scheduling_strategy="SPREAD",
            # One thread more than turns, for stop().
            max_concurrency=config.hosts_at_once + 1,
            max_restarts=MAX_RESTARTS,
        )
        self._actors: list[Any] = [actor.remote(config, folder) for _ in range(config.workers)]

    def take_turn(self, host: str, entries: Sequence[Entry]) -> Future[Turn]:
        actor = self._actors[xxhash.xxh3_64_intdigest(host.encode()) % len(self._actors)]
        turn: Future[Turn] = Future()
        actor.take_turn.remote(host, entries).future().add_done_callback(lambda done: _pass_on(done, turn))
        return turn

    def stop(self) -> None:
        for actor in self._actors:
            actor.stop.remote()

    def close(self, finished: bool) -> None:
        self.stop()
        for actor in self._actors:
            # What a dead one had stored is recovered from its archive.
            with suppress(self._ray.exceptions.RayActorError):
                self._ray.get(actor.close.remote(finished))
            self._ray.kill(actor)


def _pass_on(done: Future[Turn], turn: Future[Turn]) -> None:
    """Give the result of an actor's call to a future, the death of the actor as WorkerDied."""
    from ray.exceptions import RayActorError

    error = done.exception()
    if error is None:
        turn.set_result(done.result())
    elif isinstance(error, RayActorError):
        died = WorkerDied(str(error))
        died.__cause__ = error
        turn.set_exception(died)
    else:
        turn.set_exception(error)
