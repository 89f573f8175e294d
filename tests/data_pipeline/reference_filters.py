"""The quality rules' counts written down plainly: strings, regular expressions and dictionaries, one document a time.

Straight from the papers and from datatrove 0.10 (pipeline/filters/*.py); tokens after spaCy's English tokeniser.
data_pipeline.filters.statistics must give the same counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

from data_pipeline.filter_presets import FilterOptions
from data_pipeline.filters.characters import (
    BULLETS,
    BURMESE,
    CLOSERS,
    CLOSING_QUOTES,
    DASHES,
    END_MARKS,
    HAN,
    KANA,
    KHMER,
    LAO,
    MARKS,
    QUOTES,
    SPACED,
    THAI,
)
from data_pipeline.filters.scripts import CHARS_PER_SPACED_WORD, CHARS_PER_WORD, STOP_WORDS
from data_pipeline.filters.tokens import ABBREVIATIONS
from data_pipeline.words import count_words

# ------------------------------------------------------------------------------------------------- characters

BLOCKS = {
    THAI: "\u0e00-\u0e7f",
    LAO: "\u0e80-\u0eff",
    BURMESE: "\u1000-\u109f",
    KHMER: "\u1780-\u17ff",
    KANA: "\u3040-\u30ff\u31f0-\u31ff",
    HAN: "\u2e80-\u2fdf\u3005-\u3007\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
}
# A letter, mark or digit of such a block is a word of its own.
UNSPACED = re.compile(f"[{''.join(BLOCKS.values())}]")
SCRIPTS = {script: re.compile(f"[{block}]") for script, block in BLOCKS.items()}


@cache
def category(char: str) -> str:
    return unicodedata.category(char)


@cache
def is_unspaced(char: str) -> bool:
    return bool(UNSPACED.match(char)) and (category(char)[0] in "LMN" or char >= "\U00020000")


@cache
def is_letter(char: str) -> bool:
    return category(char)[0] in "LM" or "\U00020000" <= char <= "\U0003ffff"


@cache
def is_lower(char: str) -> bool:
    return is_letter(char) and category(char) not in ("Lu", "Lt")


@cache
def is_upper(char: str) -> bool:
    return is_letter(char) and category(char) != "Ll"


@cache
def is_symbol(char: str) -> bool:
    return category(char)[0] in "PSC" and not is_letter(char)


@cache
def num_letters(char: str) -> int:
    """Of a Hangul syllable, which is written as one."""
    return len(unicodedata.normalize("NFD", char)) if "\uac00" <= char <= "\ud7a3" else 1


def is_digit(char: str) -> bool:
    return char in "0123456789" and char != ""


@cache
def is_mark(char: str) -> bool:
    return char in MARKS + QUOTES + DASHES or category(char) == "So"


# ----------------------------------------------------------------------------------------------------- tokens

CONTRACTION = re.compile(r"(?:n['\u2019]t|['\u2019](?:ll|re|ve|d|m))$", re.IGNORECASE | re.ASCII)
PLAIN = re.compile(r"[^\W_]+")


def tokens(text: str) -> list[str]:
    return [token for run in text.split() for token in tokens_of_run(run)]


@lru_cache(1 << 16)
def tokens_of_run(run: str) -> list[str]:
    found: list[str] = []
    if PLAIN.fullmatch(run) and not UNSPACED.search(run):
        found.append(run)
    else:
        piece = ""
        for char in run:
            if is_unspaced(char):
                found += [*cut(piece), char]
                piece = ""
            else:
                piece += char
        found += cut(piece)
    return found


def cut(run: str) -> list[str]:
    """Tokens of a run without spaces."""
    if all(is_letter(char) or is_digit(char) for char in run):
        return [run] if run else []
    front, back = [], []
    while run and (length := prefix(run)):
        front.append(run[:length])
        run = run[length:]
    while run and (length := suffix(run)):
        back.append(run[-length:])
        run = run[:-length]
    middle = [run] if run and is_address(run) else cut_inside(run)
    return front + middle + back[::-1]


def num_stops(run: str) -> int:
    return len(run) - len(run.lstrip("."))


def prefix(run: str) -> int:
    if is_mark(run[0]) or run[0] in "\xa7%=" or category(run[0]) == "Sc":
        return 1
    if run[0] == "+":
        return 0 if is_digit(run[1:2]) else 1
    return num_stops(run) if num_stops(run) > 1 else 0


def suffix(run: str) -> int:
    last, before = run[-1], run[-2:-1]
    if is_mark(last):
        return 1
    if last == ".":
        if (stops := num_stops(run[::-1])) > 1:
            return stops
        if not before or is_abbreviation(run):
            return 0
        if is_digit(before) or is_lower(before) or before in MARKS + QUOTES + "%\xb2-+":
            return 1
        return int(len(run) > 2 and is_upper(before) and is_upper(run[-3]))
    if is_digit(before) and (last in "+%" or category(last) == "Sc"):
        return 1
    if len(run) > 2 and before in "'\u2019" and last in "sS":
        return 2
    match = CONTRACTION.search(run)
    return len(match.group()) if match and match.start() > 0 and is_letter(run[0]) else 0


def is_abbreviation(run: str) -> bool:
    letters, stops = run[::2], run[1::2]
    is_initials = len(letters) == len(stops) and all(map(is_letter, letters)) and set(stops) == {"."}
    return run in ABBREVIATIONS or (is_initials and len(run) <= max(map(len, ABBREVIATIONS)))


def is_address(run: str) -> bool:
    """scheme://user@host.name:port/path, of which the host is enough."""
    scheme, mark, rest = run.partition("://")
    if not (mark and len(scheme) > 1 and all(is_letter(c) or is_digit(c) or c in "+-._" for c in scheme)):
        rest = run
    start = 0
    for index, char in enumerate(re.split("[/?#]", rest, maxsplit=1)[0]):
        if char == "@" and index > start:
            start = index + 1
    rest = rest[start:]
    host = re.split("[/?#:]", rest, maxsplit=1)[0]
    *labels, last = host.split(".")
    if not labels or not all(is_letter(c) or is_digit(c) or c in "-_." for c in host):
        return False
    if not all(label and label[-1] not in "-_" for label in labels):
        return False
    if all(is_digit(c) or c == "." for c in host):
        is_host = len(labels) == 3 and last != ""
    else:
        is_host = len(last) > 1 and all(map(is_lower, last))
    return is_host and bool(re.match(r"(?::[0-9]*)?(?:[/?#]|$)", rest[len(host) :]))


