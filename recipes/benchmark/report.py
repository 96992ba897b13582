"""What `bench` found: the budgets, bench.json, and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recipes.benchmark.codecs import MIMI, PAPER_NOTE, PAPER_RATIO, CodecTiming
from recipes.benchmark.config import LONG_SECONDS
from recipes.benchmark.run import Measured
from recipes.benchmark.timing import Pace, Timing
from recipes.benchmark.tokenization import TokenizeTiming
from recipes.reporting.tables import NOTHING, Field, Table, words

HOW_RATIOS = (
    "Speeds: the median over rounds. Ratios: the median over rounds of each round's own ratio, in which both met the "
    "same disturbances; so they may differ a little from those of the medians."
)


# ---- budgets: what speed and memory must reach, and whether they do


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
    return [
        *_codecs_budgets(measured),
        *_tokenize_budgets(measured),
        *_training_budgets(measured),
        *_generation_budgets(measured),
    ]


def _codecs_budgets(measured: Measured) -> list[Budget]:
    codecs, tiny = measured.codecs, measured.codecs.get("hh-codec-tiny")
    hybrid, vocoders = measured.hybrid, measured.bigvgan
    return [
        Budget(
            "hh-codec encode", "× MimiModel's encode", 2.5, _beside_mimi(codecs, "hh-codec", "encode"),
        ),
        Budget(
            "hh-codec-24hz-vocos decode", "× MimiModel's decode", 2.0,
            _beside_mimi(codecs, "hh-codec-24hz-vocos", "decode"),
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
            "BigVGAN v2", "× the package bigvgan", 1.3, None if vocoders is None else vocoders.ratio,
            note=measured.skipped.get("bigvgan", "")
            if vocoders is None
            else f"waveforms differ by {vocoders.difference:.0e} at most",
        ),
    ]  # fmt: skip


def _tokenize_budgets(measured: Measured) -> list[Budget]:
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


def _training_budgets(measured: Measured) -> list[Budget]:
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


def _generation_budgets(measured: Measured) -> list[Budget]:
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


def _ratios(timing: CodecTiming, codecs: Mapping[str, CodecTiming]) -> dict[str, float]:
    """How many times as fast as Mimi, as the median round by round; empty without Mimi."""
    if MIMI not in codecs:
        return {}
    mimi = codecs[MIMI]
    return {
        "encode": timing.encode.faster_round_by_round(mimi.encode),
        "decode": timing.decode.faster_round_by_round(mimi.decode),
    }


def _beside_mimi(codecs: Mapping[str, CodecTiming], name: str, step: str) -> float | None:
    return _ratios(codecs[name], codecs).get(step) if name in codecs else None


# ---- bench.json


def as_json(measured: Measured, rows: list[Budget], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, with every round."""
    return {
        **facts,
        "codecs": {name: _codec(timing, measured.codecs) for name, timing in measured.codecs.items()},
        "hybrid": _hybrid(measured),
        "bigvgan": _bigvgan(measured),
        "tokenize": [_tokenize(timing) for timing in measured.tokenize],
        "tokenize_memory": measured.memory and asdict(measured.memory),
        "training": _training(measured),
        "generation": _generation(measured),
        "skipped": measured.skipped,
        "budgets": [{**asdict(row), "passed": row.passed, "gap": row.gap} for row in rows],
    }


def _codec(timing: CodecTiming, codecs: Mapping[str, CodecTiming]) -> dict[str, Any]:
    return {
        "about": timing.about,
        "audio_seconds": timing.seconds,
        "encode": _timing(timing.encode, timing.seconds),
        "decode": _timing(timing.decode, timing.seconds),
        "together_real_time": timing.together,
        "ratios": _ratios(timing, codecs),
    }


def _hybrid(measured: Measured) -> dict[str, Any] | None:
    if (timing := measured.hybrid) is None:
        return None
    return {
        "audio_seconds": timing.seconds,
        "encode": _timing(timing.encode, timing.seconds),
        "encode_with_teacher": _timing(timing.with_teacher, timing.seconds),
        "over_teacher": timing.over_teacher,
        "real_time_factor": timing.real_time_factor,
    }


