"""Encode columns of text at machine speed: pre-tokenisation and byte-level BPE compiled by numba, over Arrow's buffers.

The ids are those of `tokenizers` (tests compare them on all real data and on made texts). A text is parted as
`tokenizer.PATTERN` parts it; a piece is encoded in one pass from left to right: the longest token that fits, a shorter one
where a merge across the seam would have come first, and a step back where none is left. That is what merging by rank ends
with, without the merging (H. van Antwerpen, A. Neubeck, "So many tokens, so little time", GitHub 2024; crate `bpe`).
Each position of a piece is given up at most once, so time is bounded on hostile text, too.

Glossary: an *edge* leads from a node of the trie of all tokens to the next by a byte; the *split* of a token is the pair
that it was merged from; a *seam* is where two tokens meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.compiled import compiled
from data_pipeline.words import decode, utf8

# Classes of characters, as bits: what the pattern asks for.
LETTER, NUMBER, SPACE, NEWLINE, KANJI, WORD = 1, 2, 4, 8, 16, 32
# No letter, number or space lies beyond plane 3.
NUM_CODES = 0x40000
NONE = -1
# Each id takes so many bits in the table of merges.
ID_BITS = 21
# Pairs of tokens whose seam is remembered, in half a megabyte.
NUM_SEAMS = 1 << 16
MIX = 0x9E3779B97F4A7C15  # 2^64 / golden ratio (Knuth, TAOCP 6.4)


@dataclass(frozen=True)
class Encoder:
    """A vocabulary as arrays, cheap to hand to other processes.

    Attributes:
        flags: uint8 [NUM_CODES], class of each code point.
        roots: int64 [256], token of each byte.
        edges: uint64 [power of two], (node << 8 | byte) << 32 | next node, by open addressing; 0 is free. The node in which
            a token ends has the token's id; the others have ids beyond the vocabulary.
        merges: uint64 [power of two], (left, right, token) of each merge, ID_BITS each, by open addressing; 0 is free.
        splits: uint32 [vocab_size, 2], what a token was merged from; itself twice for a byte.
        prefixes: int32 [vocab_size], the longest token that a token begins with, or NONE.
        lengths: int32 [vocab_size], bytes of each token.
        eot_id: what each document begins with.
        dtype: of the ids.
    """

    flags: np.ndarray
    roots: np.ndarray
    edges: np.ndarray
    merges: np.ndarray
    splits: np.ndarray
    prefixes: np.ndarray
    lengths: np.ndarray
    eot_id: int
    dtype: np.dtype

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Ids of each text, each with the end-of-text token before it.

        Args:
            texts: string column, [rows]; a null counts as an empty text.

        Returns:
            (ids of all rows, int64 offsets [rows + 1] into them).
        """
        data, offsets = utf8(texts)
        # A token has a byte at least.
        out = np.empty(int(offsets[-1] - offsets[0]) + len(texts), self.dtype)
        given_up = np.zeros(int(np.diff(offsets).max(initial=0)) + 1, np.uint32)
        ends = _encode_rows(
            *(data, offsets, self.flags, self.roots, self.edges, self.merges, self.splits),
            *(self.prefixes, self.lengths, self.eot_id, given_up, out),
        )
        assert ends[-1] >= 0, "a text without an encoding: the vocabulary is no proper BPE"
        return out[: ends[-1]], ends


