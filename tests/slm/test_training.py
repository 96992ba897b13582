import itertools
import json
import math
import os
import signal
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from codec.foundation import UserError
from slm.documents.config import DocumentConfig
from slm.models.build import build_model, transformers_config
from slm.models.checkpoint import SpeechCapabilities
from slm.models.config import ModelConfig
from slm.training import learner
from slm.training.config import DatasetConfig, OptimizerConfig, Schedule
from slm.training.loop import train_slm
from slm.training.loss import PackedLanguageModel
from slm.vocabulary import Vocabulary
from tests.slm.token_rows import MemoryRows, speech_rows, train_text_model
from tests.slm.toy_training import CODEC, toy_config, toy_run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run from beginning to end."""
    output = tmp_path_factory.mktemp("slm") / "run"
    assert toy_run(output).finished
    return output


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary.build(train_text_model(tmp_path_factory.mktemp("text"), "char"), CODEC, ["slt"])


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights_of(run, part="final"):
    return load_file(run / part / "model.safetensors")


def same_weights(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@dataclass
class InterruptingRows(MemoryRows):
    """Rows that ask the process to stop when so many streams have been read."""

    after: list[int] = field(default_factory=list)

    def codes(self, index):
        self.after[0] -= 1
        if self.after[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().codes(index)


def test_it_learns_and_leaves_what_transformers_loads(undisturbed):
    data, *lines = log_of(undisturbed)
    assert data["step"] == 0 and data["data/source_share/rows"] == 1 and 0.5 < data["data/fill"] < 1
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert len(losses) == 12 and [line["step"] for line in lines if "validation/loss" in line] == [4, 8, 12]
    # An untrained model knows nothing: as many bits a token as the vocabulary has.
    size = len(Vocabulary.from_pretrained(undisturbed / "final"))
    assert lines[0]["train/speech/bits_per_token"] == pytest.approx(math.log2(size), abs=0.3)
    assert lines[0]["train/speech/bits_per_second"] == pytest.approx(
        24 * lines[0]["train/speech/bits_per_token"]
    )

    model = AutoModelForCausalLM.from_pretrained(undisturbed / "final")
    assert type(model).__name__ == "LlamaForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(undisturbed / "final")
    vocabulary = Vocabulary.from_pretrained(undisturbed / "final")
    assert len(tokenizer) == len(vocabulary) == model.get_input_embeddings().weight.shape[0]
    assert (
        model.generation_config.eos_token_id
        == vocabulary.eos_id
        == tokenizer.convert_tokens_to_ids("<|eos|>")
    )
    capabilities = SpeechCapabilities.read(undisturbed / "final")
    assert capabilities.speak_format == "aligned" and set(capabilities.formats) == {"tts", "aligned", "asr"}
    fast, median, slow = capabilities.seconds_per_character
    assert 2 / 60 <= fast < median < slow <= 10 / 28
    assert not list(undisturbed.rglob("*.bin")) and not list(undisturbed.rglob("*.p*kl*"))


@pytest.mark.parametrize("after", [25, 50])
def test_a_stopped_run_ends_with_the_weights_it_would_have_had(undisturbed, tmp_path, capsys, after):
    rows = speech_rows(24, seed=0, codec=CODEC)
    interrupting = InterruptingRows(
        rows.streams, rows.texts, rows.speakers, rows.timed, rows.info, after=[after]
    )
    stopped = toy_run(tmp_path / "run", [interrupting])
    assert not stopped.finished and stopped.final is None and 0 < stopped.steps < 12
    assert "the same command goes on" in capsys.readouterr().err
    resumed = toy_run(tmp_path / "run")
    assert resumed.finished and resumed.steps == 12
    assert same_weights(weights_of(tmp_path / "run"), weights_of(undisturbed))
    assert [line.get("train/loss") for line in log_of(tmp_path / "run")] == [
        line.get("train/loss") for line in log_of(undisturbed)
    ]


@pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(muon=True, skip_spikes=1.01)])
def test_a_stopped_run_keeps_its_average_and_the_optimizers_state(tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(learner, "_FEWEST_NORMS", 2)  # so that some updates are skipped
    changes = {"ema": 0.9, "max_steps": 6, "optimizer": optimizer}
    toy_run(tmp_path / "whole", **changes)
    rows = speech_rows(24, seed=0, codec=CODEC)
    interrupting = InterruptingRows(
        rows.streams, rows.texts, rows.speakers, rows.timed, rows.info, after=[15]
    )
    assert not toy_run(tmp_path / "run", [interrupting], **changes).finished
    toy_run(tmp_path / "run", **changes)
    assert same_weights(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_a_finished_run_is_left_alone_and_can_be_made_longer(undisturbed, tmp_path):
    before = weights_of(undisturbed)
    again = toy_run(undisturbed)
    assert again.finished and again.steps == 12 and same_weights(weights_of(undisturbed), before)
    toy_run(tmp_path / "run", max_steps=3)
    longer = toy_run(tmp_path / "run", max_steps=5)
    assert longer.steps == 5 and len([line for line in log_of(tmp_path / "run") if "train/loss" in line]) == 5
    assert not same_weights(
        weights_of(tmp_path / "run"), weights_of(tmp_path / "run", "checkpoints/step-00000003")
    )


def test_forward_size_does_not_change_what_is_learnt(tmp_path):
    runs = []
    for size in (1, 4):
        config = toy_config(tmp_path / f"run {size}")
        toy_run(
            tmp_path / f"run {size}",
            precision="float64",
            max_steps=4,
            model=replace(config.model, dropout=0.0),
            batch=replace(config.batch, blocks_per_forward=size),
        )
        runs.append([line["train/loss"] for line in log_of(tmp_path / f"run {size}") if "train/loss" in line])
    assert runs[0] == pytest.approx(runs[1], abs=1e-6)


def test_another_config_or_another_dataset_is_refused(undisturbed):
    with pytest.raises(UserError, match=r"ema was 0\.0, is now 0\.5"):
        toy_run(undisturbed, ema=0.5)
    with pytest.raises(UserError, match="rows has changed since"):
        toy_run(undisturbed, [speech_rows(25, codec=CODEC)])


def test_a_run_goes_on_with_another_rate_schedule_and_arithmetic_and_says_so(tmp_path, capsys):
    toy_run(tmp_path, max_steps=3, precision="float64")
    changes = dict(
        max_steps=5,
        optimizer=OptimizerConfig(learning_rate=1e-4),
        schedule=Schedule(kind="constant"),
        attention="sdpa",
        datasets=[DatasetConfig("moved")],
    )
    assert toy_run(tmp_path, **changes).steps == 5
    lines = log_of(tmp_path)
    (line,) = [line for line in lines if "changed" in line]
    said = capsys.readouterr().err
    for what in (
        "optimizer.learning_rate was 0.003, is now 0.0001", 'schedule.kind was "warmup-stable-decay"',
        'attention was "auto", is now "sdpa"', 'datasets.0.path was "rows", is now "moved"',
        'precision was "float64", is now "float32"',
    ):  # fmt: skip
        assert what in line["changed"] and what in said
    assert line["step"] == 3
    assert [entry["learning_rate"] for entry in lines if "learning_rate" in entry][3:] == [1e-4, 1e-4]
    toy_run(tmp_path, **changes)
    assert len([line for line in log_of(tmp_path) if "changed" in line]) == 1


def test_a_run_goes_back_and_leaves_out_the_data_of_a_spike(tmp_path, capsys):
    """From an earlier checkpoint with its optimizer, as if the data had never been there, also after a stop."""
    whole = {"max_steps": 9, "keep_last": 9, "skip_data": {3: 2}, "schedule": Schedule(kind="constant")}
    toy_run(tmp_path / "whole", **whole)
    run = tmp_path / "run"
    toy_run(run, **(whole | {"skip_data": {}}))
    before = load_file(run / "checkpoints/step-00000003/state.safetensors")
    toy_run(run, **(whole | {"max_steps": 6}))
    assert "going back to step 3; later checkpoints are removed" in capsys.readouterr().err
    kept = load_file(run / "checkpoints/step-00000003/state.safetensors")
    assert same_weights(before, kept) and any(name.startswith("optimizer/") for name in kept)
    toy_run(run, **whole)
    assert same_weights(weights_of(run), weights_of(tmp_path / "whole"))
    with pytest.raises(UserError, match="no checkpoint at step 1 or before"):
        toy_run(run, **(whole | {"skip_data": {1: 1}}))
    assert (run / "checkpoints/step-00000009").exists()


def test_a_model_that_llama_cpp_could_not_convert_is_not_begun(tmp_path):
    with pytest.raises(UserError, match="Qwen3 model with a SentencePiece"):
        toy_run(tmp_path / "run", model=replace(toy_config(tmp_path).model, family="qwen3"))
    assert not (tmp_path / "run").exists()


def test_a_command_that_failed_keeps_no_corrected_one_out(tmp_path):
    with pytest.raises(UserError, match="rows"):
        train_slm(toy_config(tmp_path / "run"))  # there is no dataset of this name
    assert not (tmp_path / "run").exists()
    toy_run(tmp_path / "run", max_steps=1)


def test_the_decay_has_a_mixture_of_its_own(tmp_path):
    read: list[str] = []

    @dataclass
    class Reported(MemoryRows):
        label: str = ""

        def codes(self, index):
            read.append(self.label)
            return super().codes(index)

    datasets = []
    for label in ("many voices", "one voice"):
        rows = speech_rows(24, seed=1, codec=CODEC)
        datasets.append(Reported(rows.streams, rows.texts, rows.speakers, rows.timed, rows.info, label=label))
    changes = dict(
        datasets=[
            DatasetConfig("many", weight=1, decay_weight=0),
            DatasetConfig("one", weight=0, decay_weight=1),
        ],
        schedule=Schedule(warmup_steps=1, decay_steps=4),
        max_steps=8,
        validate_every=100,
        checkpoint_every=8,
        decay_documents=DocumentConfig(formats={"tts": 1}),
    )
    toy_run(tmp_path / "run", datasets, **changes)
    first = read.index("one voice")
    assert set(read[:first]) == {"many voices"} and set(read[first:]) == {"one voice"}
    state = json.loads((tmp_path / "run/checkpoints/step-00000008/state.json").read_text())
    assert state["phase"] == 1
    assert SpeechCapabilities.read(tmp_path / "run/final").formats == ["tts"]


def test_a_run_by_the_clock_decays_before_its_time_is_up(tmp_path):
    result = toy_run(
        tmp_path / "run",
        max_steps=None,
        max_seconds=4.0,
        schedule=Schedule(warmup_steps=1, decay_fraction=0.6),
        validate_every=1000,
        checkpoint_every=1000,
    )
    lines = [line for line in log_of(tmp_path / "run") if "train/loss" in line]
    assert result.finished and lines[-1]["seconds"] >= 4.0 and lines[-2]["seconds"] < 4.0
    rates = [line["learning_rate"] for line in lines[2:]]
    assert rates[0] == 3e-3 and rates == sorted(rates, reverse=True) and rates[-1] < 1.5e-3


def test_the_gradient_is_clipped(tmp_path):
    """After one update AdamW's first moment is (1 - beta) times the gradient that it was given."""
    toy_run(
        tmp_path / "run",
        max_steps=1,
        optimizer=OptimizerConfig(betas=(0.9, 0.95), clip_norm=0.01),
        checkpoint_every=1,
    )
    assert log_of(tmp_path / "run")[1]["gradient_norm"] > 0.1  # before clipping
    state = load_file(tmp_path / "run/checkpoints/step-00000001/state.safetensors")
    moments = [tensor for name, tensor in state.items() if name.endswith("/exp_avg")]
    norm = sum(float(moment.double().square().sum()) for moment in moments) ** 0.5
    assert norm == pytest.approx(0.1 * 0.01, rel=1e-3)


