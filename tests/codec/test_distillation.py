"""Distillation: features placed in time, a loss that adds up, and a run that uses it only when told to."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import HubertModel

from codec.foundation import UserError
from codec.losses.config import LossWeights
from codec.losses.semantic import DistillationHead, SSLTeacher, distillation_centres
from codec.training.loop import train_codec
from tests.codec.small_codecs import speech_like
from tests.codec.training_runs import (
    CODES,
    forget_accelerator,
    log_of,
    run_config,
    save_teacher,
    speech_data,
    tensors_at,
)


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


def test_features_of_a_click_are_where_the_click_is(teacher_path: Path) -> None:
    # the first hidden state lies before all attention: what it says of a time is said of that time only
    teacher = SSLTeacher(str(teacher_path), layer=0)
    samples, rate = 24_000 * 6, 24_000
    quiet = 0.01 * torch.randn(1, samples, generator=torch.Generator().manual_seed(1))
    centres = distillation_centres(samples // 1_000, 24.0, torch.device("cpu"))
    assert len(centres) == 2 * samples // 1_000
    lengths = torch.tensor([samples])
    without = teacher(quiet, lengths, rate, centres)
    assert without.shape == (1, len(centres), 16)
    half_frame = 500 / rate
    late = []
    for time in (0.2, 0.4, 0.613, 1.0, 1.7, 2.517, 3.333, 4.09, 4.8, 5.8):
        clicked = quiet.clone()
        clicked[0, round(time * rate) : round(time * rate) + 24] += 1.0
        moved = (teacher(clicked, lengths, rate, centres) - without).abs().sum(dim=-1)[0]
        # the j-th feature is for the j-th half of a frame, whatever the centres say
        centre = (moved * (torch.arange(len(moved)) + 0.5)).sum() / moved.sum() * half_frame
        assert centre == pytest.approx(time, abs=0.012)
        late.append(float(centre) - time - 12 / rate)  # the click's middle
        assert (moved[(centres - time).abs() > 0.06] < 1e-3 * moved.max()).all()
    # half a step of features or of centres is 10 ms
    assert sum(late) / len(late) == pytest.approx(0, abs=0.002)


def test_features_are_those_of_the_model_at_its_own_frames(teacher_path: Path) -> None:
    """At the centre of a feature's receptive field nothing is interpolated: 400 samples wide, 320 apart, at 16 kHz."""
    model = HubertModel.from_pretrained(teacher_path).eval()
    audio = speech_like(1, 32_000)
    with torch.no_grad():
        states = model(torch.nn.functional.pad(audio, (0, 400)), output_hidden_states=True).hidden_states
    centres = (torch.arange(90) * 320 + 200) / 16_000
    lengths = torch.tensor([32_000])
    averaged = SSLTeacher(str(teacher_path), layer=None)(audio, lengths, 16_000, centres)
    torch.testing.assert_close(averaged, torch.stack(states).mean(0)[:, :90], atol=1e-4, rtol=1e-4)
    last = SSLTeacher(str(teacher_path), layer=2)(audio, lengths, 16_000, centres)
    torch.testing.assert_close(last, states[2][:, :90], atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match=r"teacher_layer is 3: .* has hidden states 0 to 2"):
        SSLTeacher(str(teacher_path), layer=3)


def test_a_teacher_that_wants_it_hears_normalized_audio(teacher_path: Path, tmp_path: Path) -> None:
    HubertModel.from_pretrained(teacher_path).save_pretrained(tmp_path)
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(extractor))
    audio, samples = speech_like(2, 24_000), torch.tensor([24_000, 9_600])
    audio[1, 9_600:] = 0.0
    centres = distillation_centres(24, 24.0, torch.device("cpu"))
    features = SSLTeacher(str(tmp_path), None)(audio, samples, 24_000, centres)
    louder = SSLTeacher(str(tmp_path), None)(0.3 * audio, samples, 24_000, centres)
    torch.testing.assert_close(features, louder, atol=1e-4, rtol=1e-3)
    plain = SSLTeacher(str(teacher_path), None)(audio, samples, 24_000, centres)
    assert (features - plain).abs().max() > 0.01
    alone = SSLTeacher(str(tmp_path), None)(audio[1:, :9_600], samples[1:], 24_000, centres[:19])
    # resampling sees the cut, and attention the silence behind it; the level does not change
    assert (features[1, :17] - alone[0, :17]).abs().mean() < 0.05 * alone.abs().mean()


