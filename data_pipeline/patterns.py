"""Regular expressions for text from the web: matched by RE2, in time linear in the text whatever stands in it."""

from __future__ import annotations

from typing import Any

import re2

# Of RE2's automaton, built as it is needed; with less than a large pattern needs it starts over and over.
MAX_MEMORY = 64 << 20


def linear(pattern: str) -> Any:
    """A compiled pattern with the methods of `re`'s, but no look-around and no groups: whether and where it matches."""
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    return re2.compile(pattern, options)
