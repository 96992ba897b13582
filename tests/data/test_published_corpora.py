"""Corpora as they are published: miniatures of their layouts, their texts, speakers and splits."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.foundation import UserError
from data import Prompt, Utterance, audio_info, open_corpus, read_audio
from data.config import CorpusFormat

NOISE = np.random.default_rng(3).integers(-8000, 8000, size=4800).astype(np.int16)


def write_audio_file(path: Path, samples: np.ndarray = NOISE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 24000)
    return str(path)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_vctk(tmp_path: Path) -> None:
    root = tmp_path / "VCTK-Corpus-0.92"
    folder = root / "wav48_silence_trimmed"
    for speaker in ("p225", "p226", "p257", "s5"):
        for microphone in (1, 2):
            write_audio_file(folder / speaker / f"{speaker}_001_mic{microphone}.flac")
        write(root / "txt" / speaker / f"{speaker}_001.txt", f"Please call {speaker}.\n")
    untold = write_audio_file(folder / "p315" / "p315_002_mic1.flac")
    write(folder / "log.txt", "p225_001_mic1 ...\n")
    write(root / "txt" / "p225" / "p225_009.txt", "Nobody says this.\n")
    for path in (root, tmp_path):  # the folder itself, or what it was unpacked into
        corpus = open_corpus(path)
        assert corpus.format == "vctk"
        assert [(u.id, u.text, u.speaker, u.language, u.split) for u in corpus.utterances] == [
            ("p225_001", "Please call p225.", "p225", "en", "train"),
            ("p226_001", "Please call p226.", "p226", "en", "validation"),
            ("p257_001", "Please call p257.", "p257", "en", "test"),
            ("p315_002", None, "p315", "en", "train"),
            ("s5_001", "Please call s5.", "s5", "en", "train"),
        ]
    assert corpus.noticed.left_out == {"transcripts without a recording": 1}
    assert corpus.utterances[3].path == untold
    assert Path(str(corpus.utterances[0].path)).name == "p225_001_mic1.flac"


def test_vctk_0_80(tmp_path: Path) -> None:
    audio = write_audio_file(tmp_path / "wav48" / "p225" / "p225_001.wav")
    write(tmp_path / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    assert open_corpus(tmp_path).utterances == [
        Utterance("p225_001", audio, "Please call Stella.", "p225", "en")
    ]


def emilia_row(identity: str, wav: str) -> dict[str, object]:
    return {
        "id": identity,
        "wav": wav,
        "text": " And then, so-",
        "duration": 0.2,
        "speaker": identity.rpartition("_")[0],
        "language": "en",
        "dnsmos": 3.29,
    }


def test_emilia_in_its_three_forms(tmp_path: Path) -> None:
    ids = [f"EN_B00000_S00000_W{number:06d}" for number in range(3)]
    pairs = tmp_path / "pairs" / "EN"
    for number, identity in enumerate(ids):
        write_audio_file(pairs / f"{identity}.mp3", np.roll(NOISE, 100 * number))
        write(pairs / f"{identity}.json", json.dumps(emilia_row(identity, f"{identity}.mp3")))
    shards = tmp_path / "Emilia" / "EN"
    shards.mkdir(parents=True)
    for shard, members in (("EN-B000000.tar", ids[:2]), ("EN-B000001.tar", ids[2:])):
        with tarfile.open(shards / shard, "w") as archive:
            for suffix in (".json", ".mp3"):  # not even beside each other
                for identity in members:
                    archive.add(pairs / f"{identity}{suffix}", f"{identity}{suffix}")
    batch = tmp_path / "batches" / "EN"
    rows = [emilia_row(i, f"EN_B00000/EN_B00000_S00000/mp3/{i}.mp3") for i in ids]
    write(batch / "EN_B00000.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for row, identity in zip(rows, ids, strict=True):
        (batch / str(row["wav"])).parent.mkdir(parents=True, exist_ok=True)
        (batch / str(row["wav"])).write_bytes((pairs / f"{identity}.mp3").read_bytes())

    corpora = [open_corpus(path) for path in (tmp_path / "Emilia", pairs, tmp_path / "batches")]
    assert [corpus.format for corpus in corpora] == ["emilia"] * 3
    for corpus in corpora:
        assert "text" in corpus.noticed.used and "dnsmos" in corpus.noticed.ignored
    assert len({corpus.content_hash() for corpus in corpora}) == 1
    for archived, single, batched in zip(*(corpus.utterances for corpus in corpora), strict=True):
        assert (archived.text, archived.speaker, archived.language, archived.split) == (
            "And then, so-", "EN_B00000_S00000", "en", "train",
        )  # fmt: skip
        assert audio_info(archived.path) == audio_info(single.path)
        for other in (single, batched):
            np.testing.assert_array_equal(
                read_audio(archived.path, 24000).numpy(), read_audio(other.path, 24000).numpy()
            )
    assert [u.id for u in open_corpus(shards / "EN-B000001.tar").utterances] == ids[2:]
    assert str(corpora[0].utterances[0].path) == f"{shards / 'EN-B000000.tar'}, {ids[0]}.mp3"


def test_emilia_that_is_broken(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    for number, text in enumerate(["fine", ["no", "text"]]):
        write_audio_file(pairs / f"EN_B00000_S00000_W00000{number}.mp3")
        write(pairs / f"EN_B00000_S00000_W00000{number}.json", json.dumps({"text": text}))
    write_audio_file(pairs / "EN_B00000_S00000_W000009.mp3")
    corpus = open_corpus(pairs)
    assert [u.text for u in corpus.utterances] == ["fine", None]
    assert "its text is no text" in str(corpus.utterances[1].path)
    assert corpus.noticed.left_out == {"recordings without a JSON file of the same name": 1}
    shutil.rmtree(pairs)
    content = write_audio_file(tmp_path / "a.flac")
    with tarfile.open(tmp_path / "EN-B000000.tar", "w") as archive:
        archive.add(content, "EN_B00000_S00000_W000000.flac")
        archive.add(content, "EN_B00000_S00000_W000000.json")
    with pytest.raises(UserError, match=r"EN-B000000\.tar, EN_B00000_S00000_W000000\.json: not JSON"):
        open_corpus(tmp_path)
    whole = (tmp_path / "EN-B000000.tar").read_bytes()
    (tmp_path / "EN-B000000.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UserError, match=r"not an uncompressed tar file, or a broken one"):
        open_corpus(tmp_path)
    (tmp_path / "EN-B000000.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(UserError, match=r"unpack it, or fetch it again"):
        open_corpus(tmp_path)


def test_seed_tts_eval_lists_targets_with_their_prompts(tmp_path: Path) -> None:
    english, chinese = tmp_path / "en", tmp_path / "zh"
    prompt = write_audio_file(english / "prompt-wavs" / "a.wav")
    target = write_audio_file(english / "wavs" / "a-b.wav")
    write(english / "meta.lst", "a-b|We asked.|prompt-wavs/a.wav|Get the bank.\n")
    write(english / "non_para_reconstruct_meta.lst", "c|We asked.|prompt-wavs/a.wav|It is.|wavs/a-b.wav\n")
    write(chinese / "meta.lst", "1-2|你好。|prompt-wavs/1.wav|再见。\n")
    corpus = open_corpus(tmp_path)
    assert corpus.format == "seed-tts-eval" and corpus.splits == {"test": 2}
    assert corpus.utterances[1] == Utterance(
        "a-b", target, "Get the bank.", None, "en", "test", prompt=Prompt(prompt, "We asked.")
    )
    assert (corpus.utterances[0].language, corpus.utterances[0].prompt) == (
        "zh",
        Prompt(str(chinese / "prompt-wavs" / "1.wav"), "你好。"),
    )
    (other,) = open_corpus(english / "non_para_reconstruct_meta.lst").utterances
    assert (other.id, other.path, other.language) == ("c", target, "en")
    before = open_corpus(english).content_hash()
    write(english / "meta.lst", "a-b|We ask.|prompt-wavs/a.wav|Get the bank.\n")
    assert open_corpus(english).content_hash() != before
    write(english / "meta.lst", "a-b|We asked.|prompt-wavs/a.wav\n")
    with pytest.raises(UserError, match=r"meta\.lst, line 1: expected `id\|prompt text"):
        open_corpus(english)


def test_libritts_as_unpacked(tmp_path: Path) -> None:
    chapter = tmp_path / "LibriTTS" / "test-clean" / "61" / "70968"
    names = ["61_70968_000000_000000", "61_70968_000003_000001"]
    for name in names:
        write_audio_file(chapter / f"{name}.wav")
        write(chapter / f"{name}.original.txt", "Nr. 5,\nhe said.\n")
    write(chapter / f"{names[0]}.normalized.txt", "Number five, he said.\n")
    write(chapter / "61_70968.trans.tsv", f"{names[0]}\tNr. 5\tNumber five\n")
    write(tmp_path / "LibriTTS" / "speakers.tsv", "READER\tGENDER\n")
    corpus = open_corpus(tmp_path)
    assert corpus.format == "librispeech"
    assert [(u.id, u.text, u.speaker, u.split) for u in corpus.utterances] == [
        (names[0], "Number five, he said.", "61", "test"),
        (names[1], "Nr. 5, he said.", "61", "test"),
    ]


def test_ljspeech_as_published_is_split_by_chapter(tmp_path: Path) -> None:
    ids = ["LJ001-0001", "LJ048-0289", "LJ049-0001", "LJ050-0278"]
    write(tmp_path / "metadata.csv", "".join(f"{i}|Dr. {i}|Doctor {i}\n" for i in ids))
    for identity in ids:
        write_audio_file(tmp_path / "wavs" / f"{identity}.wav")
    write(tmp_path / "README", "The LJ Speech Dataset")
    splits = {u.id: u.split for u in open_corpus(tmp_path).utterances}
    assert splits == dict(zip(ids, ["train", "train", "validation", "test"], strict=True))
    write(tmp_path / "dev.txt", "LJ001-0001\n")  # a split of one's own takes its place
    assert [u.split for u in open_corpus(tmp_path).utterances] == ["validation", "train", "train", "train"]


@pytest.mark.parametrize("format", ["vctk", "emilia", "seed-tts-eval", "librispeech", "ljspeech"])
def test_another_layout_is_told_in_one_line(tmp_path: Path, format: CorpusFormat) -> None:
    write_audio_file(tmp_path / "folder" / "a.wav")
    with pytest.raises(UserError) as told:
        open_corpus(tmp_path, format=format)
    assert str(tmp_path) in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("kathleen/manifest.jsonl", "kathleen"),
        ("kathleen/train.jsonl", "kathleen"),
        ("lists/kathleen.jsonl", "kathleen"),
    ],
)
def test_a_manifest_is_named_by_what_tells_it_apart(tmp_path: Path, file: str, name: str) -> None:
    assert open_corpus(write(tmp_path / file, '{"audio": "a.wav"}\n')).name == name
