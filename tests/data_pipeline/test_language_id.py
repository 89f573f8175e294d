"""The language of a text, and what is removed for it."""

from __future__ import annotations

import random
import tarfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline import extract, schema, staging
from data_pipeline.config import LanguageConfig, RefreshConfig, SourceConfig
from data_pipeline.language import detect, identify
from data_pipeline.sources import list_files, read_records

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


# ---------------------------------------------------------------------------------------------------- real passages

PASSAGE_CHARS = 1000
PASSAGES_A_TEXT = 40
WIKIS = {"dewiki": "de", "enwiki": "en", "eswiki": "es", "frwiki": "fr", "jawiki": "ja", "kowiki": "ko",
         "simplewiki": "en", "zhwiki": "zh", "bgwiki": "bg"}  # fmt: skip
BOOKS = {"pg-en-b": "en", "pg-fr": "fr", "pg-zh": "zh"}


def _extracted(kind: str, path: Path) -> list[str]:
    """The text of each document of a file."""
    source = SourceConfig(name="real", kind=kind, paths=[str(path)])
    records = [record for file in list_files(source) for record in read_records(source, file)]
    table = staging.raw_table(records, 0, source, str(path))
    alive, _ = schema.split(
        table.drop_columns(["reason"]),
        "read",
        [schema.Verdict(r.reason) if r.reason else None for r in records],
    )
    alive, _ = extract.extract(alive, RefreshConfig().of(source).extraction)
    return alive["text"].to_pylist()


