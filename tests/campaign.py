"""Damaged and hostile input by the thousand: `python -m tests.campaign --seed 0 --count 10000`.

A case is an audio file, a corpus, a file of tokens, a command line, or commands that run on a small corpus and on what
they made of it, drawn from (seed, number) alone, in whole or with damage. Whatever is done to it, it ends in one of two
ways: it is read, or a UserError of one line says what is wrong.
Cases run in forked processes, so that a crash or a hang of a library is an outcome too. Prints a table of outcomes, and
the first cases of each bad one; `--only NUMBER` repeats a case with its traceback.
"""

import argparse
import contextlib
import csv
import inspect
import io
import json
import os
import select
import shutil
import signal
import string
import tarfile
import tempfile
import traceback
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from codec.foundation import UserError
from data import AudioError, CorpusOptions, TokenDataset, audio_info, open_corpus, read_audio
from data.tokenization import TokenRow, parquet_bytes
from data.tokenization.summary import lost_texts, understood
from recipes.cli.arguments import build_parser, call_with_arguments
from recipes.cli.main import COMMANDS
from recipes.cli.main import main as cli_main
from tests.slm.token_rows import codec_info

RATE = 24_000
HANG_SECONDS = 300.0  # a process of idle priority may wait long for its turn
GOOD = ("read", "read in part", "refused")
BAD = ("traceback", "several lines", "lost", "crash", "hang")

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000)
FORMATS = {  # name: subtypes, rates (none: any), channels at most, whether the header says how long it is
    "WAV": (("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW"), None, 6, True),
    "WAVEX": (("PCM_16", "PCM_24", "FLOAT"), None, 6, True),
    "RF64": (("PCM_16", "FLOAT"), None, 6, True),
    "W64": (("PCM_16", "FLOAT"), None, 6, True),
    "AIFF": (("PCM_16", "PCM_24"), None, 6, True),
    "AU": (("PCM_16", "FLOAT", "ULAW"), None, 6, True),
    "CAF": (("PCM_16", "FLOAT"), None, 6, True),
    "FLAC": (("PCM_16", "PCM_24"), (*RATES, 96_000), 6, True),
    "OGG": (("VORBIS",), RATES, 2, False),
    "OPUS": (("OPUS",), (8_000, 16_000, 24_000, 48_000), 2, False),
    "MP3": (("MPEG_LAYER_III",), RATES, 2, False),
}
HOSTILE: tuple[Any, ...] = (
    None, "", " ", 0, -1, 1e308, float("nan"), float("inf"), True, [], {}, "NaN", "\ud800", "\x00", "a" * 3_000,
    "../../../x.wav", "/etc/passwd", "a.wav", "\u202eevil", "<|s5|>", '"', "'", "a\nb", "a\tb", "a|b", [1, 2],
    {"path": 3}, {"bytes": "x"}, [[None]], [["w", 2.0, 1.0]], [["w", 0.0, 99.0]], [["w"]], "validation", "nowhere", "-",
)  # fmt: skip
WORDS = (
    "", "nan", "-1", "0", "1e999", "[]", "{}", "null", "[{path: x}]", "../x", "\x00", "é", "{", "s3://b/x", "[1, 2",
    "99999999999999999999", "a: b: c", "true", "1.5", "x" * 300, "[[[[", "!!python/object:os.system", "&a [*a]", "cpu",
)  # fmt: skip


class Lost(Exception):
    """Something that went in has neither come out nor been named."""


def audio_case(random: np.random.Generator, folder: Path) -> str:
    """One file: its length, or why it cannot be read."""
    path, whole, frames, is_exact = write_audio_file(random, folder / "a")
    try:
        info = audio_info(path)
        waveform = read_audio(path, RATE)
    except AudioError as error:
        if whole == "whole":
            raise Lost(f"{path.suffix}: not read ({error})") from None
        raise
    if waveform.ndim != 1 or not waveform.isfinite().all() or len(waveform) != info.samples(RATE):
        raise Lost(f"{path.suffix}, {whole}: {len(waveform)} samples, {info.samples(RATE)} announced")
    if (whole == "whole" and is_exact and info.frames != frames) or (
        whole == "cut" and is_exact and info.frames < frames
    ):
        raise Lost(f"{path.suffix}, {whole}: {info.frames} of {frames} samples")
    return "read"


