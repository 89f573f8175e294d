"""What the trunk is asked to predict: the next token, masked tokens, whether a text follows another; or all of them.

All three read the same trunk: next tokens with causal attention, the other two with attention both ways (Devlin 2018).
What is masked and which texts are paired follows from a key a sequence, so it is the same on any number of workers.

Shapes: B sequences of a micro-batch, T tokens, D width, V vocab_size, S tokens of one text of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.config import ConfigError, ObjectiveConfig, TrainConfig
from gpt.loader import MicroBatch
from gpt.losses import chunked_losses
from gpt.model import GPT, IGNORE_INDEX
from gpt.order import hash_key

CAUSAL, MASKED, SENTENCE = "causal", "masked", "sentence"
# BERT: of the chosen tokens 80 % become the mask, 10 % another token, 10 % stay.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


class ObjectiveLoss(NamedTuple):
    """What one objective comes to on a micro-batch, in nats."""

    total: Tensor
    """Sum over the targets, to call backward() on."""
    losses: Tensor
    """Of each target, without gradient, 0 where there is none: [B, T], of sentence prediction [B]."""
    targets: Tensor
    """What they are of, IGNORE_INDEX where there is none; of the same shape."""


class TrainingLoss(nn.Module):
    """A model and its objectives as one module: DDP sees one forward, and the logits stay inside.

    Args:
        model: with multitask in its configuration, unless next tokens are all that is asked for.
        config: the objectives, and how their losses are computed.
        end_token: id of the end-of-text token.
        sentence_ends: bool [vocab_size], tokens that end a sentence; for sentence prediction.

    Raises:
        ConfigError: objectives that this model, or a tokenizer without sentences, cannot have.
    """

    sentence_ends_V: Tensor | None

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        *,
        end_token: int = 0,
        sentence_ends: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        config.objectives.validate(model.config)
        if SENTENCE in config.objectives.names and sentence_ends is None:
            raise ConfigError(
                "objectives.sentence needs to be told which tokens end a sentence; leave it at 0"
            )
        self.model, self.config, self.end_token = model, config, end_token
        ends_V = None if sentence_ends is None else torch.as_tensor(np.asarray(sentence_ends, bool))
        self.register_buffer(
            "sentence_ends_V", None if ends_V is None else ends_V.to(model.device), persistent=False
        )
        self._seed_key = hash_key("objectives", config.seed)
        self._hidden = torch.compile(model.hidden, dynamic=False) if config.compile else model.hidden

    def forward(self, micro: MicroBatch) -> dict[str, ObjectiveLoss]:
        """The loss of each objective that has a weight at some time of the training, causal first."""
        names = self.config.objectives.names
        losses = {}
        if CAUSAL in names:
            hidden_BTD = self._hidden(micro.tokens_BT, micro.documents_BT)
            losses[CAUSAL] = self._head_loss(hidden_BTD, micro.targets_BT)
        if names == (CAUSAL,):
            return losses
        # What has no target is padding, or comes at the end: to these two it is the end of a text.
        tokens_BT = micro.tokens_BT.masked_fill(micro.targets_BT == IGNORE_INDEX, self.end_token)
        keys_B = sequence_keys(self._seed_key, micro.sample_B)
        if MASKED in names:
            losses[MASKED] = self._masked_loss(tokens_BT, keys_B, micro.documents_BT)
        if SENTENCE in names:
            losses[SENTENCE] = self._sentence_loss(tokens_BT, keys_B)
        return losses

    def _head_loss(self, hidden_BTD: Tensor, targets_BT: Tensor) -> ObjectiveLoss:
        total, losses_BT = chunked_losses(
            hidden_BTD,
            self.model.head_weight,
            targets_BT,
            vocab_size=self.model.config.vocab_size,
            soft_cap=self.model.config.logit_soft_cap,
            z_loss=self.config.z_loss,
            chunk=self.config.loss_chunk,
            compiled=self.config.compile,
        )
        return ObjectiveLoss(total, losses_BT, targets_BT)

    def _masked_loss(self, tokens_BT: Tensor, keys_B: Tensor, documents_BT: Tensor | None) -> ObjectiveLoss:
        inputs_BT, wanted_BT = mask_tokens(
            tokens_BT,
            keys_B,
            tokens_BT != self.end_token,
            ratio=self.config.objectives.mask_ratio,
            mask_token=self.model.config.mask_token,
            vocab_size=self.model.config.vocab_size,
        )
        return self._head_loss(self._hidden(inputs_BT, documents_BT, causal=False), wanted_BT)

    def _sentence_loss(self, tokens_BT: Tensor, keys_B: Tensor) -> ObjectiveLoss:
        assert self.sentence_ends_V is not None
        assert self.model.sentence_head is not None
        pairs, is_next_B = sentence_pairs(tokens_BT, keys_B, self.sentence_ends_V, self.end_token)
        # The first token of a pair stands for the whole, as BERT's [CLS] does.
        logits_B2 = self.model.sentence_head(self._hidden(pairs, causal=False)[:, 0]).float()
        nll_B = F.cross_entropy(logits_B2, is_next_B, ignore_index=IGNORE_INDEX, reduction="none")
        return ObjectiveLoss(nll_B.sum(), nll_B.detach(), is_next_B)


def target_counts(
    config: ObjectiveConfig, num_tokens: int, num_sequences: int, context_length: int
) -> dict[str, int]:
    """What each objective's sum of losses is divided by: targets of the whole global batch, whoever computes them.

    Exact for next tokens. For the other two what each sequence can have at most: how many it has is known only to the
    worker that reads it, and asking all would stop every step.

    Args:
        num_tokens: targets of next-token prediction in the global batch.
        num_sequences: sequences of the global batch.
    """
    masked = num_sequences * num_masked(config.mask_ratio, context_length)
    return {CAUSAL: num_tokens, MASKED: masked, SENTENCE: num_sequences}


def weighted_sum(losses: Mapping[str, ObjectiveLoss], scales: Mapping[str, float | Tensor]) -> Tensor:
    """Sum over the objectives of scale * sum of losses: what the backward pass begins with."""
    first, *others = (loss.total * scales[name] for name, loss in losses.items())
    return sum(others, start=first)


def freeze_idle(model: GPT, config: ObjectiveConfig) -> None:
    """Take from training what no objective reaches: a head that gets no gradient would be waited for, and decay."""
    if model.sentence_head is not None and SENTENCE not in config.names:
        model.sentence_head.requires_grad_(False)
    if model.head is not None and config.names == (SENTENCE,):
        model.head.requires_grad_(False)


def sequence_keys(seed_key: int, samples_B: Tensor) -> Tensor:
    """A key a sequence from its place in the training order: int64 [B]."""
    # Torch has no unsigned numbers to hash with: the same bits, signed.
    signed = (seed_key ^ (1 << 63)) - (1 << 63) if seed_key >= 1 << 63 else seed_key
    return _mix(_mix(samples_B.long()) ^ signed)


def num_masked(ratio: float, length: int) -> int:
    """Tokens that masked-token prediction asks for in a sequence."""
    return max(1, round(ratio * length))


def mask_tokens(
    tokens_BT: Tensor, keys_B: Tensor, may_mask_BT: Tensor, *, ratio: float, mask_token: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """BERT's corruption (Devlin 2018, section 3.1): the input [B, T], and the tokens asked for, else IGNORE_INDEX.

    Exactly round(ratio * T) tokens of a sequence are chosen (fewer where fewer may be), so that the count that a loss is
    divided by is known beforehand.
    """
    length = tokens_BT.size(1)
    rank_BT = uniform(keys_B, length, 0).masked_fill(~may_mask_BT, 2.0).argsort(1).argsort(1)
    is_chosen_BT = (rank_BT < num_masked(ratio, length)) & may_mask_BT
    fate_BT = uniform(keys_B, length, 1)
    others_BT = (uniform(keys_B, length, 2) * vocab_size).long().clamp(max=vocab_size - 1)
    inputs_BT = torch.where(is_chosen_BT & (fate_BT < MASK_SHARE), mask_token, tokens_BT)
    is_random_BT = is_chosen_BT & (fate_BT >= MASK_SHARE) & (fate_BT < MASK_SHARE + RANDOM_SHARE)
    inputs_BT = torch.where(is_random_BT, others_BT, inputs_BT)
    return inputs_BT, torch.where(is_chosen_BT, tokens_BT, IGNORE_INDEX)


def sentence_pairs(
    tokens_BT: Tensor, keys_B: Tensor, ends_sentence_V: Tensor, end_token: int
) -> tuple[Tensor, Tensor]:
    """Pairs of texts, half of which follow each other: (tokens [B, 2 S + 2], 1 / 0 / IGNORE_INDEX [B]).

    Each sequence makes one pair [end A end B], of S = T // 8 tokens each, so that lengths tell nothing. A ends where a
    sentence does. B is what follows (1), or begins at another sentence of the sequence and overlaps neither A nor what
    follows it (0). No text crosses a document's end. A sequence without room for both kinds is left out
    (IGNORE_INDEX): were it to make pairs of the one kind that it can, its shape would tell which.
    """
    num_rows, length = tokens_BT.shape
    size = max(1, length // 8)
    device = tokens_BT.device
    places_T = torch.arange(length, device=device)
    # begins[b, t]: a sentence begins at t.
    begins_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    begins_BT[:, 1:] = ends_sentence_V[tokens_BT[:, :-1]] | (tokens_BT[:, :-1] == end_token)
    # whole[b, t]: no document ends within the size tokens from t.
    num_ends_BT = F.pad((tokens_BT == end_token).cumsum(1), (1, 0))
    whole_BT = torch.zeros_like(begins_BT)
    last = length - size
    whole_BT[:, : last + 1] = num_ends_BT[:, size:] == num_ends_BT[:, : last + 1]
    # A cut has a whole A before it and a whole B after it.
    before_BT = torch.zeros_like(begins_BT)
    before_BT[:, size:] = whole_BT[:, : length - size]
    may_cut_BT = begins_BT & before_BT & whole_BT
    may_start_BT = begins_BT & whole_BT

    # other[b, c, s]: with the cut at c, another text may begin at s.
    distance_TT = places_T - places_T[:, None]
    apart_TT = (distance_TT >= size) | (distance_TT <= -2 * size)
    may_cut_BT &= (may_start_BT.float() @ apart_TT.float().t()) > 0
    cut_B = _choose(may_cut_BT, uniform(keys_B, length, 3))
    may_start_BT &= apart_TT[cut_B]
    other_B = _choose(may_start_BT, uniform(keys_B, length, 4))
    has_pair_B = may_cut_BT.any(1)
    is_next_B = uniform(keys_B, 1, 5)[:, 0] < 0.5

    span_S = torch.arange(size, device=device)
    first_BS = (cut_B - size).clamp(min=0)[:, None] + span_S
    second_BS = torch.where(is_next_B, cut_B, other_B).clamp(max=last)[:, None] + span_S
    end_B1 = tokens_BT.new_full((num_rows, 1), end_token)
    pairs = torch.cat((end_B1, tokens_BT.gather(1, first_BS), end_B1, tokens_BT.gather(1, second_BS)), dim=1)
    return pairs, torch.where(has_pair_B, is_next_B.long(), IGNORE_INDEX)


def uniform(keys_B: Tensor, count: int, stream: int) -> Tensor:
    """Numbers in [0, 1), float32 [B, count], a function of key, place and stream."""
    places = torch.arange(count, device=keys_B.device) + (stream << 32)
    bits = _mix(_mix(keys_B)[:, None] + _mix(places))
    # 24 bits are what a float32 holds.
    return ((bits >> 20) & 0xFFFFFF).float() / (1 << 24)


def _choose(allowed_BT: Tensor, scores_BT: Tensor) -> Tensor:
    """Index of the allowed place with the highest score, 0 where none is."""
    return scores_BT.masked_fill(~allowed_BT, -1.0).argmax(1)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser over int64, whose products wrap as unsigned ones do."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64))):
        # An arithmetic shift copies the sign: cut the copies off.
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))
