"""Codec recipes hold together, and the README's ablations change what they say."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from codec.training.initialization import model_config
from recipes.cli.arguments import build_parser
from recipes.cli.train import train_codec_command
from recipes.codec_recipe import CodecRecipe

RECIPES = Path(__file__).parents[2] / "recipes" / "hh_codec"
FILES = sorted(RECIPES.rglob("*.yaml"))
ABLATIONS = dict(
    re.findall(
        r"^\| ([a-z ]+) \| `(--.*)` \|$", (RECIPES / "ablations" / "README.md").read_text(), re.MULTILINE
    )
)


def recipe(file: Path, *flags: str) -> CodecRecipe:
    parser = build_parser(train_codec_command, "codec-slm train-codec")
    needed = ["--corpora", "[{path: corpus}]", "--output", "runs/codec"]
    values = parser.instantiate(parser.parse_args(["--config", str(file), *needed, *flags]))
    return CodecRecipe(**{name: values[name] for name in CodecRecipe.__dataclass_fields__})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recipes_hold_together(file: Path) -> None:
    config = recipe(file)
    if file.stem != "decoder_only":  # whose model is the reader's own
        assert model_config(config).name == config.model
    said = (RECIPES / "README.md").read_text() + (RECIPES / "ablations" / "README.md").read_text()
    assert file.name in said


def test_the_published_training_is_the_published_one() -> None:
    config = recipe(RECIPES / "paper.yaml")
    assert round(config.stages[0].segment_seconds * 24_000) == 65_536
    assert [stage.steps / config.total_steps for stage in config.stages] == [10 / 50, 40 / 50]
    assert ["vocoder" in stage.train for stage in config.stages] == [False, True]
    assert (
        config.discriminator_names == {"multi_period", "multi_resolution", "dac"}
        and not config.discriminators
    )
    assert model_config(config).hop_length == 1_024


def without(config: CodecRecipe, name: str) -> Any:
    """What is gone, as a recipe's settings say it."""
    quantizer = model_config(config).quantizer_config
    return {
        "rotation trick": quantizer.gradient == "straight-through",
        "frozen codebook": not quantizer.frozen,
        "second quantizer": quantizer.training_quantizers == 1,
        "mel supervision": all(stage.losses.mel == 0 for stage in config.stages),
        "frozen stage": all("vocoder" in stage.train for stage in config.stages),
        "distillation": config.teacher is None and all(stage.losses.ctc == 0 for stage in config.stages),
        "discriminators": not config.discriminator_names,
    }[name]


@pytest.mark.parametrize("file", ["paper.yaml", "ablations/tiny.yaml"])
def test_each_ablation_takes_one_thing_away(file: str) -> None:
    whole = recipe(RECIPES / file)
    assert len(ABLATIONS) == 7 and not any(without(whole, name) for name in ABLATIONS)
    for name, flags in ABLATIONS.items():
        config = recipe(RECIPES / file, *shlex.split(flags))
        assert [other for other in ABLATIONS if without(config, other)] == [name]
