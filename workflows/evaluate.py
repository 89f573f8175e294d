"""Grade a model: bits per byte by source, and its classifier beside a majority and a bag-of-words baseline."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

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


def main(options: Options) -> None:
    """Grade and print the table."""
    check_name("model", options.model)
    check_name("classifier", options.classifier)
    check_name("dataset", options.dataset)

    from workflows.workspace import Workspace

    workspace = Workspace.open(options.workspace)
    show_scores(evaluate(workspace, options))


def evaluate(workspace: Workspace, options: Options) -> dict[str, Any]:
    """{"bits_per_byte": {source: Score}, "classifier": {name: accuracy}}; logged as one MLflow run."""
    from workflows import tracking
    from workflows.console import step
    from workflows.models import newest_model, read_config

    base = options.model or newest_model(workspace, "gpt")
    config = read_config(workspace.model(base)) or {}
    parent = config.get("extra", {}).get("mlflow_run_id")
    with (
        step("evaluate") as shown,
        tracking.start_run(workspace, "evaluate", base, asdict(options), parent=parent) as run,
    ):
        shown.update("bits per byte by source")
        scores = _bits_per_byte(workspace, base, options)
        run.tag("gptmill.model", base)
        run.metrics({f"bits_per_byte/{source}": score["bits_per_byte"] for source, score in scores.items()})
        run.metrics({f"loss/{source}": score["loss"] for source, score in scores.items()})
        result: dict[str, Any] = {"model": base, "bits_per_byte": scores, "classifier": {}}
        classifier = options.classifier or f"{base}-source"
        if options.classifier or read_config(workspace.model(classifier)):
            shown.update("classifier and its baselines")
            result["classifier"] = _classifier(workspace, classifier)
            run.tag("gptmill.classifier", classifier)
            run.metrics({f"accuracy/{name}": value for name, value in result["classifier"].items()})
        shown.summary = f"{base}: {scores['all']['bits_per_byte']:.3f} bits/byte" if "all" in scores else base
        if result["classifier"]:
            shown.summary += f", classifier {result['classifier']['gpt']:.1%}"
    return result


def _bits_per_byte(workspace: Workspace, base: str, options: Options) -> dict[str, dict[str, float]]:
    from data_pipeline.errors import InputError
    from data_pipeline.shards import TokenDataset
    from data_pipeline.tokenizer import Tokenizer
    from gpt.checkpoint import load_model
    from gpt.evaluate import evaluate_bits_per_byte

    model, _ = load_model(workspace.model(base))
    tokenizer = Tokenizer.load(workspace.model(base) / "tokenizer.json")
    dataset = TokenDataset(workspace.dataset(options.dataset), "val")
    if dataset.manifest.tokenizer_sha256 != tokenizer.sha256:
        raise InputError(
            f"dataset: {options.dataset} was made with another tokenizer than model {base}; name its dataset"
        )
    scores = evaluate_bits_per_byte(
        model, dataset, tokenizer.byte_lengths(), max_tokens=options.max_tokens, autocast=True
    )
    return {source: asdict(score) for source, score in scores.items()}


def _classifier(workspace: Workspace, name: str) -> dict[str, float]:
    from data_pipeline.tokenizer import Tokenizer
    from gpt.classify import Example, evaluate_classifier, load_classifier
    from workflows.passages import build_task

    classifier, content = load_classifier(workspace.model(name))
    extra = content["extra"]
    version = workspace.corpus.at(extra["corpus_version"])
    task = build_task(workspace.corpus, version, PassageConfig(**extra["settings"]["passages"]))
    tokenizer = Tokenizer.load(workspace.model(name) / "tokenizer.json")
    examples = [Example(tokenizer.encode(passage.text), passage.label) for passage in task.val]
    accuracy, _, _ = evaluate_classifier(classifier, examples)
    labels = [passage.label for passage in task.train]
    commonest = max(sorted(set(labels)), key=labels.count)
    majority = sum(passage.label == commonest for passage in task.val) / len(task.val)
    return {"gpt": accuracy, "bag_of_words": _bag_of_words(task), "majority": majority}


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
