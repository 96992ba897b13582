"""Word times for recordings with transcripts: `python -m recipes.bundled.align_recordings --help`.

Forced alignment with pocketsphinx's US English model. Words that its dictionary lacks are pronounced as Flite
pronounces them; both use CMU's phones. Reads an LJSpeech layout (`metadata.csv`, `wavs/`, `train.txt`, `dev.txt`)
and writes a `manifest.jsonl` with the times; an utterance whose alignment looks wrong has `words: null`.
With `--check MANIFEST` it aligns synthetic speech instead, whose true word times are known, and prints the error.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from codec.runs import UserError, write_text
from recipes.bundled.commands import run
from recipes.bundled.flite import FliteVoice, TimedWord
from recipes.bundled.manifest import manifest_line

SAMPLING_RATE = 16000
FRAMES_PER_SECOND = 100
MIN_SECONDS_PER_PHONE = 0.025
# A drawn-out "Ah" is one phone of 0.8 s; long words have no phones of that length throughout.
MAX_SECONDS_OF_WORD, MAX_SECONDS_PER_PHONE = 0.5, 0.3
SCORE_UNIT = 1024
"""pocketsphinx divides its log-likelihoods by this to fit them into 16 bits."""
# Scores are log-likelihoods a frame, relative to the best state; an utterance this many robust deviations
# (median absolute deviation x 1.4826) below its corpus is probably not what its transcript says.
MAX_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Recording:
    """One utterance to align: audio file, the text that is spoken in it, and what the manifest says of it."""

    id: str
    path: Path
    text: str
    split: str = "train"


@dataclass(frozen=True)
class Alignment:
    """Word times of one utterance, the mean acoustic score a frame, and why it was rejected (None: it was not)."""

    words: list[TimedWord]
    score: float
    rejected: str | None = None


class Aligner:
    """Forced alignment of English, one utterance at a time."""

    def __init__(self) -> None:
        """Load the acoustic model and the dictionary that come with pocketsphinx."""
        try:
            import pocketsphinx
        except ImportError as error:
            raise UserError("pocketsphinx is missing: pip install 'codec-slm[eval]'") from error
        # Mean normalisation over the whole utterance, and beams so wide that hardly anything is pruned.
        self._decoder = pocketsphinx.Decoder(
            lm=None, cmn="batch", beam=1e-120, wbeam=1e-120, pbeam=1e-120, bestpath=False, loglevel="FATAL"
        )

    def align(self, waveform: np.ndarray, text: str) -> Alignment:
        """Align `waveform` (int16, 16 kHz, `(samples,)`) with `text`; words are its whitespace-separated tokens."""
        written = text.split()
        spoken = [self._spoken(word) for word in written]
        decoder = self._decoder
        decoder.set_align_text(" ".join(word for words in spoken for word in words))
        decoder.reinit_feat()  # the feature extraction remembers the utterance before, and times would move by a frame
        decoder.start_utt()
        decoder.process_raw(waveform.tobytes(), full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return Alignment([], float("-inf"), "no path through the transcript")
        segments = [segment for segment in decoder.seg() if not _is_filler(segment.word)]
        heard = [re.sub(r"\(\d+\)$", "", segment.word) for segment in segments]
        if heard != [word for words in spoken for word in words]:
            return Alignment([], float("-inf"), "no path through the transcript")
        times: list[TimedWord] = []
        rejected = None
        segment_of = iter(segments)
        for word, parts in zip(written, spoken, strict=True):
            if not parts:  # nothing is said: an empty interval keeps words and text token for token
                last = times[-1].end if times else 0.0
                times.append(TimedWord(word, last, last))
                continue
            pieces = [next(segment_of) for _ in parts]
            start = pieces[0].start_frame / FRAMES_PER_SECOND
            end = (pieces[-1].end_frame + 1) / FRAMES_PER_SECOND
            phones = sum(len(decoder.lookup_word(piece.word).split()) for piece in pieces)
            longest = MAX_SECONDS_OF_WORD + phones * MAX_SECONDS_PER_PHONE
            if not phones * MIN_SECONDS_PER_PHONE <= end - start <= longest:
                rejected = f"{word!r} would last {end - start:.2f} s"
            times.append(TimedWord(word, start, end))
        frames = sum(segment.end_frame + 1 - segment.start_frame for segment in segments)
        score = SCORE_UNIT * sum(math.log(segment.ascore) for segment in segments) / frames
        return Alignment(times, score, rejected)

    def _spoken(self, word: str) -> list[str]:
        """The dictionary words that are said for a written word; what is unknown is added to the dictionary.

        None for a dash on its own.
        """
        bare = re.sub(r"[^a-z'-]", "", word.lower()).strip("'-")
        if any(letter.isdigit() for letter in word):
            raise UserError(f"{word!r}: numbers must be written as words to be aligned")
        if not bare:
            return []
        for candidate in ([bare], bare.split("-")):
            if all(self._decoder.lookup_word(part) for part in candidate):
                return candidate
        parts = [part for part in bare.split("-") if part]
        for part in parts:
            if not self._decoder.lookup_word(part):
                phones = [phone.upper().replace("AX", "AH") for phone in _flite().pronounce(part)]
                self._decoder.add_word(part, " ".join(phones), True)
        return parts


@lru_cache(maxsize=1)
def _flite() -> FliteVoice:
    return FliteVoice("kal16")  # all voices pronounce alike; this one loads and speaks fastest


def _is_filler(word: str) -> bool:
    return word.startswith(("<", "[")) or word == "(NULL)"


def read_16_khz(path: Path) -> np.ndarray:
    """A file's first channel at 16 kHz, int16 `(samples,)`, its peak at half of full scale."""
    import soundfile
    import torch
    import torchaudio

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = torchaudio.functional.resample(torch.from_numpy(samples[:, 0].copy()), rate, SAMPLING_RATE)
    return (waveform / waveform.abs().max().clamp_min(1e-4) * 16384).to(torch.int16).numpy()


