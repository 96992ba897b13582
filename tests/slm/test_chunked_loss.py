import pytest
import torch
import torch.nn.functional as F

from slm.training.loss import places_at_once, weighted_cross_entropy


def example(dtype: torch.dtype, bias: bool, places: int = 23, vocabulary: int = 41, dim: int = 7):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(places, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    shift = torch.randn(vocabulary, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (places,), generator=generator)
    loss_weights = torch.rand(places, generator=generator)
    return hidden, weight, shift if bias else None, targets, loss_weights


@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize(("bias", "z_loss"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_it_equals_plain_cross_entropy_and_so_do_its_gradients(chunk, bias, z_loss):
    hidden, weight, shift, targets, loss_weights = example(torch.float64, bias)
    parameters = [hidden, weight, *([shift] if bias else [])]
    logits = F.linear(hidden, weight, shift)
    plain = F.cross_entropy(logits, targets, reduction="none")
    expected = ((plain + z_loss * logits.exp().sum(-1).log() ** 2) * loss_weights).sum()
    wanted = torch.autograd.grad(3.0 * expected, parameters)
    loss, nats = weighted_cross_entropy(hidden, weight, shift, targets, loss_weights, chunk, z_loss)
    torch.testing.assert_close(nats, plain.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-13)
    for one, other in zip(torch.autograd.grad(3.0 * loss, parameters), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    assert not nats.requires_grad


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, targets, loss_weights = example(torch.float64, False)
    loss, _ = weighted_cross_entropy(hidden, weight.detach(), None, targets, loss_weights, 4)
    loss.backward()
    assert hidden.grad is not None and weight.grad is None
    with torch.no_grad():
        loss, _ = weighted_cross_entropy(hidden, weight, None, targets, loss_weights, 4)
    assert not loss.requires_grad


def test_under_autocast_it_multiplies_as_the_head_would():
    hidden, weight, _, targets, loss_weights = example(torch.float32, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = F.linear(hidden, weight)
        assert logits.dtype == torch.bfloat16
        plain = F.cross_entropy(logits.float(), targets, reduction="none")
        loss, nats = weighted_cross_entropy(hidden, weight, None, targets, loss_weights, 6)
    torch.testing.assert_close(nats, plain.detach(), rtol=1e-6, atol=1e-6)
    expected = torch.autograd.grad((plain * loss_weights).sum(), [hidden, weight])
    for one, other in zip(torch.autograd.grad(loss, [hidden, weight]), expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.03)  # a bfloat16 has 8 bits


def test_no_more_logits_are_held_than_were_allowed():
    held: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                held.append(result.numel())
            return result

    hidden, weight, _, targets, loss_weights = example(torch.float32, False, places=600, vocabulary=999)
    chunk = places_at_once(600, 999, torch.float32, mib=0.05)
    assert chunk == int(0.05 * 2**20 / (999 * 4))
    with Watch():
        weighted_cross_entropy(hidden, weight, None, targets, loss_weights, chunk)[0].backward()
    assert max(held) <= chunk * 999  # 600 * 999 for the plain loss
    assert (
        places_at_once(10, 10**9, torch.float32, 1.0) == 1 and places_at_once(10, 5, torch.float32, 1.0) == 10
    )
