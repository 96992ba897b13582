"""The VCTK layout: `wav48_silence_trimmed/<speaker>/<utterance>_mic1.flac` (0.92) or `wav48/<speaker>/<utterance>.wav`
(0.80), and `txt/<speaker>/<utterance>.txt`.

VCTK has no official split. Two speakers each are held out, those that speech enhancement made customary with the
VoiceBank+DEMAND corpus, which is drawn from VCTK: p226 and p287 for validation, p232 and p257 for testing.
All speakers read some of the same sentences.
"""

import os
import re
from pathlib import Path

from codec.foundation import UserError
from data.corpora.reading import Reading, bad_utterance
from data.corpora.utterance import Utterance
from data.decoding import AudioError
from data.recordings import AUDIO_EXTENSIONS

_RECORDINGS = ("wav48_silence_trimmed", "wav48")  # the better first, where both are
_SPEAKER = re.compile(r"[ps]\d+")  # p225 ... p376, s5
_MICROPHONE = re.compile(r"(?P<utterance>.+?)(?:_mic(?P<number>\d+))?")
_HELD_OUT = {"p226": "validation", "p287": "validation", "p232": "test", "p257": "test"}


def vctk_root(path: Path) -> Path | None:
    """The folder that holds the recordings' folder: `path`, or one in it; None if there is none."""
    candidates = [path, *sorted(entry for entry in path.iterdir() if entry.is_dir())]
    return next((c for c in candidates if (c / "txt").is_dir() and _recordings(c) is not None), None)


def read_vctk(path: Path, reading: Reading) -> list[Utterance]:
    """Every utterance once, from the first microphone (the second is missing for two speakers).

    A recording without a transcript (all of p315's) has no text. Raises UserError when the layout is another.
    """
    root = vctk_root(path)
    recordings = _recordings(root) if root is not None else None
    if root is None or recordings is None:
        raise UserError(
            f"{path}: the VCTK layout is {' or '.join(f'{name}/<speaker>/' for name in _RECORDINGS)} beside "
            "txt/<speaker>/, which is not here"
        )
    utterances = []
    for folder in sorted(entry for entry in recordings.iterdir() if _SPEAKER.fullmatch(entry.name)):
        split = _HELD_OUT.get(folder.name, "train")
        for name in sorted(os.listdir(folder)):
            stem, extension = os.path.splitext(name)
            found = _MICROPHONE.fullmatch(stem)
            if extension.lower() not in AUDIO_EXTENSIONS or name.startswith(".") or found is None:
                continue
            if found["number"] not in (None, "1"):
                continue
            identity = found["utterance"]
            written = root / "txt" / folder.name / f"{identity}.txt"
            try:
                text = " ".join((reading.transcript(written) or "").split()) if written.is_file() else None
            except AudioError as error:
                utterances.append(bad_utterance(identity, str(error), split))
                continue
            if text:
                reading.used["text"] = {"txt/": None}
            utterances.append(Utterance(identity, str(folder / name), text or None, folder.name, "en", split))
    transcripts = {path.stem for path in (root / "txt").glob("*/*.txt")}
    reading.left_out["transcripts without a recording"] += len(transcripts - {one.id for one in utterances})
    return utterances


def _recordings(root: Path) -> Path | None:
    for name in _RECORDINGS:
        folder = root / name
        if folder.is_dir() and any(_SPEAKER.fullmatch(entry.name) for entry in folder.iterdir()):
            return folder
    return None