def build_encoder(
    tokens: dict[int, bytes], merges: list[tuple[int, int]], vocab_size: int, eot_id: int, dtype: np.dtype
) -> Encoder | None:
    """The encoder of a byte-level BPE; None for a vocabulary that merging by rank cannot be told from its ids.

    Args:
        tokens: bytes of each id, special tokens left out.
        merges: pairs of ids, the first merged first.
    """
    ids = {value: index for index, value in tokens.items()}
    lengths, prefixes = np.zeros(vocab_size, np.int32), np.full(vocab_size, NONE, np.int32)
    splits = np.repeat(np.arange(vocab_size, dtype=np.uint32)[:, None], 2, axis=1)
    for index, value in tokens.items():
        lengths[index] = len(value)
        prefixes[index] = next(
            (ids[value[:n]] for n in range(len(value) - 1, 0, -1) if value[:n] in ids), NONE
        )
    merged = np.empty((len(merges), 3), np.int64)
    for row, (left, right) in enumerate(merges):
        merged[row] = left, right, ids[tokens[left] + tokens[right]]
        splits[merged[row, 2]] = left, right
    bytes_known = sum(len(value) == 1 for value in tokens.values())
    in_order = (
        bool((np.diff(merged[:, 2]) > 0).all())
        and (merged[:, :2].max(axis=1, initial=0) < merged[:, 2]).all()
    )
    if bytes_known != 256 or len(tokens) != 256 + len(merges) or not in_order:
        return None
    roots, edges = _trie(tokens, ids, vocab_size)
    table = np.zeros(_room(len(merges)), np.uint64)
    if not _fill_merges(table, merged, splits):
        return None
    return Encoder(*(character_flags(), roots, edges, table, splits, prefixes, lengths, eot_id, dtype))


@cache
def character_flags() -> np.ndarray:
    """uint8 [NUM_CODES]: classes of each code point as `tokenizers` has them (0.5 s, once a process)."""
    from tokenizers import Regex, pre_tokenizers

    flags = np.zeros(NUM_CODES, np.uint8)
    codes = [*range(0xD800), *range(0xE000, NUM_CODES)]
    text = "".join(map(chr, codes))
    of_char = np.array(codes)
    for pattern, flag in (
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\s", SPACE),
        (r"[\r\n]", NEWLINE),
        (r"[\p{Han}\p{Hiragana}\p{Katakana}]", KANJI),
        (r"[\p{L}&&[^\p{Han}\p{Hiragana}\p{Katakana}]]", WORD),
    ):
        splitter = pre_tokenizers.Split(Regex(f"{pattern}+"), behavior="removed")
        chosen = np.ones(len(codes), bool)
        for _, (start, stop) in splitter.pre_tokenize_str(text):
            chosen[start:stop] = False
        flags[of_char[chosen]] |= flag
    return flags


def _room(count: int) -> int:
    """Slots of an open-addressing table of which at most half are taken."""
    return 1 << max(4, (2 * count).bit_length())


