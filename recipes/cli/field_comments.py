"""What a dataclass's source says of its fields, so that `--help` can repeat it."""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import typing
from types import UnionType


def field_comments(hint: object) -> dict[str, str]:
    """Dotted field name -> comment, for a dataclass or a union with dataclasses in it, through nested ones.

    A field's comment is its line in the class's docstring (`name: text`), or what stands on the lines directly above
    the field and on its own lines.
    """
    comments: dict[str, str] = {}
    for config_type in _dataclasses_in(hint):
        for owner in reversed(config_type.__mro__):  # inherited fields are explained where they were written
            if dataclasses.is_dataclass(owner):
                comments |= _comments_in_source(owner) | _lines_in_docstring(owner)
        hints = typing.get_type_hints(config_type)
        for field in dataclasses.fields(config_type):  # type: ignore[arg-type]
            for name, comment in field_comments(hints[field.name]).items():
                comments.setdefault(f"{field.name}.{name}", comment)
    return comments


def _dataclasses_in(hint: object) -> list[type]:
    """The dataclasses whose fields become flags: the type itself, or the members of a union."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]


def _comments_in_source(config_type: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(config_type))
    except (OSError, TypeError):  # made at run time, or shipped without source
        return {}
    by_line: dict[int, str] = {}
    alone: set[int] = set()  # lines of nothing but comment
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            by_line[line] = token.string.lstrip("#").strip()
            if token.line.lstrip().startswith("#"):
                alone.add(line)
    comments: dict[str, str] = {}
    definition = ast.parse(source).body[0]
    for node in definition.body if isinstance(definition, ast.ClassDef) else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            lines = range(first, (node.end_lineno or node.lineno) + 1)
            text = " ".join(by_line[line] for line in lines if line in by_line)
            if text:
                comments[node.target.id] = text
    return comments


def _lines_in_docstring(config_type: type) -> dict[str, str]:
    """`name: text` and `one, other: text`, with indented lines going on; only names that are fields count."""
    names = {field.name for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    entries = re.findall(
        r"^(\w+(?:, \w+)*): (.*(?:\n +.*)*)", inspect.cleandoc(config_type.__doc__ or ""), flags=re.MULTILINE
    )
    return {
        name: " ".join(text.split()) for heads, text in entries for name in heads.split(", ") if name in names
    }
