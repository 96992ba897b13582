"""All that one run of `bench` found out."""

from dataclasses import dataclass, field

from recipes.benchmark.bigvgan import BigVGANTiming
from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.generation import GenerationTiming
from recipes.benchmark.hybrid import HybridTiming
from recipes.benchmark.tokenization import TokenizeMemory, TokenizeTiming
from recipes.benchmark.training import TrainingTiming
from slm.training.throughput import PeakFlops


@dataclass(frozen=True)
class Machine:
    """The most that a device can do."""

    # operations a second in large matrix products, a multiplication and an addition being two; by precision
    peaks: dict[str, PeakFlops]
    bytes_per_second: float  # read and written, copying what no cache holds


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
    machine: Machine | None = None
    skipped: dict[str, str] = field(default_factory=dict)  # parts that could not run, and why
