"""README, docs/, READMEs of recipes, model cards: links lead somewhere, commands parse, the reference is complete."""

import functools
import itertools
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from markdown import Markdown

from recipes.cli.arguments import build_parser, call_with_arguments
from recipes.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("README.md", "docs/**/*.md", "recipes/**/README.md", "*/checkpoints/*/README.md")
    for page in ROOT.glob(pattern)
)
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@functools.cache
def as_html(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return Markdown(extensions=["tables", "fenced_code", "toc"]).convert(text)


def commands(line: str) -> Iterator[list[str]]:
    """Name and arguments of each of our commands in a line of shell code, which may have pipes and a comment."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|<>;")
    words.whitespace_split = True
    for is_command, part in itertools.groupby(words, lambda word: word not in ("|", "<", ">", ";")):
        found = list(part)
        if is_command and "recipes" in found and found[0] in ("accelerate", "torchrun"):
            yield found[found.index("recipes") + 1 :]
        if is_command and found[0] == "codec-slm" and found[1:2] != ["COMMAND"]:
            yield found[1:]


def shell_lines(text: str) -> Iterator[str]:
    """The lines of its shell code, each whole."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


# ---- links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r'(?:href|src)="([^"]+)"', as_html(page)):
        if re.match(r"(https?|mailto):", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and f'id="{anchor}"' not in as_html(target)):
            dead.append(link)
    assert dead == []


def test_the_site_shows_every_page() -> None:
    shown = set(re.findall(r"\S+\.md", yaml.safe_dump(SETTINGS["nav"])))
    assert shown == {name_of(page) for page in PAGES if "sample_corpus" not in page.parts}


# ---- commands


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "corpora.yaml").write_text("corpora: [{path: a corpus}]")
    monkeypatch.chdir(tmp_path)
    for line in shell_lines(page.read_text(encoding="utf-8")):
        for name, *words in commands(line):
            function = COMMANDS[name].load()
            nothing = functools.wraps(function)(lambda **_: 0)
            assert call_with_arguments(nothing, [word for word in words if word != "FLAG"], name) == 0, line


def test_commands_in_sentences_have_the_flags_that_they_name() -> None:
    lines = (ROOT / "recipes/cli/examples.txt").read_text(encoding="utf-8").splitlines()
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        lines += [code for code in re.findall(r"`(codec-slm [^`]+|accelerate [^`]+)`", prose)]
    known = {
        name: build_parser(command.load(), name)._option_string_actions for name, command in COMMANDS.items()
    }
    for line in lines:
        for name, *words in commands(line):
            flags = [word.partition("=")[0].replace("-", "_").replace("__", "--", 1) for word in words]
            assert not [flag for flag in flags if flag.startswith("--") and flag not in known[name]], line


# ---- the rest


@pytest.mark.slow
def test_the_notebook_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    display = types.ModuleType("IPython.display")
    display.__dict__.update(Audio=lambda sound, rate: shown.append(sound), Image=shown.append)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    (tmp_path / "docs").mkdir()
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path / "docs")
    cells = json.loads((ROOT / "docs" / "first-steps.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(shown) == 5 and all(len(sound) > 24_000 for sound in shown)


def test_the_reference_names_all_that_is_public() -> None:
    for package in ("codec", "data", "slm"):
        public = re.findall(r"from \.(\S+) import (\w+) as", (ROOT / package / "__init__.pyi").read_text())
        page = (ROOT / "docs" / "reference" / f"{package}.md").read_text()
        named = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
        assert sorted(named) == sorted(f"{package}.{module}.{name}" for module, name in public)
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    targets = [command.target.replace(":", ".") for command in COMMANDS.values()]
    assert re.findall(r"^::: (\S+)$", page, re.MULTILINE) == targets


def test_the_readme_is_short_and_its_sounds_are_small() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert all(os.path.getsize(sound) <= 60_000 for sound in (ROOT / "docs" / "audio").iterdir())