def cut_inside(run: str) -> list[str]:
    found, begin, index = [], 0, 0
    while index < len(run):
        length = infix(run, index)
        if length:
            found += [run[begin:index], run[index : index + length]]
            begin = index + length
        index += length or 1
    return [token for token in (*found, run[begin:]) if token]


def infix(run: str, index: int) -> int:
    char, before, after = run[index], run[index - 1 : index], run[index + 1 : index + 2]
    if category(char) == "So" or char == "\u2026":
        return 1
    if (stops := num_stops(run[index:])) > 1:
        return stops
    if not before or not after:
        return 0
    if char == ".":
        return int((is_lower(before) or before in QUOTES) and (is_upper(after) or after in QUOTES))
    if char == ",":
        return int(is_letter(before) and is_letter(after))
    if char in "+-*^" and is_digit(before) and (is_digit(after) or after == "-"):
        return 1
    if not (is_letter(before) or is_digit(before)):
        return 0
    if char in "-~" + DASHES:
        length = len(re.match(f"[-~{DASHES}]{{1,3}}", run[index:]).group())  # type: ignore[union-attr]
        follows = run[index + length : index + length + 1]
        return length if follows and is_letter(follows) else 0
    return int(char in ":<>=/" and is_letter(after))


# ------------------------------------------------------------------------------------------------------ lines


