"""What the trunk is asked to predict: the next token, masked tokens, whether a text follows another; or all of them.

All three read the same trunk: next tokens with causal attention, the other two with attention both ways (Devlin 2018).
What is masked and which texts are paired follows from a key a sequence, so it is the same on any number of workers.

Shapes: B sequences of a micro-batch, T tokens, D width, V vocab_size, S tokens of one text of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.config import ObjectiveConfig
from gpt.model import GPT, IGNORE_INDEX, token_losses

CAUSAL, MASKED, SENTENCE = "causal", "masked", "sentence"
# BERT: of the chosen tokens 80 % become the mask, 10 % another token, 10 % stay.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1

# Hidden states and targets to the loss of each token: the trainer's never holds all logits.
HeadLoss = Callable[[Tensor, Tensor], Tensor]


class Multitask(nn.Module):
    """A model and its objectives as one module, as DDP wants it: all that a step computes is in one forward.

    Args:
        model: with multitask in its configuration, unless next tokens are all that is asked for.
        config: shares and weights.
        end_token: id of the end-of-text token.
        ends_sentence_V: bool, which tokens end a sentence; for sentence prediction.
        head_loss: None = `token_losses` of all logits.
    """

    def __init__(
        self,
        model: GPT,
        config: ObjectiveConfig,
        *,
        end_token: int = 0,
        ends_sentence_V: Tensor | None = None,
        head_loss: HeadLoss | None = None,
    ) -> None:
        super().__init__()
        config.validate(model.config)
        self.model, self.config, self.end_token = model, config, end_token
        self.register_buffer("ends_sentence_V", ends_sentence_V, persistent=False)
        self.head_loss = head_loss or (
            lambda x_BTD, targets_BT: token_losses(model.logits(x_BTD), targets_BT)
        )

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        keys_B: Tensor,
        objectives: tuple[str, ...] = (CAUSAL,),
        documents_BT: Tensor | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Losses of each objective asked for, unreduced and in nats, and the targets that they are of.

        Args:
            tokens_BT, targets_BT: a micro-batch of next-token prediction.
            keys_B: int64, one a sequence (`sequence_keys`).
            objectives: those whose weight is not 0.
            documents_BT: see `GPT.hidden`.

        Returns:
            causal and masked: ([B, T], [B, T]); sentence: ([B], [B]). Where a target is IGNORE_INDEX the loss is 0.
        """
        model, losses = self.model, {}
        if CAUSAL in objectives:
            losses[CAUSAL] = self.head_loss(model.hidden(tokens_BT, documents_BT), targets_BT), targets_BT
        if MASKED in objectives:
            # Padding at the end of a sequence has no target, nor does its last token.
            may_mask_BT = (targets_BT != IGNORE_INDEX) & (tokens_BT != self.end_token)
            inputs_BT, wanted_BT = mask_tokens(
                tokens_BT,
                keys_B,
                may_mask_BT,
                ratio=self.config.mask_ratio,
                mask_token=model.config.mask_token,
                vocab_size=model.config.vocab_size,
            )
            x_BTD = model.hidden(inputs_BT, documents_BT, causal=False)
            losses[MASKED] = self.head_loss(x_BTD, wanted_BT), wanted_BT
        if SENTENCE in objectives:
            assert isinstance(self.ends_sentence_V, Tensor), (
                "sentence prediction needs to know what ends a sentence"
            )
            pairs, is_next_B = sentence_pairs(tokens_BT, keys_B, self.ends_sentence_V, self.end_token)
            assert model.sentence_head is not None
            # The first token of a pair stands for the whole, as BERT's [CLS] does.
            logits_B2 = model.sentence_head(model.hidden(pairs, causal=False)[:, 0]).float()
            nll_B = F.cross_entropy(logits_B2, is_next_B, ignore_index=IGNORE_INDEX, reduction="none")
            losses[SENTENCE] = nll_B, is_next_B
        return losses


def weighted_sum(
    losses: Mapping[str, tuple[Tensor, Tensor]], weights: Mapping[str, float], counts: Mapping[str, float]
) -> Tensor:
    """Sum over objectives of weight * sum of losses / count: what the backward pass begins with.

    Args:
        losses: as `Multitask` returns them.
        weights: as `ObjectiveConfig.weights` returns them.
        counts: targets of the whole global batch by objective, so that micro-batches and workers add up.
    """
    terms = [weights[name] * nll.sum() / counts[name] for name, (nll, _) in losses.items()]
    return torch.stack(terms).sum()


def sequence_keys(seed_key: int, samples_B: Tensor) -> Tensor:
    """A key a sequence from its place in the training order: int64 [B]."""
    # Torch has no unsigned numbers to hash with: the same bits, signed.
    signed = (seed_key ^ (1 << 63)) - (1 << 63) if seed_key >= 1 << 63 else seed_key
    return _mix(_mix(samples_B.long()) ^ signed)


def mask_tokens(
    tokens_BT: Tensor, keys_B: Tensor, may_mask_BT: Tensor, *, ratio: float, mask_token: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """BERT's corruption (Devlin 2018, section 3.1): the input [B, T], and the tokens asked for, else IGNORE_INDEX.

    Exactly round(ratio * T) tokens of a sequence are chosen (fewer where fewer may be), so that the count that a loss is
    divided by is known beforehand.
    """
    length = tokens_BT.size(1)
    rank_BT = uniform(keys_B, length, 0).masked_fill(~may_mask_BT, 2.0).argsort(1).argsort(1)
    is_chosen_BT = (rank_BT < max(1, round(ratio * length))) & may_mask_BT
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
