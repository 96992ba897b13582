"""Losses on the validation splits, and sums over processes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slm.packing.block_stream import stack
from slm.packing.blocks import PackedBlocks
from slm.training.loss import LossSums, PackedLanguageModel

if TYPE_CHECKING:
    from accelerate import Accelerator


@torch.no_grad()
def validate(
    model: PackedLanguageModel,
    sets: dict[str, PackedBlocks],
    accelerator: "Accelerator",
    blocks_per_forward: int,
    most_blocks: int,
    in_step: bool = False,
) -> dict[str, LossSums]:
    """Losses of each set, over its first `most_blocks` blocks; the same for any number of processes.

    `model` is not wrapped for training; it is left in the mode it came in. `in_step`: it is sharded, so all processes
    run it equally often.
    """
    was_training = model.training
    model.eval()
    sums = {}
    for name, blocks in sets.items():
        count = min(len(blocks), most_blocks)
        own = range(accelerator.process_index, count, accelerator.num_processes)
        total = torch.zeros(LossSums.SIZE, dtype=torch.float64)
        # Parts of a sharded model are gathered by all processes together: all run as often as the busiest.
        most = -(-count // accelerator.num_processes) if in_step else len(own)
        for start in range(0, most, blocks_per_forward):
            mine = own[start : start + blocks_per_forward]
            batch = stack([blocks[index] for index in mine or range(1)], accelerator.device)
            with accelerator.autocast():
                output = model(**batch)
            if mine:
                total += LossSums.vector(output, batch["loss_weights"].sum())
        sums[name] = LossSums.of(sum_over_processes(total, accelerator))
    model.train(was_training)
    return sums


def sum_over_processes(values: Tensor, accelerator: "Accelerator") -> Tensor:
    """float64 values of the CPU, summed over all processes; the same on all of them."""
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), "sum").cpu()
