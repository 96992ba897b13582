"""Make a corpus of synthetic speech with word times: `python -m recipes.bundled.synthesize --help`.

Reads a JSONL file of texts (`id`, `text`, and `spoken` if that differs). Writes `audio/<id>.flac` (24 kHz mono, 16
bits) and `manifest.jsonl` with `id, audio, text, speaker, language, split, words`, which `codec-slm tokenize` reads.
Further fields are `spoken`, `seconds` and, from the neural readers, `phones` (`[[phone, start, end], ...]`). The
manifest grows with every utterance: the corpus can be used at once, and the same command continues it.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from codec.foundation import UserError, generator
from recipes.bundled.commands import run
from recipes.bundled.flite import VOICES
from recipes.bundled.readers import READERS, open_reader
from recipes.bundled.speech import Reader, Sentence, Speech, manifest_line

SAMPLING_RATE = 24000
TRAILING_SILENCE = 0.15
"""Seconds kept after the last word."""

BATCH = 128


@dataclass(frozen=True)
class Task:
    """One utterance to make."""

    id: str
    sentence: Sentence
    speaker: str
    split: str
    directory: Path
    seed: int


@dataclass(frozen=True)
class Made:
    """The result of a task: its manifest line and length, or why it failed."""

    line: str = ""
    seconds: float = 0.0
    failure: str | None = None


def read_texts(path: Path) -> list[tuple[str, Sentence]]:
    """The ids and sentences of a JSONL file of texts."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            (row["id"], Sentence(row["text"], tuple(row.get("spoken") or row["text"].split())))
            for row in rows
        ]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not a file of texts, one JSON object with id and text a line ({error})"
        ) from error


def to_24_khz(speech: Speech) -> Speech:
    """Speech at 24 kHz, cut `TRAILING_SILENCE` after the last word."""
    end = math.ceil((speech.words[-1].end + TRAILING_SILENCE) * speech.sampling_rate)
    waveform = torch.from_numpy(speech.samples[:end].astype(np.float32))
    waveform = torchaudio.functional.resample(waveform, speech.sampling_rate, SAMPLING_RATE)
    samples = waveform.round().clamp(-32768, 32767).to(torch.int16).numpy()
    last = len(samples) / SAMPLING_RATE
    words = [replace(one, start=min(one.start, last), end=min(one.end, last)) for one in speech.words]
    phones = speech.phones
    if phones is not None:
        phones = [replace(one, end=min(one.end, last)) for one in phones if one.start < last]
    return Speech(samples, SAMPLING_RATE, words, phones)


_reader: Reader


def _open(name: str, voice: str, speakers: Sequence[str]) -> None:
    """Load this process's reader."""
    global _reader
    torch.set_num_threads(1)
    _reader = open_reader(name, voice, speakers)


def make(task: Task) -> Made:
    """Make one utterance's FLAC file."""
    try:
        speech = _reader.synthesize(task.sentence, task.speaker, generator(task.seed, "voice", task.id))
    except (ValueError, UnicodeEncodeError) as error:
        return Made(failure=f"{task.id}: {error}")
    speech = to_24_khz(speech)
    audio = f"audio/{task.id}.flac"
    soundfile.write(task.directory / audio, speech.samples, SAMPLING_RATE, subtype="PCM_16")
    line = manifest_line(
        task.id,
        audio,
        task.sentence.text,
        task.speaker,
        task.split,
        speech.words,
        phones=speech.phones,
        spoken=" ".join(task.sentence.spoken),
        seconds=round(speech.seconds, 4),
    )
    return Made(line, speech.seconds)


def speaker_of(speakers: Sequence[str], number: int, seed: int) -> str:
    """The reader of text `number`: every round of speakers has a new random order."""
    turn, place = divmod(number, len(speakers))
    return speakers[int(generator(seed, "speakers", turn).permutation(len(speakers))[place])]


def read_done(manifest: Path) -> dict[str, float]:
    """Seconds of each utterance in the manifest; removes an incomplete last line from the file."""
    if not manifest.exists():
        return {}
    content = manifest.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        manifest.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["id"]: row["seconds"] for row in rows}


def _made(tasks: Iterable[Task], processes: int, reader: tuple[str, str, Sequence[str]]) -> Iterator[Made]:
    if processes == 1:
        _open(*reader)
        yield from map(make, tasks)
        return
    with ProcessPoolExecutor(processes, initializer=_open, initargs=reader) as pool:
        # In batches, so that little is made beyond the hours wanted.
        remaining = iter(tasks)
        while batch := list(islice(remaining, BATCH)):
            yield from pool.map(make, batch, chunksize=16)


def synthesize(
    texts: Path,
    reader: str,
    voice: str,
    speakers: Sequence[str],
    output: Path,
    start: int,
    hours: float,
    validation: int,
    processes: int,
    seed: int,
) -> dict[str, float]:
    """Speak texts from number `start` on until there are `hours` of speech; returns the corpus's size.

    The first `validation` texts are the validation split. Utterances in the manifest are not made again.
    """
    pairs = read_texts(texts)[start:]
    (output / "audio").mkdir(parents=True, exist_ok=True)
    manifest = output / "manifest.jsonl"
    done = read_done(manifest)
    seconds, count, failures, last = sum(done.values()), len(done), 0, 0
    names = tuple(open_reader(reader, voice, speakers).speakers)
    numbers = [number for number, (id_, _) in enumerate(pairs) if id_ not in done]
    tasks = (
        Task(
            *pairs[number],
            speaker=speaker_of(names, number, seed),
            split="validation" if number < validation else "train",
            directory=output,
            seed=seed,
        )
        for number in numbers
    )
    with open(manifest, "a", encoding="utf-8") as file:
        results = _made(tasks if seconds < hours * 3600 else [], processes, (reader, voice, speakers))
        for number, one in zip(numbers, results, strict=False):
            last = number
            if one.failure:
                failures += 1
                print(one.failure, flush=True)
                continue
            file.write(one.line)
            file.flush()
            seconds, count = seconds + one.seconds, count + 1
            if seconds >= hours * 3600:
                break
    return {
        "utterances": count,
        "hours": seconds / 3600,
        "failed": failures,
        "next text": start + max(last + 1, len(done)),
    }


def main() -> None:
    """Parse the command line and make the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("texts", type=Path, help="JSONL file of texts, from recipes.bundled.texts")
    parser.add_argument("output", type=Path, help="directory of the corpus")
    parser.add_argument("--reader", choices=READERS, default="flite", help="who reads")
    parser.add_argument("--voice", choices=VOICES, default="slt", help="Flite's voice")
    parser.add_argument(
        "--speakers", nargs="*", default=[], help="Kokoro's voices, by name; none: all that are for training"
    )
    parser.add_argument("--start", type=int, default=0, help="number of the first text to speak")
    parser.add_argument("--hours", type=float, default=math.inf, help="stop when this much speech is made")
    parser.add_argument("--validation", type=int, default=30, help="utterances of the validation split")
    parser.add_argument("--processes", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=1, help="of speeds, noise, and who reads what")
    arguments = vars(parser.parse_args())
    for name, value in synthesize(**arguments).items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    run(main)
