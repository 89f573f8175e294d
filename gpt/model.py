"""The network: every GPT of the papers, and a modern one, in one file.

    GPT-1 (Radford 2018)   learned positions, norms after each branch, GELU
    GPT-2 (Radford 2019)   norms before each branch, a last one after all, smaller residual projections
    GPT-3 (Brown 2020)     every second layer sees a band of the context only
    modern                 rotary positions, RMSNorm, normalised queries and keys, squared ReLU, untied capped head

Shapes: B batch, T time (positions), D width, H heads, G heads of keys and values, K width of a head, M width of the
MLP, V vocab_size. `x_BTD` is the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.attention import Kernel, KVCache, Pattern, attend, pattern, rotary_table, rotate
from gpt.config import ModelConfig

# Targets with this value carry no loss: padding rows and masked positions.
IGNORE_INDEX = -100

Role = Literal["embedding", "head", "vector", "matrix"]


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """LayerNorm (Ba 2016) or RMSNorm (Zhang 2019), with or without gain."""
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps, elementwise_affine=config.norm_gain)
    return _LayerNorm(width, config.norm_eps, gain=config.norm_gain, bias=config.bias)


class _LayerNorm(nn.Module):
    """torch's own ties the bias to the gain."""

    def __init__(self, width: int, eps: float, *, gain: bool, bias: bool) -> None:
        super().__init__()
        self.shape, self.eps = (width,), eps
        self.weight = nn.Parameter(torch.ones(width)) if gain else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani 2017); fewer heads of keys and values are shared by groups (Ainslie 2023).

    The rows of `qkv` are those of all query heads, then of all key heads, then of all value heads.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, config.windows[layer]
        self.head_width = config.head_width
        self.rows = [
            heads * config.head_width for heads in (config.num_heads, config.kv_heads, config.kv_heads)
        ]
        self.qkv = nn.Linear(config.width, sum(self.rows), bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.q_norm = self.k_norm = None
        if config.qk_norm:
            self.q_norm, self.k_norm = (
                nn.RMSNorm(config.head_width, eps=config.norm_eps, elementwise_affine=config.norm_gain)
                for _ in range(2)
            )

    def forward(
        self, x_BTD: Tensor, seen: Pattern, rotary: tuple[Tensor, Tensor] | None, cache: KVCache | None
    ) -> Tensor:
        """[B, T, D] to [B, T, D]; `seen` says what each token may attend to, `rotary` has the cosines and sines."""
        q_BHTK, k_BGTK, v_BGTK = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in self.qkv(x_BTD).split(self.rows, dim=-1)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTK, k_BGTK = self.q_norm(q_BHTK), self.k_norm(k_BGTK)
        if rotary is not None:
            q_BHTK, k_BGTK = rotate(q_BHTK, *rotary), rotate(k_BGTK, *rotary)
        if cache is not None:
            k_BGTK, v_BGTK = cache.update(self.layer, self.window, k_BGTK, v_BGTK)
        dropout = self.dropout.p if self.training else 0.0
        y_BHTK = attend(q_BHTK, k_BGTK, v_BGTK, seen, dropout)
        return self.out(y_BHTK.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two linear layers with an activation between.

    GELU (Hendrycks 2016) in the tanh form that GPT-1 and GPT-2 compute; squared ReLU (So 2021); SwiGLU (Shazeer 2020),
    whose `up` has the rows of the gate, then those of what it lets through.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        num_parts = 2 if config.activation == "swiglu" else 1
        self.up = nn.Linear(config.width, num_parts * config.mlp_width, bias=config.bias)
        self.down = nn.Linear(config.mlp_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D], each token by itself."""
        h_BTM = self.up(x_BTD)
        if self.activation == "gelu":
            h_BTM = F.gelu(h_BTM, approximate="tanh")
        elif self.activation == "relu2":
            h_BTM = F.relu(h_BTM).square()
        else:
            gate_BTM, h_BTM = h_BTM.chunk(2, dim=-1)
            h_BTM = F.silu(gate_BTM) * h_BTM
        return self.down(h_BTM)


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream.

    With norms before (GPT-2) a branch reads a normalised copy and the stream itself is never touched; with norms after
    (GPT-1) the sum is normalised.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.is_post_norm = config.norm_place == "post"
        self.attention_norm = make_norm(config, config.width)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config, config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        seen: Pattern,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The stream [B, T, D] behind this block; the arguments are attention's."""
        if self.is_post_norm:
            x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, seen, rotary, cache)))
            return self.mlp_norm(x_BTD + self.dropout(self.mlp(x_BTD)))
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), seen, rotary, cache))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class GPT(nn.Module):
    """A transformer language model.

    Weights are drawn from torch's global generator: seed it first for a reproducible model.

    Args:
        config: its shape; vocab_size must be set by now.
        kernel: of attention under a mask (see `gpt.attention`).

    Raises:
        ConfigError: a shape that cannot be built.
    """

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ModelConfig, kernel: Kernel = "auto") -> None:
        super().__init__()
        config.validate()
        assert config.vocab_size > 0, "vocab_size comes from the dataset before the model is built"
        self.config, self.kernel = config, kernel
        num_rows = replace(config, multitask=False).padded_vocab_size
        self.token_embedding = nn.Embedding(num_rows, config.width)
        self.position_embedding = None
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.width)
        else:
            cos, sin = rotary_table(config.context_length, config.head_width, config.rotary_base)
            # Not part of checkpoints: they follow from the configuration.
            self.rotary_cos, self.rotary_sin = (nn.Buffer(table, persistent=False) for table in (cos, sin))
        self.embedding_norm = make_norm(config, config.width) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        has_final_norm = config.norm_place == "pre"
        self.final_norm = make_norm(config, config.width) if has_final_norm else nn.Identity()
        # A tied head is no module of its own, so that checkpoints hold each weight once.
        self.head = None if config.tie_embeddings else nn.Linear(config.width, num_rows, bias=False)
        _draw_weights(self)
        self.sentence_head = None
        if config.multitask:
            # Drawn last: the other weights are the same with and without it.
            _add_mask_row(self)
            self.sentence_head = nn.Linear(config.width, 2)
            nn.init.normal_(self.sentence_head.weight, std=0.02)
            nn.init.zeros_(self.sentence_head.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    @property
    def head_weight(self) -> Tensor:
        """Matrix of the language head, [padded_vocab_size, D]; the token embedding itself where they are tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def parameter_roles(self) -> dict[str, Role]:
        """Role of each parameter by name, as optimisers tell them apart.

        embedding: looked up, a tied head included; head: an output layer of its own; vector: gains and biases;
        matrix: the weights inside the blocks.
        """
        roles: dict[str, Role] = {}
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                roles[name] = "vector"
            elif name in ("token_embedding.weight", "position_embedding.weight"):
                roles[name] = "embedding"
            elif name in ("head.weight", "sentence_head.weight"):
                roles[name] = "head"
            else:
                assert name.startswith("blocks."), name
                roles[name] = "matrix"
        return roles

    def hidden(
        self,
        tokens_BT: Tensor,
        documents_BT: Tensor | None = None,
        *,
        causal: bool = True,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The stream after the final norm, [B, T, D]: what the language head, or any other head, reads.

        Args:
            tokens_BT: token ids, int64, T at most context_length.
            documents_BT: which document of the sequence a token belongs to, int, never falling along T; tokens see
                and count positions in their own document only. None = one document, or mask_documents is off.
            causal: False lets each token see what follows, too.
            cache: of what stands before `tokens_BT`; they are appended to it, `KVCache.advance` is the caller's.
        """
        length = tokens_BT.size(1)
        assert length <= self.config.context_length, (
            f"{length} tokens, context_length {self.config.context_length}"
        )
        if cache is not None:
            assert causal, "a cache is read from left to right"
            assert documents_BT is None, "a cache is of one document"
            cache.begin(length)
            positions = cache.positions()
        elif documents_BT is not None:
            positions = _positions_in_documents(documents_BT)
        else:
            positions = torch.arange(length, device=tokens_BT.device)
        seen = self._patterns(length, causal, documents_BT, cache)
        x_BTD, rotary = self.embedding_norm(self.token_embedding(tokens_BT)), None
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding(positions)
        else:
            cos, sin = self.rotary_cos[positions], self.rotary_sin[positions]
            # One table for all heads.
            rotary = (cos, sin) if positions.dim() == 1 else (cos[:, None], sin[:, None])
        x_BTD = self.dropout(x_BTD)
        for block, window in zip(self.blocks, self.config.windows, strict=True):
            x_BTD = block(x_BTD, seen[window], rotary, cache)
        return self.final_norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores of the next token, [..., V], from final hidden states [..., D]; padded rows are cut away."""
        scores = self.head(x_BTD) if self.head is not None else F.linear(x_BTD, self.token_embedding.weight)
        logits_BTV = scores[..., : self.config.vocab_size]
        cap = self.config.logit_soft_cap
        # In float32: near the cap, bf16 tells nothing apart.
        return cap * torch.tanh(logits_BTV.float() / cap) if cap else logits_BTV

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """Logits [B, T, V], or with targets the loss of each token [B, T] (see `token_losses`)."""
        logits_BTV = self.logits(self.hidden(tokens_BT, documents_BT))
        return logits_BTV if targets_BT is None else token_losses(logits_BTV, targets_BT)

    def set_dropout(self, dropout: float) -> None:
        """Change the share of dropped activations everywhere: fine-tuning often wants more than pretraining."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GPT:
        # What moves, casts or materialises a module. The rotary tables stay float32 in a bf16 copy, and are there
        # after a model was built on the meta device.
        super()._apply(fn, recurse)
        if self.config.positions == "rotary":
            tables = rotary_table(self.config.context_length, self.config.head_width, self.config.rotary_base)
            self.rotary_cos, self.rotary_sin = (table.to(self.device) for table in tables)
        return self

    def _patterns(
        self, length: int, causal: bool, documents_BT: Tensor | None, cache: KVCache | None
    ) -> dict[int, Pattern]:
        """Who sees whom, by window: made once for all layers that share it."""
        if cache is not None:
            return {window: cache.pattern(window) for window in set(self.config.windows)}
        has_dropout = self.training and self.dropout.p > 0
        return {
            window: pattern(
                length,
                self.device,
                causal=causal,
                window=window,
                documents_BT=documents_BT,
                kernel="sdpa" if has_dropout else self.kernel,
            )
            for window in set(self.config.windows)
        }


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Negative log-likelihood of each target in nats, float32 [B, T]; 0 where the target is IGNORE_INDEX.

    Unreduced, because a mean over one micro-batch of one worker is the wrong mean: the trainer divides by
    the valid tokens of the whole global batch, and sums by source.
    """
    losses_N = F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses_N.view_as(targets_BT)


def _positions_in_documents(documents_BT: Tensor) -> Tensor:
    """Each token's distance from the first of its document, [B, T]."""
    places_T = torch.arange(documents_BT.size(1), device=documents_BT.device)
    is_first_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    is_first_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return places_T - (places_T * is_first_BT).cummax(dim=1).values


@torch.no_grad()
def _draw_weights(model: GPT) -> None:
    """First weights, in the order of the modules.

    gpt1: N(0, 0.02) for all matrices and embeddings (Radford 2018, section 4.1).
    gpt2: the same, positions N(0, 0.01) as its code has them, and projections onto the stream divided by the root of
    the number of branches that add to it (Radford 2019, section 2.3), so that its variance stays put.
    modern: as nanochat and modded-nanogpt have it. Matrices uniform with deviation 1/sqrt(inputs), projections onto
    the stream and the head (nearly) zero, so that a block begins as the identity; embeddings N(0, 1), which
    embedding_norm or the first norm brings to unit length.
    """
    config = model.config
    is_modern = config.init == "modern"
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if is_modern:
                bound = math.sqrt(3 / module.in_features)
                nn.init.uniform_(module.weight, -bound, bound)
            else:
                nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            is_position = module is model.position_embedding
            std = 0.01 if is_position and config.init == "gpt2" else _embedding_std(config)
            nn.init.normal_(module.weight, std=std)
    scale = {"gpt1": 1.0, "gpt2": 1 / math.sqrt(2 * config.num_layers), "modern": 0.0}[config.init]
    for block in model.blocks:
        assert isinstance(block, Block)
        block.attention.out.weight.mul_(scale)
        block.mlp.down.weight.mul_(scale)
    if is_modern and model.head is not None:
        nn.init.normal_(model.head.weight, std=0.001)


def _embedding_std(config: ModelConfig) -> float:
    return 1.0 if config.init == "modern" and not config.tie_embeddings else 0.02


@torch.no_grad()
def _add_mask_row(model: GPT) -> None:
    """Room for the mask where the padding of the vocabulary has none; the head's rows there are never chosen."""
    num_rows, width = model.config.padded_vocab_size, model.config.width
    embedding, head = model.token_embedding, model.head
    num_new = num_rows - embedding.num_embeddings
    if not num_new:
        return
    new_rows = torch.empty(num_new, width).normal_(std=_embedding_std(model.config))
    embedding.weight = nn.Parameter(torch.cat((embedding.weight, new_rows)))
    embedding.num_embeddings = num_rows
    if head is not None:
        head.weight = nn.Parameter(torch.cat((head.weight, torch.zeros_like(new_rows))))
        head.out_features = num_rows
