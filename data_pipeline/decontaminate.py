"""Documents or paragraphs that overlap an evaluation set are removed, or tagged with its name.

An overlap is a run of `ngram` words (characters, in scripts without spaces) or of `chars` letters and digits that also
stands in a text of the set, after normalisation: case folded, spaces and punctuation left out (13 words as in GPT-3,
Brown et al. 2020, appendix C; 50 characters as in GPT-4's report, appendix C).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numba import njit

from data_pipeline.clean import storable_json
from data_pipeline.config import DecontaminateConfig
from data_pipeline.errors import InputError
from data_pipeline.evaluation_sets import find_sets, read_texts
from data_pipeline.minhash import FACTOR
from data_pipeline.schema import Verdict, replace_column, split
from data_pipeline.words import NO_WORD, OTHER, PRIME, SINGLE, WORD, decode, mix64, tables, utf8

STAGE = "decontaminate"
TAG = "evaluation_sets"
# Where a text has blank lines these part its paragraphs, else its line ends do.
BLANK_LINES, LINE_END = re.compile(rb"\n[ \t]*\n"), re.compile(rb"\n")
_CHAR_SALT = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class Index:
    """Windows of all evaluation sets, as a hash table.

    Attributes:
        names: of the sets.
        keys: uint64 hashes of windows, [a power of two]; 0 where a slot is free.
        owners: number of the set that a key is of.
        ngram, chars: length of the windows in words and in characters.
        num_short: texts without a window, by set: they are not protected.
    """

    names: list[str]
    keys: np.ndarray
    owners: np.ndarray
    ngram: int
    chars: int
    num_short: dict[str, int]


def build_index(sets: Mapping[str, Sequence[Path]], config: DecontaminateConfig) -> Index:
    """The windows of evaluation sets.

    Raises:
        InputError: a set that cannot be read, or in which no text is long enough to be recognised.
    """
    hashes, owners, short = [], [], {}
    for number, (name, files) in enumerate(sorted(sets.items())):
        # Sorted: which of two sets owns a window that both have must not depend on the order of their texts.
        found, short[name] = _windows_of(
            sorted({text for file in files for text in read_texts(file)}), config
        )
        if not len(found):
            raise InputError(
                f"decontamination.sets: {name} ({files[0]}) has no text of {config.ngram} words or {config.chars} "
                "characters, so nothing of it could be recognised; mend or leave out"
            )
        hashes.append(found)
        owners.append(np.full(len(found), number, np.int32))
    all_hashes = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    size = 1 << max(4, int(2 * len(all_hashes)).bit_length())
    keys, owner = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    _insert(all_hashes, np.concatenate(owners) if owners else np.zeros(0, np.int32), keys, owner)
    return Index(sorted(sets), keys, owner, config.ngram, config.chars, short)


def _windows_of(texts: Sequence[str], config: DecontaminateConfig) -> tuple[np.ndarray, int]:
    data, offsets = utf8(pa.array(texts, pa.large_string()))
    parts, num_short = [], 0
    for row in range(len(texts)):
        start, stop = int(offsets[row]), int(offsets[row + 1])
        hashes, _, _ = _windows(data, start, stop, *tables(), config.ngram, config.chars)
        num_short += not len(hashes) and stop > start
        parts.append(hashes)
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64), num_short


@lru_cache(maxsize=4)
def index_of(sets: tuple[tuple[str, tuple[str, ...]], ...], ngram: int, chars: int) -> Index:
    """`build_index`, once a process."""
    config = DecontaminateConfig(ngram=ngram, chars=chars)
    return build_index({name: [Path(path) for path in paths] for name, paths in sets}, config)


def protected(config: DecontaminateConfig, folder: Path | None) -> DecontaminateConfig:
    """The configuration with its sets found: NAME=PATH, one entry a file, the workspace's own ones included.

    Raises:
        InputError: a set that is not there, cannot be read or has no text.
    """
    sets = find_sets(config.sets, folder)
    found = [f"{name}={path}" for name, files in sorted(sets.items()) for path in files]
    build_index(sets, config)
    return replace(config, sets=found)


def decontaminate(table: pa.Table, config: DecontaminateConfig) -> tuple[pa.Table, pa.Table]:
    """(rows that stay, rows that are removed): by action and unit of the configuration, whose sets are `protected`.

    Of a removed document, `value` is the number of windows that it shares with the set.
    """
    if not config.sets or not table.num_rows:
        return split(table, STAGE, [None] * table.num_rows)
    sets: dict[str, list[str]] = {}
    for entry in config.sets:
        name, _, path = entry.partition("=")
        sets.setdefault(name, []).append(path)
    index = index_of(
        tuple((name, tuple(paths)) for name, paths in sorted(sets.items())), config.ngram, config.chars
    )
    data, offsets = utf8(table["text"].combine_chunks())
    texts: dict[int, str] = {}
    tags: dict[int, list[str]] = {}
    verdicts: list[Verdict | None] = [None] * table.num_rows
    for row in range(table.num_rows):
        start, stop = int(offsets[row]), int(offsets[row + 1])
        owners, firsts, lasts = _overlaps(data, start, stop, index)
        if not len(owners):
            continue
        counts = np.bincount(owners, minlength=len(index.names))
        names = [index.names[number] for number in np.flatnonzero(counts)]
        if config.action == "tag":
            tags[row] = names
            continue
        text = data[start:stop].tobytes()
        rest = _without(text, firsts - start, lasts - start) if config.unit == "paragraph" else b""
        if rest.strip():
            texts[row], tags[row] = rest.decode("utf-8"), names
        else:
            verdicts[row] = Verdict(f"in_{index.names[int(counts.argmax())]}", float(counts.max()), 1.0)
    return split(_changed(table, texts, tags), STAGE, verdicts)


def _changed(table: pa.Table, texts: Mapping[int, str], tags: Mapping[int, list[str]]) -> pa.Table:
    if texts:
        old = table["text"].to_pylist()
        table = replace_column(
            table, "text", pa.array([texts.get(row, text) for row, text in enumerate(old)], pa.string())
        )
    if tags:
        metadata = table["metadata"].to_pylist()
        for row, names in tags.items():
            metadata[row] = storable_json({**json.loads(metadata[row] or "{}"), TAG: ",".join(names)})
        table = replace_column(table, "metadata", pa.array(metadata, pa.string()))
    return table


def _overlaps(
    data: np.ndarray, start: int, stop: int, index: Index
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(set, first byte, last byte) of each window of a text that a set has, too."""
    hashes, firsts, lasts = _windows(data, start, stop, *tables(), index.ngram, index.chars)
    owners = _look_up(hashes, index.keys, index.owners)
    hits = owners >= 0
    return owners[hits], firsts[hits], lasts[hits]


