"""A folder of audio files, at any depth; a transcript may lie beside a file as `<name>.txt` or `<name>.lab`."""

import os
from collections.abc import Iterator
from pathlib import Path

from data.corpora.reading import Reading, bad_utterance, is_text_file
from data.corpora.utterance import Utterance, split_name
from data.decoding import AudioError, ffmpeg_program, printable
from data.recordings import AUDIO_EXTENSIONS, FFMPEG_EXTENSIONS

_TRANSCRIPTS = (".txt", ".lab")
ARCHIVES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar"})


def read_folder(root: Path, reading: Reading) -> list[Utterance]:
    """Every audio file below `root`; ids are paths without extension.

    All is training data, unless all files lie in folders that are named by splits, two at least.
    """
    texts: set[Path] = set()
    utterances = []
    files = list(audio_files(root, reading, texts))
    tops = {path.relative_to(root).parts[0] if path.parent != root else "" for path in files}
    by_folder = len(tops) > 1 and all(split_name(top) for top in tops)
    for path in files:
        relative = path.relative_to(root)
        identity = printable(relative.with_suffix("").as_posix())
        split = (split_name(relative.parts[0]) if by_folder else None) or "train"
        names = (path.with_suffix(case(suffix)) for suffix in _TRANSCRIPTS for case in (str.lower, str.upper))
        beside = next((file for file in names if file in texts), None)
        try:
            text = reading.transcript(beside) if beside is not None else None
        except AudioError as error:
            utterances.append(bad_utterance(identity, str(error), split))
            continue
        if beside is not None:
            texts.discard(beside)
            reading.used.setdefault("text", {})[f"{beside.suffix.lower()} files"] = None
        utterances.append(Utterance(identity, str(path), text, split=split))
    reading.text_files.update(path.suffix.lower() or path.name for path in texts)
    reading.left_out.update(
        f"{path.suffix.lower()} files without a recording of the same name"
        for path in texts
        if path.suffix.lower() in _TRANSCRIPTS
    )
    return utterances


def audio_files(root: Path, reading: Reading | None = None, texts: set[Path] | None = None) -> Iterator[Path]:
    """Audio files below `root` by extension, sorted; hidden files and folders are skipped.

    Links to folders are followed, but no folder is read twice. Files that only ffmpeg reads count where it is
    installed. `reading` learns what was left out, and `texts` which files may hold transcripts.
    """
    wanted = AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS if ffmpeg_program() else AUDIO_EXTENSIONS
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    while waiting:
        links: list[str] = []
        for start in waiting:
            for folder, folders, names in os.walk(start):
                about = os.stat(folder)
                if (about.st_dev, about.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((about.st_dev, about.st_ino))
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
                for name in names:
                    suffix = os.path.splitext(name)[1].lower()
                    if name.startswith("."):
                        continue
                    if suffix in wanted:
                        found.append(Path(folder, name))
                    elif reading is not None and suffix in FFMPEG_EXTENSIONS:
                        reading.left_out[f"{suffix} files, for ffmpeg is not installed"] += 1
                    elif reading is not None and suffix in ARCHIVES:
                        reading.left_out[f"{suffix} files, which are not unpacked"] += 1
                    elif texts is not None and is_text_file(name):
                        texts.add(Path(folder, name))
                    elif reading is not None:
                        reading.left_out[f"{suffix or '(no extension)'} files, which no reader knows"] += 1
        waiting = links  # after all that is no link
    # Files of a folder before its folders.
    yield from sorted(found, key=lambda path: [(1, part) for part in path.parts[:-1]] + [(0, path.name)])
