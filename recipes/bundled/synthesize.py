"""Make a corpus of synthetic speech with word times: `python -m recipes.bundled.synthesize --help`.

Reads a JSONL file of texts (`id`, `text`), writes `audio/<id>.flac` (24 kHz mono, 16 bits) and `manifest.jsonl`
with `id, audio, text, speaker, language, split, words`, which `codec-slm tokenize` reads as it is.
"""

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from codec.foundation import UserError, write_text
from recipes.bundled.commands import run
from recipes.bundled.flite import VOICES, FliteSpeech, FliteVoice, TimedWord
from recipes.bundled.manifest import manifest_line

SAMPLING_RATE = 24000
TRAILING_SILENCE = 0.15
"""Seconds that are kept behind the last word."""

BATCH = 128


@dataclass(frozen=True)
class Task:
    """One utterance to make."""

    id: str
    text: str
    voice: str
    split: str
    directory: Path


@dataclass(frozen=True)
class Made:
    """What became of a task: its line of the manifest and its length, or why it failed."""

    line: str = ""
    seconds: float = 0.0
    failure: str | None = None


def read_texts(path: Path) -> list[tuple[str, str]]:
    """The (id, text) pairs of a JSONL file of texts."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(row["id"], row["text"]) for row in rows]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: not a file of texts, one JSON object with id and text a line ({error})"
        ) from error


def to_24_khz(speech: FliteSpeech) -> tuple[np.ndarray, list[TimedWord]]:
    """Flite's speech at 24 kHz, int16 `(samples,)`, cut `TRAILING_SILENCE` behind the last word; and its words."""
    end = min(
        len(speech.samples), math.ceil((speech.words[-1].end + TRAILING_SILENCE) * speech.sampling_rate)
    )
    waveform = torch.from_numpy(speech.samples[:end].astype(np.float32))
    waveform = torchaudio.functional.resample(waveform, speech.sampling_rate, SAMPLING_RATE)
    samples = waveform.round().clamp(-32768, 32767).to(torch.int16).numpy()
    last = len(samples) / SAMPLING_RATE
    return samples, [
        TimedWord(word.word, min(word.start, last), min(word.end, last)) for word in speech.words
    ]


_voices: dict[str, FliteVoice] = {}


def make(task: Task) -> Made:
    """Make one utterance's FLAC file."""
    voice = _voices.get(task.voice) or _voices.setdefault(task.voice, FliteVoice(task.voice))
    try:
        speech = voice.synthesize(task.text)
    except (ValueError, UnicodeEncodeError) as error:
        return Made(failure=f"{task.id}: {error}")
    samples, words = to_24_khz(speech)
    audio = f"audio/{task.id}.flac"
    soundfile.write(task.directory / audio, samples, SAMPLING_RATE, subtype="PCM_16")
    line = manifest_line(task.id, audio, task.text, voice.speaker, task.split, words)
    return Made(line, len(samples) / SAMPLING_RATE)


def synthesize(
    texts: Path, voice: str, output: Path, start: int, hours: float, validation: int, processes: int
) -> dict[str, float]:
    """Speak texts from number `start` on until there are `hours` of speech; returns what was made, in numbers.

    The first `validation` utterances are the validation split. The manifest appears last, by rename.
    """
    pairs = read_texts(texts)[start:]
    (output / "audio").mkdir(parents=True, exist_ok=True)
    made: list[Made] = []
    tasks = [
        Task(id_, text, voice, "validation" if number < validation else "train", output)
        for number, (id_, text) in enumerate(pairs)
    ]
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # In batches, so that little is made beyond the hours that were asked for.
        for first in range(0, len(tasks), BATCH):
            if sum(one.seconds for one in made) >= hours * 3600:
                break
            made += pool.map(make, tasks[first : first + BATCH], chunksize=16)
    write_text(output / "manifest.jsonl", "".join(one.line for one in made))
    failures = [one.failure for one in made if one.failure]
    for failure in failures:
        print(failure)
    return {
        "utterances": len(made) - len(failures),
        "hours": sum(one.seconds for one in made) / 3600,
        "failed": len(failures),
        "next text": start + len(made),
    }


def main() -> None:
    """Parse the command line and make the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("texts", type=Path, help="JSONL file of texts, from recipes.bundled.texts")
    parser.add_argument("output", type=Path, help="directory of the corpus")
    parser.add_argument("--voice", choices=VOICES, default="slt", help="Flite's voice")
    parser.add_argument("--start", type=int, default=0, help="number of the first text to speak")
    parser.add_argument("--hours", type=float, default=math.inf, help="stop when this much speech is made")
    parser.add_argument("--validation", type=int, default=30, help="utterances of the validation split")
    parser.add_argument("--processes", type=int, default=2, help="processes")
    arguments = vars(parser.parse_args())
    for name, value in synthesize(**arguments).items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    run(main)
