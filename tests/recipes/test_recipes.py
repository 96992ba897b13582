"""Every recipe is one that its command takes."""

import subprocess
from pathlib import Path

import pytest
import yaml

from recipes.cli.arguments import build_parser
from recipes.cli.train import train_codec_command, train_slm_command
from slm.training.config import SLMTrainingConfig

RECIPES = Path(__file__).parents[2] / "recipes"
SLM = sorted((RECIPES / "slm").glob("*.yaml"))
CODECS = [
    path for folder in ("hh_codec", "hybrid_codec") for path in sorted((RECIPES / folder).glob("*.yaml"))
]


def test_there_is_a_recipe_for_each_way():
    names = {path.stem for path in SLM}
    assert {"tiny", "speech", "interleaved", "warm_start_lora", "tts"} <= names
    readme = (RECIPES / "slm" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in readme for path in SLM)


@pytest.mark.parametrize("path", SLM, ids=lambda path: path.stem)
def test_recipes_of_language_models_parse(path):
    parser = build_parser(train_slm_command, "codec-slm train-slm")
    values = parser.instantiate(parser.parse_args(["--config", str(path)]))
    # A dataclass checks itself: fields that do not go together raise here.
    fields = SLMTrainingConfig.__dataclass_fields__
    config = SLMTrainingConfig(**{name: values[name] for name in fields})
    assert config.output.startswith("runs/")
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert said["documents"]["formats"] == config.documents.formats


@pytest.mark.parametrize("path", CODECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes_of_codecs_parse(path):
    assert f"`{path.name}`" in (path.parent / "README.md").read_text(encoding="utf-8")
    parser = build_parser(train_codec_command, "codec-slm train-codec")
    corpora = ["--corpora", "[{path: corpus}]", "--output", "runs/codec"]
    parser.instantiate(parser.parse_args(["--config", str(path), *corpora]))


def test_the_costs_in_the_readme_are_those_of_its_formula():
    from slm.models.config import SIZES

    readme = (RECIPES / "slm" / "README.md").read_text(encoding="utf-8")
    tokens = 10_000 * 24 * 3600
    for name, (layers, width) in SIZES.items():
        weights = 12 * layers * width**2 + 12_416 * width  # a head for 8,192 codes and 4,096 pieces of text
        hours = 6 * weights * tokens / (989e12 * 0.4 * 3600)
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert float(row.split("|")[-2]) == pytest.approx(hours, rel=0.16)


def test_the_slurm_script_is_a_script():
    script = RECIPES / "slm" / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    yaml.safe_load((RECIPES / "slm" / "accelerate" / "fsdp2.yaml").read_text(encoding="utf-8"))