def _bigvgan(measured: Measured) -> dict[str, Any] | None:
    if (timing := measured.bigvgan) is None:
        return None
    return {
        "audio_seconds": timing.seconds,
        "ours": _timing(timing.ours, timing.seconds),
        "theirs": _timing(timing.theirs, timing.seconds),
        "ratio": timing.ratio,
        "difference": timing.difference,
    }


def _tokenize(timing: TokenizeTiming) -> dict[str, Any]:
    return {
        "codec": timing.codec,
        "audio_seconds": timing.seconds,
        "whole": _timing(timing.whole, timing.seconds),
        "encoder": _timing(timing.encoder, timing.seconds),
        "share": timing.share,
    }


def _training(measured: Measured) -> dict[str, Any] | None:
    if (timing := measured.training) is None:
        return None
    return {
        **asdict(timing),
        "ours": _pace(timing.ours),
        "transformers": _pace(timing.transformers),
        "ratio": timing.ratio,
    }


def _generation(measured: Measured) -> dict[str, Any] | None:
    if (timing := measured.generation) is None:
        return None
    greedy = timing.greedy
    return {
        **asdict(timing),
        "real_time": timing.real_time,
        "first_audio": timing.first_audio,
        "smallest_lead": timing.smallest_lead,
        "greedy": {
            "tokens": greedy.tokens,
            "ours": _tokens(greedy.ours, greedy.tokens),
            "transformers": _tokens(greedy.transformers, greedy.tokens),
            "ratio": greedy.ratio,
            "same": greedy.same,
        },
    }


def _timing(timing: Timing, seconds: float) -> dict[str, Any]:
    return {
        "fastest_seconds": timing.fastest,
        "median_seconds": timing.median,
        "fastest_real_time": seconds / timing.fastest,
        "median_real_time": seconds / timing.median,
        "rounds": list(timing.seconds),
        "peak_bytes": timing.peak_bytes,
    }


def _tokens(timing: Timing, count: int) -> dict[str, Any]:
    return {
        "median_tokens_per_second": count / timing.median,
        "rounds": list(timing.seconds),
        "peak_bytes": timing.peak_bytes,
    }


def _pace(pace: Pace) -> dict[str, Any]:
    return {"median_tokens_per_second": pace.median, "rounds": pace.rates, "peak_bytes": pace.peak_bytes}


# ---- tables


def tables(measured: Measured, rows: list[Budget]) -> str:
    """The codecs, what else was timed, and the budgets, as Markdown."""
    codecs = {name: _codec(timing, measured.codecs) for name, timing in measured.codecs.items()}
    blocks: list[str | Table] = [codec_table(codecs)] if codecs else []
    if beside := list(_beside(measured)):
        blocks.append(_beside_table(beside))
    if blocks:
        blocks.append(f"{HOW_RATIOS} MiB: taken at the peak of a call beyond what was taken before it.")
    for timing in measured.tokenize:
        speeds = [timing.seconds / t.median for t in (timing.whole, timing.encoder)]
        blocks.append(
            f"tokenize with {timing.codec}: {speeds[0]:.0f} × real time from files to shards, the encoder alone "
            f"{speeds[1]:.0f} ×: {timing.share:.2f} of it"
        )
    blocks.append(_budget_table(rows))
    blocks += [f"Not measured: {part} ({reason})." for part, reason in measured.skipped.items()]
    return "\n\n".join(map(str, blocks))


