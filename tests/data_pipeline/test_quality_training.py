"""Training a quality model on a real Ray: it learns, and what it learns depends on the texts and on nothing else."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.data import DataContext

from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.quality.model import QualityModel
from data_pipeline.quality.training import train
from data_pipeline.quality_config import QualityTraining
from data_pipeline.refresh import refresh
from tests.data_pipeline.made_examples import TRAINING, essay, pitch, sources, write_lines
from tests.data_pipeline.made_inputs import VOCABULARY, make_corpus, prose


def model_bytes(root: Path, name: str = "made") -> list[bytes]:
    return [(root / "quality" / name / file).read_bytes() for file in ("model.safetensors", "metadata.json")]


Made = tuple[Path, RefreshConfig, QualityModel]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Made:
    """A workspace with a trained model and no corpus, which the tests below do not change."""
    workspace = tmp_path_factory.mktemp("made")
    config = sources(workspace / "in")
    model, is_new = train(Corpus(workspace / "corpus"), config, TRAINING)
    assert is_new
    return workspace, config, model


# ---------------------------------------------------------------------------------------------------- learning


def test_it_tells_new_texts_of_both_kinds_apart(made: Made) -> None:
    model = made[2]
    assert model.metadata["metrics"]["auc"] > 0.97
    assert model.metadata["metrics"]["accuracy"] > 0.9
    good, bad = (model.score([make(seed) for seed in range(5000, 5200)]) for make in (essay, pitch))
    assert np.mean(good[:, None] > bad[None, :]) > 0.97
    assert good.mean() > 0.75 > 0.25 > bad.mean()


def test_from_texts_of_one_kind_it_learns_nothing(tmp_path: Path, ray_cluster: None) -> None:
    texts = [essay(seed) for seed in range(300)]
    config = RefreshConfig(
        sources=[
            SourceConfig(name="essays", paths=[write_lines(tmp_path / "a", texts[::2])]),
            SourceConfig(name="shops", paths=[write_lines(tmp_path / "b", texts[1::2])]),
        ]
    )
    model, _ = train(Corpus(tmp_path / "corpus"), config, TRAINING)
    assert 0.25 < model.metadata["metrics"]["auc"] < 0.75


def test_the_order_of_words_counts(tmp_path: Path, ray_cluster: None) -> None:
    """The same words in both classes; only pairs of neighbours tell them apart."""

    def document(seed: int, forwards: bool) -> str:
        rng = random.Random(seed)
        pairs = [VOCABULARY[2 * rng.randrange(40) :][:2] for _ in range(60)]
        return " ".join(f"{a} {b}" if forwards else f"{b} {a}" for a, b in pairs)

    config = RefreshConfig(
        sources=[
            SourceConfig(
                name="essays", paths=[write_lines(tmp_path / "a", [document(i, True) for i in range(120)])]
            ),
            SourceConfig(
                name="shops",
                paths=[write_lines(tmp_path / "b", [document(i, False) for i in range(500, 620)])],
            ),
        ]
    )
    model, _ = train(Corpus(tmp_path / "corpus"), config, TRAINING)
    assert model.metadata["metrics"]["auc"] > 0.99


def test_what_it_was_made_of_is_recorded(made: Made) -> None:
    metadata = made[2].metadata
    counts = metadata["data"]["sources"]
    assert {name: (row["is_good"], row["documents"]) for name, row in counts.items()} == {
        "essays": (True, 150),
        "shops": (False, 200),
    }
    held_out = {name: row["held_out"] for name, row in counts.items()}
    histogram = metadata["metrics"]["histogram"]
    assert [sum(row[side] for row in histogram) for side in ("good", "bad")] == [
        held_out["essays"],
        held_out["shops"],
    ]
    assert 0.1 < held_out["essays"] / 150 < 0.3
    assert metadata["settings"]["read"] == {"essays": "files", "shops": "files"}
    assert sorted(path.name for path in (made[0] / "corpus" / "quality").iterdir()) == [".made.lock", "made"]


# ------------------------------------------------------------------------------------------------ determinism


def test_shuffled_input_in_other_files_and_tasks_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    config = dataclasses.replace(sources(tmp_path / "in", shuffle=7, num_files=4), unit_bytes=5000)
    train(Corpus(tmp_path / "corpus"), dataclasses.replace(config, sources=config.sources[::-1]), TRAINING)
    assert model_bytes(tmp_path / "corpus") == model_bytes(made[0] / "corpus")


def test_one_worker_makes_the_bytes_that_two_make(made: Made, tmp_path: Path) -> None:
    context = DataContext.get_current()
    before = context.execution_options.resource_limits
    context.execution_options.resource_limits = before.copy(cpu=1)
    try:
        train(Corpus(tmp_path / "corpus"), sources(tmp_path / "in", shuffle=3, num_files=2), TRAINING)
    finally:
        context.execution_options.resource_limits = before
    assert model_bytes(tmp_path / "corpus") == model_bytes(made[0] / "corpus")


def test_from_a_corpus_it_learns_what_it_learns_from_the_files(made: Made, tmp_path: Path) -> None:
    config = sources(tmp_path / "in", num_files=3)
    corpus = Corpus(tmp_path / "corpus")
    refresh(corpus, config, tmp_path)
    model, _ = train(corpus, RefreshConfig(), TRAINING)
    assert model.metadata["settings"]["read"] == {"essays": "corpus version 1", "shops": "corpus version 1"}
    assert model.metadata["data"] == made[2].metadata["data"]
    assert model.weights.tobytes() == made[2].weights.tobytes()
    assert model.metadata["metrics"] == made[2].metadata["metrics"]


def test_a_text_that_is_there_twice_counts_once(made: Made, tmp_path: Path) -> None:
    config = sources(tmp_path / "in")
    copy = write_lines(tmp_path / "copies", [essay(seed).upper() for seed in range(40)])
    double = dataclasses.replace(config.sources[0], paths=[*config.sources[0].paths, copy])
    train(
        Corpus(tmp_path / "corpus"),
        dataclasses.replace(config, sources=[double, config.sources[1]]),
        TRAINING,
    )
    assert model_bytes(tmp_path / "corpus") == model_bytes(made[0] / "corpus")


def test_the_documents_beyond_the_most_are_left_out_by_hash(made: Made, tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, max_documents=60)
    found = []
    for shuffle in (0, 5):
        workspace = tmp_path / str(shuffle)
        model, _ = train(Corpus(workspace / "corpus"), sources(workspace / "in", shuffle=shuffle), training)
        found.append(model.metadata)
    assert found[0] == found[1]
    counts = found[0]["data"]["sources"].values()
    assert [row["documents"] for row in counts] == [60, 60]
    # Those taken must not be those held out, or the reverse.
    assert all(5 <= row["held_out"] <= 25 for row in counts)


def test_the_same_call_again_finds_the_model_and_another_is_refused(made: Made) -> None:
    workspace, config, model = made
    corpus = Corpus(workspace / "corpus")
    before = model_bytes(corpus.root)
    again, is_new = train(corpus, config, TRAINING)
    assert (again.model_hash, is_new) == (model.model_hash, False)
    with pytest.raises(
        InputError, match=r"train_quality\.name: made is taken .* another cost \(100.0, not 3.0\)"
    ):
        train(corpus, config, dataclasses.replace(TRAINING, cost=3.0))
    other = write_lines(workspace / "other", [essay(seed) for seed in range(900, 1000)])
    fewer = dataclasses.replace(
        config, sources=[dataclasses.replace(config.sources[0], paths=[other]), config.sources[1]]
    )
    with pytest.raises(
        InputError, match=r"train_quality\.name: made is taken by a model with another sha256"
    ):
        train(corpus, fewer, TRAINING)
    assert model_bytes(corpus.root) == before


# --------------------------------------------------------------------------------------------- examples refused


def test_too_few_examples_are_refused_with_their_number(tmp_path: Path, ray_cluster: None) -> None:
    config = sources(tmp_path / "in", num_documents=12)
    with pytest.raises(
        InputError, match=r"train_quality\.good: its sources give \d+ documents to train on and \d+"
    ):
        train(Corpus(tmp_path / "corpus"), config, TRAINING)
    assert list((tmp_path / "corpus" / "quality").glob("[!.]*")) == []
    empty = write_lines(tmp_path / "empty", ["?!"] * 3)
    nothing = dataclasses.replace(config.sources[1], preset="web", paths=[empty])
    config = dataclasses.replace(sources(tmp_path / "in"), sources=[config.sources[0], nothing])
    with pytest.raises(
        InputError, match=r"train_quality\.bad: its sources give 0 documents to train on and 0"
    ):
        train(Corpus(tmp_path / "corpus"), config, TRAINING)


def test_a_text_that_is_good_and_bad_is_named(tmp_path: Path, ray_cluster: None) -> None:
    config = sources(tmp_path / "in")
    shared = write_lines(tmp_path / "shared", [essay(3), essay(4).upper()])
    bad = dataclasses.replace(config.sources[1], paths=[*config.sources[1].paths, shared])
    with pytest.raises(
        InputError,
        match=r"2 texts are both .* \(source essays, file .*essays.*\) and .*\(source shops, file .*shared.*\)",
    ):
        train(
            Corpus(tmp_path / "corpus"),
            dataclasses.replace(config, sources=[config.sources[0], bad]),
            TRAINING,
        )


def test_a_source_that_is_nowhere_is_named_with_those_there_are(tmp_path: Path, ray_cluster: None) -> None:
    make_corpus(tmp_path / "corpus", [prose(1), prose(2)])
    with pytest.raises(
        InputError, match=r"train_quality\.good: source essays is neither .* version 1 \(book, web\)"
    ):
        train(Corpus(tmp_path / "corpus"), RefreshConfig(), TRAINING)
    with pytest.raises(
        InputError, match=r"train_quality\.good: source essays .* nor in a corpus, there is none"
    ):
        train(Corpus(tmp_path / "none"), RefreshConfig(), TRAINING)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../up"}, r"train_quality\.name: '\.\./up' must be letters"),
        ({"good": []}, r"train_quality\.good: names no source"),
        ({"bad": " , "}, r"train_quality\.bad: names no source"),
        ({"bad": "shops,essays"}, r"source essays is both good and bad"),
        ({"held_out": 0.0}, r"train_quality\.held_out: 0\.0"),
        ({"held_out": 0.9}, r"train_quality\.held_out: 0\.9"),
        ({"log2_buckets": 40}, r"train_quality\.log2_buckets: 40"),
        ({"cost": 0.0}, r"cost must be positive"),
        ({"cost": float("nan")}, r"cost must be positive"),
        ({"max_documents": 0}, r"max_documents and cost"),
    ],
)
def test_a_training_that_cannot_work_is_refused_before_any_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        dataclasses.replace(TRAINING, **changes).validate()


# ----------------------------------------------------------------------------------------------------- real data


def test_encyclopedia_pages_are_told_from_web_pages(
    shared_data: Path, tmp_path: Path, ray_cluster: None
) -> None:
    web = ["c4_demo.jsonl", "dolma-cc_en_head-0091.jsonl.gz", "dolma-cc_en_head-0174.jsonl.gz"]
    config = RefreshConfig(
        sources=[
            SourceConfig(
                name="wiki", kind="wiki", paths=[str(shared_data / "wiki" / "gensim-enwiki-*-shortened.bz2")]
            ),
            SourceConfig(
                name="web", kind="files", paths=[str(shared_data / "web" / "text" / name) for name in web]
            ),
        ]
    )
    training = QualityTraining(name="real", good="wiki", bad="web")
    model, _ = train(Corpus(tmp_path / "corpus"), config, training)
    assert model.metadata["metrics"]["auc"] > 0.97
    assert model.metadata["metrics"]["accuracy"] > 0.85
