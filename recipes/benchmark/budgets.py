"""What speed and memory must reach, and whether they do."""

from dataclasses import dataclass

from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.config import LONG_SECONDS
from recipes.benchmark.contestants import MIMI
from recipes.benchmark.hybrid import PAPER_NOTE, PAPER_RATIO
from recipes.benchmark.measured import Measured


@dataclass(frozen=True)
class Budget:
    """One row: a number, and the least or most that it may be."""

    what: str
    unit: str
    target: float
    measured: float | None  # None: not measured in this run
    at_most: bool = False
    note: str = ""
    instead: str = ""  # what it was measured on, where that is less than the budget is about

    @property
    def passed(self) -> bool | None:
        """None where it was not measured, or on less than the budget is about: that says nothing of the whole."""
        if self.measured is None or self.instead:
            return None
        return self.measured <= self.target if self.at_most else self.measured >= self.target

    @property
    def gap(self) -> float | None:
        """By what factor it is missed; None where it is kept, not measured, or no factor tells."""
        if self.measured is None or self.passed is not False:
            return None
        above, below = (self.measured, self.target) if self.at_most else (self.target, self.measured)
        return above / below if above > 0 and below > 0 else None


def budgets(measured: Measured) -> list[Budget]:
    """Every budget that concerns what `bench` measures."""
    return [*_codecs(measured), *_tokenize(measured), *_training(measured), *_generation(measured)]


def _codecs(measured: Measured) -> list[Budget]:
    codecs, tiny = measured.codecs, measured.codecs.get("hh-codec-tiny")
    hybrid, vocoders = measured.hybrid, measured.bigvgan
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
            "hybrid-codec encode", "× the same with w2v-BERT 2.0 inside", PAPER_RATIO,
            None if hybrid is None else hybrid.over_teacher,
            note=PAPER_NOTE if hybrid is None else f"real-time factor {hybrid.real_time_factor:.3f}; {PAPER_NOTE}",
        ),
        Budget(
            "hybrid-codec waveform encoder", "× DacModel's encoder", 1.5,
            None if hybrid is None else hybrid.over_dac, note="same widths and strides",
        ),
        Budget(
            "BigVGAN v2", "× the package bigvgan", 1.3, None if vocoders is None else vocoders.ratio,
            note=measured.skipped.get("bigvgan", "")
            if vocoders is None
            else f"waveforms differ by {vocoders.difference:.0e} at most",
        ),
    ]  # fmt: skip


def _tokenize(measured: Measured) -> list[Budget]:
    memory = measured.memory
    unit = "of the bare encoder's speed"
    return [
        *(
            Budget(
                f"tokenize end to end, {timing.codec}", unit, 0.9, timing.share,
                note=f"{timing.seconds / 60:g} min of audio",
            )
            for timing in measured.tokenize
        ),
        *([] if measured.tokenize else [Budget("tokenize end to end", unit, 0.9, None)]),
        Budget(
            "memory of tokenize, 3-hour file", "GiB", 2.0,
            None if memory is None else memory.peak_bytes / 2**30, at_most=True,
            note="" if memory is None else f"{memory.seconds / 60:g} min of audio",
            instead="" if memory is None or memory.seconds >= LONG_SECONDS else f"on {memory.seconds / 60:g} min",
        ),
    ]  # fmt: skip


def _training(measured: Measured) -> list[Budget]:
    training = measured.training
    return [
        Budget(
            "SLM training", "× transformers.Trainer with padding, in real tokens/s", 1.3,
            None if training is None else training.ratio,
            note=""
            if training is None
            else f"{training.parameters / 1e6:.1f} M parameters, {training.tokens_per_step:,} tokens a step, "
            f"{training.precision}",
        ),
    ]  # fmt: skip


def _generation(measured: Measured) -> list[Budget]:
    generation = measured.generation
    greedy = None if generation is None else generation.greedy
    model = "" if generation is None else generation.model
    return [
        Budget(
            "generation", "× the tokens/s of transformers' generate", 2.0,
            None if greedy is None else greedy.ratio,
            note="" if greedy is None else f"{model}, greedy, {greedy.tokens} tokens a turn",
        ),
        Budget(
            "generation, the same tokens as generate", "of them", 1.0, None if greedy is None else greedy.same,
        ),
        Budget(
            "generation, codec included", "× real time", 1.0,
            None if generation is None else generation.real_time, note=model,
        ),
        Budget(
            "first audio of a stream", "s from the request", 0.5,
            None if generation is None else generation.first_audio, at_most=True,
            note="" if generation is None else f"{model}, the slowest of {len(generation.streams)} texts",
        ),
        Budget(
            "a stream ahead of its listener", "s at the worst moment", 0.0,
            None if generation is None else generation.smallest_lead,
            note="" if generation is None else f"{model}, the worst of {len(generation.streams)} texts",
        ),
    ]  # fmt: skip


def _ratio(codecs: dict[str, CodecTiming], name: str, step: str) -> float | None:
    if name not in codecs or MIMI not in codecs:
        return None
    return getattr(codecs[name], step).faster_round_by_round(getattr(codecs[MIMI], step))
