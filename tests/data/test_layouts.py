"""Miniatures of the layouts that corpora come in (docs/corpora.md): what is read, what is left out, what is said."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codec.foundation import UserError
from data import AudioError, Corpus, CorpusOptions, audio_info, open_corpus, read_audio
from data.config import CorpusSource
from data.scan import scan_corpus
from data.tokenization.summary import lost_texts, understood
from recipes.cli.main import main
from tests.data.fake_codec import FakeCodec

RATE = 16000


def wav(path: Path, seconds: float = 1.0, level: int = 1) -> Path:
    """Every sample says where it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (np.arange(round(seconds * RATE)) % 30000 * level).astype(np.int16), RATE)
    return path


def lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def facts(corpus: Corpus) -> list[tuple[str, str | None, str]]:
    return [(u.id, u.text, u.split) for u in corpus.utterances]


def failures(corpus: Corpus) -> list[str]:
    found = []
    for utterance in corpus.utterances:
        try:
            audio_info(utterance.path)
        except AudioError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("times", [{"offset": 0.5, "duration": 0.25}, {"start": 0.5, "end": 0.75}])
def test_a_row_is_its_stretch(tmp_path: Path, times: dict[str, float]) -> None:
    wav(tmp_path / "a.wav", 2.0)
    row = {"audio_filepath": "a.wav", "text": "x", **times}
    corpus = open_corpus(lines(tmp_path / "m.jsonl", row, {"audio_filepath": "a.wav", "text": "whole"}))
    whole, part = corpus.utterances
    assert (whole.id, part.id) == ("a", "a_0.500_0.750")
    samples = (read_audio(part.path, RATE) * 32768).numpy()
    np.testing.assert_array_equal(samples, np.arange(8000, 12000))
    assert audio_info(whole.path).frames == 2 * RATE
    # A file as long as the stretch is the stretch, cut already.
    wav(tmp_path / "a.wav", 0.25)
    assert (read_audio(part.path, RATE) * 32768)[0] == 0 and audio_info(part.path).frames == 4000
    wav(tmp_path / "a.wav", 0.6)
    with pytest.raises(AudioError, match=r"a\.wav, 0\.5 s to 0\.75 s: the recording lasts 0\.60 s"):
        read_audio(part.path, RATE)
    backwards = {"audio": "a.wav", "start": 3, "end": 2}
    corpus = open_corpus(lines(tmp_path / "m.jsonl", backwards, {"audio": "a.wav"}))
    assert failures(corpus) == [f"{tmp_path / 'm.jsonl'}, line 1: it lasts from 3 to 2 s"]


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"offset": 0.5}, "it starts at 0.5 s, the other end is missing"),
        ({"end": 0.5}, "it ends at 0.5 s, the other end is missing"),
        ({"offset": 0.0, "duration": float("nan")}, "one of its times is NaN"),
        ({"offset": float("nan"), "duration": 0.5}, "one of its times is NaN"),
        ({"offset": "nan", "duration": 0.5}, "lasts from nan"),
        ({"start": 0.5, "end": 0.2}, "lasts from 0.5 to 0.2 s"),
        ({"offset": 0.9, "duration": 0.5}, "0.9 s to 1.4 s: the recording lasts 1.00 s"),
        ({"offset": 5, "duration": 0.5}, "the recording lasts 1.00 s"),
        ({"offset": 0, "duration": None}, None),
        ({"offset": None, "duration": 0.5}, None),
        ({"end": "of file"}, None),
        (dict.fromkeys(("start", "end", "duration"), float("nan")), None),
    ],
)
def test_times_that_say_no_stretch(tmp_path: Path, times: dict[str, object], why: str | None) -> None:
    wav(tmp_path / "a.wav")
    lines(tmp_path / "m.jsonl", {"audio": "a.wav", **times}, {"audio": "a.wav", "id": "whole"})
    corpus = open_corpus(tmp_path / "m.jsonl")
    found = failures(corpus)
    assert len(found) == (why is not None) and (why is None or why in found[0])
    assert len(read_audio(corpus.utterances[-1 if why else 0].path, RATE)) == RATE


