"""Training of codecs: killed or not, on one process or two, in one stage or three, it does what the config says."""

import dataclasses
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

import codec.vocoders.bigvgan
from codec import export_codec, save_codec
from codec.foundation import Schedule, UserError, has_bfloat16, save_training_state
from codec.loading import load_trained
from codec.losses.config import DiscriminatorWeights, LossWeights
from codec.presets import PARTS
from codec.training import checkpoint, loop
from codec.training.batches import STAGE_STRIDE
from codec.training.config import CodecTrainingConfig, OptimizerConfig, Stage
from codec.training.loop import train_codec
from codec.training.step import CodecTrainingStep, SemanticObjectives
from codec.training.validation import ValidationSet, validate
from tests.codec.small_codecs import small_codec, speech_like
from tests.codec.training_runs import (
    CODES,
    DISCRIMINATORS,
    JOINT,
    VOCODER,
    forget_accelerator,
    in_process,
    log_of,
    run_config,
    save_teacher,
    speech_data,
    tensors_at,
    terminate_after,
    train_on,
)

TINY = ["hh-codec-tiny", "hybrid-codec-tiny"]


@pytest.fixture(autouse=True)
def one_accelerator_a_test() -> Iterator[None]:
    forget_accelerator()
    yield
    forget_accelerator()


def weights_of(path: Path) -> bytes:
    return (path / "final" / "model.safetensors").read_bytes()


def part(tensors: dict[str, Tensor], kind: str, name: str) -> dict[str, Tensor]:
    """The tensors of one part of the model in a checkpoint; kind: "model" or "average"."""
    prefix = f"{kind}/model.{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys() and first
    return all(torch.equal(first[name], second[name]) for name in first)


# ---- stopping and going on


@pytest.mark.parametrize(("preset", "which"), [(TINY[0], slice(None)), (TINY[1], slice(1, 2))])
def test_a_run_killed_at_random_steps_ends_like_an_undisturbed_one(
    preset: str, which: slice, tmp_path: Path
) -> None:
    stages = [
        CODES,  # 6 steps: a checkpoint lies exactly on the boundary
        dataclasses.replace(JOINT, steps=2, schedule=Schedule(kind="cosine", warmup_steps=2)),
    ]

    def config(name: str) -> CodecTrainingConfig:
        return run_config(
            tmp_path / name,
            *stages,
            preset=preset,
            model_overrides={"decoder": {"dropout": 0.2}},
            discriminators=DISCRIMINATORS,
            accumulation_steps=2,
            checkpoint_every=2,
            evaluate_every=4,
        )

    def killed_by(segment: int) -> None:
        train_codec(config("killed"), speech_data(validation=True, deadly=segment))

    def killed_while_saving() -> None:
        def save(directory: Path, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
            save_training_state(directory, tensors, counters)
            if counters["step"] == 8:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save_training_state = save  # in this process alone
        train_codec(config("killed"), speech_data(validation=True))

    draw = random.Random(0)
    # the first 16 segments are also those of the calibration; a step takes 4
    deaths = [
        lambda: killed_by(draw.randrange(16)),
        lambda: killed_by(draw.randrange(16, 24)),
        lambda: killed_by(STAGE_STRIDE),  # the first one of the second stage
        killed_while_saving,
    ]
    for death in deaths[which]:
        process = in_process(death)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    train_codec(config("killed"), speech_data(validation=True))
    train_codec(config("undisturbed"), speech_data(validation=True))
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "undisturbed")
    assert same(tensors_at(tmp_path / "killed", 8), tensors_at(tmp_path / "undisturbed", 8))
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "undisturbed")


def test_sigterm_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", dataclasses.replace(CODES, steps=500))
    assert terminate_after(3, config, tmp_path / "output.txt") == 0
    done = int(next((tmp_path / "run" / "checkpoints").iterdir()).name.removeprefix("step-"))
    assert 3 <= done < 500 and len(log_of(tmp_path / "run")) == done
    expected = f"stopped after {done} of 500 steps; the same command goes on from there\n"
    assert (tmp_path / "output.txt").read_text() == expected
    assert not (tmp_path / "run" / "final").exists()


