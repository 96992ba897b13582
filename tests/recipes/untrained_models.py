"""Untrained models on disk, for tests of commands: what they say means nothing, but they say it in the right form."""

from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch

from codec import CodecInfo, export_codec
from codec.loading import model_of
from slm.models.build import build_model
from slm.models.checkpoint import SpeechCapabilities, save_checkpoint
from slm.models.config import ModelConfig
from slm.vocabulary import Vocabulary
from tests.codec.small_codecs import small_config

TEXT = "Hello there, it rains. The next train to the city leaves in twenty minutes. "


def save_codec(directory: Path, seed: int = 0) -> Path:
    """A narrow codec with the rates and the number of codes of hh-codec-tiny, exported before training."""
    config = small_config("hh-codec-tiny")
    config.name = "hh-codec-tiny"
    config.quantizer["codebook_size"] = 2_048
    torch.manual_seed(seed)
    export_codec(model_of(config).eval()).save_pretrained(directory)
    return directory


def save_slm(
    directory: Path,
    codec: Path,
    voices: Sequence[str],
    capabilities: SpeechCapabilities,
    max_positions: int = 512,
) -> Path:
    """A language model of one small layer over characters and the codec's codes."""
    from codec import load_codec

    directory.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT * 3] * 20),
        model_prefix=str(directory / "characters"),
        model_type="char",
        vocab_size=300,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        minloglevel=2,
    )
    vocabulary = Vocabulary.build(
        directory / "characters.model",
        CodecInfo.of(load_codec(codec)),
        list(voices),
        codec_location=str(codec),
    )
    shape = ModelConfig(
        layers=1, hidden_size=32, head_dim=16, max_positions=max_positions, speech_embeddings="random"
    )
    save_checkpoint(directory, build_model(shape, vocabulary, seed=0), vocabulary, capabilities)
    return directory


def save_speaker(folder: Path, prompts: bool = False) -> Path:
    """A codec, and a model over it that speaks as "anna" and "bert", in spans of two words."""
    capabilities = SpeechCapabilities(["aligned"], 2, prompts, [0.02, 0.04, 0.06])
    return save_slm(folder / "speaker", save_codec(folder / "codec"), ["anna", "bert"], capabilities)
