"""Memory that was freed is used again without the kernel, where the C library lets us ask for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, torch
from gpt.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    # 64 MB: blocks of up to 32 MB glibc itself begins to keep.
    return torch.ones(16_000_000).sum()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_freed_memory_is_not_faulted_in_again():
    faults = {
        how: int(
            subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, check=True).stdout
        )
        for how in ("keep", "give back")
    }
    # A block now and then, against one a step.
    assert faults["keep"] < 0.2 * faults["give back"]
