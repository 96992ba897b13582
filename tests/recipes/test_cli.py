"""The command line: arguments from signatures, one line for a mistake, statuses that scripts can rely on."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import torch

import codec
import slm
from codec import bundled_codecs
from codec.foundation import RunDirectory, UserError
from data.config import CorpusOptions
from recipes.cli import main as cli
from recipes.cli.arguments import build_parser, call_with_arguments
from recipes.loading import use_few_threads
from slm import bundled_slms

calls: list[object] = []


def copy(
    audio: list[Path], output: Path, format: Literal["wav", "flac"] = "wav", gain: float | None = None
) -> None:
    """Copy audio.

    Args:
        audio: the files to copy.
        output: where to.
        gain: in dB.
    """
    calls.append((audio, output, format, gain))


@dataclass
class Rate:
    """How fast to learn."""

    learning_rate: float = 1e-3
    """The peak,
    in the middle."""
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if self.learning_rate < 0:
            raise UserError("optimizer.learning_rate is below 0")


RATE = Rate()


def count(codec: str, corpus: str, *, up_to: int = 10, rate: Rate = RATE) -> int:
    """Count a corpus and tell by the exit status."""
    return up_to


def say(text: str, output: Path) -> None:
    """Say a text."""
    calls.append((text, output))


@dataclass
class Source:
    """A corpus and its share."""

    path: str
    weight: float | None = None


@dataclass
class BaseConfig:
    """Of all runs."""

    output: str
    """The run directory."""
    steps: int | None = None


@dataclass
class Config(BaseConfig):
    """One run."""

    sources: list[Source] = field(default_factory=list)
    optimizer: Rate = field(default_factory=Rate)
    decay: Rate | None = None
    """Unset: as before."""
    kind: Literal["fast", "slow"] = "fast"
    """How it
    is done."""


def gather(
    output: Path, text: list[str], kinds: list[Literal["a", "b"]] | None = None, quick: bool = False
) -> None:
    """Gather words.

    Args:
        output: where to.
        text: words.
        kinds: of them.
        quick: in a hurry.
    """
    calls.append((text, kinds, quick))


def train(config: Config, dry: bool = False) -> None:
    """Train something.

    Args:
        config: the run.
        dry: only look.
    """
    calls.append((config, dry))


def interrupted() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


def disk_full() -> None:
    """Meet a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device", "/data/x")


def broken() -> None:
    """Have a mistake in the code."""
    raise ValueError("a mistake")


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    functions = (copy, count, say, gather, train, interrupted, disk_full, broken)
    table = {f.__name__.replace("_", "-"): cli.Command(f"{__name__}:{f.__name__}", "") for f in functions}
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules["__main__"])
    monkeypatch.setattr(cli, "COMMANDS", table)


def _error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("codec-slm: error: ")
    return captured.err.removeprefix("codec-slm: error: ").rstrip("\n")


# ---- arguments


def test_the_input_is_positional_and_all_else_is_flags() -> None:
    assert cli.main(["copy", "a.wav", "b c.wav", "--output", "out", "--gain", "-0.3"]) == 0
    assert calls == [([Path("a.wav"), Path("b c.wav")], Path("out"), "wav", -0.3)]


def test_dashes_and_underscores_are_the_same_in_flags() -> None:
    assert cli.main(["count", "x-y", "--codec=a-b", "--up-to", "3", "--rate.learning-rate=1e-3"]) == 3
    assert cli.main(["count", "x-y", "--codec=a-b", "--up_to", "4"]) == 4


def test_text_is_a_flag() -> None:
    assert cli.main(["say", "--text", "null: [1]", "--output", "out"]) == 0
    assert calls == [("null: [1]", Path("out"))]


def test_flags_of_lists_may_be_repeated_and_switches_need_no_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["gather", "--text", "one: [1]", "--quick", "--text=two", "--output", "out"]) == 0
    assert (
        cli.main(["gather", "--text=[one, two]", "--output", "out", "--kinds", "b", "--quick", "false"]) == 0
    )
    assert cli.main(["gather", "--kinds", "null", "--text", "x=y", "--output", "out", "--quick"]) == 0
    assert calls == [
        (["one: [1]", "two"], None, True),
        (["one", "two"], ["b"], False),
        (["x=y"], None, True),
    ]
    assert "expected one argument" in _error_of(capsys, "gather", "--text", "--output", "out")


def test_the_config_file_of_a_run_fed_back_is_the_same_config(tmp_path: Path) -> None:
    config = Config(
        output="runs/x",
        sources=[Source("a b"), Source("c", 0.5)],
        optimizer=Rate(1e-5, (0.8, 0.99)),
        decay=Rate(3e-7),
        kind="slow",
    )
    RunDirectory(tmp_path).write_config(config)
    assert cli.main(["train", "--config", str(tmp_path / "config.yaml")]) == 0
    RunDirectory(tmp_path / "default").write_config(Config("y"))
    assert cli.main(["train", "--config", str(tmp_path / "default" / "config.yaml"), "--dry", "true"]) == 0
    assert calls == [(config, False), (Config("y"), True)]