def test_autocast_does_not_reach_what_the_teacher_hears(teacher_path: Path) -> None:
    teacher = SSLTeacher(str(teacher_path), layer=0)
    heard = []
    teacher.model.register_forward_pre_hook(lambda model, inputs: heard.append(inputs[0]))
    audio, samples = speech_like(1, 24_000), torch.tensor([24_000])
    centres = distillation_centres(24, 24.0, torch.device("cpu"))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            teacher(audio, samples, 24_000, centres)
    assert heard[1].dtype == torch.float32 and torch.equal(*heard)


def test_the_loss_is_its_definition_row_by_row_and_adds_up() -> None:
    torch.manual_seed(0)
    head = DistillationHead(8, 5)
    quantized, features = torch.randn(2, 10, 8), torch.randn(2, 20, 5)
    mask = torch.arange(10) < torch.tensor([10, 4])[:, None]
    found = head(quantized, features, mask)
    slow = 0.0
    for row, frames in enumerate((10, 4)):
        predicted = head.conv_transpose(quantized[row : row + 1, :frames].transpose(1, 2))[
            0
        ]  # (5, 2 * frames)
        wanted = features[row, : 2 * frames].T
        cosine = (predicted * wanted).sum(1) / (predicted.norm(dim=1) * wanted.norm(dim=1))
        slow = slow + frames * -torch.sigmoid(cosine).log().mean()
    torch.testing.assert_close(found, slow / 14)
    garbage = torch.where(mask[..., None], quantized, 100.0)
    torch.testing.assert_close(head(garbage, features, mask), found)
    parts = sum(head(quantized[i : i + 1], features[i : i + 1], mask[i : i + 1], 14.0) for i in (0, 1))
    torch.testing.assert_close(parts, found)


def test_a_run_distils_only_when_told_to(teacher_path: Path, tmp_path: Path) -> None:
    forget_accelerator()
    stage = dataclasses.replace(CODES, steps=2)
    train_codec(run_config(tmp_path / "without", stage), speech_data())
    assert "distillation" not in log_of(tmp_path / "without")[0]
    distilled = dataclasses.replace(stage, losses=LossWeights(distillation=10.0))
    train_codec(
        run_config(tmp_path / "with", distilled, teacher=str(teacher_path), keep_last=3, checkpoint_every=1),
        speech_data(),
    )
    first = log_of(tmp_path / "with")[0]
    assert first["mel"] == log_of(tmp_path / "without")[0]["mel"]  # the same start
    assert first["loss"] == pytest.approx(
        45 * first["mel"] + 1_000 * first["vq"] + 10 * first["distillation"], rel=1e-5
    )
    weight = "model/distillation.conv_transpose.weight"
    assert not torch.equal(tensors_at(tmp_path / "with", 1)[weight], tensors_at(tmp_path / "with", 2)[weight])
    assert not any("teacher" in name for name in tensors_at(tmp_path / "with", 2))
    with pytest.raises(UserError, match="there is no teacher"):
        run_config(tmp_path / "nobody", distilled)
    with pytest.raises(UserError, match="there is a teacher, but no stage"):
        run_config(tmp_path / "idle", stage, teacher=str(teacher_path))
    with pytest.raises(UserError, match="cannot load the teacher nowhere"):
        train_codec(run_config(tmp_path / "absent", distilled, teacher="nowhere"), speech_data())
    forget_accelerator()
