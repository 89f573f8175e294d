"""The language of a text, and what is removed for it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_pipeline.config import LanguageConfig
from data_pipeline.language import detect, identify

TEXTS = {
    "en": "The farmer walked slowly over the bridge and waited for the evening train to arrive.",
    "de": "Der Bauer ging langsam über die Brücke und wartete auf den Zug am Abend.",
    "fr": "Le fermier marchait lentement sur le pont et attendait le train du soir.",
    "es": "El granjero caminaba despacio por el puente y esperaba el tren de la noche.",
    "ru": "Фермер медленно шёл по мосту и ждал вечернего поезда.",
    "zh": "农夫慢慢地走过桥，等待着晚上的火车。",
    "ja": "農夫はゆっくりと橋を渡り、夕方の列車を待っていました。",
    "ar": "سار المزارع ببطء على الجسر وانتظر قطار المساء.",
}


@pytest.mark.parametrize("lang", TEXTS)
def test_a_sentence_is_recognised(lang: str) -> None:
    found, score = detect(TEXTS[lang])
    assert found == lang
    assert 0.5 < score <= 1.0


def test_the_whole_text_counts_and_line_ends_do_not_hide_it() -> None:
    # Longer than the 80 characters at which the library cuts by itself.
    assert detect(f"{TEXTS['en']}\n\n" + f"{TEXTS['de']}\n" * 8)[0] == "de"


@pytest.mark.parametrize("text", ["", " \n\t ", "12345 678", "!!! --- ???", "_" * 50])
def test_a_text_without_letters_has_no_language(text: str) -> None:
    assert detect(text) == ("und", 0.0)


def _table(*texts: str) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string()), "lang": pa.nulls(len(texts), pa.string())})


def test_unwanted_and_uncertain_languages_are_removed_with_their_score() -> None:
    kept, removed = identify(
        _table(TEXTS["en"], TEXTS["de"], "hm ok la"), LanguageConfig(keep=["en", "hr", "und"], min_score=0.6)
    )
    assert kept["text"].to_pylist() == [TEXTS["en"]]
    assert kept["lang"].to_pylist() == ["en"]
    german = removed.to_pylist()[0]
    assert (german["stage"], german["reason"], german["lang"]) == ("language", "language_de", "de")
    assert german["value"] == german["lang_score"] > 0.6


def test_a_score_below_the_bound_is_the_reason() -> None:
    _, removed = identify(_table("12 34"), LanguageConfig(min_score=0.3))
    (row,) = removed.to_pylist()
    assert (row["reason"], row["value"], row["threshold"]) == ("language_uncertain", 0.0, 0.3)


def test_without_a_wish_every_language_is_kept() -> None:
    kept, removed = identify(_table(*TEXTS.values(), ""), LanguageConfig())
    assert (kept.num_rows, removed.num_rows) == (len(TEXTS) + 1, 0)
    assert kept["lang"].to_pylist()[:-1] == list(TEXTS)
