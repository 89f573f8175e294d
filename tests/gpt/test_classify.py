"""Fine-tuning learns a planted rule, the same way each time, and the classifier survives a save."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt.checkpoint import load_model
from gpt.classify import (
    Classifier,
    ClassifierConfig,
    ClassifierResult,
    Example,
    fine_tune,
    load_classifier,
    save_classifier,
)
from gpt.config import ConfigError, ModelConfig
from gpt.model import GPT

START, EXTRACT = 0, 49
CONFIG = ClassifierConfig(epochs=4, batch_size=16, lr=3e-3, warmup_ratio=0.05)


def planted(count: int, seed: int) -> list[Example]:
    """Class 1 where token 7 is in the text, about one in three; texts of uneven length."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        tokens = rng.integers(8, 40, int(rng.integers(3, 12)))
        label = int(rng.random() < 0.35)
        if label:
            tokens[rng.integers(len(tokens))] = 7
        examples.append(Example(tokens.tolist(), label))
    return examples


def tuned(
    model_config: ModelConfig, config: ClassifierConfig = CONFIG, **options
) -> tuple[Classifier, ClassifierResult]:
    torch.manual_seed(0)
    return fine_tune(
        GPT(model_config),
        planted(300, 1),
        planted(100, 2),
        config,
        start_token=START,
        extract_token=EXTRACT,
        **options,
    )


def test_a_planted_rule_is_learned_and_beats_the_majority(model_config: ModelConfig):
    seen = []
    _, result = tuned(model_config, callback=seen.append)
    assert 0.5 < result.majority_accuracy < 0.8
    assert result.accuracy > 0.95
    assert np.sum(result.confusion) == 100
    assert np.trace(result.confusion) / 100 == pytest.approx(result.accuracy)
    assert seen == result.history
    assert len(seen) == 4 * 19
    assert [record.epoch for record in seen if record.val_accuracy is not None] == [1, 2, 3, 4]
    assert seen[-1].loss < seen[0].loss
    assert seen[-1].lm_loss < seen[0].lm_loss
    assert seen[-1].learning_rate < 0.02 * CONFIG.lr


def test_the_same_seed_gives_the_same_classifier(model_config: ModelConfig):
    config = replace(CONFIG, epochs=1)
    (_, one), (_, two), (_, other) = (tuned(model_config, replace(config, seed=seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_without_the_language_model_loss_only_classes_count(model_config: ModelConfig):
    _, result = tuned(model_config, replace(CONFIG, epochs=1, lm_coefficient=0.0))
    assert {record.lm_loss for record in result.history} == {0.0}


def test_padding_does_not_change_a_prediction(model_config: ModelConfig):
    classifier, _ = tuned(model_config, replace(CONFIG, epochs=1))
    short, long = [7, 9, 11], list(range(8, 22))
    together = classifier.predict([short, long])
    np.testing.assert_allclose(together[0], classifier.predict([short])[0], atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-6)


def test_a_long_text_loses_its_end_not_its_extract_token(model_config: ModelConfig):
    classifier = Classifier(GPT(model_config), 2, start_token=START, extract_token=EXTRACT)
    batch = classifier.collate([Example(list(range(1, 40)), 0), Example([5], 1)])
    assert batch.tokens_BT[0].tolist() == [START, *range(1, 15), EXTRACT]
    assert batch.tokens_BT[1, :3].tolist() == [START, 5, EXTRACT]
    assert batch.targets_BT[1].tolist() == [5, EXTRACT] + [-100] * 14
    assert batch.last_B.tolist() == [15, 2]


def test_a_saved_classifier_predicts_the_same(model_config: ModelConfig, tmp_path: Path):
    classifier, _ = tuned(model_config, replace(CONFIG, epochs=1))
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    save_classifier(tmp_path / "c", classifier, tokenizer, {"task": "planted"})
    loaded, content = load_classifier(tmp_path / "c")
    texts = [example.tokens for example in planted(20, 3)]
    np.testing.assert_array_equal(loaded.predict(texts), classifier.predict(texts))
    assert content["extra"] == {"task": "planted"}
    with pytest.raises(ConfigError, match="holds a model of kind 'classifier', wanted 'gpt'"):
        load_model(tmp_path / "c")


@pytest.mark.parametrize(
    ("train", "config", "message"),
    [
        ([], CONFIG, "0 training"),
        ([Example([1], 3)], replace(CONFIG, num_classes=2), "labels run from 0 to 3, num_classes is 2"),
        ([Example([1], 0)], replace(CONFIG, lr=0.0), "lr is 0.0"),
        ([Example([1], 0)], replace(CONFIG, max_length=2), "max_length is 2"),
    ],
)
def test_impossible_fine_tuning_is_refused(
    model_config: ModelConfig, train: list, config: ClassifierConfig, message: str
):
    with pytest.raises(ConfigError, match=message):
        fine_tune(
            GPT(model_config), train, [Example([1], 0)], config, start_token=START, extract_token=EXTRACT
        )
