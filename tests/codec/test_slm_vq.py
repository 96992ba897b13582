"""SLM-VQ against slow definitions and an independent implementation."""

import pytest
import torch

from codec.hh_codec.configuration import SLMVQConfig
from codec.hh_codec.slm_vq import SLMVQ, nearest, rotate_to


def quantizer(gradient: str = "rotation", layers: int = 1) -> SLMVQ:
    torch.manual_seed(0)
    return SLMVQ(
        SLMVQConfig("slm-vq", 32, 8, 16, gradient=gradient, training_quantizers=layers), exported=False
    )  # type: ignore[arg-type]


def test_a_codebook_that_is_not_frozen_learns() -> None:
    for frozen in (True, False):
        torch.manual_seed(0)
        ours = SLMVQ(SLMVQConfig("slm-vq", 32, 8, 16, frozen=frozen), exported=False)
        before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
        optimizer = torch.optim.SGD(ours.parameters(), lr=0.5)
        ours(torch.randn(2, 30, 8)).loss.backward()
        optimizer.step()
        changed = {
            name.split(".")[0]
            for name, old in before.items()
            if not torch.equal(ours.state_dict()[name], old)
        }
        books = {"trained_codebook_0", "trained_codebook_1"}
        assert changed == {"code_transform"} | (set() if frozen else books)
        if not frozen:  # the same draws, in another role
            torch.manual_seed(0)
            same = SLMVQ(SLMVQConfig("slm-vq", 32, 8, 16), exported=False)
            assert torch.equal(before["trained_codebook_1"], same.get_buffer("frozen_codebook_1"))


def test_nearest_is_nearest() -> None:
    x, codebook = torch.randn(3, 50, 8), torch.randn(40, 8)
    slow = ((x[:, :, None] - codebook) ** 2).sum(-1).argmin(-1)
    assert torch.equal(nearest(x, codebook), slow)
    assert nearest(torch.zeros(2, 0, 8), codebook).shape == (2, 0)


def test_rotation_carries_value_and_gradient() -> None:
    x = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randn(20, 8, dtype=torch.float64)
    rotated = rotate_to(x, target)
    torch.testing.assert_close(rotated, target)
    upstream = torch.randn(20, 8, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(rotated, x, upstream)
    # the map is a rotation times |target| / |x|: lengths scale, and the angle between upstream and target is kept
    scale = target.norm(dim=1) / x.norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), upstream.norm(dim=1) * scale)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(gradient, x.detach()), cosine(upstream, target))


@pytest.mark.parametrize("gradient", ["rotation", "straight-through"])
def test_equals_vector_quantize_pytorch(gradient: str) -> None:
    reference = pytest.importorskip("vector_quantize_pytorch")
    ours = quantizer(gradient)
    theirs = reference.SimVQ(
        dim=8,
        codebook_size=32,
        codebook_transform=ours.code_transform,
        rotation_trick=gradient == "rotation",
        input_to_quantize_commit_loss_weight=0.25,
    )
    theirs.frozen_codebook.copy_(ours.frozen_codebook_0)
    first = torch.randn(2, 30, 8).mul_(0.3).requires_grad_()
    second = first.detach().clone().requires_grad_()
    out = ours(first)
    quantized, indices, loss = theirs(second)
    assert torch.equal(out.codes, indices)
    torch.testing.assert_close(out.latent, quantized)
    torch.testing.assert_close(out.loss, loss)
    upstream = torch.randn_like(quantized)
    gradients = [
        torch.autograd.grad((latent * upstream).sum() + value, [source, *ours.code_transform.parameters()])
        for latent, value, source in ((out.latent, out.loss, first), (quantized, loss, second))
    ]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_second_quantizer_joins_the_loss_and_not_the_latent() -> None:
    one, two = quantizer(layers=1), quantizer(layers=2)
    two.load_state_dict({**two.state_dict(), **one.state_dict()})
    x = torch.randn(2, 30, 8)
    first, second = one(x), two(x)
    torch.testing.assert_close(first.latent, second.latent)
    residual = x - first.latent
    codebook = two.effective_codebook(1)
    quantized = codebook[((residual[:, :, None] - codebook) ** 2).sum(-1).argmin(-1)]
    extra = 1.25 * (residual - quantized).square().mean()
    torch.testing.assert_close(second.loss, first.loss + extra)


def test_loss_ignores_padding_and_adds_up() -> None:
    model = quantizer(layers=2)
    x = torch.randn(2, 30, 8)
    mask = torch.arange(30) < torch.tensor([30, 11])[:, None]
    whole = model(x, mask).loss
    garbage = torch.where(mask[..., None], x, 100.0)
    torch.testing.assert_close(model(garbage, mask).loss, whole)
    parts = model(x[:1], mask[:1], total=41).loss + model(x[1:], mask[1:], total=41).loss
    torch.testing.assert_close(parts, whole)