def test_a_time_limit_stops_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    stage = dataclasses.replace(CODES, steps=3)
    results = [
        train_codec(run_config(tmp_path / "cut", stage, max_seconds=1e-9, workers=workers), speech_data())
        for workers in (0, 2, 0)
    ]
    assert [(result.step, result.finished) for result in results] == [(1, False), (2, False), (3, True)]
    train_codec(run_config(tmp_path / "whole", stage), speech_data())
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_finished_run_is_left_alone_or_made_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = dataclasses.replace(CODES, steps=2)
    longer = dataclasses.replace(CODES, steps=4)
    train_codec(run_config(tmp_path / "run", stage), speech_data())
    capsys.readouterr()
    again = train_codec(run_config(tmp_path / "run", stage), speech_data())
    assert again.finished and "is finished" in capsys.readouterr().out
    train_codec(run_config(tmp_path / "run", longer), speech_data())
    train_codec(run_config(tmp_path / "straight", longer), speech_data())
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "straight")
    with pytest.raises(UserError, match="has gone 4 steps already, the stages ask for 2"):
        train_codec(run_config(tmp_path / "run", stage), speech_data())


def test_another_config_or_other_data_is_refused(tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", CODES, max_seconds=1e-9)
    train_codec(config, speech_data())
    larger = dataclasses.replace(CODES, batch_size=3)
    with pytest.raises(UserError, match=r"stages\.0\.batch_size was 2, is now 3"):
        train_codec(run_config(tmp_path / "run", larger), speech_data())
    with pytest.raises(UserError, match="was trained on other data"):
        train_codec(config, speech_data(digest="music"))
    assert not (tmp_path / "run" / ".lock").exists()
    moved = dataclasses.replace(speech_data(digest="as newer versions say it"), older_digest="speech")
    train_codec(config, moved)


def test_a_run_goes_on_with_another_rate_schedule_and_arithmetic_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train_codec(run_config(run, CODES, max_seconds=1e-9), speech_data())
    slower = dataclasses.replace(
        CODES,
        optimizer=OptimizerConfig(learning_rate=1e-5, weight_decay=0.01),
        schedule=Schedule(warmup_steps=9),
    )
    changes = {"precision": "bf16", "evaluate_every": 3}
    capsys.readouterr()
    train_codec(run_config(run, slower, **changes), speech_data())
    (line,) = [line for line in log_of(run) if "changed" in line]
    said = capsys.readouterr().err
    for what in (
        "stages.0.optimizer.learning_rate was 0.001, is now 1e-05", 'stages.0.schedule.kind was "constant"',
        'precision was "no", is now "bf16"', "evaluate_every was 1000, is now 3",
    ):  # fmt: skip
        assert what in line["changed"] and f"train-codec: changed: {what}" in said
    assert line["step"] == 1
    rates = [entry["learning_rate"] for entry in log_of(run) if "learning_rate" in entry]
    assert rates[-2:] == pytest.approx([1e-5 * 5 / 9, 1e-5 * 6 / 9])


def test_a_run_goes_back_and_leaves_out_the_data_of_a_spike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"checkpoint_every": 2, "keep_last": 9}
    stages = (dataclasses.replace(CODES, steps=2), dataclasses.replace(CODES, steps=5))
    skipping = changes | {"skip_data": {4: 3}, "accumulation_steps": 2}
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_codec(run_config(whole, *stages, **skipping), speech_data())
    train_codec(run_config(run, *stages, **skipping | {"skip_data": {}}), speech_data())
    assert weights_of(run) != weights_of(whole)
    before = load_file(run / "checkpoints/step-00000004/state.safetensors")
    assert train_codec(run_config(run, *stages, **skipping), speech_data()).finished
    said = capsys.readouterr().err
    assert "going back to step 4; later checkpoints are removed: step-00000006, step-00000007" in said
    assert same(before, load_file(run / "checkpoints/step-00000004/state.safetensors"))
    assert weights_of(run) == weights_of(whole)
    with pytest.raises(UserError, match="no checkpoint at step 1 or before"):
        train_codec(run_config(run, *stages, **skipping | {"skip_data": {1: 1}}), speech_data())
    numbers = run_config(run, *stages, **skipping)
    assert [*numbers.batches_of(0, 1)] == [2, 3]
    assert [*numbers.batches_of(1, 1)] == [2, 3, *range(10, 16)]  # step 4 of the run is step 2 of the stage


