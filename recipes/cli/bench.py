"""The command that measures speed: bench."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from codec.foundation import UserError
from recipes.benchmark.run import FULL, QUICK, Part, measure

_PARTS: tuple[Part, ...] = get_args(Part)


def bench(
    output: Path = Path("bench"),
    parts: list[Part] | None = None,
    codecs: list[str] | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int | None = None,
    threads: int = 2,
    codec: str = "hh-codec-tiny",
    model: str = "slm-tiny",
    device: str = "auto",
) -> int:
    """How fast this is here, beside what one would otherwise use and beside what it must reach.

    Contestants take turns, so that ratios hold on a busy machine too; multiples of real time do not.
    Leaves bench.json and bench.md in the output.

    Args:
        output: directory for the results.
        parts: of codecs, tokenize, memory (of tokenize, on a recording of 3 hours), generation (beside transformers'
            generate, as multiple of real time, as a stream), training (beside transformers.Trainer), hybrid
            (hybrid-codec beside itself with its teacher inside, and its encoder beside DacModel's), bigvgan (beside
            the package bigvgan) and roofline (what the machine can do, and how much of it the others reach); all
            when unset.
        codecs: the presets, bundled codecs and models of transformers to time; all when unset.
        quick: seconds instead of minutes: less audio, fewer rounds, 10 minutes for the 3 hours.
        seconds: of audio that a codec is timed on; 10 unless set, 1.5 with --quick.
        rounds: how often each contestant has its turn, and each text is spoken; 7 unless set, 3 with --quick, and 3
            where one takes long. Everything is reported by the median, ratios by the median of the rounds' own.
        threads: of torch on the CPU.
        codec: what tokenize is timed with, beside the preset hh-codec with random weights.
        model: what generation is timed with.
        device: auto takes a GPU where there is one.
    """
    from codec.foundation import write_json, write_text
    from recipes.benchmark.budgets import budgets
    from recipes.benchmark.contestants import contestant_names
    from recipes.benchmark.report import as_json, tables
    from recipes.cli.common import resolve_device
    from recipes.reporting.provenance import provenance

    known = contestant_names()
    if unknown := [name for name in codecs or [] if name not in known]:
        raise UserError(f"no codec {', '.join(unknown)} to time; there are {', '.join(known)}")
    effort = QUICK if quick else FULL
    if seconds is not None:
        effort = replace(effort, seconds=seconds, vocoder_seconds=seconds)
    if rounds is not None:
        effort = replace(effort, rounds=rounds, long_rounds=min(rounds, effort.long_rounds))
    if effort.seconds <= 0 or effort.rounds < 1 or threads < 1:
        raise UserError("seconds must be above 0, rounds and threads at least 1")
    where = resolve_device(device)
    measured = measure(parts or _PARTS, codecs or known, codec, model, effort, threads, where)
    rows = budgets(measured)
    facts = {
        **provenance(where, ["numpy", "accelerate", "bigvgan"]),
        "threads": threads,
        "rounds": effort.rounds,
        "quick": quick,
    }
    found = tables(measured, rows)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "bench.json", as_json(measured, rows, facts))
    heading = (
        f"`{facts['command']}`, {facts['date']}: {facts['device']}, {threads} threads, contestants in turn"
    )
    write_text(output / "bench.md", f"# bench\n\n{heading}\n\n{found}\n")
    print(f"{found}\n\ndetails: {output / 'bench.json'}")
    return 0
