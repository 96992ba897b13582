"""Laws of the source tree: who imports whom, where imports stand, and that `--help` is cheap."""

import re
import subprocess
import sys
import tomllib

import pytest
from hypothesis import settings

from recipes.cli.main import COMMANDS
from tests.house import ROOT, circles, folder_circles, modules, upward

MODULES = modules()


def test_examples_are_the_same_every_time_and_take_as_long_as_they_need() -> None:
    assert settings().derandomize and settings().deadline is None


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(MODULES) == []


def test_no_folder_imports_itself_by_way_of_others() -> None:
    assert folder_circles(MODULES) == []


def test_nothing_imports_from_above() -> None:
    assert upward(MODULES) == []


def test_imports_stand_at_the_top_but_in_commands() -> None:
    """Commands import what they run when they run; an optional package is imported where it is used."""
    commands = {command.target.replace(":", ".") for command in COMMANDS.values()}
    boundary = commands | {"recipes.cli.main._dispatch"}
    optional = _optional_packages()
    wrong = {
        f"{name}:{entry.line} in {entry.place}"
        for name, module in MODULES.items()
        for entry in module.inner_imports
        if f"{name}.{entry.place}" not in boundary and not set(entry.packages) <= optional
    }
    assert wrong == set()


def _optional_packages() -> set[str]:
    """Import names of what extras install beside the package itself, and of what tests compare with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra]
    return {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in lines}  # type: ignore[index]


def test_help_of_every_command_imports_neither_torch_nor_transformers() -> None:
    code = """
import sys

class Heavy(BaseException):
    pass

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "datasets"):
            raise Heavy(name)

sys.meta_path.insert(0, Watch())
from recipes.cli.arguments import build_parser
from recipes.cli.main import COMMANDS

for name, command in COMMANDS.items():
    try:
        build_parser(command.load(), name).format_help()
    except Heavy as heavy:
        print(name, heavy)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr == ""
    heavy = dict(line.split() for line in run.stdout.splitlines())
    assert heavy == {}


@pytest.mark.parametrize("command", ["train-codec", "train-slm", "speak", "study"])
def test_help_takes_less_than_two_seconds_and_little_memory(command: str) -> None:
    code = f"""
import re, time
from recipes.cli.main import main

try:
    main(["{command}", "--help"])
except SystemExit:
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"\\n{{time.process_time()}} {{int(peak) / 1024}}")
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, mebibytes = map(float, run.stdout.splitlines()[-1].split())
    assert seconds < 2.0  # of the processor: other processes do not count
    assert mebibytes < 120
