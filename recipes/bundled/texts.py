"""Collect the texts to speak: `python -m recipes.bundled.texts --help`.

A shuffled JSONL file (`id`, `text`, `source`): everyday sentences from our own grammar, clauses from free books, and
sentences with digits and abbreviations, which have `spoken` too: how each written word is spoken. The evaluation
sentences are never among them.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from codec.foundation import UserError, generator, write_text
from recipes.bundled.books import MAX_WORDS, MIN_WORDS, clauses, read_bible, read_handbook, read_novels
from recipes.bundled.commands import run
from recipes.bundled.grammar import Grammar
from recipes.bundled.speech import Sentence
from recipes.bundled.written import WrittenSentences

EVALUATION = Path(__file__).parent / "evaluation_sentences.txt"


def evaluation_sentences() -> list[str]:
    """The sentences that the language model is evaluated on, and never trained on."""
    return EVALUATION.read_text(encoding="utf-8").splitlines()


def normalized(text: str) -> str:
    """Lower case, letters and single spaces only: what two texts share that sound the same."""
    return " ".join(re.findall(r"[a-z]+", text.lower().replace("'", "")))


@dataclass(frozen=True)
class Sources:
    """Numbers of distinct texts of each kind, where the books are, and how long a text may be."""

    everyday: int = 0
    novels: int = 0
    bible: int = 0
    written: int = 0
    handbook: int = 0
    rdata: Path | None = None
    handbook_directory: Path | None = None
    min_words: int = MIN_WORDS
    max_words: int = MAX_WORDS

    def read(self, seed: int) -> Iterator[tuple[str, int, list[Sentence]]]:
        """Name, number wanted and all available sentences of each kind."""
        length = self.min_words, self.max_words
        grammar = Grammar(seed).sentences(*length)
        more = self.everyday + len(evaluation_sentences())
        yield "everyday", self.everyday, _plain(islice(grammar, more))
        if self.novels:
            if self.rdata is None:
                raise UserError(
                    "texts from novels need --rdata, data/Rdata.rdb of Debian's r-cran-janeaustenr"
                )
            yield "novels", self.novels, _plain(clauses(read_novels(self.rdata), *length))
        if self.bible:
            yield "bible", self.bible, _plain(clauses(read_bible(), *length))
        if self.written:
            yield "written", self.written, list(islice(WrittenSentences(seed).sentences(), 2 * self.written))
        if self.handbook:
            if self.handbook_directory is None:
                raise UserError(
                    "texts from the handbook need --handbook-directory, html/en-US of debian-handbook"
                )
            passages = read_handbook(self.handbook_directory)
            yield "handbook", self.handbook, _plain(clauses(passages, *length))


def _plain(texts: Iterable[str]) -> list[Sentence]:
    return [Sentence.plain(text) for text in texts]


def collect(sources: Sources, seed: int) -> list[dict[str, Any]]:
    """Distinct texts of each source, shuffled, as rows of `id`, `source`, `text` and, if it differs, `spoken`."""
    taken = {normalized(sentence) for sentence in evaluation_sentences()}
    rows: list[dict[str, Any]] = []
    number = 0
    for number, (source, wanted, sentences) in enumerate(sources.read(seed)):
        kept: list[Sentence] = []
        for index in generator(seed, number).permutation(len(sentences)):
            sentence = sentences[index]
            sounds = normalized(" ".join(sentence.spoken))
            if len(kept) < wanted and sounds not in taken:
                taken.add(sounds)
                kept.append(sentence)
        if len(kept) < wanted:
            raise UserError(f"{source}: {wanted} texts were asked for, there are only {len(kept)}")
        for sentence in kept:
            row: dict[str, Any] = {"source": source, "text": sentence.text}
            if list(sentence.spoken) != sentence.words:
                row["spoken"] = list(sentence.spoken)
            rows.append(row)
    order = generator(seed, number + 1).permutation(len(rows))
    return [{"id": f"text-{k:06d}", **rows[index]} for k, index in enumerate(order)]


def main() -> None:
    """Parse the command line and write the texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the JSONL file to write")
    parser.add_argument("--everyday", type=int, default=14000, help="sentences of our own (default: 14000)")
    parser.add_argument("--novels", type=int, default=9000, help="texts by Jane Austen (default: 9000)")
    parser.add_argument(
        "--bible", type=int, default=3000, help="texts from the King James Bible (default: 3000)"
    )
    parser.add_argument("--written", type=int, default=0, help="sentences with digits and abbreviations")
    parser.add_argument("--handbook", type=int, default=0, help="texts from the Debian Handbook")
    parser.add_argument("--rdata", type=Path, help="janeaustenr/data/Rdata.rdb")
    parser.add_argument("--handbook-directory", type=Path, help="debian-handbook/html/en-US")
    parser.add_argument("--min-words", type=int, default=MIN_WORDS, help="of a text (default: %(default)s)")
    parser.add_argument("--max-words", type=int, default=MAX_WORDS, help="of a text (default: %(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=0, help="texts that go to OUTPUT-held-out.jsonl instead (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other texts (default: 1)")
    arguments = vars(parser.parse_args())
    output, held_out, seed = (arguments.pop(name) for name in ("output", "held_out", "seed"))
    rows = collect(Sources(**arguments), seed)
    if held_out:
        write_rows(output.with_name(f"{output.stem}-held-out.jsonl"), rows[:held_out])
    write_rows(output, rows[held_out:])
    print(f"{len(rows)} texts, {sum(len(row['text'].split()) for row in rows)} words")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    run(main)