def test_what_has_no_partner_is_counted(tmp_path: Path) -> None:
    wav(tmp_path / "f" / "a.WAV")
    for name in ("a.TXT", "b.txt", "c.lab"):
        (tmp_path / "f" / name).write_text(name)
    folder = open_corpus(tmp_path / "f")
    assert facts(folder) == [("a", "a.TXT", "train")]
    assert folder.noticed.left_out == {
        ".txt files without a recording of the same name": 1,
        ".lab files without a recording of the same name": 1,
    }
    lj = tmp_path / "lj"
    for name in "abd":
        wav(lj / "wavs" / f"{name}.wav")
    wav(lj / "wavs" / "a.aiff")
    lines(lj / "metadata.csv", "a|A|a!", "b|B", "c|C", "d|a | in the text|x")
    lines(lj / "train.txt", "a", "c")
    speech = open_corpus(lj)
    rows = [("a", "a!", "train"), ("c", "C", "train"), ("metadata-line-4", None, "train")]
    assert facts(speech) == rows and len(failures(speech)) == 2
    assert dict(speech.noticed.left_out) == {
        "rows of metadata.csv that no split file lists": 1,
        "recordings that metadata.csv does not list": 1,
        "recordings of an id that has another": 1,
    }
    assert "the third/the second (text)" in understood(speech, {"train": 0.0})
    chapter = tmp_path / "ls" / "train-clean-100" / "1" / "2"
    wav(chapter / "1-2-0.wav")
    lines(chapter / "1-2.trans.txt", "1-2-0 ZERO", "1-2-1 ONE", "1-2-0 NOUGHT")
    assert open_corpus(tmp_path / "ls").noticed.left_out == {
        "transcripts without a recording": 1,
        "transcripts of an id that has another": 1,
    }
    (tmp_path / "f" / "raw.pcm").write_bytes(b"no header")
    told = open_corpus(tmp_path / "f").noticed.left_out
    assert told[".pcm files, which no reader knows"] == 1 and told.total() == 3
    listed = tmp_path / "listed"
    for name in "abc":
        wav(listed / f"{name}.wav")
    lines(listed / "metadata.csv", "file_name,text", "a.wav,A", "./a.wav,A again")
    assert open_corpus(listed).noticed.left_out == {"recordings that no list names": 2}


def test_kaldi(tmp_path: Path) -> None:
    for name in "rst":
        wav(tmp_path / "wav" / f"{name}.wav", 2.0)
    for split in ("train", "dev_other"):
        lines(tmp_path / "data" / split / "text", f"{split}-1 ONE  WORD", f"{split}-9 NOBODY")
        lines(tmp_path / "data" / split / "utt2spk", f"{split}-1 s1", f"{split}-2 s2")
    train, dev = tmp_path / "data" / "train", tmp_path / "data" / "dev_other"
    lines(train / "wav.scp", "train-1 wav/r.wav", "train-2 cat wav/s.wav |")
    lines(dev / "wav.scp", "s wav/s.wav", f"t {tmp_path / 'wav' / 't.wav'}")
    lines(
        dev / "segments",
        "dev_other-1 s 0.5 0.75",
        "dev_other-2 s 1.5 1.0",
        "dev_other-3 u 0 1",
        "dev_other-4 s 0",
    )
    corpus = open_corpus(tmp_path)
    assert corpus.format == "kaldi" and corpus.splits == {"train": 2, "validation": 4}
    facts = {u.id: (u.text, u.speaker) for u in corpus.utterances if u.speaker}
    assert facts == {"train-1": ("ONE  WORD", "s1"), "dev_other-1": ("ONE  WORD", "s1")}
    samples = read_audio(corpus.utterances[0].path, RATE) * 32768
    np.testing.assert_array_equal(samples.numpy(), np.arange(8000, 12000))
    whys = (
        "lasts from 1.5 to 1 s",
        "no recording u",
        "found 's 0'",
        "a command, which is not run (cat wav/s.wav |)",
    )
    assert all(why in told for why, told in zip(whys, failures(corpus), strict=True))
    assert corpus.noticed.left_out == {
        "lines of text without an utterance": 2, "recordings without a segment": 1, "recordings that no list names": 1,
    }  # fmt: skip
    assert [u.id for u in open_corpus(train / "wav.scp").utterances] == ["train-1", "train-2"]
    with pytest.raises(UserError, match=r"Kaldi's layout is wav\.scp beside text"):
        open_corpus(tmp_path / "wav", format="kaldi")


