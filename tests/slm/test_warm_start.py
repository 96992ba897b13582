import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from codec.foundation import UserError
from slm.models.checkpoint import SpeechCapabilities, save_vocabulary
from slm.models.config import ModelConfig, StartConfig
from slm.models.warm_start import Start, start_model
from slm.training.data import TrainingData
from slm.training.loop import train_slm
from slm.vocabulary import Vocabulary
from tests.slm.text_lm import save_text_lm
from tests.slm.token_rows import SENTENCES, codec_info, speech_rows
from tests.slm.toy_training import CODEC, toy_config, toy_run

OTHER_CODEC = codec_info((64,), fingerprint="fedcba9876543210")
CODEBOOK = torch.randn(64, 24, generator=torch.Generator().manual_seed(5)) @ torch.diag(
    torch.logspace(0, -2, 24)
)


@pytest.fixture(scope="module")
def text_lms(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A text language model with tied, and one with separate embeddings."""
    folder = tmp_path_factory.mktemp("text models")
    return {
        tied: save_text_lm(folder / str(tied), tied, "llama" if tied else "qwen3") for tied in (True, False)
    }


@pytest.fixture(scope="module")
def speech_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech language model of ours."""
    run = tmp_path_factory.mktemp("speech model") / "run"
    toy_run(run, max_steps=3)
    return run


def started(config: StartConfig, codec=CODEC, voices=("slt", "rms"), **shape):
    start = Start.open(config)
    vocabulary = start.extended_vocabulary(codec, voices)
    model = start_model(start, ModelConfig(**shape), vocabulary, seed=0, codebooks=[CODEBOOK])
    return model, vocabulary


def speech_rows_of(model, vocabulary) -> torch.Tensor:
    return model.get_input_embeddings().weight.detach()[vocabulary.speech_start : vocabulary.speech_end]


@pytest.mark.parametrize("how", ["mean", "codebook"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_text_model_reads_text_as_before(text_lms, tied, how):
    before = AutoModelForCausalLM.from_pretrained(text_lms[tied], dtype=torch.float32).eval()
    model, vocabulary = started(StartConfig(str(text_lms[tied]), speech_embeddings=how))
    assert len(vocabulary) % 128 == 0 == (len(vocabulary) - len(model.get_input_embeddings().weight))
    tokenizer = AutoTokenizer.from_pretrained(text_lms[tied])
    for sentence in SENTENCES[:3]:
        ids = vocabulary.encode_text(sentence)
        assert ids.tolist() == tokenizer.encode(sentence) and vocabulary.decode_text(ids) == sentence
        ids = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            expected, logits = before(ids).logits, model.eval()(ids).logits
        # Over the tokens that were there; the new ones share what probability is left.
        torch.testing.assert_close(
            logits[..., : vocabulary.num_text], expected[..., : vocabulary.num_text], rtol=0, atol=1e-5
        )
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is table) == tied


def test_text_that_spells_speech_tokens_is_text(text_lms):
    _, vocabulary = started(StartConfig(str(text_lms[True]), speech_embeddings="mean"))
    text = "say <|s5|> or <|eos|> or <|endoftext|>"
    ids = vocabulary.encode_text(text)
    assert ids.max() < vocabulary.num_text and vocabulary.decode_text(ids) == text


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_have_the_mean_or_the_statistics_of_the_old(text_lms, tied):
    before = AutoModelForCausalLM.from_pretrained(text_lms[tied], dtype=torch.float32)
    mean, vocabulary = started(StartConfig(str(text_lms[tied]), speech_embeddings="mean"))
    drawn, _ = started(StartConfig(str(text_lms[tied]), speech_embeddings="codebook"))
    for part in ("get_input_embeddings", "get_output_embeddings"):
        old = getattr(before, part)().weight.detach()[: vocabulary.num_text]
        rows = [
            getattr(model, part)().weight.detach()[vocabulary.speech_start : vocabulary.speech_end]
            for model in (mean, drawn)
        ]
        torch.testing.assert_close(rows[0], old.mean(0).expand(64, -1))
        torch.testing.assert_close(rows[1].mean(0), old.mean(0), rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[1].std(0), old.std(0))
        distances = torch.pdist(CODEBOOK), torch.pdist(rows[1] / old.std(0))
        assert np.corrcoef(distances)[0, 1] > 0.6  # codes that sound alike start alike; 32 dimensions blur it


def test_ours_goes_on_as_it_is_for_its_own_codec(speech_lm):
    before = AutoModelForCausalLM.from_pretrained(speech_lm / "final", dtype=torch.float32)
    model, vocabulary = started(StartConfig(str(speech_lm)))
    former = Vocabulary.from_pretrained(speech_lm / "final")
    assert len(vocabulary) == len(former) and vocabulary.speech_start == former.speech_start
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_new_voice_moves_tokens_but_not_what_they_are(speech_lm):
    before = AutoModelForCausalLM.from_pretrained(speech_lm / "final", dtype=torch.float32)
    former = Vocabulary.from_pretrained(speech_lm / "final")
    model, vocabulary = started(StartConfig(str(speech_lm)), voices=("slt", "new", "rms"))
    assert vocabulary.speech_start == former.speech_start + 1
    table, old = model.get_input_embeddings().weight, before.get_input_embeddings().weight
    assert torch.equal(speech_rows_of(model, vocabulary), speech_rows_of(before, former))
    assert torch.equal(table[vocabulary.voices["rms"]], old[former.voices["rms"]])
    torch.testing.assert_close(table[vocabulary.voices["new"]], old[list(former.voices.values())].mean(0))
    assert torch.equal(table[vocabulary.eos_id], old[former.eos_id])


def test_another_codec_of_the_same_size(speech_lm, tmp_path):
    with pytest.raises(UserError, match=r"0123456789abcdef.*fedcba9876543210"):
        started(StartConfig(str(speech_lm), "keep"), OTHER_CODEC)
    former = Vocabulary.from_pretrained(speech_lm / "final")
    before = AutoModelForCausalLM.from_pretrained(speech_lm / "final", dtype=torch.float32)
    old = speech_rows_of(before, former)
    drawn, vocabulary = started(StartConfig(str(speech_lm)), OTHER_CODEC)
    assert vocabulary.codec == OTHER_CODEC and len(vocabulary) == len(former)
    rows = speech_rows_of(drawn, vocabulary)
    torch.testing.assert_close(rows.mean(0), old.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(rows.std(0), old.std(0))
    assert torch.equal(  # all else is the old model's
        drawn.get_input_embeddings().weight[: vocabulary.speech_start],
        before.get_input_embeddings().weight[: former.speech_start],
    )
    reverse = np.arange(64)[::-1].copy()
    np.save(tmp_path / "codes.npy", reverse)
    np.save(tmp_path / "shares.npy", np.eye(64, dtype=np.float32)[reverse])
    for name in ("codes.npy", "shares.npy"):
        mapped, _ = started(StartConfig(str(speech_lm), "map", str(tmp_path / name)), OTHER_CODEC)
        torch.testing.assert_close(speech_rows_of(mapped, vocabulary), old[reverse])
    np.save(tmp_path / "few.npy", reverse[:9])
    with pytest.raises(UserError, match=r"few\.npy: an array \(9,\)"):
        started(StartConfig(str(speech_lm), "map", str(tmp_path / "few.npy")), OTHER_CODEC)


def test_what_does_not_fit_is_refused(text_lms, tmp_path):
    name = str(text_lms[True])
    with pytest.raises(UserError, match="speaks no codec"):
        started(StartConfig(name, "keep"))
    with pytest.raises(UserError, match=r"model\.layers is 3, but start_from\.model .* has 2"):
        started(StartConfig(name, "mean"), layers=3)
    started(StartConfig(name, "mean"), layers=2)  # says the same as the model
    with pytest.raises(UserError, match=r"code_map go together"):
        StartConfig(name, "map")
    with pytest.raises(UserError, match=r"text_model .* or start_from"):
        toy_config(tmp_path, start_from=StartConfig(name))


def test_the_token_that_a_text_model_begins_with_is_kept(text_lms, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(text_lms[True])
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "text")
    built = Vocabulary.build(tmp_path / "text", CODEC)
    built.save_pretrained(tmp_path / "speech")
    copy = Vocabulary.from_pretrained(tmp_path / "speech").for_codec(OTHER_CODEC)
    assert built.bos_id == copy.bos_id == tokenizer.bos_token_id is not None
    assert AutoTokenizer.from_pretrained(tmp_path / "speech").bos_token_id == built.bos_id
    save_vocabulary(tmp_path / "speech", copy, SpeechCapabilities())
    assert GenerationConfig.from_pretrained(tmp_path / "speech").bos_token_id == built.bos_id
    assert Vocabulary.build(text_lms[True], CODEC).bos_id is None


def test_an_architecture_that_mixes_up_packed_documents_is_refused(text_lms, tmp_path):
    from transformers import BloomConfig

    AutoTokenizer.from_pretrained(text_lms[True]).save_pretrained(tmp_path)
    config = BloomConfig(vocab_size=352, hidden_size=32, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"packed documents|cannot be loaded"):
        started(StartConfig(str(tmp_path), "mean"))


def test_training_goes_on_from_a_text_model_and_resumes(text_lms, tmp_path):
    def run(output: Path, steps: int):
        config = toy_config(
            output,
            text_model=None,
            start_from=StartConfig(str(text_lms[True]), "mean"),
            model=ModelConfig(dropout=0.1),
            max_steps=steps,
        )
        rows = [speech_rows(24, seed=0, codec=CODEC)]
        vocabulary = Start.open(config.start_from).extended_vocabulary(CODEC, ["slt", "rms"])
        return train_slm(config, TrainingData(config, rows, ["hash"], {}, vocabulary))

    assert run(tmp_path / "whole", 6).finished
    run(tmp_path / "parts", 4)
    assert run(tmp_path / "parts", 6).steps == 6
    final = tmp_path / "whole" / "final"
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / n / "final") for n in ("whole", "parts"))
    # The schedule of the run that was made longer differs; that of its first steps does not.
    assert one.config.eos_token_id == Vocabulary.from_pretrained(final).eos_id
    assert len(AutoTokenizer.from_pretrained(final)) == one.config.vocab_size == other.config.vocab_size
    losses = [
        [
            line["train/loss"]
            for line in map(json.loads, (tmp_path / n / "log.jsonl").open())
            if "train/loss" in line
        ]
        for n in ("whole", "parts")
    ]
    assert losses[0][:4] == losses[1][:4] and losses[0][-1] < losses[0][0]
