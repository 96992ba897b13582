"""Four minutes of one big GPU: how fast everything is there, and whether the tests pass. See README.md.

    python -m recipes.device.evidence --output out/evidence

Every measurement is a process with a time of its own, and what is there at the end is reported, whatever failed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers.utils import is_flash_attn_2_available

from codec.foundation import write_json, write_text
from recipes.device.measure import TRAININGS
from recipes.device.stages import Outcome, Stage, run_stage
from recipes.reporting.provenance import provenance
from recipes.reporting.tables import Table, show

CODECS = ["hh-codec-24hz", "hh-codec-24hz-vocos", "hybrid-codec", "MimiModel"]
SECONDS = {
    "codecs": 45, "tokenize": 22, "training-sdpa": 13, "training-sdpa-compiled": 25, "training-flex": 18,
    "training-flex-compiled": 25, "training-flash": 13, "training-flash-compiled": 25, "generation": 18, "flips": 13,
    "tests": 18,
}  # fmt: skip
REHEARSAL = dict.fromkeys(
    ("codecs", "tokenize", "training-sdpa", "generation", "flips"), 240
)  # each takes seconds


def plan(output: Path, device: str, rehearse: bool) -> list[Stage]:
    """What is measured, in this order, and for how long at most."""

    def command(name: str) -> list[str]:
        if name == "codecs":
            codecs = ["hh-codec-tiny"] if rehearse else CODECS
            parts = "[codecs]" if rehearse else "[codecs, hybrid, generation]"
            settings = {
                "output": output / "bench",
                "device": device,
                "parts": parts,
                "codecs": json.dumps(codecs),
            }
            bench = [
                "recipes",
                "bench",
                "--rounds=3",
                *(f"--{name}={value}" for name, value in settings.items()),
            ]
            return [*bench, *(["--quick"] if rehearse else [])]
        if name == "tests":
            return ["pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
        measure = ["recipes.device.measure", name, str(output / f"{name}.json"), "--device", device]
        return [*measure, *(["--rehearse"] if rehearse else [])]

    seconds = REHEARSAL if rehearse else SECONDS
    skipped = () if is_flash_attn_2_available() else [name for name in TRAININGS if "flash" in name]
    return [Stage(name, limit, command(name)) for name, limit in seconds.items() if name not in skipped]


def report(output: Path, outcomes: list[Outcome], facts: dict[str, Any]) -> str:
    """Write evidence.json and evidence.md of what the stages left; the Markdown."""
    found = {
        one.name: json.loads(file.read_text(encoding="utf-8"))
        for one in outcomes
        if (file := output / f"{one.name}.json").is_file()
    }
    bench = output / "bench" / "bench.json"
    measured = {"codecs": json.loads(bench.read_text(encoding="utf-8"))} if bench.is_file() else {}
    write_json(output / "evidence.json", facts | {"stages": list(map(asdict, outcomes))} | measured | found)
    rows = [
        [
            name.split("-")[0],
            row["what"],
            "; ".join(f"{key}: {show(row[key], 4 if row[key] < 1 else 1)}" for key in row if key != "what"),
        ]
        for name, several in found.items()
        for row in several
    ]
    stages = Table(
        ["stage", "ended", "s"], [[one.name, one.ended, show(one.seconds)] for one in outcomes], words=2
    )
    blocks = [f"# Evidence\n\n`{facts['command']}`, {facts['date']}: {facts['device']}"]
    blocks += [str(Table(["measured", "of", "found"], rows, words=3))] if rows else []
    if (table := output / "bench" / "bench.md").is_file():
        blocks.append(table.read_text(encoding="utf-8").replace("# bench", "## Codecs and generation", 1))
    text = "\n\n".join([*blocks, "## Stages", str(stages)]) + "\n"
    write_text(output / "evidence.md", text)
    return text


def main() -> None:
    """Measure, and write evidence.json and evidence.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("out/evidence"))
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, about two minutes of a CPU")
    asked = parser.parse_args()
    device = "cpu" if asked.rehearse else "cuda"
    facts = provenance(device) | {"command": f"python -m {__spec__.name}", "rehearsal": asked.rehearse}
    output = asked.output.resolve()
    outcomes: list[Outcome] = []
    text = ""
    for stage in plan(output, device, asked.rehearse):
        outcomes.append(run_stage(stage, output / "logs"))
        # after every stage: what is there stays, should the machine go
        text = report(output, outcomes, facts)
    print(text)
    if not any(one.ended == "done" for one in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
