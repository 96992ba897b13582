"""Optimizer, average of weights and clock that both training loops use."""

import time

import pytest
import torch

from codec.foundation import AdamWConfig, ClippedAdamW, Stopwatch, UserError, WeightAverage


def small_layer() -> torch.nn.Linear:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2).double()
    (layer(torch.randn(5, 3).double()).square().sum() * 100).backward()
    return layer


def config_of(clip_norm: float) -> AdamWConfig:
    return AdamWConfig(learning_rate=0.1, betas=(0.5, 0.9), weight_decay=0.3, clip_norm=clip_norm)


@pytest.mark.parametrize("clip_norm", [0.25, 1e9, 0.0])
def test_the_gradient_is_clipped_as_a_whole(clip_norm: float) -> None:
    layer = small_layer()
    gradients = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    norm = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    optimizer = ClippedAdamW(layer.parameters(), config_of(clip_norm))
    assert float(optimizer.clip()) == pytest.approx(norm) and norm > 1
    scale = clip_norm / norm if clip_norm == 0.25 else 1.0
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * scale, rtol=1e-5, atol=0)


def test_an_update_without_a_finite_gradient_moves_nothing_and_too_many_are_an_error() -> None:
    layer = small_layer()
    optimizer = ClippedAdamW(layer.parameters(), config_of(1.0), name="stage optimizer")
    optimizer.update(0.01, is_finite=True, step=0)
    weights = [parameter.detach().clone() for parameter in layer.parameters()]
    for step in range(1, 20):
        layer.weight.grad = torch.full_like(layer.weight, torch.nan)
        optimizer.update(0.01, bool(optimizer.clip().isfinite()), step)
        assert optimizer.skipped == step and layer.weight.grad is None
    assert all(map(torch.equal, layer.parameters(), weights))
    state = optimizer.state[layer.weight]
    assert state["step"] == 1 and state["exp_avg"].isfinite().all()
    with pytest.raises(
        UserError, match=r"not been finite for 20 steps.* step 20: lower stage optimizer.lear"
    ):
        optimizer.update(0.01, is_finite=False, step=20)
    optimizer.update(0.01, is_finite=True, step=21)
    assert optimizer.skipped == 0


def test_only_matrices_decay_where_it_is_asked_for() -> None:
    layer = small_layer()
    decaying, others = ClippedAdamW(layer.parameters(), config_of(1.0), only_matrices_decay=True).param_groups
    assert decaying["weight_decay"] == 0.3 and decaying["params"][0] is layer.weight
    assert others["weight_decay"] == 0.0 and others["params"][0] is layer.bias
    assert [
        group["weight_decay"] for group in ClippedAdamW(layer.parameters(), config_of(1.0)).param_groups
    ] == [0.3]


def test_muon_moves_matrices_along_their_gradients_singular_vectors() -> None:
    layer = small_layer()
    assert layer.weight.grad is not None and layer.bias.grad is not None
    u, _, v = torch.linalg.svd(layer.weight.grad, full_matrices=False)
    bias_gradient = layer.bias.grad.clone()
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    optimizer = ClippedAdamW(layer.parameters(), config_of(0.0), muon=[layer.weight])
    optimizer.update(0.01, is_finite=True, step=0)
    moved = before[0] * (1 - 0.01 * 0.3) - layer.weight.detach()  # weight decay first
    # 0.2 sqrt(larger side) makes it as large as an update of AdamW; Muon's five iterations are near 1, not at it
    sizes = u.T @ moved @ v.T / (0.01 * 0.2 * 3**0.5)
    assert ((sizes.diagonal() > 0.6) & (sizes.diagonal() < 1.3)).all()
    assert (sizes - sizes.diagonal().diag()).abs().max() < 0.02
    # AdamW's first step is the rate, whatever the gradient's size
    expected = before[1] * (1 - 0.01 * 0.3) - 0.01 * bias_gradient.sign()
    torch.testing.assert_close(layer.bias.detach(), expected)
    assert layer.weight.grad is None and set(optimizer.parts) == {"optimizer", "muon"}


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2).double()
    module.bias.requires_grad_(False)
    average = WeightAverage(module.named_parameters(), decay=0.6)
    weights = [module.weight.detach().clone()]
    for number in range(1, 13):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3))
            module.bias.add_(1.0)
        weights.append(module.weight.detach().clone())
        average.update(number)
    slow = weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        decay = min(0.6, (1 + number) / (10 + number))
        slow = decay * slow + (1 - decay) * weight
    torch.testing.assert_close(average.averages["weight"], slow)
    assert torch.equal(average.averages["bias"], module.bias)
    own = module.weight.detach().clone()
    with average.swapped():
        torch.testing.assert_close(module.weight.detach(), slow)
        assert torch.equal(average.averages["weight"], own)
    assert torch.equal(module.weight, own)
    average.copy_to_weights("wei")
    torch.testing.assert_close(module.weight.detach(), slow)


def test_a_pause_does_not_count() -> None:
    watch = Stopwatch()
    with watch.paused():
        time.sleep(0.3)
    time.sleep(0.01)
    assert 0.01 <= watch.lap() < 0.25
    assert watch.lap() < 0.25
