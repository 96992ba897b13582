"""Fast ways through linear layers, windows and overlap-add give what the slow, obvious ones give."""

import pytest
import torch
import torch.nn.functional as F

from codec.hybrid_codec.dac import SampleConv
from codec.nn import kernels
from codec.nn.blocks import ConvNeXtBlock, FrameConv
from codec.nn.kernels import Pointwise, linear_gelu
from codec.nn.mel import MelConfig
from codec.vocoders.vocos import ISTFTHead, VocosConfig


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MIN_PRODUCTS", 1 if request.param else 2**62)


@torch.no_grad()
def test_linear_layers(either_way: None) -> None:
    layer, x = Pointwise(48, 72), torch.randn(2, 30, 48)
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    gelu = linear_gelu(x, layer.weight, layer.bias).double()
    exact = expected * 0.5 * (1 + torch.erf(expected / 2**0.5))
    torch.testing.assert_close(gelu, exact, atol=1e-5, rtol=1e-5)
    assert layer(x[:, :0]).shape == (2, 0, 72)
    torch.testing.assert_close(layer.double()(x.double()), expected)


def test_a_block_learns_as_it_infers(either_way: None) -> None:
    block, x = ConvNeXtBlock(16, 48, 0.5), torch.randn(2, 40, 16, requires_grad=True)
    trained = block(x)
    trained.square().sum().backward()
    assert x.grad is not None and all(p.grad is not None for p in block.parameters())
    with torch.no_grad():
        torch.testing.assert_close(block(x), trained)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block(x), trained, atol=0.05, rtol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 23, 24, 25, 60])  # about in_dim, where the way changes
def test_frame_convolution(frames: int, either_way: None) -> None:
    conv, x = FrameConv(24, 10, 7, lookahead=2), torch.randn(1, frames, 24)
    expected = F.conv1d(F.pad(x.transpose(1, 2), (4, 2)), conv.weight, conv.bias).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(7, 1, 1), (7, 1, 9), (12, 6, 1), (10, 5, 1), (3, 1, 1)]
)
@pytest.mark.parametrize(
    "samples", [60, 420]
)  # around where the fast algorithm for convolutions begins to pay
def test_wide_sample_convolutions(kernel: int, stride: int, dilation: int, samples: int) -> None:
    conv = SampleConv(192, 200, kernel, stride, dilation, folded=True)
    x = torch.randn(2, samples, 192)
    expected = conv.conv.double()(x.double().transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(conv.float()(x).double(), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape == (2, samples // stride, 200)


@torch.no_grad()
@pytest.mark.parametrize(("n_fft", "hop"), [(1_000, 250), (1_024, 256), (1_000, 240), (64, 64), (50, 30)])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_overlap_add(n_fft: int, hop: int, count: int) -> None:
    head = ISTFTHead(VocosConfig(mel=MelConfig(n_fft=n_fft, hop_length=hop)))
    frames = torch.randn(2, count, n_fft)
    expected = torch.zeros(2, (count - 1) * hop + n_fft if count else 0)
    for number in range(count):
        expected[:, number * hop : number * hop + n_fft] += frames[:, number]
    torch.testing.assert_close(head._overlap_add(frames), expected)