def test_flags_overrule_the_config_file_field_by_field(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("output: x\noptimizer: {betas: [0.5, 0.6]}\nsources: [{path: a}]\n")
    flags = ["--optimizer.learning_rate", "3e-4", "--steps=7", "--sources", "[{path: b, weight: 2}]"]
    assert cli.main(["train", "--config", str(tmp_path / "c.yaml"), *flags]) == 0
    assert calls == [(Config("x", 7, [Source("b", 2.0)], Rate(3e-4, (0.5, 0.6))), False)]


def test_mistakes_are_one_line_with_the_cure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def error(*words: str) -> str:
        return _error_of(capsys, *words)

    assert (
        error("copie")
        == "there is no command 'copie'. Did you mean 'copy'? 'codec-slm --help' lists them all."
    )
    assert error("xyz") == "there is no command 'xyz'. 'codec-slm --help' lists them all."
    assert error("copy", "a").startswith("missing: --output ('codec-slm copy --help'")
    assert error("copy").startswith("missing: AUDIO, --output")
    assert "--outptu b; did you mean --output?" in error("copy", "a", "--output", "b", "--outptu", "b")
    assert error("copy", "a", "--output", "b", "--format", "mp3").startswith(
        "--format: expected one of 'wav', 'flac', got mp3"
    )
    assert error("train", "--output", "b", "--optimizer.learning_rate", "fast").startswith(
        "--optimizer.learning_rate: expected float, got fast"
    )
    assert (
        error("train", "--output", "b", "--optimizer.learning_rate=-1")
        == "optimizer.learning_rate is below 0"
    )
    assert "absent.yaml" in error("train", "--config", "absent.yaml")
    (tmp_path / "c.yaml").write_text("output: x\nstepz: 3\n")
    assert "stepz" in error("train", "--config", str(tmp_path / "c.yaml"))
    assert calls == []


def test_help_says_what_docstrings_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli.main(["copy", "--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "usage: codec-slm copy AUDIO ...",
        "the files to copy.",
        "in dB. (type: float | null, default: null)",
    ):
        assert part in text
    with pytest.raises(SystemExit):
        cli.main(["count", "--help"])
    assert "rate.learning_rate LEARNING_RATE The peak, in the middle. (type" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "The run directory. (required, type: str)",
        "How fast to learn",
        "--optimizer.learning_rate LEARNING_RATE The peak, in the middle. (type",
        "Unset: as before. (type",
        "How it is done. (type",
    ):
        assert part in text


# ---- outcomes


def test_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["count", "x", "--codec", "c", "--up_to", "1"]) == 1
    assert cli.main(["interrupted"]) == 130
    assert capsys.readouterr().err == "codec-slm: interrupted\n"
    assert cli.main(["disk-full"]) == 1
    assert capsys.readouterr().err == "codec-slm: error: /data/x: No space left on device\n"
    with pytest.raises(ValueError, match="a mistake"):  # a bug keeps its traceback
        cli.main(["broken"])


