"""Models to and from the layout of Hugging Face `transformers`: config.json and model.safetensors.

    python -m gpt.hf export workspace/models/NAME folder-for-transformers
    python -m gpt.hf import folder-of-transformers workspace/models/NAME

    GPT2LMHeadModel        GPT-2
    OpenAIGPTLMHeadModel   GPT-1
    LlamaForCausalLM       rotary, RMSNorm, SwiGLU
    Qwen3ForCausalLM       the same with normalised queries and keys; windows too
    NanoChatForCausalLM    the modern presets

What a class cannot compute exactly is refused with the reason, in both directions. What it computes with parameters
that the model lacks is exact too: absent biases are written as zeros, absent gains as ones. Neither direction needs
`transformers`; tests compare the logits with it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from gpt.checkpoint import atomic_folder, export_model, load_model
from gpt.config import ConfigError, ModelConfig
from gpt.hf_layouts import LAYOUTS, Layout, Piece, layout_of
from gpt.model import GPT

CONFIG_FILE, MODEL_FILE, INDEX_FILE = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def export_hf(
    folder: Path, model: GPT, tokenizer_json: Path | None = None, *, end_of_text: str | None = None
) -> str:
    """Write a model that `transformers.AutoModelForCausalLM.from_pretrained` opens; returns the name of its class.

    Args:
        folder: replaced if it is there.
        model: float32 weights; padded rows of the vocabulary are left out.
        tokenizer_json: copied, so that `AutoTokenizer` opens it.
        end_of_text: its token that ends a document; begins one, too.

    Raises:
        ConfigError: no class there computes what this model does; says why.
    """
    layout = layout_of(model.config)
    content = {
        "architectures": [layout.architecture],
        "torch_dtype": "float32",
        **layout.write_config(model.config),
        "vocab_size": model.config.vocab_size,
        "tie_word_embeddings": model.config.tie_embeddings,
        # Unless told, transformers would take the numbers of the original models' tokenizers.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    tokenizer_config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.context_length,
    }
    if tokenizer_json is not None and end_of_text is not None:
        end_id = _token_id(tokenizer_json, end_of_text)
        content |= {"bos_token_id": end_id, "eos_token_id": end_id}
        tokenizer_config |= {"bos_token": end_of_text, "eos_token": end_of_text}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        save_file(_to_theirs(model, layout), partial / MODEL_FILE, metadata={"format": "pt"})
        _write_json(partial / CONFIG_FILE, content)
        if tokenizer_json is not None:
            shutil.copyfile(tokenizer_json, partial / TOKENIZER_FILE)
            _write_json(partial / TOKENIZER_CONFIG_FILE, tokenizer_config)
    return layout.architecture


def import_hf(folder: Path, device: torch.device | str = "cpu") -> GPT:
    """Read a folder of `transformers` that holds a model of one of the classes above; float32, evaluation mode.

    Raises:
        ConfigError: no such folder, another class, a setting or a tensor that our model has nothing for.
    """
    content = _read_json(folder / CONFIG_FILE)
    names = content.get("architectures") or []
    layout = next((layout for layout in LAYOUTS if layout.architecture in names), None)
    if layout is None:
        known = ", ".join(layout.architecture for layout in LAYOUTS)
        raise ConfigError(
            f"{folder / CONFIG_FILE}: architectures is {names}; those that can be read are {known}"
        )
    try:
        config = layout.read_config(content)
        config.validate()
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from None
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / CONFIG_FILE} is not the file of a {layout.architecture}: {type(error).__name__} {error}"
        ) from None
    tensors = _named_as_in_layout(_read_tensors(folder), layout, config.tie_embeddings)
    model = GPT(config)
    model.load_state_dict(_to_ours(tensors, model, layout, folder))
    return model.to(device).eval()


def _to_theirs(model: GPT, layout: Layout) -> dict[str, Tensor]:
    config = model.config
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for piece, layer in _expand(layout, config):
        ours = piece.ours.replace("#", str(layer))
        tensor = state.get(ours)
        if tensor is None and ours.endswith(".bias") and not layout.has_biases:
            continue
        if tensor is None:
            # Of what the class has and the model lacks: a gain of ones, a bias of zeros.
            is_gain = ours.endswith("norm.weight")
            tensor = torch.full((_vector_width(ours, config),), float(is_gain))
        if ours in ("token_embedding.weight", "head.weight"):
            tensor = tensor[: config.vocab_size]
        if piece.turns_back:
            tensor = _exchange_halves(tensor, config)
        parts = tensor.split(_rows(ours, config)) if len(piece.theirs) > 1 else (tensor,)
        for name, part in zip(piece.theirs, parts, strict=True):
            part = part.t() if piece.is_transposed else part
            tensors[name.replace("#", str(layer))] = part.contiguous().clone()
    return tensors


def _to_ours(tensors: dict[str, Tensor], model: GPT, layout: Layout, folder: Path) -> dict[str, Tensor]:
    config = model.config
    state: dict[str, Tensor] = {}
    for piece, layer in _expand(layout, config):
        ours = piece.ours.replace("#", str(layer))
        names = [name.replace("#", str(layer)) for name in piece.theirs]
        if ours.endswith(".bias") and not layout.has_biases and names[0] not in tensors:
            continue
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ConfigError(f"{folder} has no tensor {missing[0]}; is the download complete?")
        parts = [tensors.pop(name).float() for name in names]
        tensor = torch.cat([part.t() if piece.is_transposed else part for part in parts])
        if piece.turns_back:
            tensor = _exchange_halves(tensor, config)
        if ours in ("token_embedding.weight", "head.weight"):
            tensor = F.pad(tensor, (0, 0, 0, config.padded_vocab_size - config.vocab_size))
        state[ours] = tensor
    if tensors:
        raise ConfigError(
            f"{folder} has tensors that this model has nothing for: {', '.join(sorted(tensors)[:5])}"
        )
    for name, wanted in model.state_dict().items():
        # Some biases of a model, but not all: one that is not there is one of zeros.
        tensor = state.setdefault(name, torch.zeros_like(wanted))
        if tensor.shape != wanted.shape:
            raise ConfigError(
                f"{folder}: {name} is {tuple(tensor.shape)}, {CONFIG_FILE} asks for {tuple(wanted.shape)}"
            )
    return state


def _expand(layout: Layout, config: ModelConfig) -> list[tuple[Piece, int]]:
    """Pieces with the layers they stand for; a tied head is the embedding."""
    return [
        (piece, layer)
        for piece in layout.pieces
        for layer in (range(config.num_layers) if "#" in piece.ours else range(1))
        if not (piece.ours == "head.weight" and config.tie_embeddings)
    ]


def _rows(ours: str, config: ModelConfig) -> list[int]:
    if ".attention.qkv." in ours:
        return [heads * config.head_width for heads in (config.num_heads, config.kv_heads, config.kv_heads)]
    assert ".mlp.up." in ours
    return [config.mlp_width] * 2


def _vector_width(ours: str, config: ModelConfig) -> int:
    if ".attention.qkv." in ours:
        return sum(_rows(ours, config))
    if ".mlp.up." in ours:
        return config.mlp_width * (2 if config.activation == "swiglu" else 1)
    return config.head_width if ours.endswith(("q_norm.weight", "k_norm.weight")) else config.width


def _exchange_halves(qkv: Tensor, config: ModelConfig) -> Tensor:
    """The rows of each query and key head with their halves exchanged; undoes itself."""
    num_turned = (config.num_heads + config.kv_heads) * config.head_width
    turned = qkv[:num_turned].unflatten(0, (-1, 2, config.head_width // 2)).flip(1).flatten(0, 2)
    return torch.cat((turned, qkv[num_turned:]))


def _named_as_in_layout(tensors: Mapping[str, Tensor], layout: Layout, is_tied: bool) -> dict[str, Tensor]:
    """With the prefix that older files lack, without masks that were once stored, without the copy of a tied head."""
    named = {}
    for name, tensor in tensors.items():
        if name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")):
            continue
        if not name.startswith((layout.prefix, "lm_head.")):
            name = layout.prefix + name
        named[name] = tensor
    if is_tied:
        named.pop("lm_head.weight", None)
    return named


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of one file, or of the files that an index names."""
    names = [MODEL_FILE]
    if (folder / INDEX_FILE).exists():
        names = sorted(set(_read_json(folder / INDEX_FILE).get("weight_map", {}).values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        # A name from a file: it must stay inside the folder.
        if Path(name).name != name:
            raise ConfigError(f"{folder / INDEX_FILE} names {name!r}, which is no file of its own folder")
        try:
            tensors |= load_file(folder / name)
        except FileNotFoundError:
            raise ConfigError(
                f"{folder / name} is missing; only safetensors are read (pickled .bin files can run code)"
            ) from None
        except SafetensorError as error:
            raise ConfigError(f"{folder / name} is damaged ({error}); fetch it again") from None
    return tensors


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} is missing; name a folder with {CONFIG_FILE} and {MODEL_FILE}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _token_id(tokenizer_json: Path, token: str) -> int:
    for entry in _read_json(tokenizer_json).get("added_tokens", []):
        if entry.get("content") == token:
            return int(entry["id"])
    raise ConfigError(f"{tokenizer_json} has no special token {token!r}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 where the user's folders are wrong."""
    parser = argparse.ArgumentParser(prog="python -m gpt.hf", description="Models to and from transformers.")
    parser.add_argument("direction", choices=("export", "import"))
    parser.add_argument("source", type=Path, help="folder to read")
    parser.add_argument("target", type=Path, help="folder to write, which must not be there")
    parser.add_argument("--end-of-text", default="<|endoftext|>", help="token that ends a document")
    options = parser.parse_args(arguments)
    try:
        if options.target.exists():
            raise ConfigError(f"{options.target} is there already; name another folder, or remove it")
        if options.direction == "export":
            model, _ = load_model(options.source)
            tokenizer_json = options.source / TOKENIZER_FILE
            name = export_hf(options.target, model, tokenizer_json, end_of_text=options.end_of_text)
        else:
            model, tokenizer_json = import_hf(options.source), options.source / TOKENIZER_FILE
            if not tokenizer_json.exists():
                raise ConfigError(
                    f"{tokenizer_json} is missing; a model without its tokenizer is of no use here"
                )
            extra = {"imported_from": options.source.name}
            export_model(options.target, model, model.config, tokenizer_json, extra)
            name = "gptmill model"
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.target}: {name}, {model.config.num_parameters() / 1e6:.1f} M parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
