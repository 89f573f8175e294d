"""The lines that C4 keeps of a text, and the sentences in them (Raffel et al. 2020, section 2.2, and its code).

A line is left out when a word in it is too long to be one, when it ends no sentence (where that is asked for), when
it has few words, or when it speaks of JavaScript, cookies or terms of use. Of what is left a placeholder text or a
curly bracket condemns the whole document, and the sentences are counted.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.compiled import compiled
from data_pipeline.filters.characters import (
    CLOSING_QUOTE,
    DECIMAL,
    END_MARK,
    PIVOT,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    UNSPACED,
)
from data_pipeline.filters.lines import ends_a_sentence, ends_in_ellipsis
from data_pipeline.filters.tokens import tokenize


def _codes(phrase: str) -> np.ndarray:
    return np.frombuffer(phrase.encode("utf-32-le"), np.uint32)


_OPEN, _CLOSE, _J, _P, _V, _F, _K = map(ord, "[]jpvfk")
_JAVASCRIPT, _LOREM_IPSUM = _codes("javascript"), _codes("lorem ipsum")
_PRIVACY_POLICY, _COOKIE_POLICY = _codes("privacy policy"), _codes("cookie policy")
_TERMS_OF_USE = _codes("terms of use")
_USE_COOKIES, _USES_COOKIES = _codes("use cookies"), _codes("uses cookies")
_USE_OF_COOKIES = _codes("use of cookies")
_NOTES = (_codes("edit]"), _codes("citation needed]"))
HAS_LOREM_IPSUM, HAS_JAVASCRIPT, HAS_POLICY, HAS_CURLY = 1, 2, 4, 8


@compiled
def count_kept_sentences(
    codes: np.ndarray,
    flags: np.ndarray,
    line_starts: np.ndarray,
    line_ends: np.ndarray,
    token_starts: np.ndarray,
    token_ends: np.ndarray,
    abbreviations: np.ndarray,
    chars_per_word: float,
    min_line_words: float,
    max_word_chars: float,
    needs_end_mark: bool,
) -> tuple[int, int, int]:
    """(sentences in the lines that are kept, lines with placeholder text, lines with a curly bracket).

    Args:
        codes, flags: the text's code points and their characters.table() entries.
        line_starts, line_ends: from lines.find_lines.
        token_starts, token_ends, abbreviations: from, and of, tokens.tokenize.
        chars_per_word: characters of the script without spaces that count as a word.
        min_line_words, max_word_chars, needs_end_mark: which lines are kept.
    """
    sentences = placeholders = brackets = token = 0
    for line in range(len(line_starts)):
        start, end = line_starts[line], line_ends[line]
        words, longest = _line_words(flags, start, end, chars_per_word)
        if words < min_line_words or longest > max_word_chars:
            continue
        line_codes, line_flags = codes[start:end], flags[start:end]
        is_cut, line_codes, line_flags = _without_citations(line_codes, line_flags)
        if needs_end_mark and not _ends_as_c4_asks(line_codes, line_flags):
            continue
        found = _find_phrases(line_codes, line_flags)
        placeholders += found & HAS_LOREM_IPSUM != 0
        if found & HAS_JAVASCRIPT:
            continue
        brackets += found & HAS_CURLY != 0
        if found & HAS_POLICY:
            continue
        if is_cut:
            starts, ends = tokenize(line_codes, line_flags, 0, len(line_codes), abbreviations)
            sentences += _sentences(line_flags, starts, ends, 0, len(starts))
            continue
        while token < len(token_starts) and token_starts[token] < start:
            token += 1
        first = token
        while token < len(token_starts) and token_starts[token] < end:
            token += 1
        sentences += _sentences(flags, token_starts, token_ends, first, token)
    return sentences, placeholders, brackets


@compiled
def _line_words(flags: np.ndarray, start: int, end: int, chars_per_word: float) -> tuple[float, int]:
    """(words between spaces and of scripts without, characters in the longest between spaces).

    Marks beside a character of a script without spaces are no word.
    """
    words = unspaced = longest = 0
    index = start
    while index < end:
        flag = flags[index]
        if flag & SPACE:
            index += 1
            continue
        if flag & UNSPACED:
            unspaced += 1
            index += 1
            continue
        begin, is_word = index, False
        while index < end and not flags[index] & (SPACE | UNSPACED):
            is_word |= flags[index] & SYMBOL == 0
            index += 1
        is_beside = (begin > start and flags[begin - 1] & UNSPACED) or (
            index < end and flags[index] & UNSPACED
        )
        words += is_word or not is_beside
        longest = max(longest, index - begin)
    return words + unspaced / chars_per_word, longest


@compiled
def _without_citations(codes: np.ndarray, flags: np.ndarray) -> tuple[bool, np.ndarray, np.ndarray]:
    """(whether there were any, the line without [1], [edit] and [citation needed], its flags)."""
    index = 0
    while index < len(codes) and (codes[index] != _OPEN or _citation(codes, flags, index) == 0):
        index += 1
    if index == len(codes):
        return False, codes, flags
    kept_codes, kept_flags = codes.copy(), flags.copy()
    count = index
    while index < len(codes):
        length = _citation(codes, flags, index) if codes[index] == _OPEN else 0
        if length == 0:
            kept_codes[count], kept_flags[count] = codes[index], flags[index]
            count += 1
            length = 1
        index += length
    while count > 0 and kept_flags[count - 1] & SPACE:
        count -= 1
    return True, kept_codes[:count], kept_flags[:count]


@compiled
def _citation(codes: np.ndarray, flags: np.ndarray, start: int) -> int:
    """Length of the citation that the bracket at `start` opens, 0 for none. A number has ten digits at most."""
    end = start + 1
    while end < len(codes) and end - start <= 10 and flags[end] & DECIMAL:
        end += 1
    if end < len(codes) and codes[end] == _CLOSE:
        return end + 1 - start
    for note in _NOTES:
        if _stands_at(codes, start + 1, note):
            return len(note) + 1
    return 0


@compiled
def _ends_as_c4_asks(codes: np.ndarray, flags: np.ndarray) -> bool:
    """Whether a line ends a sentence or in a closing quote, and not in an ellipsis."""
    size = len(codes)
    if size == 0 or ends_in_ellipsis(codes, 0, size):
        return False
    return flags[size - 1] & CLOSING_QUOTE != 0 or ends_a_sentence(flags, 0, size)


@compiled
def _find_phrases(codes: np.ndarray, flags: np.ndarray) -> int:
    """Which of the phrases a line holds, in capitals or not, as bits. Looked for where their rarest letter stands."""
    found = 0
    for index in range(len(codes)):
        if not flags[index] & PIVOT:
            continue
        letter = codes[index] | 32
        if letter == _J:
            found |= HAS_JAVASCRIPT * _stands_at(codes, index, _JAVASCRIPT)
        elif letter == _P:
            found |= HAS_LOREM_IPSUM * _stands_at(codes, index - 7, _LOREM_IPSUM)
        elif letter == _V:
            found |= HAS_POLICY * _stands_at(codes, index - 3, _PRIVACY_POLICY)
        elif letter == _F:
            found |= HAS_POLICY * _stands_at(codes, index - 7, _TERMS_OF_USE)
        elif letter == _K:
            found |= HAS_POLICY * _stands_at(codes, index - 3, _COOKIE_POLICY)
            found |= HAS_POLICY * _stands_at(codes, index - 7, _USE_COOKIES)
            found |= HAS_POLICY * _stands_at(codes, index - 8, _USES_COOKIES)
            found |= HAS_POLICY * _stands_at(codes, index - 10, _USE_OF_COOKIES)
        else:
            found |= HAS_CURLY
    return found


@compiled
def _stands_at(codes: np.ndarray, start: int, phrase: np.ndarray) -> bool:
    """Whether a phrase in lower case stands at `start`, in capitals or not."""
    if start < 0 or start + len(phrase) > len(codes):
        return False
    for index in range(len(phrase)):
        code = codes[start + index]
        if code != phrase[index] and (code | 32 != phrase[index] or code > 127):
            return False
    return True


@compiled
def _sentences(flags: np.ndarray, starts: np.ndarray, ends: np.ndarray, first: int, last: int) -> int:
    """Sentences in the tokens first to last: one begins at the first word behind a token that is an end mark.

    As spaCy's Sentencizer has it, so that the stop of an abbreviation, which is no token, ends none.
    """
    count, has_ended = int(last > first), False
    for token in range(first, last):
        start, end = starts[token], ends[token]
        is_end_mark = end - start == 1 and flags[start] & END_MARK != 0
        if has_ended and not is_end_mark and not _is_punctuation(flags, start, end):
            count += 1
            has_ended = False
        elif is_end_mark:
            has_ended = True
    return count


@compiled
def _is_punctuation(flags: np.ndarray, start: int, end: int) -> bool:
    is_all = True
    for index in range(start, end):
        is_all &= flags[index] & PUNCTUATION != 0
    return is_all
