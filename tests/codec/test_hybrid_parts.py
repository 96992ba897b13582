"""HybridCodec's parts against `transformers`' DAC with the same weights, and against slow, obvious arithmetic."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import DacConfig, DacModel
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer, DacVectorQuantize

from codec.base import DRAWS
from codec.hybrid_codec.configuration import DACDecoderConfig, DACEncoderConfig, HybridQuantizerConfig
from codec.hybrid_codec.dac import (
    DACDecoder,
    DACEncoder,
    ResidualUnit,
    SampleConv,
    SampleConvTranspose,
    Snake,
)
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.hybrid_codec.quantizer import HybridQuantizer
from codec.hybrid_codec.residual_vq import FactorizedVQ, FoldedResidualVQ, ResidualVQ
from codec.loading import preset_config

SMALL = HybridQuantizerConfig(
    dim=24,
    semantic_codebook_size=64,
    semantic_dim=24,
    semantic_hidden_dim=32,
    semantic_blocks=1,
    acoustic_blocks=1,
    weight_norm=True,
    acoustic_quantizers=5,
    acoustic_codebook_size=32,
    codebook_dim=4,
)


def dac(ratios: list[int], filters: int = 8, latent: int | None = None) -> DacModel:
    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=filters,
        downsampling_ratios=ratios,
        decoder_hidden_size=64,
        upsampling_ratios=ratios[::-1],
        n_codebooks=SMALL.acoustic_quantizers,
        codebook_size=SMALL.acoustic_codebook_size,
        codebook_dim=SMALL.codebook_dim,
        sampling_rate=24_000,
    )
    model = DacModel(config).eval().double()  # equal to rounding: random weights blow float32's up
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):  # all ones when fresh: would not tell frequencies apart
                parameter.mul_(0.5 + torch.rand_like(parameter))
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "conv" in name:  # as large as they get in training: nearly linear otherwise
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


# ---- the same weights in both


def copy_unit(ours: ResidualUnit, theirs: nn.Module) -> None:
    copy_snake(ours.snake1, theirs.snake1)
    copy_snake(ours.snake2, theirs.snake2)
    copy_conv(ours.conv1, theirs.conv1)
    copy_conv(ours.conv2, theirs.conv2)


def copy_snake(ours: Snake, theirs: nn.Module) -> None:
    ours.alpha.data.copy_(theirs.alpha[0, :, 0])


def copy_conv(ours: nn.Module, theirs: nn.Module) -> None:
    ours.conv.load_state_dict(theirs.state_dict())


def copy_encoder(ours: DACEncoder, theirs: nn.Module) -> None:
    copy_conv(ours.first, theirs.conv1)
    for stage, block in zip(ours.stages, theirs.block, strict=True):
        for unit, name in zip(stage.units, ("res_unit1", "res_unit2", "res_unit3"), strict=True):
            copy_unit(unit, getattr(block, name))
        copy_snake(stage.snake, block.snake1)
        copy_conv(stage.downsample, block.conv1)
    copy_snake(ours.snake, theirs.snake1)
    copy_conv(ours.last, theirs.conv2)


def copy_decoder(ours: DACDecoder, theirs: nn.Module) -> None:
    copy_conv(ours.first, theirs.conv1)
    for stage, block in zip(ours.stages, theirs.block, strict=True):
        copy_snake(stage.snake, block.snake1)
        copy_conv(stage.upsample, block.conv_t1)
        for unit, name in zip(stage.units, ("res_unit1", "res_unit2", "res_unit3"), strict=True):
            copy_unit(unit, getattr(block, name))
    copy_snake(ours.snake, theirs.snake1)
    copy_conv(ours.last, theirs.conv2)


def copy_vq(ours: FactorizedVQ, theirs: DacVectorQuantize) -> None:
    for name in ("in_proj", "out_proj"):
        ours.get_submodule(name).weight.data.copy_(theirs.get_submodule(name).weight[..., 0])
        ours.get_submodule(name).bias.data.copy_(theirs.get_submodule(name).bias)
    ours.codebook.data.copy_(theirs.codebook.weight)


# ---- sizes


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ({}, 159_622_562),  # HC-SED-AED
        ({"acoustic_blocks": 0}, 117_546_402),  # HC-SED
        ({"acoustic_blocks": 0, "semantic_decoder_blocks": 0}, 96_508_322),  # HC-SE
    ],
)
def test_published_size(variant: dict[str, Any], parameters: int) -> None:
    config = preset_config("hybrid-codec")
    config.quantizer |= variant
    with torch.device("meta"):
        model = HybridCodecModel(config)
    counted = {part: sum(p.numel() for p in model.get_submodule(part).parameters()) for part in model.PARTS}
    assert sum(counted.values()) == parameters
    block = 1_024 * 7 + 1_024 + 2 * 1_024 + 1_024 * 2_048 + 2_048 + 2_048 * 1_024 + 1_024
    blocks = 20 - 10 * len(variant) + 5 * (len(variant) == 2)
    # in_proj and out_proj with a length an output, their biases, and the entries
    quantizers = 12 * (2 * 8 * 1_024 + 2 * 8 + 2 * 1_024) + 8 * (16_384 + 11 * 1_024)
    assert counted == {
        "encoder": 21_881_984,
        "quantizer": blocks * block + quantizers,
        "decoder": 53_145_698,
    }


# ---- encoder and decoder


@torch.no_grad()
@pytest.mark.parametrize("ratios", [[4, 5, 6, 8], [2, 4, 8, 8]])
@pytest.mark.parametrize("frames", [1, 3, 40])
def test_encoder_is_that_of_dac(ratios: list[int], frames: int) -> None:
    theirs = dac(ratios)
    ours = (
        DACEncoder(DACEncoderConfig(num_filters=8, ratios=tuple(ratios), dim=128), folded=True)
        .eval()
        .double()
    )
    copy_encoder(ours, theirs.encoder)
    waveform = 0.3 * torch.randn(2, frames * ours.config.hop_length, dtype=torch.float64)
    expected = theirs.encoder(waveform[:, None]).transpose(1, 2)
    before = waveform.clone()
    torch.testing.assert_close(ours(waveform), expected, atol=1e-9, rtol=1e-7)
    assert torch.equal(waveform, before)  # what is overwritten is its own
    with torch.enable_grad():  # and as it is trained, whole and out of place
        torch.testing.assert_close(ours(waveform).detach(), expected, atol=1e-9, rtol=1e-7)


@torch.no_grad()
def test_decoder_is_that_of_dac() -> None:
    theirs = dac([2, 4, 8, 8])
    config = DACDecoderConfig(num_filters=64, ratios=(8, 8, 4, 2))
    ours = DACDecoder(config, 128, folded=True).eval().double()
    copy_decoder(ours, theirs.decoder)
    latent = torch.randn(2, 6, 128, dtype=torch.float64)
    expected = theirs.decoder(latent.transpose(1, 2))[:, 0]
    torch.testing.assert_close(ours(latent), expected, atol=1e-9, rtol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 8])
def test_strides_divide_and_multiply_exactly(stride: int) -> None:
    for samples in (stride, 3 * stride, 10 * stride):
        down = SampleConv(3, 4, 2 * stride, stride, folded=True)
        assert down(torch.randn(1, samples, 3)).shape == (1, samples // stride, 4)
        up = SampleConvTranspose(3, 4, stride, folded=True)
        assert up(torch.randn(1, samples, 3)).shape == (1, samples * stride, 4)


def test_gradients_of_snake() -> None:
    snake = Snake(3).double()
    snake.alpha.data.copy_(torch.tensor([0.3, 1.0, 4.0]))
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def activation(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        snake.alpha.data.copy_(alpha.data)
        return torch.func.functional_call(snake, {"alpha": alpha}, (x,))

    assert torch.autograd.gradcheck(activation, (x, snake.alpha.detach().clone().requires_grad_()))
    with torch.no_grad():
        expected = x + torch.sin(snake.alpha * x).square() / snake.alpha
        torch.testing.assert_close(snake(x), expected)
        mine = x.detach().clone()
        assert snake(mine, overwrite=True) is mine
        torch.testing.assert_close(mine, expected)


# ---- quantizers


def test_factorized_vq_is_that_of_dac() -> None:
    theirs = dac([2, 4, 8, 8]).quantizer.quantizers[0]
    plain = dataclasses.replace(SMALL, weight_norm=False)
    ours = FactorizedVQ(plain, 128, SMALL.acoustic_codebook_size, exported=False).double()
    copy_vq(ours, theirs)
    x = torch.randn(2, 30, 128, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    output = ours(x)
    quantized, commitment, codebook, codes, _ = theirs(y.transpose(1, 2))
    assert torch.equal(output.codes, codes) and len(codes.unique()) > 10
    assert torch.equal(ours.encode(x), codes)
    torch.testing.assert_close(output.latent, quantized.transpose(1, 2))
    torch.testing.assert_close(ours.decode(codes), quantized.transpose(1, 2))
    torch.testing.assert_close(output.loss, 0.25 * commitment + codebook)
    seed = torch.randn_like(x)
    ((output.latent * seed).sum() + output.loss).backward()
    ((quantized.transpose(1, 2) * seed).sum() + 0.25 * commitment + codebook).backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.codebook.grad, theirs.codebook.weight.grad)
    for name in ("in_proj", "out_proj"):
        torch.testing.assert_close(
            ours.get_submodule(name).weight.grad, theirs.get_submodule(name).weight.grad[..., 0]
        )


@torch.no_grad()
def test_residual_vq_is_that_of_dac() -> None:
    theirs: DacResidualVectorQuantizer = dac([2, 4, 8, 8]).quantizer
    ours = ResidualVQ(dataclasses.replace(SMALL, dim=128, weight_norm=False)).double()
    for quantizer, other in zip(ours.quantizers, theirs.quantizers, strict=True):
        copy_vq(quantizer, other)
    x = torch.randn(2, 30, 128, dtype=torch.float64)
    for count in range(1, SMALL.acoustic_quantizers + 1):
        quantized, codes, *_ = theirs(x.transpose(1, 2), count)
        assert torch.equal(ours.encode(x, count), codes)
        torch.testing.assert_close(ours.decode(codes), quantized.transpose(1, 2))


def test_a_row_learns_from_the_quantizers_it_gets() -> None:
    torch.manual_seed(0)
    quantizer = ResidualVQ(SMALL)
    x, mask = torch.randn(3, 9, SMALL.dim), torch.arange(9) < torch.tensor([9, 4, 7])[:, None]
    counts = torch.tensor([5, 0, 2])
    together = quantizer(x, mask, counts, total=7.0)
    loss = torch.zeros(())
    for row, count in enumerate(counts.tolist()):
        own = x[row : row + 1, : int(mask[row].sum())]
        residual = own
        for part in list(quantizer.quantizers)[:count]:
            output = part(residual, None, 7.0)
            loss = loss + output.loss
            residual = residual - output.latent
        torch.testing.assert_close(together.latent[row : row + 1, : own.shape[1]], own - residual)
    torch.testing.assert_close(together.loss, loss)
    drawn = HybridQuantizer(SMALL, exported=True).draw_counts(torch.rand(200_000, DRAWS))
    shares = torch.bincount(drawn, minlength=6) / 200_000
    assert shares[0] == pytest.approx(SMALL.acoustic_bypass, abs=0.005)
    assert shares[1:].tolist() == pytest.approx([(1 - SMALL.acoustic_bypass) / 5] * 5, abs=0.005)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"acoustic_blocks": 0, "semantic_decoder_blocks": 0},  # HC-SE
        {
            "acoustic_blocks": 0,
            "weight_norm": False,
            "semantic_dim": 20,
            "codebook_transform_dim": 16,
        },  # older
    ],
)
def test_folded_quantizers_code_as_they_were_trained(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, **changes)
    trained = HybridQuantizer(config, exported=False).double().eval()
    folded = HybridQuantizer(config, exported=True).double().eval()
    tensors = trained.state_dict() | trained.folded()
    folded.load_state_dict({name: tensors[name] for name in folded.state_dict()})
    assert isinstance(folded.acoustic, FoldedResidualVQ)
    x = torch.randn(2, 50, SMALL.dim, dtype=torch.float64)
    for count in range(1, SMALL.acoustic_quantizers + 2):
        codes = trained.encode(x, count)
        assert codes.shape == (2, count, 50) and torch.equal(folded.encode(x, count), codes)
        ours, theirs = folded.decode(codes), trained.decode(codes)
        torch.testing.assert_close(ours.semantic, theirs.semantic)
        torch.testing.assert_close(ours.acoustic, theirs.acoustic)
    # residual codes come nearer and nearer, and the streams are what they are called
    left = trained.acoustic_encoder(x - theirs.semantic)
    assert torch.equal(trained.acoustic.encode(left, SMALL.acoustic_quantizers), codes[:, 1:])
    for index in range(SMALL.acoustic_quantizers + 1):
        book = trained.effective_codebook(index)
        torch.testing.assert_close(folded.effective_codebook(index), book)
    entries = sum(
        F.embedding(codes[:, index + 1], trained.effective_codebook(index + 1))
        for index in range(SMALL.acoustic_quantizers)
    )
    torch.testing.assert_close(theirs.acoustic, trained.acoustic_decoder(entries))
    counts = torch.tensor(
        [0, 2]
    )  # and in training and on settled codes, a row gets the streams that are its own
    few = trained.decode_some(codes, counts)
    mask = torch.ones(2, 50, dtype=torch.bool)
    learned = trained(x, mask, counts=counts).latents
    assert not few.acoustic[0].any() and not learned.acoustic[0].any()
    torch.testing.assert_close(learned.sum, few.sum)
    torch.testing.assert_close(few.sum[1:], trained.decode(codes[1:, :3]).sum)


def test_what_teaches_the_semantic_stream() -> None:
    """Reconstruction does where a row has no acoustic codes; elsewhere the acoustic stream makes up for any change."""
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, acoustic_blocks=0, weight_norm=False, semantic_dim=20)
    quantizer = HybridQuantizer(config, exported=False)
    for part in quantizer.acoustic.quantizers:  # straight through in all dimensions there are
        nn.init.orthogonal_(part.in_proj.weight)
        part.out_proj.weight.data.copy_(part.in_proj.weight.T)
    x, mask = torch.randn(1, 8, config.dim), torch.ones(1, 8, dtype=torch.bool)

    def gradient(count: int) -> torch.Tensor:
        quantizer.zero_grad()
        output = quantizer(x, mask, counts=torch.tensor([count]))
        (output.latents.sum * seed).sum().backward()
        return quantizer.semantic.proj_out.bias.grad

    seed = torch.randn(1, 8, config.dim)
    alone, beside = gradient(0), gradient(1)
    torch.testing.assert_close(alone, seed.sum(dim=(0, 1)))
    # one quantizer passes on what lies in its dimensions: that much is taken back
    projection = quantizer.acoustic.quantizers[0].in_proj.weight
    torch.testing.assert_close(beside, alone - alone @ projection.T @ projection)


@torch.no_grad()
@pytest.mark.parametrize("transform_dim", [None, 64])
def test_codebooks_start_where_the_latents_are(transform_dim: int | None) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, codebook_dim=6, codebook_transform_dim=transform_dim)
    vq = FactorizedVQ(config, 24, 2_000, exported=False)
    # far from the origin, long in some directions: what fresh entries would hardly meet
    latent = 3.0 + torch.randn(4_000, 24) @ torch.randn(24, 24)
    vq.start_from(latent)
    projected, entries = vq.in_proj(latent), vq.entries()
    torch.testing.assert_close(entries.mean(0), projected.mean(0), atol=0.3 * projected.std().item(), rtol=0)
    spread = projected.std(dim=0) * (1.0 if transform_dim else 1.09**0.5)  # entries drawn are moved by 0.3
    torch.testing.assert_close(entries.std(dim=0), spread, rtol=0.15, atol=0)
    assert vq.encode(latent[None]).unique().numel() > 1_200
    # what a latent has in its principal directions comes back, and that is most of it
    torch.testing.assert_close(vq.in_proj(vq.out_proj(projected)), projected, atol=1e-3, rtol=1e-3)
    energy = torch.linalg.eigvalsh(latent.T @ latent).flip(0)
    assert projected.square().sum() / latent.square().sum() == pytest.approx(
        float(energy[:6].sum() / energy.sum()), rel=1e-4
    )
    if transform_dim:  # moments are matched exactly
        torch.testing.assert_close(torch.cov(entries.T), torch.cov(projected.T), rtol=1e-2, atol=1e-2)
