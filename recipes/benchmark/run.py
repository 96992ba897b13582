"""One run of `bench`: its parts, one after the other."""

from collections.abc import Sequence

import torch

from recipes.benchmark.bigvgan import is_installed, time_bigvgan
from recipes.benchmark.codecs import time_codecs
from recipes.benchmark.config import Effort, Part
from recipes.benchmark.generation import time_generation
from recipes.benchmark.hybrid import time_hybrid
from recipes.benchmark.measured import Measured
from recipes.benchmark.roofline import measure_machine
from recipes.benchmark.tokenization import (
    TokenizeTiming,
    measure_tokenize_memory,
    time_tokenize,
)
from recipes.benchmark.training import time_training

PUBLISHED = "hh-codec"


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
