"""Options of quality models: which one scores the documents, and how one is trained."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from data_pipeline.errors import InputError


@dataclass(frozen=True)
class QualityConfig:
    """Which quality model scores the documents, and the score from which they are kept."""

    model: str = ""
    """Name of a model that --train_quality made for this corpus, or a folder with one; empty scores nothing."""
    min_score: float = 0.0
    """Least score of a document, from 0 (like the bad examples) to 1 (like the good ones); 0 only scores."""
    min_scores: dict[str, float] = field(default_factory=dict)
    """Least score by source, where it is another: {web: 0.3, book: 0}."""
    model_hash: str = ""
    """Refuse any model but the one of this hash; filled in where it is empty, and part of the configuration's hash."""

    def validate(self, sources: list[str]) -> None:
        """Raise InputError, naming the field, for values that cannot work.

        Args:
            sources: names of the configured sources.
        """
        bounds = {"min_score": self.min_score} | {
            f"min_scores.{source}": score for source, score in self.min_scores.items()
        }
        for option, score in bounds.items():
            if not 0 <= score <= 1:
                raise InputError(f"quality.{option}: {score} is outside 0 to 1")
            if score and not self.model:
                raise InputError(f"quality.{option}: {score} needs scores; name a model with quality.model")
        if self.model_hash and not self.model:
            raise InputError("quality.model_hash: the hash is of no model; name it with quality.model")
        if "/" not in self.model and not re.fullmatch(r"[A-Za-z0-9_-]*", self.model):
            raise InputError(
                f"quality.model: {self.model!r} is neither a name (letters, digits, - and _) nor a path"
            )
        for source in self.min_scores:
            if source not in sources:
                raise InputError(
                    f"quality.min_scores: {source} is none of the sources ({', '.join(sources) or 'none given'})"
                )


@dataclass(frozen=True)
class QualityTraining:
    """Train a quality model instead of refreshing: what is good, what is bad, and how it learns."""

    name: str = ""
    """Name of the model to train, kept in corpus/quality/NAME for quality.model; empty refreshes as ever."""
    good: list[str] | str = field(default_factory=list)
    """Sources whose documents are good examples: wiki,book. Those given in this call are read from their files, with
    the same steps as in a refresh; the others from the newest version of the corpus."""
    bad: list[str] | str = field(default_factory=list)
    """Sources whose documents are bad examples: web."""
    max_documents: int = 20_000
    """Documents of good, and of bad, at most; chosen by hash."""
    held_out: float = 0.2
    """Share of the documents, by hash of their text, that the model is tested with and never learns from."""
    log2_buckets: int = 18
    """N-grams are hashed into 2 to this power buckets (10 to 24): a model of 4 bytes a bucket."""
    cost: float = 100.0
    """What an error on an example costs beside large weights (C of a logistic regression); more fits closer."""

    def validate(self) -> None:
        """Raise InputError, naming the field, for values that cannot work."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(
                f"train_quality.name: {self.name!r} must be letters, digits, - and _; it names a folder"
            )
        for option, sources in (("good", self.good_sources), ("bad", self.bad_sources)):
            if not sources:
                raise InputError(
                    f"train_quality.{option}: names no source; give one or more, as in wiki,book"
                )
        both = sorted({*self.good_sources} & {*self.bad_sources})
        if both:
            raise InputError(f"train_quality: source {both[0]} is both good and bad; name it once")
        if not 10 <= self.log2_buckets <= 24:
            raise InputError(f"train_quality.log2_buckets: {self.log2_buckets} is outside 10 to 24")
        if not 0 < self.held_out <= 0.5:
            raise InputError(f"train_quality.held_out: {self.held_out} is outside 0 to 0.5")
        if self.max_documents <= 0 or not 0 < self.cost < float("inf"):
            raise InputError("train_quality: max_documents and cost must be positive")

    @property
    def good_sources(self) -> list[str]:
        """Names of the good sources."""
        return _names(self.good)

    @property
    def bad_sources(self) -> list[str]:
        """Names of the bad sources."""
        return _names(self.bad)

    def content(self) -> dict[str, Any]:
        """What decides the model, as plain values: all but its name."""
        content = asdict(self) | {"good": sorted(self.good_sources), "bad": sorted(self.bad_sources)}
        del content["name"]
        return content


def _names(given: list[str] | str) -> list[str]:
    """Names from a list or from one string with commas, each once."""
    names = given.split(",") if isinstance(given, str) else given
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))
