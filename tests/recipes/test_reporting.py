"""Tables and pages of reports: how values are shown, what is left out, and what both languages make of it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from jinja2 import ChoiceLoader, DictLoader, UndefinedError

from codec.metrics import DEV_LOG_MEL, Column, Interval
from codec.nn.mel import LogMel
from recipes.reporting import page
from recipes.reporting.page import as_html, as_markdown
from recipes.reporting.pictures import bands_of
from recipes.reporting.tables import Field, Sound, Table, rate, show, without_nan, words, write_parquet

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "options", "shown"),
    [
        (1_234.56, {"digits": 1}, "1,234.6"),
        (1_234, {}, "1,234"),
        (0.281, {"digits": 1, "percent": True}, "28.1 %"),
        (9.04, {"digits": 1, "unit": " ×"}, "9.0 ×"),
        ("as it is", {"digits": 1}, "as it is"),
        (None, {}, "–"),
        (NAN, {"digits": 2, "percent": True}, "–"),
        (Interval(0.281, 0.239, 0.324), {"digits": 1, "percent": True}, "28.1 % (23.9–32.4)"),
        (Interval(3.0, NAN, NAN), {"digits": 2}, "3.00"),  # of a single utterance
        (Interval(NAN, NAN, NAN), {"digits": 2}, "–"),
        (Interval(0.5, -0.25, 1.25), {"digits": 2}, "0.50 (-0.25 to 1.25)"),
        ({"value": 0.5, "low": None, "high": None, "level": 0.95}, {"digits": 1}, "0.5"),
        ({"value": 0.5, "low": 0.25, "high": 1.0, "level": 0.95}, {"digits": 2}, "0.50 (0.25–1.00)"),
    ],
)
def test_values_as_they_are_shown(value: object, options: dict, shown: str) -> None:
    assert show(value, **options) == shown


def test_columns_of_numbers_that_hold_none_are_left_out() -> None:
    rows = [{"name": "a", "x": NAN, "wer": 0.5}, {"name": "b", "x": None, "wer": None, "more": {"stoi": 0.5}}]
    stoi = Field.of(Column("stoi", "STOI", "higher"), lambda row: row.get("more", {}).get("stoi"))
    table = Table.of(
        rows, [words("", "name"), words("note", "note"), Field("x", "x"), rate("WER", "wer", "lower"), stoi]
    )
    assert table.header == ["", "note", "WER ↓", "STOI ↑"] and table.words == 2
    assert table.rows == [["a", "–", "50.0 %", "–"], ["b", "–", "–", "0.500"]]
    assert str(table).splitlines()[:2] == [
        "|  | note | WER ↓ | STOI ↑ |",
        "| --- | --- | ---: | ---: |",
    ]


def test_a_percent_column_shows_one_digit_behind_the_point() -> None:
    column = Column("share", "share", None, percent=True)
    assert Table.of([0.5], [words("", lambda _: ""), Field.of(column, lambda row: row)]).rows == [
        ["", "50.0 %"]
    ]


TEMPLATE = """
{% if title is defined %}
# {{ title }}
{% endif %}

One paragraph
{% if more %}
with `x < y` and <b>more</b>,
{% endif %}
joined.



![a picture](a%20b.png)

- a point
  of two lines
{% for point in points %}
- {{ point }}
{% endfor %}

{{ table }}

```sh
a < b
  c
```
"""


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        page._TEMPLATES, "loader", ChoiceLoader([DictLoader({"t.md.j2": TEMPLATE}), page._TEMPLATES.loader])
    )


def test_a_page_of_markdown(template: None) -> None:
    table = Table(["", "n"], [["a|b", "1"]])
    assert as_markdown("t", title="T", more=True, points=["<one>", "two"], table=table) == (
        "# T\n\nOne paragraph with `x < y` and <b>more</b>, joined.\n\n![a picture](a%20b.png)\n\n"
        "- a point of two lines\n- <one>\n- two\n\n|  | n |\n| --- | ---: |\n| a\\|b | 1 |\n\n```sh\na < b\n  c\n```\n"
    )
    assert as_markdown("t", more=False, points=[], table="").startswith("One paragraph joined.\n")
    with pytest.raises(UndefinedError):
        as_markdown("t", more=False, points=[])


def test_the_same_page_as_html(template: None, tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"PNG")
    sounds = [["s|t", Sound("my dir/a.wav", "“<hi>|”"), "[x](javascript:alert(1))"], ["", "[y](z.txt)", "–"]]
    table = Table(["", "one", "two"], sounds, words=3)
    text = as_markdown(
        "t", title="A <b>", more=True, points=["[here](file.txt)", "[x](http://x.y)"], table=table
    )
    html = as_html(text, tmp_path)
    for part in (
        "<title>A &lt;b&gt;</title>",
        "<h1>A &lt;b&gt;</h1>\n<p>One paragraph with <code>x &lt; y</code> and &lt;b&gt;more&lt;/b&gt;, joined.</p>",
        'src="data:image/png;base64,UE5H"',
        '<li><a href="file.txt">here</a></li>',
        "<td>s|t</td>",
        '<td><audio controls preload="none" src="my%20dir/a.wav"></audio> “&lt;hi&gt;|”</td>',
        "a &lt; b\n  c\n</code></pre>",
    ):
        assert part in html
    # what a recogniser heard, or a corpus says, is no link; and no link leads away from the page
    assert html.count("href") == 1 and "<b>" not in html


def test_types_of_parquet_columns_come_from_all_values(tmp_path: Path) -> None:
    rows = [{"n": 1, "x": None, "t": None, "b": True}, {"n": 2.5, "x": 3, "t": None, "b": None}]
    write_parquet(tmp_path / "t.parquet", rows)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.types == [pa.float64(), pa.int64(), pa.string(), pa.bool_()]
    assert table.to_pylist() == [{**rows[0], "n": 1.0}, rows[1]]
    with pytest.raises(ValueError, match="n holds int and str"):
        write_parquet(tmp_path / "u.parquet", [{"n": 1}, {"n": "one"}])


def test_nothing_in_json_is_nan() -> None:
    assert without_nan({"a": [NAN, 1.0, (math.inf, "x")], "b": None}) == {
        "a": [None, 1.0, [None, "x"]],
        "b": None,
    }


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_a_tone_lies_at_its_height_on_the_axis(scale: Literal["slaney", "htk"]) -> None:
    config = replace(DEV_LOG_MEL, mel_scale=scale)
    for hertz in (500.0, 1_000.0, 4_000.0, 8_000.0):
        tone = torch.sin(2 * torch.pi * hertz * torch.arange(24_000) / 24_000)
        band = int(LogMel(config)(tone[None])[0].mean(0).argmax())
        assert abs(bands_of([hertz], config)[0] - (band + 0.5)) <= 1.5