def _without(text: bytes, firsts: np.ndarray, lasts: np.ndarray) -> bytes:
    """The text without the paragraphs that overlaps reach into."""
    parting = BLANK_LINES if BLANK_LINES.search(text) else LINE_END
    cuts = [0, *(match.end() for match in parting.finditer(text)), len(text)]
    starts = np.array(cuts[:-1])
    touched = np.zeros(len(starts), np.bool_)
    for first, last in zip(
        np.searchsorted(starts, firsts, "right") - 1, np.searchsorted(starts, lasts, "right"), strict=True
    ):
        touched[first:last] = True
    return b"".join(text[cuts[i] : cuts[i + 1]] for i in np.flatnonzero(~touched)).rstrip()


# -------------------------------------------------------------------------------------------------------- windows


@njit(cache=True, nogil=True)
def _windows(
    data: np.ndarray, start: int, stop: int, kinds: np.ndarray, folded: np.ndarray, ngram: int, chars: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hash, first byte, last byte) of each run of `ngram` words and of `chars` letters or digits; 0 for none."""
    most = 2 * (stop - start) + 2
    hashes, firsts, lasts = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    words, word_places = np.zeros(max(1, ngram), np.uint64), np.zeros(max(1, ngram), np.int64)
    codes, code_places = np.zeros(max(1, chars), np.uint64), np.zeros(max(1, chars), np.int64)
    word_leaving, code_leaving = _power(ngram), _power(chars)
    count = num_words = num_codes = 0
    rolled_words, rolled_codes = np.uint64(0), np.uint64(0)
    state, word_start, last = np.uint64(NO_WORD), -1, start
    position, was_single = start, False
    while position <= stop:
        kind, code, length = 0, 0, 1
        if position < stop:
            code, length = decode(data, position, stop)
            kind = int(kinds[code])
        if word_start >= 0 and (kind != WORD or was_single):
            # A word has ended.
            slot = num_words % max(1, ngram)
            word = mix64(state)
            rolled_words = rolled_words * np.uint64(FACTOR) + word - words[slot] * word_leaving
            words[slot], word_places[slot] = word, word_start
            num_words += 1
            state, word_start = np.uint64(NO_WORD), -1
            if ngram > 0 and num_words >= ngram:
                hashes[count] = mix64(rolled_words) | np.uint64(1)
                firsts[count], lasts[count] = word_places[num_words % ngram], last
                count += 1
        if kind != OTHER:
            letter = np.uint64(folded[code])
            state = (state ^ letter) * np.uint64(PRIME)
            if word_start < 0:
                word_start = position
            was_single, last = kind == SINGLE, position
            slot = num_codes % max(1, chars)
            mixed = mix64(letter + np.uint64(_CHAR_SALT))
            rolled_codes = rolled_codes * np.uint64(FACTOR) + mixed - codes[slot] * code_leaving
            codes[slot], code_places[slot] = mixed, position
            num_codes += 1
            if chars > 0 and num_codes >= chars:
                hashes[count] = mix64(rolled_codes ^ np.uint64(_CHAR_SALT)) | np.uint64(1)
                firsts[count], lasts[count] = code_places[num_codes % chars], last
                count += 1
        position += length
    return hashes[:count].copy(), firsts[:count].copy(), lasts[:count].copy()


@njit(cache=True, nogil=True)
def _power(count: int) -> np.uint64:
    value = np.uint64(1)
    for _ in range(count):
        value *= np.uint64(FACTOR)
    return value


@njit(cache=True, nogil=True)
def _insert(hashes: np.ndarray, owners: np.ndarray, keys: np.ndarray, table_owners: np.ndarray) -> None:
    mask = np.uint64(len(keys) - 1)
    for index in range(len(hashes)):
        slot = (hashes[index] >> np.uint64(8)) & mask
        while keys[slot] != 0 and keys[slot] != hashes[index]:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot] = hashes[index]
            table_owners[slot] = owners[index]


@njit(cache=True, nogil=True)
def _look_up(hashes: np.ndarray, keys: np.ndarray, table_owners: np.ndarray) -> np.ndarray:
    """Owner of each hash, -1 for those that are not in the table."""
    mask = np.uint64(len(keys) - 1)
    out = np.full(len(hashes), -1, np.int64)
    for index in range(len(hashes)):
        slot = (hashes[index] >> np.uint64(8)) & mask
        while keys[slot] != 0:
            if keys[slot] == hashes[index]:
                out[index] = table_owners[slot]
                break
            slot = (slot + np.uint64(1)) & mask
    return out
