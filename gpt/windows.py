"""How training sequences are cut from the stream of a source: the same questions, whatever the cut.

Shapes: R rows, T context_length. A row of a buffer begins with its T input tokens and ends with their T targets; in
contiguous windows these overlap, so such a row is T + 1 wide, otherwise 2 T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from data_pipeline.shards import TokenStream
from gpt.order import count_windows
from gpt.packing import pack_documents


class Windows(Protocol):
    """The windows of one source."""

    num_windows: int
    """How many there are; numbered from 0."""
    row_width: int
    """Tokens of a row of a buffer."""

    def num_targets(self, windows: np.ndarray) -> np.ndarray:
        """Targets of each of these windows, int64; they come first in a row, what is after them is padding."""

    def positions(self, windows: np.ndarray) -> np.ndarray:
        """Where in the stream the stretches of these windows begin, int64; at most a window's length is read from each."""

    def read(self, windows: np.ndarray, rows_RW: np.ndarray, documents_RT: np.ndarray | None) -> None:
        """Fill the rows with these windows; and with the number of each token's document in its row, from 0."""


class ContiguousWindows:
    """Window w is tokens [w * T, w * T + T + 1) of the stream, whatever documents it begins or ends in."""

    def __init__(self, stream: TokenStream, context_length: int) -> None:
        self._stream, self._context_length = stream, context_length
        self.num_windows = count_windows(stream.num_tokens, context_length)
        self.row_width = context_length + 1

    def num_targets(self, windows: np.ndarray) -> np.ndarray:
        return np.full(len(windows), self._context_length, np.int64)

    def positions(self, windows: np.ndarray) -> np.ndarray:
        return windows * self._context_length

    def read(self, windows: np.ndarray, rows_RW: np.ndarray, documents_RT: np.ndarray | None) -> None:
        starts = windows * self._context_length
        self._stream.read_rows(starts, rows_RW)
        if documents_RT is None:
            return
        doc_starts = self._stream.doc_starts
        documents_RT[:] = 0
        # The first token's own document is number 0, wherever it began.
        bounds = np.searchsorted(doc_starts, np.stack([starts + 1, starts + self._context_length]))
        for row, start, first, last in zip(documents_RT, starts, *bounds, strict=True):
            row[doc_starts[first:last] - start] = 1
        np.cumsum(documents_RT, axis=1, out=documents_RT)


class PackedWindows:
    """Windows of whole documents (see `gpt.packing`)."""

    def __init__(self, stream: TokenStream, context_length: int) -> None:
        self._stream, self._context_length = stream, context_length
        self._packing = pack_documents(stream.doc_starts, stream.num_tokens, context_length)
        self._num_pairs = self._packing.num_pairs
        self.num_windows = self._packing.num_windows
        self.row_width = 2 * context_length

    def num_targets(self, windows: np.ndarray) -> np.ndarray:
        return self._num_pairs[windows]

    def positions(self, windows: np.ndarray) -> np.ndarray:
        offsets = self._packing.offsets
        pieces = [np.arange(offsets[window], offsets[window + 1]) for window in windows.tolist()]
        return self._packing.piece_starts[np.concatenate(pieces)]

    def read(self, windows: np.ndarray, rows_RW: np.ndarray, documents_RT: np.ndarray | None) -> None:
        packing, context_length = self._packing, self._context_length
        rows_RW[:] = 0
        for number, window in enumerate(windows.tolist()):
            row, at = rows_RW[number], 0
            pieces = range(packing.offsets[window], packing.offsets[window + 1])
            for count, piece in enumerate(pieces):
                start, length = int(packing.piece_starts[piece]), int(packing.piece_lengths[piece])
                tokens = self._stream.read(start, length + 1)
                row[at : at + length] = tokens[:-1]
                row[context_length + at : context_length + at + length] = tokens[1:]
                if documents_RT is not None:
                    documents_RT[number, at : at + length] = count
                at += length
            if documents_RT is not None:
                documents_RT[number, at:] = len(pieces)


def cut(streams: Mapping[str, TokenStream], packing: str, context_length: int) -> dict[str, Windows]:
    """The windows of each source, contiguous or best_fit."""
    kind: type[ContiguousWindows | PackedWindows] = (
        PackedWindows if packing == "best_fit" else ContiguousWindows
    )
    return {source: kind(stream, context_length) for source, stream in streams.items()}