def write_audio_file(random: np.random.Generator, stem: Path) -> tuple[Path, str, int, bool]:
    """A path, what was done to the file, how many samples went in, and whether its header says so."""
    name = random.choice(sorted(FORMATS))
    subtypes, rates, most, says = FORMATS[name]
    rate = int(
        random.choice(rates)
        if rates
        else random.choice([*RATES, 96_000, int(random.integers(1_000, 200_000))])
    )
    frames = int(random.integers(200, 6_000))
    channels = int(random.integers(1, most + 1))
    samples = 0.1 * random.standard_normal((frames, channels))
    buffer = io.BytesIO()
    format_name = "OGG" if name == "OPUS" else name
    soundfile.write(buffer, samples, rate, format=format_name, subtype=str(random.choice(subtypes)))
    content = buffer.getvalue()
    kind = str(
        random.choice(
            ["whole", "cut", "header", "body", "sizes", "more", "before", "twice", "words", "empty"]
        )
    )
    if kind == "cut":
        content = content[: int(random.integers(0, len(content) * 9 // 10))]
    content = damaged(random, content, kind)
    suffix = "wav" if name == "WAVEX" else name.lower()
    if random.random() < 0.2:
        suffix = str(random.choice(["wav", "mp3", "flac", "m4a", "bin"]))
    path = stem.with_suffix(f".{suffix}")
    path.write_bytes(content)
    return path, kind, frames, says


def damaged(random: np.random.Generator, content: bytes, kind: str) -> bytes:
    """The bytes after an accident."""
    changed = bytearray(content)
    if kind in ("header", "body") and changed:
        end = min(len(changed), 96) if kind == "header" else len(changed)
        for place in random.integers(0, end, int(random.integers(1, 9))):
            changed[place] = int(random.integers(0, 256))
    elif kind == "sizes" and len(changed) > 8:
        place = int(random.integers(0, min(len(changed) - 4, 96)))
        changed[place : place + 4] = random.choice(
            [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x01\x00\x00\x00"]
        )
    elif kind == "more":
        changed += random.bytes(int(random.integers(1, 400)))
    elif kind == "before":
        changed = bytearray(random.bytes(int(random.integers(1, 400)))) + changed
    elif kind == "twice":
        changed += bytes(changed)
    elif kind == "words":
        changed = bytearray(b"<html>404 Not Found</html>")
    elif kind == "empty":
        changed = bytearray()
    return bytes(changed)


def corpus_case(random: np.random.Generator, folder: Path) -> str:
    """A corpus of any layout: every row is an utterance, a failure with its reason, or counted as left out."""
    root = folder / "corpus"
    root.mkdir()
    for number in range(3):
        soundfile.write(root / f"{number}.wav", 0.1 * random.standard_normal(400), 16_000)
    write = CORPORA[str(random.choice(sorted(CORPORA)))]
    path, rows = write(random, root)
    encoding = str(random.choice(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]))
    column = str(random.choice(["sentence", "words", "x"])) if random.random() < 0.1 else None
    corpus = open_corpus(path, options=CorpusOptions(column, encoding=encoding))
    tokens = []
    for utterance in corpus.utterances:
        try:
            audio_info(utterance.path)
            codes = np.zeros(1, np.uint16)
            tokens.append(
                TokenRow(
                    utterance.id,
                    codes,
                    1.0,
                    utterance.text,
                    utterance.speaker,
                    utterance.language,
                    utterance.words,
                )
            )
        except AudioError as error:
            one_line(error)
    understood(corpus, dict.fromkeys(corpus.splits, 0.0)).encode()
    (lost_texts(corpus) or "").encode()
    corpus.identity()
    parquet_bytes(tokens, codec_info())  # what cannot be written
    known = len(corpus.utterances) + sum(corpus.noticed.left_out.values())
    if rows is not None and known < rows:
        raise Lost(f"{path.name}: {rows} rows, {known} with an outcome")
    return "read" if len(tokens) == len(corpus.utterances) else "read in part"


def some_rows(random: np.random.Generator, fields: dict[str, Callable[[int], Any]]) -> list[dict[str, Any]]:
    """Rows of a table, some cells of them hostile, some missing."""
    rows = []
    for number in range(int(random.integers(1, 6))):
        row = {name: value(number) for name, value in fields.items()}
        for name in list(row):
            if random.random() < 0.12:
                row[name] = HOSTILE[random.integers(len(HOSTILE))]
            elif random.random() < 0.04:
                del row[name]
        rows.append(row)
    return rows


def manifest_rows(random: np.random.Generator) -> list[dict[str, Any]]:
    audio = str(random.choice(["audio", "audio_filepath", "path", "file_name"]))
    text = str(random.choice(["text", "sentence", "transcription", "normalized_text"]))
    fields: dict[str, Callable[[int], Any]] = {
        audio: lambda n: f"{n % 3}.wav",
        text: lambda n: f"Text {n}, ü.",
    }
    more: dict[str, Callable[[int], Any]] = {
        "id": lambda n: f"row {n}", "speaker": lambda n: "ab"[n % 2], "split": lambda n: "train",
        "offset": lambda n: 0.001 * n, "duration": lambda n: 0.01, "words": lambda n: [["one", 0.0, 0.01]],
        "language": lambda n: "en", "start": lambda n: 0.0, "end": lambda n: 0.02,
    }  # fmt: skip
    return some_rows(random, fields | {name: more[name] for name in more if random.random() < 0.4})


def encoded(random: np.random.Generator, text: str) -> bytes:
    """Text in the encoding that it should be in, or another; sometimes with bytes of none."""
    encoding = str(random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    if random.random() < 0.1:
        content = damaged(random, content, str(random.choice(["header", "body", "more", "before"])))
    return content


def write_jsonl(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    lines = [json.dumps(row) for row in manifest_rows(random)]
    if random.random() < 0.3:
        bad = ["{", "[1, 2", "[" * 3_000, '{"audio": "0.wav"', "null", "3", '"x"', '{"audio": NaN}', "\x00"]
        lines.insert(int(random.integers(len(lines) + 1)), str(random.choice(bad)))
    if random.random() < 0.1:
        (root / "m.json").write_bytes(encoded(random, f"[{', '.join(lines)}]"))
        return root / "m.json", None
    content = encoded(random, "\n".join(lines) + "\n")
    (root / "m.jsonl").write_bytes(content)
    written = sum(bool(line.strip()) for line in content.split(b"\n"))  # damage may join lines
    return root / "m.jsonl", None if b"\x00" in content or b"\xff" in content else written


def write_table(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    rows = manifest_rows(random)
    suffix, delimiter = [("csv", ","), ("csv", ";"), ("csv", "|"), ("tsv", "\t")][random.integers(4)]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, sorted({name for row in rows for name in row}) or ["audio"], delimiter=delimiter
    )
    writer.writeheader()
    writer.writerows({name: str(value) for name, value in row.items()} for row in rows)
    name = str(random.choice(["m", "metadata", "train", "manifest"]))
    (root / f"{name}.{suffix}").write_bytes(encoded(random, buffer.getvalue()))
    return (root if random.random() < 0.5 else root / f"{name}.{suffix}"), None


def write_cuts(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    def source(number: int) -> dict[str, Any]:
        sources = some_rows(random, {"type": lambda n: "file", "source": lambda n: f"{n % 3}.wav"})[:1]
        return some_rows(
            random, {"id": str, "sources": lambda n: sources, "sampling_rate": lambda n: 16_000}
        )[0]

    def supervisions(number: int) -> list[dict[str, Any]]:
        fields = {"text": str, "start": lambda n: 0.0, "speaker": str, "custom": lambda n: {"texts": ["x"]}}
        return some_rows(random, fields)[:2]

    kind = str(random.choice(["MonoCut", "MonoCut", "MonoCut", "MultiCut", "MixedCut", "PaddingCut"]))
    fields: dict[str, Callable[[int], Any]] = {
        "type": lambda n: kind, "id": lambda n: f"cut {n}", "start": lambda n: 0.0, "duration": lambda n: 0.01,
        "channel": lambda n: 0, "recording": source, "supervisions": supervisions,
    }  # fmt: skip
    if kind == "MixedCut":
        fields = {"type": lambda n: kind, "id": str, "tracks": lambda n: [{"cut": {"type": "MonoCut"}}]}
    rows = some_rows(random, fields)
    (root / "cuts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "cuts.jsonl", len(rows)


def write_folder(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    rows = 3
    for number in range(3):
        if random.random() < 0.7:
            (root / f"{number}{random.choice(['.txt', '.lab'])}").write_bytes(
                encoded(random, f"Text {number}, ü.")
            )
    if random.random() < 0.5:
        write_audio_file(random, root / "odd")
        rows = None if (root / "odd.bin").exists() or (root / "odd.m4a").exists() else 4
    return root, rows


def write_listed(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    """LJSpeech, or Common Voice, whose tables are files of a fixed name beside a folder."""
    if random.random() < 0.5:
        (root / "wavs").mkdir()
        lines = [
            "|".join(str(value) for value in row.values()) for row in some_rows(random, {"id": str, "a": str})
        ]
        (root / "metadata.csv").write_bytes(encoded(random, "\n".join(lines) + "\n"))
        for number in range(3):
            shutil.move(root / f"{number}.wav", root / "wavs")
        return root, None
    (root / "clips").mkdir()
    fields = {
        "client_id": lambda n: "c",
        "path": lambda n: f"{n % 3}.wav",
        "sentence": lambda n: f'"Text {n}',
    }
    rows = some_rows(random, fields)
    for number in range(3):
        shutil.move(root / f"{number}.wav", root / "clips")
    for name in random.choice(["train", "dev", "test", "other", "validated"], 2, replace=False):
        lines = ["\t".join(fields), *("\t".join(str(row.get(name)) for name in fields) for row in rows)]
        (root / f"{name}.tsv").write_bytes(encoded(random, "\n".join(lines) + "\n"))
    return root, None


def write_tar(random: np.random.Generator, root: Path) -> tuple[Path, int | None]:
    mode = str(random.choice(["w", "w", "w", "w:gz"]))
    place = root / str(random.choice(["a.tar", "dev-000000.tar", "EN-B000000.tar"]))
    with tarfile.open(place, mode) as archive:  # type: ignore[call-overload]
        for number, row in enumerate(manifest_rows(random)):
            members = {"wav": (root / f"{number % 3}.wav").read_bytes(), "json": json.dumps(row).encode()}
            if random.random() < 0.3:
                members["txt"] = encoded(random, f"Text {number}, ü.")
            if random.random() < 0.2:
                members["json"] = damaged(random, members["json"], "body")
            for suffix, content in members.items():
                about = tarfile.TarInfo(f"{random.choice(['', 'in/', '../'])}{number}.{suffix}")
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    if random.random() < 0.3:
        place.write_bytes(
            damaged(random, place.read_bytes(), str(random.choice(["header", "body", "words", "empty"])))
        )
    for number in range(3):
        (root / f"{number}.wav").unlink()
    return (place if random.random() < 0.5 else root), None


CORPORA: dict[str, Callable[[np.random.Generator, Path], tuple[Path, int | None]]] = {
    "cuts": write_cuts,
    "folder": write_folder,
    "jsonl": write_jsonl,
    "listed": write_listed,
    "table": write_table,
    "tar": write_tar,
}


def tokens_case(random: np.random.Generator, folder: Path) -> str:
    """A file of tokens, whole or damaged, with or without the metadata of a dataset beside it."""
    codec = codec_info((64,) * int(random.integers(1, 3)))
    rows = []
    for number in range(int(random.integers(0, 5))):
        codes = random.integers(0, 64 if random.random() < 0.9 else 70, codec.num_quantizers * 5).astype(
            np.uint16
        )
        rows.append(TokenRow(f"row {number}", codes, 0.2, str(number), None, "en", None))
    kind = str(random.choice(["whole", "header", "body", "sizes", "more", "cut", "empty", "words"]))
    content = parquet_bytes(rows, codec)
    content = (
        content[: int(random.integers(0, len(content)))] if kind == "cut" else damaged(random, content, kind)
    )
    (folder / "a.parquet").write_bytes(content)
    if random.random() < 0.3:
        about = json.dumps({"codec": codec.to_dict(), "splits": {}, "content_hash": "0"}).encode()
        (folder / "metadata.json").write_bytes(
            damaged(random, about, str(random.choice(["whole", "body", "empty"])))
        )
    dataset = TokenDataset.open(folder / "a.parquet")
    read = [dataset.codes(row).tolist() for row in range(len(dataset))]
    if kind == "whole" and read != [row.codes.tolist() for row in rows]:
        raise Lost("other codes than were written")
    if any(code >= 64 for row in read for code in row):
        raise Lost("codes that the codec does not have")
    return "read"


def command_case(random: np.random.Generator, folder: Path) -> str:
    """A command line, or a file of settings, as far as the function that it calls."""
    name = str(random.choice(sorted(COMMANDS)))
    function = COMMANDS[name].load()

    def nothing(**_: Any) -> None: ...

    nothing.__doc__, nothing.__annotations__ = function.__doc__, typing.get_type_hints(function)
    nothing.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    flags = [
        flag
        for action in build_parser(nothing, name)._actions
        for flag in action.option_strings
        if flag != "--help"
    ]
    words = [str(random.choice(WORDS)) for _ in range(random.integers(0, 3))]
    for flag in random.choice(flags, int(random.integers(0, 5))):
        words += [mistyped(random, str(flag))] + [str(random.choice(WORDS))] * int(random.integers(0, 2))
    if random.random() < 0.3:
        lines = [f"{flag.strip('-')}: {random.choice(WORDS)}" for flag in random.choice(flags, 3)]
        (folder / "c.yaml").write_bytes(encoded(random, "\n".join(lines)))
        words += ["--config", str(folder / "c.yaml")]
    try:
        call_with_arguments(nothing, words, name)
    except SystemExit as error:
        if error.code not in (0, None):
            raise
    return "read"


def mistyped(random: np.random.Generator, word: str) -> str:
    if random.random() < 0.85:
        return word
    place = int(random.integers(2, len(word) + 1))
    return word[:place] + str(random.choice(list(string.ascii_lowercase))) + word[place:]


# Flags of `tokenize` that change what it makes of a corpus, or are wrong.
TOKENIZE: tuple[tuple[str, ...], ...] = (
    *[()] * 12, ("--channel", "0"), ("--channel", "7"), ("--text_column", "sentence"), ("--encoding", "utf-16"),
    ("--audio_column", "path"), ("--shards", "2"), ("--batch_seconds", "0.01"), ("--long_seconds", "0.01"),
    ("--gain", "nan"), ("--precision", "bfloat16"), ("--shifts", "2"), ("--speeds", "[1.0, 1.1]"),
    ("--max_quantizers", "2"), ("--alignment", "nowhere"), ("--language", "en"), ("--speaker", "x"),
    ("--format", "folder"), ("--format", "manifest"), ("--format", "webdataset"), ("--max_failures", "2"),
)  # fmt: skip


def run_case(random: np.random.Generator, folder: Path) -> str:
    """`tokenize` on a corpus of any layout, then a command on what it made: every row is there, failed or left out."""
    root = folder / "corpus"
    root.mkdir()
    for number in range(3):
        soundfile.write(root / f"{number}.wav", 0.1 * random.standard_normal(1_200), 16_000)
    path, _ = CORPORA[str(random.choice(sorted(CORPORA)))](random, root)
    tokens, flags = folder / "tokens", TOKENIZE[random.integers(len(TOKENIZE))]
    if random.random() < 0.2:
        run("scan", path, "--output", folder / "scanned")
        path = folder / "scanned"
    run("tokenize", path, "--output", tokens, "--workers", "0", "--max_failures", "1", *flags)
    made = json.loads((tokens / "metadata.json").read_text())
    if not {"--speeds", "--shifts"} & {*flags}:
        reading = {flags[0][2:]: flags[1]} if flags and flags[0].endswith(("_column", "encoding")) else {}
        format = flags[1] if flags and flags[0] == "--format" else "auto"
        listed = len(open_corpus(path, format, options=CorpusOptions(**reading)).utterances)  # type: ignore[arg-type]
        if made["rows"] + made["failures"] != listed:
            raise Lost(f"{listed} utterances, {made['rows']} rows, {made['failures']} failures")
    split = str(random.choice(["train", "train", "validation", "nowhere"]))
    row, where = (
        str(random.integers(-1, 5)),
        str(random.choice(["seconds > 0.05", "text ==", "x", "id.isna()"])),
    )
    then: tuple[tuple[Any, ...], ...] = (
        ("inspect", tokens, "--split", split, "--row", row, "--audio", folder / "a.wav"),
        ("inspect", tokens, "--split", split, "--row", row, "--format", str(random.choice(["tts", "interleaved"]))),
        ("decode", tokens, "--split", split, "--output", folder / "audio"),
        ("combine", tokens, "--output", folder / "combined", "--where", where),
        ("combine", tokens, tokens, "--output", folder / "combined"),
        ("train-tokenizer", tokens, "--output", folder / "text.model"),
        ("encode", root, "--output", folder / "codes.parquet"),
        ("evaluate-codec", path, "--codec", "hh-codec-tiny", "--split", split, "--metrics=[]", "--asr", "none",
         "--limit", "1", "--stability", "0", "--processes", "1", "--output", folder / "results"),
    )  # fmt: skip
    run(*then[random.integers(len(then))])
    return "read in part" if made["failures"] else "read"


def run(name: str, *words: object) -> None:
    """A command as it is typed. Raises UserError with what it says in its one line."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        status = cli_main([name, *map(str, words)])
    if status not in (0, 1, 2):
        raise AssertionError(f"{name} ended with {status}: {told.getvalue()[-300:]}")
    if status == 2:
        said = [line for line in told.getvalue().splitlines() if line.startswith("codec-slm: error: ")]
        if len(said) != 1:
            raise AssertionError(f"{name} ended with 2 and said {told.getvalue()[-300:]!r}")
        raise UserError(said[0])


CASES = {
    "audio": audio_case,
    "corpus": corpus_case,
    "tokens": tokens_case,
    "command": command_case,
    "run": run_case,
}
SHARES = (0.44, 0.39, 0.08, 0.07, 0.02)


def one_line(error: Exception) -> None:
    if "\n" in str(error).strip() or not str(error):
        raise AssertionError(f"several lines: {str(error)[:300]!r}")


def outcome_of(seed: int, number: int) -> tuple[str, str, str]:
    """Kind, outcome and what there is to say of it."""
    random = np.random.default_rng((seed, number))
    kind = str(random.choice(list(CASES), p=SHARES))
    with tempfile.TemporaryDirectory() as folder:
        try:
            return kind, CASES[kind](random, Path(folder)), ""
        except UserError as error:
            # the command line joins lines; a parser may quote what it was given
            lines = kind != "command" and "\n" in str(error).strip()
            return kind, "several lines" if lines else "refused", str(error)[:300]
        except Lost as error:
            return kind, "lost", str(error)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return (
                kind,
                "traceback",
                f"{type(error).__name__}: {str(error)[:300]!r} ({Path(place.filename).name}:{place.lineno})",
            )


def campaign(seed: int, count: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Outcomes by kind, and a line for each bad one. Ctrl-C ends it early."""
    outcomes: Counter[tuple[str, str]] = Counter()
    told: list[str] = []
    number = 0
    while number < count:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(seed, range(number, count), writing)
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as answers:
            try:
                while number < count:
                    came, _, _ = select.select([answers], [], [], HANG_SECONDS)
                    line = answers.readline() if came else b""
                    if line:
                        kind, outcome, about = json.loads(line)
                    else:
                        kind, outcome, about = kind_of(seed, number), "crash" if came else "hang", ""
                    outcomes[kind, outcome] += 1
                    if outcome in BAD:
                        told.append(f"{number} {kind} {outcome}: {about[:300]}")
                    number += 1
                    if not line:
                        break
            except KeyboardInterrupt:
                count = number
            finally:
                os.kill(child, signal.SIGKILL)  # it may hang; a child that is done waits to be asked
                os.waitpid(child, 0)
    return outcomes, told


def _answer(seed: int, numbers: range, pipe: int) -> None:
    """Run cases and write a line for each, in a process that does not return."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        torch.set_num_threads(1)  # the threads that the parent may have started do not exist here
        for number in numbers:
            os.write(pipe, json.dumps(outcome_of(seed, number)).encode() + b"\n")
    finally:
        os._exit(0)


def kind_of(seed: int, number: int) -> str:
    """The first thing that is drawn."""
    return str(np.random.default_rng((seed, number)).choice(list(CASES), p=SHARES))


def table(outcomes: Counter[tuple[str, str]]) -> str:
    """Markdown."""
    columns = (*GOOD, *BAD)
    lines = [f"| case | {' | '.join(columns)} | all |", f"| --- |{' ---: |' * (len(columns) + 1)}"]
    for kind in CASES:
        counts = [outcomes[kind, outcome] for outcome in columns]
        lines.append(f"| {kind} | {' | '.join(f'{count:,}' for count in counts)} | {sum(counts):,} |")
    return "\n".join([*lines, f"\n{sum(outcomes.values()):,} cases"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--only", type=int, help="repeat this case")
    arguments = parser.parse_args()
    if arguments.only is not None:
        kind = kind_of(arguments.seed, arguments.only)
        random = np.random.default_rng((arguments.seed, arguments.only))
        random.choice(list(CASES), p=SHARES)  # the kind
        with tempfile.TemporaryDirectory() as folder:
            print(kind, CASES[kind](random, Path(folder)))
        return
    outcomes, told = campaign(arguments.seed, arguments.count)
    print(table(outcomes), *told, sep="\n")
    raise SystemExit(1 if told else 0)


if __name__ == "__main__":
    main()
