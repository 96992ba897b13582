"""The container and the unit of systemd: their syntax, and that what they name is there."""

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path

from recipes.cli.arguments import build_parser
from recipes.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PORT = 8_000


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: name and argument of each."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def flags_exist(words: list[str]) -> bool:
    """Whether words are `codec-slm serve` with flags that it has."""
    program, command, *rest = words
    known = build_parser(COMMANDS[command].load(), command)._option_string_actions
    flags = [word for word in rest if word.startswith("--")]
    return os.path.basename(program) == "codec-slm" and command == "serve" and not set(flags) - set(known)


def test_the_container_is_slim_has_no_root_and_serves() -> None:
    steps = instructions()
    known = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {name for name, _ in steps} <= known and steps[0] == ("FROM", "python:3.11-slim")
    last = dict(steps)
    assert last["USER"] not in ("root", "0") and last["EXPOSE"] == str(PORT)
    assert flags_exist([*map(str, eval(last["ENTRYPOINT"]))])
    for name, argument in steps:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in argument.split()[:-1])
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", argument], check=True)
    code = eval(last["HEALTHCHECK"].split("CMD ")[1])[-1]
    compile(code, "HEALTHCHECK", "exec")
    # what pip installs there is what the tests run with
    pinned = re.findall(r"^(?:torch|torchaudio)==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pinned) == 2


def test_the_unit_serves_as_nobody_in_particular() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "docs" / "codec-slm.service")
    service = unit["Service"]
    assert flags_exist(shlex.split(service["ExecStart"])) and str(PORT) in service["ExecStart"]
    assert service["DynamicUser"] == "yes" and int(service["TimeoutStopSec"]) > 60