def break_losses(monkeypatch, first, last=10**6, factor=math.nan):
    """The losses of training's forward passes from number `first` to `last` are `factor` times what they are."""
    calls = []
    forward = PackedLanguageModel.forward

    def broken(self, *arguments, **named):
        output = forward(self, *arguments, **named)
        if self.training:
            calls.append(1)
            if first <= len(calls) <= last:
                output["loss"] = output["loss"] * factor
        return output

    monkeypatch.setattr(PackedLanguageModel, "forward", broken)


def test_an_update_without_a_finite_gradient_is_skipped_and_not_in_the_losses(tmp_path, monkeypatch):
    break_losses(monkeypatch, first=5, last=5)  # the first half of the third update
    run = tmp_path / "run"
    toy_run(run, max_steps=4, ema=0.5, checkpoint_every=1, keep_last=9, log_every=2, validate_every=100)

    def at(step):
        directory = run / f"checkpoints/step-{step:08d}"
        counters = json.loads((directory / "state.json").read_text())
        return {file: load_file(directory / f"{file}.safetensors") for file in ("model", "state")}, counters[
            "skipped"
        ]

    (before, none), (after, one), (later, again) = at(2), at(3), at(4)
    assert all(same_weights(before[file], after[file]) for file in before)
    assert not same_weights(after["model"], later["model"])
    assert (none, one, again) == (0, 1, 0)
    lines = [line for line in log_of(run) if "train/loss" in line]
    assert [line.get("skipped_updates") for line in lines] == [None, 1]
    assert all(line["train/loss"] > 0 and line["gradient_norm"] > 0 for line in lines if "train/loss" in line)


