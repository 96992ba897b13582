"""What `bench` found as a table and as JSON."""

from dataclasses import asdict
from typing import Any

from recipes.benchmark.budgets import Budget, Measured
from recipes.benchmark.codecs import CodecTiming
from recipes.benchmark.contestants import MIMI
from recipes.benchmark.timing import Timing
from recipes.report import markdown_table


def as_json(measured: Measured, rows: list[Budget], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, with every round."""
    tokenize, memory, generation = measured.tokenize, measured.memory, measured.generation
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
        "tokenize": tokenize
        and {
            "codec": tokenize.codec,
            "audio_seconds": tokenize.seconds,
            "whole": _timing(tokenize.whole, tokenize.seconds),
            "encoder": _timing(tokenize.encoder, tokenize.seconds),
            "share": tokenize.share,
        },
        "tokenize_memory": memory and asdict(memory),
        "generation": generation and {**asdict(generation), "real_time": generation.real_time},
        "budgets": [{**asdict(row), "passed": row.passed, "gap": row.gap} for row in rows],
    }


def tables(measured: Measured, rows: list[Budget]) -> str:
    """The codecs, what else was timed, and the budgets, as Markdown."""
    parts = []
    if measured.codecs:
        parts.append(_codec_table(measured.codecs))
    if measured.tokenize is not None:
        timing = measured.tokenize
        speeds = [timing.seconds / t.fastest for t in (timing.whole, timing.encoder)]
        parts.append(
            f"tokenize with {timing.codec}: {speeds[0]:.0f} × real time from files to shards, the encoder alone "
            f"{speeds[1]:.0f} ×"
        )
    parts.append(_budget_table(rows))
    return "\n\n".join(parts)


def _codec_table(codecs: dict[str, CodecTiming]) -> str:
    lines = []
    for name, timing in codecs.items():
        ratios = _ratios(timing, codecs)
        lines.append(
            [
                name,
                timing.about,
                *(
                    f"{timing.seconds / value:.1f} ×"
                    for step in (timing.encode, timing.decode)
                    for value in (step.fastest, step.median)
                ),
                *(f"{ratios[step]:.2f} ×" if step in ratios else "–" for step in ("encode", "decode")),
                *(_mebibytes(step.peak_bytes) for step in (timing.encode, timing.decode)),
            ]
        )
    header = ["", "", "encode, fastest", "median", "decode, fastest", "median"]
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
    if row.passed is None:
        return "not measured"
    return "PASS" if row.passed else f"misses by {row.gap:.2f} ×"


def _ratios(timing: CodecTiming, codecs: dict[str, CodecTiming]) -> dict[str, float]:
    """How many times as fast as Mimi: by the fastest rounds, and as the median round by round."""
    if MIMI not in codecs:
        return {}
    mimi = codecs[MIMI]
    return {
        "encode": timing.encode.faster_than(mimi.encode),
        "encode_round_by_round": timing.encode.faster_round_by_round(mimi.encode),
        "decode": timing.decode.faster_than(mimi.decode),
        "decode_round_by_round": timing.decode.faster_round_by_round(mimi.decode),
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


def _mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 2**20:,.0f}"
