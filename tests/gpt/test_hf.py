"""Exported models open in transformers and compute the same; models written by transformers open here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt.checkpoint import export_model, load_model
from gpt.config import ConfigError, ModelConfig
from gpt.generate import generate
from gpt.hf import export_hf, import_hf, main
from gpt.model import GPT

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

BASE = ModelConfig(vocab_size=101, context_length=48, num_layers=3, num_heads=4, width=64)
LLAMA = replace(
    BASE,
    positions="rotary",
    norm="rms",
    activation="swiglu",
    mlp_ratio=2.5,
    num_kv_heads=2,
    bias=False,
    tie_embeddings=False,
)
NANOCHAT = replace(
    LLAMA,
    activation="relu2",
    qk_norm=True,
    norm_gain=False,
    embedding_norm=True,
    logit_soft_cap=15.0,
    num_heads=2,
    num_kv_heads=1,
)
CONFIGS = {
    "gpt2": (BASE, "GPT2LMHeadModel"),
    "gpt2-untied": (replace(BASE, tie_embeddings=False, mlp_ratio=3.0), "GPT2LMHeadModel"),
    "gpt2-no-biases": (replace(BASE, bias=False), "GPT2LMHeadModel"),
    "gpt2-no-gains": (replace(BASE, norm_gain=False), "GPT2LMHeadModel"),
    "gpt1": (replace(BASE, norm_place="post", init="gpt1"), "OpenAIGPTLMHeadModel"),
    "llama": (LLAMA, "LlamaForCausalLM"),
    "llama-biases": (replace(LLAMA, bias=True, tie_embeddings=True), "LlamaForCausalLM"),
    "llama-base": (
        replace(LLAMA, rotary_base=500_000.0, num_kv_heads=0, norm_gain=False),
        "LlamaForCausalLM",
    ),
    "qwen3": (replace(LLAMA, qk_norm=True), "Qwen3ForCausalLM"),
    "qwen3-windows": (replace(LLAMA, qk_norm=True, window=5, window_pattern="WF"), "Qwen3ForCausalLM"),
    "nanochat": (NANOCHAT, "NanoChatForCausalLM"),
    "nanochat-no-cap": (replace(NANOCHAT, logit_soft_cap=0.0, tie_embeddings=True), "NanoChatForCausalLM"),
}
TOKENS = torch.randint(0, 101, (3, 48), generator=torch.Generator().manual_seed(4))


def scattered(config: ModelConfig, seed: int = 0) -> GPT:
    """A model with every parameter away from its first value, so that none can be forgotten unnoticed."""
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@torch.no_grad()
def theirs_of(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_an_exported_model_has_the_same_logits_there_and_back(tmp_path: Path, name: str):
    config, architecture = CONFIGS[name]
    model = scattered(config)
    assert export_hf(tmp_path / "m", model) == architecture
    theirs = theirs_of(tmp_path / "m")
    assert type(theirs).__name__ == architecture
    expected = theirs(TOKENS).logits
    ours = model(TOKENS)
    assert ours.abs().max() > 0.5, "logits far from 0, so that the comparison means something"
    assert (ours - expected).abs().max() < 1e-4
    back = import_hf(tmp_path / "m")
    # Exact: the very weights come back; what was filled in computes the same.
    assert (back(TOKENS) - ours).abs().max() < 1e-5
    assert back.config.padded_vocab_size == 128
    # And what transformers writes itself, with its own defaults in config.json.
    theirs.save_pretrained(tmp_path / "theirs")
    assert (import_hf(tmp_path / "theirs")(TOKENS) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "theirs_config",
    [
        transformers.GPT2Config(vocab_size=101, n_positions=48, n_embd=64, n_layer=3, n_head=4),
        transformers.OpenAIGPTConfig(vocab_size=101, n_positions=48, n_embd=64, n_layer=3, n_head=4),
    ],
    ids=["gpt2", "gpt1"],
)
@torch.no_grad()
def test_greedy_decoding_is_equal_token_by_token(tmp_path: Path, theirs_config):
    torch.manual_seed(1)
    theirs_config.eos_token_id = None
    theirs = transformers.AutoModelForCausalLM.from_config(theirs_config).eval()
    for name, parameter in theirs.named_parameters():
        # Drawn as they are, one token follows itself for ever: make weights matter, positions most.
        is_position = "wpe" in name or "positions" in name
        parameter.mul_(40 if is_position else 4) if parameter.dim() == 2 else parameter.add_(
            torch.randn_like(parameter) * 0.1
        )
    theirs.save_pretrained(tmp_path)
    ours = import_hf(tmp_path)
    assert (ours(TOKENS) - theirs(TOKENS).logits).abs().max() < 1e-4
    prompts = TOKENS[:, :8]
    expected = theirs.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=40, do_sample=False, pad_token_id=0
    )
    for row, tokens in zip(prompts.tolist(), expected[:, 8:].tolist(), strict=True):
        assert generate(ours, row, 40, temperature=0) == tokens
        assert len({*tokens}) > 8, "no loop of a few tokens, which would be equal too easily"


def test_a_download_without_prefix_and_with_stored_masks_opens(tmp_path: Path):
    # As the files of openai-community/gpt2 are.
    from safetensors.torch import load_file, save_file

    model = scattered(BASE)
    export_hf(tmp_path, model)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 48, 48)
    save_file(old, tmp_path / "model.safetensors")
    assert torch.equal(import_hf(tmp_path)(TOKENS), model(TOKENS))


def test_the_tokenizer_goes_with_the_model(tmp_path: Path):
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "<|endoftext|>": 2}, []))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    export_hf(tmp_path / "m", scattered(BASE), tmp_path / "tokenizer.json", end_of_text="<|endoftext|>")
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert loaded("ab<|endoftext|>")["input_ids"] == [0, 1, 2]
    assert loaded.eos_token_id == theirs_of(tmp_path / "m").config.eos_token_id == 2
    with pytest.raises(ConfigError, match="no special token '<end>'"):
        export_hf(tmp_path / "n", scattered(BASE), tmp_path / "tokenizer.json", end_of_text="<end>")


@pytest.mark.parametrize(
    ("change", "nearest", "reason"),
    [
        ({"window": 8, "window_pattern": "FW"}, "GPT2LMHeadModel", "window 8"),
        ({"logit_soft_cap": 30.0}, "GPT2LMHeadModel", "logit_soft_cap 30"),
        ({"norm_place": "post", "mlp_ratio": 3.0}, "GPT2LMHeadModel", "norm_place post"),
        (
            {"norm_place": "post", "init": "gpt1", "window": 8, "window_pattern": "W"},
            "OpenAIGPTLMHeadModel",
            "window 8",
        ),
        ({"multitask": True}, "GPT2LMHeadModel", "multitask True"),
        ({"activation": "relu2"}, "GPT2LMHeadModel", "activation relu2"),
    ],
)
def test_what_no_class_computes_is_refused_with_the_reason(
    tmp_path: Path, change: dict, nearest: str, reason: str
):
    with pytest.raises(ConfigError, match=f"nearest is {nearest}, .*{reason}"):
        export_hf(tmp_path / "m", GPT(replace(BASE, **change)))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"architectures": ["BertModel"]}, "GPT2LMHeadModel"),
        ({"n_head": 5}, "num_heads 5 does not divide"),
        ({"n_layer": 4}, "no tensor transformer.h.3"),
        ({"n_layer": 2}, "nothing for: transformer.h.2"),
        ({"n_positions": 12}, "position_embedding.weight"),
        ({"n_layer": "three"}, "not the file of a GPT2LMHeadModel"),
    ],
)
def test_a_file_that_cannot_be_read_faithfully_is_refused(tmp_path: Path, change: dict, message: str):
    export_hf(tmp_path, scattered(BASE))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(ConfigError, match=message):
        import_hf(tmp_path)


def test_missing_damaged_and_strange_files_say_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="is missing"):
        import_hf(tmp_path / "nowhere")
    export_hf(tmp_path, scattered(BASE))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="damaged"):
        import_hf(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="only safetensors"):
        import_hf(tmp_path)
    index = {"weight_map": {"a": "../../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="no file of its own folder"):
        import_hf(tmp_path)


@torch.no_grad()
def test_a_model_in_several_files_opens(tmp_path: Path):
    export_hf(tmp_path / "m", scattered(LLAMA))
    theirs = theirs_of(tmp_path / "m")
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert (import_hf(tmp_path / "parts")(TOKENS) - theirs(TOKENS).logits).abs().max() < 1e-4


def test_the_command_line_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture):
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "<|endoftext|>": 2}, []))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = scattered(BASE)
    export_model(tmp_path / "ours", model, BASE, tmp_path / "tokenizer.json")
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "theirs")]) == 0
    assert "GPT2LMHeadModel, 0.2 M parameters" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "back")]) == 0
    assert torch.equal(load_model(tmp_path / "back")[0](TOKENS), model(TOKENS))
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "back")]) == 2
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
