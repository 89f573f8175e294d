"""Good and bad examples for a quality model: essays, and pitches in the same words."""

from __future__ import annotations

import json
import random
from pathlib import Path

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.quality_config import QualityTraining
from tests.data_pipeline.made_inputs import VOCABULARY, prose

PITCHES = [
    *(
        "order now",
        "free shipping",
        "limited offer",
        "click here",
        "best price",
        "add to cart",
        "sign up today",
    ),
    *("money back", "in stock", "terms and conditions", "customer reviews", "exclusive deal"),
]
TRAINING = QualityTraining(name="made", good="essays", bad="shops")


def essay(seed: int) -> str:
    """Prose, now and then about a shop."""
    words = prose(seed, 90).split()
    rng = random.Random(seed)
    for _ in range(rng.randrange(3)):
        words.insert(rng.randrange(len(words)), rng.choice(PITCHES))
    return " ".join(words)


def pitch(seed: int) -> str:
    """The same words, sold."""
    rng = random.Random(1_000_000 + seed)
    words = [rng.choice(VOCABULARY) for _ in range(80)]
    for _ in range(rng.randrange(3, 12)):
        words.insert(rng.randrange(len(words)), rng.choice(PITCHES))
    return " ".join(words)


def write_lines(folder: Path, texts: list[str], num_files: int = 1) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_files):
        lines = [json.dumps({"text": text}) for text in texts[number::num_files]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    return str(folder)


def sources(folder: Path, num_documents: int = 150, shuffle: int = 0, num_files: int = 1) -> RefreshConfig:
    """Two sources of made texts, in the order that a seed gives, over a number of files."""
    texts = {
        "essays": [essay(seed) for seed in range(num_documents)],
        "shops": [pitch(seed) for seed in range(num_documents + 50)],
    }
    for rows in texts.values():
        random.Random(shuffle).shuffle(rows)
    return RefreshConfig(
        sources=[
            SourceConfig(name=name, paths=[write_lines(folder / name, rows, num_files)])
            for name, rows in texts.items()
        ]
    )
