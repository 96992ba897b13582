"""The command that shows what is in a token dataset: inspect."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.documents.config import DocumentConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from data import TokenDataset
    from slm import Vocabulary

_DOCUMENTS = DocumentConfig()
_GAP_SECONDS = 0.3


def inspect(
    dataset: str,
    row: int = 0,
    split: str = "train",
    format: str | None = None,
    audio: str | None = None,
    codec: str = "hh-codec-tiny",
    text_model: str | None = None,
    documents: DocumentConfig = _DOCUMENTS,
    seed: int = 0,
    epoch: int = 0,
    device: str = "auto",
) -> None:
    """Show a row of a token dataset as a person reads it, and decode it to audio.

    With a format, show also the training document that the row becomes: which words are text, which are speech, and
    which frames these are. The audio is then that of the document: its stretches of speech with pauses between them.

    Args:
        dataset: a token dataset, or a Parquet file that `encode` wrote.
        row: its number, from 0.
        split: which split of a token dataset.
        format: a document format: speech, text, tts, asr, aligned or interleaved.
        audio: write the row's sound to this file (.wav or .flac).
        codec: name of a bundled codec, a model directory, or a hub id; the one that made the codes.
        text_model: with a format, the text tokenizer of a training run; by default that of the bundled model.
        documents: with a format, what else decides a document.
        seed: with a format, the seed of a training run.
        epoch: with a format, the epoch of a training run, from 0.
        device: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
    """
    from codec import CodecInfo, UserError
    from data import TokenDataset
    from data.token_dataset import describe_row
    from recipes.cli.common import load_codec_on
    from recipes.cli.data import decode_row

    opened = TokenDataset.open(dataset, split)
    if not 0 <= row < len(opened):
        raise UserError(f"{dataset}: has rows 0 to {len(opened) - 1} in {opened.split}, not {row}")
    print(describe_row(opened, row))
    speech: list[np.ndarray] | None = None
    if format is not None:
        speech = _describe(opened, row, format, text_model, documents, seed, epoch)
    if audio is None:
        return
    if speech == []:
        raise UserError(f"{audio}: not written, the document has no speech; try another seed or epoch")
    model = load_codec_on(codec, device)
    CodecInfo.of(model).check_same(opened.info, what=dataset)
    if speech is None:
        decode_row(model, opened, row, Path(audio))
    else:
        _decode_speech(model, speech, opened.info.num_quantizers, Path(audio))
    print(f"audio     {audio}")


def _describe(
    dataset: "TokenDataset",
    row: int,
    format: str,
    text_model: str | None,
    config: DocumentConfig,
    seed: int,
    epoch: int,
) -> "list[np.ndarray]":
    """Print the document of a row; returns its stretches of speech."""
    from dataclasses import replace

    from codec import UserError
    from slm.documents import Documents
    from slm.documents.inspection import describe_document

    vocabulary = _vocabulary(dataset, text_model)
    config = replace(config, formats={format: 1.0}, prompt_probability=0.0).without_noise()
    try:
        described = describe_document(Documents([dataset], vocabulary, config, seed), row, epoch)
    except ValueError as error:
        raise UserError(f"{dataset.name}: row {row} holds nothing to make a document of") from error
    print(described.text)
    return described.speech


def _vocabulary(dataset: "TokenDataset", text_model: str | None) -> "Vocabulary":
    from slm import Vocabulary, find_slm

    if text_model is not None:
        return Vocabulary.build(text_model, dataset.info)
    return Vocabulary.from_pretrained(find_slm("slm-tiny")).for_codec(dataset.info)


def _decode_speech(model: Any, streams: "list[np.ndarray]", num_quantizers: int, path: Path) -> None:
    """Write stretches of speech, each decoded by itself, with silence between them."""
    from data import write_audio
    from data.tokenization import to_codes

    def blocks() -> "Iterator[Tensor]":
        import torch

        rate = model.config.sampling_rate
        for number, stream in enumerate(streams):
            if number:
                yield torch.zeros(round(_GAP_SECONDS * rate))
            yield from model.decode_blocks(to_codes(stream, num_quantizers))

    write_audio(path, blocks(), model.config.sampling_rate)
