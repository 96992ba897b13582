"""Sentences with numbers, dates, times, money, telephone numbers and names: spoken otherwise than written.

Every written word comes with its spoken words, so word times and spellings are exact.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from codec.foundation import generator
from recipes.bundled.grammar import read_lexicon
from recipes.bundled.speech import Sentence

TEMPLATES = Path(__file__).parent / "written.txt"

T = TypeVar("T")
Pairs = list[tuple[str, str]]
"""Written words and how each is spoken."""


def _words(text: str) -> list[str]:
    return text.split()


_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"}
_ORDINALS |= {"nine": "ninth", "twelve": "twelfth"}
_MONTHS = _words("January February March April May June July August September October November December")
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_TITLES = {
    "man": {"Mr.": "Mister", "Dr.": "Doctor", "Prof.": "Professor", "Capt.": "Captain", "Sgt.": "Sergeant"},
    "woman": {"Mrs.": "Missus", "Ms.": "Ms.", "Dr.": "Doctor", "Prof.": "Professor", "Lt.": "Lieutenant"},
}
_STREETS = {"St.": "Street", "Ave.": "Avenue", "Rd.": "Road", "Blvd.": "Boulevard", "Ln.": "Lane"}
_UNITS = {
    "km": "kilometers",
    "kg": "kilograms",
    "cm": "centimeters",
    "mph": "miles per hour",
    "lbs": "pounds",
    "oz": "ounces",
    "ft": "feet",
    "GB": "gigabytes",
    "ml": "milliliters",
    "min": "minutes",
    "hrs": "hours",
}
_ACRONYMS = _words("FBI CEO USA UK TV GPS BBC NASA DVD PDF IBM UFO ATM FAQ MRI NBA")
_ROMAN = _words("I II III IV V VI VII VIII IX X XI XII XIII XIV")
_MONARCHS = _words("Henry George Edward Louis James Charles William Richard")
_ROADS = _words("Oak Maple Elm Church Park River Hill Lake Market Mill")
_HALVES = (("pm", "P.M."), ("am", "A.M."), ("p.m.", "P.M."), ("a.m.", "A.M."))
_FRACTIONS = (("1/2", "half a"), ("3/4", "three quarters of a"), ("1/3", "a third of a"))
_DOLLARS = ("$", "dollar", "dollars")
_CURRENCIES = (_DOLLARS, _DOLLARS, ("£", "pound", "pounds"), ("€", "euro", "euros"))


def cardinal(number: int) -> str:
    """A number in words, as Americans say it: 1204 is "one thousand two hundred four"."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    rest = f" {cardinal(number % size)}" if number % size else ""
    return f"{cardinal(number // size)} {name}{rest}"


def ordinal(number: int) -> str:
    """A rank in words: 21 is "twenty-first"."""
    head, last = re.fullmatch(r"(.*[ -]|)(\w+)", cardinal(number)).groups()  # type: ignore[union-attr]
    if last in _ORDINALS:
        return head + _ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(number: int) -> str:
    """A year in words: 1842 is "eighteen forty-two", 1906 "nineteen oh six", 2005 "two thousand five"."""
    century, rest = divmod(number, 100)
    if 2000 <= number < 2010 or number % 1000 == 0:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} " + (f"oh {_SMALL[rest]}" if rest < 10 else cardinal(rest))


def digits(text: str) -> str:
    """Digits one by one, zero as "oh": "302" is "three oh two"."""
    return " ".join("oh" if digit == "0" else _SMALL[int(digit)] for digit in text)


def decimal(text: str) -> str:
    """A decimal number: "3.05" is "three point oh five"."""
    whole, _, fraction = text.partition(".")
    return cardinal(int(whole)) + (f" point {digits(fraction)}" if fraction else "")


def clock(hour: int, minute: int) -> str:
    """A time of day: 7:05 is "seven oh five", 7:00 is "seven o'clock"."""
    if minute == 0:
        return f"{cardinal(hour)} o'clock"
    return f"{cardinal(hour)} " + (f"oh {_SMALL[minute]}" if minute < 10 else cardinal(minute))


