"""Bits per byte is a code length over bytes, and does not depend on batches or workers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_dataset

from data_pipeline.shards import TokenDataset
from gpt.config import ModelConfig
from gpt.evaluate import evaluate_bits_per_byte
from gpt.model import GPT


@pytest.fixture
def model(model_config: ModelConfig) -> GPT:
    torch.manual_seed(0)
    return GPT(model_config)


def test_uniform_model_by_hand(tmp_path: Path, model: GPT, token_bytes: np.ndarray):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    folder = write_dataset(tmp_path, {("web", "val"): [[0, 5, 6, 7], [0, 8]], ("book", "val"): [[0, 9, 9]]})
    scores = evaluate_bits_per_byte(model, TokenDataset(folder, "val"), token_bytes)
    # All logits are equal: log2(50) bits a token. Targets of web are 5 6 7 0 8, with 2 + 2 + 2 + 0 + 2 bytes.
    assert (scores["web"].num_tokens, scores["web"].num_bytes) == (5, 8)
    assert scores["web"].loss == pytest.approx(math.log(50))
    assert scores["web"].bits_per_byte == pytest.approx(5 * math.log2(50) / 8)
    assert scores["book"].bits_per_byte == pytest.approx(2 * math.log2(50) / 4)
    assert scores["all"].num_tokens == 7
    assert scores["all"].bits_per_byte == pytest.approx(7 * math.log2(50) / 12)


def test_every_token_but_the_first_is_scored_once(model: GPT, dataset_folder: Path, token_bytes: np.ndarray):
    dataset = TokenDataset(dataset_folder, "val")
    scores = evaluate_bits_per_byte(model, dataset, token_bytes)
    assert scores["web"].num_tokens == dataset.streams["web"].num_tokens - 1
    capped = evaluate_bits_per_byte(model, dataset, token_bytes, max_tokens=100)
    assert (capped["web"].num_tokens, capped["book"].num_tokens, capped["all"].num_tokens) == (100, 100, 200)


def test_batch_size_does_not_matter_and_the_mode_is_restored(
    model: GPT, dataset_folder: Path, token_bytes: np.ndarray
):
    dataset = TokenDataset(dataset_folder, "val")
    model.set_dropout(0.5)
    model.train()
    one, many = (evaluate_bits_per_byte(model, dataset, token_bytes, batch_size=size) for size in (1, 7))
    assert one["all"].loss == pytest.approx(many["all"].loss, rel=1e-6)
    assert model.training


def test_a_split_without_tokens_has_no_scores(tmp_path: Path, model: GPT, token_bytes: np.ndarray):
    folder = write_dataset(tmp_path, {("web", "train"): [[0, 1, 2]]})
    assert evaluate_bits_per_byte(model, TokenDataset(folder, "val"), token_bytes) == {}


def test_documents_that_are_masked_in_training_are_masked_here(
    tmp_path: Path, model_config: ModelConfig, token_bytes: np.ndarray
):
    rows = [[0, 5, 6, 7, 8], [0, 9, 10, 11], [0, 12, 13]]
    folder = write_dataset(tmp_path, {("web", "val"): rows})
    torch.manual_seed(0)
    model = GPT(replace(model_config, mask_documents=True))
    score = evaluate_bits_per_byte(model, TokenDataset(folder, "val"), token_bytes)["web"]
    # Each document alone, its last token predicting the end-of-text token of the next.
    nats = 0.0
    for row, following in zip(rows, [[0], [0], []], strict=True):
        line = torch.tensor([row + following])
        nats += model(line[:, :-1], line[:, 1:]).sum().item()
    assert score.num_tokens == 11
    assert score.loss == pytest.approx(nats / 11, abs=1e-6)
