"""What speed and memory must reach, and whether they do."""

from dataclasses import dataclass

from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.contestants import MIMI
from recipes.benchmark.generation import GenerationTiming
from recipes.benchmark.tokenization import TokenizeMemory, TokenizeTiming


@dataclass(frozen=True)
class Budget:
    """One row: a number, and the least or most that it may be."""

    what: str
    unit: str
    target: float
    measured: float | None  # None: not measured in this run
    at_most: bool = False
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target

    @property
    def gap(self) -> float | None:
        """By what factor it is missed; None where it is kept or not measured."""
        if self.measured is None or self.passed:
            return None
        return self.measured / self.target if self.at_most else self.target / self.measured


@dataclass(frozen=True)
class Measured:
    """All that one run found out."""

    codecs: dict[str, CodecTiming]
    tokenize: TokenizeTiming | None = None
    memory: TokenizeMemory | None = None
    generation: GenerationTiming | None = None


def budgets(measured: Measured) -> list[Budget]:
    """Every budget that concerns what `bench` measures."""
    codecs, tiny = measured.codecs, measured.codecs.get("hh-codec-tiny")
    tokenize, memory, generation = measured.tokenize, measured.memory, measured.generation
    return [
        Budget(
            "hh-codec encode", "× MimiModel's encode", 2.5, _ratio(codecs, "hh-codec", "encode"),
        ),
        Budget(
            "hh-codec-24hz-vocos decode", "× MimiModel's decode", 2.0,
            _ratio(codecs, "hh-codec-24hz-vocos", "decode"),
        ),
        Budget(
            "hh-codec-tiny encode + decode", "× real time", 60.0, None if tiny is None else tiny.together,
        ),
        Budget(
            "tokenize end to end", "of the bare encoder's speed", 0.9, None if tokenize is None else tokenize.share,
            note="" if tokenize is None else f"{tokenize.seconds / 60:g} min of audio",
        ),
        Budget(
            "memory of tokenize, 3-hour file", "GiB", 2.0,
            None if memory is None else memory.peak_bytes / 2**30, at_most=True,
            note="" if memory is None else f"{memory.seconds / 60:g} min of audio",
        ),
        Budget(
            "generation, codec included", "× real time", 1.0,
            None if generation is None else generation.real_time,
            note="" if generation is None else generation.model,
        ),
    ]  # fmt: skip


def _ratio(codecs: dict[str, CodecTiming], name: str, step: str) -> float | None:
    if name not in codecs or MIMI not in codecs:
        return None
    return getattr(codecs[name], step).faster_than(getattr(codecs[MIMI], step))
