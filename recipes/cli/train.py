"""Commands that make models: train-codec, train-recogniser, train-slm, merge, map-codes."""

import io
from pathlib import Path
from typing import Literal

from data.config import CorpusOptions
from recipes.codec_recipe import CodecRecipe, RecogniserRecipe, read_as
from slm.training.config import SLMTrainingConfig

_READING = CorpusOptions()


def train_codec_command(config: CodecRecipe, reading: CorpusOptions = _READING) -> int:
    """Train a codec: waveform -> codes -> waveform.

    Started again with the same arguments, it goes on where it was stopped. Under `accelerate launch -m recipes` it runs
    on several devices.

    Args:
        config: the run; see recipes/hh_codec/ and recipes/hybrid_codec/ for examples.
        reading: what to take from corpora that do not say it themselves.
    """
    from codec.foundation import rank
    from codec.training.loop import train_codec
    from recipes.codec_data import training_data

    config.corpora = read_as(config.corpora, reading)
    result = train_codec(config, training_data(config))
    if result.final is not None and rank() == 0:
        print(f"trained {result.step} steps: {result.final}")
    return 0


def train_recogniser_command(config: RecogniserRecipe, reading: CorpusOptions = _READING) -> None:
    """Train a small recogniser that listens while codecs train: their `recogniser`, for losses.recogniser.

    Started again with the same arguments, it goes on from its last checkpoint.

    Args:
        config: the run.
        reading: what to take from corpora that do not say it themselves.
    """
    from recipes.recogniser import train_recogniser

    config.corpora = read_as(config.corpora, reading)
    trained = train_recogniser(config)
    print(
        f"{trained.directory}: it hears the right character in {trained.accuracy:.1%} of the frames of "
        f"{trained.recordings} held-out recordings"
    )


def train_slm_command(config: SLMTrainingConfig) -> None:
    """Train a language model over text and speech tokens.

    Kill it and start it again: it goes on from its last checkpoint. Under `accelerate launch -m recipes train-slm`
    it trains on many devices.

    Args:
        config: the run; see recipes/slm/ for examples.
    """
    from slm import train_slm

    result = train_slm(config)
    if result.final is not None:
        print(f"trained {result.steps} steps: {result.final}")


def merge_command(
    run: Path, output: Path, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
) -> None:
    """A plain checkpoint of an adapter and the model that it was trained for.

    Args:
        run: a run that trained an adapter (tuning.mode lora or embeddings), or the adapter's directory.
        output: the directory to write.
        dtype: of the weights.
    """
    import torch

    from slm.models.checkpoint import merge

    merge(run, output, getattr(torch, dtype))
    print(f"{output}: a plain transformers checkpoint")


def map_codes_command(old: Path, new: Path, output: Path = Path("codes.npy")) -> None:
    """Which codes of a former codec sound like each code of a new one, for --start_from.code_map.

    Both datasets hold the same recordings (by id), coded by the one and by the other.

    Args:
        old: token dataset of the codec that the speech language model speaks.
        new: token dataset of the codec that it is to learn.
        output: the .npy file to write.
    """
    import numpy as np

    from codec.foundation import write_bytes
    from data import TokenDataset
    from slm.models.warm_start import map_codes

    mapped = map_codes(TokenDataset.open(old), TokenDataset.open(new))
    buffer = io.BytesIO()
    np.save(buffer, mapped.shares)
    write_bytes(output, buffer.getvalue())
    print(
        f"{output}: {mapped.shares.shape[0]} codes, from {mapped.frames} frames of {mapped.recordings} recordings; "
        f"a new code tells {mapped.bits:.2f} bits about the old one"
    )