# ---- processes


@pytest.mark.parametrize("preset", TINY)
def test_processes_and_accumulation_do_not_change_the_losses(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two batches, so that the second process has one
    monkeypatch.setattr(loop, "validate", partial(validate, batch_seconds=1.0))
    stages = [
        dataclasses.replace(CODES, steps=2),
        # no part of the codebook learns: what DDP would wait for in vain
        dataclasses.replace(
            CODES, steps=2, train=["decoder", "vocoder"], losses=LossWeights(waveform_mel=45)
        ),
    ]
    logs = []
    for divided in (1, 2):  # over two processes, and each one's over two steps
        sized = [dataclasses.replace(stage, batch_size=4 // divided**2) for stage in stages]
        config = run_config(tmp_path / str(divided), *sized, preset=preset, accumulation_steps=divided)
        train_on(divided, config, validation=True)
        logs.append(log_of(tmp_path / str(divided)))
    alone, shared = logs
    assert [line["step"] for line in alone if "loss" in line] == [1, 2, 3, 4]
    last = alone[-1]  # processes share the validation
    assert {
        "validation/low/waveform_mel_l1",
        "validation/high/mel_l1",
        "validation/perplexity",
    } <= last.keys()
    for ours, theirs in zip(alone, shared, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)


def test_full_training_is_the_same_on_one_process_two_and_in_parts(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher", torch.float64)
    # At ten times this rate, and more weight on log magnitudes near their floor, rounding grows up to a hundredfold a
    # step.
    losses = dataclasses.replace(JOINT.losses, multi_scale=1, distillation=10)
    stage = dataclasses.replace(
        JOINT,
        steps=2,
        losses=losses,
        optimizer=OptimizerConfig(learning_rate=1e-4),
        discriminator_optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.8, 0.99)),
        segment_seconds=0.17,
        judged_seconds=0.12,
    )
    runs = {}
    for processes, accumulation in ((1, 1), (2, 1), (1, 2)):
        output = tmp_path / f"{processes}-{accumulation}"
        sized = dataclasses.replace(stage, batch_size=4 // processes // accumulation)
        config = run_config(
            output,
            sized,
            accumulation_steps=accumulation,
            discriminators=DISCRIMINATORS,
            teacher=str(teacher),
        )
        train_on(processes, config)
        runs[processes, accumulation] = log_of(output), tensors_at(output, 2)
    log, tensors = runs.pop((1, 1))
    expected = {"mel", "waveform_mel", "multi_scale", "vq", "distillation"} | {
        f"{name}/{kind}"
        for name in DISCRIMINATORS
        for kind in ("adversarial", "feature_matching", "discriminator")
    }
    assert expected <= log[0].keys() and len(log) == 2
    for other_log, other_tensors in runs.values():
        for ours, theirs in zip(log, other_log, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
        assert tensors.keys() == other_tensors.keys()
        # weights of both sides, their average, the moments of both optimizers
        for name, tensor in tensors.items():
            torch.testing.assert_close(other_tensors[name], tensor, atol=1e-9, rtol=1e-9)


# ---- stages


@pytest.mark.parametrize("preset", TINY)
def test_frozen_parts_rest_and_the_others_learn(preset: str, tmp_path: Path) -> None:
    stages = [
        dataclasses.replace(CODES, steps=2),
        dataclasses.replace(VOCODER, steps=2),
        dataclasses.replace(CODES, steps=2, train=["decoder"], losses=LossWeights(mel=45)),
    ]
    config = run_config(tmp_path / "run", *stages, preset=preset, checkpoint_every=1, keep_last=20)
    train_codec(config, speech_data())
    parts = set(PARTS)
    for number, stage in enumerate(stages):
        first, last = (tensors_at(tmp_path / "run", 2 * number + step) for step in (1, 2))
        for name in parts:
            before, after = part(first, "model", name), part(last, "model", name)
            if name in stage.train:
                constants = {key for key in before if "frozen_codebook" in key}
                changed = {key for key in before if not torch.equal(before[key], after[key])}
                assert changed == before.keys() - constants
            else:
                assert same(before, after)
                # a part that came to rest did so with its average, and that is its average from then on
                settled = part(tensors_at(tmp_path / "run", max(1, 2 * number)), "average", name)
                averaged = part(last, "average", name)
                assert same(averaged, {key: after[key] for key in averaged})
                assert number == 0 or same(averaged, settled)


def test_discriminators_learn_in_their_stages_and_are_not_in_the_result(tmp_path: Path) -> None:
    one = LossWeights(discriminators={"multi_resolution": DiscriminatorWeights()})
    stages = [
        dataclasses.replace(JOINT, steps=2),
        dataclasses.replace(CODES, steps=2),
        dataclasses.replace(JOINT, steps=2, losses=one),
    ]
    config = run_config(
        tmp_path / "run", *stages, discriminators=DISCRIMINATORS, checkpoint_every=1, keep_last=20
    )
    train_codec(config, speech_data())
    found = [tensors_at(tmp_path / "run", step) for step in range(1, 7)]

    def judge(step: int, name: str) -> dict[str, Tensor]:
        prefix = f"adversary/discriminators.{name}."
        return {key: value for key, value in found[step - 1].items() if key.startswith(prefix)}

    for name in DISCRIMINATORS:
        learnt = [not same(judge(step, name), judge(step + 1, name)) for step in range(1, 6)]
        later = name == "multi_resolution"  # which carries over the stage without discriminators
        assert learnt == [True, False, False, later, later]
    own = [{key.split("/")[0] for key in tensors} for tensors in found]
    assert ["adversary_optimizer" in kinds for kinds in own] == [True, True, False, False, True, True]
    # the average and the result are of the codec alone
    assert all(key.startswith("average/model.") for key in found[-1] if key.startswith("average/"))
    final = load_file(tmp_path / "run/final/model.safetensors")
    assert final.keys() == load_trained(tmp_path / "run").state_dict().keys()
    rates = [line.get("discriminator_learning_rate") for line in log_of(tmp_path / "run")]
    assert rates == [5e-4, 5e-4, None, None, 5e-4, 5e-4]


def test_a_decoder_learns_beside_discriminators_while_codes_keep_their_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an exported codec with BigVGAN; its gradient checkpointing changes nothing but the memory."""
    settled = save_codec(small_codec("hh-codec-24hz", exported=False), tmp_path / "settled")
    losses = dataclasses.replace(JOINT.losses, vq=0)
    stage = dataclasses.replace(JOINT, steps=2, train=["decoder", "vocoder"], losses=losses)
    recomputed: list[object] = []
    checkpointed = codec.vocoders.bigvgan.checkpoint

    def count(block: object, *arguments: Any, **settings: Any) -> Any:
        recomputed.append(block)
        return checkpointed(block, *arguments, **settings)

    monkeypatch.setattr(codec.vocoders.bigvgan, "checkpoint", count)
    logs = {}
    for saving in (False, True):
        config = run_config(
            tmp_path / f"run-{saving}",
            stage,
            model=str(tmp_path / "settled"),
            initialize={"all": str(tmp_path / "settled")},
            discriminators=DISCRIMINATORS,
            gradient_checkpointing=saving,
        )
        train_codec(config, speech_data())
        logs[saving] = log_of(tmp_path / f"run-{saving}")
        assert bool(recomputed) == saving
    for ours, theirs in zip(*logs.values(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    again = export_codec(load_trained(tmp_path / "run-True"))
    assert again.config.fingerprint == settled.config.fingerprint
    for name in PARTS:
        learnt = not same(again.get_submodule(name).state_dict(), settled.get_submodule(name).state_dict())
        assert learnt == (name in stage.train)
    with pytest.raises(UserError, match="has no gradient_checkpointing: leave it off, only BigVGAN needs it"):
        train_codec(run_config(tmp_path / "vocos", JOINT, gradient_checkpointing=True), speech_data())


def test_one_change_to_every_stage(tmp_path: Path) -> None:
    changes = {
        "train": ["decoder", "vocoder"],
        "losses": {"mel": 7.0, "discriminators": {"dac": {"adversarial": 3}}},
    }
    config = run_config(
        tmp_path / "run",
        JOINT,
        dataclasses.replace(JOINT, steps=9),
        discriminators={"dac": DISCRIMINATORS["dac"]},
        stage_overrides=changes,
    )
    assert [stage.steps for stage in config.stages] == [4, 9]
    for stage in config.stages:
        assert stage.train == ["decoder", "vocoder"]
        dac = DiscriminatorWeights(adversarial=3)
        assert stage.losses == LossWeights(mel=7.0, waveform_mel=45, discriminators={"dac": dac})
    with pytest.raises(
        UserError, match=r"stage_overrides\.losses names 'pesq': the fields there are ctc, discriminators,"
    ):
        run_config(tmp_path / "run", JOINT, stage_overrides={"losses": {"pesq": 1}})


def test_each_stage_has_its_own_schedule(tmp_path: Path) -> None:
    schedules = [Schedule(kind="cosine", warmup_steps=2), Schedule(kind="warmup-stable-decay", decay_steps=2)]
    stages = [
        dataclasses.replace(CODES, steps=5, schedule=schedules[0]),
        dataclasses.replace(CODES, steps=3, schedule=schedules[1], optimizer=OptimizerConfig(5e-4)),
    ]
    train_codec(run_config(tmp_path / "run", *stages), speech_data())
    expected = [1e-3 * schedules[0].factor(step, 5) for step in range(5)]
    expected += [5e-4 * schedules[1].factor(step, 3) for step in range(3)]
    assert [line["learning_rate"] for line in log_of(tmp_path / "run")] == expected
    assert len(set(expected)) == 5


def test_both_sides_clip_their_gradients(tmp_path: Path) -> None:
    """After one update AdamW's first moment is (1 - beta) times the gradient that it was given."""
    stage = dataclasses.replace(
        JOINT,
        steps=1,
        optimizer=OptimizerConfig(betas=(0.5, 0.9), clip_norm=0.02),
        discriminator_optimizer=OptimizerConfig(betas=(0.8, 0.9), clip_norm=0.001),
    )
    train_codec(run_config(tmp_path / "run", stage, discriminators=DISCRIMINATORS), speech_data())
    line, tensors = log_of(tmp_path / "run")[0], tensors_at(tmp_path / "run", 1)
    assert line["gradient_norm"] > 1 and line["discriminator_gradient_norm"] > 0.01  # before clipping
    for side, expected in (("optimizer/", 0.5 * 0.02), ("adversary_optimizer/", 0.2 * 0.001)):
        moments = [t for name, t in tensors.items() if name.startswith(side) and name.endswith("/exp_avg")]
        norm = sum(float(moment.double().square().sum()) for moment in moments) ** 0.5
        assert norm == pytest.approx(expected, rel=1e-3)


def test_a_step_without_a_finite_gradient_moves_nothing_and_is_not_in_the_losses(tmp_path: Path) -> None:
    stage = dataclasses.replace(JOINT, steps=6, batch_size=4)
    data = speech_data(broken=range(16, 20))  # after the segments of the calibration: those of the fifth step
    run = tmp_path / "run"

    def config(**fields: Any) -> CodecTrainingConfig:
        changes = {"checkpoint_every": 1, "keep_last": 20, "log_every": 2, "discriminators": DISCRIMINATORS}
        return run_config(run, stage, **changes | fields)

    train_codec(config(), data)
    before, after = tensors_at(run, 4), tensors_at(run, 5)
    assert same(before, after)  # weights of both sides, their average, the moments of both optimizers
    assert not same(after, tensors_at(run, 6))
    final = load_file(run / "final/model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in final.values())
    losses = [line["loss"] for line in log_of(run)]
    assert len(losses) == 3 and all(loss is not None for loss in losses)
    assert [line.get("skipped_updates") for line in log_of(run)] == [None, None, 1]
    counts = [json.loads((run / f"checkpoints/step-{step:08d}/state.json").read_text()) for step in (4, 5, 6)]
    skipped = [count["skipped"] for count in counts]
    assert skipped == [{"optimizer": n, "discriminator_optimizer": n} for n in (0, 1, 0)]


def test_skipped_updates_are_counted_across_a_restart_also_of_older_runs(tmp_path: Path) -> None:
    broken = range(16, 1_000)  # from the ninth step on

    def config(steps: int) -> CodecTrainingConfig:
        return run_config(tmp_path / "run", dataclasses.replace(CODES, steps=steps), checkpoint_every=20)

    process = in_process(lambda: train_codec(config(40), speech_data(broken=broken, deadly=40)))
    process.join()
    state = tmp_path / "run/checkpoints/step-00000020/state.json"
    counters = json.loads(state.read_text())
    assert counters.pop("skipped") == {"optimizer": 12}
    with pytest.raises(UserError, match="not been finite for 20 steps, the last of them step 27:"):
        train_codec(config(40), speech_data(broken=broken))
    state.write_text(json.dumps(counters))  # as older versions wrote it
    assert train_codec(config(24), speech_data(broken=broken)).finished


# ---- what it learns


def test_a_few_seconds_are_learnt_by_heart(tmp_path: Path) -> None:
    data = speech_data(validation=True)
    waveforms = [data.segments(0.5)[index]["waveform"] for index in (0, 3)]

    class TwoSegments:
        def __getitem__(self, index: int) -> dict[str, Tensor | int]:
            return {"waveform": waveforms[index % 2], "length": len(waveforms[0])}

    data = dataclasses.replace(
        data, segments=lambda seconds: TwoSegments(), validation=[ValidationSet("heart", waveforms)]
    )
    codes = dataclasses.replace(
        CODES, steps=60, segment_seconds=0.5, optimizer=OptimizerConfig(5e-3, betas=(0.8, 0.98))
    )
    vocoder = dataclasses.replace(
        VOCODER, steps=40, segment_seconds=0.5, optimizer=OptimizerConfig(2e-3, betas=(0.8, 0.98))
    )
    train_codec(run_config(tmp_path / "run", codes, vocoder, evaluate_every=20), data)
    log = log_of(tmp_path / "run")
    mel = [line["validation/heart/mel_l1"] for line in log if "validation/heart/mel_l1" in line]
    audio = [
        line["validation/heart/waveform_mel_l1"] for line in log if "validation/heart/waveform_mel_l1" in line
    ]
    losses = [line["mel"] for line in log if "mel" in line]
    assert losses[-1] < 0.4 * losses[0] and mel[-1] < 0.4 * losses[0]
    assert audio[-1] < 0.9 * audio[0]
    assert log[-1]["validation/score"] == audio[-1]


@pytest.mark.slow
def test_compiled_training_is_near_uncompiled(tmp_path: Path) -> None:
    one = LossWeights(waveform_mel=45, discriminators={"multi_resolution": DiscriminatorWeights()})
    stage = dataclasses.replace(JOINT, steps=3, losses=one)
    logs = []
    for compiled in (False, True):
        config = run_config(
            tmp_path / f"run-{compiled}",
            stage,
            discriminators={"multi_resolution": DISCRIMINATORS["multi_resolution"]},
            evaluate_every=2,
            compile=compiled,
        )
        train_codec(config, speech_data(validation=True))
        logs.append(log_of(tmp_path / f"run-{compiled}"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 3  # it did compile
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)


def test_all_three_discriminators_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for training, and run as it is: nothing is traced so often that torch gives up on it.

    A vocoder alone learns beside them: every layer of the codec that is not traced saves time.
    """
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="eager"))
    torch._dynamo.reset()
    # a layer or two each: tracing takes seconds a layer
    narrow: dict[str, dict[str, Any]] = {
        "multi_period": {"periods": [2], "channels": [4]},
        "multi_resolution": {"fft_sizes": [256], "channels": 4},
        "dac": {
            "periods": [2],
            "period_channels": [4],
            "fft_sizes": [256],
            "bands": [[0.0, 1.0]],
            "band_channels": 4,
        },
    }
    stage = dataclasses.replace(
        JOINT,
        steps=2,
        train=["vocoder"],
        vocoder_input="recording",
        losses=dataclasses.replace(JOINT.losses, mel=0, vq=0),
    )
    logs = []
    for compiled in (False, True):
        path = tmp_path / f"run-{compiled}"
        train_codec(run_config(path, stage, discriminators=narrow, compile=compiled), speech_data())
        logs.append(log_of(path))
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def syllables(seed: int) -> Tensor:
    """(24000,): eighths of a second of voice, hiss and near silence at random, at random levels."""
    draw = torch.Generator().manual_seed(seed)
    pieces = []
    for piece in range(8):
        kind, level = int(torch.randint(3, (1,), generator=draw)), float(torch.rand(1, generator=draw))
        voice = speech_like(1, 3_000, seed=100 * seed + piece)[0]
        hiss = 0.05 * torch.randn(3_001, generator=draw).diff()
        pieces.append((0.3 + 0.7 * level) * (voice, hiss, 0.02 * voice)[kind])
    return torch.cat(pieces)


@pytest.mark.slow
def test_adversarial_training_overfits_and_nobody_wins(tmp_path: Path) -> None:
    """Eight utterances, all three discriminators: what is learnt by heart is heard, and the game stays open."""
    waveforms = [syllables(seed) for seed in range(8)]

    class EightUtterances:
        def __getitem__(self, index: int) -> dict[str, Tensor | int]:
            return {"waveform": waveforms[index % 8], "length": 24_000}

    data = dataclasses.replace(
        speech_data(),
        segments=lambda seconds: EightUtterances(),
        validation=[ValidationSet("heart", waveforms)],
    )
    # the VQ loss is a mean over the latent's 16 dimensions, of variance 1/16 each, where the published codec has 512:
    # a weight of 30 is its 1,000
    first = Stage(
        steps=200,
        losses=LossWeights(mel=45, vq=30),
        optimizer=OptimizerConfig(1e-3, betas=(0.8, 0.98)),
        schedule=Schedule(kind="constant", warmup_steps=20),
        segment_seconds=1.0,
        batch_size=8,
    )
    second = dataclasses.replace(
        first,
        steps=160,
        train=list(PARTS),
        losses=LossWeights(45, 45, vq=30, discriminators=JOINT.losses.discriminators),
        discriminator_optimizer=OptimizerConfig(3e-3, betas=(0.8, 0.98)),
        judged_seconds=0.5,
    )
    config = run_config(
        tmp_path / "run",
        first,
        second,
        discriminators=DISCRIMINATORS,
        evaluate_every=40,
        checkpoint_every=400,
    )
    train_codec(config, data)
    log = log_of(tmp_path / "run")
    training = [line for line in log if "mel" in line]
    validation = [line for line in log if "validation/score" in line]

    def late(name: str) -> float:
        return float(np.mean([line[name] for line in training[-40:]]))

    assert late("mel") < 0.56 and validation[-1]["validation/heart/mel_l1"] < 0.56  # 2.9 at first
    assert late("waveform_mel") < 0.5 * training[200]["waveform_mel"]
    assert validation[-1]["validation/perplexity"] > 6  # of 64 codes, for 64 pieces of three kinds
    for name in DISCRIMINATORS:
        right = 0.5 * (late(f"{name}/accuracy_real") + late(f"{name}/accuracy_fake"))
        assert 0.5 < right < 0.97, name
        # what indifference costs: two hinges of 1, averaged; two squares of 1/4 for each of four parts
        assert 0.1 < late(f"{name}/discriminator") / 2.0 < 1.0, name


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this CPU does not multiply bfloat16")
def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    stage = dataclasses.replace(CODES, steps=4, train=list(PARTS), losses=LossWeights(waveform_mel=45))
    for precision in ("no", "bf16"):
        train_codec(run_config(tmp_path / precision, stage, precision=precision), speech_data())
    exact, rounded = (log_of(tmp_path / precision) for precision in ("no", "bf16"))
    losses = [[line["loss"] for line in log] for log in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)  # before the paths part
    assert losses[1][-1] < 0.9 * losses[1][0]
    assert {tensor.dtype for tensor in tensors_at(tmp_path / "bf16", 4).values()} == {torch.float32}


@torch.no_grad()
@pytest.mark.parametrize("preset", TINY)
def test_noise_goes_into_the_codec_and_not_into_the_target(preset: str) -> None:
    step = CodecTrainingStep(small_codec(preset, exported=False), SemanticObjectives()).eval()
    clean, noise = speech_like(2, 12_000, seed=1), 0.1 * speech_like(2, 12_000, seed=2)
    lengths, stage = torch.tensor([12_000, 12_000]), Stage(losses=LossWeights(waveform_mel=1))
    plain = step(clean, lengths, stage)
    same = step(clean, lengths, stage, heard=clean)
    noisy = step(clean, lengths, stage, heard=clean + noise)
    alone = step(clean + noise, lengths, stage)
    assert torch.equal(plain.audio, same.audio) and plain.losses["loss"] == same.losses["loss"]
    assert torch.equal(noisy.audio, alone.audio) and not torch.equal(noisy.audio, plain.audio)
    assert torch.equal(noisy.recording, plain.recording)
    assert noisy.losses["loss"] not in (alone.losses["loss"], plain.losses["loss"])


@torch.no_grad()
@pytest.mark.parametrize("preset", [*TINY, "hh-codec-24hz-vocos", "hybrid-codec"])
def test_validation_numbers_are_those_of_one_recording_at_a_time(preset: str) -> None:
    model = small_codec(preset, exported=False)
    step = CodecTrainingStep(model, SemanticObjectives())
    sets = [
        ValidationSet("a", [speech_like(1, samples, seed=samples)[0] for samples in (30_000, 7_001, 18_500)]),
        ValidationSet("b", [speech_like(1, 12_000, seed=9)[0]]),
    ]
    stage = Stage(losses=LossWeights(waveform_mel=1))
    found = validate(step, sets, stage, Accelerator(cpu=True), batch_seconds=2.0)
    log_mel = step.target_mel
    used: Counter[int] = Counter()
    scores = []
    for entry in sets:
        before, after = [], []
        for waveform in entry.waveforms:
            codes = model.encode(waveform[None, None]).audio_codes
            used.update(codes[:, 0].flatten().tolist())
            decoded = model.decode(codes)
            whole = torch.nn.functional.pad(waveform, (0, -len(waveform) % model.config.hop_length))[None]
            target = log_mel(whole)
            audio_mel = log_mel(decoded.audio_values[:, 0])
            mel = audio_mel if decoded.mel is None else decoded.mel  # a decoder may make the waveform itself
            frames = target.shape[1]  # a vocoder whose hop does not divide ours has one frame more: see below
            target = torch.cat([target, target[:, -1:]], dim=1)[:, : mel.shape[1]]
            audio_mel = torch.cat([audio_mel, audio_mel[:, -1:]], dim=1)[:, : mel.shape[1]]
            assert mel.shape[1] - frames in (0, 1)
            before.append((mel - target).abs().mean().item())
            after.append((audio_mel - target).abs().mean().item())
        assert found.metrics[f"{entry.name}/mel_l1"] == pytest.approx(np.mean(before), rel=1e-4)
        assert found.metrics[f"{entry.name}/waveform_mel_l1"] == pytest.approx(np.mean(after), rel=1e-3)
        scores.append((LossWeights().mel * np.mean(before) + np.mean(after)) / (LossWeights().mel + 1))
    shares = np.array(list(used.values())) / used.total()
    assert found.metrics["codes_used"] == len(used) > 3
    assert found.metrics["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert found.score == pytest.approx(np.mean(scores), rel=1e-3)
    assert [sample.name for sample in found.samples] == ["a", "b"]
    assert torch.equal(found.samples[0].recording[:30_000], sets[0].waveforms[0])


def test_a_checkpoint_holds_the_averaged_codec(tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", CODES, checkpoint_every=3, evaluate_every=3)
    train_codec(config, speech_data(validation=True))
    final = load_trained(tmp_path / "run").state_dict()
    latest = load_trained(tmp_path / "run", "latest").state_dict()
    assert same(final, latest)
    weights = part(tensors_at(tmp_path / "run", 6), "model", "decoder")
    assert not same(weights, {name: latest[f"decoder.{name}"] for name in weights})
    best = min(
        (line for line in log_of(tmp_path / "run") if "validation/score" in line),
        key=lambda line: line["validation/score"],
    )
    chosen = load_trained(tmp_path / "run" / "checkpoints" / f"step-{best['step']:08d}").state_dict()
    assert same(load_trained(tmp_path / "run", "best").state_dict(), chosen)
