"""Weights, gradients and optimizer state sharded over processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

`accelerate config` decides whether and how. The sharding itself is done here: accelerate's own silently becomes plain
data parallelism on a CPU, and it would wrap the model without the loss. Each decoder layer is gathered when it is
needed. Embedding, last norm and head belong to the root, which stays gathered through the step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from codec.foundation import UserError
from slm.models.build import decoder_layers
from slm.training.loss import PackedLanguageModel


def launcher_shards() -> bool:
    """Whether `accelerate launch` was configured for FSDP; raises UserError for its first version."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() not in ("true", "1"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("accelerate is configured for FSDP 1: say fsdp_version: 2 in its config")
    return True


def shard(model: PackedLanguageModel, accelerator: Accelerator) -> None:
    """Shard a model over all processes in place: its parameters become local parts.

    Call it before the optimizer is made. Raises UserError for a single process, and for a model without known layers.
    """
    if accelerator.num_processes == 1:
        raise UserError("sharding is full, but there is one process: nothing to share a model out over")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    offload = getattr(plugin, "cpu_offload", None)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    half = accelerator.mixed_precision == "bf16"
    settings: dict[str, Any] = {
        "mesh": mesh,
        # Weights are sent in 16 bits, gradients are summed in 32.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None,
            reduce_dtype=torch.float32 if half else None,
            cast_forward_inputs=False,
        ),
        "offload_policy": offload if isinstance(offload, OffloadPolicy) else OffloadPolicy(),
    }
    reshard = getattr(plugin, "reshard_after_forward", True)
    for layer in decoder_layers(model.model):
        fully_shard(layer, reshard_after_forward=True if reshard is None else reshard, **settings)
    fully_shard(model, reshard_after_forward=False, **settings)


@contextmanager
def gradients_wait(model: nn.Module, wait: bool) -> Iterator[None]:
    """Within the context a sharded model accumulates gradients without communication."""
    shared: Any = model
    shared.set_requires_gradient_sync(not wait)
    try:
        yield
    finally:
        shared.set_requires_gradient_sync(True)


def let_go(model: nn.Module) -> None:
    """Free what a sharded model has gathered, so that the next forward pass gathers the parts as they are then.

    After a forward pass without a backward one the root is still whole, and changes of the parts would be passed over.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts. All processes must call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Tensors with all their parts, on the CPU, gathered one by one; nothing where `keep` is False.

    All processes must call it together, with the same names.
    """
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            kept[name] = full.cpu()
        del full
    return kept


@torch.no_grad()
def fill(parameter: Tensor, values: Tensor) -> None:
    """Copy whole values into a parameter of which this process may hold a part."""
    if isinstance(parameter, DTensor):
        # Every process has read the values, so none has to be sent.
        parameter.copy_(
            distribute_tensor(
                values.to(parameter.device, parameter.dtype),
                parameter.device_mesh,
                parameter.placements,
                src_data_rank=None,
            )
        )
    else:
        parameter.copy_(values)
