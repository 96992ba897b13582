"""What bench compares is comparable: the same work on both sides, the same results, and counts that are right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codec.configuration import part_from
from codec.vocoders.bigvgan import BigVGANConfig
from recipes.benchmark.codecs import TaughtEncoder, bigvgan_of_the_package
from recipes.benchmark.generation import agreement, time_generation
from recipes.benchmark.training import time_training
from slm.models.checkpoint import SpeechCapabilities
from tests.codec.small_codecs import SMALL_BIGVGAN, small_codec, speech_like
from tests.recipes.untrained_models import save_codec, save_slm


def test_agreement_ends_at_the_first_difference() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert agreement([1, 2], [1, 2]) == 2 and agreement([], []) == 0


def test_the_same_tokens_as_transformers_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "recipes.benchmark.generation._SENTENCES", ("The tide was low.", "It rains.", "Who is there?")
    )
    save_codec(tmp_path / "codec")
    capabilities = SpeechCapabilities(["aligned"], 2, False, [0.05, 0.06, 0.09])
    model = save_slm(tmp_path / "slm", tmp_path / "codec", ["slt"], capabilities)
    timing = time_generation(str(model), tokens=12, rounds=1, device="cpu")
    assert timing.greedy.tokens == 3 * 12 and timing.greedy.same == 1.0
    assert len(timing.streams) == 4 and timing.first_audio == max(s.first_audio for s in timing.streams)
    rounds = [found for stream in timing.streams for found in stream.rounds]
    assert len(rounds) == 4 and all(0 < found.first_audio <= found.working for found in rounds)


def test_training_counts_real_tokens_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.benchmark.training._ROWS", 100)
    timing = time_training(length=512, blocks=1, rounds=1, device="cpu")
    assert timing.fill > 0.9 and 0.2 < timing.padded_fill < 0.95
    ours, theirs = timing.ours.stretches[0].amount, timing.transformers.stretches[0].amount
    assert 0.9 * 2 * 512 < ours <= 2 * 512  # of two steps
    assert 0.4 < theirs / ours < 2.5  # as many documents as have so many tokens on average
    assert timing.ratio == pytest.approx(timing.ours.rates[0] / timing.transformers.rates[0])


class Through(nn.Module):
    """In the place of blocks: changes nothing."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


class Deaf(TaughtEncoder):
    """Hears the codec's own latent instead of a teacher."""

    def features(self, waveform: Tensor, frames: int) -> Tensor:
        return self.codec.encoder(waveform)


def test_the_taught_encoder_differs_in_what_it_hears_alone() -> None:
    codec: Any = small_codec("hybrid-codec")
    audio = speech_like(1, 9 * codec.config.hop_length)[:, None]
    with torch.no_grad():
        codec.quantizer.semantic.encoder = Through()
        deaf = Deaf(codec, teacher=nn.Identity())  # type: ignore[arg-type]  # it is not asked
        assert torch.equal(deaf(audio), codec.encode(audio).audio_codes)


def test_the_teacher_hears_two_features_a_frame() -> None:
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

    codec: Any = small_codec("hybrid-codec")
    dim = codec.config.quantizer_config.dim
    teacher = Wav2Vec2BertModel(
        Wav2Vec2BertConfig(num_hidden_layers=1, hidden_size=dim, num_attention_heads=2, intermediate_size=dim)
    ).eval()
    frames = 30
    audio = speech_like(1, frames * codec.config.hop_length)[:, None]
    with torch.no_grad():
        taught = TaughtEncoder(codec, teacher)
        assert taught.features(audio[:, 0], frames).shape == (1, frames, dim)
        codes = taught(audio)
    assert codes.shape == (1, codec.config.num_quantizers, frames)


def test_bigvgan_of_the_same_weights() -> None:
    pytest.importorskip("bigvgan")
    from codec.vocoders.bigvgan import BigVGAN

    config = part_from(BigVGANConfig, {**SMALL_BIGVGAN})
    torch.manual_seed(0)
    ours = BigVGAN(config, folded=True).eval()
    theirs = bigvgan_of_the_package(ours, config)
    mel = torch.randn(1, 20, config.mel.n_mels) - 3.0
    with torch.no_grad():
        torch.testing.assert_close(ours(mel, None), theirs(mel.mT)[:, 0], atol=1e-5, rtol=0)
