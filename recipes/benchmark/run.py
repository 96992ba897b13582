"""One run of `bench`: its parts, one after the other, and all that they found out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from recipes.benchmark.codecs import (
    BigVGANTiming,
    CodecTiming,
    HybridTiming,
    bigvgan_is_installed,
    time_bigvgan,
    time_codecs,
    time_hybrid,
)
from recipes.benchmark.config import Effort, Part
from recipes.benchmark.generation import GenerationTiming, time_generation
from recipes.benchmark.tokenization import (
    TokenizeMemory,
    TokenizeTiming,
    measure_tokenize_memory,
    time_tokenize,
)
from recipes.benchmark.training import TrainingTiming, time_training

PUBLISHED = "hh-codec"


@dataclass(frozen=True)
class Measured:
    """The parts that ran; None or empty for the others."""

    codecs: dict[str, CodecTiming]
    tokenize: list[TokenizeTiming] = field(default_factory=list)  # one for each codec
    memory: TokenizeMemory | None = None
    generation: GenerationTiming | None = None
    training: TrainingTiming | None = None
    hybrid: HybridTiming | None = None
    bigvgan: BigVGANTiming | None = None
    skipped: dict[str, str] = field(default_factory=dict)  # parts that could not run, and why


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
    skipped = {}
    if "bigvgan" in parts and not bigvgan_is_installed():
        skipped["bigvgan"] = "the package bigvgan is not installed"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Measured(
            codecs=time_codecs(codecs, effort.seconds, rounds, device) if "codecs" in parts else {},
            hybrid=time_hybrid(effort.seconds, long_rounds, device) if "hybrid" in parts else None,
            bigvgan=time_bigvgan(effort.vocoder_seconds, long_rounds, device)
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