_aligner: Aligner | None = None


def align_one(recording: Recording) -> Alignment:
    """`Aligner.align` for one recording, with one aligner a process."""
    global _aligner
    _aligner = _aligner or Aligner()
    return _aligner.align(read_16_khz(recording.path), recording.text)


def align_all(recordings: list[Recording], processes: int) -> list[Alignment]:
    """Align all, and reject those whose score falls out of the corpus."""
    with ProcessPoolExecutor(processes) as pool:
        alignments = list(pool.map(align_one, recordings, chunksize=8))
    scores = np.array([alignment.score for alignment in alignments if alignment.words])
    middle = np.median(scores)
    lowest = middle - MAX_DEVIATIONS * 1.4826 * np.median(np.abs(scores - middle))
    return [
        Alignment(found.words, found.score, "the audio does not sound like its text")
        if found.rejected is None and found.score < lowest
        else found
        for found in alignments
    ]


def read_ljspeech(corpus: Path) -> Iterator[Recording]:
    """The recordings of an LJSpeech layout with `train.txt` and `dev.txt`, in the order of `metadata.csv`."""
    try:
        validation = set((corpus / "dev.txt").read_text(encoding="utf-8").split())
        lines = (corpus / "metadata.csv").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; an LJSpeech layout is expected") from error
    for line in lines:
        id_, _, text = line.split("|")
        split = "validation" if id_ in validation else "train"
        yield Recording(id_, (corpus / "wavs" / f"{id_}.flac").resolve(), text, split)


def align_corpus(corpus: Path, output: Path, speaker: str, language: str, processes: int) -> None:
    """Write `output` (a manifest) for an LJSpeech layout; prints how many alignments were rejected and why."""
    recordings = list(read_ljspeech(corpus))
    alignments = align_all(recordings, processes)
    lines = []
    for recording, found in zip(recordings, alignments, strict=True):
        words = None if found.rejected else found.words
        audio = str(recording.path)
        lines.append(
            manifest_line(recording.id, audio, recording.text, speaker, recording.split, words, language)
        )
        if found.rejected:
            print(f"{recording.id}: {found.rejected}")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, "".join(lines))
    print(
        f"{len(lines)} utterances, {sum(found.rejected is not None for found in alignments)} without word times"
    )


@dataclass(frozen=True)
class BoundaryErrors:
    """Distances between aligned and true word boundaries, in milliseconds, and the share within 50 ms."""

    utterances: int
    rejected: int
    median_ms: float
    mean_ms: float
    percentile_95_ms: float
    bias_ms: float
    within_50_ms: float


def check(manifest: Path, count: int, processes: int) -> BoundaryErrors:
    """Align the first `count` utterances of a synthetic corpus and compare with the synthesiser's own times."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()[:count]]
    recordings = [Recording(row["id"], manifest.parent / row["audio"], row["text"]) for row in rows]
    alignments = align_all(recordings, processes)
    errors = np.array(
        [
            (found_word.start - start, found_word.end - end)
            for row, found in zip(rows, alignments, strict=True)
            if not found.rejected
            for found_word, (_, start, end) in zip(found.words, row["words"], strict=True)
        ]
    )
    absolute = 1000 * np.abs(errors)
    return BoundaryErrors(
        utterances=len(rows),
        rejected=sum(found.rejected is not None for found in alignments),
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
    align_corpus(
        arguments.corpus, arguments.output, arguments.speaker, arguments.language, arguments.processes
    )


if __name__ == "__main__":
    run(main)
