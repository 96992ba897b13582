"""One run of `bench`: its parts, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from recipes.benchmark.bigvgan import is_installed, time_bigvgan
from recipes.benchmark.codecs import time_codecs
from recipes.benchmark.generation import time_generation
from recipes.benchmark.hybrid import time_hybrid
from recipes.benchmark.measured import Measured
from recipes.benchmark.roofline import measure_machine
from recipes.benchmark.tokenization import (
    LONG_SECONDS,
    TokenizeTiming,
    measure_tokenize_memory,
    time_tokenize,
)
from recipes.benchmark.training import time_training

Part = Literal["codecs", "tokenize", "memory", "generation", "training", "hybrid", "bigvgan", "roofline"]

PUBLISHED = "hh-codec"


@dataclass(frozen=True)
class Effort:
    """How much each part is timed on, and how often.

    `rounds` are of those that take little time; what takes long has at most `long_rounds`.
    """

    seconds: float  # of audio, for codecs
    vocoder_seconds: float
    rounds: int
    long_rounds: int
    tokenize_seconds: float  # with a small codec
    tokenize_published_seconds: float  # with hh-codec
    memory_seconds: float
    generated_tokens: int  # after each prompt
    block_length: int
    blocks: int  # of a training step


FULL = Effort(10.0, 4.0, 7, 3, 1_200.0, 300.0, LONG_SECONDS, 240, 2_048, 4)
QUICK = Effort(1.5, 1.0, 3, 3, 60.0, 20.0, 600.0, 60, 1_024, 1)


def measure(
    parts: Sequence[Part],
    codecs: Sequence[str],
    codec: str,
    model: str,
    effort: Effort,
    threads: int,
    device: str,
) -> Measured:
    """Run the parts with so many threads of torch.

    codecs: what the part `codecs` times; codec, model: what tokenize and generation are timed with;
    tokenize with the preset hh-codec as well, for a small codec leaves little time to hide reading behind.
    """
    rounds, long_rounds = effort.rounds, effort.long_rounds
    counts = "roofline" in parts
    skipped = {}
    if "bigvgan" in parts and not is_installed():
        skipped["bigvgan"] = "the package bigvgan is not installed"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Measured(
            machine=measure_machine(device) if counts else None,
            codecs=time_codecs(codecs, effort.seconds, rounds, device, counts) if "codecs" in parts else {},
            hybrid=time_hybrid(effort.seconds, long_rounds, device, counts) if "hybrid" in parts else None,
            bigvgan=time_bigvgan(effort.vocoder_seconds, long_rounds, device, counts)
            if "bigvgan" in parts and not skipped
            else None,
            tokenize=_time_tokenize(codec, effort, device) if "tokenize" in parts else [],
            memory=measure_tokenize_memory(codec, effort.memory_seconds, device, threads)
            if "memory" in parts
            else None,
            training=time_training(effort.block_length, effort.blocks, long_rounds, device)
            if "training" in parts
            else None,
            generation=time_generation(model, effort.generated_tokens, rounds, device)
            if "generation" in parts
            else None,
            skipped=skipped,
        )
    finally:
        torch.set_num_threads(before)


def _time_tokenize(codec: str, effort: Effort, device: str) -> list[TokenizeTiming]:
    seconds = {PUBLISHED: effort.tokenize_published_seconds}
    return [
        time_tokenize(name, seconds.get(name, effort.tokenize_seconds), effort.long_rounds, device)
        for name in dict.fromkeys((PUBLISHED, codec))
    ]