def _suffix(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _plural(number: int, one: str, many: str) -> str:
    return f"{cardinal(number)} {one if number == 1 else many}"


def _same(text: str) -> Pairs:
    return [(word, word) for word in text.split()]


def _joined(word: str, punctuation: str) -> str:
    """A word and its punctuation, without a second full stop."""
    return word if punctuation == "." and word.endswith(".") else word + punctuation


class WrittenSentences:
    """An endless, seeded source of such sentences."""

    def __init__(self, seed: int) -> None:
        """Read the templates: one sentence a line, slots in braces, "#" begins a comment."""
        lines = TEMPLATES.read_text(encoding="utf-8").splitlines()
        self.templates = [line for line in lines if not line.startswith("#")]
        self._random = generator(seed, "written")
        words = {name: [word.base for word in entries] for name, entries in read_lexicon().items()}
        self._names = {"man": words["name_m"], "woman": words["name_f"]}
        self._surnames = words["surname"]
        self.slots: dict[str, Callable[[], Pairs]] = {
            "time": self._time,
            "date": self._date,
            "day": lambda: _same(self._of(_DAYS)),
            "month": lambda: _same(self._of(_MONTHS)),
            "year": self._year,
            "decade": self._decade,
            "money": self._money,
            "bigmoney": self._big_money,
            "phone": self._phone,
            "percent": self._percent,
            "count": lambda: self._number(2, 100),
            "number": lambda: self._number(100, 100000),
            "million": self._million,
            "decimal": self._decimal,
            "ordinal": self._ordinal,
            "code": self._code,
            "measure": self._measure,
            "degrees": self._degrees,
            "fraction": lambda: [self._of(_FRACTIONS)],
            "score": self._score,
            "range": self._range,
            "person": self._person,
            "name": lambda: _same(self._of(self._names[self._of(("man", "woman"))])),
            "initials": self._initials,
            "address": self._address,
            "acronym": lambda: _same(self._of(_ACRONYMS)),
            "monarch": self._monarch,
            "no": self._no,
            "etc": lambda: [("etc.", "et cetera")],
            "vs": lambda: [("vs.", "versus")],
            "approx": lambda: [("approx.", "approximately")],
            "war": lambda: [*_same("World War"), self._of((("I", "One"), ("II", "Two")))],
        }

    def sentences(self) -> Iterator[Sentence]:
        """Distinct sentences; every round draws a new order of the templates."""
        seen: set[str] = set()
        while True:
            for number in self._random.permutation(len(self.templates)):
                sentence = self.fill(self.templates[number])
                if sentence.text not in seen:
                    seen.add(sentence.text)
                    yield sentence

    def fill(self, template: str) -> Sentence:
        """One sentence; punctuation around a slot stays: "{year}," is written "1842,"."""
        pairs: Pairs = []
        for part in template.split():
            slot = re.fullmatch(r"(\W*)\{(\w+)\}(.*)", part)
            if slot is None:
                pairs.append((part, part))
                continue
            made = self.slots[slot[2]]()
            made[0] = (slot[1] + made[0][0], slot[1] + made[0][1])
            made[-1] = (_joined(made[-1][0], slot[3]), _joined(made[-1][1], slot[3]))
            pairs += made
        written, spoken = zip(*pairs, strict=True)
        return Sentence(" ".join(written), (spoken[0][0].upper() + spoken[0][1:], *spoken[1:]))

    def _of(self, choices: Sequence[T]) -> T:
        return choices[int(self._random.integers(len(choices)))]

    def _int(self, low: int, high: int) -> int:
        """`low` to `high`, both included."""
        return int(self._random.integers(low, high + 1))

    def _time(self) -> Pairs:
        hour = self._int(1, 12)
        minute = self._of((0, 5, 10, 15, 20, 25, 30, 40, 45, 50, self._int(1, 59)))
        written = f"{hour}:{minute:02d}"
        kind = self._random.random()
        if kind < 0.4:
            return [(written, clock(hour, minute))]
        half = self._of(_HALVES)
        if minute == 0:
            return [(f"{hour}" if kind < 0.8 else written, cardinal(hour)), half]
        return [(written, clock(hour, minute)), half]

    def _date(self) -> Pairs:
        month, day, number = self._int(1, 12), self._int(1, 28), self._int(1700, 2035)
        name = _MONTHS[month - 1]
        kind = self._int(0, 5)
        if kind == 0:
            return [(name, name), (str(day), ordinal(day))]
        if kind == 1:
            return [(name, name), (f"{day},", f"{ordinal(day)},"), (str(number), year(number))]
        if kind == 2:
            return [(name, name), (f"{day}{_suffix(day)}", ordinal(day))]
        if kind == 3:
            return [(str(day), f"the {ordinal(day)} of"), (name, name), (str(number), year(number))]
        if kind == 4:
            return [(f"{month}/{day}/{number}", f"{name} {ordinal(day)}, {year(number)}")]
        return [(f"{name[:3]}.", name) if month != 5 else (name, name), (str(day), ordinal(day))]

    def _year(self) -> Pairs:
        number = self._int(1500, 2040)
        return [(str(number), year(number))]

    def _decade(self) -> Pairs:
        number = self._int(182, 199) * 10
        return [(f"{number}s", re.sub(r"ys$", "ies", year(number) + "s"))]

    def _money(self) -> Pairs:
        sign, one, many = self._of(_CURRENCIES)
        number = self._of((self._int(1, 20), self._int(10, 99), self._int(100, 999), self._int(1000, 60000)))
        cents = self._int(1, 99)
        if number < 100 and self._random.random() < 0.5:
            small = "pence" if one == "pound" else "cents"
            said = f"{_plural(number, one, many)} and {_plural(cents, small.removesuffix('s'), small)}"
            return [(f"{sign}{number}.{cents:02d}", said)]
        return [(f"{sign}{number:,}", _plural(number, one, many))]

    def _big_money(self) -> Pairs:
        number = f"{self._int(1, 90)}" + (f".{self._int(1, 9)}" if self._random.random() < 0.5 else "")
        size = self._of(("million", "billion"))
        return [(f"${number}", decimal(number)), (size, f"{size} dollars")]

    def _phone(self) -> Pairs:
        groups = [f"{self._int(200, 989)}", f"{self._int(200, 989)}", f"{self._int(0, 9999):04d}"]
        groups = groups[self._int(0, 1) :]
        return [("-".join(groups), ", ".join(digits(group) for group in groups))]

    def _percent(self) -> Pairs:
        number = f"{self._int(1, 100)}" + (f".{self._int(1, 9)}" if self._random.random() < 0.3 else "")
        return [(f"{number}%", f"{decimal(number)} percent")]

    def _number(self, low: int, high: int) -> Pairs:
        number = round(float(np.exp(self._random.uniform(np.log(low), np.log(high)))))
        return [(f"{number:,}", cardinal(number))]

    def _million(self) -> Pairs:
        number = f"{self._int(1, 60)}" + (f".{self._int(1, 9)}" if self._random.random() < 0.5 else "")
        size = self._of(("million", "billion", "thousand"))
        return [(number, decimal(number)), (size, size)]

    def _decimal(self) -> Pairs:
        number = f"{self._int(0, 40)}.{self._of((self._int(1, 9), self._int(11, 99)))}"
        return [(number, decimal(number))]

    def _ordinal(self) -> Pairs:
        number = self._int(2, 60)
        return [(f"{number}{_suffix(number)}", ordinal(number))]

    def _code(self) -> Pairs:
        number = str(self._int(101, 9899))
        return [(number, digits(number))]

    def _measure(self) -> Pairs:
        number, (unit, said) = self._int(2, 120), self._of(tuple(_UNITS.items()))
        return [(str(number), cardinal(number)), (unit, said)]

    def _degrees(self) -> Pairs:
        number, scale = self._int(2, 98), self._of(("", "C", "F"))
        name = {"": "", "C": " Celsius", "F": " Fahrenheit"}[str(scale)]
        return [(f"{number}°{scale}", f"{cardinal(number)} degrees{name}")]

    def _score(self) -> Pairs:
        high, low = self._int(2, 30), self._int(0, 9)
        return [(f"{high}-{low}", f"{cardinal(high)} to {'nothing' if low == 0 else cardinal(low)}")]

    def _range(self) -> Pairs:
        low = self._int(2, 60)
        high = low + self._int(1, 40)
        return [(f"{low}-{high}", f"{cardinal(low)} to {cardinal(high)}")]

    def _person(self) -> Pairs:
        sex = self._of(("man", "woman"))
        surname = self._of(self._surnames)
        if self._random.random() < 0.4:
            return _same(f"{self._of(self._names[sex])} {surname}")
        return [self._of(tuple(_TITLES[sex].items())), (surname, surname)]

    def _initials(self) -> Pairs:
        letters = [self._of("ABCDEFGHJKLMNPRSTW") for _ in range(2)]
        surname = self._of(self._surnames)
        return [(f"{letter}.", f"{letter}.") for letter in letters] + [(surname, surname)]

    def _address(self) -> Pairs:
        number, (short, street) = self._int(2, 99), self._of(tuple(_STREETS.items()))
        name = self._of(_ROADS)
        return [(str(number), cardinal(number)), (name, name), (short, street)]

    def _monarch(self) -> Pairs:
        number = self._int(2, len(_ROMAN))
        name = self._of(_MONARCHS)
        return [(name, name), (_ROMAN[number - 1], f"the {ordinal(number)}")]

    def _no(self) -> Pairs:
        number = self._int(1, 99)
        return [("No.", "number"), (str(number), cardinal(number))]
