"""What the quality rules measure of a text: every count of every document of an Arrow column, in one numba call.

Counts only, so that they are exact and the rules are comparisons of their ratios. Time is linear in the length of a
text, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data_pipeline import words
from data_pipeline.compiled import compiled
from data_pipeline.filter_presets import FilterOptions
from data_pipeline.filters import characters
from data_pipeline.filters.blocklists import NOTHING, Blocked, count_blocked_words
from data_pipeline.filters.c4 import count_kept_sentences
from data_pipeline.filters.characters import (
    DECIMAL,
    HAN,
    KANA,
    LETTER,
    NUM_SCRIPTS,
    SCRIPT_SHIFT,
    SPACE,
    SPACED,
    SYMBOL,
    UNSPACED,
    WORD,
)
from data_pipeline.filters.lines import count_line_forms, count_repeated_lines, find_lines
from data_pipeline.filters.repetition import (
    SECRET,
    duplicate_grams,
    empty_table,
    running_hashes,
    top_gram,
)
from data_pipeline.filters.scripts import CHARS_PER_SPACED_WORD, CHARS_PER_WORD, stop_words
from data_pipeline.filters.tokens import ABBREVIATION_HASHES, hash_codes, tokenize

# A token is a word or a mark that stands apart (tokens.py); characters are code points.
STATISTICS = np.dtype(
    [
        (name, np.int64)
        for name in (
            "num_chars",
            "num_visible",  # characters that are no space
            "num_letters",  # letters and the marks on them
            "num_digits",
            "num_replacements",  # U+FFFD, the mark of bytes that could not be read
            "num_hash_signs",
            "num_ellipses",  # three full stops or the one character, of which a pair, as Chinese has it, is one
            "num_line_feeds",
            "num_words",  # in the sense of data_pipeline.words
            "num_blocked_words",  # the last ones of phrases in the user's list
            "is_blocked_url",  # 1 where the document's address is in the user's list
            "script",  # the script without spaces that the text is mostly in (characters.HAN ...), or SPACED
            "num_unspaced",  # characters of scripts without spaces: tokens of their own, and in none of the next four
            "num_spaced_words",  # tokens that are more than marks
            "spaced_word_letters",  # characters in them; a Hangul syllable counts as the two or three letters it is
            "num_letter_words",  # tokens with a letter in them
            "num_marks",  # tokens of nothing but marks
            "num_stop_words",  # different stop words of the document's language; -1 where there is no list
            "num_lines",
            "num_bullet_lines",
            "num_ellipsis_lines",
            "num_sentence_lines",  # lines that end a sentence
            "num_short_lines",
            "num_repeated_lines",  # lines that stood before
            "repeated_line_chars",
            "num_paragraphs",
            "num_repeated_paragraphs",
            "repeated_paragraph_chars",
            "num_sentences",  # in the lines that C4 keeps
            "num_placeholder_lines",  # of those lines, the ones with "lorem ipsum"
            "num_curly_lines",  # ... and with a curly bracket
            "top_2gram_chars",  # characters in the most frequent run of two words
            "top_3gram_chars",
            "top_4gram_chars",
            "repeated_5gram_chars",  # characters in runs of five words that stood before
            "repeated_6gram_chars",
            "repeated_7gram_chars",
            "repeated_8gram_chars",
            "repeated_9gram_chars",
            "repeated_10gram_chars",
        )
    ]
)
# Hangul syllables, 28 to each pair of initial and vowel, of which the first has no final (Unicode 3.12).
_FIRST_SYLLABLE, _NUM_SYLLABLES, _FINALS = 0xAC00, 11172, 28
_REPLACEMENT, _HASH_SIGN, _FEED, _STOP, _ELLIPSIS = map(ord, "\ufffd#\n.\u2026")


def measure(
    texts: pa.Array | pa.ChunkedArray,
    languages: Sequence[str],
    options: FilterOptions,
    blocked: Blocked = NOTHING,
) -> np.ndarray:
    """Count everything in every text.

    Args:
        texts: strings, read where they lie, without a copy.
        languages: ISO 639-1 code of each, for its stop words.
        options: the lengths that lines and words are held against while they are counted.
        blocked: the user's list of words.

    Returns:
        One record of STATISTICS a text.
    """
    row_of, row_of_script, stop_tables = stop_words()
    stop_rows = np.array([row_of.get(language, 0) for language in languages], np.int64)
    statistics = np.zeros(len(texts), STATISTICS)
    start = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        rows = slice(start, start + len(chunk))
        data, offsets = words.utf8(chunk)
        # The bytes of an empty column can be written to: to numba another type, to be compiled for once more.
        data.setflags(write=False)
        _measure(
            data,
            offsets.astype(np.int64),
            characters.table(),
            words.tables()[1],
            blocked.phrases,
            blocked.lengths,
            stop_rows[rows],
            row_of_script,
            stop_tables,
            ABBREVIATION_HASHES,
            CHARS_PER_WORD,
            float(options.short_line_chars),
            float(options.min_line_words),
            float(options.max_word_chars),
            bool(options.needs_end_mark),
            int(options.min_gram_count),
            SECRET,
            statistics[rows],
        )
        start += len(chunk)
    return statistics


@compiled
def _measure(
    data: np.ndarray,
    offsets: np.ndarray,
    table: np.ndarray,
    folded: np.ndarray,
    phrases: np.ndarray,
    phrase_lengths: np.ndarray,
    stop_rows: np.ndarray,
    stop_row_of_script: np.ndarray,
    stop_tables: np.ndarray,
    abbreviations: np.ndarray,
    chars_per_word: np.ndarray,
    short_line_chars: float,
    min_line_words: float,
    max_word_chars: float,
    needs_end_mark: bool,
    min_gram_count: int,
    secret: np.uint64,
    statistics: np.ndarray,
) -> None:
    """Fill the records, [documents]."""
    for document in range(len(statistics)):
        out = statistics[document]
        codes, flags = _decode(data, offsets[document], offsets[document + 1], table)
        _count_characters(codes, flags, out)
        out.num_blocked_words = count_blocked_words(codes, flags, folded, phrases, phrase_lengths)
        out.script = _script(flags, out.num_words - out.num_unspaced, chars_per_word)
        scale = chars_per_word[out.script]
        starts, ends, begins = find_lines(codes, flags)
        out.num_lines = len(starts)
        # A line of few words is short: in scripts without spaces these take fewer characters.
        short = short_line_chars * (1 if out.script == SPACED else scale / CHARS_PER_SPACED_WORD)
        out.num_bullet_lines, out.num_ellipsis_lines, out.num_sentence_lines, out.num_short_lines = (
            count_line_forms(codes, flags, starts, ends, short)
        )
        (
            out.num_repeated_lines,
            out.repeated_line_chars,
            out.num_paragraphs,
            out.num_repeated_paragraphs,
            out.repeated_paragraph_chars,
        ) = count_repeated_lines(codes, starts, ends, begins, secret)
        token_starts, token_ends = tokenize(codes, flags, 0, len(codes), abbreviations)
        out.num_sentences, out.num_placeholder_lines, out.num_curly_lines = count_kept_sentences(
            codes,
            flags,
            starts,
            ends,
            token_starts,
            token_ends,
            abbreviations,
            scale,
            min_line_words,
            max_word_chars,
            needs_end_mark,
        )
        hashes = _count_tokens(codes, flags, token_starts, token_ends, out)
        stop_row = stop_row_of_script[out.script]
        stop_row = stop_rows[document] if stop_row < 0 else stop_row
        out.num_stop_words = _count_stop_words(hashes, stop_tables[stop_row]) if stop_row else -1
        _count_grams(hashes, token_ends - token_starts, scale, min_gram_count, secret, out)


@compiled
def _decode(data: np.ndarray, start: int, end: int, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint32 code points of data[start:end], which Arrow holds to be UTF-8, and their flags."""
    codes, flags = np.empty(end - start, np.uint32), np.empty(end - start, np.uint32)
    count, at = 0, start
    while at < end:
        code = np.uint32(data[at])
        if code < 0x80:
            at += 1
        else:
            length = 2 if code < 0xE0 else 3 if code < 0xF0 else 4
            code &= np.uint32(0x7F >> length)
            for index in range(at + 1, min(at + length, end)):
                code = np.uint32(code << np.uint32(6)) | np.uint32(data[index] & 0x3F)
            at += length
        codes[count], flags[count] = code, table[code]
        count += 1
    return codes[:count], flags[:count]


