"""How fast a run is: tokens and audio a second, the share of the device's arithmetic that is used, memory."""

import resource
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slm.packing.blocks import Block
from slm.training.peak_flops import PeakFlops

_WORK = 4


@dataclass(frozen=True)
class Work:
    """What training steps read; sums of several processes add up."""

    tokens: float  # places in blocks
    speech_tokens: float
    pairs: float  # of places of which one may attend to the other
    predicted: float  # places with a loss

    SIZE = _WORK

    @classmethod
    def of(cls, values: Tensor) -> "Work":
        """From the sum of `work_of`s."""
        return cls(*values.tolist())


def work_of(blocks: list[Block], speech_start: int, speech_end: int) -> Tensor:
    """The work in blocks as a vector (4,), float64, of `Work`'s fields."""
    work = torch.zeros(_WORK, dtype=torch.float64)
    for block in blocks:
        ids = block["input_ids"]
        work += torch.tensor(
            [
                ids.numel(),
                int(((ids >= speech_start) & (ids < speech_end)).sum()),
                # Positions restart with every document, and a place attends to itself and what precedes it there.
                int(block["position_ids"].sum()) + ids.numel(),
                int((block["loss_weights"] != 0).sum()),
            ],
            dtype=torch.float64,
        )
    return work


class FlopCounter:
    """Floating-point operations that a training step needs, whatever is recomputed to save memory.

    Two for each weight and token forward, two backward, two more where the weight learns; and attention, as in PaLM
    (arXiv 2204.02311, appendix B), but for the pairs within documents only.
    """

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        self.is_known = True
        self._body = self._learning_body = 0.0
        in_head = {id(module) for module in head.modules()}
        self._head = self._learning_head = 0.0
        for module in model.modules():
            if not isinstance(module, nn.Linear):
                continue
            count = module.weight.numel()
            learning = count if module.weight.requires_grad else 0
            if id(module) in in_head:
                self._head += count
                self._learning_head += learning
            else:
                self._body += count
                self._learning_body += learning
        config: Any = getattr(model, "config", None)
        if any(
            getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")
        ):
            self.is_known = (
                False  # of several experts only some compute, and how many differs by architecture
            )
        heads = getattr(config, "num_attention_heads", 0)
        width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(heads, 1)
        self._attention = 12.0 * heads * width * getattr(config, "num_hidden_layers", 0)

    def __call__(self, work: Work) -> float:
        """For forward and backward passes over this work."""
        return (
            (4 * self._body + 2 * self._learning_body) * work.tokens
            + (4 * self._head + 2 * self._learning_head) * work.predicted
            + self._attention * work.pairs
        )


def report_throughput(
    work: Work,
    seconds: float,
    frames_per_second: float,
    counter: FlopCounter,
    peak: PeakFlops | None,
    processes: int,
) -> dict[str, float]:
    """What a log line says of so much work in so many seconds, by all processes together.

    frames_per_second: speech tokens that a second of audio has. `peak` is a single device's.
    """
    seconds = max(seconds, 1e-9)
    report = {
        "tokens_per_second": work.tokens / seconds,
        "audio_hours_per_second": work.speech_tokens / frames_per_second / 3600 / seconds,
    }
    if counter.is_known and peak is not None:
        rate = counter(work) / seconds / processes
        report |= {"tflops_per_device": rate / 1e12, "mfu": rate / peak.flops}
    return report


def peak_memory_gib(device: torch.device) -> float:
    """The most memory that training has held so far: of the device, or of the process on a CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated() / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**30 if sys.platform == "darwin" else used / 2**20  # bytes there, KiB elsewhere
