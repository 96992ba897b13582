"""Collect the texts that are to be spoken: `python -m recipes.bundled.texts --help`.

A shuffled JSONL file (`id`, `text`, `source`) of everyday sentences from our own grammar and of clauses from
public-domain books. The evaluation sentences are never among them.
"""

import argparse
import json
import re
from itertools import islice
from pathlib import Path

from codec.foundation import UserError, generator, write_text
from recipes.bundled.books import clauses, read_bible, read_novels
from recipes.bundled.commands import run
from recipes.bundled.grammar import Grammar

EVALUATION = Path(__file__).parent / "evaluation_sentences.txt"


def evaluation_sentences() -> list[str]:
    """The sentences that the language model is evaluated on, and never trained on."""
    return EVALUATION.read_text(encoding="utf-8").splitlines()


def normalized(text: str) -> str:
    """Lower case, letters and single spaces only: what two texts share that sound the same."""
    return " ".join(re.findall(r"[a-z]+", text.lower().replace("'", "")))


def collect(everyday: int, novels: int, bible: int, rdata: Path | None, seed: int) -> list[dict[str, str]]:
    """`everyday`, `novels` and `bible` distinct texts of each source, shuffled."""
    sources = {"everyday": list(islice(Grammar(seed).sentences(), everyday + len(evaluation_sentences())))}
    if novels:
        if rdata is None:
            raise UserError("texts from novels need --rdata, data/Rdata.rdb of Debian's r-cran-janeaustenr")
        sources["novels"] = list(clauses(read_novels(rdata)))
    if bible:
        sources["bible"] = list(clauses(read_bible()))
    wanted = {"everyday": everyday, "novels": novels, "bible": bible}
    taken = {normalized(sentence) for sentence in evaluation_sentences()}
    rows = []
    for number, (source, texts) in enumerate(sources.items()):
        kept: list[str] = []
        for index in generator(seed, number).permutation(len(texts)):
            text = texts[index]
            if len(kept) < wanted[source] and normalized(text) not in taken:
                taken.add(normalized(text))
                kept.append(text)
        if len(kept) < wanted[source]:
            raise UserError(f"{source}: {wanted[source]} texts were asked for, there are only {len(kept)}")
        rows += [{"source": source, "text": text} for text in kept]
    order = generator(seed, len(sources)).permutation(len(rows))
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
    parser.add_argument("--rdata", type=Path, help="janeaustenr/data/Rdata.rdb")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other texts (default: 1)")
    arguments = parser.parse_args()
    rows = collect(arguments.everyday, arguments.novels, arguments.bible, arguments.rdata, arguments.seed)
    write_text(arguments.output, "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} texts, {sum(len(row['text'].split()) for row in rows)} words")


if __name__ == "__main__":
    run(main)
