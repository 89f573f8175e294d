"""Train a quality model on sources that the user names, and keep it with the corpus."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.config import DecontaminateConfig, RefreshConfig
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.inputs import find_inputs
from data_pipeline.locks import locked
from data_pipeline.quality.classifier import evaluate, fit, logits, sigmoid
from data_pipeline.quality.examples import Examples, Place, read_examples
from data_pipeline.quality.model import (
    METADATA_NAME,
    QualityModel,
    load_model,
    make_model,
    read_metadata,
    save_model,
)
from data_pipeline.quality.scoring import model_folder
from data_pipeline.quality_config import QualityConfig, QualityTraining
from data_pipeline.shards import canonical_json
from data_pipeline.staging import Progress, stage_files, staged_files


def train(
    corpus: Corpus, config: RefreshConfig, training: QualityTraining, progress: Progress = lambda line: None
) -> tuple[QualityModel, bool]:
    """Train a model into <corpus>/quality/<name>, or find it there; needs a running Ray.

    Sources that `config` names are read from their files, through all steps of a refresh with that configuration;
    the others are those of the corpus.

    Returns:
        (the model, whether it was made now).

    Raises:
        InputError: a source that is nowhere, examples that cannot be learnt from, or a name that is taken.
    """
    training.validate()
    folder = model_folder(corpus.root, training.name)
    latest = corpus.latest()
    with locked(folder.with_name(f".{training.name}.lock"), f"train_quality.name: {training.name}"):
        settings = {**training.content(), "read": _what_is_read(corpus, latest, config, training)}
        if (folder / METADATA_NAME).exists():
            _refuse_other(folder, read_metadata(folder)["settings"], settings)
        staging = folder.with_name(f".staging-{training.name}")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            places = _places(corpus, latest, config, training, staging, progress)
            progress("reading the examples")
            examples = read_examples(places, training.max_documents, training.held_out, training.log2_buckets)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        progress(f"training on {len(examples.documents):,} documents")
        model = _fit(examples, training, settings)
        if not folder.exists():
            save_model(model, folder)
            return model, True
        known = load_model(folder)
        if known.model_hash != model.model_hash:
            _refuse_other(folder, known.metadata["data"], model.metadata["data"])
        return known, False


def _refuse_other(folder: Path, known: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InputError where a model of that name was made otherwise: corpora name models by hash, so none changes."""
    for key in sorted({*known, *wanted}):
        if known.get(key) != wanted.get(key):
            raise InputError(
                f"train_quality.name: {folder.name} is taken by a model with another {key} ({known.get(key)}, not "
                f"{wanted.get(key)}); give another name, or delete {folder}"
            )


def _what_is_read(
    corpus: Corpus, latest: dict[str, Any] | None, config: RefreshConfig, training: QualityTraining
) -> dict[str, str]:
    """{source: "files" or "corpus version N"}."""
    named = {source.name for source in config.sources}
    stored = set(corpus.read("documents", latest, ["source"])["source"].unique().to_pylist())
    read = {}
    for option, sources in (("good", training.good_sources), ("bad", training.bad_sources)):
        for source in sources:
            if source not in named and source not in stored:
                place = f"corpus version {latest['version']}" if latest else "a corpus, there is none"
                raise InputError(
                    f"train_quality.{option}: source {source} is neither given in this call (there: "
                    f"{', '.join(sorted(named)) or 'none'}) nor in {place} ({', '.join(sorted(stored)) or 'none'})"
                )
            read[source] = "files" if source in named or not latest else f"corpus version {latest['version']}"
    return read


def _places(
    corpus: Corpus,
    latest: dict[str, Any] | None,
    config: RefreshConfig,
    training: QualityTraining,
    staging: Path,
    progress: Progress,
) -> list[Place]:
    """The Parquet files with the examples: staged now from the sources of this call, and the corpus's."""
    sides = dict.fromkeys(training.good_sources, True) | dict.fromkeys(training.bad_sources, False)
    sources = [source for source in config.sources if source.name in sides]
    places: list[Place] = []
    if sources:
        # Nothing is scored, and no evaluation set is looked for: that is for documents that are to be kept.
        config = dataclasses.replace(
            config, sources=sources, quality=QualityConfig(), decontamination=DecontaminateConfig()
        )
        inputs = [file for file, _ in find_inputs(corpus, config, corpus.root, None, progress)]
        staging.mkdir(parents=True)
        stage_files(inputs, config, staging, progress)
        places += [(str(path), sides) for path in staged_files(staging)]
    stored = {name: is_good for name, is_good in sides.items() if name not in {s.name for s in sources}}
    if stored and latest is not None:
        places += [(path, stored) for path in corpus.files("documents", latest)]
    return places


def _fit(examples: Examples, training: QualityTraining, settings: dict[str, Any]) -> QualityModel:
    """Weights from the training documents, metrics from those held out."""
    is_good, is_held_out = examples.is_good, examples.is_held_out
    training_windows = examples.windows.of_documents(~is_held_out)
    weights, bias = fit(training_windows, is_good[~is_held_out], training.log2_buckets, training.cost)
    scores = sigmoid(logits(examples.windows.of_documents(is_held_out), weights, bias))
    about = {
        "name": training.name,
        "settings": settings,
        "data": _data(examples),
        "metrics": evaluate(scores, is_good[is_held_out]),
    }
    return make_model(weights, bias, about)


def _data(examples: Examples) -> dict[str, Any]:
    """What the model was made of: numbers of documents by source, and a hash of all texts and labels."""
    sources = np.array(examples.documents["source"].to_pylist())
    counts: dict[str, Any] = {
        str(source): {
            "is_good": bool(examples.is_good[sources == source][0]),
            "documents": int((sources == source).sum()),
            "held_out": int(examples.is_held_out[sources == source].sum()),
        }
        for source in np.unique(sources)
    }
    labels: Sequence[Any] = [examples.documents[name].to_pylist() for name in ("text_hash", "is_good")]
    sha256 = hashlib.sha256(canonical_json(labels)).hexdigest()
    return {"sources": counts, "windows": len(examples.windows.document), "sha256": sha256}
