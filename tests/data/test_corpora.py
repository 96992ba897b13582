"""Every layout becomes the same sorted list of utterances; what is none is told so in words."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.foundation import UserError
from data import AudioError, Utterance, Word, audio_info, open_corpus, read_audio
from data.decoding import BadRow
from tests.data.conftest import write_ljspeech

SAMPLES = np.arange(2400, dtype=np.int16)


def write_wav(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, SAMPLES, 24000)
    return path


def test_ljspeech(corpus_path: Path) -> None:
    corpus = open_corpus(corpus_path, speaker="anna", language="de")
    assert corpus.format == "ljspeech" and corpus.splits == {"train": 24, "validation": 4}
    assert corpus.utterances[3] == Utterance(
        "utt003", str(corpus_path / "wavs" / "utt003.flac"), "Number utt003, ü.", "anna", "de"
    )
    assert [u.id for u in corpus.utterances] == sorted(u.id for u in corpus.utterances)


def test_ljspeech_without_splits_and_normalised_text(tmp_path: Path) -> None:
    write_wav(tmp_path / "wavs" / "b.wav")
    (tmp_path / "metadata.csv").write_text('b|"Quoted|\na|No recording|no recording\n', encoding="utf-8-sig")
    corpus = open_corpus(tmp_path)
    assert [(u.id, u.text, u.split) for u in corpus.utterances] == [
        ("a", "no recording", "train"),
        ("b", '"Quoted', "train"),
    ]
    (tmp_path / "dev.txt").write_text("a\n")
    assert [u.split for u in open_corpus(tmp_path).utterances] == ["validation", "train"]
    (tmp_path / "train.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"the id 'a' is also in the train split"):
        open_corpus(tmp_path)
    (tmp_path / "train.txt").write_text("c\n")
    with pytest.raises(UserError, match=r"train\.txt: the id 'c' is not in metadata\.csv"):
        open_corpus(tmp_path)
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "dev.txt").unlink()
    (tmp_path / "metadata.csv").write_text("a|x\na|y\n")
    corpus = open_corpus(tmp_path)
    assert [(u.id, u.text) for u in corpus.utterances] == [("a", "x"), ("a", None)]
    with pytest.raises(AudioError, match="line 2: the id 'a' was there already"):
        audio_info(corpus.utterances[1].path)


def test_librispeech_and_libritts(tmp_path: Path) -> None:
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    write_wav(chapter / "84-121123-0001.flac")
    write_wav(chapter / "84-121123-0000.flac")
    (chapter / "84-121123.trans.txt").write_text("84-121123-0000 GO ON\n84-121123-0001 DO YOU HEAR\n")
    tts = tmp_path / "LibriSpeech" / "train-other-500" / "20" / "205"
    write_wav(tts / "20_205_000000_000000.wav")
    (tts / "20_205_000000_000000.normalized.txt").write_text("Doctor who?\n")
    (tts / "20_205_000000_000000.original.txt").write_text("Dr. who?\n")
    corpus = open_corpus(tmp_path / "LibriSpeech")
    assert corpus.format == "librispeech"
    assert [(u.id, u.text, u.speaker, u.split) for u in corpus.utterances] == [
        ("20_205_000000_000000", "Doctor who?", "20", "train"),
        ("84-121123-0000", "GO ON", "84", "validation"),
        ("84-121123-0001", "DO YOU HEAR", "84", "validation"),
    ]
    assert len(open_corpus(tmp_path / "LibriSpeech" / "dev-clean").utterances) == 2


def test_folder(tmp_path: Path) -> None:
    write_wav(tmp_path / "b" / "x.y.wav")
    write_wav(tmp_path / "a.flac")
    write_wav(tmp_path / ".hidden.wav")
    (tmp_path / "a.txt").write_text("beside it\n")
    corpus = open_corpus(tmp_path)
    assert corpus.format == "folder"
    assert [(u.id, u.text, u.split) for u in corpus.utterances] == [
        ("a", "beside it", "train"),
        ("b/x.y", None, "train"),
    ]
    write_wav(tmp_path / "a.wav")
    corpus = open_corpus(tmp_path)
    assert [(u.id, u.text) for u in corpus.utterances[:2]] == [("a", "beside it"), ("a", None)]
    with pytest.raises(AudioError, match=r"two utterances have the id 'a' .*a\.flac.*a\.wav"):
        audio_info(corpus.utterances[1].path)


def test_manifests_say_the_same_in_jsonl_and_csv(tmp_path: Path) -> None:
    words = [["Hello", 0.0, 0.05], ["you", 0.05, 0.1]]
    row = {
        "id": "1",
        "audio": "x/a.wav",
        "text": "Hello, you",
        "speaker": "s",
        "language": "en",
        "split": "dev",
    }
    as_dicts = [{"word": w, "start": s, "end": e} for w, s, e in words]
    (tmp_path / "m.jsonl").write_text(
        json.dumps({**row, "words": words})
        + "\n\n"
        + json.dumps({"path": "/abs/b.wav", "words": as_dicts})
        + "\n"
    )
    (tmp_path / "m.tsv").write_text(
        "\t".join([*row, "words", "unknown"])
        + "\n"
        + "\t".join([*row.values(), json.dumps(words), "7"])
        + "\n"
    )
    from_jsonl, from_tsv = open_corpus(tmp_path / "m.jsonl"), open_corpus(tmp_path / "m.tsv")
    expected = Utterance(
        "1",
        str(tmp_path / "x" / "a.wav"),
        "Hello, you",
        "s",
        "en",
        "validation",
        (Word("Hello", 0, 0.05), Word("you", 0.05, 0.1)),
    )
    assert from_tsv.utterances == [expected] and from_jsonl.utterances[1] == expected
    assert from_jsonl.utterances[0].id == "/abs/b" and from_jsonl.utterances[0].path == "/abs/b.wav"
    assert from_jsonl.utterances[0].words == expected.words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x"}', r"line 2: no audio: expected a field `audio` \(or `path`\), found \['text'\]"),
        ('{"audio": "a.wav", "split": "blind"}', "line 2: unknown split 'blind'"),
        ('{"audio": "a.wav", "words": [["a", 2, 1]]}', "line 2: cannot read `words` .*lasts from 2 to 1"),
        ('{"audio": "a.wav", "words": [["a", 1, 2], ["b", 0, 1]]}', "'b' starts before the word ahead"),
        ('{"audio": ', "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        ('{"audio": "a.wav", "text": ["a", "b"]}', "line 2: its text is no text"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio": "b.wav"}\n' + line + "\n")
    corpus = open_corpus(tmp_path / "m.jsonl")
    (wrong,) = [u for u in corpus.utterances if isinstance(u.path, BadRow)]
    assert len(corpus.utterances) == 2
    with pytest.raises(AudioError, match=words):
        audio_info(wrong.path)
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"none of 1 rows can be used; the first: .*line 1"):
        open_corpus(tmp_path / "m.jsonl")


def test_huggingface_datasets_in_all_forms(tmp_path: Path) -> None:
    """Bytes, a path and an array come out as the same samples; a folder with metadata.csv is a manifest."""
    import datasets

    stream = io.BytesIO()
    soundfile.write(stream, SAMPLES, 24000, format="FLAC")
    path = write_wav(tmp_path / "files" / "a.wav")
    encoded = datasets.Dataset.from_dict(
        {
            "audio": [{"bytes": stream.getvalue(), "path": None}, {"bytes": None, "path": str(path)}],
            "id": ["b", "a"],
            "sentence": ["B.", None],
            "gender": [0, 1],
            "speaker_id": [7, 8],
        },
        features=datasets.Features(
            {
                "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
                "id": datasets.Value("string"),
                "sentence": datasets.Value("string"),
                "gender": datasets.ClassLabel(names=["f", "m"]),
                "speaker_id": datasets.Value("int64"),
            }
        ),
    ).cast_column("audio", datasets.Audio())
    array = datasets.Dataset.from_dict(
        {"audio": [{"array": (SAMPLES / 32768).tolist(), "sampling_rate": 24000}], "text": ["C."]}
    )
    datasets.DatasetDict({"train": encoded, "dev.clean": array}).save_to_disk(str(tmp_path / "saved"))
    corpus = open_corpus(tmp_path / "saved")
    assert corpus.format == "huggingface"
    assert [(u.id, u.text, u.speaker, u.split) for u in corpus.utterances] == [
        ("a", None, "8", "train"),
        ("b", "B.", "7", "train"),
        ("dev.clean-00000000", "C.", None, "validation"),
    ]
    for utterance in corpus.utterances:
        np.testing.assert_array_equal((read_audio(utterance.path, 24000) * 32768).numpy(), SAMPLES)
    assert str(corpus.utterances[2].path) == f"{tmp_path / 'saved'}, dev.clean row 0"
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    encoded.to_parquet(str(tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet"))
    from_parquet = open_corpus(tmp_path / "parquet")
    assert from_parquet.content_hash() == open_corpus(tmp_path / "parquet").content_hash()
    assert [u.text for u in from_parquet.utterances] == [None, "B."]
    np.testing.assert_array_equal(
        (read_audio(from_parquet.utterances[1].path, 24000) * 32768).numpy(), SAMPLES
    )
    (tmp_path / "files" / "metadata.csv").write_text("file_name,text\na.wav,A.\n")
    assert [(u.id, u.text) for u in open_corpus(tmp_path / "files").utterances] == [("a", "A.")]


def test_what_is_no_corpus_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or directory"):
        open_corpus(tmp_path / "missing")
    with pytest.raises(UserError, match="no corpus found: it is empty; expected"):
        open_corpus(tmp_path)
    (tmp_path / "notes.pdf").touch()
    (tmp_path / "README").touch()
    with pytest.raises(UserError, match=r"it holds 1 \(no extension\), 1 \.pdf; expected metadata\.csv"):
        open_corpus(tmp_path)
    with pytest.raises(UserError, match="is a single file"):
        open_corpus(tmp_path / "notes.pdf")
    with pytest.raises(UserError, match=r"no metadata\.csv in it"):
        open_corpus(tmp_path, format="ljspeech")
    with pytest.raises(UserError, match="unknown corpus format 'klingon'"):
        open_corpus(tmp_path, format="klingon")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="holds no utterance"):
        open_corpus(tmp_path, format="folder")
    with pytest.raises(UserError, match="not a dataset that Hugging Face datasets opens"):
        open_corpus(tmp_path / "nobody" / "nothing", format="huggingface")


def test_the_hash_names_what_is_listed_not_where(tmp_path: Path) -> None:
    one = open_corpus(write_ljspeech(tmp_path / "one", 3, 1))
    other = open_corpus(write_ljspeech(tmp_path / "other", 3, 1))
    assert one.content_hash() == other.content_hash()
    assert one.content_hash() != open_corpus(tmp_path / "one", speaker="x").content_hash()


def test_manifests_carry_words_without_times(tmp_path: Path) -> None:
    words = [["One", 0.0, 0.1], ["two,", None, None], ["three", 0.1, 0.2]]
    as_dicts = [{"word": w, "start": s, "end": e} for w, s, e in words]
    lines = [{"audio": "a.wav", "words": words}, {"audio": "b.wav", "words": as_dicts}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for utterance in open_corpus(tmp_path / "m.jsonl").utterances:
        assert utterance.words == tuple(Word(*word) for word in words)
    lines[1]["words"][1]["start"] = 0.05
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    wrong = open_corpus(tmp_path / "m.jsonl").utterances[1]
    with pytest.raises(
        AudioError, match=r"line 2: cannot read `words` .*'two,' has one of its two times only"
    ):
        audio_info(wrong.path)