def test_a_path_as_windows_writes_it(tmp_path: Path) -> None:
    wav(tmp_path / "wavs" / "a.wav")
    lines(tmp_path / "m.csv", "file_name,text", "wavs\\a.wav,hello")
    assert failures(open_corpus(tmp_path / "m.csv")) == []


def test_lhotse_cuts(tmp_path: Path) -> None:
    wav(tmp_path / "download" / "a.wav", 2.0)
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "download/a.wav"}]}
    cut = {
        "id": "c1", "type": "MonoCut", "start": 0.5, "duration": 1.0, "channel": 0, "recording": recording,
        "supervisions": [{"text": "hello", "speaker": "s", "language": "English"}],
    }  # fmt: skip
    libriheavy = {**cut, "id": "c2", "start": 0, "supervisions": [{"custom": {"texts": ["Hi.", "HI"]}}]}
    mixed = {"id": "c3", "type": "MixedCut", "tracks": []}
    corpus = open_corpus(lines(tmp_path / "cuts" / "c.jsonl.gz", cut, libriheavy, mixed))
    assert facts(corpus) == [("c1", "hello", "train"), ("c2", "Hi.", "train"), ("c3", None, "train")]
    assert corpus.utterances[0].speaker == "s" and audio_info(corpus.utterances[0].path).seconds == 1.0
    assert len(failures(corpus)) == 1 and "MixedCut" in failures(corpus)[0]


def test_recordings_behind_addresses(tmp_path: Path) -> None:
    content = wav(tmp_path / "a.wav", 2.0).read_bytes()
    # Two, for threads share the position in a file of this file system.
    fsspec.filesystem("memory").pipe({"/bucket/a.wav": content, "/bucket/again.wav": content})
    rows = [
        {"audio": "memory://bucket/a.wav", "text": "whole"},
        {"audio": "memory://bucket/again.wav", "text": "part", "start": 0.5, "end": 0.75},
        {"audio": "memory://bucket/b.wav", "text": "nothing"},
        {"audio": "klingon://bucket/b.wav", "text": "nobody"},
    ]
    manifest = lines(tmp_path / "m.jsonl", *rows)
    corpus = open_corpus(manifest)
    found = {u.text: u for u in corpus.utterances}
    np.testing.assert_array_equal(read_audio(found["whole"].path, RATE), read_audio(tmp_path / "a.wav", RATE))
    np.testing.assert_array_equal(read_audio(found["part"].path, RATE) * 32768, np.arange(8000, 12000))
    told = failures(corpus)
    assert len(told) == 2 and all("://bucket/b.wav: cannot be opened" in line for line in told)
    scanned = scan_corpus(CorpusSource(str(manifest)), tmp_path / "scanned")
    assert list(scanned.utterances) == list(corpus.utterances)
    assert scanned.manifest.seconds() == {"train": 2.25}


