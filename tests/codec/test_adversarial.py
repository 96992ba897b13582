"""Adversarial losses are those of the formulas, for batches with and without padding, whole or in parts."""

import math

import pytest
import torch
from torch import Tensor

from codec.losses.adversarial import (
    Adversary,
    AudioPair,
    RowWeights,
    crop_pair,
    discriminator_losses,
    generator_losses,
)
from codec.losses.config import DiscriminatorWeights
from codec.losses.discriminators import DiscriminatorOutput, GANLoss, build_discriminators
from codec.training.step import StepOutput
from tests.codec.small_codecs import speech_like
from tests.codec.training_runs import DISCRIMINATORS


def outputs(rows: int, seed: int) -> list[DiscriminatorOutput]:
    """Two sub-discriminators with maps of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        DiscriminatorOutput(draw(rows, 1, 10, 3), [draw(rows, 4, 20, 3), draw(rows, 2, 10, 3)]),
        DiscriminatorOutput(draw(rows, 1, 6, 1), [draw(rows, 5, 12, 1)]),
    ]


def full_rows(rows: int) -> RowWeights:
    return RowWeights(share=torch.ones(rows).double(), weight=torch.full((rows,), 1 / rows).double())


def test_hinge_losses_are_those_of_vocos() -> None:
    from vocos.loss import DiscriminatorLoss, FeatureMatchingLoss, GeneratorLoss

    real, fake = outputs(3, 0), outputs(3, 1)
    scores = [[out.score for out in entry] for entry in (real, fake)]
    features = [[out.features for out in entry] for entry in (real, fake)]
    ours = generator_losses("hinge", real, fake, full_rows(3))
    torch.testing.assert_close(ours.adversarial, GeneratorLoss()(scores[1])[0][0] / 2)
    torch.testing.assert_close(ours.feature_matching, FeatureMatchingLoss()(*features)[0] / 2)
    theirs = discriminator_losses("hinge", real, fake, full_rows(3))
    torch.testing.assert_close(theirs.loss, DiscriminatorLoss()(*scores)[0][0] / 2)


def test_least_squares_losses_are_sums_over_the_parts() -> None:
    real, fake = outputs(3, 0), outputs(3, 1)
    ours = generator_losses("least-squares", real, fake, full_rows(3))
    torch.testing.assert_close(ours.adversarial, sum(((1 - out.score) ** 2).mean() for out in fake))
    matching = sum(
        (a - b).abs().mean()
        for one, other in zip(real, fake, strict=True)
        for a, b in zip(one.features, other.features, strict=True)
    )
    torch.testing.assert_close(ours.feature_matching, matching)
    theirs = discriminator_losses("least-squares", real, fake, full_rows(3))
    wanted = sum(
        ((1 - one.score) ** 2).mean() + (other.score**2).mean() for one, other in zip(real, fake, strict=True)
    )
    torch.testing.assert_close(theirs.loss, wanted)


@pytest.mark.parametrize(("kind", "middle"), [("hinge", 0.0), ("least-squares", 0.5)])
def test_accuracy_is_the_share_of_right_verdicts(kind: GANLoss, middle: float) -> None:
    real, fake = outputs(3, 0), outputs(3, 1)
    found = discriminator_losses(kind, real, fake, full_rows(3))
    right = [(out.score > middle).double().mean() for out in real]
    seen = [(out.score <= middle).double().mean() for out in fake]
    assert float(found.accuracy_real) == pytest.approx(float(sum(right)) / 2)
    assert float(found.accuracy_fake) == pytest.approx(float(sum(seen)) / 2)


def test_a_row_counts_by_its_frames_and_by_its_own_positions() -> None:
    real, fake = outputs(2, 0), outputs(2, 1)
    frames = torch.tensor([9.0, 4.0]).double()
    rows = RowWeights(share=torch.tensor([1.0, 0.41]).double(), weight=frames / 13)
    found = generator_losses("least-squares", real, fake, rows).adversarial
    slow = 0.0
    for out, own in zip(fake, (5, 3), strict=True):  # ceil(0.41 * 10), ceil(0.41 * 6)
        squares = (1 - out.score) ** 2
        slow = slow + 9 / 13 * squares[0].mean() + 4 / 13 * squares[1, :, :own].mean()
    torch.testing.assert_close(found, torch.as_tensor(slow))


def adversary() -> Adversary:
    return Adversary(build_discriminators(DISCRIMINATORS, DISCRIMINATORS, seed=0)).double()


def audio_pair() -> AudioPair:
    frames = torch.tensor([5, 3, 4])
    real, fake = (speech_like(3, 5_000, seed=seed).double()[:, None] for seed in (0, 1))
    return AudioPair(real, fake, 1_000 * frames, frames)


def part_of(batch: AudioPair, rows: slice) -> AudioPair:
    return AudioPair(batch.real[rows], batch.fake[rows], batch.lengths[rows], batch.frames[rows])


def test_the_parts_of_a_batch_add_up() -> None:
    module, batch, names = adversary(), audio_pair(), sorted(DISCRIMINATORS)
    weights = {name: DiscriminatorWeights(0.5, 2.0) for name in names}
    whole = module({"waveform": batch}, names, 12.0) | {
        f"codec {key}": value
        for key, value in module.generator_losses({"waveform": batch}, weights, 12.0).items()
    }
    parts: dict[str, Tensor] = {}
    for rows in (slice(0, 1), slice(1, 3)):
        part = part_of(batch, rows)
        found = module({"waveform": part}, names, 12.0)
        found |= {
            f"codec {key}": value
            for key, value in module.generator_losses({"waveform": part}, weights, 12.0).items()
        }
        parts = {key: parts.get(key, 0.0) + value for key, value in found.items()}
    assert len(whole) == 3 * 3 + 1 + 3 * 2 + 1
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, atol=1e-12, rtol=1e-10)
    names_of = [key for key in whole if key.startswith("codec ") and "/" in key]
    slow = sum(whole[key] * (0.5 if key.endswith("adversarial") else 2.0) for key in names_of)
    torch.testing.assert_close(whole["codec loss"], slow)


def test_gradients_go_where_they_belong() -> None:
    module, batch, names = adversary(), audio_pair(), sorted(DISCRIMINATORS)
    batch.fake.requires_grad_()
    weights = {name: DiscriminatorWeights() for name in names}
    module.generator_losses({"waveform": batch}, weights, 12.0)["loss"].backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    gradient = batch.fake.grad
    assert gradient is not None
    for row, length in enumerate(batch.lengths.tolist()):
        assert gradient[row, :, :length].any() and not gradient[row, :, length:].any()
    batch.fake.grad = None
    module({"waveform": batch}, names, 12.0)["loss"].backward()
    assert batch.fake.grad is None
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_crop_lies_in_each_rows_own_audio() -> None:
    recording = torch.arange(5_000.0).expand(3, 1, -1).contiguous()
    frames = torch.tensor([5, 3, 1])
    whole = AudioPair(recording, -recording, 1_000 * frames, frames)
    for place in (0.0, 0.37, 0.999999, math.nextafter(1.0, 0.0)):
        crop = crop_pair(whole, 2_000, place)
        assert torch.equal(crop.fake, -crop.real)
        assert crop.lengths.tolist() == [2_000, 2_000, 1_000]
        assert crop.frames.tolist() == [5, 3, 1]
        starts = crop.real[:, 0, 0].tolist()
        assert starts == [int(place * 3_001), int(place * 1_001), 0]
        assert torch.equal(crop.real[0, 0], torch.arange(2_000.0) + starts[0])
    mels = torch.stack([recording[:, 0], recording[:, 0] + 0.5], dim=1)  # two bands
    cropped = crop_pair(AudioPair(mels, -mels, whole.lengths, frames), 2_000, 0.37)
    assert torch.equal(cropped.real[:, :1], crop_pair(whole, 2_000, 0.37).real)
    assert torch.equal(cropped.real[:, 1], cropped.real[:, 0] + 0.5)
    uncropped = crop_pair(whole, None, 0.4)
    assert torch.equal(uncropped.real, recording) and uncropped.lengths.tolist() == [5_000, 3_000, 1_000]


def test_mel_and_waveform_are_cut_to_the_same_stretch() -> None:
    recording = torch.arange(8_000.0)[None, None]
    frames = torch.tensor([8])
    mel = recording[..., ::100]  # a hop of 100 samples
    mels = AudioPair(mel, -mel, torch.tensor([80]), frames)
    output = StepOutput({}, recording, -recording, frames, mels, usage=None)
    pairs = output.judged(1_000, 2_000, 0.37)
    assert pairs["mel"].real.shape[-1] == 20 and pairs["waveform"].real.shape[-1] == 2_000
    assert abs(float(pairs["mel"].real[0, 0, 0] - pairs["waveform"].real[0, 0, 0])) < 100
    assert output.judged(1_000, None, 0.37)["mel"].real.shape[-1] == 80


def test_a_discriminator_of_mels_judges_mels() -> None:
    frames = torch.tensor([6, 3])
    real, fake = (torch.randn(2, 100, 24).double() - 5 for _ in range(2))
    mels = AudioPair(real, fake.requires_grad_(), 4 * frames, frames)
    module = Adversary(build_discriminators(["mel"], {"mel": {"channels": 4}}, seed=0)).double()
    weights = {"mel": DiscriminatorWeights(1.0, 2.0)}
    whole = module.generator_losses({"mel": mels}, weights, 9.0)["loss"]
    whole.backward()
    gradient = fake.grad
    assert gradient is not None and gradient[1, :, :12].any() and not gradient[1, :, 12:].any()
    # what lies beyond a row's length does not matter, and rows add up
    spoilt = AudioPair(
        real, torch.cat([fake[..., :12], fake[..., 12:] + 5], dim=2).detach(), 4 * frames, frames
    )
    second = part_of(spoilt, slice(1, 2))
    rows = [
        module.generator_losses({"mel": one}, weights, 9.0)["loss"]
        for one in (part_of(mels, slice(0, 1)), second)
    ]
    torch.testing.assert_close(sum(rows), whole)
    opinion = module({"mel": mels}, ["mel"], 9.0)
    assert opinion["loss"] > 0 and set(opinion) == {"loss", *(f"mel/{kind}" for kind in KINDS)}


KINDS = ("discriminator", "accuracy_real", "accuracy_fake")
