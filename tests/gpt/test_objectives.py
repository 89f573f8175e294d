"""Masked and next-sentence prediction ask what BERT's do, are learned beside next tokens, and cost nothing when off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gpt.config import ConfigError, ModelConfig, ObjectiveConfig, TrainConfig
from gpt.loader import MicroBatch
from gpt.model import GPT, IGNORE_INDEX
from gpt.objectives import (
    ObjectiveLoss,
    TrainingLoss,
    _mix,
    mask_tokens,
    sentence_pairs,
    sequence_keys,
    target_counts,
    uniform,
    weighted_sum,
)
from gpt.order import hash_key, splitmix64

MODEL = ModelConfig(vocab_size=50, context_length=64, num_layers=2, num_heads=2, width=32, multitask=True)
END, DOT = 0, 1
KEYS = sequence_keys(hash_key("objectives", 7), torch.arange(400))


def text(rows: int, length: int = 64, seed: int = 0) -> torch.Tensor:
    """Sentences of 3 to 8 tokens that end with DOT; documents of 3 to 20 sentences that begin with END."""
    rng = np.random.default_rng(seed)
    tokens: list[int] = []
    while len(tokens) < rows * length:
        tokens.append(END)
        for _ in range(rng.integers(3, 21)):
            tokens += [*rng.integers(2, 50, rng.integers(2, 8)).tolist(), DOT]
    return torch.tensor(tokens[: rows * length]).view(rows, length)


def ends_sentence() -> torch.Tensor:
    ends = torch.zeros(50, dtype=torch.bool)
    ends[DOT] = True
    return ends


def test_keys_and_numbers_are_those_of_splitmix64_and_uniform():
    x = np.arange(1, 2000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert np.array_equal(_mix(torch.from_numpy(x.view(np.int64))).numpy().view(np.uint64), splitmix64(x))
    numbers = uniform(KEYS, 256, 0).flatten()
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.005)
    assert torch.histc(numbers, 16, 0, 1).std() < 4 * (len(numbers) / 16) ** 0.5
    assert not torch.equal(uniform(KEYS, 8, 0), uniform(KEYS, 8, 1))
    assert len(KEYS.unique()) == 400


def test_fifteen_percent_are_asked_for_eighty_ten_ten():
    tokens = torch.randint(2, 50, (400, 128), generator=torch.Generator().manual_seed(0))
    tokens[:, ::10] = END
    inputs, wanted = mask_tokens(tokens, KEYS, tokens != END, ratio=0.15, mask_token=50, vocab_size=50)
    chosen = wanted != IGNORE_INDEX
    assert (chosen.sum(1) == round(0.15 * 128)).all()
    assert not chosen[tokens == END].any()
    assert torch.equal(wanted[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    masked, kept = inputs == 50, inputs == tokens
    assert masked[chosen].float().mean().item() == pytest.approx(0.8, abs=0.02)
    # One in 50 of the random ones is the token itself.
    assert (kept & chosen).sum().item() / chosen.sum().item() == pytest.approx(0.1 + 0.1 / 50, abs=0.02)
    assert inputs[chosen & ~masked & ~kept].max() < 50
    # Every place is as likely.
    assert chosen.float().mean(0)[1:10].std() < 0.03


def test_half_of_the_pairs_follow_each_other_and_nothing_else_tells():
    tokens = text(400, 128)
    pairs, is_next = sentence_pairs(tokens, KEYS, ends_sentence(), END)
    assert pairs.shape == (400, 2 * 16 + 2)
    valid = is_next != IGNORE_INDEX
    assert valid.float().mean() > 0.7
    assert is_next[valid].float().mean().item() == pytest.approx(0.5, abs=0.1)
    for row in valid.nonzero()[:, 0].tolist():
        line = tokens[row].tolist()
        first, second = pairs[row, 1:17].tolist(), pairs[row, 18:].tolist()
        assert pairs[row, [0, 17]].tolist() == [END, END]
        assert END not in first + second
        place = [at for at in range(113) if line[at : at + 16] == first]
        follows = any(line[at + 16 : at + 32] == second for at in place)
        assert follows == bool(is_next[row])
        starts = [at for at in range(113) if line[at : at + 16] == second]
        # Sentences both: A ends with one, B begins with one.
        assert first[-1] == DOT
        assert any(line[at - 1] in (DOT, END) for at in starts)
        if not is_next[row]:
            cut = place[0] + 16
            assert all(at + 16 <= place[0] or at >= cut + 16 for at in starts)


def test_what_is_asked_depends_on_the_sequence_not_on_its_batch():
    tokens = text(8)
    keys = KEYS[:8]
    options = {"ratio": 0.15, "mask_token": 50, "vocab_size": 50}
    whole = mask_tokens(tokens, keys, tokens != END, **options)
    parts = [
        mask_tokens(tokens[i : i + 1], keys[i : i + 1], tokens[i : i + 1] != END, **options) for i in range(8)
    ]
    assert torch.equal(whole[0], torch.cat([inputs for inputs, _ in parts]))
    pairs, labels = sentence_pairs(tokens, keys, ends_sentence(), END)
    for row in range(8):
        pair, label = sentence_pairs(tokens[row : row + 1], keys[row : row + 1], ends_sentence(), END)
        assert torch.equal(pair[0], pairs[row])
        assert torch.equal(label[0], labels[row])


def test_a_sequence_without_sentences_or_room_is_left_out():
    for tokens in (torch.full((2, 64), 7), torch.tensor([[END] * 64, [7, DOT] + [END] * 62])):
        pairs, is_next = sentence_pairs(tokens, KEYS[:2], ends_sentence(), END)
        assert (is_next == IGNORE_INDEX).all()
        assert pairs.shape == (2, 18)


def micro_batch(tokens: torch.Tensor, first_sample: int = 0) -> MicroBatch:
    targets = tokens.roll(-1, 1)
    targets[:, -1] = IGNORE_INDEX
    samples = torch.arange(first_sample, first_sample + len(tokens))
    return MicroBatch(tokens, targets, torch.zeros(len(tokens), dtype=torch.int64), None, samples)


def test_padding_is_never_asked_for_nor_read_as_text():
    # Token 0 ends a sentence here, and padding is full of it.
    ends = ends_sentence()
    ends[0] = True
    end_token = 2
    torch.manual_seed(0)
    loss = TrainingLoss(
        GPT(MODEL),
        TrainConfig(objectives=ObjectiveConfig(masked=1.0, sentence=1.0)),
        end_token=end_token,
        sentence_ends=ends.numpy(),
    )
    tokens = torch.randint(3, 50, (6, 64), generator=torch.Generator().manual_seed(1))
    tokens[:, 8::8] = DOT
    micro = micro_batch(tokens)
    for row, num_targets in enumerate((0, 20, 40, 50, 60, 63)):
        micro.tokens_BT[row, num_targets:] = 0
        micro.targets_BT[row, num_targets:] = IGNORE_INDEX
    losses = loss(micro)
    asked = losses["masked"].targets != IGNORE_INDEX
    assert not (asked & (micro.targets_BT == IGNORE_INDEX)).any()
    assert asked.sum(1).tolist() == [0, 10, 10, 10, 10, 10]
    assert losses["sentence"].targets[0] == IGNORE_INDEX
    assert (losses["sentence"].targets[3:] != IGNORE_INDEX).all()
    before = {name: loss.losses.clone() for name, loss in losses.items()}
    micro.tokens_BT[micro.targets_BT == IGNORE_INDEX] = 7
    for name, loss_again in loss(micro).items():
        # Causal attention reads padding where there is nothing to predict any more.
        assert torch.equal(loss_again.losses, before[name]), name


def test_all_three_are_learned_together_each_with_its_own_loss():
    # Documents of four sentences of one repeated word each, every document with words of its own: the rest of a
    # sentence follows from its first word, and what follows a text is about the same.
    rng = np.random.default_rng(0)

    def batch() -> torch.Tensor:
        rows = []
        for _ in range(16):
            row = []
            for subject in rng.permutation(4):
                words = 2 + 3 * subject + rng.integers(0, 3, 4)
                row += [END] + [token for word in words for token in (word, word, word, DOT)]
            rows.append(row[:64])
        return torch.tensor(np.array(rows))

    torch.manual_seed(0)
    model = GPT(MODEL)
    config = ObjectiveConfig(causal=1.0, masked=0.5, sentence=2.0)
    module = TrainingLoss(
        model,
        TrainConfig(objectives=config),
        end_token=END,
        sentence_ends=ends_sentence().numpy(),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    means: list[dict[str, float]] = []
    for step in range(280):
        micro = micro_batch(batch(), step * 16)
        losses = module(micro)
        counts = target_counts(config, 16 * 63, 16, 64)
        weights = config.weights(step / 280)
        weighted_sum(losses, {name: weights[name] / counts[name] for name in losses}).backward()
        optimizer.step()
        optimizer.zero_grad()
        means.append(
            {
                name: (loss.losses.sum() / (loss.targets != IGNORE_INDEX).sum()).item()
                for name, loss in losses.items()
            }
        )
    last = {name: float(np.mean([mean[name] for mean in means[-20:]])) for name in means[0]}
    assert means[0]["sentence"] == pytest.approx(np.log(2), abs=0.1)
    assert last["causal"] < 0.5 * means[0]["causal"]
    # 2.4 nats are what knowing how often each token comes is worth: under that, it reads what is around.
    assert last["masked"] < 2.0
    assert last["sentence"] < 0.3


def test_weights_move_linearly_and_add_up():
    config = ObjectiveConfig(causal=1.0, masked=0.6, masked_end=0.0, sentence_end=0.2)
    assert config.names == ("causal", "masked", "sentence")
    assert config.weights(0.0) == {"causal": 1.0, "masked": 0.6, "sentence": 0.0}
    assert config.weights(0.5) == pytest.approx({"causal": 1.0, "masked": 0.3, "sentence": 0.1})
    assert config.weights(1.0) == pytest.approx({"causal": 1.0, "masked": 0.0, "sentence": 0.2})
    assert ObjectiveConfig(masked=0.0).names == ("causal",)
    losses = {
        name: ObjectiveLoss(torch.tensor(6.0), torch.tensor([2.0, 4.0]), torch.zeros(2))
        for name in ("causal", "masked")
    }
    assert weighted_sum(losses, {"causal": 1 / 2, "masked": 0.5 / 4}).item() == pytest.approx(3.0 + 0.75)
    assert target_counts(config, 1000, 16, 64) == {"causal": 1000, "masked": 16 * 10, "sentence": 16}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ObjectiveConfig(masked=-1.0), "objectives.masked"),
        (ObjectiveConfig(causal=0.0), "no weight"),
        (ObjectiveConfig(mask_ratio=0.0), "mask_ratio"),
        (ObjectiveConfig(sentence_end=1.0), "model.multitask is off"),
    ],
)
def test_impossible_objectives_name_the_field(config: ObjectiveConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        config.validate(replace(MODEL, multitask=False))


def test_sentence_prediction_wants_room_and_sentences():
    config = ObjectiveConfig(sentence=1.0)
    with pytest.raises(ConfigError, match="context_length is 8; pairs of texts need 16"):
        config.validate(replace(MODEL, context_length=8))
    with pytest.raises(
        ConfigError, match=r"objectives\.sentence needs to be told which tokens end a sentence"
    ):
        TrainingLoss(GPT(MODEL), TrainConfig(objectives=config))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab_size", [50, 64])
def test_multitask_leaves_the_other_first_weights_as_they_are(vocab_size: int, tied: bool):
    weights = []
    for multitask in (False, True):
        torch.manual_seed(3)
        config = replace(MODEL, vocab_size=vocab_size, multitask=multitask, tie_embeddings=tied)
        model = GPT(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == config.num_parameters()
        weights.append(model.state_dict())
    plain, more = weights
    assert more.keys() - plain.keys() == {"sentence_head.weight", "sentence_head.bias"}
    assert more["token_embedding.weight"][vocab_size].std().item() == pytest.approx(0.02, rel=0.5)
    for name, weight in plain.items():
        assert torch.equal(more[name][: len(weight)], weight), name
