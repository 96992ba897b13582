"""`codec-slm COMMAND ...`: the table of commands, and what the outcome of one means to the shell.

Only the standard library is imported here: `codec-slm --help` must not wait for torch.
"""

import difflib
import errno
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PROGRAM = "codec-slm"
_BAD_INPUT = 2
_INTERRUPTED = 128 + 2  # what shells call a process that SIGINT ended
_TERMINATED = 128 + 15
_BROKEN_PIPE = 128 + 13
# Threads without work sleep: by default they spin, which starves whoever shares the cores. Read when torch is imported.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# The machine's trouble, not a mistake in the code: one line tells it all.
_MACHINE_TROUBLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
)
# What libraries make of it.
_TROUBLE_IN_WORDS = tuple(os.strerror(number) for number in _MACHINE_TROUBLE)


@dataclass(frozen=True)
class Command:
    """Where a command's function is ("module:function"), and the line that `--help` says of it."""

    target: str
    summary: str

    def load(self) -> Any:
        """Import the function."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


COMMANDS = {
    "quickstart": Command(
        "recipes.cli.experiments:quickstart_command",
        "the whole pipeline on the bundled corpus, in minutes on two cores",
    ),
    "encode": Command("recipes.cli.codec:encode", "audio files to codes"),
    "decode": Command("recipes.cli.codec:decode", "codes to audio files"),
    "reconstruct": Command("recipes.cli.codec:reconstruct", "audio files to codes and back to audio"),
    "scan": Command(
        "recipes.cli.data:scan", "a corpus to a list in shards, with the lengths of its recordings"
    ),
    "tokenize": Command("recipes.cli.data:tokenize", "a corpus to a token dataset"),
    "combine": Command(
        "recipes.cli.data:combine", "token datasets to one: put together, filtered, in other shards"
    ),
    "align": Command("recipes.cli.data:align", "when each word of a corpus's transcripts is spoken"),
    "inspect": Command(
        "recipes.cli.data:inspect",
        "one row of a token dataset, or its training document, as text and audio",
    ),
    "train-tokenizer": Command("recipes.cli.data:train_tokenizer", "a text tokenizer from a corpus's text"),
    "train-codec": Command("recipes.cli.train:train_codec_command", "train a codec"),
    "train-recogniser": Command(
        "recipes.cli.train:train_recogniser_command", "train a recogniser that listens while codecs train"
    ),
    "export": Command(
        "recipes.cli.codec:export_codec_command", "a codec's training run to a model directory"
    ),
    "import-weights": Command(
        "recipes.cli.codec:import_weights_command", "a published file of weights to a model directory"
    ),
    "train-slm": Command("recipes.cli.train:train_slm_command", "train a speech language model"),
    "merge": Command("recipes.cli.train:merge_command", "an adapter and its model to a plain checkpoint"),
    "map-codes": Command(
        "recipes.cli.train:map_codes_command", "codes of a new codec in terms of a former one's"
    ),
    "speak": Command("recipes.cli.speak:speak_command", "text to speech"),
    "continue": Command("recipes.cli.speak:continue_command", "speech to more speech"),
    "transcribe": Command("recipes.cli.speak:transcribe_command", "speech to text"),
    "demo": Command("recipes.cli.apps:demo_command", "a web page to try codec and model on"),
    "serve": Command(
        "recipes.cli.apps:serve_command", "an HTTP service: speak, continue, transcribe, encode, decode"
    ),
    "evaluate-codec": Command("recipes.cli.evaluate:evaluate_codec", "how well a codec keeps speech"),
    "reproduce": Command("recipes.cli.evaluate:reproduce", "a paper's own table, filled by a checkpoint"),
    "evaluate-slm": Command("recipes.cli.evaluate:evaluate_slm", "how well a speech language model speaks"),
    "study": Command(
        "recipes.cli.experiments:study_command",
        "several tokenizers, one corpus, one language model, one report",
    ),
    "bench": Command("recipes.cli.experiments:bench", "speed here, beside what one would otherwise use"),
    "completion": Command(
        "recipes.cli.completion:completion_command", "a script that completes commands and flags in a shell"
    ),
    "results": Command(
        "recipes.cli.experiments:results", "tables of what was measured, into docs/results.md"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: done; 1: the machine's or the data's trouble; 2: bad input, said in one line; 130: interrupted; 143: terminated,
    with nothing half-written left behind.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    for name, value in _WAITING.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this the interpreter complains once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print(f"{_PROGRAM}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if _is_user_error(error):
            return _complain(str(error))
        if (trouble := _machine_trouble(error)) is None:
            raise
        return _complain(trouble, status=1)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"{_PROGRAM} {_version()}")
        for package, kind in (("codec", "codecs"), ("slm", "speech language models")):
            print(f"{kind}: {', '.join(_bundled(package)) or 'none'}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        return _complain(f"there is no command '{name}'.{guess} '{_PROGRAM} --help' lists them all.")

    from recipes.cli.arguments import call_with_arguments  # after the cheap answers: it imports jsonargparse

    outcome = call_with_arguments(COMMANDS[name].load(), rest, f"{_PROGRAM} {name}", examples_of(name))
    return outcome if type(outcome) is int else 0


def examples_of(name: str) -> list[str]:
    """Command lines that show a command."""
    lines = Path(__file__).with_name("examples.txt").read_text(encoding="utf-8").splitlines()
    shown = (f"{_PROGRAM} {name} ", f"accelerate launch -m recipes {name} ")
    return [line for line in lines if f"{line} ".startswith(shown)]


def _bundled(package: str) -> list[str]:
    """Names and sizes of the models that come with a package."""
    home = Path(__file__).parents[2] / package / "checkpoints"
    return [
        f"{model.name} ({sum(file.stat().st_size for file in model.iterdir()) / 1e6:.0f} MB)"
        for model in sorted(home.iterdir() if home.is_dir() else ())
        if (model / "config.json").is_file()
    ]


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(_TERMINATED)  # not the signal's own end: temporary files are removed on the way out


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {_PROGRAM} COMMAND ...",
            "",
            "Speech in, 24 tokens a second out, a language model over those tokens and text, speech back.",
            "",
            "commands:",
            *lines,
            "",
            f"'{_PROGRAM} COMMAND --help' tells all about one of them.",
        ]
    )


def _version() -> str:
    try:
        return version("codec-slm")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


def _is_user_error(error: Exception) -> bool:
    # If nobody has imported the class, this is not one.
    module = sys.modules.get("codec.foundation.errors")
    return module is not None and isinstance(error, module.UserError)


def _machine_trouble(error: BaseException) -> str | None:
    """The path and the cause, where the error, or one behind it, is the machine's; else None."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in _MACHINE_TROUBLE:
            place = f"{behind.filename}: " if behind.filename else ""
            return f"{place}{behind.strerror}"
        if any(words in str(behind) for words in _TROUBLE_IN_WORDS):
            return str(behind).strip().split("\n")[0]
        behind = behind.__cause__ or behind.__context__
    return None


def _complain(message: str, status: int = _BAD_INPUT) -> int:
    line = " ".join(message.split())
    print(f"{_PROGRAM}: error: {line}", file=sys.stderr)
    return status
