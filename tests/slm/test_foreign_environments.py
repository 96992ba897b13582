"""Checkpoints in the hands of others: transformers 4.57 and 5, in environments that do not know this project.

Each environment is made here, by pip; torch and what it needs are lent to it from this one.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from slm.models.checkpoint import bundled_slms, find_slm, merge
from slm.models.config import ModelConfig, StartConfig, TuningConfig
from slm.training.data import TrainingData
from slm.training.loop import train_slm
from slm.vocabulary import Vocabulary
from tests.slm.text_lm import save_text_lm
from tests.slm.token_rows import SENTENCES, speech_rows, train_text_model
from tests.slm.toy_training import CODEC, toy_config, toy_run

pytestmark = pytest.mark.slow

TEXTS = [*SENTENCES, "  Two  spaces, a\ttab,\na line; naïve café, 東京 🙂", "the <|s5|> of <|eos|>", ""]

# what somebody else's program does, with nothing of ours, with each checkpoint that it is given
CLIENT = """
import importlib.util, json, sys
import torch, transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

assert not any(importlib.util.find_spec(name) for name in ("codec", "slm", "data", "recipes", "peft"))
told = {"version": transformers.__version__}
for name, asked in json.load(open("asked.json")).items():
    model = AutoModelForCausalLM.from_pretrained(asked["checkpoint"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(asked["checkpoint"])
    ids = torch.tensor(asked["ids"])
    start = ids[:, :8]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        more = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=8, do_sample=False)
    save_file({"logits": logits, "more": more}, name + ".safetensors")
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked["texts"]]
    told[name] = {
        "encoded": encoded,
        "decoded": [tokenizer.decode(row) for row in encoded],
        "size": len(tokenizer),
        "eos": [tokenizer.eos_token_id, model.generation_config.eos_token_id],
        "pad": [tokenizer.pad_token_id, model.generation_config.pad_token_id],
        "tokens": tokenizer.convert_tokens_to_ids(["<|text|>", "<|speech|>", "<|s0|>", "<|s63|>"]),
    }
print(json.dumps(told))
"""


@pytest.fixture(scope="module", params=["transformers==4.57.*", "transformers>=5,<6"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with this transformers, and without this project."""
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--retries",
        "1",
        "--timeout",
        "10",
    ]
    made = subprocess.run([*install, request.param, "sentencepiece"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(
            f"pip cannot install {request.param}: {(made.stderr.strip() or 'no reason').splitlines()[-1]}"
        )
    (packages,) = directory.glob("lib/python*/site-packages")
    _lend("torch", packages)
    return python


def _lend(package: str, packages: Path) -> None:
    """Link an installed distribution and all that it requires into another environment, where they are missing."""
    waiting, lent = [package], set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in lent:
            continue
        lent.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for file in {entry.parts[0] for entry in found.files or []} - {"..", "__pycache__"}:
            if not (packages / file).exists():
                (packages / file).symlink_to(Path(str(found.locate_file(file))))
        for line in found.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What this project ships, and what each way of training leaves."""
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}
    if "slm-tiny" in bundled_slms():
        made["bundled"] = find_slm("slm-tiny")
    toy_run(folder / "characters", max_steps=3)
    for kind, family in (("bpe", "qwen3"), ("unigram", "llama")):
        config = toy_config(
            folder / kind,
            max_steps=3,
            model=ModelConfig(
                layers=2,
                hidden_size=32,
                head_dim=16,
                max_positions=512,
                family=family,
                speech_embeddings="random",
            ),
        )
        vocabulary = Vocabulary.build(train_text_model(folder, kind), CODEC, ["slt", "rms"])
        rows = [speech_rows(24, codec=CODEC)]
        validation = {"rows": speech_rows(4, seed=9, codec=CODEC)}
        train_slm(config, TrainingData(config, rows, ["hash"], validation, vocabulary))
    text_model = save_text_lm(folder / "a text model", tied=False, family="qwen3")
    start = StartConfig(str(text_model), "mean")
    toy_run(folder / "warm start", max_steps=3, text_model=None, model=ModelConfig(), start_from=start)
    toy_run(
        folder / "adapter",
        max_steps=3,
        text_model=None,
        model=ModelConfig(),
        start_from=start,
        tuning=TuningConfig("lora", rank=2),
    )
    merge(folder / "adapter", folder / "merged" / "final")
    names = ["characters", "bpe", "unigram", "warm start", "merged"]
    return made | {name: folder / name / "final" for name in names}


def asked_of(vocabulary: Vocabulary) -> list[list[int]]:
    """Two rows of text and speech."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for text in SENTENCES[:2]:
        codes = torch.randint(
            vocabulary.speech_start, vocabulary.speech_end, (40,), generator=generator
        ).tolist()
        row = [vocabulary.text_id, *vocabulary.encode_text(text).tolist(), vocabulary.speech_id, *codes]
        rows.append(row[:48])
    return rows


def test_checkpoints_are_the_same_to_others(
    checkpoints: dict[str, Path], python: Path, tmp_path: Path
) -> None:
    vocabularies = {name: Vocabulary.from_pretrained(path) for name, path in checkpoints.items()}
    asked = {
        name: {"checkpoint": str(path), "ids": asked_of(vocabularies[name]), "texts": TEXTS}
        for name, path in checkpoints.items()
    }
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    client = subprocess.run(
        [python, "-I", tmp_path / "client.py"], capture_output=True, text=True, cwd=tmp_path
    )
    assert client.returncode == 0, client.stderr[-2_000:]
    # nothing is missing or left over, and no tokenizer is taken for another
    for complaint in ("newly initialized", "not used when", "UNEXPECTED", "MISSING", "incorrect", "mismatch"):
        assert complaint not in client.stderr
    told = json.loads(client.stdout.splitlines()[-1])
    for name, path in checkpoints.items():
        ours, theirs = vocabularies[name], told[name]
        ids = torch.tensor(asked[name]["ids"])
        answer = load_file(tmp_path / f"{name}.safetensors")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        start = ids[:, :8]
        with torch.inference_mode():
            torch.testing.assert_close(answer["logits"], model(input_ids=ids).logits, atol=1e-4, rtol=0)
            more = model.generate(
                start, attention_mask=torch.ones_like(start), max_new_tokens=8, do_sample=False
            )
        assert torch.equal(answer["more"], more), name
        for text, encoded, decoded in zip(TEXTS, theirs["encoded"], theirs["decoded"], strict=True):
            if "<|" not in text:  # which only our own encoder takes for text
                assert (encoded, decoded) == (ours.encode_text(text).tolist(), text), name
        assert theirs["size"] == len(ours), name
        assert theirs["eos"] == [ours.eos_id] * 2 and theirs["pad"] == [ours.pad_id] * 2, name
        first = ours.speech_start
        assert theirs["tokens"] == [ours.text_id, ours.speech_id, first, first + 63], name