def lines_of(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def paragraphs_of(text: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in map(str.strip, text.split("\n")):
        if line:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def ends_sentence(line: str) -> bool:
    return line.rstrip(CLOSERS).endswith(tuple(END_MARKS))


def find_duplicates(items: list[str]) -> tuple[int, int]:
    """datatrove.pipeline.filters.gopher_repetition_filter.find_duplicates."""
    seen: set[str] = set()
    count = chars = 0
    for item in items:
        if item in seen:
            count += 1
            chars += len(item)
        seen.add(item)
    return count, chars


def top_gram(words: list[str], size: int, gap: int, least: int) -> int:
    """... find_top_duplicate."""
    grams = Counter(tuple(words[index : index + size]) for index in range(len(words) - size + 1))
    if not grams:
        return 0
    ((gram, count),) = grams.most_common(1)
    return (sum(map(len, gram)) + gap * (size - 1)) * count if count >= least else 0


def duplicate_grams(words: list[str], size: int) -> int:
    """... find_all_duplicate."""
    seen: set[tuple[str, ...]] = set()
    chars = index = 0
    while index < len(words) - size + 1:
        gram = tuple(words[index : index + size])
        if gram in seen:
            chars += sum(map(len, gram))
            index += size
        else:
            seen.add(gram)
            index += 1
    return chars


# --------------------------------------------------------------------------------------------------------- C4

CITATION = re.compile(r"\[\d{0,10}\]|\[edit\]|\[citation needed\]", re.IGNORECASE)
POLICY = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)


def c4(text: str, chars_per_word: float, options: FilterOptions) -> tuple[int, int, int]:
    """... c4_filters.C4QualityFilter: (sentences, lines with placeholder text, lines with a curly bracket)."""
    sentences = placeholders = brackets = 0
    for line in lines_of(text):
        words, longest = line_words(line, chars_per_word)
        if words < options.min_line_words or longest > options.max_word_chars:
            continue
        line = CITATION.sub("", line).rstrip()
        is_ended = ends_sentence(line) or line.endswith(tuple(CLOSING_QUOTES))
        if options.needs_end_mark and (not is_ended or line.endswith(("...", "\u2026"))):
            continue
        small = line.lower()
        placeholders += "lorem ipsum" in small
        if "javascript" in small:
            continue
        brackets += "{" in line
        if not any(phrase in small for phrase in POLICY):
            sentences += num_sentences(tokens(line))
    return sentences, placeholders, brackets


def line_words(line: str, chars_per_word: float) -> tuple[float, int]:
    num_words, unspaced, longest = 0, 0, 0
    for run in line.split():
        parts: list[str] = [""]
        for char in run:
            if is_unspaced(char):
                unspaced += 1
                parts.append("")
            else:
                parts[-1] += char
        is_alone = len(parts) == 1
        num_words += sum(part != "" and (is_alone or not all(map(is_symbol, part))) for part in parts)
        longest = max(longest, *map(len, parts))
    return num_words + unspaced / chars_per_word, longest


def num_sentences(words: list[str]) -> int:
    """spaCy's Sentencizer."""
    count, has_ended = int(bool(words)), False
    for word in words:
        if has_ended and word not in END_MARKS and not all(category(char)[0] == "P" for char in word):
            count += 1
            has_ended = False
        elif len(word) == 1 and word in END_MARKS:
            has_ended = True
    return count


# -------------------------------------------------------------------------------------------------------- all


def script_of(characters: Counter[str], num_spaced: int) -> int:
    counts = dict.fromkeys(sorted(BLOCKS), 0)
    for char, count in characters.items():
        if is_unspaced(char):
            (script,) = (script for script, block in SCRIPTS.items() if block.match(char))
            counts[script] += count
    mixed = counts[KANA] + counts[HAN]
    is_japanese = counts[KANA] * 9 >= counts[HAN]
    counts |= {KANA: mixed if is_japanese else 0, HAN: 0 if is_japanese else mixed}
    num_words = sum(count / CHARS_PER_WORD[script] for script, count in counts.items())
    return max(counts, key=lambda script: counts[script]) if num_words and num_words >= num_spaced else SPACED


@cache
def is_word(token: str) -> bool:
    return not all(map(is_symbol, token))


@cache
def has_letter(token: str) -> bool:
    return any(map(is_letter, token))


def measure(text: str, language: str, options: FilterOptions) -> dict[str, int]:
    """The counts of data_pipeline.filters.statistics.STATISTICS."""
    characters = Counter(text)

    def number_of(kind: Callable[[str], bool]) -> int:
        return sum(count for char, count in characters.items() if kind(char))

    num_words, num_unspaced = count_words(text), number_of(is_unspaced)
    script = script_of(characters, num_words - num_unspaced)
    scale = CHARS_PER_WORD[script]
    lines = lines_of(text)
    paragraphs = ["\n".join(paragraph) for paragraph in paragraphs_of(text)]
    words = tokens(text)
    spaced = [word for word in words if not is_unspaced(word[0])]
    real = [word for word in spaced if is_word(word)]
    short = options.short_line_chars * (1 if script == SPACED else scale / CHARS_PER_SPACED_WORD)
    repeated_lines, repeated_line_chars = find_duplicates(lines)
    repeated_paragraphs, repeated_paragraph_chars = find_duplicates(paragraphs)
    sentences, placeholders, brackets = c4(text, scale, options)
    stops = {SPACED: STOP_WORDS.get(language), HAN: STOP_WORDS["zh"], KANA: STOP_WORDS["ja"]}.get(script)
    counts = {
        "num_chars": len(text),
        "num_visible": number_of(lambda char: not char.isspace()),
        "num_letters": number_of(is_letter),
        "num_digits": number_of(lambda char: category(char) == "Nd"),
        "num_replacements": text.count("\ufffd"),
        "num_hash_signs": text.count("#"),
        "num_ellipses": text.count("...") + len(re.findall("\u2026\u2026?", text)),
        "num_line_feeds": text.count("\n"),
        "num_words": num_words,
        "num_blocked_words": 0,
        "is_blocked_url": 0,
        "script": script,
        "num_unspaced": num_unspaced,
        "num_spaced_words": len(real),
        "spaced_word_letters": sum(num_letters(char) for word in real for char in word),
        "num_letter_words": sum(map(has_letter, spaced)),
        "num_marks": len(spaced) - len(real),
        "num_stop_words": len(set(words) & set(stops.split())) if stops else -1,
        "num_lines": len(lines),
        "num_bullet_lines": sum(line.startswith(tuple(BULLETS)) for line in lines),
        "num_ellipsis_lines": sum(line.endswith(("...", "\u2026")) for line in lines),
        "num_sentence_lines": sum(map(ends_sentence, lines)),
        "num_short_lines": sum(len(line) <= short for line in lines),
        "num_repeated_lines": repeated_lines,
        "repeated_line_chars": repeated_line_chars,
        "num_paragraphs": len(paragraphs),
        "num_repeated_paragraphs": repeated_paragraphs,
        "repeated_paragraph_chars": repeated_paragraph_chars,
        "num_sentences": sentences,
        "num_placeholder_lines": placeholders,
        "num_curly_lines": brackets,
    }
    factor, gap = (1.0, 1) if script == SPACED else (scale, 0)
    for size in (2, 3, 4):
        counts[f"top_{size}gram_chars"] = top_gram(words, round(size * factor), gap, options.min_gram_count)
    for size in range(5, 11):
        counts[f"repeated_{size}gram_chars"] = duplicate_grams(words, round(size * factor))
    return counts