def test_tables_in_and_below_a_folder(tmp_path: Path) -> None:
    """Hugging Face's audiofolder, with metadata for all or for each split, and NeMo's manifests."""
    one = tmp_path / "one"
    wav(one / "0.wav")
    lines(one / "metadata.csv", "file_name,transcription,mood", '0.wav,"hello, you",3')
    corpus = open_corpus(one)
    assert facts(corpus) == [("0", "hello, you", "train")] and corpus.noticed.ignored == ["mood"]
    (one / "metadata.csv").unlink()
    table = pa.table({"file_name": ["0.wav"], "transcription": ["hi"], "duration": [1.0]})
    pq.write_table(table, one / "metadata.parquet")
    assert open_corpus(one).format == "manifest" and facts(open_corpus(one)) == [("0", "hi", "train")]
    by_split = tmp_path / "split"
    for split in ("train", "test"):
        wav(by_split / split / "0.wav")
        lines(by_split / split / "metadata.jsonl", {"file_name": "0.wav", "sentence": split})
    assert facts(open_corpus(by_split)) == [("test/0", "test", "test"), ("train/0", "train", "train")]
    assert facts(open_corpus(by_split, format="huggingface")) == facts(open_corpus(by_split))
    at_root = [f"{split}/0.wav,{split}" for split in ("train", "test")]
    lines(by_split / "metadata.csv", "file_name,text", *at_root, "0.wav,")
    assert facts(open_corpus(by_split))[1:] == [("test/0", "test", "test"), ("train/0", "train", "train")]
    assert open_corpus(by_split / "metadata.csv").splits == {"train": 3}  # a table alone is one split
    nemo = tmp_path / "nemo"
    for split in ("train", "dev"):
        wav(nemo / f"{split}.wav")
        lines(nemo / f"{split}_manifest.json", {"audio_filepath": f"{split}.wav", "text": split})
    assert facts(open_corpus(nemo)) == [("dev", "dev", "validation"), ("train", "train", "train")]
    only = tmp_path / "only"
    wav(only / "a.wav")
    lines(only / "kathleen.jsonl", {"path": "a.wav", "raw_text": "Hi."})
    lines(only / "notes.json", {"author": "nobody"})
    assert open_corpus(only).format == "manifest" and facts(open_corpus(only)) == [("a", "Hi.", "train")]
    bare = tmp_path / "bare"
    for split in ("train", "test"):
        wav(bare / split / "a.wav")
    assert facts(open_corpus(bare)) == [("test/a", None, "test"), ("train/a", None, "train")]


