"""Without a launcher a process is alone, and SIGTERM handlers go only where Python allows them."""

from __future__ import annotations

import signal
import threading

import pytest
import torch

from gpt.distributed import init_from_env, sigterm_sets, sum_over_workers


def test_plain_python_is_one_worker(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    topology = init_from_env()
    assert (topology.rank, topology.world_size) == (0, 1)
    assert not torch.distributed.is_initialized()
    assert sum_over_workers(torch.ones(2), 1).tolist() == [1, 1]


def test_the_sigterm_handler_is_left_alone_outside_the_main_thread():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with sigterm_sets(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
