"""Kaldi's data folders (`data/train/`): `wav.scp` beside `text`, `utt2spk`, `utt2lang` and `segments`, if there.

A line is an id and a value. `segments` says which stretch of which recording an utterance is: recording, start and end
in seconds, perhaps a channel. A recording that is a command (`sph2pipe a.sph |`) is a failure: no command is run.
"""

from collections.abc import Iterator
from pathlib import Path

from codec.foundation import UserError
from data.corpora.manifest import RecordingsFolder
from data.corpora.reading import Reading, bad_utterance
from data.corpora.utterance import Utterance, split_name

_RECORDINGS = "wav.scp"


def kaldi_folders(path: Path) -> list[Path]:
    """`path` if it is such a folder, else those in it, or in the `data/` in it."""
    if (path / _RECORDINGS).is_file():
        return [path]
    return sorted(file.parent for where in ("*", "data/*") for file in path.glob(f"{where}/{_RECORDINGS}"))


def read_kaldi(path: Path, reading: Reading) -> Iterator[Utterance]:
    """The utterances of all folders; the splits are from their names. Raises UserError where there are none."""
    folders = kaldi_folders(path.parent if path.is_file() else path)
    if not folders:
        raise UserError(f"{path}: Kaldi's layout is {_RECORDINGS} beside text and utt2spk: not here")
    for folder in folders:
        yield from _read(folder, reading)


def _read(folder: Path, reading: Reading) -> Iterator[Utterance]:
    split = split_name(folder.name) or "train"
    listed, segments = _lines(folder / _RECORDINGS, reading), _lines(folder / "segments", reading)
    texts, speakers, languages = (dict(_lines(folder / n, reading)) for n in ("text", "utt2spk", "utt2lang"))
    recordings, base, used = dict(listed), RecordingsFolder(folder), set[str]()
    for identity, segment in segments or [(identity, "") for identity, _ in listed]:
        name, *times = segment.split() or [identity]
        audio, text = recordings.get(name), texts.pop(identity, None)
        used.add(name)
        wrong = None
        if audio is None:
            wrong = f"no recording {name} in {_RECORDINGS}"
        elif audio.endswith("|"):
            wrong = f"its recording is a command, which is not run ({audio})"
        elif segments and len(times) not in (2, 3):
            wrong = f"expected recording, start, end, found {segment!r}"
        if audio is None or wrong is not None:
            yield bad_utterance(identity, f"{folder}, {identity}: {wrong}", split)
            continue
        row = {
            "id": identity,
            _RECORDINGS: audio,
            "text": text,
            **dict(zip(("start", "end"), times, strict=False)),
        }
        row |= {"speaker": speakers.get(identity), "language": languages.get(identity)}
        reading.used.setdefault("audio", {})[_RECORDINGS] = None
        channel = int(times[2]) if times[2:] and times[2].isdigit() else None
        source, place = base.path(audio), f"{folder}, {identity}"
        utterance = reading.utterance(row, source, identity, split, place, channel=channel)
        if utterance is not None:
            yield utterance
    reading.left_out["lines of text without an utterance"] += len(texts)
    reading.left_out["recordings without a segment"] += len(recordings.keys() - used)


def _lines(path: Path, reading: Reading) -> list[tuple[str, str]]:
    """Id and value of each line; none of a file that is not there."""
    lines = (line.split(maxsplit=1) for _, line in reading.lines(path)) if path.is_file() else ()
    return [(words[0], words[1].strip() if words[1:] else "") for words in lines if words]