@compiled
def _count_characters(codes: np.ndarray, flags: np.ndarray, out: np.record) -> None:
    spaces = letters = digits = num_words = unspaced = hash_signs = feeds = replacements = ellipses = 0
    was_word = False
    num_stops = num_ellipses = 0  # in the run that ends here
    for index in range(len(codes)):
        code, flag = codes[index], flags[index]
        spaces += flag & SPACE != 0
        letters += flag & LETTER != 0
        digits += flag & DECIMAL != 0
        is_word = flag & WORD != 0
        num_words += (is_word and not was_word) or flag & UNSPACED != 0
        was_word = is_word
        unspaced += flag & UNSPACED != 0
        if not flag & (SYMBOL | SPACE):
            num_stops = num_ellipses = 0
            continue
        replacements += code == _REPLACEMENT
        hash_signs += code == _HASH_SIGN
        feeds += code == _FEED
        num_stops = num_stops + 1 if code == _STOP else 0
        num_ellipses = num_ellipses + 1 if code == _ELLIPSIS else 0
        ellipses += (num_stops > 0 and num_stops % 3 == 0) or num_ellipses % 2 == 1
    out.num_chars, out.num_visible = len(codes), len(codes) - spaces
    out.num_letters, out.num_digits, out.num_words, out.num_unspaced = letters, digits, num_words, unspaced
    out.num_replacements, out.num_hash_signs = replacements, hash_signs
    out.num_ellipses, out.num_line_feeds = ellipses, feeds


