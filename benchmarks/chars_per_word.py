"""How many characters make a word where words have no spaces: the constants of data_pipeline/filters/scripts.py.

Dictionary segmenters over the real data: jieba for Chinese, janome for Japanese; for Thai the word frequencies of the
Thai National Corpus, which come with pythainlp. Runs of the script's characters alone are segmented.

    python -m benchmarks.chars_per_word [--shared-data ../shared/data]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.documents import load
from benchmarks.peers import ROOT, environment

MAX_CHARS = 100_000
SEGMENTERS = """
import json, re, sys
import jieba
from janome.tokenizer import Tokenizer
from pythainlp.corpus import tnc

jieba.setLogLevel(60)
HAN = "\\u2e80-\\u2fdf\\u3005-\\u3007\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff"
japanese = Tokenizer(wakati=True)

def measure(texts, segment, block):
    runs = [run for text in texts for run in re.findall(f"[{block}]+", text)]
    return sum(map(len, runs)) / sum(len(list(segment(run))) for run in runs), sum(map(len, runs))

for name, (language, texts) in json.load(open(sys.argv[1])).items():
    segment, block = (jieba.cut, HAN) if language == "zh" else (japanese.tokenize, HAN + "\\u3040-\\u30ff")
    print("%-20s%6.2f characters a word, over %d" % (name, *measure(texts, segment, block)))
words = {word: count for word, count in tnc.unigram_word_freqs().items() if re.fullmatch("[\\u0e00-\\u0e7f]+", word)}
chars = sum(len(word) * count for word, count in words.items())
print("%-20s%6.2f characters a word, over %d" % ("Thai corpus", chars / sum(words.values()), chars))
"""


def main() -> None:
    """Print characters a word of each kind of text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments = parser.parse_args()
    python = environment("segmenters", ["jieba", "janome", "pythainlp"])
    if python is None:
        return
    texts: dict[str, tuple[str, list[str]]] = {}
    for name in ("chinese news", "chinese classics", "books", "wiki"):
        for row in load(arguments.shared_data, name).to_pylist():
            if row["lang"] in ("zh", "ja") and not (name == "chinese classics" and row["lang"] == "ja"):
                texts.setdefault(f"{name} {row['lang']}", (row["lang"], []))[1].append(
                    row["text"][:MAX_CHARS]
                )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        subprocess.run([python, "-c", SEGMENTERS, file.name], check=True)


if __name__ == "__main__":
    main()
