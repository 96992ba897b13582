"""What `bench` found as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from recipes.benchmark.budgets import Budget
from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.contestants import MIMI
from recipes.benchmark.measured import Machine, Measured
from recipes.benchmark.roofline import Share, shares
from recipes.benchmark.timing import Pace, Timing
from recipes.benchmark.tokenization import TokenizeTiming
from recipes.reporting.pictures import markdown_table

HOW_RATIOS = (
    "Speeds: the median over rounds. Ratios: the median over rounds of each round's own ratio, in which both met the "
    "same disturbances; so they may differ a little from those of the medians."
)


def as_json(measured: Measured, rows: list[Budget], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, with every round."""
    return {
        **facts,
        "codecs": {
            name: {
                "about": timing.about,
                "audio_seconds": timing.seconds,
                "encode": _timing(timing.encode, timing.seconds),
                "decode": _timing(timing.decode, timing.seconds),
                "together_real_time": timing.together,
                "ratios": _ratios(timing, measured.codecs),
            }
            for name, timing in measured.codecs.items()
        },
        "hybrid": _hybrid(measured),
        "bigvgan": _bigvgan(measured),
        "tokenize": [_tokenize(timing) for timing in measured.tokenize],
        "tokenize_memory": measured.memory and asdict(measured.memory),
        "training": _training(measured),
        "generation": _generation(measured),
        "machine": measured.machine and asdict(measured.machine),
        "shares": [asdict(share) for share in shares(measured)],
        "skipped": measured.skipped,
        "budgets": [{**asdict(row), "passed": row.passed, "gap": row.gap} for row in rows],
    }


