"""Make the sample corpus of the quickstart: `python -m recipes.bundled.sample_corpus OUTPUT`.

Forty sentences of our own (`sample_sentences.txt`) by two Flite voices in turn, in LJSpeech's layout: `metadata.csv`,
`wavs/<voice>-<number>.flac`, `train.txt`, `dev.txt`. That layout knows neither speakers nor word times, so a
`manifest.jsonl` beside it tells them; `data.open_corpus` reads the manifest where there is one.
"""

import argparse
from pathlib import Path

import soundfile

from codec.foundation import whole_directory, write_text
from recipes.bundled.commands import run
from recipes.bundled.flite import FliteVoice
from recipes.bundled.speech import manifest_line
from recipes.bundled.synthesize import SAMPLING_RATE, to_24_khz

SENTENCES = Path(__file__).parent / "sample_sentences.txt"
VOICES = ("slt", "rms")
DEV_EVERY = 5
"""Every fifth sentence of a voice is development data."""

README = """# Sample corpus

Forty short sentences, spoken by two synthetic voices: `slt` (a woman) and `rms` (a man), both US English.
24 kHz mono FLAC (the voices themselves are 16 kHz), LJSpeech layout: `metadata.csv` is `id|text|normalised text`,
audio is at `wavs/<id>.flac`, `train.txt` and `dev.txt` list the splits. `manifest.jsonl` says the same again with
the speakers and with word times, as the synthesiser knows them.

Made with CMU Flite 2.2 by `python -m recipes.bundled.sample_corpus`. The sentences are our own. Flite and its voices
are free software under CMU's licence, which puts no condition on the speech that they produce.
Text and audio of this folder: CC0 1.0, dedicated to the public domain.
"""


def make_sample_corpus(output: Path) -> None:
    """Write the corpus to `output`, all or nothing; what is there already is replaced."""
    voices = [FliteVoice(name) for name in VOICES]
    metadata, manifest = [], []
    split_ids: dict[str, list[str]] = {"train": [], "dev": []}
    with whole_directory(output) as directory:
        (directory / "wavs").mkdir()
        for number, text in enumerate(SENTENCES.read_text(encoding="utf-8").splitlines()):
            voice, count = voices[number % len(voices)], number // len(voices) + 1
            id_ = f"{voice.name}-{count:04d}"
            speech = to_24_khz(voice.synthesize(text))
            audio = f"wavs/{id_}.flac"
            soundfile.write(directory / audio, speech.samples, SAMPLING_RATE, subtype="PCM_16")
            split_ids["train" if count % DEV_EVERY else "dev"].append(id_)
            metadata.append(f"{id_}|{text}|{text}\n")
            split = "train" if count % DEV_EVERY else "validation"
            manifest.append(manifest_line(id_, audio, text, voice.speaker, split, speech.words))
        write_text(directory / "metadata.csv", "".join(sorted(metadata)))
        write_text(directory / "manifest.jsonl", "".join(sorted(manifest)))
        for split, ids in split_ids.items():
            write_text(directory / f"{split}.txt", "".join(f"{id_}\n" for id_ in sorted(ids)))
        write_text(directory / "README.md", README)


def main() -> None:
    """Parse the command line and make the corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="directory of the corpus")
    make_sample_corpus(parser.parse_args().output)


if __name__ == "__main__":
    run(main)
