"""A quality model from sources to scores on a real Ray: it learns, it is the same each time, and nothing else passes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from ray.data import DataContext
from safetensors.numpy import save

from data_pipeline import schema
from data_pipeline.config import QualityConfig, QualityTraining, RefreshConfig, SourceConfig
from data_pipeline.corpus import TABLES, Corpus
from data_pipeline.errors import InputError
from data_pipeline.quality.model import QualityModel, load_model, save_model
from data_pipeline.quality.scoring import score_documents, with_model
from data_pipeline.quality.training import train
from data_pipeline.refresh import RefreshResult, refresh
from data_pipeline.shards import canonical_json
from tests.data_pipeline.made_inputs import VOCABULARY, make_corpus, prose

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
    assert (good.min(), bad.max()) != (0.5, 0.5)
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


# ---------------------------------------------------------------------------------------------- models on disk


@pytest.fixture
def stored(made: Made, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    shutil.copytree(made[0] / "corpus" / "quality" / "made", tmp_path / "quality" / "made")
    return tmp_path / "quality" / "made"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def forge(folder: Path, content: bytes) -> None:
    """Other weights, with hashes made good."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["model_hash"]
    edit(folder, model_hash=hashlib.sha256(canonical_json(metadata)).hexdigest())


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (
        lambda folder: shutil.rmtree(folder),
        r"there is no quality model .*made \(there: none\); train one",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"model\.safetensors cannot be read",
    ),
    "cut": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-9]
        ),
        r"model\.safetensors is damaged",
    ),
    "no JSON": (lambda folder: (folder / "metadata.json").write_text("{"), r"metadata\.json cannot be read"),
    "a list": (lambda folder: (folder / "metadata.json").write_text("[]"), r"metadata\.json cannot be read"),
    "no UTF-8": (
        lambda folder: (folder / "metadata.json").write_bytes(b"\xff"),
        r"metadata\.json cannot be read",
    ),
    "edited": (lambda folder: edit(folder, metrics={}), r"does not match its model_hash"),
    "another scheme": (
        lambda folder: edit(folder, scheme="ngrams-0"),
        r"features 'ngrams-0', this gptmill has",
    ),
    "another format": (lambda folder: edit(folder, format=9), r"was made with format 9"),
    "a pickle": (lambda folder: forge(folder, pickle.dumps([1.0])), r"cannot be read as a quality model"),
    "other tensors": (
        lambda folder: forge(
            folder, save({"weights": np.zeros(4, np.float32), "bias": np.zeros(1, np.float32)})
        ),
        r"cannot be read as a quality model \(weights are float32 \[4\]\)",
    ),
    "no tensors": (lambda folder: forge(folder, save({})), r"cannot be read as a quality model"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_model_that_cannot_be_used_gives_one_line(stored: Path, name: str) -> None:
    spoil, words = SPOILT[name]
    load_model(stored)
    spoil(stored)
    with pytest.raises(InputError, match=words) as raised:
        with_model(RefreshConfig(quality=QualityConfig(model="made")), stored.parent.parent)
    assert "\n" not in str(raised.value)


def test_a_model_reads_back_as_it_was_written(made: Made, tmp_path: Path) -> None:
    model = made[2]
    save_model(model, tmp_path / "copy")
    again = load_model(tmp_path / "copy")
    assert (again.bias, again.metadata) == (model.bias, model.metadata)
    assert again.weights.tobytes() == model.weights.tobytes()


def test_a_model_of_another_hash_is_refused(made: Made, stored: Path) -> None:
    quality = QualityConfig(model=str(stored), model_hash="0" * 64)
    with pytest.raises(InputError, match=r"quality\.model_hash: .* 0000"):
        with_model(RefreshConfig(quality=quality), stored)
    right = dataclasses.replace(quality, model_hash=made[2].model_hash)
    assert with_model(RefreshConfig(quality=right), stored).quality.model_hash == made[2].model_hash


# ------------------------------------------------------------------------------------------------------ scoring


def rows_of(corpus: Corpus, table: str) -> list[dict]:
    version = corpus.latest()
    assert version is not None
    return corpus.scan(table, version).to_table().to_pylist()


@pytest.fixture(scope="module")
def scored(made: Made) -> tuple[Path, RefreshConfig, RefreshResult]:
    """A refresh of new texts in the model's workspace, scored, the pitches with a bound of their own."""
    workspace, _, _ = made
    config = RefreshConfig(
        sources=[
            SourceConfig(
                name="new", paths=[write_lines(workspace / "new", [pitch(9000 + i) for i in range(20)])]
            ),
            SourceConfig(
                name="strict",
                paths=[
                    write_lines(
                        workspace / "strict", [make(9500 + i) for make in (essay, pitch) for i in range(20)]
                    )
                ],
            ),
        ],
        quality=QualityConfig(model="made", min_scores={"strict": 0.5}),
    )
    return workspace, config, refresh(Corpus(workspace / "corpus"), config, workspace)


def test_each_document_gets_its_score_and_those_below_the_bound_a_reason(
    made: Made, scored: tuple[Path, RefreshConfig, RefreshResult]
) -> None:
    workspace, _, result = scored
    corpus = Corpus(workspace / "corpus")
    documents, removed = rows_of(corpus, "documents"), rows_of(corpus, "removed")
    assert len(documents) + len(removed) == result.version["num_documents"] == 60
    wanted = made[2].score([row["text"] for row in documents])
    assert [row["quality_score"] for row in documents] == wanted.tolist()
    assert sum(row["source"] == "new" for row in documents) == 20
    assert all(row["quality_score"] >= 0.5 for row in documents if row["source"] == "strict")
    assert len(removed) > 10
    for row in removed:
        assert (row["source"], row["stage"], row["reason"]) == ("strict", "quality", "low_quality_score")
        assert row["value"] < row["threshold"] == 0.5
    assert ("strict", "quality", "low_quality_score", len(removed)) in {
        tuple(row.values()) for row in corpus.funnel(result.version)
    }


def test_the_configuration_names_the_model_by_its_hash(
    made: Made, scored: tuple[Path, RefreshConfig, RefreshResult]
) -> None:
    workspace, config, result = scored
    quality = json.loads(result.version["config"])["quality"]
    assert quality == {
        "model": "made",
        "model_hash": made[2].model_hash,
        "min_score": 0,
        "min_scores": {"strict": 0.5},
    }
    found = with_model(config, workspace / "corpus")
    assert found.config_hash == result.version["config_hash"]
    others = (
        RefreshConfig(sources=config.sources),
        dataclasses.replace(found, quality=dataclasses.replace(found.quality, min_score=0.1)),
        dataclasses.replace(found, quality=dataclasses.replace(found.quality, model_hash="0" * 64)),
    )
    assert len({found.config_hash, *(other.config_hash for other in others)}) == 4


def test_without_a_model_there_is_no_score_and_no_removal() -> None:
    table = pa.table({"text": ["a b"], "source": ["web"]})
    kept, removed = score_documents(table, QualityConfig())
    assert kept.equals(table)
    assert removed.num_rows == 0
    assert schema.conform(kept, schema.DOCUMENTS)["quality_score"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        (QualityConfig(min_score=0.5), r"quality\.min_score: 0\.5 needs scores"),
        (QualityConfig(model="m", min_score=1.5), r"quality\.min_score: 1\.5 is outside 0 to 1"),
        (
            QualityConfig(model="m", min_scores={"web": float("nan")}),
            r"quality\.min_scores\.web: nan is outside",
        ),
        (
            QualityConfig(model="m", min_scores={"wbe": 0.5}),
            r"quality\.min_scores: wbe is none of the sources \(web\)",
        ),
        (QualityConfig(model_hash="00"), r"quality\.model_hash: the hash is of no model"),
        (QualityConfig(model=".."), r"quality\.model: '\.\.' is neither a name"),
    ],
)
def test_a_configuration_that_cannot_work_is_named(quality: QualityConfig, words: str) -> None:
    config = RefreshConfig(sources=[SourceConfig(name="web", paths=["x"])], quality=quality)
    with pytest.raises(InputError, match=words):
        config.validate()


