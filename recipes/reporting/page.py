"""A report's page, said once: as Markdown, and as HTML that carries its pictures along (templates/*.j2)."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recipes.reporting.tables import Table


@dataclass(frozen=True)
class Points:
    """Short remarks below each other."""

    points: Sequence[str]
    kind: str = field(default="points", init=False)


@dataclass(frozen=True)
class Picture:
    """A PNG beside the page."""

    file: str
    caption: str
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Code:
    """Lines as they are, in a language that Markdown knows."""

    text: str
    language: str = "text"
    kind: str = field(default="code", init=False)


# A paragraph is a string. It may hold `code`, [links](file) and **bold** words.
Block: TypeAlias = str | Points | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """A heading and what is below it; without a title, the blocks alone."""

    title: str
    blocks: Sequence[Block]


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The page as Markdown; pictures and sounds are links."""
    return _MARKDOWN.get_template("page.md.j2").render(title=title, sections=sections)


def as_html(title: str, sections: Sequence[Section], directory: Path) -> str:
    """The page as HTML; pictures of `directory` are in it, sounds are links."""

    def embedded(file: str) -> str:
        return base64.b64encode((directory / file).read_bytes()).decode()

    return _HTML.get_template("page.html.j2").render(title=title, sections=sections, embedded=embedded)


def blocks_as_markdown(blocks: Sequence[Block]) -> str:
    """Blocks without a page around them."""
    return _MARKDOWN.get_template("blocks.md.j2").render(blocks=blocks).strip("\n")


def _inline(text: str) -> Markup:
    """A paragraph's text as HTML."""
    escaped = html.escape(text, quote=False)
    for pattern, replacement in (
        (r"`([^`]+)`", r"<code>\1</code>"),
        (r"\*\*(.+?)\*\*", r"<b>\1</b>"),
        (r"\[([^\]]+)\]\(([^)\s:]+)\)", r'<a href="\2">\1</a>'),  # to files beside the page alone
    ):
        escaped = re.sub(pattern, replacement, escaped)
    return Markup(escaped)  # escaped above


def _environment(autoescape: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"link": quote, "inline": _inline, "suffix": lambda file: Path(file).suffix[1:]}
    made.filters["cell"] = lambda text: text.replace("|", "\\|")
    return made


_MARKDOWN, _HTML = _environment(False), _environment(True)
