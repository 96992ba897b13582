"""What several commands do: choose a device, load what runs on it, find audio files, write decoded ones."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

import slm
from codec import Codec, CodecInfo, load_codec
from codec.foundation import Progress, UserError, local_rank
from data import TokenDataset, audio_info, read_blocks, write_audio
from data.corpora.folder import audio_files
from data.decoding import printable
from data.recordings import refuse_recording
from data.tokenization import BLOCK_SECONDS, to_codes
from recipes.apps.uploads import audio_source
from recipes.inputs import STANDARD, check_recording
from slm.text_normalization import LANGUAGES

_SMALL = 100_000_000  # parameters
_LONGEST_STEM = 251  # bytes of a name without .wav


def resolve_device(name: str) -> str:
    """A torch device for `--device`; "auto" is the accelerator that torch finds, else the CPU.

    Each process of a launch gets a GPU of its own. Raises UserError for a device that is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        name = "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: choose cpu, cuda, cuda:1, ... or auto") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        number = device.index if device.index is not None else local_rank() % max(1, count)
        if number >= count:
            raise UserError(f"no device {name}: this machine has {count} CUDA devices; choose --device cpu")
        return f"cuda:{number}"
    return name


def load_codec_on(name: str, device: str, num_quantizers: int | None = None) -> Codec:
    """The codec of `--codec` on the device of `--device`, with the first quantizers only if their number is given.

    Raises UserError when either is not there.
    """
    return load_codec(name, device=resolve_device(device), num_quantizers=num_quantizers)


def load_codec_of(dataset: TokenDataset, name: str | None, device: str) -> Codec:
    """The codec that made a dataset: that of `--codec`, else the bundled one of the name that the dataset gives.

    Raises UserError when it is not there, and when it is another one.
    """
    codec = load_codec_on(name or dataset.info.name, device)
    CodecInfo.of(codec).check_same(dataset.info, what=dataset.name)
    return codec


def load_slm_on(
    name: str, device: str, normalize: bool = True, language: str | None = None
) -> "slm.SpeechLM":
    """The speech language model of `--model` on the device of `--device`. Raises UserError likewise.

    normalize: whether texts are put into spoken words, by the rules of `language` (the model's own unless set).
    """
    if language is not None and language not in LANGUAGES:
        raise UserError(f"--language is {language!r}: there are rules for {', '.join(LANGUAGES)}")
    model = slm.SpeechLM.from_pretrained(name, device=resolve_device(device))
    model.language = (language or model.language) if normalize else None
    use_few_threads(model.model)
    return model


def use_few_threads(model: torch.nn.Module) -> None:
    """One thread for a small model on the CPU: more gain little, and lose much where others want the cores too.

    `--threads` (OMP_NUM_THREADS) comes before it.
    """
    if (
        "OMP_NUM_THREADS" not in os.environ
        and sum(weights.numel() for weights in model.parameters()) < _SMALL
    ):
        torch.set_num_threads(1)


def list_audio(paths: Sequence[str | Path]) -> list[Path]:
    """Audio files, and those in directories. Raises UserError when a path is missing or holds no audio."""
    found: list[Path] = []
    for path in map(Path, paths):
        files = list(audio_files(path)) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: no audio files in it")
        check_recording(files[0])
        found += files
    return found


def find_audio(paths: list[str]) -> dict[str, Path]:
    """Audio files by id: their names without extension, with as much of the path as tells them apart.

    Raises UserError when a path is missing, holds no audio, or two files would get one id.
    """
    found = list_audio(paths)
    stems = Counter(path.stem for path in found)
    named = {
        "stdin"
        if str(path) == STANDARD
        else printable(path.stem if stems[path.stem] == 1 else path.with_suffix("").as_posix()): path
        for path in found
    }
    if len(named) < len(found):
        raise UserError("two inputs differ in their extension alone, or one is given twice: give each once")
    return named


def audio_progress(paths: Collection[Path], label: str) -> Progress:
    """Progress in seconds of audio. Raises UserError for a file that is no audio."""
    is_piped = any(str(path) == STANDARD for path in paths)
    return Progress(None if is_piped else sum(audio_info(path).seconds for path in paths), label=label)


def counted_blocks(path: Path, sampling_rate: int, progress: Progress) -> Iterator[Tensor]:
    """The blocks (samples,) of a recording, which count as done when the next one is asked for."""
    for block in read_blocks(audio_source(path), sampling_rate, BLOCK_SECONDS):
        yield block
        progress.update(len(block) / sampling_rate)


def wav_path(directory: Path, identity: str) -> Path:
    """A WAV file for an id, its folder made. Slashes in the id make folders, and none leads out of the directory.

    A name too long for a file is cut. Raises UserError when there is a recording that is not ours.
    """
    parts = [part for part in Path(identity).parts if part not in ("/", "..")]
    name = parts[-1] if parts else "row"
    if len(name.encode()) > _LONGEST_STEM:
        name = name.encode()[: _LONGEST_STEM - 9].decode("utf-8", "ignore") + f"-{crc32(name.encode()):08x}"
    path = directory.joinpath(*parts[:-1], f"{name}.wav")
    refuse_recording(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def decode_row(model: Any, dataset: TokenDataset, row: int, path: Path) -> None:
    """Decode a row in bounded memory, and cut it to the length of what was encoded."""
    refuse_recording(path)
    info = dataset.info
    codes, voice = to_codes(dataset.codes(row), info.num_quantizers), as_voice(dataset.voice(row))
    blocks = model.decode_blocks(codes, voice)
    samples = round(dataset.seconds(row) * info.sampling_rate)
    write_audio(path, first_samples(blocks, samples), info.sampling_rate)


def as_voice(voice: np.ndarray | None) -> Tensor | None:
    """A voice vector (voice_dim,) as a codec's decoder takes it."""
    return None if voice is None else torch.from_numpy(voice.astype(np.float32))


def decode_streams(
    model: Any,
    streams: list[np.ndarray],
    info: CodecInfo,
    path: Path,
    pause_seconds: float,
    voice: np.ndarray | None,
) -> None:
    """Write streams of codes of one voice, each decoded by itself, with silence between them."""
    refuse_recording(path)
    rate, count = info.sampling_rate, info.num_quantizers

    def blocks() -> Iterator[Tensor]:
        for number, stream in enumerate(streams):
            if number:
                yield torch.zeros(round(pause_seconds * rate))
            yield from model.decode_blocks(to_codes(stream, count), as_voice(voice))

    write_audio(path, blocks(), rate)


def first_samples(blocks: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The blocks (samples,) of a waveform, cut to its first `count` samples."""
    for block in blocks:
        yield block[:count]
        count = max(0, count - len(block))
