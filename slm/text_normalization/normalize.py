"""Written text in spoken words, by rules on top of `num2words`; what differs between languages stands in LANGUAGE.yaml.

A rule rewrites what its pattern finds and leaves all else as it is, so plain sentences come back unchanged. Rules that
need more context stand first: an address before a date, a date before a time, money before units, units before numbers.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from re import Match
from typing import Any

import yaml
from num2words import num2words

from codec.foundation.errors import UserError

LANGUAGES = ("en", "de")

_TOP_LEVEL = "com|org|net|edu|gov|io|ai|info|dev|app|eu|de|at|ch|fr|uk|us|tv|me|co"
_SPELLED_PARTS = ("uk", "us", "de", "at", "io", "ai", "eu")
_ADDRESS = re.compile(
    rf"(?<![\w.+-])(?:https?://)?(?:[\w.+-]+(?P<at>@))?(?:[\w-]+\.)+(?:{_TOP_LEVEL})\b(?!\.\w)(?:/[\w./?=&%#~-]*\w)?/?"
)
# +1 555 123 4567, (555) 123-4567, 555-1234; with a nought for the trunk: 0170 1234567, 030/123456, 020 7946 0958.
_PHONE = re.compile(
    r"(?<![\w.,])\(?0\d{2,4}\)?[ /-]?\d{3,}(?:[ -]\d{2,})*\b"
    r"|(?:\+?\b\d{1,3}[ .-]?)?(?:\(\d{3}\)|\b\d{3})(?:[ -](?:\d{3}[ -])?|\.\d{3}\.)\d{4}\b|\+\d[\d ()/-]{6,}\d"
)
_ROMAN = (
    r"(?P<roman>(?=[MDCLXVI])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))(?<=[MDCLXVI])"
    r"\b(?P<dot>\.?)"
)
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_CAPITALS = re.compile(
    r"(?<![\w.'’])[^\W\d_a-zß-ÿ](?:[^\W_a-zß-ÿ]|\.(?=[A-Z]))*(?P<end>'?s)?(?![\w])(?P<dot>\.?)"
)
_ELEMENTS = "(?:[HBCNOFPSKIU]|He|Li|Na|Mg|Al|Si|Cl|Ca|Ti|Cr|Mn|Fe|Co|Ni|Cu|Zn|Br|Ag|Ba|Au|Hg|Pb)\\d*"
# Unicode's categories of what is not said: emoji, what joins them, what stands for nothing.
_UNSPOKEN = ("So", "Sk", "Cf", "Mn", "Co", "Cn", "Cs", "Cc")
_JOINERS = ("Sk", "Cf", "Mn", "Cc")
# What a voice reads into a mark that its model does not know.
_MARKS = {"—": ",", "–": ",", ";": ",", ":": ",", "…": "..."}
_QUOTES = str.maketrans("“”„‟«»‘’‚‛\u00a0\u202f\u2009−₀₁₂₃₄₅₆₇₈₉", '""""""\'\'\'\'   -0123456789')


def normalize(text: str, language: str = "en") -> str:
    """The text as it is spoken. Raises UserError for a language without rules."""
    if language not in LANGUAGES:
        raise UserError(f"texts can be put into spoken words in {', '.join(LANGUAGES)}, not in {language!r}")
    return _rules(language)(text)


def speakable(text: str, knows: Callable[[str], bool]) -> tuple[str, list[str]]:
    """A text without the characters that a model cannot say, and these characters, each once.

    `knows` tells whether the model has seen a character. Where it has not, its plain form stands in (é: e, X: x).
    """
    said: list[str] = []
    lost: dict[str, None] = {}
    lost_before = False
    for character in text:
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        forms = (
            character,
            plain,
            character.lower(),
            plain.casefold(),
            character.upper(),
            _MARKS.get(character),
        )
        kind = unicodedata.category(character)
        known = next((form for form in forms if form and all(map(knows, form))), None)
        if character.isspace() or (known and kind not in _UNSPOKEN):
            if lost_before and character in ".,;:!?" and said and said[-1] == " ":
                said.pop()
            if not (lost_before and character == " "):
                said.append(character if known is None else known)
            lost_before = False
        elif kind in _JOINERS:
            continue
        else:
            lost_before = True
            said += [] if said and said[-1].isspace() else [" "]
            if not kind.startswith("P"):  # marks are not said, so they are not missed
                lost[character] = None
    return "".join(said), list(lost)


@lru_cache
def _rules(language: str) -> "_Rules":
    return _Rules(language)


class _Rules:
    """The rules of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        table = yaml.safe_load((Path(__file__).parent / f"{language}.yaml").read_text(encoding="utf-8"))
        self.table: dict[str, Any] = table
        for name in ("titles", "labels", "abbreviations"):  # at the start of a sentence too
            table[name] = {
                k[0].upper() + k[1:]: v[0].upper() + v[1:] for k, v in table[name].items() if len(k) > 1
            } | table[name]
        self.words: dict[str, str] = table["words"]
        self.spelled, self.said = table["spelled"].split(), table["said"].split()
        group, point = re.escape(table["thousands"]), re.escape(table["decimal"])
        number = rf"(?:\d{{1,3}}(?:{group}\d{{3}})+(?!\d)|\d+)(?:{point}\d+)?"
        amount = rf"(?P<minus>-)?(?P<first>{number})(?:[-–](?P<last>{number}))?"
        alone = rf"(?<![\w.,]){amount}"
        per = r"(?:/(?P<per>[^\W\d]+[²³]?)(?!/))?"
        self.month_names = table["months"] + list(table["month_abbreviations"])
        self.weekdays = table["weekdays"] | {name: name for name in table["weekdays"].values()}
        months, days = _alternatives(self.month_names), _alternatives(self.weekdays)
        shorts_of_months = _alternatives(table["month_abbreviations"])
        scales, money, units = (_alternatives(table[name]) for name in ("scales", "currencies", "units"))
        titles, shorts, labels = (
            _alternatives(table[name]) for name in ("titles", "abbreviations", "labels")
        )
        scale = rf"(?:\s?(?P<scale>{scales})(?!\w))?"
        long_scales = _alternatives(name for name in table["scales"] if len(name) > 1)
        dates = zip(table["dates"], table["date"], strict=True)
        year = rf"(?<![\w.,])(?P<year>\d{{4}})(?=(?P<range> {self.words['to']} \d{{2}}(?:\d\d)?\b)?)(?![.,]\d|\w)"
        rules: list[tuple[str, Callable[[Match[str]], str]]] = [
            *((pattern, partial(_expand, form)) for pattern, form in table["first"]),
            (r"\b[A-Z]{1,3}&[A-Z]{1,3}\b", self._joint_initials),
            (rf"\b({days})(?:\.?\s?[-–]\s?({days})\b\.?|\.(?=,| \d| [a-zäöü]| {{MONTH}}))", self._weekday),
            *((pattern, self._date(form)) for pattern, form in dates),
            (r"\b(?P<year>\d{4})-(?P<number>\d\d)-(?P<day>\d\d)\b", self._date(table["date"][-1])),
            (
                rf"\b({shorts_of_months})(?:\.(?= [\da-zß-ÿ–-]|,)|(?= \d{{4}}\b| {self.words['to']} ))",
                self._month,
            ),
            (rf"(?<= {self.words['to']} )({shorts_of_months})\b\.?", self._month),
            (r"(?<![\w-])\d+(?:-\d+){2,}(?![\w-])", self._phone),
            (table["decades"], self._decade),
            (rf"\b{_ROMAN}(?={table['ranked_romans']})", self._ranked_roman),
            (table["ordinals"], self._ranked),
            *((pattern, self._time) for pattern in table["times"]),
            (rf"(?P<sign>{money})\s?{amount}{scale}{per}", self._money),
            (rf"{alone}{scale}\s?(?P<sign>{money})(?!\w){per}", self._money),
            (rf"(?<![\d/.,])((?P<whole>\d+ )?\d/(?:[2-9]|10))\s?(?P<unit>{units})(?!\w)", self._part_of_unit),
            (rf"{alone}{scale}[\s-]?(?P<unit>{units})(?![\w²³])(?:\.(?= [a-zäöüß]))?{per}", self._unit),
            (rf"{alone}\s?(?P<scale>{long_scales})(?!\w)", self._scaled),
            (rf"\b(?P<short>{titles})\. (?=[^\W\d_a-zß-ÿ])", self._short("titles", " ")),
            (rf"\b(?P<short>{labels})(?:\.|(?<=\w{{3}})) ?(?=\d|[IVX]+\b)", self._short("labels", " ")),
            *((pattern, partial(_expand, form)) for pattern, form in table["rewrites"]),
            (rf"\b(?P<short>{shorts})\.(?P<end>(?=\s*$))?", self._short("abbreviations", "")),
            (rf"\b(?P<name>{table['regnal_names']}) {_ROMAN}", self._regnal),
            (
                rf"\b(?P<name>{table['numbered']}|[A-Z]\w+(?= [IVX]{{2,}}\b)) (?![CDLM]\b){_ROMAN}",
                self._numbered,
            ),
            (
                r"(?<![\d/.,])(?:(?P<whole>\d+) )?(?P<part>\d\d?)/(?P<parts>[2-9]|1\d|20|32|64|100)(?![\d/])",
                self._fraction,
            ),
            (rf"\b(?P<before>{table['digits_after']} )(?P<digits>\d{{3,}})\b", self._digits),
            (rf"(?P<before>{table['year_before']})?{year}", self._year),
            (r"\b(?!\d{1,3}(?:\.\d{3})+(?!\.?\d))\d+(?:\.\d+){2,}\b", self._version),
            (r"(?<=[A-Za-z])-(?=\d)", lambda found: " "),
            (rf"\b(?:(?=\w*\d)(?=\w*[A-Z])[A-Z\d]+|(?=[A-Z\d]*[a-z])(?:{_ELEMENTS}){{2,}})\b", self._mixed),
            (alone, self._amount),
            (number, lambda found: f" {self._cardinal(found[0])} "),
        ]
        self.endings = [(re.compile(pattern), ending) for pattern, ending in table.get("endings", [])]
        self.rules = [
            (re.compile(pattern.replace("{MONTH}", f"(?:{months})")), rule) for pattern, rule in rules
        ]

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text).translate(_QUOTES)
        text = re.sub(r"(?<=\d)[¼½¾⅐-⅞]", r" \g<0>", text)
        text = re.sub(
            "[¼½¾⅐-⅞]", lambda found: unicodedata.normalize("NFKC", found[0]).replace("⁄", "/"), text
        )
        written = text
        text = _ADDRESS.sub(self._address, text)
        text = _PHONE.sub(self._phone, text)
        for pattern, rule in self.rules:
            text = pattern.sub(rule, text)
        text = _CAPITALS.sub(self._capitals, text)
        return text if text == written else re.sub(r"(?<=\S) {2,}(?=\S)", " ", text)

    # ---- numbers

    def _cardinal(self, digits: str) -> str:
        """A number in words, with decimals digit by digit; digits with a nought before them are spelled."""
        digits = digits.replace(self.table["thousands"], "")
        whole, point, decimals = digits.partition(self.table["decimal"])
        if (len(whole) > 1 and whole.startswith("0")) or len(whole) > 15:
            said = self._spelled_digits(whole)
        else:
            said = num2words(int(whole), lang=self.language).replace(" and ", " ").replace(",", "")
        return said + (f" {self.words['point']} {self._spelled_digits(decimals)}" if point else "")

    def _spelled_digits(self, digits: str) -> str:
        return " ".join(num2words(int(digit), lang=self.language) for digit in digits)

    def _joint_initials(self, found: Match[str]) -> str:
        return f" {self.words['and']} ".join(map(_spelled, found[0].split("&")))

    def _digits(self, found: Match[str]) -> str:
        return found["before"] + self._digit_by_digit(found["digits"])

    def _version(self, found: Match[str]) -> str:
        return f" {self.words['version']} ".join(found[0].split("."))

    def _amount(self, found: Match[str]) -> str:
        """A number or a range of them."""
        said = self._cardinal(found["first"])
        if found["last"]:
            said += f" {self.words['to']} {self._cardinal(found['last'])}"
        glued = found.string[found.end() : found.end() + 1].isalpha()
        return (f"{self.words['minus']} " if found["minus"] else "") + said + " " * glued

    def _ordinal(self, number: int, before: str = "") -> str:
        """The ordinal; in German with the ending that the words around it, `before # after`, ask for."""
        said = num2words(number, lang=self.language, to="ordinal").replace(" and ", " ").replace(",", "")
        return said + next((ending for around, ending in self.endings if around.search(before)), "")

    def _year_in_words(self, digits: str) -> str:
        said = num2words(int(digits), lang=self.language, to="year")
        return said.replace(" and ", " ").replace("oh-", "oh ")

    # ---- rules

    def _date(self, form: str) -> Callable[[Match[str]], str]:
        def rule(found: Match[str]) -> str:
            there = found.groupdict()
            name, day = there.get("month"), int(found["day"])
            number = int(there.get("number") or self.table["month_abbreviations"].get(name, 0))
            number = number or self.table["months"].index(name) + 1
            if not (1 <= number <= 12 and 1 <= day <= 31):
                return found[0]
            before, year = there.get("before") or "", there.get("year") or ""
            if len(year) == 2:
                year = ("20" if year < "50" else "19") + year
            month = self.table["months"][number - 1]
            said = form.format(month=month, day=self._ordinal(day, f"{before}# {month}"))
            return before + said + (f" {self._year_in_words(year)}" if year else "")

        return rule

    def _time(self, found: Match[str]) -> str:
        there, form = found.groupdict(), self.table["time"]
        hour, minute, second = (int(there.get(name) or 0) for name in ("hour", "minute", "second"))
        if hour > 24:
            return found[0]
        said_hour = self._one(hour)
        if there.get("second"):
            one, many = form["seconds"][::2], form["seconds"][1::2]
            return " ".join(map(self._counted, (hour, minute, second), one, many))
        half = there.get("half")
        if minute:
            said = (form["nought"] if minute < 10 else "") + self._cardinal(str(minute))
            said = form["minutes"].format(hour=said_hour, minute=said)
        else:
            said = form["half" if half else "full"].format(hour=said_hour)
        return said + (f" {half.upper()}.M." if half else "")

    def _one(self, number: int, one: str = "ein") -> str:
        """A number before a noun."""
        return one if number == 1 and self.language == "de" else self._cardinal(str(number))

    def _counted(self, number: int, one: str, many: str, article: str = "ein") -> str:
        return f"{self._one(number, article)} {one if number == 1 else many}"

    def _scaled(self, found: Match[str]) -> str:
        scale = self.table["scales"].get(found.groupdict().get("scale"))
        if found["first"] == "1" and not found["last"] and scale in self.table["one_of"]:
            return f"{self.words['minus']} " * bool(found["minus"]) + str(self.table["one_of"][scale])
        return self._amount(found) + (f" {scale}" if scale else "")

    def _is_one(self, found: Match[str]) -> bool:
        return found["first"] == "1" and not found["last"] and not found.groupdict().get("scale")

    def _per(self, found: Match[str]) -> str:
        """`/month`, `/s²`: what an amount is divided by."""
        per = found["per"]
        return f" {self.words['per']} {self.table['units'].get(per, [per])[0]}" if per else ""

    def _money(self, found: Match[str]) -> str:
        one, many, cent, cents = self.table["currencies"][found["sign"]]
        whole, point, part = found["first"].partition(self.table["decimal"])
        if point and len(part) == 2 and not found["last"] and not found["scale"]:
            pounds, pence = int(whole.replace(self.table["thousands"], "")), int(part)
            said = [self._counted(pounds, one, many)] if pounds or not pence else []
            said += [self._counted(pence, cent, cents)] if pence else []
            joined = self.table["money"].format(whole=said[0], part=said[-1]) if len(said) > 1 else said[0]
            return (f"{self.words['minus']} " if found["minus"] else "") + joined + self._per(found)
        if self._is_one(found):
            return self._counted(1, one, many) + self._per(found)
        return f"{self._scaled(found)} {many}{self._per(found)}"

    def _unit(self, found: Match[str]) -> str:
        one, many, *article = self.table["units"][found["unit"]]
        if self._is_one(found):
            said = self._counted(1, one, many, *article) + self._per(found)
            return (f"{self.words['minus']} " if found["minus"] else "") + said
        return f"{self._scaled(found)} {many}{self._per(found)}"

    def _part_of_unit(self, found: Match[str]) -> str:
        one, many, *_ = self.table["units"][found["unit"]]
        return f"{found[1]} {many if found['whole'] else one}"

    def _short(self, table: str, after: str) -> Callable[[Match[str]], str]:
        """An abbreviation of that table in full; a full stop that also ends the text stays."""

        def rule(found: Match[str]) -> str:
            ends = found.groupdict().get("end") is not None
            return self.table[table][found["short"]] + ("." if ends else after)

        return rule

    def _month(self, found: Match[str]) -> str:
        return str(self.table["months"][self.table["month_abbreviations"][found[1]] - 1])

    def _weekday(self, found: Match[str]) -> str:
        return f" {self.words['to']} ".join(self.weekdays[name] for name in found.groups() if name)

    def _ranked(self, found: Match[str]) -> str:
        there = {name: text or "" for name, text in found.groupdict().items()}
        before, after = there.get("before", ""), there.get("after", "")
        ranks = [there["number"].replace(",", ""), there.get("other")]
        said = [self._ordinal(int(rank), f"{before}# {after}") for rank in ranks if rank]
        return before + re.sub("[-–]", f" {self.words['to']} ", there.get("join", "")).join(said)

    def _ranked_roman(self, found: Match[str]) -> str:
        return str(_roman(found["roman"])) + ("." if self.language == "de" else "th")

    def _decade(self, found: Match[str]) -> str:
        century, ten = found["century"] or "", found["ten"]
        if ten == "00":
            said = self._year_in_words(century + ten)
        elif self.language == "de":
            said = (self._year_in_words(century + "00") if century else "") + self._cardinal(ten)
        else:
            said = (f"{self._cardinal(century)} " if century else "") + self._cardinal(ten)
        return said + found["ending"] if self.language == "de" else _plural(said)

    def _year(self, found: Match[str]) -> str:
        year, before = int(found["year"]), found["before"] or ""
        is_year = 1100 <= year < 2000 or (1000 <= year < 2100 and bool(before or found["range"]))
        return before + (self._year_in_words(found["year"]) if is_year else found["year"])

    def _fraction(self, found: Match[str]) -> str:
        part, parts = int(found["part"]), int(found["parts"])
        if self.language == "de":
            if (part, parts) == (1, 2):
                return f"{self._one(int(found['whole']))}einhalb" if found["whole"] else "ein halb"
            said = f"{self._one(part)} {num2words(parts, lang='de', to='ordinal').capitalize()}l"
            return f"{self._cardinal(found['whole'])} {said}" if found["whole"] else said
        one, many = self.table["fractions"].get(parts) or (self._ordinal(parts), f"{self._ordinal(parts)}s")
        said = f"{self._cardinal(str(part))} {one if part == 1 else many}"
        if not found["whole"]:
            return said
        return f"{self._cardinal(found['whole'])} and {said.replace('one ', 'a ', 1)}"

    def _regnal(self, found: Match[str]) -> str:
        ordinal = self._ordinal(_roman(found["roman"]), "der #")
        return f"{found['name']} " + self.table["regnal"].format(
            ordinal=ordinal.capitalize() if self.language == "de" else ordinal + found["dot"]
        )

    def _numbered(self, found: Match[str]) -> str:
        return f"{found['name']} {self._cardinal(str(_roman(found['roman'])))}{found['dot']}"

    # ---- letters

    def _address(self, found: Match[str]) -> str:
        """A web or mail address, mark by mark."""
        marks = {".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", "+": "plus"}
        address = re.sub(r"^https?://", "", found[0]).rstrip("/")
        parts = re.split(r"([./_@+-])", address)
        if "@" not in address and not found[0].startswith("http") and address.split("/")[0].count(".") == 0:
            return found[0]
        said = [
            f"{self.words[marks[part]]}" if part in marks else _spelled(part) if _is_letters(part) else part
            for part in parts
        ]
        return " ".join(word for word in said if word)

    def _phone(self, found: Match[str]) -> str:
        plus = f"{self.words['plus']} " if found[0].startswith("+") else ""
        groups = re.findall(r"\d+", found[0])
        return plus + ", ".join(self._digit_by_digit(group) for group in groups)

    def _digit_by_digit(self, digits: str) -> str:
        return " ".join(self.words["nought"] if digit == "0" else self._cardinal(digit) for digit in digits)

    def _mixed(self, found: Match[str]) -> str:
        """`MP3`, `H2O`, `NaCl`: letters and digits."""
        pieces = re.findall(r"[A-Za-z]+|\d+", found[0])
        say = {True: self._year_in_words, False: self._cardinal}
        return " ".join(
            _spelled(piece) if piece.isalpha() else say[bool(re.fullmatch("(?:19|20)..", piece))](piece)
            for piece in pieces
        )

    def _capitals(self, found: Match[str]) -> str:
        """Initials are spelled, shouted words are said."""
        end, dot = found["end"] or "", found["dot"]
        word = found[0][: len(found[0]) - len(end) - len(dot)]
        letters = word.replace(".", "")
        if len(letters) < 2 or found[0].endswith(("A.M.", "P.M.")):
            return found[0]
        if "." not in word and not self._is_spelled(letters):
            return (letters if letters in ("NASA", "NATO") else letters.lower()) + end + dot
        if end:
            return ".".join(letters) + "'s"
        return _spelled(letters)

    def _is_spelled(self, letters: str) -> bool:
        if letters in self.spelled or not re.search("[AEIOUYÄÖÜ]", letters):
            return True
        return len(letters) <= 3 and letters not in self.said


def _expand(form: str, found: Match[str]) -> str:
    return found.expand(form)


def _plural(word: str) -> str:
    return word[:-1] + "ies" if word.endswith("y") else word + ("es" if word.endswith("x") else "s")


def _alternatives(table: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(table, key=len, reverse=True)))


def _is_letters(part: str) -> bool:
    """Whether this part of an address is said letter by letter."""
    return part in _SPELLED_PARTS or (part.isalpha() and not re.search("[aeiouyäöü]", part))


def _spelled(letters: str) -> str:
    return ".".join(letters.upper()) + "."


def _roman(digits: str) -> int:
    values = [_ROMAN_DIGITS[digit] for digit in digits]
    return sum(
        -value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True)
    )
