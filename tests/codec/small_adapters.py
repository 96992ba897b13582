"""Tiny, untrained audio codecs of `transformers`, one of every class that has an adapter."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2Model,
)

from tests.codec.small_codecs import speech_like


def small_mimi(**changes: Any) -> MimiModel:
    """24 kHz, hop 1,920, 1 + 3 quantizers of 64 codes."""
    fields = {
        "hidden_size": 32, "num_filters": 2, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48, "codebook_size": 64, "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16, "num_quantizers": 4, "upsample_groups": 32, "sliding_window": 20,
    }  # fmt: skip
    model = MimiModel(MimiConfig(**(fields | changes))).eval()
    latents = model.encoder(_speech(24_000)).latents[0].T  # (frames, hidden)
    for residual in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        entries = latents @ residual.input_proj.weight[:, :, 0].T
        for depth, layer in enumerate(residual.layers):
            layer.codebook.embed_sum.copy_(_spread(entries, 64, depth))
    return model


def small_encodec(**changes: Any) -> EncodecModel:
    """24 kHz, hop 320, 4 quantizers of 32 codes."""
    fields = {
        "hidden_size": 16, "num_filters": 2, "codebook_size": 32, "target_bandwidths": [0.375, 1.5],
        "num_lstm_layers": 1,
    }  # fmt: skip
    model = EncodecModel(EncodecConfig(**(fields | changes))).eval()
    if model.config.audio_channels == 1:
        entries = model.encoder(_speech(24_000))[0].T
        for depth, layer in enumerate(model.quantizer.layers):
            layer.codebook.embed.copy_(_spread(entries, 32, depth))
    return model


def small_dac(**changes: Any) -> DacModel:
    """16 kHz, hop 320 with an odd stride, 3 quantizers of 32 codes."""
    fields = {
        "encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 3,
        "codebook_size": 32, "codebook_dim": 4, "sampling_rate": 16_000,
    }  # fmt: skip
    model = DacModel(DacConfig(**(fields | changes))).eval()
    for parameter in model.parameters():  # as initialised, everything is within 0.02 of nothing
        if parameter.ndim == 3:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def small_xcodec2() -> Xcodec2Model:
    """16 kHz, hop 320, one quantizer of 256 codes."""
    semantic = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, output_hidden_size=32,
        feature_projection_input_dim=160,
    )  # fmt: skip
    config = Xcodec2Config(
        hidden_size=64, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=32, encoder_hidden_size=4, semantic_model_config=semantic, quantization_dim=96,
        quantization_levels=[4, 4, 4, 4],
    )  # fmt: skip
    model = Xcodec2Model(config).eval()
    for part in (
        model.semantic_adapter,
        model.acoustic_encoder,
        model.fc_encoder,
        model.quantizer.project_in,
    ):
        for parameter in part.parameters():  # as initialised, all frames are in the middle of the lattice
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=2.0 * parameter[0].numel() ** -0.5)
    return model


SMALL = {"mimi": small_mimi, "encodec": small_encodec, "dac": small_dac, "xcodec2": small_xcodec2}


@torch.no_grad()
def small_model(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """An untrained model of `transformers` of the kind."""
    torch.manual_seed(seed)
    return SMALL[kind](**changes)


def save_small(kind: str, directory: Path, seed: int = 0) -> Path:
    """Save one as `transformers` does."""
    small_model(kind, seed).save_pretrained(directory)
    return directory


def _speech(sampling_rate: int) -> torch.Tensor:
    return speech_like(1, 6 * sampling_rate)[:, None]


def _spread(latents: torch.Tensor, size: int, depth: int) -> torch.Tensor:
    """Entries as far from each other as latents are, smaller for every earlier quantizer."""
    mean, deviation = latents.mean(0), latents.std(0) * 0.5**depth
    return torch.randn(size, latents.shape[1]) * deviation + mean * (depth == 0)