def _passages(text: str) -> list[str]:
    """Passages from all over a text."""
    found = [
        text[start : start + PASSAGE_CHARS]
        for start in range(0, len(text) - PASSAGE_CHARS + 1, PASSAGE_CHARS)
    ]
    return found[:: max(1, len(found) // PASSAGES_A_TEXT)]


@pytest.fixture(scope="module")
def passages(shared_data: Path) -> list[tuple[str, str, str]]:
    """(Collection, language, passage)."""
    found = []
    for path in sorted((shared_data / "wiki").glob("*.bz2")):
        name = next(name for name in sorted(WIKIS, key=len, reverse=True) if name in path.name)
        for text in _extracted("wiki", path):
            found += [(name, WIKIS[name], passage) for passage in _passages(text)]
    for folder, lang in BOOKS.items():
        for path in sorted((shared_data / "books" / folder).glob("*.txt")):
            for text in _extracted("books", path):
                found += [(folder, lang, passage) for passage in _passages(text)]
    with tarfile.open(shared_data / "books" / "niutrans-guwen-A.tar.gz") as archive:
        for member in [member for member in archive if member.name.endswith(".txt")][::10]:
            file = archive.extractfile(member)
            assert file is not None
            found += [("classics", "zh", passage) for passage in _passages(file.read().decode())]
    return found


@pytest.mark.slow
def test_real_passages_of_a_thousand_characters_are_recognised(passages: list[tuple[str, str, str]]) -> None:
    confusion: dict[str, Counter[str]] = {}
    for name, lang, passage in passages:
        confusion.setdefault(f"{name} ({lang})", Counter())[detect(passage)[0]] += 1
    right = Counter({lang: 0 for _, lang, _ in passages})
    total = Counter(lang for _, lang, _ in passages)
    for name, counts in confusion.items():
        print(f"{name:18s}", dict(counts.most_common()))
        right[name[-3:-1]] += counts[name[-3:-1]]
    by_language = {lang: right[lang] / total[lang] for lang in total}
    print({lang: f"{share:.4f}" for lang, share in by_language.items()})
    assert set(total) == {"bg", "de", "en", "es", "fr", "ja", "ko", "zh"}
    assert sum(right.values()) / sum(total.values()) >= 0.99
    assert sum(by_language.values()) / len(by_language) >= 0.99


@pytest.mark.slow
def test_samples_say_the_language_of_the_whole_document(passages: list[tuple[str, str, str]]) -> None:
    # Documents of twenty passages each, of one language; the samples see 600 of their 20,000 characters.
    documents: dict[str, list[str]] = {}
    for _, lang, passage in passages:
        documents.setdefault(lang, []).append(passage)
    for lang, parts in documents.items():
        for start in range(0, len(parts), 20):
            found, score = detect("\n".join(parts[start : start + 20]))
            assert (found, score > 0.7) == (lang, True)


# ------------------------------------------------------------------------------------------------------ mixed pages

FURTHER = {
    "en": "The bridge was built in the last century by the people of the village, who carried every stone themselves.",
    "fr": "Le pont a été construit au siècle dernier par les gens du village, qui portaient eux-mêmes chaque pierre.",
    "de": "Die Brücke wurde im letzten Jahrhundert von den Leuten des Dorfes gebaut, die jeden Stein selbst trugen.",
    "zh": "这座桥是上个世纪由村里的人们修建的，每一块石头都是他们自己搬来的。河水在桥下静静地流过。",
    "ja": "この橋は前世紀に村の人々によって建てられ、石はすべて彼ら自身が運んできたものである。",
    "ru": "Мост был построен в прошлом веке жителями деревни, которые сами носили каждый камень.",
}


def _page(*parts: tuple[str, int]) -> str:
    """Paragraphs of so many sentences in each language."""
    return "\n\n".join(" ".join([TEXTS[lang], FURTHER[lang]] * count) for lang, count in parts)


@pytest.mark.parametrize("second", ["zh", "ja", "ru", "fr", "de"])
@pytest.mark.parametrize("size", [2, 12])
def test_a_page_of_two_languages_has_the_heavier_one_and_its_share_as_score(second: str, size: int) -> None:
    for parts, wanted in (
        ((("en", 3 * size), (second, size)), "en"),
        ((("en", size), (second, 3 * size)), second),
    ):
        for page in (_page(*parts), _page(*reversed(parts))):
            lang, score = detect(page)
            assert lang == wanted
            assert 0.5 < score < 0.95


def test_half_english_half_chinese_stays_or_goes_by_min_score() -> None:
    page = _page(("en", 10), ("zh", 10))
    lang, score = detect(page)
    assert lang in ("en", "zh")
    assert 0.4 < score < 0.65
    kept, removed = identify(_table(page), LanguageConfig(keep=["en", "zh"]))
    assert (kept.num_rows, removed.num_rows) == (1, 0)
    kept, removed = identify(_table(page), LanguageConfig(keep=["en", "zh"], min_score=0.65))
    assert kept.num_rows == 0
    assert removed["reason"].to_pylist() == ["language_uncertain"]


def test_lines_in_turn_are_told_apart_too() -> None:
    page = "\n".join(f"{TEXTS['en']}\n{FURTHER['zh']}{TEXTS['zh']}" for _ in range(40))
    lang, score = detect(page)
    assert lang in ("en", "zh")
    assert 0.4 < score < 0.8


def test_a_chinese_page_with_some_japanese_names_is_chinese_and_a_japanese_one_japanese() -> None:
    chinese = _page(("zh", 10)) + "\n「ドラえもん」和「ちびまる子」都很有名。"
    assert detect(chinese)[0] == "zh"
    assert detect(_page(("ja", 10)))[0] == "ja"


def test_capitals_do_not_hide_a_language() -> None:
    assert detect(_page(("en", 1)).upper())[0] == "en"
    assert detect(_page(("de", 6)).upper())[0] == "de"


@pytest.mark.parametrize("piece", ["a", "a ", " ", "\n", "中", "a\n", "é中", "1", ".\n", "ひ\n"])
def test_long_and_odd_texts_take_bounded_time(piece: str) -> None:
    began = time.process_time()
    detect((piece * 10_000_000)[:10_000_000])
    assert time.process_time() - began < 3


def test_the_answer_does_not_depend_on_what_came_before() -> None:
    pages = [_page((lang, size)) for lang in FURTHER for size in (1, 5, 20)]
    found = [detect(page) for page in pages]
    order = list(range(len(pages)))
    random.Random(0).shuffle(order)
    assert [detect(pages[index]) for index in order] == [found[index] for index in order]
