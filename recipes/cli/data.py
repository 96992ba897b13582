"""Commands between audio and tokens: tokenize, encode, decode, reconstruct, train-tokenizer."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data.config import CorpusFormat as Format
from recipes.cli.common import load_codec_on

if TYPE_CHECKING:
    from torch import Tensor

    from data import FillResult, TokenDataset


def tokenize(
    corpus: str,
    output: str,
    codec: str = "hh-codec-tiny",
    format: Format = "auto",
    speaker: str | None = None,
    language: str | None = None,
    alignment: str | None = None,
    shards: int | None = None,
    speeds: list[float] = [1.0],  # noqa: B006  (never changed; jsonargparse shows it in --help)
    shifts: int = 1,
    batch_seconds: float = 60.0,
    long_seconds: float = 120.0,
    max_quantizers: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    gain: float = 1.0,
    workers: int | None = None,
    max_failures: float = 0.01,
    source: str | None = None,
    licence: str | None = None,
    device: str = "auto",
) -> int:
    """Encode a corpus into a token dataset: Parquet shards that any reader opens.

    Kill it and start it again, with any number of processes: it goes on where it was, and the files are the same.

    Args:
        corpus: a directory (LJSpeech, LibriSpeech, LibriTTS, VCTK, Emilia or Seed-TTS-eval layout, audio files), a
            .jsonl or .csv manifest, or a Hugging Face audio dataset on disk or, with --format huggingface, on the hub.
        output: directory of the token dataset.
        codec: name of a bundled codec, a model directory, or a hub id (kyutai/mimi:8 for its first 8 quantizers).
        format: what kind of corpus it is; "auto" looks.
        speaker: who speaks, for corpora that do not say.
        language: what is spoken, for corpora that do not say; a code such as "en".
        alignment: a directory of word times that `codec-slm align` made for this corpus.
        shards: files of the training split at most; by default one a quarter hour, up to 1,024.
        speeds: encode each training recording at each of these speeds (tempo and pitch).
        shifts: encode each training recording with so many sub-frame shifts.
        batch_seconds: audio in a batch, padding included.
        long_seconds: recordings longer than this are encoded block by block, in little memory.
        max_quantizers: keep the codes of the first so many quantizers only, where the codec has several.
        precision: of the encoder; bfloat16 is faster on a GPU and changes some codes.
        gain: factor on every recording, for corpora far from the level that the codec was trained at (peaks of 0.5 to
            0.9 for the bundled one).
        workers: processes that read audio ahead of the encoder; by default by the number of cores, and none on a CPU,
            whose threads read for themselves.
        max_failures: the share of recordings that may be broken; above it the exit status is 1.
        source: where the recordings come from, for the dataset's card.
        licence: of the recordings, as Hugging Face spells it ("cc0-1.0"), for the dataset's card.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec import UserError
    from data import TokenizeOptions, open_corpus, tokenize_corpus, with_alignment

    if not 0.0 <= max_failures <= 1.0:
        raise UserError(f"--max_failures is {max_failures}: a share from 0 to 1")
    if workers is not None and workers < 0:
        raise UserError(f"--workers is {workers}: 0 (read in this process) or more")
    options = TokenizeOptions(
        shards, tuple(speeds), shifts, batch_seconds, long_seconds, precision, gain, source, licence
    )
    utterances = open_corpus(corpus, format, speaker, language)
    if alignment is not None:
        utterances = with_alignment(utterances, alignment)
    model = load_codec_on(codec, device, max_quantizers)
    result = tokenize_corpus(model, utterances, output, options, workers)
    _report(result, output)
    if result.too_many_failures(max_failures):
        print(
            f"codec-slm: more than {max_failures:.1%} of the recordings failed; {output}/failures.jsonl says why",
            file=sys.stderr,
        )
        return 1
    return 0


def encode(audio: list[str], output: str, codec: str = "hh-codec-tiny", device: str = "auto") -> None:
    """Encode audio files into one Parquet file of codes.

    Args:
        audio: audio files, or directories of them.
        output: the Parquet file.
        codec: name of a bundled codec, a model directory, or a hub id.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec.foundation import write_bytes
    from data.tokenization import BatchEncoder, TokenRow, parquet_bytes

    files = _audio_files(audio)
    encoder = BatchEncoder(load_codec_on(codec, device))
    rows = []
    for identity, path in files.items():
        codes = encoder.encode_long(_blocks(path, encoder.info.sampling_rate))
        rows.append(TokenRow(identity, codes.stream, codes.samples / encoder.info.sampling_rate))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, parquet_bytes(rows, encoder.info))
    frames = sum(len(row.codes) for row in rows) // encoder.info.num_quantizers
    print(f"{output}: {len(rows):,} recordings, {frames:,} frames of {encoder.info.name}")


def decode(
    tokens: str, output: str, split: str = "train", codec: str = "hh-codec-tiny", device: str = "auto"
) -> None:
    """Decode codes into WAV files, one a row.

    Args:
        tokens: a Parquet file that `encode` wrote, or a token dataset.
        output: directory of the WAV files.
        split: which split of a token dataset.
        codec: name of a bundled codec, a model directory, or a hub id; the one that made the codes.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec import CodecInfo
    from data import TokenDataset

    model = load_codec_on(codec, device)
    dataset = TokenDataset.open(tokens, split, codec=CodecInfo.of(model))
    for row in range(len(dataset)):
        path = _below(Path(output), dataset.id(row))
        path.parent.mkdir(parents=True, exist_ok=True)
        decode_row(model, dataset, row, path)
    print(f"{output}: {len(dataset):,} recordings")