def test_text_columns(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    table = lines(tmp_path / "t.csv", "id,audio,text,raw_text,said", "1,a.wav,, Hi ,x", "2,a.wav,Yes,no,y")
    assert [u.text for u in open_corpus(table).utterances] == [" Hi ", "Yes"]
    chosen = open_corpus(table, options=CorpusOptions(text_column="said", id_column="raw_text"))
    assert facts(chosen) == [(" Hi ", "x", "train"), ("no", "y", "train")]
    assert chosen.content_hash() != open_corpus(table).content_hash()
    with pytest.raises(UserError, match="--text_column sad: no row has anything there; its columns are: id"):
        open_corpus(table, options=CorpusOptions(text_column="sad"))


def test_ljspeech_with_another_folder(tmp_path: Path) -> None:
    wav(tmp_path / "wav" / "0.wav")
    lines(tmp_path / "metadata.csv", "0|hello")
    corpus = open_corpus(tmp_path)
    assert corpus.format == "ljspeech" and facts(corpus) == [("0", "hello", "train")]
    assert failures(corpus) == []


def test_common_voice(tmp_path: Path) -> None:
    """Quotation marks are letters; what is not validated is left out; paths are in clips/."""
    root = tmp_path / "cv" / "en"
    header = "client_id\tpath\tsentence\tlocale"
    for name in ("train", "test", "validated", "invalidated", "other"):
        wav(root / "clips" / f"{name}.wav")
        lines(
            root / f"{name}.tsv",
            header,
            f'c\t{name}.wav\t"Wait, he said.\ten',
            f'c\t{name}.wav\t"Odd" one\ten',
        )
    corpus = open_corpus(tmp_path / "cv")
    assert corpus.format == "common-voice" and corpus.splits == {"train": 2, "test": 2}
    assert {u.text for u in corpus.utterances if u.text} == {'"Wait, he said.'}
    assert [r for r in failures(corpus) if "two utterances have the id" in r] == failures(corpus)
    assert corpus.noticed.left_out == {
        "rows of validated.tsv": 2, "rows of invalidated.tsv": 2, "rows of other.tsv": 2
    }  # fmt: skip
    with pytest.raises(UserError, match=r"invalidated\.tsv: these texts of Common Voice"):
        open_corpus(root / "invalidated.tsv")


def test_quotes_in_other_tables(tmp_path: Path) -> None:
    """An open quotation mark swallows no rows; a closed one may hold a line end."""
    quoted = lines(tmp_path / "q.tsv", "audio\ttext", 'a.wav\t"He said ""no"".', 'more"', "b.wav\tx")
    assert [u.text for u in open_corpus(quoted).utterances] == ['He said "no".\nmore', "x"]
    opened = lines(tmp_path / "o.tsv", "audio\ttext", 'a.wav\t"Open', "b.wav\tx", 'c.wav\tclosed"')
    assert [u.text for u in open_corpus(opened).utterances] == ['"Open', "x", 'closed"']
    spaced = lines(tmp_path / "s.csv", "audio , text", "a.wav,x")
    assert [u.text for u in open_corpus(spaced).utterances] == ["x"]
    (tmp_path / "twice").mkdir()
    lines(tmp_path / "twice" / "metadata.csv", "audio,text,text", "a.wav,x,y")
    with pytest.raises(UserError, match=r"metadata\.csv: its header names text twice"):
        open_corpus(tmp_path / "twice")
    comma = lines(tmp_path / "c.csv", "audio,text", "a.wav,one, two", "b.wav,x")
    assert "has 3 cells, the header 2" in failures(open_corpus(comma))[1]


def test_webdataset(tmp_path: Path) -> None:
    def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        about = tarfile.TarInfo(name)
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))

    sound = wav(tmp_path / "a.wav").read_bytes()
    (tmp_path / "d").mkdir()
    for name in ("train-000000", "dev-000000"):
        with tarfile.open(tmp_path / "d" / f"{name}.tar", "w") as archive:
            for key in ("00", "01"):
                add(archive, f"{key}.txt", f"{name} {key}".encode())
                add(archive, f"{key}.cls", b"7")
                add(archive, f"{key}.wav", sound)
                add(archive, f"{key}.json", json.dumps({"speaker": "s", "snr": 3}).encode())
            add(archive, "02.txt", b"no audio")
    corpus = open_corpus(tmp_path / "d")
    assert corpus.format == "webdataset" and corpus.splits == {"train": 2, "validation": 2}
    assert facts(corpus)[0] == ("dev-000000/00", "dev-000000 00", "validation")
    assert corpus.utterances[0].speaker == "s" and set(corpus.noticed.ignored) == {"cls", "snr"}
    assert corpus.noticed.left_out == {"txt files without audio beside them": 2}
    with tarfile.open(tmp_path / "d" / "twice.tar", "w") as archive:
        for key, suffixes in (
            ("a", ("wav", "txt", "txt")),
            ("b", ("wav", "flac")),
            ("c", ("wav", "txt", "spk")),
        ):
            for suffix in suffixes:
                add(archive, f"{key}.{suffix}", b"text" if suffix == "txt" else sound)
    twice = open_corpus(tmp_path / "d" / "twice.tar")
    assert facts(twice) == [("a", None, "train"), ("b", None, "train"), ("c", "text", "train")]
    assert len([r for r in failures(twice) if "the archive holds several files of this name" in r]) == 2
    assert twice.noticed.ignored == ["spk"]
    by_class = open_corpus(tmp_path / "d" / "train-000000.tar", options=CorpusOptions(speaker_column="cls"))
    assert [(u.id, u.speaker) for u in by_class.utterances] == [("00", "7"), ("01", "7")]


