"""Losses on the validation sets, and a watch on the gap between them and the training loss."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from codec.foundation import sum_over_processes
from slm.packing.blocks import PackedBlocks, stack
from slm.training.loss import LossSums, PackedLanguageModel

_MARGIN = 0.01  # of the best validation loss: less may be chance
_EVALUATIONS = 2  # in a row before a warning


@torch.no_grad()
def validate(
    model: PackedLanguageModel,
    sets: dict[str, PackedBlocks],
    accelerator: Accelerator,
    blocks_per_forward: int,
    most_blocks: int,
    in_step: bool = False,
) -> dict[str, LossSums]:
    """Losses of each set over its first `most_blocks` blocks; the same for any number of processes.

    `model` is not wrapped for training, and keeps its mode. `in_step`: it is sharded, so all processes run it equally
    often.
    """
    was_training = model.training
    model.eval()
    sums = {}
    for name, blocks in sets.items():
        count = min(len(blocks), most_blocks)
        own = range(accelerator.process_index, count, accelerator.num_processes)
        total = torch.zeros(LossSums.SIZE, dtype=torch.float64)
        # All processes gather the parts of a sharded model together, so all run as often as the busiest.
        most = -(-count // accelerator.num_processes) if in_step else len(own)
        for start in range(0, most, blocks_per_forward):
            mine = own[start : start + blocks_per_forward]
            batch = stack([blocks[index] for index in mine or range(1)], accelerator.device)
            with accelerator.autocast():
                output = model(**batch)
            if mine:
                total += LossSums.vector(output, batch["loss_weights"].sum()).cpu().double()
        sums[name] = LossSums.of(sum_over_processes(total, accelerator))
    model.train(was_training)
    return sums


@dataclass
class _Best:
    validation: float
    train: float
    worse: int = 0  # evaluations in a row above it while the training loss still fell


@dataclass
class DivergenceWatch:
    """Warns when a model begins to learn its training data by heart; each validation set by itself."""

    best: dict[str, _Best] = field(default_factory=dict)

    def update(self, train: float, validation: Mapping[str, float]) -> list[str]:
        """The warnings after an evaluation, a line each.

        train: the training loss now; validation: losses by the sets' names, in the same unit.
        """
        warnings = []
        for name, loss in validation.items():
            best = self.best.get(name)
            if best is None or loss < best.validation:
                self.best[name] = _Best(loss, train)
                continue
            parted = loss > best.validation * (1 + _MARGIN) and train < best.train
            best.worse = best.worse + 1 if parted else 0
            if best.worse >= _EVALUATIONS:
                warnings.append(
                    f"training and validation part on {name}: validation loss {loss:.3f}, at best "
                    f"{best.validation:.3f}, while the training loss fell from {best.train:.3f} to {train:.3f}; "
                    "more data, dropout or a shorter run would help (the best checkpoint is kept)"
                )
        return warnings

    @classmethod
    def of_log(cls, lines: Iterable[Mapping[str, Any]], only: str = "validation") -> "DivergenceWatch":
        """The watch of a resumed run, from its log.

        only: name of the validation set if there is a single one, because the log does not name it.
        """
        watch, train = cls(), None
        for line in lines:
            train = line.get("train/loss", train)
            found = {
                name.removeprefix("validation/").removesuffix("/loss")
                if name != "validation/loss"
                else "": value
                for name, value in line.items()
                if name.startswith("validation/") and name.endswith("/loss") and value is not None
            }
            if len(found) > 1:
                found.pop("", None)  # all sets together
            if found and train is not None:
                watch.update(train, {name or only: loss for name, loss in found.items()})
        return watch
