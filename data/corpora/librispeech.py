"""The layouts of LibriSpeech and LibriTTS: `<subset>/<speaker>/<chapter>/<utterance>.flac` (or .wav).

Texts are in `<speaker>-<chapter>.trans.txt` (LibriSpeech) or in `<utterance>.normalized.txt` (LibriTTS, LibriTTS-R;
`<utterance>.original.txt` has numbers and abbreviations as printed, and is read only where the other is missing).
Subsets are train-clean-100, dev-clean, test-other and the like, which name the official splits.
"""

from pathlib import Path

from codec.foundation import UserError
from data.corpora.reading import Reading
from data.corpora.utterance import Utterance, split_name
from data.recordings import AUDIO_EXTENSIONS

_UNPACKED = ("LibriSpeech", "LibriTTS", "LibriTTS_R")
_TEXTS = (".original.txt", ".normalized.txt")  # the better last


def librispeech_subsets(root: Path) -> list[Path]:
    """The folders named like `train-clean-100` or `dev-other`; empty if there are none.

    They lie in `root`, or in its `LibriSpeech` as the archives unpack, or `root` itself is one.
    """
    folders = [root, *(root / name for name in _UNPACKED if (root / name).is_dir())]
    candidates = [root, *sorted(path for folder in folders for path in folder.iterdir() if path.is_dir())]
    return [path for path in candidates if split_name(path.name) and "-" in path.name and _has_chapters(path)]


def read_librispeech(root: Path, reading: Reading) -> list[Utterance]:
    """Every utterance of every subset; speaker and split from the folders' names, the language is English.

    Raises UserError when no subset is there.
    """
    subsets = librispeech_subsets(root)
    if not subsets:
        raise UserError(
            f"{root}: no folder of LibriSpeech's layout (train-clean-100/<speaker>/<chapter>/) in it"
        )
    utterances = []
    for subset in subsets:
        split = split_name(subset.name)
        assert split is not None
        for chapter in sorted(subset.glob("*/*/")):
            texts = _chapter_texts(chapter, reading)
            utterances += [
                Utterance(path.stem, str(path), texts.pop(path.stem, None), chapter.parent.name, "en", split)
                for path in chapter.iterdir()
                if path.suffix.lower() in AUDIO_EXTENSIONS and not path.name.startswith(".")
            ]
            reading.left_out["transcripts without a recording"] += len(texts)
    return utterances


def _chapter_texts(chapter: Path, reading: Reading) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in chapter.glob("*.trans.txt"):
        for _, line in reading.lines(path):
            identity, _, text = line.strip().partition(" ")
            if text:
                reading.left_out["transcripts of an id that has another"] += identity in texts
                texts[identity] = text
                reading.used.setdefault("text", {})["*.trans.txt"] = None
    for suffix in _TEXTS:
        for path in chapter.glob(f"*{suffix}"):
            if text := " ".join(reading.text(path).split()):
                texts[path.name.removesuffix(suffix)] = text
                reading.used.setdefault("text", {})[f"*{suffix}"] = None
    return texts


def _has_chapters(subset: Path) -> bool:
    """Whether a folder holds <speaker>/<chapter>/, both of which are numbers in these corpora."""
    return any(
        chapter.is_dir() and chapter.name.isdigit() and chapter.parent.name.isdigit()
        for chapter in subset.glob("*/*")
    )
