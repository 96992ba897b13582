from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from codec.foundation import UserError
from recipes.cli.main import main
from slm.generation.speech_lm import SpeechLM
from slm.models.config import ModelConfig, StartConfig, TuningConfig
from slm.models.warm_start import Start
from slm.training.config import Schedule
from slm.training.data import TrainingData
from slm.training.learner import Learner
from slm.training.loop import train_slm
from slm.vocabulary import Vocabulary
from tests.slm.text_lm import save_text_lm
from tests.slm.token_rows import speech_rows
from tests.slm.toy_training import CODEC, toy_config


@pytest.fixture(scope="module")
def text_lms(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("text models")
    return {tied: save_text_lm(folder / str(tied), tied, steps=3) for tied in (True, False)}


def train(output: Path, base: Path, mode: str, **changes) -> Path:
    config = toy_config(
        output,
        text_model=None,
        start_from=StartConfig(str(base), "mean"),
        tuning=TuningConfig(mode, rank=4, dropout=0.1 if mode == "lora" else 0.0),
        model=ModelConfig(dropout=0.1),
        **({"max_steps": 4, "validate_every": 100} | changes),
    )
    vocabulary = Start.open(config.start_from).extended_vocabulary(CODEC, ["slt", "rms"])
    train_slm(config, TrainingData(config, [speech_rows(24, seed=0, codec=CODEC)], ["hash"], {}, vocabulary))
    return output


@pytest.fixture(scope="module", params=["lora tied", "lora untied", "embeddings tied", "embeddings untied"])
def adapter(request, text_lms, tmp_path_factory) -> tuple[Path, Path, str]:
    """A run that trained a part of a model, and the model."""
    mode, _, embeddings = request.param.partition(" ")
    base = text_lms[embeddings == "tied"]
    return train(tmp_path_factory.mktemp("adapter") / "run", base, mode), base, mode


def logits_of(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ids).logits


def test_it_trains_what_it_says_and_nothing_else(adapter):
    run, base, mode = adapter
    generation, vocabulary = (
        GenerationConfig.from_pretrained(run / "final"),
        Vocabulary.from_pretrained(run / "final"),
    )
    assert (generation.eos_token_id, generation.pad_token_id) == (vocabulary.eos_id, vocabulary.pad_id)
    weights = load_file(run / "final" / "adapter_model.safetensors")
    rows = {name for name in weights if "trainable_tokens_delta" in name or "token_adapter" in name}
    low_rank = set(weights) - rows
    assert bool(low_rank) == (mode == "lora") and all("lora_" in name for name in low_rank)
    tied = AutoModelForCausalLM.from_pretrained(base).config.tie_word_embeddings
    assert len({weights[name].sum().item() for name in rows}) == (1 if tied else 2)
    vocabulary = Vocabulary.from_pretrained(run / "final")
    for name in rows:
        assert len(weights[name]) == len(vocabulary) - vocabulary.num_text
    merged, before = SpeechLM.from_pretrained(run).model, AutoModelForCausalLM.from_pretrained(base)
    table, old = merged.get_input_embeddings().weight, before.get_input_embeddings().weight
    assert torch.equal(table[: vocabulary.num_text], old[: vocabulary.num_text])
    changed = table[vocabulary.num_text :] != old[: vocabulary.num_text].mean(0)
    assert changed[: vocabulary.speech_end - vocabulary.num_text].any(1).float().mean() > 0.9


def test_merged_logits_equal_the_adapters(adapter, tmp_path, capsys):
    run, _, _ = adapter
    # As PEFT loads it, knowing nothing of this project: the tokenizer beside it says how large the embedding is.
    outside = AutoPeftModelForCausalLM.from_pretrained(run / "final", dtype=torch.float32)
    assert main(["merge", str(run), "--output", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert len(tokenizer) == merged.config.vocab_size
    ids = torch.randint(0, len(tokenizer), (2, 40), generator=torch.Generator().manual_seed(0))
    expected = logits_of(outside, ids)
    torch.testing.assert_close(logits_of(merged, ids), expected, rtol=0, atol=1e-5)
    ours = SpeechLM.from_pretrained(run)
    torch.testing.assert_close(logits_of(ours.model, ids), expected, rtol=0, atol=1e-5)
    assert ours.capabilities.speak_format == "aligned" and ours.vocabulary.codec == CODEC
    assert main(["merge", str(tmp_path / "merged"), "--output", str(tmp_path / "again")]) == 2
    assert "no adapter" in capsys.readouterr().err
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_text("somebody's")
    assert main(["merge", str(run), "--output", str(tmp_path / "music")]) == 2
    assert "exists and is no speech language model" in capsys.readouterr().err
    assert (tmp_path / "music" / "a.wav").read_text() == "somebody's"


def test_it_goes_on_bit_for_bit(adapter, tmp_path):
    _run, base, mode = adapter
    constant = {"schedule": Schedule(kind="constant")}
    train(tmp_path / "whole", base, mode, **constant)
    train(tmp_path / "parts", base, mode, max_steps=3, **constant)
    train(tmp_path / "parts", base, mode, **constant)
    whole, parts = (
        load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_part_of_a_fresh_model_cannot_be_trained(tmp_path):
    with pytest.raises(UserError, match="give start_from"):
        toy_config(tmp_path, tuning=TuningConfig("lora"))


def test_modules_that_are_not_there_are_named(text_lms, tmp_path):
    config = toy_config(
        tmp_path / "run",
        text_model=None,
        start_from=StartConfig(str(text_lms[True]), "mean"),
        tuning=TuningConfig("lora", target_modules=["no_such"]),
        model=ModelConfig(),
    )
    vocabulary = Start.open(config.start_from).extended_vocabulary(CODEC, [])
    data = TrainingData(config, [], [], {}, vocabulary)
    with pytest.raises(UserError, match="no_such"):
        Learner(config, data, Accelerator(cpu=True), None, {})
