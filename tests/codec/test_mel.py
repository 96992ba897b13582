"""Log-mel and losses against independent computations."""

import warnings

import librosa
import numpy as np
import pytest
import torch
import torchaudio

from codec.hh_codec.mel_decoder import MelDecoder
from codec.losses.reconstruction import MultiScaleMelLoss, MultiScaleSpectralLoss, WaveformMelLoss
from codec.nn.mel import LogMel, MelConfig
from tests.codec.small_codecs import small_codec, small_config, speech_like


def slow_log_mel(audio: np.ndarray, config: MelConfig) -> np.ndarray:
    """Frame by frame, from the definition: frame m is centred at (m + 1/2) hops."""
    half = (config.n_fft - config.hop_length) // 2
    padded = np.pad(audio, (half, half), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    filters = torchaudio.functional.melscale_fbanks(
        config.n_fft // 2 + 1, 0, 12_000, config.n_mels, 24_000, norm="slaney", mel_scale="slaney"
    ).numpy()
    frames = []
    for start in range(0, len(audio) - config.hop_length + 1, config.hop_length):
        spectrum = np.abs(np.fft.rfft(padded[start : start + config.n_fft] * window))
        frames.append(np.log(np.maximum(spectrum @ filters, 1e-5)))
    return np.stack(frames)


def test_log_mel_is_its_definition() -> None:
    audio = speech_like(1, 12_000)
    mel = LogMel(MelConfig())(audio)[0]
    assert mel.shape == (48, 100)
    np.testing.assert_allclose(mel.numpy(), slow_log_mel(audio[0].numpy(), MelConfig()), atol=2e-3)


def test_vocos_mel_is_that_of_the_vocos_package() -> None:
    vocos = pytest.importorskip("vocos.feature_extractors")
    theirs = vocos.MelSpectrogramFeatures(24_000, 1_024, 256, 100, padding="center")
    ours = LogMel(small_config("hh-codec-24hz-vocos").vocoder_config.mel)
    audio = speech_like(2, 25_600)
    torch.testing.assert_close(ours(audio).transpose(1, 2), theirs(audio), atol=1e-4, rtol=1e-4)


def test_vocos_is_that_of_the_vocos_package() -> None:
    pytest.importorskip("vocos")
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    from codec.vocoders.vocos import Vocos

    config = small_config("hh-codec-24hz-vocos").vocoder_config
    ours = Vocos(config).eval()
    backbone = VocosBackbone(100, config.dim, config.hidden_dim, config.blocks).eval()
    head = ISTFTHead(config.dim, config.mel.n_fft, config.mel.hop_length, padding="center").eval()
    weights = {name.removeprefix("head."): value.view_as(value) for name, value in ours.state_dict().items()}
    backbone.load_state_dict({name: value for name, value in weights.items() if not name.startswith("out.")})
    head.load_state_dict(
        {name: value for name, value in weights.items() if name.startswith("out.")}, strict=False
    )
    mel = torch.randn(2, 41, 100)
    with torch.no_grad():
        expected = head(backbone(mel.transpose(1, 2)))
        torch.testing.assert_close(ours(mel, 40 * 256), expected, atol=1e-5, rtol=1e-4)


def test_same_padded_istft_inverts_the_stft() -> None:
    codec = small_codec("hh-codec-tiny")
    head = codec.vocoder.head
    audio = speech_like(1, 10_000)[0]
    frames = torch.nn.functional.pad(audio, (375, 375)).unfold(0, 1_000, 250)  # (40, 1000)
    spectrum = torch.fft.rfft(frames * head.window)
    head.out = torch.nn.Identity()
    again = head(torch.cat([spectrum.abs().log(), spectrum.angle()], dim=-1)[None])[0]
    assert (again - audio).abs().max() < 1e-4


def test_interpolation_keeps_a_straight_line_and_the_rows_apart() -> None:
    config = small_config("hh-codec-24hz-vocos")
    decoder = MelDecoder(config.decoder_config, config.encoder_config.dim, 1_000, config.vocoder_config.mel)
    fine = (torch.arange(40) + 0.5)[None, :, None].repeat(
        2, 1, 1
    )  # each frame says where its centre is, in hops of 250
    mask = torch.arange(40) < torch.tensor([40, 12])[:, None]
    out = decoder._interpolate(fine, mask)[..., 0]
    centres = torch.arange(out.shape[1]) * 256 / 250
    torch.testing.assert_close(out[0], centres.clamp(0.5, 39.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[1], centres.clamp(0.5, 11.5), atol=1e-4, rtol=0)
    # the grid is fixed in samples: a longer recording has the same mel where it is the same
    longer = decoder._interpolate(torch.cat([fine[:1], fine[:1] + 40], dim=1), None)[0, : out.shape[1] - 2, 0]
    torch.testing.assert_close(longer, out[0, :-2])


@pytest.mark.parametrize("loss_class", [WaveformMelLoss, MultiScaleSpectralLoss, MultiScaleMelLoss])
def test_waveform_losses_see_own_samples_and_add_up(loss_class: type) -> None:
    loss = loss_class(24_000)
    audio, target = speech_like(2, 24_000, seed=1), speech_like(2, 24_000, seed=2)
    samples = torch.tensor([24_000, 8_000])
    own = torch.arange(24_000) < samples[:, None]
    audio, target = audio * own, target * own
    whole = loss(audio, target, samples, 32_000.0)
    assert whole > 0.1 and loss(target, target, samples, 32_000.0) < 1e-6
    parts = sum(loss(audio[i : i + 1], target[i : i + 1], samples[i : i + 1], 32_000.0) for i in (0, 1))
    torch.testing.assert_close(parts, whole)


def test_multi_scale_mel_is_dacs() -> None:
    """Its definition, frame by frame and with librosa's filters: the sum over seven scales of L1 in log10."""
    audio, target = (0.3 * speech_like(1, 4_800, seed=seed)[0].double() for seed in (1, 2))
    expected = 0.0
    windows, bands = (32, 64, 128, 256, 512, 1_024, 2_048), (5, 10, 20, 40, 80, 160, 320)
    for window, n_mels in zip(windows, bands, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bands narrower than a bin
            filters = librosa.filters.mel(sr=24_000, n_fft=window, n_mels=n_mels)
        logs = []
        for waveform in (audio, target):
            padded = np.pad(waveform.numpy(), window // 2, mode="reflect")
            starts = range(0, 4_801, window // 4)
            frames = np.stack([padded[start : start + window] for start in starts])
            hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
            mel = np.abs(np.fft.rfft(frames * hann)) @ filters.T
            logs.append(np.log10(np.maximum(mel, 1e-5)))
        # a frame centred on the end is none of the row's
        own = np.arange(len(logs[0])) * (window // 4) < 4_800
        expected += np.abs(logs[0] - logs[1])[own].mean(axis=1).sum() * (window // 4) / 4_800
    found = MultiScaleMelLoss(24_000)(audio[None], target[None], torch.tensor([4_800]), 4_800.0)
    assert float(found) == pytest.approx(expected, rel=1e-5) and expected > 1