# ------------------------------------------------------------------------- corpora from before there were scores


def test_a_corpus_without_the_column_reads_as_null_and_gets_it_with_its_next_version(
    made: Made, tmp_path: Path
) -> None:
    old = pa.schema([field for field in schema.DOCUMENTS if field.name != "quality_score"])
    corpus = Corpus(tmp_path / "corpus")
    DeltaTable.create(str(corpus.path("documents")), old, name="documents")
    corpus.prepare()
    old_rows = {"doc_id": ["d"], "source": ["web"], "text": ["old text"], "text_hash": ["h"], "version": [1]}
    # As an older gptmill wrote it: without the column, in the table and in the file.
    shutil.rmtree(corpus.path("documents"))
    DeltaTable.create(str(corpus.path("documents")), old, name="documents")
    file = corpus.write_file("documents", pa.table(old_rows), "part-old.parquet")
    path = corpus.path("documents") / "part-old.parquet"
    pq.write_table(schema.conform(pa.table(old_rows), old), path)
    file = dataclasses.replace(file, size=path.stat().st_size)
    version = {"version": 1, "config_hash": "0" * 64, "signature_scheme": RefreshConfig().dedup.scheme}
    inputs = pa.table({"source": ["web"], "num_documents": [1]})
    corpus.commit([file], schema.conform(inputs, schema.INPUTS), version)

    columns = ["doc_id", "quality_score"]
    assert corpus.read("documents", corpus.at(1), columns).to_pylist() == [
        {"doc_id": "d", "quality_score": None}
    ]

    lines = write_lines(tmp_path / "in", [essay(1), essay(2)])
    config = RefreshConfig(
        sources=[SourceConfig(name="essays", paths=[lines])],
        quality=QualityConfig(model=str(made[0] / "corpus" / "quality" / "made")),
    )
    result = refresh(corpus, config, tmp_path)
    assert corpus.scan("documents", result.version).schema.equals(TABLES["documents"])
    scores = {row["doc_id"]: row["quality_score"] for row in rows_of(corpus, "documents")}
    assert scores.pop("d") is None
    assert len(scores) == 2
    assert all(score > 0.5 for score in scores.values())
    assert corpus.read("documents", corpus.at(1), columns).to_pylist() == [
        {"doc_id": "d", "quality_score": None}
    ]
    # Nothing is changed a second time.
    before = DeltaTable(str(corpus.path("documents"))).version()
    corpus.prepare()
    assert DeltaTable(str(corpus.path("documents"))).version() == before


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
