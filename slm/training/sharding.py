"""Weights, gradients and optimizer state shared out over processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

`accelerate config` says whether and how; the sharding itself is done here, because accelerate's own quietly becomes
plain data parallelism on a CPU, and because what it would wrap is the model without the loss. Each decoder layer is
gathered when it is needed; embedding, last norm and head belong to the root, which stays gathered through the step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from codec.foundation import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.tensor import DTensor

    from slm.training.loss import PackedLanguageModel


def launcher_shards() -> bool:
    """Whether `accelerate launch` was configured for FSDP; raises UserError for its first version."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() not in ("true", "1"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("accelerate is configured for FSDP 1: say fsdp_version: 2 in its config")
    return True


def shard(model: "PackedLanguageModel", accelerator: "Accelerator") -> None:
    """Share a model out over all processes, in place: its parameters become their local parts.

    Call it before the optimizer is made. Raises UserError for a single process, and where layers are not to be found.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy, fully_shard

    if accelerator.num_processes == 1:
        raise UserError("sharding is full, but there is one process: nothing to share a model out over")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    offload = getattr(plugin, "cpu_offload", None)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    half = accelerator.mixed_precision == "bf16"
    settings: dict[str, Any] = {
        "mesh": mesh,
        # Weights travel in 16 bits, gradients are added up in 32.
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


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder's repeated layers; raises UserError for an architecture that does not name them."""
    base: Any = getattr(model, "base_model", model)
    for name in ("layers", "h", "blocks"):
        if isinstance(layers := getattr(base, name, None), nn.ModuleList):
            return list(layers)
    raise UserError(
        f"a {type(model).__name__} has no list of layers that could be shared out or dropped out of"
    )


@contextmanager
def gradients_wait(model: nn.Module, wait: bool) -> Iterator[None]:
    """While it lasts, a sharded model adds gradients up without sending them around."""
    shared: Any = model
    shared.set_requires_gradient_sync(not wait)
    try:
        yield
    finally:
        shared.set_requires_gradient_sync(True)


def is_sharded(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether a tensor is this process's part of one."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts, for which all processes must ask together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def gathered(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Tensors with all their parts, on the CPU, one after the other; nothing where `keep` is False.

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
    """Copy whole values into a parameter, of which this process may hold a part."""
    if is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor

        # Every process has read the values: none has to be sent them.
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
