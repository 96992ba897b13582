"""TextGrid files, long and short, and the words that they time."""

from pathlib import Path

import pytest

from codec.foundation import UserError
from data import Utterance, Word
from data.alignment import AlignmentError
from data.alignment.textgrid import (
    Interval,
    TextGridAligner,
    Tier,
    match_intervals,
    read_textgrid,
    word_intervals,
)

LONG = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0.0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0.0
            xmax = 2.5e-1
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.7
            text = "say ""5 = five"" [1]"
        intervals [3]:
            xmin = 0.7
            xmax = 1.5
            text = "über"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "AH0"
"""
SHORT = """\
File type = "ooTextFile"
"TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"words"
0.0
1.5
3
0.0
0.25
""
0.25
0.7
"say ""5 = five"" [1]"
0.7
1.5
"über"
"TextTier"
"clicks"
0
1.5
1
0.5
"x"
"IntervalTier"
"phones"
0
1.5
1
0
1.5
"AH0"
"""
TIERS = [
    Tier(
        "words",
        [Interval(0.0, 0.25, ""), Interval(0.25, 0.7, 'say "5 = five" [1]'), Interval(0.7, 1.5, "über")],
    ),
    Tier("phones", [Interval(0.0, 1.5, "AH0")]),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT, LONG.replace("\n", "\r\n")])
def test_long_and_short_files_say_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(text.encode(encoding))
    assert read_textgrid(path) == TIERS
    assert word_intervals(path) == TIERS[0].intervals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends too early"),
        ("hello", "it ends too early"),
        (LONG[: len(LONG) // 2], "ends too early|number was expected"),
        (SHORT.replace('"TextGrid"', '"Sound"'), 'does not begin with "ooTextFile"'),
        (SHORT.replace("TextTier", "ImageTier"), "unknown kind of tier 'ImageTier'"),
        (
            SHORT.replace('"words"', '"says"'),
            "expected one tier of words, found 0 .its tiers: 'says', 'phones'",
        ),
    ],
)
def test_broken_files_are_told_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as told:
        word_intervals(path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)


def timed(labels: str) -> list[Interval]:
    """One interval a second."""
    return [Interval(float(second), second + 0.5, label) for second, label in enumerate(labels.split())]


def placed(text: str, labels: str) -> list[tuple[float, float] | None]:
    words = match_intervals(text.split(), timed(labels))
    assert [word.word for word in words] == text.split()
    return [None if word.start is None or word.end is None else (word.start, word.end) for word in words]


def test_words_are_matched_by_their_letters() -> None:
    assert placed("Well -- I don't.", "well i don't") == [(0, 0.5), None, (1, 1.5), (2, 2.5)]
    assert placed("A well-known man", "a well known man") == [(0, 0.5), (1, 2.5), (3, 3.5)]
    assert placed("up on it", "upon it") == [None, None, (1, 1.5)]
    assert placed("in 1842 he left", "in eighteen forty-two he left") == [(0, 0.5), None, (3, 3.5), (4, 4.5)]


def test_unknown_words_have_the_intervals_of_unknown_words_where_there_are_as_many() -> None:
    assert placed("the Xyzzy of Qux", "the <unk> of spn") == [(0, 0.5), (1, 1.5), (2, 2.5), (3, 3.5)]
    assert placed("the Foo Xyzzy is", "the <unk> is") == [(0, 0.5), None, None, (2, 2.5)]
    assert placed("a b", "c d") == [None, None]


def test_files_are_found_by_path_or_by_name(tmp_path: Path) -> None:
    def write(name: str, word: str) -> None:
        path = tmp_path / "grids" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SHORT.replace("über", word), encoding="utf-8")

    write("dev-clean/84/121123/84-121123-0000.TextGrid", "go")
    write("a/x.TextGrid", "ax")
    write("b/x.TextGrid", "bx")
    aligner = TextGridAligner(str(tmp_path / "grids"))

    def align(identity: str, text: str) -> Word:
        found = aligner.align(Utterance(identity, "-", text), iter(()))
        assert found.score is None
        return found.words[-1]

    assert align("84-121123-0000", "GO") == Word("GO", 0.7, 1.5)
    assert align("dev-clean/84/121123/84-121123-0000", "GO") == Word("GO", 0.7, 1.5)
    assert align("b/x", "bx") == Word("bx", 0.7, 1.5)
    with pytest.raises(AlignmentError, match="2 TextGrid files have its name"):
        align("x", "ax")
    with pytest.raises(AlignmentError, match="no TextGrid file has its name"):
        align("y", "ax")
    with pytest.raises(AlignmentError, match="none of its words is in the transcript"):
        align("a/x", "bx")
    with pytest.raises(UserError, match="no such directory of TextGrid files"):
        TextGridAligner(str(tmp_path / "nothing")).check()
    with pytest.raises(UserError, match=r"no \.TextGrid files in it"):
        (tmp_path / "empty").mkdir()
        TextGridAligner(str(tmp_path / "empty")).check()
