"""How fast training is, in tokens and as a share of what the device could do (MFU, Chowdhery 2022, appendix B)."""

from __future__ import annotations

import torch

from gpt.config import ModelConfig

# Dense bf16 peak in FLOP/s from the vendor's data sheets, by a part of the device's name. SXM parts where there are
# several; a device that is not here has no MFU rather than a wrong one.
PEAK_BF16_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def flops_per_token(config: ModelConfig) -> float:
    """Training FLOPs a token, 6N + 12 L d T.

    N is the parameters in matrix products: all but the looked-up embeddings (a tied token embedding is the head,
    so it counts once). 12 L d T is attention, scores and values, forward and backward, without the causal half.
    """
    looked_up = config.context_length * config.width
    if not config.tie_embeddings:
        looked_up += config.padded_vocab_size * config.width
    in_products = config.num_parameters() - looked_up
    return 6 * in_products + 12 * config.num_layers * config.width * config.context_length


def peak_flops(device: torch.device) -> float | None:
    """bf16 peak of a device, None where the table does not know it (every CPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    # Longest first: "L4" is also a part of "L40S".
    for part in sorted(PEAK_BF16_FLOPS, key=len, reverse=True):
        if part in name:
            return PEAK_BF16_FLOPS[part]
    return None


def utilisation(config: ModelConfig, tokens_per_second: float, device: torch.device) -> float | None:
    """MFU of one device that trains on `tokens_per_second`, None where its peak is unknown."""
    peak = peak_flops(device)
    return tokens_per_second * flops_per_token(config) / peak if peak else None
