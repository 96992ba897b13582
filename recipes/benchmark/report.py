"""What `bench` found: the budgets, bench.json, and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from recipes.benchmark.codecs import MIMI, PAPER_NOTE, PAPER_RATIO, CodecTiming
from recipes.benchmark.config import LONG_SECONDS
from recipes.benchmark.run import Measured
from recipes.benchmark.timing import Pace, Timing
from recipes.reporting.tables import Field, Table, show, words

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
            "hh-codec-tiny encode + decode", "× real time", 60.0, _of(tiny, "together_real_time"),
        ),
        Budget(
            "hybrid-codec encode", "× the same with w2v-BERT 2.0 inside", PAPER_RATIO,
            _of(hybrid, "over_teacher"),
            note=PAPER_NOTE if hybrid is None else f"real-time factor {hybrid.real_time_factor:.3f}; {PAPER_NOTE}",
        ),
        Budget(
            "BigVGAN v2", "× the package bigvgan", 1.3, _of(vocoders, "ratio"),
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
                note=f"{timing.audio_seconds / 60:g} min of audio",
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
            _of(training, "ratio"),
            note=""
            if training is None
            else f"{training.parameters / 1e6:.1f} M parameters, {training.tokens_per_step:,} tokens a step, "
            f"{training.precision}",
        ),
    ]  # fmt: skip


def _generation_budgets(measured: Measured) -> list[Budget]:
    generation = measured.generation
    greedy, model = _of(generation, "greedy"), _of(generation, "model") or ""
    return [
        Budget(
            "generation", "× the tokens/s of transformers' generate", 2.0,
            _of(greedy, "ratio"),
            note="" if greedy is None else f"{model}, greedy, {greedy.tokens} tokens a turn",
        ),
        Budget(
            "generation, the same tokens as generate", "of them", 1.0, _of(greedy, "same"),
        ),
        Budget(
            "generation, codec included", "× real time", 1.0,
            _of(generation, "real_time"), note=model,
        ),
        Budget(
            "first audio of a stream", "s from the request", 0.5,
            _of(generation, "first_audio"), at_most=True,
            note="" if generation is None else f"{model}, the slowest of {len(generation.streams)} texts",
        ),
        Budget(
            "a stream ahead of its listener", "s at the worst moment", 0.0,
            _of(generation, "smallest_lead"),
            note="" if generation is None else f"{model}, the worst of {len(generation.streams)} texts",
        ),
    ]  # fmt: skip


def _of(timing: Any, name: str) -> Any:
    return None if timing is None else getattr(timing, name)


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
    generation = _plain(measured.generation, "real_time", "first_audio", "smallest_lead")
    if measured.generation is not None:
        generation["greedy"] = _plain(measured.generation.greedy, "ratio")
    return {
        **facts,
        "codecs": _codecs(measured.codecs),
        "hybrid": _plain(measured.hybrid, "over_teacher", "real_time_factor"),
        "bigvgan": _plain(measured.bigvgan, "ratio"),
        "tokenize": [_plain(timing, "share") for timing in measured.tokenize],
        "tokenize_memory": _plain(measured.memory),
        "training": _plain(measured.training, "ratio"),
        "generation": generation,
        "skipped": measured.skipped,
        "budgets": [_plain(row, "passed", "gap") for row in rows],
    }


def _codecs(codecs: Mapping[str, CodecTiming]) -> dict[str, Any]:
    return {
        name: _plain(timing, "together_real_time") | {"ratios": _ratios(timing, codecs)}
        for name, timing in codecs.items()
    }


def _plain(found: Any, *more: str) -> Any:
    """What was measured as JSON: its fields, every round with the median, and `more` of its properties."""
    if isinstance(found, Pace):
        return {
            "median_tokens_per_second": found.median,
            "rounds": found.rates,
            "peak_bytes": found.peak_bytes,
        }
    if not is_dataclass(found):
        return [_plain(entry) for entry in found] if isinstance(found, tuple) else found
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    plain = {
        name: _rounds(value, values) if isinstance(value, Timing) else _plain(value)
        for name, value in values.items()
    }
    return plain | {name: getattr(found, name) for name in more}


def _rounds(timing: Timing, beside: Mapping[str, Any]) -> dict[str, Any]:
    """`beside` says what was done in a round: so many tokens, or so many seconds of audio."""
    rounds = {"rounds": list(timing.seconds), "peak_bytes": timing.peak_bytes}
    if "tokens" in beside:
        return {"median_tokens_per_second": beside["tokens"] / timing.median, **rounds}
    return {
        "fastest_seconds": timing.fastest,
        "median_seconds": timing.median,
        "fastest_real_time": beside["audio_seconds"] / timing.fastest,
        "median_real_time": beside["audio_seconds"] / timing.median,
        **rounds,
    }


# ---- tables


def tables(measured: Measured, rows: list[Budget]) -> str:
    """The codecs, what else was timed, and the budgets, as Markdown."""
    blocks: list[str | Table] = [codec_table(_codecs(measured.codecs))] if measured.codecs else []
    if beside := list(_beside(measured)):
        blocks.append(Table(["", "ours", "theirs", "ratio", "", ""], beside))
    if blocks:
        blocks.append(f"{HOW_RATIOS} MiB: taken at the peak of a call beyond what was taken before it.")
    for timing in measured.tokenize:
        speeds = [timing.audio_seconds / t.median for t in (timing.whole, timing.encoder)]
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


def _beside(measured: Measured) -> Iterator[list[str]]:
    """What we do beside somebody else's: speeds by the median, and the median of the rounds' ratios."""
    if (hybrid := measured.hybrid) is not None:
        about = "the same with w2v-BERT 2.0 inside"
        times = hybrid.encode, hybrid.encode_with_teacher, hybrid.audio_seconds
        yield _real_time("hybrid-codec encode", *times, about)
    if (vocoders := measured.bigvgan) is not None:
        times = vocoders.ours, vocoders.theirs, vocoders.audio_seconds
        yield _real_time("BigVGAN v2", *times, "the package bigvgan, same weights")
    if (training := measured.training) is not None:
        yield [
            "SLM training",
            f"{training.ours.median:,.0f} tokens/s",
            f"{training.transformers.median:,.0f}",
            _times(training.ratio),
            "transformers.Trainer; padding does not count",
            f"filled: {100 * training.fill:.1f} % and {100 * training.padded_fill:.1f} %; "
            f"{_both(training.ours, training.transformers)} MiB beside weights and the optimizer's state",
        ]
    if (generation := measured.generation) is not None:
        greedy = generation.greedy
        yield [
            f"{generation.model}, greedy",
            f"{greedy.tokens / greedy.ours.median:,.0f} tokens/s",
            f"{greedy.tokens / greedy.transformers.median:,.0f}",
            _times(greedy.ratio),
            "transformers' generate with its defaults",
            f"same tokens: {100 * greedy.same:.1f} %",
        ]


def _real_time(what: str, ours: Timing, theirs: Timing, seconds: float, about: str) -> list[str]:
    speeds = f"{seconds / ours.median:.2f} × real time", f"{seconds / theirs.median:.2f}"
    return [what, *speeds, _times(ours.faster_round_by_round(theirs)), about, f"{_both(ours, theirs)} MiB"]


def _times(ratio: float) -> str:
    return show(ratio, 2, unit=" ×")


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


def _both(*timings: Timing | Pace) -> str:
    return " and ".join(show(_mebibytes(timing.peak_bytes)) for timing in timings)
