"""Discriminators: those of the Vocos package and slow versions say the same; a row's padding is not judged."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.foundation import UserError
from codec.losses.config import (
    DACDiscriminatorConfig,
    MultiPeriodConfig,
    MultiResolutionConfig,
    MultiScaleSTFTConfig,
)
from codec.losses.discriminators import (
    BandDiscriminator,
    DACDiscriminator,
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleSTFTDiscriminator,
    ScaleDiscriminator,
    build_discriminators,
)
from tests.codec.small_codecs import speech_like
from tests.codec.training_runs import DISCRIMINATORS

ALL = DISCRIMINATORS | {"multi_scale_stft": {"fft_sizes": [256, 512], "channels": 4}}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def copy_weights(theirs: nn.Module, ours: nn.Module, renamed: dict[str, str]) -> None:
    """Give `ours` the weights of a package that still uses the old weight norm."""
    tensors = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        name = name.replace("weight_g", "parametrizations.weight.original0")
        tensors[name.replace("weight_v", "parametrizations.weight.original1")] = tensor
    ours.load_state_dict({**ours.state_dict(), **{k: v for k, v in tensors.items() if "spec_" not in k}})


def weight(conv: nn.Module) -> tuple[Tensor, Tensor]:
    return conv.get_parameter("bias"), conv.weight  # type: ignore[return-value]


def small(name: str) -> Discriminator:
    return build_discriminators([name], ALL, seed=0)[name]  # type: ignore[return-value]


# ---- against what was published


def test_published_widths() -> None:
    with torch.device("meta"):
        from vocos.discriminators import DiscriminatorR
        from vocos.discriminators import MultiPeriodDiscriminator as Theirs

        periods = MultiPeriodDiscriminator(MultiPeriodConfig())
        resolutions = MultiResolutionDiscriminator(MultiResolutionConfig())
        dac = DACDiscriminator(DACDiscriminatorConfig())
        bands = parameters(DiscriminatorR(512))
        assert parameters(periods) == parameters(Theirs())
        assert parameters(dac) == parameters(periods) + 3 * bands
        with_scales = DACDiscriminator(DACDiscriminatorConfig(rates=(1, 2)))
    # HH-Codec's layers: 64 channels, kernels of 35, 15, 15, 9, 9 and 9; weight norm adds a length an output channel
    kernels, c = (35, 15, 15, 9, 9), 64
    inner = sum((1 if i == 0 else c) * c * k + 2 * c for i, k in enumerate(kernels))
    assert parameters(resolutions) == 3 * (inner + c * 9 + 2) == 600_198
    # DAC's scale: grouped convolutions see 4 channels each
    seen = (
        (1, 16, 15),
        (4, 64, 41),
        (4, 256, 41),
        (4, 1_024, 41),
        (4, 1_024, 41),
        (1_024, 1_024, 5),
        (1_024, 1, 3),
    )
    scale = sum(i * o * k + 2 * o for i, o, k in seen)
    assert parameters(with_scales) == parameters(dac) + 2 * scale


@torch.no_grad()
def test_multi_period_is_that_of_vocos() -> None:
    from vocos.discriminators import MultiPeriodDiscriminator as Theirs

    torch.manual_seed(0)
    theirs = Theirs(periods=(2, 5))
    ours = MultiPeriodDiscriminator(MultiPeriodConfig(periods=(2, 5)))
    copy_weights(theirs, ours, {"discriminators.": "parts."})
    audio = speech_like(2, 2_003)
    scores, _, features, _ = theirs(audio, audio)
    for output, score, maps in zip(ours(audio[:, None]), scores, features, strict=True):
        torch.testing.assert_close(output.score.flatten(1), score)
        for a, b in zip(output.features, maps, strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_bands_are_those_of_vocos() -> None:
    from vocos.discriminators import DiscriminatorR

    torch.manual_seed(0)
    theirs = DiscriminatorR(512)
    config = DACDiscriminatorConfig(periods=(), fft_sizes=(512,))
    ours = DACDiscriminator(config)
    copy_weights(theirs, ours.parts[0], {"band_convs.": "stacks."})
    audio = speech_like(2, 4_000) + 0.1
    score, features = theirs(audio)
    (output,) = ours(audio[:, None])
    torch.testing.assert_close(output.score, score, atol=1e-5, rtol=1e-4)
    # theirs leaves out the first layer of each band, and ends with the score
    kept = [entry for index, entry in enumerate(output.features) if index % 5]
    for a, b in zip(kept, features[:-1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert len(output.features) == 5 * len(config.bands)


@torch.no_grad()
def test_multi_resolution_is_strided_convolution_over_a_magnitude_spectrogram() -> None:
    torch.manual_seed(0)
    ours = MultiResolutionDiscriminator(MultiResolutionConfig(fft_sizes=(256,), channels=5)).double()
    audio = speech_like(2, 1_500).double()
    (output,) = ours(audio[:, None])
    # every frame by itself: reflected ends, no window, the transform as a matrix product
    padded = F.pad(audio[:, None], (128, 128), mode="reflect")[:, 0]
    frames = torch.stack([padded[:, start : start + 256] for start in range(0, 1_501, 64)], dim=2)
    angle = 2 * math.pi * torch.outer(torch.arange(129.0).double(), torch.arange(256.0).double()) / 256
    spectrum = torch.complex(angle.cos(), -angle.sin()) @ frames.to(torch.complex128)
    x = spectrum.abs()[:, None]  # (batch, 1, frequency, time), the published order of the axes
    layers = (((2, 2), (3, 2)), ((2, 1), (2, 1)), ((2, 2), (2, 1)), ((2, 1), (1, 1)), ((2, 2), (1, 1)))
    part = ours.parts[0]
    for conv, (stride, padding), seen in zip(part.convs, layers, output.features, strict=False):
        bias, kernel = weight(conv)
        x = F.leaky_relu(F.conv2d(x, kernel.transpose(2, 3), bias, stride, padding), 0.1)
        torch.testing.assert_close(seen.transpose(2, 3), x, atol=1e-6, rtol=1e-6)
    bias, kernel = weight(part.conv_post)
    score = F.conv2d(x, kernel.transpose(2, 3), bias, padding=1)
    torch.testing.assert_close(output.score.transpose(2, 3), score, atol=1e-6, rtol=1e-6)
    assert output.features[-1] is output.score and len(output.features) == 6


@torch.no_grad()
def test_multi_scale_stft_is_that_of_encodec() -> None:
    from encodec.msstftd import MultiScaleSTFTDiscriminator as Theirs

    torch.manual_seed(0)
    config = MultiScaleSTFTConfig()
    ours, sizes = MultiScaleSTFTDiscriminator(config), config.fft_sizes
    # the paper's five scales; the package's default has three of them
    theirs = Theirs(32, n_ffts=sizes, hop_lengths=[size // 4 for size in sizes], win_lengths=sizes)
    assert parameters(ours) == parameters(theirs) == 472_330
    # the layers are wrapped once more there
    copy_weights(theirs, ours, {"discriminators.": "parts.", ".conv.": "."})
    audio = speech_like(2, 5_000)[:, None]
    for output, score, maps in zip(ours(audio), *theirs(audio), strict=True):
        torch.testing.assert_close(output.score, score, atol=1e-5, rtol=1e-4)
        for a, b in zip(output.features, maps, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_scale_is_a_stack_of_grouped_convolutions_at_its_own_rate() -> None:
    torch.manual_seed(0)
    scale = ScaleDiscriminator(1, (4, 8, 16, 12)).double()
    x = audio = speech_like(2, 700).double()[:, None]
    for conv, stride, groups, padding in zip(
        scale.convs, (1, 4, 4, 1), (1, 1, 2, 1), (7, 20, 20, 2), strict=True
    ):
        bias, kernel = weight(conv)
        x = F.leaky_relu(F.conv1d(x, kernel, bias, stride, padding, groups=groups), 0.1)
    bias, kernel = weight(scale.conv_post)
    torch.testing.assert_close(scale(audio).score[..., 0], F.conv1d(x, kernel, bias, padding=1))

    # at half the rate a tone above a quarter of the sampling rate is not there
    tone = 0.3 * torch.sin(2 * math.pi * 0.4 * torch.arange(2_000).double())
    quiet, loud = torch.zeros(1, 1, 2_000).double(), tone[None, None]
    changes = {}
    for rate in (1, 2):
        scale.rate = rate
        first, second = (scale(audio).features[0][:, :, 50:-50] for audio in (quiet, loud))
        changes[rate] = (first - second).abs().max()
    assert changes[2] < 0.02 * changes[1]


@torch.no_grad()
def test_a_band_sees_its_own_frequencies_alone() -> None:
    torch.manual_seed(0)
    bands = BandDiscriminator(512, ((0.0, 0.25), (0.25, 1.0)), 4)
    time = torch.arange(4_000) / 24_000
    audio = torch.sin(2 * math.pi * 500 * time)
    high = audio + torch.sin(2 * math.pi * 9_000 * time)
    one, other = (bands(x[None, None]).features for x in (audio, high))
    middle = slice(4, -4)  # frames: the reflected ends have clicks
    low_change = (one[0] - other[0])[:, :, middle].abs().max()
    high_change = (one[5] - other[5])[:, :, middle].abs().max()
    assert low_change < 1e-2 * high_change


# ---- rows


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(ALL))
def test_what_lies_behind_a_row_is_not_seen(name: str) -> None:
    discriminator = small(name)
    audio = speech_like(2, 3_000)[:, None]
    lengths = torch.tensor([3_000, 1_800])
    garbage = audio.clone()
    garbage[1, :, 1_800:] = 7.0
    silent = audio.clone()
    silent[1, :, 1_800:] = 0.0
    outputs = [discriminator(x, lengths) for x in (silent, garbage)]
    for one, other in zip(*outputs, strict=True):
        assert torch.equal(one.score, other.score)
        assert all(torch.equal(a, b) for a, b in zip(one.features, other.features, strict=True))
    # and a row says the same in another batch
    alone = discriminator(silent[1:], lengths[1:])
    for one, other in zip(outputs[0], alone, strict=True):
        torch.testing.assert_close(one.score[1:], other.score)
    # a full batch needs no lengths
    full = discriminator(audio), discriminator(audio, torch.tensor([3_000, 3_000]))
    for one, other in zip(*full, strict=True):
        torch.testing.assert_close(one.score, other.score)


@torch.no_grad()
def test_dac_hears_neither_loudness_nor_offset() -> None:
    discriminator = small("dac")
    audio = torch.zeros(1, 1, 3_000)
    audio[..., :2_000] = speech_like(1, 2_000)
    changed = torch.zeros_like(audio)
    changed[..., :2_000] = 0.1 * audio[..., :2_000] + 0.05
    lengths = torch.tensor([2_000])
    for one, other in zip(discriminator(audio, lengths), discriminator(changed, lengths), strict=True):
        torch.testing.assert_close(one.score, other.score, atol=1e-5, rtol=1e-4)


# ---- building


def test_weights_depend_on_name_and_seed_alone() -> None:
    alone = build_discriminators(["dac"], DISCRIMINATORS, seed=3)["dac"].state_dict()
    beside = build_discriminators(DISCRIMINATORS, DISCRIMINATORS, seed=3)["dac"].state_dict()
    other = build_discriminators(["dac"], DISCRIMINATORS, seed=4)["dac"].state_dict()
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
    assert not all(torch.equal(alone[name], other[name]) for name in alone)


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match="no discriminator 'mpd': there are multi_period"):
        build_discriminators([], {"mpd": {}}, seed=0)
    with pytest.raises(UserError, match=r"the discriminator dac cannot be built: .* has no field width"):
        build_discriminators(["dac"], {"dac": {"width": 3}}, seed=0)