def reconstruct(audio: list[str], output: str, codec: str = "hh-codec-tiny", device: str = "auto") -> None:
    """Send audio through the codec: to codes and back, each file to a WAV of the same length.

    Args:
        audio: audio files, or directories of them.
        output: directory of the WAV files.
        codec: name of a bundled codec, a model directory, or a hub id.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from data import write_audio
    from data.tokenization import BatchEncoder, to_codes

    files = _audio_files(audio)
    model = load_codec_on(codec, device)
    encoder = BatchEncoder(model)
    info = encoder.info
    for identity, path in files.items():
        codes = encoder.encode_long(_blocks(path, info.sampling_rate))
        target = _below(Path(output), identity)
        target.parent.mkdir(parents=True, exist_ok=True)
        blocks = model.decode_blocks(to_codes(codes.stream, info.num_quantizers))
        write_audio(target, _first_samples(blocks, codes.samples), info.sampling_rate)
        seconds, bits = codes.samples / info.sampling_rate, _bits(info.codebook_sizes)
        frames = len(codes.stream) // info.num_quantizers
        print(f"{target}: {seconds:.2f} s, {frames} frames, {frames * bits / seconds:,.0f} bit/s")


def train_tokenizer(
    corpus: str,
    output: str,
    kind: Literal["char", "bpe", "unigram"] = "char",
    vocab_size: int | None = None,
    format: Format = "auto",
) -> None:
    """Train a SentencePiece model, which gives text back exactly, on a corpus's training texts.

    Args:
        corpus: a corpus of recordings with texts, a token dataset, or a .txt file with a text a line.
        output: the SentencePiece file, such as text.model.
        kind: "char" for small corpora; "bpe" or "unigram" pieces for large ones.
        vocab_size: pieces in all, 257 of them bytes and <unk>; a char model takes all characters unless it is given.
        format: what kind of corpus it is; "auto" looks.
    """
    from codec import UserError
    from data import train_text_tokenizer

    texts = list(_texts(corpus, format))
    if not texts:
        raise UserError(f"{corpus}: has no texts in its training split")
    path = train_text_tokenizer(texts, output, vocab_size, kind)
    print(f"{path}: {kind} model of {len(texts):,} texts")


def _texts(corpus: str, format: Format) -> Iterator[str]:
    from data import TokenDataset, open_corpus

    path = Path(corpus)
    if path.suffix == ".txt" and path.is_file():
        yield from (line for line in path.read_text(encoding="utf-8").split("\n") if line)
    elif (path / "metadata.json").is_file():
        dataset = TokenDataset.open(path)
        found = (dataset.text(row) for row in range(len(dataset)))
        yield from (text for text in found if text)
    else:
        utterances = open_corpus(corpus, format).split("train")
        yield from (utterance.text for utterance in utterances if utterance.text)


def _report(result: "FillResult", output: str) -> None:
    from codec.foundation import duration, rank

    if rank() != 0 and not result.stopped:
        return
    if result.metadata is not None:
        splits = ", ".join(f"{counts['rows']:,} {name}" for name, counts in result.metadata["splits"].items())
        failed = f", {result.metadata['failures']:,} failed" if result.metadata["failures"] else ""
        seconds = duration(result.metadata["seconds"])
        print(f"{output}: {result.metadata['rows']:,} rows ({splits}), {seconds} of audio{failed}")
    elif result.stopped:
        print(f"{output}: stopped with {result.shards_left} shards left; run the same command again to go on")
    else:
        print(f"{output}: {result.shards_left} shards are left, which other processes are making")


def _audio_files(paths: list[str]) -> dict[str, Path]:
    """Files by id: their names without extension, with as much of the path as tells them apart.

    Raises UserError when a path is missing, holds no audio, or two files would get one id.
    """
    from codec import UserError
    from data.corpora.folder import audio_files

    found: list[Path] = []
    for path in map(Path, paths):
        files = list(audio_files(path)) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: no audio files in it")
        found += files
    stems = [path.stem for path in found]
    named = {
        path.stem if stems.count(path.stem) == 1 else path.with_suffix("").as_posix(): path for path in found
    }
    if len(named) < len(found):
        raise UserError("two inputs differ in their extension alone, or one is given twice: give each once")
    return named


def _blocks(path: Path, sampling_rate: int) -> "Iterator[Tensor]":
    from data import read_blocks
    from data.tokenization import BLOCK_SECONDS

    return read_blocks(path, sampling_rate, BLOCK_SECONDS)


def decode_row(model: Any, dataset: "TokenDataset", row: int, path: Path) -> None:
    """Decode a row in bounded memory, and cut it to the length of what was encoded."""
    from data import write_audio
    from data.tokenization import to_codes

    info = dataset.info
    blocks = model.decode_blocks(to_codes(dataset.codes(row), info.num_quantizers))
    samples = round(dataset.seconds(row) * info.sampling_rate)
    write_audio(path, _first_samples(blocks, samples), info.sampling_rate)


def _first_samples(blocks: "Iterator[Tensor]", count: int) -> "Iterator[Tensor]":
    for block in blocks:
        yield block[:count]
        count = max(0, count - len(block))


def _below(directory: Path, identity: str) -> Path:
    """A WAV file for an id; ids with slashes make folders, and none leads out of the directory."""
    parts = [part for part in Path(identity).parts if part not in ("/", "..")]
    return directory.joinpath(*parts[:-1], f"{parts[-1] if parts else 'row'}.wav")


def _bits(codebook_sizes: tuple[int, ...]) -> float:
    """Bits a frame."""
    from math import log2

    return sum(log2(size) for size in codebook_sizes)
