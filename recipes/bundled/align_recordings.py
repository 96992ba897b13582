"""A manifest with word times for recordings with transcripts: `python -m recipes.bundled.align_recordings --help`.

Aligns with pocketsphinx as `codec-slm align` does, words that its dictionary lacks pronounced as Flite pronounces
them. Reads an LJSpeech layout (`metadata.csv`, `wavs/`, `train.txt`, `dev.txt`) and writes a `manifest.jsonl` with the
times; an utterance whose alignment looks wrong has `words: null`. With `--check MANIFEST` it aligns synthetic speech
instead, whose true word times are known, and prints the error.
"""

import argparse
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from codec.foundation import write_text
from data import Corpus, align_corpus, open_corpus, with_alignment
from data.alignment.pocketsphinx import PocketSphinxAligner
from recipes.bundled.commands import run
from recipes.bundled.flite import flite
from recipes.bundled.speech import manifest_line


def aligned(corpus: Corpus, processes: int) -> Corpus:
    """The corpus with word times where they could be found."""
    with tempfile.TemporaryDirectory() as directory:
        align_corpus(corpus, PocketSphinxAligner(flite), directory, processes)
        return with_alignment(corpus, directory)


def write_aligned(corpus: Path, output: Path, speaker: str, language: str, processes: int) -> None:
    """Write `output` (a manifest) for an LJSpeech layout; prints how many utterances have no word times."""
    utterances = aligned(open_corpus(corpus, "ljspeech", speaker, language), processes).utterances
    lines = [
        manifest_line(
            u.id, str(Path(str(u.path)).resolve()), u.text or "", speaker, u.split, u.words, language
        )
        for u in utterances
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, "".join(lines))
    print(f"{len(lines)} utterances, {sum(u.words is None for u in utterances)} without word times")


@dataclass(frozen=True)
class BoundaryErrors:
    """Distances between aligned and true word boundaries, in milliseconds, and the share within 50 ms."""

    utterances: int
    rejected: int
    unplaced: int
    median_ms: float
    mean_ms: float
    percentile_95_ms: float
    bias_ms: float
    within_50_ms: float


def check(manifest: Path, count: int, processes: int) -> BoundaryErrors:
    """Align the first `count` utterances of a synthetic corpus and compare with the synthesiser's own times."""
    corpus = open_corpus(manifest)
    known = corpus.utterances[:count]
    found = aligned(corpus.part(replace(u, words=None) for u in known), processes)
    pairs = [
        (mine, true)
        for u, right in zip(found.utterances, known, strict=True)
        if u.words is not None and right.words is not None
        for mine, true in zip(u.words, right.words, strict=True)
    ]
    placed = [(mine, true) for mine, true in pairs if mine.placed and true.placed]
    starts_and_ends = [np.array([pair[side][1:] for pair in placed], dtype=np.float64) for side in (0, 1)]
    errors = starts_and_ends[0] - starts_and_ends[1]  # (words, 2) seconds
    absolute = 1000 * np.abs(errors)
    return BoundaryErrors(
        utterances=len(known),
        rejected=sum(u.words is None for u in found.utterances),
        unplaced=sum(not mine.placed for mine, _ in pairs),
        median_ms=float(np.median(absolute)),
        mean_ms=float(absolute.mean()),
        percentile_95_ms=float(np.percentile(absolute, 95)),
        bias_ms=float(1000 * errors.mean()),
        within_50_ms=float((absolute <= 50).mean()),
    )


def main() -> None:
    """Parse the command line; align a corpus or check the aligner."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "corpus", type=Path, help="LJSpeech layout; with --check, a manifest with known word times"
    )
    parser.add_argument("--output", type=Path, help="the manifest to write")
    parser.add_argument("--speaker", help="name of the speaker in the manifest")
    parser.add_argument("--language", default="en", help="language in the manifest (default: en)")
    parser.add_argument(
        "--check", type=int, metavar="N", help="compare N utterances with their known word times"
    )
    parser.add_argument("--processes", type=int, default=2, help="processes (default: 2)")
    arguments = parser.parse_args()
    if arguments.check:
        for name, value in asdict(check(arguments.corpus, arguments.check, arguments.processes)).items():
            print(f"{name}: {value:.3g}")
        return
    if not arguments.output or not arguments.speaker:
        parser.error("--output and --speaker are needed")
    write_aligned(
        arguments.corpus, arguments.output, arguments.speaker, arguments.language, arguments.processes
    )


if __name__ == "__main__":
    run(main)
