import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from codec.foundation import UserError
from slm.generation.config import SamplingConfig
from slm.generation.generate import draw, sample, warp


# a flat distribution, whose nucleus is most of the vocabulary, and a steep one
@example(0, 3.0, 0, 0.95, 1.0, 600)
@example(0, 0.5, 0, 0.9, 8.0, 600)
@settings(max_examples=25)
@given(
    st.integers(0, 2**31),
    st.floats(0.1, 3.0),
    st.integers(0, 60),
    st.floats(0.01, 1.0),
    st.sampled_from([1.0, 8.0]),
    st.sampled_from([50, 600]),
)
def test_warping_equals_that_of_transformers(seed, temperature, top_k, top_p, spread, vocabulary):
    logits = (
        torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        * spread
    )
    logits[:, ::7] = -torch.inf
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    torch.testing.assert_close(
        warp(logits, SamplingConfig(temperature, top_k, top_p)), expected, rtol=0, atol=0
    )


def test_draws_follow_the_distribution():
    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(0)) * 2
    logits[0, [0, 11, 29]] = -torch.inf
    count = 10_000
    tokens = draw(logits.expand(count, -1), (torch.arange(count, dtype=torch.float64) + 0.5) / count)
    share = torch.bincount(tokens, minlength=30) / count
    # Evenly spaced uniforms leave nothing to chance: each token's share is right to one draw.
    assert (share - logits[0].softmax(0)).abs().max() <= 1.01 / count


def test_what_is_closed_is_never_drawn():
    logits = torch.full((3, 6), -torch.inf)
    logits[:, 2], logits[:, 4] = 0.0, -20.0
    edges = torch.tensor([0.0, 0.5, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert set(draw(logits, edges).tolist()) <= {2, 4}


def test_a_temperature_of_zero_takes_the_likeliest():
    logits = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    history = torch.zeros(5, 4, dtype=torch.int64)
    chosen = sample(logits, history, torch.rand(5, 2), SamplingConfig(temperature=0.0))
    assert torch.equal(chosen, logits.argmax(1))


def test_a_repeated_token_is_drawn_again_from_the_whole_distribution():
    # Token 3 is nearly certain after warping, but has half of the model's own distribution.
    logits = torch.zeros(1, 5).index_fill(1, torch.tensor([3]), float(np.log(4.0)))
    config = SamplingConfig(temperature=0.2, top_p=0.9, repetition_window=10, repetition_threshold=0.3)
    count = 4000
    uniforms = torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uniforms[:, 1] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    for repeats, expected in ((2, 1.0), (3, 0.5)):
        history = torch.tensor([[3] * repeats + [0] * (10 - repeats)]).expand(count, -1)
        tokens = sample(logits.expand(count, -1), history, uniforms, config)
        assert (tokens == 3).double().mean().item() == pytest.approx(expected, abs=2e-3), repeats


def test_only_the_window_counts_and_a_threshold_above_one_turns_it_off():
    logits = torch.full((1, 5), -30.0).index_fill(1, torch.tensor([3]), 0.0)
    logits[0, 1] = -2.0
    late = torch.tensor([[0.0, 1.0 - 1e-9]], dtype=torch.float64)
    early = torch.tensor([[0.0, 1e-6]], dtype=torch.float64)
    history = torch.tensor([[3] * 20 + [1] * 4])
    inside = SamplingConfig(repetition_window=10, repetition_threshold=0.6)
    assert (
        sample(logits, history, early, inside).item() == 1
    )  # six of the last ten: drawn again, now the other
    assert sample(logits, history, late, inside).item() == 3
    outside = SamplingConfig(repetition_window=4, repetition_threshold=0.25)
    assert sample(logits, history, early, outside).item() == 3
    off = SamplingConfig(repetition_window=10, repetition_threshold=1.1)
    assert sample(logits, history, early, off).item() == 3


def test_nothing_repeats_at_the_beginning():
    logits = torch.zeros(1, 4)
    empty = torch.full((1, 10), -1)
    uniforms = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    config = SamplingConfig(temperature=1.0, top_p=1.0, repetition_threshold=0.1)
    assert sample(logits, empty, uniforms, config).item() == 1


@pytest.mark.parametrize("field, value", [("temperature", -1), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.2)])
def test_settings_without_meaning_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        SamplingConfig(**{field: value})
