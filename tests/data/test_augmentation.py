"""Augmentation: every change is measured, and what it should not change is compared."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codec.foundation import UserError
from codec.training.batches import collate
from data.augmentation import (
    at_speed,
    babble,
    band_limited,
    coloured_noise,
    draw,
    reverberated,
    room_response,
    with_noise,
)
from data.config import Augmentation
from data.corpora import Utterance, Word
from data.segments import Labeller, SegmentDataset

RATE = 24_000


def noise(samples: int = 2 * RATE, seed: int = 0) -> torch.Tensor:
    return coloured_noise(samples, 0.0, np.random.default_rng(seed))


def tone(frequency: float, samples: int = RATE) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(samples) / RATE)


def peak_hz(waveform: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return float(spectrum.argmax()) * RATE / len(waveform)


@pytest.mark.parametrize("speed", [0.88, 0.95, 1.0, 1.12])
def test_speed_moves_length_and_pitch_together(speed: float) -> None:
    faster = at_speed(tone(1000.0), speed)
    assert len(faster) == pytest.approx(RATE / speed, abs=1)
    assert peak_hz(faster) == pytest.approx(1000.0 * speed, rel=2e-3)


@pytest.mark.parametrize("limit", [8000.0, 4000.0])
def test_nothing_is_left_above_a_band_limit(limit: float) -> None:
    before = noise()
    power = torch.fft.rfft(band_limited(before, limit, RATE)).abs().square()
    whole = torch.fft.rfft(before).abs().square()
    bins = torch.linspace(0, RATE / 2, len(power))
    assert power[bins > limit].sum() < 1e-9 * power.sum()
    below = bins < 0.9 * limit
    torch.testing.assert_close(power[below], whole[below], rtol=1e-2, atol=1.0)


@pytest.mark.parametrize("rt60", [0.1, 0.25, 0.4])
def test_a_room_falls_by_60_db_in_its_rt60(rt60: float) -> None:
    room = room_response(rt60, 6.0, RATE, np.random.default_rng(3)).double()
    tail = room[1:].square()
    assert 10 * math.log10(1.0 / float(tail.sum())) == pytest.approx(6.0, abs=0.1)
    # Schroeder's backward integration, from -5 to -25 dB, where the end that is cut does not count
    decay = 10 * torch.log10(tail.flip(0).cumsum(0).flip(0) / tail.sum())
    inside = (decay < -5) & (decay > -25)
    times = torch.nonzero(inside)[:, 0].double() / RATE
    slope = np.polyfit(times.numpy(), decay[inside].numpy(), 1)[0]
    assert -60.0 / slope == pytest.approx(rt60, rel=0.15)


def test_a_room_keeps_length_and_loudness() -> None:
    dry = noise()
    wet = reverberated(dry, room_response(0.3, 3.0, RATE, np.random.default_rng(0)))
    assert wet.shape == dry.shape
    assert float(wet.square().mean() / dry.square().mean()) == pytest.approx(1.0, rel=1e-3)
    assert not torch.allclose(wet, dry, atol=0.1)


@pytest.mark.parametrize("snr", [0.0, 15.0, 40.0])
def test_noise_is_as_loud_as_asked_for(snr: float) -> None:
    clean = tone(300.0)
    for other in (
        noise(RATE),
        coloured_noise(RATE, 1.0, np.random.default_rng(2)),
        babble([noise(RATE)], RATE),
    ):
        added = with_noise(clean, other, snr) - clean
        measured = 10 * math.log10(float(clean.square().mean() / added.square().mean()))
        assert measured == pytest.approx(snr, abs=0.05)
    assert not with_noise(torch.zeros(100), noise(100), snr).any()


def test_pink_noise_falls_by_3_db_an_octave() -> None:
    power = torch.fft.rfft(coloured_noise(8 * RATE, 1.0, np.random.default_rng(5))).abs().square()
    octaves = [power[8 * f : 16 * f].mean().log10() * 10 for f in (500, 1000, 2000, 4000)]
    assert [float(a - b) for a, b in pairwise(octaves)] == pytest.approx([3.01] * 3, abs=0.4)


def test_babble_has_everybody_equally_loud() -> None:
    mixed = babble([10 * tone(200.0), 0.1 * tone(700.0, 4800), torch.zeros(7)], RATE)
    spectrum = torch.fft.rfft(mixed).abs()
    assert float(spectrum[200] / spectrum[700]) == pytest.approx(1.0, rel=0.2)


def test_probabilities_and_ranges_are_what_is_drawn() -> None:
    settings = Augmentation(speed=0.5, reverb=0.25, band=0.5, level=1.0, noise=0.3)
    drawn = [draw(settings, np.random.default_rng(number)) for number in range(2000)]
    assert np.mean([one.speed != 1.0 for one in drawn]) == pytest.approx(0.48, abs=0.04)
    assert np.mean([one.rt60 is not None for one in drawn]) == pytest.approx(0.25, abs=0.04)
    assert np.mean([one.snr_db is not None for one in drawn]) == pytest.approx(0.3, abs=0.04)
    assert {one.band for one in drawn} == {None, 8000.0, 4000.0}
    levels = [one.level_db for one in drawn]
    assert min(levels) < -23 and max(levels) > -1 and max(levels) - min(levels) > 20
    assert 0.88 <= min(one.speed for one in drawn) < 0.9 and 1.1 < max(one.speed for one in drawn) <= 1.12
    assert draw(settings, np.random.default_rng(7)) == drawn[7]
    # one probability does not move what is drawn for the others
    quiet = draw(Augmentation(reverb=0.25), np.random.default_rng(7))
    assert (quiet.rt60, quiet.speed) == (drawn[7].rt60, 1.0)


@pytest.mark.parametrize("wrong", [{"speed": 1.5}, {"snr_db": (40.0, 15.0)}, {"speed_range": 0.7}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Augmentation(**wrong)


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    made = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * noise(RATE * (number + 1), number).numpy().clip(-3, 3), RATE)
        words = (Word("one", 0.2, 0.4), Word("two", 0.5, 0.7))
        made.append(Utterance(str(number), str(path), text="one two", words=words))
    return made


def test_off_is_as_before(utterances: list[Utterance]) -> None:
    plain = SegmentDataset(utterances, RATE, 12_000, seed=1)
    off = SegmentDataset(utterances, RATE, 12_000, seed=1, augmentation=Augmentation())
    for index in range(12):
        assert torch.equal(plain[index]["waveform"], off[index]["waveform"])
        assert "heard" not in off[index]


def test_segments_are_a_function_of_their_number(utterances: list[Utterance]) -> None:
    settings = Augmentation(speed=1.0, reverb=0.5, band=0.5, level=1.0, noise=1.0)
    one, other = (SegmentDataset(utterances, RATE, 12_000, seed=1, augmentation=settings) for _ in range(2))
    for index in (9, 2, 2, 7):
        first, second = one[index], other[index]
        assert torch.equal(first["waveform"], second["waveform"])
        assert torch.equal(first["heard"], second["heard"])
    batch = collate([one[index] for index in range(4)])
    assert batch["heard"].shape == batch["waveform"].shape == (4, 12_000)
    plain = SegmentDataset(utterances, RATE, 12_000, seed=1)
    assert "heard" not in collate([plain[0], plain[1]])
    mixed = collate([plain[0], one[1]])  # corpora with noise and without in one batch
    assert torch.equal(mixed["heard"][0], mixed["waveform"][0])
    assert torch.equal(mixed["heard"][1], one[1]["heard"])


def test_noise_is_heard_only(utterances: list[Utterance]) -> None:
    plain = SegmentDataset(utterances, RATE, 12_000, seed=1)
    noisy = SegmentDataset(utterances, RATE, 12_000, seed=1, augmentation=Augmentation(noise=1.0))
    for index in range(6):
        segment = noisy[index]
        assert torch.equal(segment["waveform"], plain[index]["waveform"])
        difference = segment["heard"] - segment["waveform"]
        snr = 10 * math.log10(float(segment["waveform"].square().sum() / difference.square().sum()))
        assert 14.9 < snr < 40.1


def test_labels_move_with_the_speed(utterances: list[Utterance]) -> None:
    labeller = Labeller(utterances, RATE, "enotw ")
    settings = Augmentation(speed=1.0)
    dataset = SegmentDataset(utterances[:1], RATE, 2 * RATE, seed=1, labeller=labeller, augmentation=settings)
    for index in range(5):
        segment = dataset[index]
        assert len(segment["labels"]) == 7
        assert segment["span"].tolist() == pytest.approx([0, segment["length"]], abs=1)
        assert 0.87 * RATE < segment["length"] < 1.15 * RATE
