"""The network: GPT-2 (Radford 2019) in one file.

Shapes: B batch, T time (positions), D width, H heads, K width of a head, M width of the MLP, V vocab_size.
`x_BTD` is the residual stream.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt.config import ModelConfig

# Targets with this value carry no loss: padding rows and masked positions.
IGNORE_INDEX = -100


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = (
            part_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part_BTD in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        dropout = self.dropout.p if self.training else 0.0
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True)
        return self.out(y_BHTK.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two linear layers with GELU between (the tanh form, as GPT-2's code has it)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width, bias=config.bias)
        self.down = nn.Linear(config.mlp_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTM = F.gelu(self.up(x_BTD), approximate="tanh")
        return self.down(h_BTM)


class Block(nn.Module):
    """Pre-norm transformer block: each branch reads a normalised copy of the stream and adds to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class GPT(nn.Module):
    """A decoder-only transformer language model.

    Weights are drawn from torch's global generator: seed it first for a reproducible model.

    Args:
        config: its shape; vocab_size must be set by now.

    Raises:
        ConfigError: a shape that cannot be built.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config.validate()
        assert config.vocab_size > 0, "vocab_size comes from the dataset before the model is built"
        self.config = config
        self.token_embedding = nn.Embedding(config.padded_vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.context_length, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.width, bias=config.bias)
        # A tied head is no module of its own, so that checkpoints hold each weight once.
        self.head = (
            None if config.tie_embeddings else nn.Linear(config.width, config.padded_vocab_size, bias=False)
        )
        self.apply(_init_weights)
        self._scale_residual_projections()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    def hidden_states(self, tokens_BT: Tensor) -> Tensor:
        """The stream after the final norm, [B, T, D]: what the language head, or any other head, reads.

        Args:
            tokens_BT: token ids, int64, T at most context_length.
        """
        length = tokens_BT.size(1)
        assert length <= self.config.context_length, (
            f"{length} tokens, context_length {self.config.context_length}"
        )
        positions_T = torch.arange(length, device=tokens_BT.device)
        x_BTD = self.dropout(self.token_embedding(tokens_BT) + self.position_embedding(positions_T))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.final_norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores of the next token, [..., V], from final hidden states [..., D]; padded rows are cut away."""
        weight = self.token_embedding.weight if self.head is None else self.head.weight
        return F.linear(x_BTD, weight)[..., : self.config.vocab_size]

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V], or with targets the loss of each token [B, T] (see `token_losses`)."""
        logits_BTV = self.logits(self.hidden_states(tokens_BT))
        return logits_BTV if targets_BT is None else token_losses(logits_BTV, targets_BT)

    def set_dropout(self, dropout: float) -> None:
        """Change the share of dropped activations everywhere: fine-tuning often wants more than pretraining."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout

    def _scale_residual_projections(self) -> None:
        # Radford 2019, section 2.3: 2 branches a layer add to the stream, so that its variance stays put.
        scale = 1 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                with torch.no_grad():
                    parameter.mul_(scale)


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Negative log-likelihood of each target in nats, float32 [B, T]; 0 where the target is IGNORE_INDEX.

    Unreduced, because a mean over one micro-batch of one worker is the wrong mean: the trainer divides by
    the valid tokens of the whole global batch, and sums by source.
    """
    losses_N = F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses_N.view_as(targets_BT)


def _init_weights(module: nn.Module) -> None:
    """N(0, 0.02) for matrices and token embeddings, N(0, 0.01) for positions (GPT-2's code), zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, GPT):
        nn.init.normal_(module.position_embedding.weight, std=0.01)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