def _hybrid(measured: Measured) -> dict[str, Any] | None:
    if (timing := measured.hybrid) is None:
        return None
    return {
        "audio_seconds": timing.seconds,
        "encode": _timing(timing.encode, timing.seconds),
        "encode_with_teacher": _timing(timing.with_teacher, timing.seconds),
        "waveform_encoder": _timing(timing.waveform_encoder, timing.seconds),
        "dac_encoder": _timing(timing.dac_encoder, timing.seconds),
        "over_teacher": timing.over_teacher,
        "over_dac": timing.over_dac,
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


def tables(measured: Measured, rows: list[Budget]) -> str:
    """The codecs, what else was timed, the budgets, and what the machine can do, as Markdown."""
    parts = []
    if measured.codecs:
        parts.append(_codec_table(measured.codecs))
    if beside := list(_beside(measured)):
        parts.append(markdown_table(["", "ours", "theirs", "ratio", "", ""], beside, words=1))
    if beside or measured.codecs:
        parts.append(f"{HOW_RATIOS} MiB: taken at the peak of a call beyond what was taken before it.")
    for timing in measured.tokenize:
        speeds = [timing.seconds / t.median for t in (timing.whole, timing.encoder)]
        parts.append(
            f"tokenize with {timing.codec}: {speeds[0]:.0f} × real time from files to shards, the encoder alone "
            f"{speeds[1]:.0f} ×: {timing.share:.2f} of it"
        )
    parts.append(_budget_table(rows))
    if measured.machine is not None:
        parts.append(_machine_line(measured.machine))
        if found := shares(measured):
            parts.append(_share_table(found))
    parts += [f"Not measured: {part} ({reason})." for part, reason in measured.skipped.items()]
    return "\n\n".join(parts)


def _beside(measured: Measured) -> Iterator[list[str]]:
    """What we do and what somebody else does: speeds by the median, and the ratio by the median of the rounds'."""
    if (hybrid := measured.hybrid) is not None:
        seconds = hybrid.seconds
        yield _real_time_row(
            "hybrid-codec encode",
            hybrid.encode,
            hybrid.with_teacher,
            seconds,
            "the same with w2v-BERT 2.0 inside",
        )
        yield _real_time_row(
            "hybrid-codec waveform encoder", hybrid.waveform_encoder, hybrid.dac_encoder, seconds,
            "DacModel's encoder at its widths and strides",
        )  # fmt: skip
    if (vocoders := measured.bigvgan) is not None:
        about = "the package bigvgan, same weights"
        yield _real_time_row("BigVGAN v2", vocoders.ours, vocoders.theirs, vocoders.seconds, about)
    if (training := measured.training) is not None:
        yield [
            "SLM training",
            f"{training.ours.median:,.0f} tokens/s",
            f"{training.transformers.median:,.0f}",
            f"{training.ratio:.2f} ×",
            "transformers.Trainer; padding does not count",
            f"filled: {training.fill:.1%} and {training.padded_fill:.1%}".replace("%", " %")
            + f"; {_mebibytes(training.ours.peak_bytes)} and {_mebibytes(training.transformers.peak_bytes)} MiB beside "
            "weights and the optimizer's state",
        ]
    if (generation := measured.generation) is not None:
        greedy = generation.greedy
        yield [
            f"{generation.model}, greedy",
            f"{greedy.tokens / greedy.ours.median:,.0f} tokens/s",
            f"{greedy.tokens / greedy.transformers.median:,.0f}",
            f"{greedy.ratio:.2f} ×",
            "transformers' generate with its defaults",
            f"same tokens: {greedy.same:.1%}".replace("%", " %"),
        ]


def _real_time_row(what: str, ours: Timing, theirs: Timing, seconds: float, about: str) -> list[str]:
    return [
        what,
        f"{seconds / ours.median:.2f} × real time",
        f"{seconds / theirs.median:.2f}",
        f"{ours.faster_round_by_round(theirs):.2f} ×",
        about,
        f"{_mebibytes(ours.peak_bytes)} and {_mebibytes(theirs.peak_bytes)} MiB",
    ]


def _codec_table(codecs: dict[str, CodecTiming]) -> str:
    lines = []
    for name, timing in codecs.items():
        ratios = _ratios(timing, codecs)
        lines.append(
            [
                name,
                timing.about,
                *(f"{timing.seconds / step.median:.1f} ×" for step in (timing.encode, timing.decode)),
                *(f"{ratios[step]:.2f} ×" if step in ratios else "–" for step in ("encode", "decode")),
                *(_mebibytes(step.peak_bytes) for step in (timing.encode, timing.decode)),
            ]
        )
    header = ["", "", "encode, × real time", "decode, × real time"]
    header += ["encode beside Mimi", "decode beside Mimi", "encode MiB", "decode MiB"]
    return markdown_table(header, lines, words=2)


def _budget_table(rows: list[Budget]) -> str:
    lines = []
    for row in rows:
        sign = "≤" if row.at_most else "≥"
        measured = "–" if row.measured is None else f"{row.measured:.2f}"
        lines.append([row.what, f"{sign} {row.target:g} {row.unit}", measured, _verdict(row), row.note])
    return markdown_table(["budget", "target", "measured", "", ""], lines, words=2)


def _verdict(row: Budget) -> str:
    if row.measured is None:
        return "not measured"
    if row.passed is None:
        return row.instead
    if row.passed:
        return "PASS"
    return "misses" if row.gap is None else f"misses by {row.gap:.2f} ×"


def _machine_line(machine: Machine) -> str:
    peaks = ", ".join(
        f"{peak.flops / 1e9:,.0f} GFLOP/s in {precision} ({peak.source})"
        for precision, peak in machine.peaks.items()
    )
    return (
        f"The machine: {peaks}; {machine.bytes_per_second / 1e9:,.1f} GB/s of memory (measured by copying)."
    )


def _share_table(found: list[Share]) -> str:
    lines = [
        [
            share.what,
            _in_units(share.flops),
            _percent(share.of_flops),
            _in_units(share.bytes_per_second),
            _percent(share.of_memory),
        ]
        for share in found
    ]
    header = ["", "GFLOP/s", "of the machine's", "GB/s that operations read and write", "of the machine's"]
    return markdown_table(header, lines)


def _in_units(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e9:,.1f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"


def _ratios(timing: CodecTiming, codecs: dict[str, CodecTiming]) -> dict[str, float]:
    """How many times as fast as Mimi, as the median round by round."""
    if MIMI not in codecs:
        return {}
    mimi = codecs[MIMI]
    return {
        "encode": timing.encode.faster_round_by_round(mimi.encode),
        "decode": timing.decode.faster_round_by_round(mimi.decode),
    }


def _timing(timing: Timing, seconds: float) -> dict[str, Any]:
    return {
        "fastest_seconds": timing.fastest,
        "median_seconds": timing.median,
        "fastest_real_time": seconds / timing.fastest,
        "median_real_time": seconds / timing.median,
        "rounds": list(timing.seconds),
        "peak_bytes": timing.peak_bytes,
        "work": timing.work and asdict(timing.work),
    }


def _tokens(timing: Timing, count: int) -> dict[str, Any]:
    return {
        "median_tokens_per_second": count / timing.median,
        "rounds": list(timing.seconds),
        "peak_bytes": timing.peak_bytes,
    }


def _pace(pace: Pace) -> dict[str, Any]:
    return {"median_tokens_per_second": pace.median, "rounds": pace.rates, "peak_bytes": pace.peak_bytes}


def _mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:,.0f}"
