"""Command-line arguments from a function's signature: types, defaults and help are said once, in the function.

The input of a command is positional (`codec-slm tokenize CORPUS`), all other parameters are `--flags`. A parameter
`config` of a dataclass type is spread out: its fields are flags of their own, nested ones as
`--optimizer.learning_rate`, so that a YAML file for `--config` is a plain dump of the dataclass. A flag that takes
several words may be repeated (`--codec a --codec b`), and a flag that is true or false needs no value (`--quick`).
"""

import contextlib
import dataclasses
import difflib
import inspect
import io
import json
import os
import re
import sys
import types
import typing
from argparse import Action, ArgumentError
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from codec.foundation import UserError, check_regular, file_identity, local_path
from data.recordings import refuse_recording
from recipes.inputs import STANDARD

# The string below a dataclass's field is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

# Parameters whose fields are flags of the command, if their types are dataclasses.
_FLAT = ("config", "reading")
# Flags in all commands, whether required or not.
_NEVER_POSITIONAL = ("codec", "model", "output", "text")


def call_with_arguments(
    function: Callable[..., Any], arguments: Sequence[str], program: str, examples: Sequence[str] = ()
) -> Any:
    """Parse the arguments, call the function with them and return what it returns.

    Raises UserError for arguments that do not fit, SystemExit(0) after `--help` and `--print_config`.
    """
    parser = build_parser(function, program, examples)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parsed = parser.parse_args(_normalized(arguments, typing.get_type_hints(function)))
    except SystemExit as error:
        if not error.code:
            raise
        # the parser of a list's elements prints its usage and exits
        line = (told.getvalue().strip().splitlines() or ["wrong arguments"])[-1].removeprefix("error: ")
        raise UserError(f"{line} ('{program} --help' lists the arguments)") from None
    except ArgumentError as error:
        raise _user_error(error, parser, program) from None
    except UnicodeError as error:
        raise UserError(f"the file of --config is not UTF-8 ({error})") from None
    values = parser.instantiate(parsed)
    _prepare_process(values.get("threads"), values.get("offline"))
    flat = {
        name: {field.name: values[field.name] for field in dataclasses.fields(kind) if field.init}
        for name, kind in _flat(function).items()
    }
    given = {name: values[name] for name in inspect.signature(function).parameters if name not in flat}
    check_output(given | {field: value for fields in flat.values() for field, value in fields.items()})
    built = {name: kind(**flat[name]) for name, kind in _flat(function).items()}
    return function(**given, **built)


