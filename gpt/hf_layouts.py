"""Which classes of Hugging Face `transformers` compute what our models do, and by which names they know the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpt.config import ConfigError, ModelConfig


@dataclass(frozen=True)
class Piece:
    """One of our parameters and what it is in a file of Hugging Face; `#` stands for the number of the layer."""

    ours: str
    theirs: tuple[str, ...]
    """One name, or several whose rows, one below the other, are ours."""
    is_transposed: bool = False
    """GPT-2's and GPT-1's Conv1D holds [inputs, outputs]."""
    turns_back: bool = False
    """NanoChat turns rotary pairs the other way; with their halves exchanged that is the same product."""


@dataclass(frozen=True)
class Layout:
    """A class of `transformers`: what it can compute, and where it keeps it."""

    architecture: str
    demands: Mapping[str, tuple[Any, ...]]
    """Values of `_traits` that it computes, by name; all traits that are not here must be False."""
    pieces: tuple[Piece, ...]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    read_config: Callable[[Mapping[str, Any]], ModelConfig]
    prefix: str
    """Of all names but the head's; files of the models without their head lack it."""
    has_biases: bool
    """Whether a file must have every bias; else those that the configuration names."""


def layout_of(config: ModelConfig) -> Layout:
    """The class of `transformers` that computes exactly what a model of this configuration does.

    Raises:
        ConfigError: there is none; names the nearest and each setting that it does not have.
    """
    traits = _traits(config)
    nearest: tuple[Layout, list[str]] | None = None
    for layout in LAYOUTS:
        differences = [
            f"{name} {getattr(config, name)}"
            for name, value in traits.items()
            if value not in layout.demands.get(name, (False,))
        ]
        if not differences:
            return layout
        if nearest is None or len(differences) < len(nearest[1]):
            nearest = layout, differences
    assert nearest is not None
    raise ConfigError(
        f"no class of transformers computes this model exactly; the nearest is {nearest[0].architecture}, which "
        f"does not have: {', '.join(nearest[1])}"
    )


def _traits(config: ModelConfig) -> dict[str, Any]:
    """What decides which class fits, by the names of ModelConfig's fields; numbers only as usual (False) or not."""
    return {
        "positions": config.positions,
        "norm": config.norm,
        "norm_place": config.norm_place,
        "norm_gain": config.norm_gain,
        "embedding_norm": config.embedding_norm,
        "qk_norm": config.qk_norm,
        "activation": config.activation,
        "bias": config.bias,
        "logit_soft_cap": config.logit_soft_cap > 0,
        "window": any(config.windows),
        "num_kv_heads": config.kv_heads != config.num_heads,
        "tie_embeddings": config.tie_embeddings,
        "mlp_ratio": config.mlp_width != 4 * config.width,
        # Its extra head and mask token would be lost.
        "multitask": config.multitask,
    }


# --- GPT-2 and GPT-1: Conv1D, learned positions ---


def _conv(ours: str, theirs: str) -> tuple[Piece, Piece]:
    return (
        Piece(f"{ours}.weight", (f"{theirs}.weight",), is_transposed=True),
        Piece(f"{ours}.bias", (f"{theirs}.bias",)),
    )


def _pair(ours: str, theirs: str) -> tuple[Piece, Piece]:
    return Piece(f"{ours}.weight", (f"{theirs}.weight",)), Piece(f"{ours}.bias", (f"{theirs}.bias",))


def _conv_block(attention_norm: str, mlp_norm: str) -> tuple[Piece, ...]:
    return (
        *_pair("blocks.#.attention_norm", f"transformer.h.#.{attention_norm}"),
        *_conv("blocks.#.attention.qkv", "transformer.h.#.attn.c_attn"),
        *_conv("blocks.#.attention.out", "transformer.h.#.attn.c_proj"),
        *_pair("blocks.#.mlp_norm", f"transformer.h.#.{mlp_norm}"),
        *_conv("blocks.#.mlp.up", "transformer.h.#.mlp.c_fc"),
        *_conv("blocks.#.mlp.down", "transformer.h.#.mlp.c_proj"),
    )


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return _write_gpt1(config) | {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_inner": config.mlp_width,
    }


def _write_gpt1(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "openai-gpt",
        "afn": "gelu",
        "n_positions": config.context_length,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "layer_norm_epsilon": config.norm_eps,
        **{f"{place}_pdrop": config.dropout for place in ("resid", "embd", "attn")},
    }


