"""A quality model on disk and in a refresh: only a sound one is used, and each document gets its score or its reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from safetensors.numpy import save

from data_pipeline import schema
from data_pipeline.config import RefreshConfig, SourceConfig
from data_pipeline.corpus import TABLES, Corpus, DataFile
from data_pipeline.errors import InputError
from data_pipeline.quality.model import QualityModel, load_model, save_model
from data_pipeline.quality.scoring import score_documents, with_model
from data_pipeline.quality.training import train
from data_pipeline.quality_config import QualityConfig
from data_pipeline.refresh import RefreshResult, refresh
from data_pipeline.shards import canonical_json
from tests.data_pipeline.made_examples import TRAINING, essay, pitch, sources, write_lines

Made = tuple[Path, RefreshConfig, QualityModel]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Made:
    """A workspace with a trained model and no corpus."""
    workspace = tmp_path_factory.mktemp("made")
    config = sources(workspace / "in")
    return workspace, config, train(Corpus(workspace / "corpus"), config, TRAINING)[0]


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
    # As an older gptmill wrote it: without the column, in the table and in the file.
    old = pa.schema([field for field in schema.DOCUMENTS if field.name != "quality_score"])
    corpus = Corpus(tmp_path / "corpus")
    corpus.prepare()
    shutil.rmtree(corpus.path("documents"))
    DeltaTable.create(str(corpus.path("documents")), old, name="documents")
    row = {"doc_id": "d", "source": "web", "text": "old text", "text_hash": "h", "version": 1}
    path = corpus.path("documents") / "part-old.parquet"
    pq.write_table(schema.conform(pa.Table.from_pylist([row]), old), path)
    version = {"version": 1, "config_hash": "0" * 64, "signature_scheme": RefreshConfig().dedup.scheme}
    file = DataFile("documents", path.name, path.stat().st_size, 1)
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
