"""What bench compares is comparable: the same work on both sides, the same results, and counts that are right."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.configuration import part_from
from codec.hybrid_codec.configuration import DACEncoderConfig
from codec.hybrid_codec.dac_encoder import DACEncoder
from codec.vocoders.configuration import BigVGANConfig
from recipes.benchmark.bigvgan import reference
from recipes.benchmark.generation import agreement, time_generation
from recipes.benchmark.hybrid import TaughtEncoder, dac_encoder
from recipes.benchmark.training import time_training
from recipes.benchmark.work import count_work
from slm.models.checkpoint import SpeakingHabits
from tests.codec.small_codecs import SMALL_BIGVGAN, small_codec, speech_like
from tests.recipes.untrained_models import save_codec, save_slm

WORD = 4  # bytes of a float32


def test_work_of_operations_whose_work_is_known() -> None:
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    product = count_work(lambda: a @ b)
    assert product.flops == 2 * 10 * 20 * 30 and product.bytes == WORD * (200 + 600 + 300)
    assert count_work(lambda: a.view(5, 40).T).bytes == 0  # a view
    assert count_work(lambda: a[:1].expand(10, 20) + a).bytes == WORD * 3 * 200

    with torch.inference_mode():
        conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
        x = torch.ones(2, 4, 12)
        assert count_work(lambda: conv(x)).flops == 2 * (2 * 6 * 10) * (4 * 3)
        lstm = nn.LSTM(5, 8, num_layers=2, bidirectional=True, batch_first=True)
        steps = torch.ones(3, 7, 5)
        weights = sum(p.numel() for p in lstm.parameters() if p.ndim == 2)
        assert count_work(lambda: lstm(steps)).flops == 2 * 3 * 7 * weights
        q = torch.ones(1, 2, 9, 16)
        attention = count_work(lambda: F.scaled_dot_product_attention(q, q, q))
        assert attention.flops == 2 * 2 * (2 * 9 * 9 * 16)


def test_agreement_ends_at_the_first_difference() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert agreement([1, 2], [1, 2]) == 2 and agreement([], []) == 0


def test_the_same_tokens_as_transformers_draws(tmp_path: Path) -> None:
    save_codec(tmp_path / "codec")
    habits = SpeakingHabits(["aligned"], 2, False, [0.05, 0.06, 0.09])
    model = save_slm(tmp_path / "slm", tmp_path / "codec", ["slt"], habits)
    timing = time_generation(str(model), tokens=12, rounds=1, device="cpu")
    assert timing.greedy.tokens == 3 * 12 and timing.greedy.same == 1.0
    assert len(timing.streams) == 4 and timing.first_audio == max(s.first_audio for s in timing.streams)
    rounds = [found for stream in timing.streams for found in stream.rounds]
    assert len(rounds) == 4 and all(0 < found.first_audio <= found.working for found in rounds)
    assert timing.parameter_bytes == WORD * timing.parameters


def test_training_counts_real_tokens_on_both_sides() -> None:
    timing = time_training(length=512, blocks=1, rounds=1, device="cpu")
    assert timing.fill > 0.9 and 0.2 < timing.padded_fill < 0.95
    ours, theirs = timing.ours.stretches[0].amount, timing.transformers.stretches[0].amount
    assert 0.9 * 2 * 512 < ours <= 2 * 512  # of two steps
    assert 0.4 < theirs / ours < 2.5  # as many documents as have so many tokens on average
    assert timing.ratio == pytest.approx(timing.ours.rates[0] / timing.transformers.rates[0])
    assert timing.flops_per_token > 6 * 0.8 * timing.parameters  # where most tokens are predicted


def test_dac_at_the_widths_and_strides_of_ours() -> None:
    config = DACEncoderConfig(num_filters=4, ratios=(2, 3), dim=12)
    ours, theirs = DACEncoder(config, folded=True), dac_encoder(config)
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in (ours, theirs)]
    assert sizes[0] == sizes[1]
    waveform = speech_like(1, 60)
    with torch.no_grad():
        assert ours(waveform).shape[1] == theirs(waveform[:, None]).shape[2] == 10


class Deaf(TaughtEncoder):
    """Hears the codec's own latent instead of a teacher."""

    def features(self, waveform: Tensor, frames: int) -> Tensor:
        return self.codec.encoder(waveform)


def test_the_taught_encoder_differs_in_what_it_hears_alone() -> None:
    codec: Any = small_codec("hybrid-codec")
    audio = speech_like(1, 9 * codec.config.hop_length)[:, None]
    with torch.no_grad():
        codec.quantizer.semantic.encoder = nn.ModuleList()
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
    theirs = reference(ours, config)
    mel = torch.randn(1, 20, config.mel.n_mels) - 3.0
    with torch.no_grad():
        torch.testing.assert_close(ours(mel, None), theirs(mel.mT)[:, 0], atol=1e-5, rtol=0)
