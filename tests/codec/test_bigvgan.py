"""BigVGAN against NVIDIA's package, its fast paths against plain ones, and the laws of a vocoder."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.importing.vocoders import bigvgan_config, nvidia_name
from codec.nn.blocks import fold_weight_norm
from codec.nn.kernels import toom_cook_convolve
from codec.nn.mel import LogMel
from codec.vocoders.bigvgan import VALUES_AT_ONCE, AMPBlock, AntiAliasedSnake, BigVGAN, BigVGANConfig
from recipes.benchmark.codecs import package_hyperparameters
from tests.codec.small_codecs import SMALL_BIGVGAN, speech_like


def reference_bigvgan(state: Mapping[str, Tensor], config: BigVGANConfig | None = None) -> Any:
    """NVIDIA's generator with these weights, of what they say unless configured; the filters stay its own."""
    package = pytest.importorskip("bigvgan")
    config = config or bigvgan_config(state, Path("x"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = package.BigVGAN(package_hyperparameters(config)).eval()
        model.remove_weight_norm()
    weights = {name: v for name, v in fold_weight_norm(state).items() if not name.endswith("filter")}
    report = model.load_state_dict(weights, strict=False)
    assert not report.unexpected_keys and all(name.endswith("filter") for name in report.missing_keys)
    return model


def small_bigvgan(seed: int = 0, **overrides: Any) -> BigVGAN:
    torch.manual_seed(seed)
    fields = {
        key: tuple(map(_tuple, value)) if isinstance(value, list) else value
        for key, value in SMALL_BIGVGAN.items()
    }
    model = BigVGAN(BigVGANConfig(**{**fields, **overrides}), folded=False).eval()
    for module in model.modules():
        if isinstance(module, AntiAliasedSnake):
            nn.init.normal_(module.alpha, std=0.3)
            nn.init.normal_(module.beta, std=0.3)
    return model


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def foreign_state(model: BigVGAN) -> dict[str, Tensor]:
    return {nvidia_name(name): value for name, value in fold_weight_norm(model.state_dict()).items()}


def test_it_is_the_package_with_and_without_gradients() -> None:
    ours = small_bigvgan()
    theirs = reference_bigvgan(foreign_state(ours), ours.config)
    mel = torch.randn(2, 30, 100) - 3
    with torch.no_grad():
        expected = theirs(mel.mT)[:, 0]
        assert 0.01 < expected.abs().mean() < 0.9
        torch.testing.assert_close(ours(mel, None), expected, atol=1e-5, rtol=0)
    mel.requires_grad_()
    audio = ours(mel, None)
    torch.testing.assert_close(audio, expected, atol=1e-5, rtol=0)
    upstream = torch.randn_like(audio)
    (gradient,) = torch.autograd.grad(audio, mel, upstream)
    other = mel.detach().mT.requires_grad_()
    (wanted,) = torch.autograd.grad(theirs(other)[:, 0], other, upstream)
    torch.testing.assert_close(gradient, wanted.mT, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("dim", [768, 24])
def test_a_block_of_the_published_width_is_the_packages(dim: int) -> None:
    """Wide enough for the fast convolution, long enough for several stretches of the activation."""
    package = pytest.importorskip("bigvgan.bigvgan")
    torch.manual_seed(0)
    ours = AMPBlock(dim, 11, (1, 3, 5), nn.Identity())
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else (11 * dim) ** -0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = package.AMPBlock1(
            package_hyperparameters(BigVGANConfig()), dim, 11, (1, 3, 5), activation="snakebeta"
        )
        theirs.remove_weight_norm()
    state = {nvidia_name(name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=False)
    frames = 2 * VALUES_AT_ONCE * torch.get_num_threads() // dim + 3 if dim < 100 else 1_203
    x = torch.randn(1, frames, dim)
    expected = theirs(x.mT).mT
    torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_fast_and_plain_inference_round_alike() -> None:
    """Removing work must not cost precision: both are as near to float64 as float32 comes."""
    torch.manual_seed(0)
    block = AMPBlock(192, 11, (1, 3, 5), nn.Identity())
    x = torch.randn(1, 900, 192)
    fast = block(x)
    with torch.enable_grad():
        plain = block(x).detach()
    exact = block.double()(x.double())
    fast_error, plain_error = ((y - exact).square().mean().sqrt() for y in (fast, plain))
    assert fast_error < 4 * plain_error < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 5, 64, 333])
@pytest.mark.parametrize("dim", [3, 32])
def test_the_activation_does_not_depend_on_how_it_is_cut(
    frames: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codec.vocoders.bigvgan.VALUES_AT_ONCE", 40 * dim)  # stretches of 40 frames
    activation = AntiAliasedSnake(dim).double()
    nn.init.normal_(activation.alpha, std=0.3)
    x = torch.randn(3, frames, dim, dtype=torch.float64)
    mask = torch.arange(frames) < torch.tensor([frames, max(1, frames // 3), max(1, frames - 1)])[:, None]
    for masked in (None, mask):
        with torch.enable_grad():
            expected = activation(x, masked).detach()
        torch.testing.assert_close(activation(x, masked), expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 11])
@pytest.mark.parametrize("dilation", [1, 3, 5])
def test_toom_cook_is_convolution(kernel_size: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.nn.kernels.VALUES_AT_ONCE", 1_000)  # several tiles of tiles
    weight, bias = torch.randn(6, 5, kernel_size, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    for frames in (1, 4, 29, 120):
        x = torch.randn(frames, 5, dtype=torch.float64)
        padding = dilation * (kernel_size - 1) // 2
        expected = F.conv1d(x.T[None], weight, bias, padding=padding, dilation=dilation)[0].T
        torch.testing.assert_close(toom_cook_convolve(x, weight, bias, dilation), expected)


@pytest.mark.parametrize("grad", [False, True])
def test_a_row_does_not_feel_its_batch(grad: bool) -> None:
    model = small_bigvgan()
    mel = torch.randn(3, 20, 100) - 3
    lengths = [20, 7, 1]
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    with torch.set_grad_enabled(grad):
        together = model(torch.where(mask[..., None], mel, 9.0), None, mask)
        for row, length in enumerate(lengths):
            alone = model(mel[row : row + 1, :length], None)[0]
            torch.testing.assert_close(together[row, : 256 * length], alone, atol=1e-5, rtol=0)


def test_checkpointing_changes_no_gradient() -> None:
    model = small_bigvgan()
    mel = torch.randn(1, 6, 100)
    gradients = []
    for checkpointed in (False, True):
        model.gradient_checkpointing = checkpointed
        model.zero_grad()
        model(mel, None).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_its_mel_is_the_packages() -> None:
    package = pytest.importorskip("bigvgan.meldataset")
    audio = speech_like(2, 24_000) * torch.tensor([1.0, 1e-3])[:, None]
    config = BigVGANConfig().mel
    expected = package.mel_spectrogram(audio, 1024, 100, 24_000, 256, 1024, 0, None)
    torch.testing.assert_close(LogMel(config)(audio).mT, expected, atol=1e-4, rtol=1e-4)


def test_a_hop_that_the_upsampling_does_not_make_is_refused() -> None:
    with pytest.raises(ValueError, match="multiply to 128"):
        BigVGANConfig(upsample_rates=(4, 4, 2, 2, 2))
