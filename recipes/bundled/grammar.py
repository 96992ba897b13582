"""Everyday English sentences from a grammar (`grammar.txt`) and a word list (`lexicon.txt`) of our own.

The choice among a category's words leans towards those that were used least, so that a few thousand sentences
hear every word of the list several times, in different company.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codec.foundation import generator

HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\w+)(?:\+(\w+))?\}")
_VOWEL_SOUND = re.compile(r"(?!(?:uni|use|eu|one\b|uk|ufo|u-))[aeiou]|hour|honest|honor|heir", re.IGNORECASE)

_THIRD_PERSON = {
    "man": {"he": "he", "his": "his", "him": "him", "himself": "himself"},
    "woman": {"he": "she", "his": "her", "him": "her", "himself": "herself"},
}
_ANY_PERSON = [
    dict(
        zip(
            ("pro", "pro_his", "pro_him", "pro_self", "pro_was", "pro_is", "pro_has", "pro_does"),
            forms,
            strict=True,
        )
    )
    for forms in (
        ("I", "my", "me", "myself", "was", "am", "have", "do"),
        ("you", "your", "you", "yourself", "were", "are", "have", "do"),
        ("he", "his", "him", "himself", "was", "is", "has", "does"),
        ("she", "her", "her", "herself", "was", "is", "has", "does"),
        ("we", "our", "us", "ourselves", "were", "are", "have", "do"),
        ("they", "their", "them", "themselves", "were", "are", "have", "do"),
    )
]


@dataclass(frozen=True)
class Word:
    """A word of the list: `base`, irregular forms in the order given, and whether its last letter doubles."""

    base: str
    irregular: tuple[str, ...] = ()
    doubles: bool = False
    verb: bool = False

    @classmethod
    def parse(cls, entry: str, verb: bool) -> "Word":
        """From `base!/form/form` with "_" for spaces."""
        base, *irregular = entry.replace("_", " ").split("/")
        return cls(base.rstrip("!"), tuple(irregular), base.endswith("!"), verb)

    def form(self, form: str | None) -> str:
        """The base (None), plural or third person ("s"), past ("ed"), participle ("en") or "ing" form."""
        if form is None:
            return self.base
        if self.irregular:
            if not self.verb and form == "s":
                return self.irregular[0]
            if self.verb and form in ("ed", "en"):
                return self.irregular[-1 if form == "en" else 0]
        # A verb inflects its first word (looked up), a noun its last (wedding rings).
        words = self.base.split(" ")
        position = 0 if self.verb else -1
        words[position] = inflect(words[position], form, self.doubles)
        return " ".join(words)


def inflect(word: str, form: str, doubles: bool = False) -> str:
    """Regular inflection of English: `form` is "s", "ed", "en" (as "ed") or "ing"."""
    if form == "s":
        if re.search(r"(s|x|z|ch|sh)$|^(go|do|undergo)$", word):
            return word + "es"
        return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"
    # stop -> stopped, but cook -> cooked, open -> opened, fix -> fixed
    if doubles or re.fullmatch(r"(?:[^aeiou]*|qu)[aeiou][^aeiouwxy]", word):
        word += word[-1]
    if form == "ing":
        if word.endswith("ie"):
            return word[:-2] + "ying"
        return (word[:-1] if re.search(r"[^eoy]e$", word) else word) + "ing"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ied"
    return word + ("d" if word.endswith("e") else "ed")


def _blocks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The blocks of a file: a name before a colon at the start of a line, then lines that begin with a space."""
    name = ""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            if name:
                yield name, lines
            name, _, line = line.partition(":")
            lines = []
        if line.strip():
            lines.append(line.strip())
    yield name, lines


def read_lexicon(path: Path = HERE / "lexicon.txt") -> dict[str, list[Word]]:
    """Category -> words."""
    return {
        name: [Word.parse(entry, name.startswith("v_")) for line in lines for entry in line.split()]
        for name, lines in _blocks(path)
    }


def read_rules(path: Path = HERE / "grammar.txt") -> dict[str, list[str]]:
    """Rule -> alternatives."""
    return {
        name: [part.strip() for line in lines for part in line.split("|")] for name, lines in _blocks(path)
    }


@dataclass
class Grammar:
    """An endless, seeded source of sentences."""

    seed: int
    rules: dict[str, list[str]] = field(default_factory=read_rules)
    lexicon: dict[str, list[Word]] = field(default_factory=read_lexicon)

    def __post_init__(self) -> None:
        self._random = generator(self.seed)
        self._uses: dict[str, np.ndarray] = {
            name: np.zeros(len(entries)) for name, entries in (self.rules | self.lexicon).items()
        }

    def sentences(self, min_words: int = 4, max_words: int = 16) -> Iterator[str]:
        """Distinct sentences of `min_words` to `max_words` words, without end."""
        seen: set[str] = set()
        while True:
            sentence = self.sentence()
            content = Counter(re.findall(r"[a-z]{4,}", sentence.lower()))
            if (
                min_words <= len(sentence.split()) <= max_words
                and sentence not in seen
                and max(content.values(), default=0) < 3
            ):
                seen.add(sentence)
                yield sentence

    def sentence(self) -> str:
        """One sentence."""
        # The man or woman of this sentence, and the person of its {pro} slots.
        sex = "man" if self._random.random() < 0.5 else "woman"
        name = self._word("name_m" if sex == "man" else "name_f", None)
        bound = {
            "name": name,
            **_THIRD_PERSON[sex],
            **_ANY_PERSON[int(self._random.integers(len(_ANY_PERSON)))],
        }
        return finish(self._expand(self._choose("sentence"), bound))

    def _expand(self, template: str, bound: dict[str, str], outer_form: str | None = None) -> str:
        def fill(match: re.Match[str]) -> str:
            name, form = match[1], match[2] or outer_form
            if name in bound:
                return bound[name]
            if name in self.rules:  # {thing+s} asks for the plural of whatever a thing turns out to be
                return self._expand(self._choose(name), bound, form)
            return self._word(name, form)

        return _SLOT.sub(fill, template)

    def _choose(self, rule: str) -> str:
        # Only whole sentences are balanced: inside a rule, an alternative that is listed twice is meant to be.
        if rule == "sentence":
            return self.rules[rule][self._least_used(rule)]
        return self.rules[rule][int(self._random.integers(len(self.rules[rule])))]

    def _word(self, category: str, form: str | None) -> str:
        return self.lexicon[category][self._least_used(category)].form(form)

    def _least_used(self, name: str) -> int:
        uses = self._uses[name]
        weights = (1.0 + uses - uses.min()) ** -2.0
        choice = int(self._random.choice(len(uses), p=weights / weights.sum()))
        uses[choice] += 1
        return choice


def finish(sentence: str) -> str:
    """Mend what templates leave: a or an, capitals at the start and in quotations."""
    sentence = re.sub(
        r"\b([Aa])n?(?= (\"?[\w'-]+))", lambda m: m[1] + ("n" if _VOWEL_SOUND.match(m[2]) else ""), sentence
    )
    return re.sub(r"^\"?[a-z]|(?<= \")[a-z]", lambda m: m[0].upper(), sentence)
