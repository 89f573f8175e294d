"""One model on many workers: whole copies (DDP), or shards of it (FSDP2); recomputed, or as it is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from gpt.config import TrainConfig
from gpt.model import GPT
from gpt.objectives import TrainingLoss


def prepare(model: GPT, config: TrainConfig, device: torch.device) -> None:
    """Change a fresh model in place to what training needs, before its optimizers are built: recomputation, shards."""
    if config.recompute:
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if config.parallel == "fsdp" and dist.is_initialized() and dist.get_world_size() > 1:
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        policy = MixedPrecisionPolicy()
        if config.precision == "bf16":
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        # The rest: embeddings, last norm, head. Its forward is `hidden`, and the loss uses the head's weight after it.
        fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        register_fsdp_forward_method(model, "hidden")


def distributed(loss: TrainingLoss, device: torch.device, world_size: int) -> nn.Module:
    """The loss whose backward exchanges gradients between the workers; copies rank 0's weights to all (DDP)."""
    if world_size == 1 or isinstance(loss.model, FSDPModule):
        return loss
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        loss, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
    )


def gradients_synced(module: nn.Module, synced: bool) -> AbstractContextManager:
    """Workers exchange gradients once a step, in the backward of the last micro-batch."""
    if isinstance(module, DistributedDataParallel):
        return nullcontext() if synced else module.no_sync()
    if isinstance(module, TrainingLoss) and isinstance(module.model, FSDPModule):
        module.model.set_requires_gradient_sync(synced)
    return nullcontext()


def whole_state(model: GPT) -> dict[str, Tensor]:
    """Weights by name, whole; of a sharded model on the CPU of rank 0, all workers must call."""
    if not isinstance(model, FSDPModule):
        return model.state_dict()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(model, options=options))  # type: ignore[arg-type]