def test_huggingface_audio_columns(tmp_path: Path) -> None:
    import datasets

    def cells(level: int) -> list[dict[str, object]]:
        return [{"bytes": wav(tmp_path / f"{level}.wav", level=level).read_bytes(), "path": None}]

    def saved(name: str, **columns: object) -> Path:
        datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / name / "train.parquet"))
        return tmp_path / name

    two = saved("two", prompt_audio=cells(0), audio=cells(1), raw_text=["a"], normalized_text=[""])
    corpus = open_corpus(two)
    assert facts(corpus) == [("train-00000000", "a", "train")]
    assert (read_audio(corpus.utterances[0].path, RATE) * 32768)[7] == 7
    chosen = open_corpus(two, options=CorpusOptions(audio_column="prompt_audio"))
    assert read_audio(chosen.utterances[0].path, RATE).abs().max() == 0
    assert chosen.identity()["audio_column"] == "prompt_audio" and "audio_column" not in corpus.identity()
    paths = saved("paths", wav=[str(tmp_path / "1.wav")], utterance_id=["u"], transcription=["b"])
    assert facts(open_corpus(paths)) == [("u", "b", "train")] and not failures(open_corpus(paths))
    with pytest.raises(
        UserError, match="several columns of audio, noisy, clean: choose one with --audio_column"
    ):
        open_corpus(saved("noisy", noisy=cells(0), clean=cells(1)))