def test_a_spike_of_the_gradient_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "_FEWEST_NORMS", 2)
    break_losses(monkeypatch, first=5, last=6, factor=100.0)  # the third update
    optimizer = OptimizerConfig(skip_spikes=20.0)
    run = tmp_path / "run"
    toy_run(run, optimizer=optimizer, max_steps=4, checkpoint_every=1, keep_last=9, validate_every=100)
    weights = [weights_of(run, f"checkpoints/step-{step:08d}") for step in (1, 2, 3, 4)]
    assert [same_weights(one, other) for one, other in itertools.pairwise(weights)] == [False, True, False]
    norms = json.loads((run / "checkpoints/step-00000004/state.json").read_text())["norms"]
    assert len(norms) == 4 and norms[2] > 20 * max(norms[0], norms[1], norms[3])


def test_skipped_updates_in_a_row_end_a_run_also_across_a_restart(tmp_path, monkeypatch):
    changes = {"schedule": Schedule(kind="constant"), "validate_every": 1000, "log_every": 100}
    break_losses(monkeypatch, first=3)  # all but the first update
    assert toy_run(tmp_path / "run", max_steps=9, **changes).finished
    with pytest.raises(UserError, match="not been finite for 20 steps, the last of them step 20"):
        toy_run(tmp_path / "run", max_steps=100, **changes)