@compiled
def _script(flags: np.ndarray, num_spaced: int, chars_per_word: np.ndarray) -> int:
    """The script without spaces that at least half of the words are in, else SPACED.

    Japanese is Kana with Han: a tenth of Kana tells it from Chinese.
    """
    counts = np.zeros(NUM_SCRIPTS, np.int64)
    for flag in flags:
        counts[flag >> SCRIPT_SHIFT] += 1
    counts[SPACED] = 0
    if counts[KANA] * 9 >= counts[HAN]:
        counts[KANA] += counts[HAN]
        counts[HAN] = 0
    else:
        counts[HAN] += counts[KANA]
        counts[KANA] = 0
    words = (counts / chars_per_word).sum()
    return int(np.argmax(counts)) if words > 0 and words >= num_spaced else SPACED


@compiled
def _count_tokens(
    codes: np.ndarray, flags: np.ndarray, starts: np.ndarray, ends: np.ndarray, out: np.record
) -> np.ndarray:
    """uint64 hashes of the tokens; what they are is counted."""
    hashes = np.empty(len(starts), np.uint64)
    for token in range(len(starts)):
        start, end = starts[token], ends[token]
        hashes[token] = hash_codes(codes, start, end)
        if flags[start] & UNSPACED:
            continue
        is_word = has_letter = False
        num_letters = end - start
        for index in range(start, end):
            is_word |= flags[index] & SYMBOL == 0
            has_letter |= flags[index] & LETTER != 0
            syllable = np.int64(codes[index]) - _FIRST_SYLLABLE
            if 0 <= syllable < _NUM_SYLLABLES:
                num_letters += 1 if syllable % _FINALS == 0 else 2
        out.num_letter_words += has_letter
        if is_word:
            out.num_spaced_words += 1
            out.spaced_word_letters += num_letters
        else:
            out.num_marks += 1
    return hashes


@compiled
def _count_stop_words(hashes: np.ndarray, table: np.ndarray) -> int:
    """How many different words of a row of scripts.stop_words() occur."""
    last = len(table) - 1
    is_new = np.ones(len(table), np.bool_)
    count = 0
    for value in hashes:
        slot = np.int64(value & np.uint64(last))
        while table[slot] != 0 and table[slot] != value:
            slot = (slot + 1) & last
        if table[slot] != 0 and is_new[slot]:
            is_new[slot] = False
            count += 1
    return count


@compiled
def _count_grams(
    hashes: np.ndarray,
    lengths: np.ndarray,
    chars_per_word: float,
    min_gram_count: int,
    secret: np.uint64,
    out: np.record,
) -> None:
    """Repetition of runs of words; in scripts without spaces, of as many characters as the words would have."""
    running = running_hashes(hashes)
    ends = np.zeros(len(lengths) + 1, np.int64)
    for index in range(len(lengths)):
        ends[index + 1] = ends[index] + lengths[index]
    scale = 1.0 if out.script == SPACED else chars_per_word
    gap = int(out.script == SPACED)
    # One room for all: fresh memory costs more than the work on it where a text is large.
    table, grams = empty_table(len(hashes)), np.empty(len(hashes), np.uint64)
    out.top_2gram_chars = top_gram(running, ends, round(2 * scale), gap, min_gram_count, secret, table, grams)
    out.top_3gram_chars = top_gram(running, ends, round(3 * scale), gap, min_gram_count, secret, table, grams)
    out.top_4gram_chars = top_gram(running, ends, round(4 * scale), gap, min_gram_count, secret, table, grams)
    out.repeated_5gram_chars = duplicate_grams(running, ends, round(5 * scale), secret, table, grams)
    out.repeated_6gram_chars = duplicate_grams(running, ends, round(6 * scale), secret, table, grams)
    out.repeated_7gram_chars = duplicate_grams(running, ends, round(7 * scale), secret, table, grams)
    out.repeated_8gram_chars = duplicate_grams(running, ends, round(8 * scale), secret, table, grams)
    out.repeated_9gram_chars = duplicate_grams(running, ends, round(9 * scale), secret, table, grams)
    out.repeated_10gram_chars = duplicate_grams(running, ends, round(10 * scale), secret, table, grams)
