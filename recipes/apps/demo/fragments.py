"""Pieces of HTML on the page. What users wrote is escaped."""

import base64
import html
from collections.abc import Sequence

from recipes.apps.demo.actions import Picture
from slm import SpokenSpan

STYLE = """
.trouble { border-left: .25rem solid #b91c1c; padding: .25rem .75rem; margin: 0; }
.told { margin: 0; }
.alignment { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 0; list-style: none; }
.alignment li { border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .25rem .5rem;
    margin: 0; }
.alignment time { display: block; font-size: .75rem; color: var(--body-text-color-subdued); }
.facts { width: 100%; border-collapse: collapse; margin: 0; }
.facts th, .facts td { border: 0; border-top: 1px solid var(--border-color-primary); padding: .3rem .5rem;
    text-align: left; font-weight: normal; }
.picture, .live { margin: 0; }
.picture img { width: 100%; height: auto; margin: 0; border-radius: .5rem; }
.live audio { width: 100%; margin: 0; }
figcaption { font-size: .875rem; color: var(--body-text-color-subdued); margin: 0 0 .25rem; }
.html-container { padding: 0 !important; }
/* Gradio writes its players and waveforms in a grey too pale to be read */
.component-wrapper, .source-selection { --neutral-400: var(--neutral-600); }
.dark .component-wrapper, .dark .source-selection { --neutral-400: var(--neutral-300); }
"""


def status_html(lines: Sequence[str]) -> str:
    """The status of the work, in lines; screen readers read it out."""
    return f'<p class="told" role="status">{"<br>".join(map(html.escape, lines))}</p>'


def error_html(message: str) -> str:
    """An error message; it stays until the next attempt."""
    sentence = message[:1].upper() + message[1:]
    return f'<p class="trouble" role="alert">{html.escape(sentence)}</p>'


def player(name: str | None) -> str:
    """A player of live speech; empty for no name."""
    if name is None:
        return ""
    source = f"speech/{html.escape(name)}.wav"
    return (
        '<figure class="live"><figcaption>Live, while it is made</figcaption>'
        f'<audio controls autoplay aria-label="Speech, live" src="{source}"></audio></figure>'
    )


def alignment(spans: Sequence[SpokenSpan]) -> str:
    """The words, each with the time when it is spoken."""
    if not spans:
        return ""
    items = "".join(
        f"<li><time>{span.start:.2f}–{span.end:.2f} s</time>{html.escape(span.text.strip())}</li>"
        for span in spans
    )
    return f'<ol class="alignment" aria-label="When each of the words is spoken">{items}</ol>'


def facts_table(facts: Sequence[tuple[str, str]]) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(what)}</th><td>{html.escape(much)}</td></tr>'
        for what, much in facts
    )
    return f'<table class="facts" aria-label="Numbers">{rows}</table>'


def figure(picture: Picture, caption: str, description: str) -> str:
    """A picture with its caption above; `description` is the alternative text."""
    wide, narrow = (
        "data:image/webp;base64," + base64.b64encode(file).decode() for file in (picture.wide, picture.narrow)
    )
    return (
        f'<figure class="picture"><figcaption>{html.escape(caption)}</figcaption><picture>'
        f'<source media="(max-width: 640px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="{html.escape(description)}"></picture></figure>'
    )