def test_gradients_that_are_not_finite_end_a_run(tmp_path):
    with pytest.raises(UserError, match="has not been finite"):
        toy_run(
            tmp_path / "run",
            optimizer=OptimizerConfig(learning_rate=1e30),
            max_steps=100,
            checkpoint_every=1000,
        )


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_one_dial_makes_a_model(vocabulary, family):
    config = transformers_config(ModelConfig(family=family, layers=3), vocabulary)
    assert config.model_type == family and config.hidden_size == 192 and config.num_attention_heads == 3
    assert config.intermediate_size == 512 and config.tie_word_embeddings
    assert config.vocab_size == len(vocabulary) and config.eos_token_id == vocabulary.eos_id
    given = ModelConfig(family=family, size="nano", config={"rms_norm_eps": 1e-5, "num_hidden_layers": 2})
    config = transformers_config(given, vocabulary)
    assert (config.hidden_size, config.num_hidden_layers, config.rms_norm_eps) == (256, 2, 1e-5)


@pytest.mark.parametrize(
    "model, message",
    [
        (ModelConfig(hidden_size=100), "multiple of model.head_dim"),
        (ModelConfig(layers=4, key_value_heads=3), "does not divide the 4 heads"),
        (ModelConfig(config={"vocab_size": 5}), "vocab_size"),
        (ModelConfig(config={"hidden_act": "no such"}), "no llama model can be made of this model.config"),
    ],
)
def test_models_that_cannot_be_are_refused(vocabulary, model, message):
    with pytest.raises(UserError, match=message):
        build_model(model, vocabulary, seed=0, codebooks=[torch.randn(64, 8)])


def test_speech_embeddings_start_from_the_codebook(vocabulary):
    codebook = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(0, -2, 32)
    )
    config = ModelConfig(layers=2, hidden_size=256)
    plain = build_model(replace(config, speech_embeddings="random"), vocabulary, seed=3)
    model = build_model(config, vocabulary, seed=3, codebooks=[codebook + 100.0])
    rows = slice(vocabulary.speech_start, vocabulary.speech_end)
    embedded, before = (m.get_input_embeddings().weight.detach() for m in (model, plain))
    far = np.corrcoef(torch.pdist(codebook).numpy(), torch.pdist(embedded[rows]).numpy())[0, 1]
    assert far > 0.95  # a random projection keeps distances
    assert embedded[rows].std() == pytest.approx(before[rows].std().item(), rel=1e-3)
    elsewhere = [i for i in range(len(vocabulary)) if not rows.start <= i < rows.stop]
    assert torch.equal(embedded[elsewhere], before[elsewhere])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_dropout_is_for_training_only(vocabulary):
    config = ModelConfig(layers=1, speech_embeddings="random", dropout=0.5)
    model = build_model(config, vocabulary, seed=0)
    ids = torch.arange(8)[None]
    assert not torch.equal(model.train()(ids).logits, model(ids).logits)
    plain = build_model(replace(config, dropout=0.0), vocabulary, seed=0).eval()
    torch.testing.assert_close(model.eval()(ids).logits, plain(ids).logits)
