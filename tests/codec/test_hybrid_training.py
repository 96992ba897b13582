"""HybridCodec learns: words into its first codes, and nothing of what taught them is in what is exported."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from codec import UserError, export_codec
from codec.loading import load_trained
from codec.losses.config import DiscriminatorWeights, LossWeights
from codec.losses.semantic import CharacterCTC
from codec.training.batches import TrainingData
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import train_codec
from tests.codec.training_runs import (
    CODES,
    DISCRIMINATORS,
    forget_accelerator,
    log_of,
    run_config,
    save_teacher,
    speech_data,
    tensors_at,
)

TONES = "abc"  # what is said is which tones are heard


@pytest.fixture(autouse=True)
def one_accelerator_a_test() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


class SpokenTones(Dataset[dict[str, Any]]):
    """Half a second of silence, two tones, silence; the labels are the tones."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = torch.Generator().manual_seed(index)
        tones = torch.randperm(3, generator=random)[:2]
        time = torch.arange(12_000) / 24_000
        waveform = 0.002 * torch.randn(12_000, generator=random)
        for place, tone in enumerate(tones.tolist()):
            part = slice(2_000 + 4_000 * place, 5_500 + 4_000 * place)
            waveform[part] += 0.3 * torch.sin(2 * torch.pi * (300, 1_000, 3_000)[tone] * time[part])
        return {"waveform": waveform, "length": 12_000, "labels": tones, "span": torch.tensor([0, 12_000])}


def spoken_data() -> TrainingData:
    return TrainingData(segments=lambda seconds: SpokenTones(), digest="tones", alphabet=TONES)


def test_first_codes_learn_what_is_said(tmp_path: Path) -> None:
    stage = Stage(
        steps=150,
        losses=LossWeights(mel=10, vq=5, ctc=5),
        optimizer=OptimizerConfig(learning_rate=4e-3),
        segment_seconds=0.5,
        batch_size=6,
    )
    train_codec(run_config(tmp_path / "run", stage, preset="hybrid-codec-tiny"), spoken_data())
    losses = [line["ctc"] for line in log_of(tmp_path / "run") if "ctc" in line]
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    codec = export_codec(load_trained(tmp_path / "run"))
    # the first codes alone, read by the head that taught them, say which tones are heard
    head = CharacterCTC(codec.config.quantizer_config.dim, len(TONES))
    tensors = tensors_at(tmp_path / "run", 150)
    head.load_state_dict({name: tensors[f"average/ctc.{name}"] for name in head.state_dict()})
    segments = [SpokenTones()[10_000 + index] for index in range(60)]
    codes = codec.encode(torch.stack([s["waveform"] for s in segments])[:, None]).audio_codes[:, :1]
    steps = head.proj(codec.codes_to_latents(codes).semantic).unflatten(2, (2, -1)).flatten(1, 2).argmax(-1)
    heard = [[c for c in row.unique_consecutive().tolist() if c < len(TONES)] for row in steps]
    said = [segment["labels"].tolist() for segment in segments]
    assert sum(ours == theirs for ours, theirs in zip(heard, said, strict=True)) >= 48
    names = codec.state_dict().keys()
    assert not [
        name for name in names if not name.startswith(("encoder.", "quantizer.", "decoder.", "vocoder."))
    ]


@pytest.mark.parametrize("preset", ["hybrid-codec-tiny", "hybrid-codec"])
def test_a_teacher_is_standardised_and_left_behind(preset: str, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher")
    losses = LossWeights(
        mel=0,
        waveform_mel=15,
        vq=20,
        distillation=10,
        discriminators={"multi_resolution": DiscriminatorWeights()},
    )
    train = ["encoder", "quantizer", "decoder", *(["vocoder"] if preset.endswith("tiny") else [])]
    stage = dataclasses.replace(CODES, steps=2, train=train, losses=losses)
    decoder = Stage(
        steps=2,
        train=train[2:],
        losses=LossWeights(mel=0, vq=0, waveform_mel=15),
        segment_seconds=0.25,
        batch_size=2,
    )
    config = run_config(
        tmp_path / "run",
        stage,
        decoder,
        preset=preset,
        teacher=str(teacher),
        teacher_layer=1,
        teacher_loss="l2",
        discriminators={"multi_resolution": DISCRIMINATORS["multi_resolution"]},
        checkpoint_every=1,
        evaluate_every=2,
        keep_last=9,
    )
    train_codec(config, speech_data(validation=True))
    first, last = tensors_at(tmp_path / "run", 1), tensors_at(tmp_path / "run", 4)
    assert (
        float(first["model/distillation.std"].min()) > 0 and first["model/distillation.mean"].abs().max() > 0
    )
    assert torch.equal(first["model/distillation.std"], last["model/distillation.std"])
    # standardised features have a mean square of 1, and fresh predictions hardly any
    log = log_of(tmp_path / "run")
    assert 0.5 < log[0]["distillation"] < 2.5
    validation = [line for line in log if "validation/low/waveform_mel_l1" in line]
    assert len(validation) == 2 and all("validation/low/first_mel_l1" in line for line in validation)
    final = load_trained(tmp_path / "run")
    names = export_codec(final).state_dict().keys()
    assert not [
        name for name in names if "distillation" in name or "teacher" in name or "parametrizations" in name
    ]
    fresh, settled = tensors_at(tmp_path / "run", 3), last
    codes = [name for name in settled if name.startswith(("model/model.encoder", "model/model.quantizer"))]
    assert codes and all(torch.equal(fresh[name], settled[name]) for name in codes)


def refusal(tmp_path: Path, preset: str, stage: Stage, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        train_codec(run_config(tmp_path / "refused", stage, preset=preset, **fields), speech_data())
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    assert "the training data have no transcripts" in refusal(
        tmp_path, "hybrid-codec-tiny", dataclasses.replace(CODES, losses=LossWeights(ctc=1))
    )
    assert "makes the waveform, with no mel before it" in refusal(tmp_path, "hybrid-codec", CODES)
    vocoder = dataclasses.replace(CODES, train=["vocoder"], losses=LossWeights(mel=0, waveform_mel=1, vq=0))
    assert "a stage trains vocoder: the parts of" in refusal(tmp_path, "hybrid-codec", vocoder)
    assert "initialize names 'vocoder': the parts are encoder, quantizer, decoder, or all" in refusal(
        tmp_path,
        "hybrid-codec",
        dataclasses.replace(CODES, losses=LossWeights(mel=0, waveform_mel=1)),
        initialize={"vocoder": "somewhere"},
    )
    with pytest.raises(UserError, match=r"losses\.ctc has to train the encoder"):
        Stage(train=["decoder"], losses=LossWeights(ctc=1, vq=0))
    assert CodecTrainingConfig(stages=[Stage(losses=LossWeights(ctc=1))]).reads_transcripts