def codec_table(codecs: Mapping[str, Any]) -> Table:
    """Codecs below each other, as bench.json has them."""

    def speed(title: str, step: str) -> Field:
        return Field(title, lambda row: row[1][step]["median_real_time"], 1, unit=" ×")

    def ratio(title: str, step: str) -> Field:
        # older files have the ratio of the fastest rounds under the plain name
        return Field(
            title,
            lambda row: row[1]["ratios"].get(f"{step}_round_by_round", row[1]["ratios"].get(step)),
            2,
            unit=" ×",
        )

    fields = [
        words("", lambda row: row[0]),
        words("", lambda row: row[1]["about"]),
        speed("encode, × real time", "encode"),
        speed("decode, × real time", "decode"),
        ratio("encode beside Mimi", "encode"),
        ratio("decode beside Mimi", "decode"),
        Field("encode MiB", lambda row: _mebibytes(row[1]["encode"].get("peak_bytes"))),
        Field("decode MiB", lambda row: _mebibytes(row[1]["decode"].get("peak_bytes"))),
    ]
    return Table.of(codecs.items(), fields)


@dataclass(frozen=True)
class _Beside:
    """What we do beside somebody else's: speeds by the median, and the median of the rounds' ratios."""

    what: str
    ours: str
    theirs: str
    ratio: float
    about: str
    more: str


def _beside(measured: Measured) -> Iterator[_Beside]:
    if (hybrid := measured.hybrid) is not None:
        about = "the same with w2v-BERT 2.0 inside"
        yield _real_time("hybrid-codec encode", hybrid.encode, hybrid.with_teacher, hybrid.seconds, about)
    if (vocoders := measured.bigvgan) is not None:
        about = "the package bigvgan, same weights"
        yield _real_time("BigVGAN v2", vocoders.ours, vocoders.theirs, vocoders.seconds, about)
    if (training := measured.training) is not None:
        peaks = [_mebibytes(pace.peak_bytes) for pace in (training.ours, training.transformers)]
        yield _Beside(
            "SLM training",
            f"{training.ours.median:,.0f} tokens/s",
            f"{training.transformers.median:,.0f}",
            training.ratio,
            "transformers.Trainer; padding does not count",
            f"filled: {100 * training.fill:.1f} % and {100 * training.padded_fill:.1f} %; {_both(peaks)} MiB beside "
            "weights and the optimizer's state",
        )
    if (generation := measured.generation) is not None:
        greedy = generation.greedy
        yield _Beside(
            f"{generation.model}, greedy",
            f"{greedy.tokens / greedy.ours.median:,.0f} tokens/s",
            f"{greedy.tokens / greedy.transformers.median:,.0f}",
            greedy.ratio,
            "transformers' generate with its defaults",
            f"same tokens: {100 * greedy.same:.1f} %",
        )


def _real_time(what: str, ours: Timing, theirs: Timing, seconds: float, about: str) -> _Beside:
    peaks = [_mebibytes(timing.peak_bytes) for timing in (ours, theirs)]
    return _Beside(
        what,
        f"{seconds / ours.median:.2f} × real time",
        f"{seconds / theirs.median:.2f}",
        ours.faster_round_by_round(theirs),
        about,
        f"{_both(peaks)} MiB",
    )


def _beside_table(rows: Sequence[_Beside]) -> Table:
    fields = [
        words("", lambda row: row.what),
        Field("ours", lambda row: row.ours),
        Field("theirs", lambda row: row.theirs),
        Field("ratio", lambda row: row.ratio, 2, unit=" ×"),
        Field("", lambda row: row.about),
        Field("", lambda row: row.more),
    ]
    return Table.of(rows, fields)


def _budget_table(rows: Sequence[Budget]) -> Table:
    fields = [
        words("budget", lambda row: row.what),
        words("target", lambda row: f"{'≤' if row.at_most else '≥'} {row.target:g} {row.unit}"),
        Field("measured", lambda row: row.measured, 2),
        Field("", _verdict),
        Field("", lambda row: row.note),
    ]
    return Table.of(rows, fields)


def _verdict(row: Budget) -> str:
    if row.measured is None:
        return "not measured"
    if row.passed is None:
        return row.instead
    if row.passed:
        return "PASS"
    return "misses" if row.gap is None else f"misses by {row.gap:.2f} ×"


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**20


def _both(peaks: Sequence[float | None]) -> str:
    return " and ".join(NOTHING if peak is None else f"{peak:,.0f}" for peak in peaks)