def _run(*words: str, code: str = "") -> subprocess.Popen[str]:
    command = ["-c", code] if code else ["-m", "recipes"]
    return subprocess.Popen(
        [sys.executable, *command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_overview_is_cheap_and_complete() -> None:
    code = "import sys; from recipes.cli.main import main; main(['--help']); print(*sys.modules)"
    output, errors = _run(code=code).communicate()
    assert errors == ""
    overview, modules = output.rstrip("\n").rsplit("\n", 1)
    assert not {"torch", "numpy", "jsonargparse", "codec"} & set(modules.split())
    # Read from the source's table, which this test's own table stands in front of.
    names = subprocess.run(
        [sys.executable, "-c", "from recipes.cli.main import COMMANDS; print(*COMMANDS)"],
        capture_output=True,
        text=True,
    )
    assert all(f"\n  {name} " in overview for name in names.stdout.split())


def test_a_closed_pipe_is_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "recipes"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (141, "")


def test_ctrl_c_ends_a_command_without_a_traceback() -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "from recipes.cli import main as cli; sys.modules['long'] = sys.modules['__main__']\n"
        "def work() -> None:\n    print('working', flush=True); time.sleep(60)\n"
        "cli.COMMANDS = {'work': cli.Command('long:work', '')}; sys.exit(cli.main())"
    )
    process = _run("work", code=code)
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (130, "codec-slm: interrupted\n")


def test_an_unknown_command_from_the_shell() -> None:
    process = _run("tokenise")
    output, errors = process.communicate()
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("codec-slm: error: there is no command 'tokenise'. Did you mean 'tokenize'?")


# ---- the real table

_COMMANDS = dict(cli.COMMANDS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_explains_itself_and_all_its_flags(name: str) -> None:
    parser = build_parser(_COMMANDS[name].load(), f"codec-slm {name}")
    assert parser.description
    silent = {action.dest for action in parser._actions if not (action.help or "").strip()}
    assert silent == set()


def test_every_command_that_reads_a_corpus_can_be_told_how() -> None:
    reading = {f"--{field.name}" for field in dataclasses.fields(CorpusOptions)}
    parsers = {name: build_parser(command.load(), name) for name, command in _COMMANDS.items()}
    told = {name for name, parser in parsers.items() if reading <= parser._option_string_actions.keys()}
    asked = {
        name
        for name, parser in parsers.items()
        if any(action.dest == "format" and "ljspeech" in str(action._typehint) for action in parser._actions)
    }
    assert told == asked | {"train-codec", "train-recogniser", "reproduce"} and len(asked) == 7


@pytest.mark.parametrize("name", _COMMANDS)
def test_no_address_becomes_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", _COMMANDS)
    monkeypatch.chdir(tmp_path)
    function = _COMMANDS[name].load()
    parser = build_parser(function, name)
    needed = {
        "datasets": '[{"path": "a"}]',
        "corpora": '[{"path": "a"}]',
        "paper": "hh-codec",
        "shell": "bash",
    }
    required = {action.dest: needed.get(action.dest, "a") for action in parser._actions if action.required}
    positional = [action.dest for action in parser._actions if not action.option_strings]
    written = [
        action.dest
        for action in parser._actions
        if action.dest == "output" or "Path" in str(getattr(action, "_typehint", getattr(action, "type", "")))
    ]
    assert "output" in written or not {"output"} & {action.dest for action in parser._actions}
    for argument in written:
        for address in ("s3://bucket/x", "gs://bucket/a/b.wav", "file:///x/y", "hdfs://host:8020/x"):
            given = required | {argument: address}
            words = [given[place] for place in positional if place in given]
            words += [f"--{flag}={value}" for flag, value in given.items() if flag not in positional]
            assert cli.main([name, *words]) == 2
            assert f"--{argument} {address.partition('://')[0]}:/" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_settings_that_are_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_bytes("output: größe\n".encode("latin-1"))
    assert cli.main(["copy", "--config", str(tmp_path / "c.yaml")]) == 2
    assert "--config is not UTF-8" in capsys.readouterr().err


def test_a_wrong_flag_beside_a_list_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def train(rates: list[Rate], steps: int = 1) -> None: ...

    with pytest.raises(UserError, match=r"unrecognized arguments: --coanfig") as caught:
        call_with_arguments(train, ["--rates.help", "x", "--coanfig", "0"], "train")
    assert "\n" not in str(caught.value) and capsys.readouterr().err == ""


# ---- the whole table


def test_every_command_has_two_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the table as it is
    for name in cli.COMMANDS:
        examples = cli.examples_of(name)
        assert len(examples) >= 2, name


def test_version_names_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ["codec-slm ", *bundled_codecs(), *bundled_slms()])


def test_completion_knows_commands_and_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "reconstruct" in script and "--only_new" in script
    assert cli.main(["completion", "nosh"]) == 2


def test_threads_and_offline_are_set_before_libraries_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    before = torch.get_num_threads()
    small = torch.nn.Linear(10, 10)
    try:
        assert cli.main(["count", "x", "--codec", "a", "--threads", "3", "--offline"]) == 10
        assert (os.environ["OMP_NUM_THREADS"], os.environ["HF_HUB_OFFLINE"]) == ("3", "1")
        use_few_threads(small)
        assert torch.get_num_threads() == 3  # somebody has chosen
        monkeypatch.delenv("OMP_NUM_THREADS")
        with torch.device("meta"):
            use_few_threads(torch.nn.Linear(20_000, 10_000))
        assert torch.get_num_threads() == 3
        use_few_threads(small)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_sigterm_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = """
import os, signal, sys, torch
from recipes.cli import main as cli
from data import write_audio

def blocks():
    yield torch.zeros(9)
    os.kill(os.getpid(), signal.SIGTERM)
    yield torch.zeros(9)

def die() -> None:
    'Die.'
    write_audio(sys.argv[1], blocks(), 24_000)

cli.COMMANDS['die'] = cli.Command('__main__:die', '')
sys.exit(cli.main(['die']))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.wav")], timeout=120)
    assert done.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["codec", "data"])
def test_a_file_that_hides_one_of_our_packages_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "mine.py").write_text("import slm")
    home = str(Path(cli.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, tmp_path / "mine.py"], env={**os.environ, "PYTHONPATH": home}, capture_output=True
    )
    told = done.stderr.decode().splitlines()[-1]
    assert told.startswith(f"ImportError: {tmp_path / name}.py hides the package '{name}' of codec-slm")


@pytest.mark.parametrize("package", [codec, slm])
def test_the_docstring_of_a_package_names_all_that_is_public(package: ModuleType) -> None:
    assert package.__doc__ is not None
    assert set(package.__all__) <= set(re.findall(r"\w+", package.__doc__))
