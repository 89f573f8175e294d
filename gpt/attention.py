"""Who sees whom, and the kernel that computes it. The paths give the same numbers; tests compare them.

Shapes: B batch, T queries, S keys, H query heads, G heads of keys and values, K width of a head.

- plain causality, or no mask at all: `scaled_dot_product_attention` with its flag, which has fused kernels everywhere.
- a window or documents, on a GPU: FlexAttention, which skips the blocks in which nobody sees anybody.
- the same on a CPU, with dropout, or while a key-value cache is read: a boolean mask.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from gpt.config import ModelConfig

# auto takes the best one for the device; the others are for tests and measurements.
Kernel = Literal["auto", "sdpa", "flex"]


class Pattern(NamedTuple):
    """Who sees whom in one layer: plain causality, or a mask of one of two kinds, or everybody everybody."""

    is_causal: bool = False
    mask: Tensor | None = None
    """Bool, True where the query sees the key, broadcast to [B, H, T, S]."""
    blocks: BlockMask | None = None


def pattern(
    length: int,
    device: torch.device,
    *,
    causal: bool = True,
    window: int = 0,
    documents_BT: Tensor | None = None,
    kernel: Kernel = "auto",
) -> Pattern:
    """The pattern of a layer over a whole sequence.

    Args:
        length: T, queries and keys alike.
        device: of the activations.
        causal: nobody sees what follows.
        window: nobody sees further than this many tokens, the own one included; 0 = no bound.
        documents_BT: number of the document that a token belongs to, int; tokens see their own document only.
        kernel: how a mask is applied.
    """
    window = window if window < length else 0
    if not window and documents_BT is None:
        return Pattern(is_causal=causal)
    use_flex = kernel == "flex" or (kernel == "auto" and device.type == "cuda")

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = key <= query if causal else (key - query < window if window else key >= 0)
        if window:
            seen = seen & (query - key < window)
        if documents_BT is not None:
            seen = seen & (documents_BT[batch, query] == documents_BT[batch, key])
        return seen

    if use_flex:
        num_rows = None if documents_BT is None else documents_BT.size(0)
        return Pattern(blocks=create_block_mask(sees, num_rows, None, length, length, device=device))
    positions = torch.arange(length, device=device)
    num_rows = 1 if documents_BT is None else documents_BT.size(0)
    rows = torch.arange(num_rows, device=device).view(-1, 1, 1, 1)
    return Pattern(mask=sees(rows, rows, positions.view(-1, 1), positions))


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, seen: Pattern, dropout: float = 0.0) -> Tensor:
    """softmax(q k' / sqrt(K)) v over what each query sees, [B, H, T, K]; each key head serves H / G query heads."""
    is_grouped = k_BGSK.size(1) != q_BHTK.size(1)
    if seen.blocks is not None:
        assert dropout == 0, "FlexAttention knows no dropout; choose the pattern with kernel='sdpa'"
        return _flex()(q_BHTK, k_BGSK, v_BGSK, block_mask=seen.blocks, enable_gqa=is_grouped)
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=seen.mask,
        dropout_p=dropout,
        is_causal=seen.is_causal,
        enable_gqa=is_grouped,
    )


def _flex() -> Any:
    # Within a compiled model it is part of that; alone it must be compiled, or it builds the whole score matrix.
    return flex_attention if torch.compiler.is_compiling() else _compiled_flex()


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotary positions (Su 2021, equation 34): pairs (i, i + K/2) turned by their position's angle.

    Args:
        x_BHTK: queries or keys.
        cos_TK, sin_TK: of the angles, float32 [T, K/2] or [B, 1, T, K/2].
    """
    first, second = x_BHTK.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos_TK - second * sin_TK, second * cos_TK + first * sin_TK), dim=-1)
    return turned.type_as(x_BHTK)


def rotary_table(context_length: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * base^(-2i/K), float32 [context_length, K/2] each."""
    rates = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.outer(torch.arange(context_length, dtype=torch.float32), rates)
    return angles.cos(), angles.sin()


class KVCache:
    """Keys and values of what was read so far, in tensors of full length that are written in place.

    Rows may have different lengths. A row's next tokens go to its own next places, so nothing is padded on the left
    and positions are what they are in a full forward.

    Args:
        config: of the model.
        num_rows: B.
        capacity: most tokens a row.
        device, dtype: of the activations.

    Attributes:
        lengths: tokens read so far, a list of B.
    """

    def __init__(
        self, config: ModelConfig, num_rows: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        # Zeros: what is masked is still multiplied by 0, and memory may hold infinities.
        shape = (config.num_layers, 2, num_rows, config.kv_heads, capacity, config.head_width)
        self.store = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = [0] * num_rows
        self._rows = torch.arange(num_rows, device=device)
        self._places = torch.arange(capacity, device=device)
        self.begin(0)

    @property
    def num_rows(self) -> int:
        """Rows, B."""
        return len(self.lengths)

    def begin(self, length: int) -> None:
        """Make ready for a forward over `length` more tokens of every row."""
        self._length = length
        # Rows of one length are sliced; else each is written and masked on its own.
        self._is_even = len(set(self.lengths)) == 1
        self._start = self.lengths[0]
        self._end = max(self.lengths) + length
        device = self._places.device
        if not self._is_even:
            starts = torch.tensor(self.lengths, device=device)
            self._positions_BT = starts[:, None] + self._places[:length]

    def advance(self, counts: list[int] | int) -> None:
        """Count what was read, the same for every row or one number a row (fewer where a row was padded)."""
        counts = [counts] * self.num_rows if isinstance(counts, int) else counts
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def keep(self, rows: list[int]) -> None:
        """Forget all rows but these; they move together in this order."""
        self.store = self.store[:, :, rows].contiguous()
        self.lengths = [self.lengths[row] for row in rows]
        self._rows = self._rows[: len(rows)]

    def positions(self) -> Tensor:
        """Positions of the tokens of this forward, [T] or [B, T]."""
        if self._is_even:
            return self._places[self._start : self._start + self._length]
        return self._positions_BT

    def pattern(self, window: int) -> Pattern:
        """Who of this forward's tokens sees which of the keys that `update` returns for the window."""
        if self._is_even and self._start == 0:
            return pattern(self._length, self._places.device, window=window, kernel="sdpa")
        if self._is_even and self._length == 1:
            return Pattern()
        queries = self.positions().view(-1, 1, self._length, 1)
        keys = self._places[: self._end]
        mask = keys <= queries
        if window:
            mask = mask & (queries - keys < window)
        return Pattern(mask=mask)

    def update(self, layer: int, window: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; all that its queries may see, [B, G, S, K] each."""
        k_store, v_store = self.store[layer, 0], self.store[layer, 1]
        if self._is_even:
            stop = self._start + self._length
            k_store[:, :, self._start : stop] = k_BGTK
            v_store[:, :, self._start : stop] = v_BGTK
        else:
            rows = self._rows[:, None]
            # Advanced indices come first in the indexed view: [B, T, G, K].
            k_store[rows, :, self._positions_BT] = k_BGTK.transpose(1, 2)
            v_store[rows, :, self._positions_BT] = v_BGTK.transpose(1, 2)
        # One more token of even rows sees what its window holds: a slice instead of a mask.
        first = max(0, self._end - window) if window and self._is_even and self._length == 1 else 0
        return k_store[:, :, first : self._end], v_store[:, :, first : self._end]
