"""What the quality model sees of a text: a few windows of it, and of each the distinct word 1- and 2-grams.

A document is read in at most MAX_WINDOWS windows of WINDOW_CHARS characters, the first at its beginning, the last
at its end, the others evenly between them: the work is bounded however long it is, and a book is compared with
texts of a page's length. Words are those of data_pipeline.words: 64-bit hashes of case-folded words, each character
a word in scripts without spaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit

from data_pipeline.words import mix64, word_hashes

WINDOW_CHARS, MAX_WINDOWS = 8192, 4
# Everything that a stored weight depends on; a model of another scheme is never used. Change the number with the code.
SCHEME = f"ngrams-1 windows={MAX_WINDOWS}x{WINDOW_CHARS} words=fnv1a64-casefold-1"


def windows(text: str) -> list[np.ndarray]:
    """uint64 word hashes of each window of a text; at least one window, which may be empty.

    The words at the edge of a window within the text may be cut, so they are left out.
    """
    length = len(text)
    count = min(MAX_WINDOWS, -(-length // WINDOW_CHARS))
    if count <= 1:
        return [word_hashes(text)]
    found = []
    for index in range(count):
        start = index * (length - WINDOW_CHARS) // (count - 1)
        words = word_hashes(text[start : start + WINDOW_CHARS])
        found.append(words[index > 0 : len(words) - (index < count - 1)])
    return found


@dataclass(frozen=True)
class Windows:
    """Windows of documents as a sparse matrix of zeros and ones.

    Attributes:
        starts: int64 [windows + 1]; window w has the buckets indices[starts[w] : starts[w + 1]].
        indices: uint32 buckets, each once in a window.
        document: int64 [windows]; the number of each window's document, ascending, every document from 0 on.
    """

    starts: np.ndarray
    indices: np.ndarray
    document: np.ndarray

    @classmethod
    def of_texts(cls, texts: Iterable[str], log2_buckets: int) -> Windows:
        """The windows of texts, their n-grams hashed into 2^log2_buckets buckets."""
        seen = np.zeros(1 << log2_buckets, np.bool_)
        shift = np.uint64(64 - log2_buckets)
        rows: list[np.ndarray] = []
        document: list[int] = []
        for number, text in enumerate(texts):
            for words in windows(text):
                rows.append(_distinct(words, shift, seen))
                document.append(number)
        return cls.of_rows(rows, np.array(document, np.int64))

    @classmethod
    def of_rows(cls, rows: list[np.ndarray], document: np.ndarray) -> Windows:
        """Windows from the buckets of each."""
        starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(starts, np.concatenate(rows) if rows else np.zeros(0, np.uint32), document)

    def row(self, window: int) -> np.ndarray:
        """The buckets of one window."""
        return self.indices[self.starts[window] : self.starts[window + 1]]

    def of_documents(self, chosen: np.ndarray) -> Windows:
        """The windows of the documents marked in `chosen` (bool [documents]), which are numbered anew."""
        keeps = chosen[self.document]
        lengths = np.diff(self.starts)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[keeps])])
        numbers = np.cumsum(chosen) - 1
        return Windows(starts, self.indices[np.repeat(keeps, lengths)], numbers[self.document[keeps]])


@njit(cache=True, nogil=True)
def _distinct(words: np.ndarray, shift: np.uint64, seen: np.ndarray) -> np.ndarray:
    """uint32 buckets of the words' 1- and 2-grams in the order of their first places; `seen` is all False before
    and after."""
    out = np.empty(2 * len(words), np.uint32)
    count = 0
    for index in range(len(words)):
        # A bigram is hashed as the shingles of minhash.py are: order counts.
        pair = mix64(words[index - 1] * np.uint64(0xD1342543DE82EF95) + words[index]) if index else words[0]
        for feature in (words[index], pair):
            bucket = feature >> shift
            if not seen[bucket]:
                seen[bucket] = True
                out[count] = bucket
                count += 1
    for index in range(count):
        seen[out[index]] = False
    return out[:count].copy()
