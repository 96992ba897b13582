"""Do the voices of a corpus differ? `python -m recipes.bundled.check_voices corpus/manifest.jsonl`.

A row for each speaker: hours, median F0, DistillMOS, the Resemblyzer similarity of two halves of its recordings, and
the most similar other speaker. A voice is distinct when the first similarity is larger than the second.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.foundation import UserError
from codec.metrics import distill_mos, open_embedder
from codec.metrics.prosody import f0_track
from data import Utterance, audio_info, open_corpus, read_audio
from recipes.bundled.commands import run

RATE = 24000


def table(utterances: Sequence[Utterance], each: int) -> list[str]:
    """The lines of the table, sorted by F0; it looks at `each` recordings of a speaker."""
    spoken: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        spoken[str(utterance.speaker)].append(utterance)
    embedder = open_embedder("resemblyzer")
    rows: dict[str, tuple[float, float, float, float]] = {}  # hours, F0, DistillMOS, similarity of the halves
    voices: dict[str, Tensor] = {}
    for speaker, theirs in spoken.items():
        waveforms = [read_audio(utterance.path, RATE) for utterance in theirs[:each]]
        f0 = np.concatenate([f0_track(waveform, RATE) for waveform in waveforms])
        first, second = (embedder.embed(half, RATE) for half in torch.cat(waveforms).chunk(2))
        if first is None or second is None:
            raise UserError(f"{speaker} says too little: give more recordings with --each")
        voices[speaker] = torch.nn.functional.normalize(first + second, dim=0)
        rows[speaker] = (
            sum(audio_info(utterance.path).seconds for utterance in theirs) / 3600,
            float(np.median(f0[f0 > 0])),
            float(np.mean([distill_mos(waveform, RATE) for waveform in waveforms])),
            float(first @ second),
        )
    lines = [
        "| voice | hours | median F0 (Hz) | DistillMOS | similarity with itself | most similar |",
        "|---|---|---|---|---|---|",
    ]
    for name, (hours, hertz, opinion, itself) in sorted(rows.items(), key=lambda row: row[1][1]):
        others = {other: float(voices[name] @ voices[other]) for other in voices if other != name}
        nearest = max(others, key=others.__getitem__, default=None)
        similar = "" if nearest is None else f"{nearest} ({others[nearest]:.2f})"
        lines.append(f"| {name} | {hours:.2f} | {hertz:.0f} | {opinion:.2f} | {itself:.2f} | {similar} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="+", help="corpora with speakers")
    parser.add_argument("--each", type=int, default=4, help="recordings of every speaker (default: 4)")
    arguments = parser.parse_args()
    utterances = [one for corpus in arguments.corpora for one in open_corpus(Path(corpus)).utterances]
    print("\n".join(table(utterances, arguments.each)))


if __name__ == "__main__":
    run(main)
