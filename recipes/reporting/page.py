"""Reports as pages: Markdown from the templates in this folder, and HTML from it that carries its pictures along."""

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown import Markdown

from codec.foundation import duration
from recipes.reporting.tables import show

_SOUNDS = ".wav", ".flac"


def as_markdown(template: str, **facts: Any) -> str:
    """A page from `templates/NAME.md.j2`. Tables among the facts write themselves.

    The lines of a paragraph and of a point are joined; empty lines are one.
    """
    text = _TEMPLATES.get_template(f"{template}.md.j2").render(**facts)
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]
    return "\n\n".join(_joined(block) for block in blocks) + "\n"


def as_html(text: str, directory: Path) -> str:
    """A page of Markdown as HTML: pictures of `directory` are in it, sounds are players, HTML in the text is text."""
    converter = Markdown(extensions=["tables", "fenced_code"])
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    body = converter.convert(text)
    body = re.sub(
        r'<a href="[^"]*:[^"]*">(.*?)</a>', r"\1", body
    )  # links lead to files beside the page alone
    body = re.sub(r'<a href="([^"]*)">.*?</a>', _player, body)
    body = re.sub(
        r'(?<= src=")([^"]*\.png)(?=")', lambda found: _embedded(directory / unquote(found[1])), body
    )
    return _TEMPLATES.get_template("page.html.j2").render(title=text.splitlines()[0].lstrip("# "), body=body)


def _joined(block: str) -> str:
    """A paragraph's lines, or those of each point, as one; tables, code and headings as they are."""
    if block.lstrip().startswith(("|", "```", "#")):
        return block
    return re.sub(r"\s*\n\s*(?!- |\s)", " ", block.strip())


def _player(link: re.Match[str]) -> str:
    if not link[1].endswith(_SOUNDS):
        return link[0]
    return f'<audio controls preload="none" src="{link[1]}"></audio>'


def _embedded(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=lambda name: str(name).endswith(".html.j2"),
)
_TEMPLATES.filters |= {"show": show, "duration": duration}
