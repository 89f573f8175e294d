"""numba's `njit` with a cache on disk that knows what its functions are made of.

numba compiles a function anew when its own file has changed, but not when a constant or a function did that it takes
from another file: after an update of one file the old machine code of the others would run on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
# The files that hold compiled functions, or constants of theirs.
SOURCES = ("words.py", "minhash.py", "encoder.py", "filters/*.py")


def compiled(function: Function) -> Function:
    """Compile a function in numba's nopython mode at its first call; without the interpreter's lock while it runs."""
    dispatcher: Any = njit(cache=True, nogil=True)(function)
    # numba has no public way to say it; a test holds that this one works.
    dispatcher._cache._cache_file._source_stamp = _stamp()
    return cast(Function, dispatcher)


@cache
def _stamp() -> str:
    """sha256 of the sources."""
    folder = Path(__file__).resolve().parent
    files = sorted(path for pattern in SOURCES for path in folder.glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
