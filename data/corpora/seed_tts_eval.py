"""The Seed-TTS-eval layout: lists of `id|prompt text|prompt recording|text` or, with the true recording last,
`id|prompt text|prompt recording|text|recording`; paths are relative to the list.

`<language>/meta.lst` is the test set; other lists (`hardcase.lst`, `non_para_reconstruct_meta.lst`) are read when they
are given by name. All of it is for testing.
"""

from pathlib import Path

from codec.foundation import UserError
from data.corpora.reading import Reading, bad_utterance
from data.corpora.utterance import Prompt, Utterance

_LIST = "meta.lst"
_LANGUAGES = ("en", "zh")


def seed_tts_lists(path: Path) -> list[Path]:
    """`meta.lst` in a directory, or in its folders; the list itself when that is given; empty if there is none."""
    if path.is_file():
        return [path]
    if (path / _LIST).is_file():
        return [path / _LIST]
    return sorted(folder / _LIST for folder in path.iterdir() if (folder / _LIST).is_file())


def read_seed_tts_eval(path: Path, reading: Reading) -> list[Utterance]:
    """Texts to say, each with a recording of it and a prompt that gives the voice.

    `text` and `path` are the target's; `prompt` is another recording of that speaker and its text. Without a fifth
    column the target's recording is `wavs/<id>.wav` beside the list, as published; where that is missing (it is for
    the hard cases), reading it is a failure that gets counted. The language is the folder's name. A line of
    other columns has a `BadRow` as audio.
    """
    lists = seed_tts_lists(path)
    if not lists:
        raise UserError(f"{path}: no {_LIST} in it: Seed-TTS-eval has en/{_LIST} and zh/{_LIST}")
    return [utterance for file in lists for utterance in _read_list(file, reading)]


def _read_list(path: Path, reading: Reading) -> list[Utterance]:
    language = path.resolve().parent.name
    utterances = []
    for number, line in reading.lines(path):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("|")]
        if len(columns) not in (4, 5) or not all(columns):
            reason = (
                f"{path}, line {number}: expected `id|prompt text|prompt recording|text` and perhaps `|recording`, "
                f"found {line[:60]!r}"
            )
            utterances.append(bad_utterance(f"{path.stem}-line-{number}", reason, "test"))
            continue
        identity, prompt_text, prompt, text, *recording = columns
        reading.used["text"] = {"the fourth": None}
        identity = identity.removesuffix(".wav")
        utterances.append(
            Utterance(
                id=identity,
                path=str(path.parent / (recording[0] if recording else f"wavs/{identity}.wav")),
                text=text,
                language=language if language in _LANGUAGES else None,
                split="test",
                prompt=Prompt(str(path.parent / prompt), prompt_text),
            )
        )
    return utterances