def test_huggingface_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The cache of `datasets` goes by name and README."""
    sound = wav(tmp_path / "a.wav").read_bytes()
    for place, text in (("one", "a"), ("two", "b"), ("two", "c")):
        (tmp_path / place / "corpus").mkdir(parents=True, exist_ok=True)
        table = pa.table({"audio": [{"bytes": sound, "path": None}], "text": [text]})
        pq.write_table(table, tmp_path / place / "corpus" / "train.parquet")
        card = "---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n"
        (tmp_path / place / "corpus" / "README.md").write_text(card)
        assert [u.text for u in open_corpus(tmp_path / place / "corpus").utterances] == [text]


def test_folders_links_and_names(tmp_path: Path) -> None:
    wav(tmp_path / "c" / "b" / "x.wav")
    wav(tmp_path / "elsewhere" / "y.wav")
    (tmp_path / "c" / "a").symlink_to(tmp_path / "c" / "b")  # a folder of the corpus
    (tmp_path / "c" / "b" / "up").symlink_to(tmp_path / "c")  # around in a circle
    (tmp_path / "c" / "d").symlink_to(tmp_path / "elsewhere")
    odd = os.fsencode(tmp_path / "c") + b"/caf\xe9.wav"
    os.link(tmp_path / "elsewhere" / "y.wav", odd)
    wav(tmp_path / "c" / ("n" * 251 + ".wav"))
    corpus = open_corpus(tmp_path / "c")
    assert [u.id for u in corpus.utterances] == ["b/x", "caf\\xe9", "d/y", "n" * 251]
    assert failures(corpus) == []


def test_encodings(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_bytes("audio,text\na.wav,one\nb.wav,café\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"m\.csv, line 3: not utf-8: say what it is with --encoding"):
        open_corpus(table)
    read = open_corpus(table, options=CorpusOptions(encoding="latin-1"))
    assert [u.text for u in read.utterances] == ["one", "café"]
    table.write_bytes("audio,text\na.wav,é\n".encode("utf-16"))
    assert open_corpus(table, options=CorpusOptions(encoding="utf-16")).utterances[0].text == "é"
    wav(tmp_path / "f" / "a.wav")
    wav(tmp_path / "f" / "b.wav")
    (tmp_path / "f" / "a.txt").write_bytes(b"caf\xe9")
    folder = open_corpus(tmp_path / "f")
    assert facts(folder)[0] == ("a", None, "train") and "a.txt, line 1: not utf-8" in failures(folder)[0]
    (tmp_path / "f" / "a.txt").write_bytes("ja".encode("utf-16-le"))  # which is UTF-8 as well
    assert "a.wav: its text holds NUL characters" in failures(open_corpus(tmp_path / "f"))[0]
    with pytest.raises(UserError, match="unknown encoding 'klingon'"):
        CorpusOptions(encoding="klingon")


def test_what_is_said_of_a_corpus(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", 3.6)
    lines(tmp_path / "texts.srt", "1", "00:00 --> 00:01", "hello")
    corpus = open_corpus(tmp_path)
    said = understood(corpus, {"train": 3.6})
    assert said.count("\n") == 3 and "train 1 rows, 0.00 h" in said and "0.0% of 1 rows" in said
    warning = lost_texts(corpus)
    assert warning is not None and "1 of 1 rows have no text" in warning and "1 .srt files" in warning
    table = lines(tmp_path / "m.jsonl", {"audio": "a.wav", "utterance": "hello"})
    assert "the columns utterance (--text_column takes one)" in (lost_texts(open_corpus(table)) or "")
    (tmp_path / "a.txt").write_text("hello")
    assert lost_texts(open_corpus(tmp_path, format="folder")) is None


def test_words_beyond_the_end_and_lone_surrogates_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "recipes.loading.load_codec", lambda name, device, num_quantizers=None: FakeCodec(name), raising=False
    )
    wav(tmp_path / "a.wav")
    rows = [{"id": str(end), "audio": "a.wav", "words": [["x", 0.5, end]]} for end in (1.0, 1.05, 1.2)]
    lines(tmp_path / "m.jsonl", *rows, '{"audio": "a.wav", "text": "half \\ud83d"}')
    command = ["tokenize", str(tmp_path / "m.jsonl"), "--output", str(tmp_path / "t"), "--workers", "0"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "2 rows (2 train)" in said and "the word 'x' ends at 1.20 s, the recording at 1.00 s" in said
    assert "its text holds half of a surrogate pair" in said
    assert len((tmp_path / "t" / "failures.jsonl").read_text().splitlines()) == 2


def test_what_is_no_cut_and_what_is_packed(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    sources = [{"type": "file", "source": "a.wav"}]
    good = {"type": "MonoCut", "id": "good", "recording": {"sources": sources}, "supervisions": []}
    bad = [
        good | {"id": "kind", "type": "MixedCut", "tracks": []},
        good | {"id": "source", "recording": {"sources": ["a.wav"]}},
        good | {"id": "text", "supervisions": [{"text": ["x"]}]},
        good | {"id": "supervision", "supervisions": 3},
    ]
    corpus = open_corpus(lines(tmp_path / "cuts.jsonl", good, *bad))
    assert len(corpus.utterances) == 5 and len(told := failures(corpus)) == 4
    assert all("cut" in line and "\n" not in line for line in told)
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.wav", "b.wav")
    (tmp_path / "cuts.jsonl").unlink()
    assert open_corpus(tmp_path, "folder").noticed.left_out[".gz files, which are not unpacked"] == 1
    with pytest.raises(UserError, match="compressed archive: unpack it"):
        open_corpus(tmp_path / "more.tar.gz")
    far = lines(
        tmp_path / "far.jsonl", {"audio": "a.wav", "offset": 1e305, "duration": 1e305}, {"audio": "a.wav"}
    )
    assert len(failures(open_corpus(far))) == 1
    far.unlink()
    deep = lines(tmp_path / "deep.json", '[{"audio": "a.wav", "words": ' + "[" * 100_000)
    with pytest.raises(UserError, match="not JSON"):
        open_corpus(deep)
    deep.unlink()
    (tmp_path / "a\nb.wav").write_bytes(b"no sound")
    assert all("\n" not in line for line in failures(open_corpus(tmp_path, "folder")))
