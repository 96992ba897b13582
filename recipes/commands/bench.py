"""The command that measures speed: bench."""

from pathlib import Path
from typing import Any, Literal

from codec.runs import UserError

Part = Literal["codecs", "tokenize", "memory", "generation"]
_PARTS: tuple[Part, ...] = ("codecs", "tokenize", "memory", "generation")


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
    """How fast this is here, beside the codecs of transformers and beside what it must reach.

    Contestants take turns, so that ratios hold on a busy machine too; multiples of real time do not.
    Leaves bench.json and bench.md in the output.

    Args:
        output: directory for the results.
        parts: of codecs, tokenize, memory (of tokenize, on a recording of 3 hours) and generation; all when unset.
        codecs: the presets, bundled codecs and models of transformers to time; all when unset.
        quick: seconds instead of minutes: less audio, fewer rounds, 10 minutes for the 3 hours.
        seconds: of audio that a codec is timed on; 10 unless set, 2 with --quick.
        rounds: how often each contestant has its turn; 7 unless set, 3 with --quick.
        threads: of torch on the CPU.
        codec: what tokenize is timed with.
        model: what generation is timed with.
        device: auto takes a GPU where there is one.
    """
    import platform

    import torch

    from codec.runs import write_json, write_text
    from recipes.benchmark.budgets import Measured, budgets
    from recipes.benchmark.codecs import time_codecs
    from recipes.benchmark.contestants import contestant_names
    from recipes.benchmark.generation import time_generation
    from recipes.benchmark.report import as_json, tables
    from recipes.benchmark.tokenization import measure_tokenize_memory, time_tokenize
    from recipes.commands.common import resolve_device

    known = contestant_names()
    if unknown := [name for name in codecs or [] if name not in known]:
        raise UserError(f"no codec {', '.join(unknown)} to time; there are {', '.join(known)}")
    seconds = seconds if seconds is not None else 2.0 if quick else 10.0
    rounds = rounds if rounds is not None else 3 if quick else 7
    if seconds <= 0 or rounds < 1 or threads < 1:
        raise UserError("seconds must be above 0, rounds and threads at least 1")
    where, wanted = resolve_device(device), _PARTS if parts is None else parts
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        measured = Measured(
            codecs=time_codecs(codecs or known, seconds, rounds, where) if "codecs" in wanted else {},
            tokenize=time_tokenize(codec, 60.0 if quick else 1_200.0, min(rounds, 3), where)
            if "tokenize" in wanted
            else None,
            memory=measure_tokenize_memory(codec, 600.0 if quick else 3 * 3_600.0, where, threads)
            if "memory" in wanted
            else None,
            generation=time_generation(model, where) if "generation" in wanted else None,
        )
    finally:
        torch.set_num_threads(before)
    rows = budgets(measured)
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(where) if where.startswith("cuda") else _processor(),
        "threads": threads,
        "rounds": rounds,
        "quick": quick,
        "python": platform.python_version(),
        "versions": _versions(),
    }
    found = tables(measured, rows)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "bench.json", as_json(measured, rows, facts))
    heading = f"{facts['device']}, {threads} threads, {rounds} rounds in turn, batch 1, float32"
    write_text(output / "bench.md", f"# bench\n\n{heading}\n\n{found}\n")
    print(f"{found}\n\ndetails: {output / 'bench.json'}")
    return 0


def _processor() -> str:
    """The CPU by name, where Linux tells."""
    import platform
    import re

    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("torch", "transformers", "numpy")}