def _prepare_process(threads: int | None, offline: bool | None) -> None:
    """What has to be known before torch and the hub's client are imported."""
    if threads is not None and threads < 1:
        raise UserError(f"--threads is {threads}: 1 or more")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def build_parser(function: Callable[..., Any], program: str, examples: Sequence[str] = ()) -> ArgumentParser:
    """The parser of one command; `examples` stand below its help."""
    documentation = docstring_parser.parse(function.__doc__ or "")
    hints = typing.get_type_hints(function)
    positional = _positional(function, hints)
    several = positional is not None and typing.get_origin(hints[positional]) is list
    shown = f" {positional.upper()}{' ...' if several else ''}" if positional else ""
    parser = ArgumentParser(
        prog=program,
        usage=f"{program}{shown} [--config FILE] [--FLAG VALUE ...]",
        description=documentation.description,
        epilog="\n  ".join(["examples:", *examples]) if examples else None,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with values for any of the flags below.")
    skipped: set[str | int] = set()
    if positional is not None:
        about = {parameter.arg_name: parameter.description or "" for parameter in documentation.params}
        parser.add_argument(
            positional,
            type=typing.get_args(hints[positional])[0] if several else hints[positional],
            nargs="+" if several else None,
            metavar=positional.upper(),
            help=about.get(positional, ""),
        )
        skipped.add(positional)
    flat = _flat(function)
    if "config" in flat:  # the most of the command
        parser.add_class_arguments(flat["config"], nested_key=None)
    parser.add_function_arguments(function, skip=skipped | flat.keys(), as_group=False)
    if "reading" in flat:
        parser.add_class_arguments(flat["reading"], nested_key=None, as_group=False)
    flags = parser._option_string_actions
    if "--threads" not in flags:
        told = "threads of the CPU; by default 1 for a small model in use, else one a core."
        parser.add_argument("--threads", type=int | None, help=told)
    parser.add_argument(
        "--offline", type=bool, default=False, help="ask the hub for nothing (HF_HUB_OFFLINE)."
    )
    return parser


class _HelpFormatter(DefaultHelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)

    def _get_type_str(self, action: Action) -> str | None:
        return _plain_types(super()._get_type_str(action) or "") or None


def _plain_types(text: str) -> str:
    """`<class 'pathlib.Path'>` as `path`, `typing.Literal['a', 'b']` as `one of 'a', 'b'`."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"(?:typing\.)?Literal\[([^]]*)\]", r"one of \1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | null", text)
    return re.sub(r"\bPath\b", "path", text)


def _normalized(words: Sequence[str], hints: dict[str, Any]) -> list[str]:
    """The command line as jsonargparse takes it.

    `--max-failures` becomes `--max_failures`. `--quick` becomes `--quick=true` where no value follows. `--codec a
    --codec b` becomes `--codec=["a", "b"]` where `codec` is a list of words; what is written as a list stays.
    """
    repeated: dict[str, list[str]] = {}
    normalized: list[str] = []
    rest = deque(words)
    while rest:
        flag, equals, value = rest.popleft().partition("=")
        if not flag.startswith("--"):
            normalized.append(flag + equals + value)
            continue
        name = flag[2:].replace("-", "_")
        has_value = bool(equals) or (bool(rest) and not rest[0].startswith("--"))
        if (hints.get(name) is bool or name == "offline") and not has_value:
            normalized.append(f"--{name}=true")
        elif has_value and _is_list_of_words(hints.get(name)):
            given = value if equals else rest.popleft()
            if given == "null" or given.startswith("["):
                normalized.append(f"--{name}={given}")
            else:
                repeated.setdefault(name, []).append(given)
        else:
            normalized.append(f"--{name}{equals}{value}")
    return normalized + [f"--{name}={json.dumps(values)}" for name, values in repeated.items()]


def _is_list_of_words(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(map(_is_list_of_words, typing.get_args(hint)))
    if typing.get_origin(hint) is not list:
        return False
    (element,) = typing.get_args(hint)
    return element is str or typing.get_origin(element) is typing.Literal


def _flat(function: Callable[..., Any]) -> dict[str, type]:
    """Those of the parameters in `_FLAT` that a function has, with their types."""
    hints = typing.get_type_hints(function)
    kinds = {name: hints[name] for name in _FLAT if name in hints}
    return {n: kind for n, kind in kinds.items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}


def _positional(function: Callable[..., Any], hints: dict[str, Any]) -> str | None:
    """The first required parameter that names an input of the command."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            continue
        kind = hints[name]
        if typing.get_origin(kind) is list:
            (kind,) = typing.get_args(kind)
        named = typing.get_origin(kind) is typing.Literal
        if (kind in (str, Path) or named) and name not in _NEVER_POSITIONAL:
            return name
    return None


def _user_error(error: ArgumentError, parser: ArgumentParser, program: str) -> Exception:
    message = _plain_types(error.message or str(error))
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[1].partition("=")[0], flags, n=1)
        message += f"; did you mean {near[0]}?" if near else ""
    elif missing := re.match(r"the following arguments are required: (.*)", message):
        shown = {
            action.dest: "/".join(action.option_strings[:1]) or action.metavar for action in parser._actions
        }
        message = f"missing: {', '.join(str(shown.get(name, name)) for name in missing[1].split(', '))}"
    elif wrong := re.match(r'Parser key "([^"]+)"(.*)', message, flags=re.DOTALL):
        message = f"--{wrong[1]}{wrong[2]}".replace("Expected a ", "expected ").replace(
            ". Got value: ", ", got "
        )
    return UserError(f"{message} ('{program} --help' lists the arguments)")


# ---- what a command must not write: one of its inputs, somebody's recording, an address that is no path


def check_output(values: Mapping[str, Any]) -> None:
    """Look at a command's arguments before it starts; `output` is what it writes.

    Raises UserError when that, or another path, is an address, and when it is one of the inputs under whatever name.
    """
    output = values.get("output")
    for name, value in values.items():
        for path in _strings(value):
            if isinstance(path, Path) or name == "output":
                try:
                    local_path(path)
                except UserError as error:
                    raise UserError(f"--{name} {error}") from None
    if not isinstance(output, str | Path) or str(output) in ("", STANDARD):
        return
    refuse_recording(output)
    check_regular(output)
    written = file_identity(output)
    if written is None:
        return
    for name, value in values.items():
        if name == "output":
            continue
        for path in _strings(value):
            if file_identity(path) == written:
                raise UserError(f"--output {output}: is an input of this command: give another")


def _strings(value: Any) -> Iterator[str | Path]:
    """All strings and paths in a value, its lists and its settings."""
    if isinstance(value, str | Path):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _strings(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
