"""Speed of a run: tokens and audio a second, model FLOPs utilisation (MFU), memory."""

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slm.packing.blocks import Block

# Dense bfloat16 with 32-bit sums, in TFLOP/s, by a part of the device's name; the first that fits counts.
_BFLOAT16_TFLOPS = {
    "B200": 2250.0,
    "GB200": 2250.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A30": 165.0,
    "A40": 150.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "RTX 6000 Ada": 364.0,
    "RTX A6000": 155.0,
    "MI300X": 1307.0,
    "MI325X": 1307.0,
    "MI250X": 383.0,
}
_TRIALS = 3
_SIDE = {"cpu": 512}  # of the matrices that are multiplied to measure; large enough to be bound by arithmetic
_LARGE_SIDE = 8192


@dataclass(frozen=True)
class Work:
    """Work of training steps; the sums of several processes add up."""

    tokens: float  # positions in blocks
    speech_tokens: float
    pairs: float  # of positions of which one may attend to the other
    predicted: float  # positions with a loss

    SIZE: ClassVar[int] = 4  # numbers in a `work_of`

    @classmethod
    def of(cls, values: Tensor) -> "Work":
        """From a sum of `work_of`."""
        return cls(*values.tolist())


def work_of(blocks: list[Block], speech_start: int, speech_end: int) -> Tensor:
    """The work in blocks as a vector (4,), float64, of `Work`'s fields."""
    work = torch.zeros(Work.SIZE, dtype=torch.float64)
    for block in blocks:
        ids = block["input_ids"]
        work += torch.tensor(
            [
                ids.numel(),
                int(((ids >= speech_start) & (ids < speech_end)).sum()),
                # Positions restart with every document. Each attends to itself and to those before it.
                int(block["position_ids"].sum()) + ids.numel(),
                int((block["loss_weights"] != 0).sum()),
            ],
            dtype=torch.float64,
        )
    return work


class FlopCounter:
    """Floating-point operations that a training step needs; activations recomputed to save memory do not count.

    Two for each weight and token forward, two backward, two more for a weight that learns; and attention as in PaLM
    (arXiv 2204.02311, appendix B), but only for pairs within a document.
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
            # only some of the experts compute, and how many differs by architecture
            self.is_known = False
        heads = getattr(config, "num_attention_heads", 0)
        width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(heads, 1)
        self._attention = 12.0 * heads * width * getattr(config, "num_hidden_layers", 0)

    def __call__(self, work: Work) -> float:
        """Operations of forward and backward pass over this work."""
        return (
            (4 * self._body + 2 * self._learning_body) * work.tokens
            + (4 * self._head + 2 * self._learning_head) * work.predicted
            + self._attention * work.pairs
        )


@dataclass(frozen=True)
class PeakFlops:
    """Peak floating-point operations a second of a device."""

    flops: float
    source: str  # where the number is from


def peak_flops(device: torch.device, dtype: torch.dtype, given_tflops: float | None = None) -> PeakFlops:
    """A device's peak for matrices of this type: `given_tflops`, else its data sheet's, else measured."""
    if given_tflops is not None:
        return PeakFlops(given_tflops * 1e12, "given")
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        if (tflops := listed_tflops(name)) is not None:
            return PeakFlops(tflops * 1e12, f"data sheet of {name}")
    return PeakFlops(_measured(device, dtype), "measured with large matrices")


def listed_tflops(name: str) -> float | None:
    """Data sheet peak of a device by name, for bfloat16; None if it is not listed."""
    return next((tflops for part, tflops in _BFLOAT16_TFLOPS.items() if part in name), None)


@torch.no_grad()
def _measured(device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDE.get(device.type, _LARGE_SIDE)
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_TRIALS + 1):  # the first one warms up
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def report_throughput(
    work: Work,
    seconds: float,
    frames_per_second: float,
    counter: FlopCounter,
    peak: PeakFlops | None,
    processes: int,
) -> dict[str, float]:
    """The log's numbers for the work of all processes in this many seconds.

    frames_per_second: speech tokens of a second of audio. `peak` is that of one device.
    """
    report = {
        "tokens_per_second": work.tokens / seconds,
        "audio_hours_per_second": work.speech_tokens / frames_per_second / 3600 / seconds,
    }
    if counter.is_known and peak is not None:
        rate = counter(work) / seconds / processes
        report |= {"tflops_per_device": rate / 1e12, "mfu": rate / peak.flops}
    return report


def peak_memory_gib(device: torch.device) -> float:
    """The most memory that training has used so far: of the device, or of the process on a CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated() / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**30 if sys.platform == "darwin" else used / 2**20  # bytes there, KiB elsewhere
