"""A report's page, said once and written twice: as Markdown, and as HTML that carries its pictures along."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from recipes.reporting.pictures import markdown_table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th.word, td.word { text-align: left; }
img { max-width: 100%; }
audio { width: 13rem; height: 2rem; display: block; }
code { background: #f3f3f3; padding: 0 .2rem; }
"""


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Points:
    """Short remarks below each other."""

    points: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells of text; the first `words` columns are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A PNG beside the page."""

    file: str
    caption: str


@dataclass(frozen=True)
class Sound:
    """An audio file below the page's directory, and what is to be said of it."""

    file: str
    note: str = ""


@dataclass(frozen=True)
class Sounds:
    """Sounds to be compared: a row each, a column each version; words where there is none and why, or None."""

    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sound | str | None]]]


Block: TypeAlias = Paragraph | Points | Table | Picture | Sounds


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The page as Markdown; pictures and sounds are links."""
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *(_markdown(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def as_html(title: str, sections: Sequence[Section], directory: Path) -> str:
    """The page as HTML; pictures of `directory` are in it, sounds are links."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body += [
            f"<h2>{html.escape(section.title)}</h2>",
            *(_html(block, directory) for block in section.blocks),
        ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(body) + "\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Paragraph(text):
            return text
        case Points(points):
            return "\n".join(f"- {point}" for point in points)
        case Table(header, rows, words):
            return markdown_table(header, rows, words)
        case Picture(file, caption):
            return f"![{caption}]({_link(file)})"
        case Sounds(header, rows):
            cells = [[label, *(_markdown_sound(sound) for sound in sounds)] for label, sounds in rows]
            return markdown_table(["", *header], cells, words=len(header) + 1)


def _markdown_sound(sound: Sound | str | None) -> str:
    if not isinstance(sound, Sound):
        return sound or "–"
    return f"[{Path(sound.file).suffix[1:]}]({_link(sound.file)})" + (f" {sound.note}" if sound.note else "")


def _html(block: Block, directory: Path) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Points(points):
            return "<ul>" + "".join(f"<li>{html.escape(point)}</li>" for point in points) + "</ul>"
        case Table(header, rows, words):
            return _html_table(header, [[html.escape(cell) for cell in row] for row in rows], words)
        case Picture(file, caption):
            content = base64.b64encode((directory / file).read_bytes()).decode()
            return f'<p><img src="data:image/png;base64,{content}" alt="{html.escape(caption)}"></p>'
        case Sounds(header, rows):
            cells = [
                [html.escape(label), *(_html_sound(sound) for sound in sounds)] for label, sounds in rows
            ]
            return _html_table(["", *header], cells, words=len(header) + 1)


def _html_sound(sound: Sound | str | None) -> str:
    if not isinstance(sound, Sound):
        return html.escape(sound or "–")
    return f'<audio controls preload="none" src="{_link(sound.file)}"></audio>{html.escape(sound.note)}'


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """Cells are HTML, headings text."""

    def line(kind: str, cells: Sequence[str]) -> str:
        tagged = (
            f"<{kind}{' class=word' if number < words else ''}>{cell}</{kind}>"
            for number, cell in enumerate(cells)
        )
        return f"<tr>{''.join(tagged)}</tr>"

    lines = [line("th", [html.escape(cell) for cell in header]), *(line("td", row) for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _link(file: str) -> str:
    return quote(file)
