"""Which frames are whose: one algorithm, compared with a slow one that looks at every frame."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.documents.word_frames import (
    TimedWords,
    WordFrames,
    assign_frames,
    assign_frames_of_rows,
    cut_points,
)
from slm.vocabulary import split_words

# Random alignments: in order or not, some words without times, silences anywhere, audio of any length.

times = st.one_of(st.none(), st.just(float("nan")), st.floats(-0.2, 4.0))


@st.composite
def alignments(draw, rate: float = 24.0):
    count = draw(st.integers(1, 12))
    spellings = draw(
        st.lists(
            st.sampled_from(["I", "see,", "well-known", '"don\'t"', "Straße", "a"]),
            min_size=count,
            max_size=count,
        )
    )
    gaps = draw(st.lists(st.sampled_from([" ", "  ", " - ", "\n"]), min_size=count, max_size=count))
    text = draw(st.sampled_from(["", " ", "- "])) + "".join(map("".join, zip(spellings, gaps, strict=True)))
    if draw(st.booleans()):
        text = text.rstrip()
    words = []
    if draw(st.booleans()):  # as an aligner gives them
        now = 0.0
        for word in spellings:
            start = now + draw(st.floats(0, 0.5))
            now = start + draw(st.floats(0.01, 0.6))
            words.append((word, start, now) if draw(st.integers(0, 4)) else (word, None, None))
        frames = round((now + draw(st.floats(0, 0.5))) * rate)
    else:
        words = [(word, draw(times), draw(times)) for word in spellings]
        frames = draw(st.integers(0, 100))
    return text, words, frames


def slow_units(text: str, words: list) -> list[tuple[int, float, float]] | None:
    """(first piece, start, end) of each unit, NaN where unknown, letter by letter."""

    def letters(word: str) -> str:
        return "".join(c for c in word.casefold() if c.isalnum())

    owners = [  # of every letter of the words: which word it belongs to, and whether it is its first
        (number, place == 0)
        for number, (word, _, _) in enumerate(words)
        for place, _ in enumerate(letters(word))
    ]
    pieces = [letters(piece) for piece in split_words(text)]
    if "".join(pieces) != "".join(letters(word) for word, _, _ in words):
        return None
    starts, position = [], 0  # (piece, word) of each unit
    for number, piece in enumerate(pieces):
        if piece and owners[position][1]:
            starts.append((number if starts else 0, owners[position][0]))
        position += len(piece)
    units = []
    for (piece, first), (_, after) in pairwise([*starts, (len(pieces), len(words))]):
        spoken = [word for word in words[first:after] if letters(word[0])]
        known = all(t is not None and np.isfinite(t) for word in spoken for t in word[1:])
        units.append((piece, spoken[0][1], spoken[-1][2]) if known else (piece, np.nan, np.nan))
    return units


def slow_owners(units: list[tuple[int, float, float]], frames: int, rate: float) -> list[int | None]:
    """For each frame the first piece of the unit that it belongs to, or None."""

    def frame(seconds: float) -> int:
        return min(max(round(seconds * rate), 0), frames)

    begins: list[int | None] = []
    latest = 0
    for _, start, _ in units:
        if not np.isnan(start):
            latest = max(latest, frame(start))
        begins.append(None if np.isnan(start) else latest)
    owners: list[int | None] = []
    for t in range(frames):
        begun = [n for n, b in enumerate(begins) if b is not None and (b <= t or n == 0)]
        owner = None
        if begun:
            last = begun[-1]
            unknown_next = last + 1 < len(units) and begins[last + 1] is None
            if not unknown_next or t < frame(units[last][2]):
                owner = last
                # Words that begin in one frame cannot be told apart.
                while owner and begins[owner - 1] is not None and begins[owner - 1] == begins[owner]:
                    owner -= 1
        owners.append(None if owner is None else units[owner][0])
    return owners


def owners_of(units: WordFrames, frames: int) -> list[int | None]:
    owners: list[int | None] = [None] * frames
    for piece, begin, end in zip(units.first_piece.tolist(), units.begin, units.end, strict=True):
        for t in range(begin, end):
            assert owners[t] is None
            owners[t] = piece
    return owners


@given(alignments())
@settings(max_examples=300)
def test_every_frame_has_the_owner_that_a_slow_search_finds(alignment):
    text, words, frames = alignment
    units, slow = assign_frames(text, words, frames, 24.0), slow_units(text, words)
    expected = [None] * frames if slow is None else slow_owners(slow, frames, 24.0)
    assert expected == ([None] * frames if units is None else owners_of(units, frames))


def slow_cuts(units: list[tuple[int, float, float]], frames: int) -> list[tuple[int, int]]:
    """(first piece, first frame) of each stretch."""
    cuts, latest, before = (
        [(0, 0)],
        0,
        None,
    )  # begins of the last known unit, and of the neighbour if that is known
    last_cut = None
    for number, (piece, start, _) in enumerate(units):
        if np.isnan(start):
            before = None  # stays with the unit before it
            continue
        latest = max(latest, min(max(round(start * 24), 0), frames))
        together, before = before == latest, latest
        if together:
            continue
        begin = latest if number else 0  # the first word has the silence before it
        if last_cut is not None and last_cut < begin < frames:
            cuts.append((piece, begin))
        if last_cut is None or begin < frames:
            last_cut = begin
    return cuts


@given(alignments())
@settings(max_examples=300)
def test_text_and_speech_are_cut_where_words_of_known_time_begin(alignment):
    text, words, frames = alignment
    units, slow = assign_frames(text, words, frames, 24.0), slow_units(text, words)
    if units is None:
        return
    points = cut_points(units, frames)
    expected = slow_cuts(slow, frames)
    assert list(zip(points.piece.tolist(), points.frame.tolist(), strict=True)) == expected
    bounds = [*points.frame.tolist(), frames]
    assert all(a < b for a, b in pairwise(bounds))


@given(alignments())
@settings(max_examples=150)
def test_every_frame_is_of_one_word_at_most(alignment):
    text, words, frames = alignment
    units = assign_frames(text, words, frames, 24.0)
    timed = [word for word in words if all(t is not None and np.isfinite(t) for t in word[1:])]
    if units is None:
        assert frames == 0 or len(timed) < len(words)
        return
    assert units.first_piece[0] == 0 and (np.diff(units.first_piece) > 0).all()
    assert units.first_piece[-1] < len(split_words(text))
    placed = np.flatnonzero(units.placed)
    assert placed.size
    bounds = [0, *np.stack([units.begin, units.end], axis=1)[placed].reshape(-1).tolist(), frames]
    assert all(a <= b for a, b in pairwise(bounds))
    if len(timed) == len(words):  # then every frame is of a word: silence has a home
        assert units.placed.all()
        assert units.begin.tolist() == [0, *units.end[:-1].tolist()] and units.end[-1] == frames


def test_where_words_begin_and_silence_goes():
    words = [("well", 0.5, 0.75), ("i", 1.0, 1.1), ("see", None, None), ("you", 2.0, 2.25), ("now", 2.5, 2.6)]
    units = assign_frames("Well, I see - you now.", words, 72, 24.0)
    assert units.first_piece.tolist() == [0, 1, 2, 4, 5]
    # A pause goes with the word before; beside a word that nobody could place, what is not a word's is nobody's.
    assert units.begin.tolist()[:2] == [0, 24] and units.end.tolist()[:2] == [24, 26]
    assert units.placed.tolist() == [True, True, False, True, True]
    assert units.begin.tolist()[3:] == [48, 60] and units.end.tolist()[3:] == [60, 72]

    both = [("well", 0.5, 0.6), ("i", 0.51, 0.6), ("see", 1.0, 1.1)]  # in one frame: not to be told apart
    units = assign_frames("Well I see", both, 48, 24.0)
    assert units.first_piece.tolist() == [0, 2] and units.begin.tolist() == [0, 24]
    compound = [("well", 0.0, 0.5), ("known", None, None), ("fact", 1.0, 1.5)]
    units = assign_frames("Well-known fact", compound, 48, 24.0)
    assert units.placed.tolist() == [False, True] and units.begin[1] == 24
    for text, words, frames in (
        ("a b", [("a", 0.0, 1.0)], 24),
        ("a", [("a", None, None)], 24),
        ("a", [("a", float("nan"), 1.0)], 24),
        ("a", [("a", 0.0, 1.0)], 0),
        ("", [], 24),
        ("a", None, 24),
    ):
        assert assign_frames(text, words, frames, 24.0) is None


def test_words_are_matched_by_their_letters():
    def units(text: str, *words: str) -> list[tuple[int, int]] | None:
        timed = assign_frames(text, [(word, float(i), i + 1.0) for i, word in enumerate(words)], 24 * 9, 24.0)
        return timed and list(zip(timed.first_piece.tolist(), (timed.begin // 24).tolist(), strict=True))

    assert units("Well, I see.", "WELL", "I", "SEE") == [(0, 0), (1, 1), (2, 2)]
    assert units("don't stop", "dont", "stop") == [(0, 0), (1, 1)]
    assert units("Well-known fact", "well", "known", "fact") == [(0, 0), (1, 2)]
    assert units("every body sees", "everybody", "sees") == [(0, 0), (2, 1)]
    assert units("- So - it is -", "so", "it", "is") == [(0, 0), (3, 1), (4, 2)]
    assert units("Straße frei", "STRASSE", "frei") == [(0, 0), (1, 1)]
    assert units("a b", "a", "<sil>", "b") is None
    assert units("a b", "a", "...", "b") == [(0, 0), (1, 2)]
    assert units("in 1999", "in", "nineteen", "ninety", "nine") is None
    assert units("a b", "a") is None and units("a", "a", "b") is None
    assert units("a b") is None and units("", "a") is None and units("...", "...") is None


TEXT = "One two, three -- four five six."


@given(st.sets(st.integers(0, 5), max_size=5))
def test_a_word_without_times_stays_with_the_one_before_it(unknown: set[int]) -> None:
    """A word a second from 1 s on: text and speech are cut before each word with times, and nowhere else."""
    spoken = [word for word in TEXT.split() if word != "--"]
    words = [
        (word, None, None) if index in unknown else (word, index + 1.0, index + 1.5)
        for index, word in enumerate(spoken)
    ]
    points = cut_points(assign_frames(TEXT, words, 24 * 9, 24.0), 24 * 9)
    known = [index for index in range(6) if index not in unknown]
    first_piece = [0, 1, 2, 4, 5, 6]
    assert points.piece.tolist() == [0, *(first_piece[index] for index in known[1:])]
    assert points.frame.tolist() == [0, *(24 * (index + 1) for index in known[1:])]


def test_without_any_time_there_is_nothing_to_cut() -> None:
    assert assign_frames(TEXT, [(word.strip(",."), None, None) for word in TEXT.split()], 99, 24.0) is None


def test_words_of_one_frame_stay_together_also_around_a_word_without_times() -> None:
    words = [("a", 0.0, 0.4), ("b", 0.5, 0.5), ("c", None, None), ("d", 0.51, 0.7), ("e", 1.0, 1.2)]
    points = cut_points(assign_frames("a b c d e", words, 48, 24.0), 48)
    assert points.piece.tolist() == [0, 1, 4] and points.frame.tolist() == [0, 12, 24]


@given(st.lists(alignments(), min_size=2, max_size=6), st.randoms())
@settings(max_examples=150)
def test_many_rows_are_as_each_alone(rows, random) -> None:
    texts, words, frames = (list(column) for column in zip(*rows, strict=True))
    texts[0], words[-1] = random.choice([texts[0], "", "x\n2", "- -"]), random.choice([words[-1], None, []])
    together = assign_frames_of_rows(texts, TimedWords.of(words), np.array(frames), 24.0)
    points = cut_points(together, np.array(frames))
    for row, (text, of_row, count) in enumerate(zip(texts, words, frames, strict=True)):
        alone = assign_frames(text, of_row, count, 24.0)
        part = slice(*together.starts[row : row + 2])
        stretches = slice(*points.starts[row : row + 2])
        if alone is None:
            assert part.start == part.stop and stretches.start == stretches.stop
            continue
        for name in ("first_piece", "begin", "end", "timed"):
            assert getattr(together, name)[part].tolist() == getattr(alone, name).tolist()
        own = cut_points(alone, count)
        assert points.piece[stretches].tolist() == own.piece.tolist()
        assert points.frame[stretches].tolist() == own.frame.tolist()


def test_a_late_word_is_not_joined_to_the_row_before() -> None:
    words = TimedWords.of([[("a", 0.0, 0.5)], [("b", 5.0, 6.0)]])
    units = assign_frames_of_rows(["a", "b"], words, np.array([12, 24]), 24.0)
    assert units.starts.tolist() == [0, 1, 2]
    assert units.begin.tolist() == [0, 0] and units.end.tolist() == [12, 24]


def test_only_letters_count_even_in_words_of_several_lines() -> None:
    words = [("a\nb", 0.0, 0.5), ("c", 0.5, 1.0)]
    units = assign_frames("a b c", words, 24, 24.0)
    assert units is not None and units.first_piece.tolist() == [0, 2] and units.end.tolist() == [12, 24]