def _read_gpt2(content: Mapping[str, Any]) -> ModelConfig:
    _only(content, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    for name, value in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        _only(content, name, value)
    inner = content.get("n_inner") or 4 * content["n_embd"]
    return _conv_config(content, inner, ModelConfig())


def _read_gpt1(content: Mapping[str, Any]) -> ModelConfig:
    # Both of its names for it are the tanh form.
    _only(content, "afn", "gelu", "gelu_new")
    return _conv_config(content, 4 * content["n_embd"], ModelConfig(norm_place="post", init="gpt1"))


def _conv_config(content: Mapping[str, Any], inner: int, base: ModelConfig) -> ModelConfig:
    return replace(
        base,
        vocab_size=content["vocab_size"],
        context_length=content.get("n_positions", content.get("n_ctx")),
        num_layers=content["n_layer"],
        num_heads=content["n_head"],
        width=content["n_embd"],
        mlp_ratio=inner / content["n_embd"],
        norm_eps=content.get("layer_norm_epsilon", 1e-5),
        tie_embeddings=content.get("tie_word_embeddings", True),
    )


# --- Llama and its kin: projections of their own, rotary positions ---


def _llama_block(*, has_bias: bool, has_qk_norm: bool) -> tuple[Piece, ...]:
    attention, mlp = "model.layers.#.self_attn", "model.layers.#.mlp"
    pieces = [
        Piece("blocks.#.attention_norm.weight", ("model.layers.#.input_layernorm.weight",)),
        Piece("blocks.#.mlp_norm.weight", ("model.layers.#.post_attention_layernorm.weight",)),
    ]
    for kind in ("weight", "bias") if has_bias else ("weight",):
        pieces += [
            Piece(
                f"blocks.#.attention.qkv.{kind}", tuple(f"{attention}.{part}_proj.{kind}" for part in "qkv")
            ),
            Piece(f"blocks.#.attention.out.{kind}", (f"{attention}.o_proj.{kind}",)),
            Piece(f"blocks.#.mlp.up.{kind}", (f"{mlp}.gate_proj.{kind}", f"{mlp}.up_proj.{kind}")),
            Piece(f"blocks.#.mlp.down.{kind}", (f"{mlp}.down_proj.{kind}",)),
        ]
    if has_qk_norm:
        pieces += [
            Piece(f"blocks.#.attention.{part}_norm.weight", (f"{attention}.{part}_norm.weight",))
            for part in "qk"
        ]
    return tuple(pieces)


_LLAMA_ENDS = (
    Piece("token_embedding.weight", ("model.embed_tokens.weight",)),
    Piece("final_norm.weight", ("model.norm.weight",)),
    Piece("head.weight", ("lm_head.weight",)),
)
_NANOCHAT = (
    Piece("token_embedding.weight", ("model.embed_tokens.weight",)),
    Piece(
        "blocks.#.attention.qkv.weight",
        tuple(f"model.layers.#.self_attn.{part}_proj.weight" for part in "qkv"),
        turns_back=True,
    ),
    Piece("blocks.#.attention.out.weight", ("model.layers.#.self_attn.o_proj.weight",)),
    Piece("blocks.#.mlp.up.weight", ("model.layers.#.mlp.fc1.weight",)),
    Piece("blocks.#.mlp.down.weight", ("model.layers.#.mlp.fc2.weight",)),
    Piece("head.weight", ("lm_head.weight",)),
)


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        # Before and since transformers 5.
        "rope_theta": config.rotary_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
    }


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    windows = config.windows
    return _write_llama(config) | {
        "model_type": "qwen3",
        "use_sliding_window": any(windows),
        "sliding_window": config.window if any(windows) else None,
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
    }


def _write_nanochat(config: ModelConfig) -> dict[str, Any]:
    return _write_llama(config) | {
        "model_type": "nanochat",
        "hidden_act": "relu2",
        "final_logit_softcapping": config.logit_soft_cap or None,
    }


def _read_llama(content: Mapping[str, Any]) -> ModelConfig:
    _only(content, "hidden_act", "silu")
    return _llama_config(
        content,
        activation="swiglu",
        bias=content.get("attention_bias", False) or content.get("mlp_bias", False),
    )


