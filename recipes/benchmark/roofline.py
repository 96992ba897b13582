"""What a machine can do at most, and how much of that a call reaches: arithmetic and memory (the roofline model)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from recipes.benchmark.measured import Machine, Measured
from recipes.benchmark.timing import Timing, synchronize
from recipes.benchmark.work import Work
from slm.training.throughput import peak_flops

_COPIED = 2**26  # float32 values, 256 MiB: more than any cache holds
_TRIALS = 5


@dataclass(frozen=True)
class Share:
    """How much of the machine something reached; None where it was not counted."""

    what: str
    flops: float | None  # a second
    of_flops: float | None
    bytes_per_second: float | None
    of_memory: float | None


def measure_machine(device: str) -> Machine:
    """Multiply large matrices, copy a large tensor; with as many threads as torch has now."""
    where = torch.device(device)
    precisions = [torch.float32, torch.bfloat16] if where.type == "cuda" else [torch.float32]
    source = torch.ones(_COPIED, device=where)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_TRIALS + 1):  # the first one warms up
        synchronize(where)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(where)
        best = min(best, time.perf_counter() - start)
    return Machine(
        {str(dtype).removeprefix("torch."): peak_flops(where, dtype) for dtype in precisions},
        2 * source.nbytes / best,
    )


def share_of(machine: Machine, what: str, work: Work, seconds: float, precision: str = "float32") -> Share:
    """How much of the machine a call reaches that takes so long."""
    peak = machine.peaks[precision].flops
    flops, traffic = work.flops / seconds, work.bytes / seconds
    return Share(
        what,
        flops if work.flops else None,
        flops / peak if work.flops else None,
        traffic if work.bytes else None,
        traffic / machine.bytes_per_second if work.bytes else None,
    )


def shares(measured: Measured) -> list[Share]:
    """Of everything that was timed with its work counted, by the median rounds; empty without a machine."""
    machine = measured.machine
    return [] if machine is None else [share_of(machine, *row) for row in _rows(measured)]


def _rows(measured: Measured) -> Iterator[tuple[str, Work, float, str]]:
    """What was timed, its work, the seconds that took, the precision."""
    timings: list[tuple[str, Timing]] = []
    for name, codec in measured.codecs.items():
        timings += [(f"{name} encode", codec.encode), (f"{name} decode", codec.decode)]
    if (hybrid := measured.hybrid) is not None:
        timings += [
            ("hybrid-codec encode with w2v-BERT 2.0", hybrid.with_teacher),
            ("hybrid-codec waveform encoder", hybrid.waveform_encoder),
            ("DacModel's encoder", hybrid.dac_encoder),
        ]
        if "hybrid-codec" not in measured.codecs:
            timings.append(("hybrid-codec encode", hybrid.encode))
    if (vocoders := measured.bigvgan) is not None:
        timings += [("BigVGAN", vocoders.ours), ("BigVGAN of the package bigvgan", vocoders.theirs)]
    for what, timing in timings:
        if timing.work is not None:
            yield what, timing.work, timing.median, "float32"
    if (training := measured.training) is not None:
        work = Work(training.flops_per_token, 0.0)
        yield "SLM training", work, 1.0 / training.ours.median, training.precision
    if (generation := measured.generation) is not None:
        # every weight is read for every token; what a token computes is next to nothing beside that
        greedy = generation.greedy
        yield (
            "greedy generation",
            Work(
                2.0 * generation.parameters * greedy.tokens, float(generation.parameter_bytes * greedy.tokens)
            ),
            greedy.ours.median,
            "float32",
        )