def _trie(tokens: dict[int, bytes], ids: dict[bytes, int], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(roots, edges) of the trie of all tokens."""
    nodes = dict(ids)
    keys = []
    for value in tokens.values():
        for end in range(1, len(value)):
            node = nodes.setdefault(value[:end], vocab_size + len(nodes) - len(ids))
            following = nodes.setdefault(value[: end + 1], vocab_size + len(nodes) - len(ids))
            keys.append((node << 8 | value[end], following))
    roots = np.array([ids[bytes([byte])] for byte in range(256)], np.int64)
    unique = np.unique(np.array(keys, np.uint64).reshape(-1, 2), axis=0)
    edges = np.zeros(_room(len(unique)), np.uint64)
    _fill_edges(edges, unique)
    return roots, edges


@compiled
def _slot(key: Any, size: int) -> Any:
    return np.int64(((key * np.uint64(MIX)) >> np.uint64(20)) & np.uint64(size - 1))


@compiled
def _fill_edges(edges: np.ndarray, keys: np.ndarray) -> None:
    for row in range(len(keys)):
        slot = _slot(keys[row, 0], len(edges))
        while edges[slot]:
            slot = (slot + 1) & (len(edges) - 1)
        edges[slot] = (keys[row, 0] << np.uint64(32)) | keys[row, 1]


@compiled
def _fill_merges(table: np.ndarray, merged: np.ndarray, splits: np.ndarray) -> bool:
    """Enter the merges in their order; False where a token's own bytes would not be merged into it."""
    for row in range(len(merged)):
        left, right, token = merged[row]
        if not _holds(left, right, table, splits):
            return False
        key = (np.uint64(left) << np.uint64(ID_BITS)) | np.uint64(right)
        slot = _slot(key, len(table))
        while table[slot]:
            slot = (slot + 1) & (len(table) - 1)
        table[slot] = (key << np.uint64(ID_BITS)) | np.uint64(token)
    return True


@compiled
def _merge(left: Any, right: Any, merges: np.ndarray) -> Any:
    """The token that two are merged into, or NONE."""
    key = (np.uint64(left) << np.uint64(ID_BITS)) | np.uint64(right)
    slot = _slot(key, len(merges))
    while merges[slot]:
        if merges[slot] >> np.uint64(ID_BITS) == key:
            return np.int64(merges[slot] & np.uint64((1 << ID_BITS) - 1))
        slot = (slot + 1) & (len(merges) - 1)
    return NONE


@compiled
def _holds(left: Any, right: Any, merges: np.ndarray, splits: np.ndarray) -> bool:
    """Whether the seam between two tokens holds: no merge across it comes before those that made the two.

    Goes back in time: the younger of the two is undone, and whatever then meets at the seam must not merge into a token
    that is older than what was undone.
    """
    limit: Any = np.int64(1) << 62
    while True:
        token = _merge(left, right, merges)
        if token != NONE and token < limit:
            return False
        if left > right:
            limit, left = left, np.int64(splits[left, 1])
            if left == limit:
                limit, right = right + 1, np.int64(splits[right, 0])
                if right + 1 == limit:
                    return True
        else:
            limit, right = right + 1, np.int64(splits[right, 0])
            if right + 1 == limit:
                limit, left = left, np.int64(splits[left, 1])
                if left == limit:
                    return True


@compiled
def _seam_holds(left: Any, right: Any, merges: np.ndarray, splits: np.ndarray, seams: np.ndarray) -> bool:
    """`_holds`, remembered for the pairs seen last: in scripts without spaces most of the time goes there."""
    key = (np.uint64(left) << np.uint64(ID_BITS)) | np.uint64(right)
    slot = _slot(key, len(seams))
    if seams[slot] >> np.uint64(1) == key:
        return (seams[slot] & np.uint64(1)) != 0
    holds = _holds(left, right, merges, splits)
    seams[slot] = (key << np.uint64(1)) | np.uint64(holds)
    return holds


@compiled
def _longest(
    data: np.ndarray, position: Any, stop: Any, roots: np.ndarray, edges: np.ndarray, vocab_size: int
) -> Any:
    """The longest token that the bytes at a position begin with."""
    found = roots[data[position]]
    node = np.uint64(found)
    for index in range(position + 1, stop):
        key = (node << np.uint64(8)) | np.uint64(data[index])
        slot = _slot(key, len(edges))
        edge = edges[slot]
        while edge and edge >> np.uint64(32) != key:
            slot = (slot + 1) & (len(edges) - 1)
            edge = edges[slot]
        if not edge:
            break
        node = edge & np.uint64(0xFFFFFFFF)
        if node < np.uint64(vocab_size):
            found = np.int64(node)
    return found


@compiled
def _is_suffix(data: np.ndarray, position: int, stop: int) -> int:
    """Bytes of the English contraction behind an apostrophe ((?i:[sdmt]|ll|ve|re)), 0 for none."""
    if position >= stop:
        return 0
    first = data[position] | 0x20
    if first in (0x73, 0x64, 0x6D, 0x74):
        return 1
    if position + 1 < stop:
        if data[position] == 0xC5 and data[position + 1] == 0xBF:  # U+017F, which case-folds to s
            return 2
        second = data[position + 1] | 0x20
        if (first == 0x6C and second == 0x6C) or (first in (0x76, 0x72) and second == 0x65):
            return 2
    return 0


@compiled
def _flag(data: np.ndarray, position: int, stop: int, flags: np.ndarray) -> tuple[int, int]:
    """(class, bytes) of the character at a position."""
    byte = data[position]
    if byte < 128:
        return flags[byte], 1
    code, length = decode(data, position, stop)
    return (flags[code] if code < NUM_CODES else 0), length


@compiled
def _run(data: np.ndarray, position: int, stop: int, flags: np.ndarray, mask: int, wanted: bool) -> int:
    """End of the run of characters that have (or have not) one of some flags."""
    while position < stop:
        flag, length = _flag(data, position, stop, flags)
        if ((flag & mask) != 0) != wanted:
            break
        position += length
    return position


@compiled
def next_piece(data: np.ndarray, start: Any, stop: Any, flags: np.ndarray) -> Any:
    """End of the piece of tokenizer.PATTERN that begins at `start`; its alternatives in their order."""
    flag, length = _flag(data, start, stop, flags)
    behind = start + length
    if data[start] == 0x27:
        suffix = _is_suffix(data, behind, stop)
        if suffix:
            return behind + suffix
    if flag & KANJI:
        return _run(data, behind, stop, flags, KANJI, True)
    if flag & WORD:
        return _run(data, behind, stop, flags, WORD, True)
    if not flag & (NEWLINE | LETTER | NUMBER) and behind < stop:
        following, size = _flag(data, behind, stop, flags)
        if following & WORD:
            return _run(data, behind + size, stop, flags, WORD, True)
    if flag & NUMBER:
        for _ in range(2):
            if behind < stop:
                following, size = _flag(data, behind, stop, flags)
                if following & NUMBER:
                    behind += size
        return behind
    signs = behind if data[start] == 0x20 else start
    end = _run(data, signs, stop, flags, SPACE | LETTER | NUMBER, False)
    if end > signs:
        while end < stop and (data[end] == 0x0A or data[end] == 0x0D):
            end += 1
        return end
    return _spaces(data, start, stop, flags)


@compiled
def _spaces(data: np.ndarray, start: int, stop: int, flags: np.ndarray) -> int:
    r"""End of a piece of white space: \s*[\r\n]|\s+(?!\S)|\s+"""
    position = last = behind_newline = start
    while position < stop:
        flag, length = _flag(data, position, stop, flags)
        if not flag & SPACE:
            break
        last = position
        position += length
        if flag & NEWLINE:
            behind_newline = position
    if behind_newline > start:
        return behind_newline
    # The last space goes with the word behind it.
    return last if position < stop and last > start else position


@compiled
def _encode_rows(
    data: np.ndarray,
    offsets: np.ndarray,
    flags: np.ndarray,
    roots: np.ndarray,
    edges: np.ndarray,
    merges: np.ndarray,
    splits: np.ndarray,
    prefixes: np.ndarray,
    lengths: np.ndarray,
    eot_id: int,
    given_up: np.ndarray,
    out: np.ndarray,
    piece: int = 0,
) -> np.ndarray:
    """Fill `out`; the int64 offsets [rows + 1] of the rows in it, the last one -1 where a piece has no encoding.

    Args:
        given_up: uint32 [bytes of the longest text + 1], zeros; holds the number of the piece that gave a position up.
        piece: number of the piece before the first.
    """
    ends = np.zeros(len(offsets), np.int64)
    vocab_size = len(lengths)
    seams = np.zeros(NUM_SEAMS, np.uint64)
    size: Any = 0
    for row in range(len(offsets) - 1):
        out[size] = eot_id
        size += 1
        start: Any = np.int64(offsets[row])
        stop: Any = np.int64(offsets[row + 1])
        while start < stop:
            end = next_piece(data, start, stop, flags)
            piece += 1
            if piece >> 32:  # the numbers are used up
                given_up[:] = 0
                piece = 1
            first, position = size, start
            token: Any = _longest(data, position, end, roots, edges, vocab_size)
            while position < end:
                reach = position + lengths[token]
                if given_up[reach - start] != piece and (
                    size == first or _seam_holds(np.int64(out[size - 1]), token, merges, splits, seams)
                ):
                    out[size] = token
                    size, position = size + 1, reach
                    if position < end:
                        token = _longest(data, position, end, roots, edges, vocab_size)
                elif prefixes[token] != NONE:
                    token = np.int64(prefixes[token])
                else:
                    if size == first:
                        ends[-1] = -1
                        return ends
                    given_up[position - start] = piece
                    size -= 1
                    token = np.int64(out[size])
                    position -= lengths[token]
            start = end
        ends[row + 1] = size
    return ends
