"""Command-line arguments from a function's signature: types, defaults and help are said once, in the function.

The input of a command is positional (`codec-slm tokenize CORPUS`), all other parameters are `--flags`. A parameter
`config` of a dataclass type is spread out: its fields are flags of their own, nested ones as
`--optimizer.learning_rate`, so that a YAML file for `--config` is a plain dump of the dataclass. A flag that takes
several words may be repeated (`--codec a --codec b`), and a flag that is true or false needs no value (`--quick`).
"""

import dataclasses
import difflib
import inspect
import json
import re
import types
import typing
from argparse import Action, ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

_CONFIG = "config"
set_parsing_settings(
    docstring_parse_attribute_docstrings=True
)  # the string below a dataclass's field is its help
# Said the same way in all commands, whether required or not.
_NEVER_POSITIONAL = ("codec", "model", "output", "text")


def call_with_arguments(function: Callable[..., Any], arguments: Sequence[str], program: str) -> Any:
    """Parse the arguments, call the function with them and return what it returns.

    Raises UserError for arguments that do not fit, SystemExit(0) after `--help` and `--print_config`.
    """
    parser = build_parser(function, program)
    try:
        words = [_with_underscores(word) for word in arguments]
        words = _with_values(words, _switches(function))
        parsed = parser.parse_args(_gathered(words, _lists_of_words(function)))
    except ArgumentError as error:
        raise _user_error(error, parser, program) from None
    values = parser.instantiate(parsed)
    parameters = inspect.signature(function).parameters
    config_type = _config_type(function)
    if config_type is None:
        return function(**{name: values[name] for name in parameters})
    fields = {field.name: values[field.name] for field in dataclasses.fields(config_type) if field.init}
    others = {name: values[name] for name in parameters if name != _CONFIG}
    return function(**{_CONFIG: config_type(**fields)}, **others)


def build_parser(function: Callable[..., Any], program: str) -> ArgumentParser:
    """The parser of one command."""
    documentation = docstring_parser.parse(function.__doc__ or "")
    hints = typing.get_type_hints(function)
    positional = _positional(function, hints)
    several = positional is not None and typing.get_origin(hints[positional]) is list
    shown = f" {positional.upper()}{' ...' if several else ''}" if positional else ""
    parser = ArgumentParser(
        prog=program,
        usage=f"{program}{shown} [--config FILE] [--FLAG VALUE ...]",
        description=documentation.description,
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
    config_type = _config_type(function)
    if config_type is not None:
        parser.add_class_arguments(config_type, nested_key=None)
        skipped.add(_CONFIG)
    parser.add_function_arguments(function, skip=skipped, as_group=False)
    return parser


class _HelpFormatter(DefaultHelpFormatter):
    def _get_type_str(self, action: Action) -> str | None:
        return _plain_types(super()._get_type_str(action) or "") or None


def _plain_types(text: str) -> str:
    """`<class 'pathlib.Path'>` as `path`, `typing.Literal['a', 'b']` as `one of 'a', 'b'`."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"(?:typing\.)?Literal\[([^]]*)\]", r"one of \1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | null", text)
    return re.sub(r"\bPath\b", "path", text)


def _with_underscores(word: str) -> str:
    """`--max-failures=0` as `--max_failures=0`: both spellings of a flag are the same."""
    flag, equals, value = word.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def _switches(function: Callable[..., Any]) -> list[str]:
    """Parameters that are true or false."""
    return [name for name, hint in typing.get_type_hints(function).items() if hint is bool]


def _with_values(words: list[str], switches: Sequence[str]) -> list[str]:
    """`--quick` as `--quick=true` where nothing follows that could be its value."""
    following = [*words[1:], "--"]
    return [
        f"{word}=true" if word[:2] == "--" and word[2:] in switches and after.startswith("--") else word
        for word, after in zip(words, following, strict=False)
    ]


def _lists_of_words(function: Callable[..., Any]) -> list[str]:
    """Parameters that are lists of strings, given or not."""
    found = []
    for name, hint in typing.get_type_hints(function).items():
        choices = (
            typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        )
        elements = [typing.get_args(kind)[0] for kind in choices if typing.get_origin(kind) is list]
        if any(element is str or typing.get_origin(element) is typing.Literal for element in elements):
            found.append(name)
    return found


def _gathered(words: list[str], lists: Sequence[str]) -> list[str]:
    """`--codec a --codec b` as `--codec=["a", "b"]` where `codec` is a list; what is written as a list stays."""
    values: dict[str, list[str]] = {}
    gathered: list[str] = []
    rest = list(reversed(words))
    while rest:
        flag, equals, value = rest.pop().partition("=")
        if flag[:2] != "--" or flag[2:] not in lists:
            gathered.append(flag + equals + value)
        elif not equals and (not rest or rest[-1].startswith("--")):
            gathered.append(flag)  # its value is missing: the parser says so
        else:
            given = value if equals else rest.pop()
            if given == "null" or given.startswith("["):
                gathered.append(f"{flag}={given}")
            else:
                values.setdefault(flag, []).append(given)
    return gathered + [f"{flag}={json.dumps(found)}" for flag, found in values.items()]


def _config_type(function: Callable[..., Any]) -> type | None:
    hint = typing.get_type_hints(function).get(_CONFIG)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _positional(function: Callable[..., Any], hints: dict[str, Any]) -> str | None:
    """The first required parameter that names an input of the command."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind is parameter.KEYWORD_ONLY:
            continue
        kind = hints[name]
        if typing.get_origin(kind) is list:
            (kind,) = typing.get_args(kind)
        if kind in (str, Path) and name not in _NEVER_POSITIONAL:
            return name
    return None


def _user_error(error: ArgumentError, parser: ArgumentParser, program: str) -> Exception:
    from codec.foundation.errors import UserError

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
