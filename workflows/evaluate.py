"""Grade a model: bits per byte by source, and its classifier beside a majority and a bag-of-words baseline."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import InputError
from workflows import cli
from workflows.models import check_name
from workflows.passages import PassageConfig

if TYPE_CHECKING:
    from workflows.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """Options of workflows.evaluate."""

    workspace: str = "workspace"
    """Folder that everything is kept in."""
    model: str = ""
    """Pretrained model in models/ to grade; empty takes the newest."""
    classifier: str = ""
    """Classifier in models/ to grade; empty takes the one fine-tuned from the model, if there is one."""
    dataset: str = "bpe"
    """Name of the token dataset whose validation split is used."""
    max_tokens: int = 200_000
    """Validation tokens a source, at most."""

    def validate(self) -> None:
        """Raise InputError, naming the option, for values that cannot work."""
        for name in ("model", "classifier", "dataset"):
            check_name(name, getattr(self, name))
        if self.max_tokens < 1:
            raise InputError(f"max_tokens: {self.max_tokens} must be at least 1")


def main(options: Options) -> None:
    """Grade and print the table."""
    options.validate()

    from workflows.workspace import Workspace

    workspace = Workspace.existing(options.workspace)
    show_scores(evaluate(workspace, options))


def evaluate(workspace: Workspace, options: Options) -> dict[str, Any]:
    """{"bits_per_byte": {source: Score}, "classifier": {name: accuracy}}; logged as one MLflow run.

    Raises:
        InputError, ConfigError: a model, dataset or package that is not there; no run is opened then.
    """
    from workflows import tracking
    from workflows.console import step
    from workflows.models import newest_model, read_config

    base = options.model or newest_model(workspace, "gpt")
    classifier = options.classifier or f"{base}-source"
    has_classifier = bool(options.classifier) or read_config(workspace.model(classifier)) is not None
    if has_classifier:
        _require_sklearn()
    with step("evaluate") as shown:
        grade, parent = _load(workspace, base, options)
        grade_classifier = _load_classifier(workspace, classifier) if has_classifier else None
        tags = {"gptmill.model": base} | ({"gptmill.classifier": classifier} if has_classifier else {})
        # A name of its own: the training's belongs to the training.
        with tracking.start_run(
            workspace, "evaluate", f"{base}-eval", asdict(options), tags=tags, parent=parent
        ) as run:
            shown.update("bits per byte by source")
            scores = grade()
            for measure in ("bits_per_byte", "loss"):
                run.metrics({f"{measure}/{source}": score[measure] for source, score in scores.items()})
            result: dict[str, Any] = {"model": base, "bits_per_byte": scores, "classifier": {}}
            if grade_classifier:
                shown.update("classifier and its baselines")
                result["classifier"] = grade_classifier()
                run.metrics({f"accuracy/{name}": value for name, value in result["classifier"].items()})
        shown.summary = f"{base}: {scores['all']['bits_per_byte']:.3f} bits/byte" if "all" in scores else base
        if result["classifier"]:
            shown.summary += f", classifier {result['classifier']['gpt']:.1%}"
    return result


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise InputError(
            "classifier: its bag-of-words baseline needs scikit-learn; pip install 'gptmill[eval]'"
        )


def _load(
    workspace: Workspace, base: str, options: Options
) -> tuple[Callable[[], dict[str, dict[str, float]]], str | None]:
    """What grades the model by source, and the id of the run that trained it."""
    from data_pipeline.shards import TokenDataset
    from data_pipeline.tokenizer import Tokenizer
    from gpt.checkpoint import load_model
    from gpt.distributed import default_device
    from gpt.evaluate import evaluate_bits_per_byte

    model, content = load_model(workspace.model(base), default_device())
    tokenizer = Tokenizer.load(workspace.model(base) / "tokenizer.json")
    dataset = TokenDataset(workspace.dataset(options.dataset), "val")
    if dataset.manifest.tokenizer_sha256 != tokenizer.sha256:
        raise InputError(
            f"dataset: {options.dataset} was made with another tokenizer than model {base}; name its dataset"
        )

    def grade() -> dict[str, dict[str, float]]:
        scores = evaluate_bits_per_byte(
            model, dataset, tokenizer.byte_lengths(), max_tokens=options.max_tokens, autocast=True
        )
        return {source: asdict(score) for source, score in scores.items()}

    return grade, content["extra"].get("mlflow_run_id")


def _load_classifier(workspace: Workspace, name: str) -> Callable[[], dict[str, float]]:
    """What grades a classifier and its baselines on the passages that it was validated with."""
    from data_pipeline.tokenizer import Tokenizer
    from gpt.classify import evaluate_classifier, load_classifier
    from gpt.distributed import default_device
    from workflows.passages import build_task, encode_passages

    classifier, content = load_classifier(workspace.model(name), default_device())
    extra = content["extra"]
    version = workspace.corpus.at(extra["corpus_version"])
    tokenizer = Tokenizer.load(workspace.model(name) / "tokenizer.json")

    def grade() -> dict[str, float]:
        task = build_task(workspace.corpus, version, PassageConfig(**extra["settings"]["passages"]))
        accuracy, _, _ = evaluate_classifier(classifier, encode_passages(task.val, tokenizer))
        return {
            "gpt": accuracy,
            "bag_of_words": _bag_of_words(task),
            "majority": extra["majority_accuracy"],
        }

    return grade


def _bag_of_words(task: Any) -> float:
    """Accuracy of a logistic regression over word counts: what a classifier must beat to be worth its cost."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(max_features=20_000), LogisticRegression(max_iter=1000))
    model.fit([passage.text for passage in task.train], [passage.label for passage in task.train])
    return float(model.score([passage.text for passage in task.val], [passage.label for passage in task.val]))


def show_scores(result: dict[str, Any]) -> None:
    """Print the grades."""
    from workflows.console import table

    rows = [
        [source, f"{score['bits_per_byte']:.3f}", f"{score['loss']:.3f}", f"{score['num_tokens']:,}"]
        for source, score in result["bits_per_byte"].items()
    ]
    table(["", "bits/byte", "nats/token", "tokens"], rows, title=f"Validation of {result['model']}")
    if result["classifier"]:
        names = {"gpt": "this model", "bag_of_words": "bag of words", "majority": "majority class"}
        rows = [[names[name], f"{value:.1%}"] for name, value in result["classifier"].items()]
        table(["", "accuracy"], rows, title="Which source does a passage come from?")


if __name__ == "__main__":
    sys.exit(cli.run(Options, main, "evaluate", __doc__))
