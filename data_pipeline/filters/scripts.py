"""What differs by script and language: characters to a word where words have no spaces, and stop words."""

from __future__ import annotations

from functools import cache

import numpy as np

from data_pipeline.filters.characters import BURMESE, HAN, KANA, KHMER, LAO, NUM_SCRIPTS, SPACED, THAI
from data_pipeline.filters.tokens import hash_word

# Characters of scripts without spaces that count as one word, so that a bound in words means the same in every script.
# Measured by dictionary segmenters on real text (docs/filters.md): jieba gives 1.65 for Chinese novels, 1.69 for the
# classics, 1.85 for news; janome 1.91 for Japanese; the word frequencies of the Thai National Corpus 4.12. For Lao,
# Khmer and Burmese, written in the manner of Thai, no text was at hand.
CHARS_PER_WORD = np.empty(NUM_SCRIPTS)
CHARS_PER_WORD[[SPACED, HAN]] = 1.7
CHARS_PER_WORD[KANA] = 1.9
CHARS_PER_WORD[[THAI, LAO, KHMER, BURMESE]] = 4.1
# A word of the other scripts with the space behind it, for bounds in characters: English has 5.9.
CHARS_PER_SPACED_WORD = 6.0

# Function words, most frequent first. English has Gopher's own list (Rae et al. 2021, A.1.1); where words have no
# spaces these are characters. Thai and its neighbours have no such characters, so no list.
STOP_WORDS = {
    "ar": "في من على إلى أن عن التي هذا الذي كان",
    "bg": "на и да в за се от че с не",
    "ca": "de la i el que a en les per un",
    "cs": "a se v na je že o s do i",
    "da": "og i at det er en til af på for",
    "de": "der die und in den von zu das mit ist nicht ein",
    "el": "και το να του η της με που για από",
    "en": "the be to of and that have with",
    "es": "de la que el en y a los se del un por",
    "fa": "و در به از که این را با است برای",
    "fi": "ja on ei se että oli hän mutta myös ovat",
    "fr": "de la le et les des en un du une que est",
    "he": "של את על לא הוא זה עם גם כי היא",
    "hi": "के में है की और से का को पर यह",
    "hu": "a az és hogy nem is egy meg ez volt",
    "id": "yang dan di dengan untuk dari ini pada dalam itu",
    "it": "di e che la il un a per in è del non",
    "ja": "の に は を た が で と し て も な",
    "ko": "그 이 수 것 등 및 있다 있는 한 또는 위해 대한",
    "nl": "de van het een en in is dat op te met voor",
    "no": "og i det er på til en av for som at med",
    "pl": "i w na z się nie do to że jest o",
    "pt": "de a que e o do da em um para com não",
    "ro": "de și în a la cu pe nu care din este",
    "ru": "и в не на что с по как из к это",
    "sv": "och i att det som en på är av för med",
    "tr": "ve bir bu da de için ile olarak çok olan",
    "uk": "і в на не що з у до та як",
    "vi": "và của là có trong được cho các không người",
    "zh": "的 了 是 在 不 有 人 一 我 他 这 這 为 為 于 於 之 也 而 以 其 者 曰",
}
# In these scripts the list is known from the script.
_LANGUAGE_OF = {HAN: "zh", KANA: "ja"}


# Slots of a language's table of stop words; with so many, nearly every other word meets an empty one.
NUM_SLOTS = 256


@cache
def stop_words() -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """({language: row}, row of each script or -1, open-addressed tables of word hashes [rows, NUM_SLOTS]).

    A hash stands in the slot of its lowest bits or in the next one that was free; empty ones hold 0. Row 0 is
    empty: no language of ours.
    """
    tables = np.zeros((len(STOP_WORDS) + 1, NUM_SLOTS), np.uint64)
    row_of = {language: row for row, language in enumerate(STOP_WORDS, start=1)}
    for language, row in row_of.items():
        for value in map(hash_word, STOP_WORDS[language].split()):
            slot = value % NUM_SLOTS
            while tables[row, slot]:
                slot = (slot + 1) % NUM_SLOTS
            tables[row, slot] = value
    row_of_script = np.full(NUM_SCRIPTS, -1)
    row_of_script[[THAI, LAO, KHMER, BURMESE]] = 0
    for script, language in _LANGUAGE_OF.items():
        row_of_script[script] = row_of[language]
    return row_of, row_of_script, tables