def _read_qwen3(content: Mapping[str, Any]) -> ModelConfig:
    _only(content, "hidden_act", "silu")
    _only(content, "attention_bias", False)
    types = content.get("layer_types") or []
    if not content.get("use_sliding_window"):
        types = []
    elif not types:
        raise ConfigError(
            "use_sliding_window is true, but layer_types does not say for which layers; save it again with a newer "
            "transformers"
        )
    unknown = set(types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ConfigError(f"layer_types has {', '.join(sorted(unknown))}, which this model does not have")
    pattern = "".join("W" if kind == "sliding_attention" else "F" for kind in types)
    window = content.get("sliding_window") or 0
    windows: dict[str, Any] = {"window": window, "window_pattern": pattern} if "W" in pattern else {}
    return _llama_config(content, activation="swiglu", qk_norm=True, bias=False, **windows)


def _read_nanochat(content: Mapping[str, Any]) -> ModelConfig:
    _only(content, "hidden_act", "relu2")
    _only(content, "attention_bias", False)
    return _llama_config(
        content,
        activation="relu2",
        qk_norm=True,
        bias=False,
        norm_gain=False,
        embedding_norm=True,
        logit_soft_cap=content.get("final_logit_softcapping", 15.0) or 0.0,
    )


def _llama_config(content: Mapping[str, Any], **others: Any) -> ModelConfig:
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"rope_type is {kind!r}; this model has the default one only")
    width, num_heads = content["hidden_size"], content["num_attention_heads"]
    head_width = content.get("head_dim") or width // num_heads
    if head_width * num_heads != width:
        raise ConfigError(
            f"head_dim {head_width} times num_attention_heads {num_heads} is not hidden_size {width}, which this model needs"
        )
    return ModelConfig(
        vocab_size=content["vocab_size"],
        context_length=content["max_position_embeddings"],
        num_layers=content["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=content.get("num_key_value_heads") or 0,
        width=width,
        mlp_ratio=content["intermediate_size"] / width,
        positions="rotary",
        rotary_base=rope.get("rope_theta", content.get("rope_theta", 10_000.0)),
        norm="rms",
        norm_eps=content.get("rms_norm_eps", 1e-6),
        tie_embeddings=content.get("tie_word_embeddings", False),
        init="modern",
        **others,
    )


def _only(content: Mapping[str, Any], name: str, *allowed: Any) -> None:
    """Refuse a setting that our model has nothing for; the first value is what a file without it means."""
    value = content.get(name, allowed[0])
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; this model computes {' or '.join(map(repr, allowed))} only")


_EITHER = (False, True)
_LAYER_NORMS = {"positions": ("learned",), "norm": ("layer",), "activation": ("gelu",), "norm_gain": _EITHER}
_ROTARY = {
    "positions": ("rotary",),
    "norm": ("rms",),
    "norm_place": ("pre",),
    "num_kv_heads": _EITHER,
    "tie_embeddings": _EITHER,
    "mlp_ratio": _EITHER,
}
LAYOUTS = (
    Layout(
        "GPT2LMHeadModel",
        _LAYER_NORMS
        | {"norm_place": ("pre",), "bias": _EITHER, "tie_embeddings": _EITHER, "mlp_ratio": _EITHER},
        (
            Piece("token_embedding.weight", ("transformer.wte.weight",)),
            Piece("position_embedding.weight", ("transformer.wpe.weight",)),
            *_conv_block("ln_1", "ln_2"),
            *_pair("final_norm", "transformer.ln_f"),
            Piece("head.weight", ("lm_head.weight",)),
        ),
        _write_gpt2,
        _read_gpt2,
        "transformer.",
        True,
    ),
    Layout(
        "OpenAIGPTLMHeadModel",
        _LAYER_NORMS | {"norm_place": ("post",), "bias": _EITHER, "tie_embeddings": _EITHER},
        (
            Piece("token_embedding.weight", ("transformer.tokens_embed.weight",)),
            Piece("position_embedding.weight", ("transformer.positions_embed.weight",)),
            *_conv_block("ln_1", "ln_2"),
            Piece("head.weight", ("lm_head.weight",)),
        ),
        _write_gpt1,
        _read_gpt1,
        "transformer.",
        True,
    ),
    Layout(
        "LlamaForCausalLM",
        _ROTARY | {"activation": ("swiglu",), "norm_gain": _EITHER, "bias": _EITHER},
        (*_LLAMA_ENDS, *_llama_block(has_bias=True, has_qk_norm=False)),
        _write_llama,
        _read_llama,
        "model.",
        False,
    ),
    Layout(
        "Qwen3ForCausalLM",
        _ROTARY | {"activation": ("swiglu",), "norm_gain": _EITHER, "qk_norm": (True,), "window": _EITHER},
        (*_LLAMA_ENDS, *_llama_block(has_bias=False, has_qk_norm=True)),
        _write_qwen3,
        _read_qwen3,
        "model.",
        False,
    ),
    Layout(
        "NanoChatForCausalLM",
        _ROTARY
        | {
            "activation": ("relu2",),
            "qk_norm": (True,),
            "embedding_norm": (True,),
            "logit_soft_cap": _EITHER,
        },
        _NANOCHAT,
        _write_nanochat,
        _read_nanochat,
        "model.",
        False,
    ),
)
