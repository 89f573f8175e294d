"""How this process keeps its memory, and its garbage, while it trains."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's parameters, of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed instead of giving it back to the kernel; True where that is possible (glibc).

    glibc maps each large block anew and unmaps it when it is freed, so every activation of every step is page by page
    faulted in and zeroed by the kernel again. Where page faults are dear (virtual machines) that is half of the time
    of a training step on a CPU. The price: what the largest step took stays with the process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: musl, macOS, Windows
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


@contextmanager
def garbage_frozen() -> Iterator[None]:
    """Within the block, what exists now is not looked at for garbage: torch alone has a million objects, and each
    look takes half a second (nanochat's finding)."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
