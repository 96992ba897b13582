"""The original HH-Codec's inference, slow and plain, from its paper and published tensor names: one row at a time."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def weight(state: Mapping[str, Tensor], layer: str) -> Tensor:
    """A layer's weight, of weight norm's length and direction where those are stored."""
    if f"{layer}.weight" in state:
        return state[f"{layer}.weight"]
    direction = state[f"{layer}.weight_v"]
    length = direction.flatten(1).norm(dim=1)[:, None, None]
    return state[f"{layer}.weight_g"] * direction / length


def causal(state: Mapping[str, Tensor], layer: str, x: Tensor, stride: int = 1) -> Tensor:
    """EnCodec's causal convolution: reflected on the left by kernel size less stride."""
    kernel = weight(state, f"{layer}.conv.conv")
    missing = kernel.shape[2] - stride
    if missing:
        x = F.pad(x, (missing, 0), mode="reflect")
    return F.conv1d(x, kernel, state[f"{layer}.conv.conv.bias"], stride)


def encode(state: Mapping[str, Tensor], waveform: Tensor) -> Tensor:
    """(1, 1, samples), whole hops -> latent (1, dim, frames)."""
    name = "encoder.model.{}"
    x = causal(state, name.format(0), waveform)
    for index in (1, 4, 7, 10):
        unit = name.format(index)
        hidden = causal(state, f"{unit}.block.1", F.elu(x))
        hidden = causal(state, f"{unit}.block.3", F.elu(hidden))
        x = F.elu(causal(state, f"{unit}.shortcut", x) + hidden)
        down = name.format(index + 2)
        x = causal(state, down, x, stride=weight(state, f"{down}.conv.conv").shape[2] // 2)
    lstm = torch.nn.LSTM(x.shape[1], x.shape[1], 2, bidirectional=True)
    prefix = "encoder.model.13.lstm."
    lstm.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    frames = x.permute(2, 0, 1)
    x = (lstm(frames)[0] + frames.repeat(1, 1, 2)).permute(1, 2, 0)
    return causal(state, name.format(15), F.elu(x))


def effective_codebook(state: Mapping[str, Tensor]) -> Tensor:
    """(codes, dim) of the first quantizer."""
    layer = "quantize.layers.0"
    hidden = F.linear(
        state[f"{layer}.frozen_codebook"],
        state[f"{layer}.code_transform.0.weight"],
        state[f"{layer}.code_transform.0.bias"],
    )
    return F.linear(
        hidden.relu(), state[f"{layer}.code_transform.2.weight"], state[f"{layer}.code_transform.2.bias"]
    )


def quantize(state: Mapping[str, Tensor], latent: Tensor) -> Tensor:
    """(1, dim, frames) -> codes (frames,)."""
    return torch.cdist(latent[0].T, effective_codebook(state)).argmin(dim=1)


def decode(state: Mapping[str, Tensor], quantized: Tensor) -> Tensor:
    """(1, dim, frames) -> log-mel (1, bands, 4 * frames)."""

    def of(layer: str) -> tuple[Tensor, Tensor]:
        return state[f"backbone.{layer}.weight"], state[f"backbone.{layer}.bias"]

    def conv(x: Tensor, layer: str, groups: int = 1) -> Tensor:
        return F.conv1d(x, *of(layer), padding=of(layer)[0].shape[2] // 2, groups=groups)

    def group_norm(x: Tensor, layer: str) -> Tensor:
        return F.group_norm(x, 32, *of(layer), eps=1e-6)

    def layer_norm(x: Tensor, layer: str) -> Tensor:
        return F.layer_norm(x.mT, x.shape[1:2], *of(layer), eps=1e-6).mT

    x = conv(quantized, "embed")
    for block in (0, 1, 2, 3, 4):
        name = f"pos_net.{block}"
        if block == 2:
            h = group_norm(x, f"{name}.norm")
            query, key, value = (conv(h, f"{name}.{part}") for part in "qkv")
            attention = (query.mT @ key * x.shape[1] ** -0.5).softmax(dim=-1)
            x = x + conv(value @ attention.mT, f"{name}.proj_out")
        else:
            h = conv(F.silu(group_norm(x, f"{name}.norm1")), f"{name}.conv1")
            x = x + conv(F.silu(group_norm(h, f"{name}.norm2")), f"{name}.conv2")
    x = layer_norm(group_norm(x, "pos_net.5"), "norm")
    for block in range(12):
        name = f"convnext.{block}"
        h = layer_norm(conv(x, f"{name}.dwconv", groups=x.shape[1]), f"{name}.norm").mT
        h = F.linear(F.gelu(F.linear(h, *of(f"{name}.pwconv1"))), *of(f"{name}.pwconv2"))
        x = x + (state[f"backbone.{name}.gamma"] * h).mT
    x = layer_norm(x, "final_layer_norm")
    return F.conv_transpose1d(x, state["melhead.transconv.weight"], state["melhead.transconv.bias"], stride=4)
