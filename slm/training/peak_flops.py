"""What a device can multiply at most: from its data sheet where it is known, else as measured here."""

import time
from dataclasses import dataclass

import torch

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
class PeakFlops:
    """Floating-point operations a second, and where the number is from."""

    flops: float
    source: str


def peak_flops(device: torch.device, dtype: torch.dtype, given_tflops: float | None = None) -> PeakFlops:
    """A device's peak for matrices of this type; `given_tflops` wins over table and measurement."""
    if given_tflops is not None:
        return PeakFlops(given_tflops * 1e12, "given")
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        if (tflops := listed_tflops(name)) is not None:
            return PeakFlops(tflops * 1e12, f"data sheet of {name}")
    return PeakFlops(_measured(device, dtype), "measured with large matrices")


def listed_tflops(name: str) -> float | None:
    """Of a device by name, for bfloat16; None where it is not listed."""
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
