"""Codec recipes hold together, and the README's ablations change what they say."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.foundation import UserError
from codec.loading import model_of
from codec.losses.config import DiscriminatorWeights, LossWeights
from codec.losses.discriminators import build_discriminators
from codec.presets import PARTS
from codec.training.config import CodecTrainingConfig, Stage
from codec.training.initialization import model_config
from recipes.cli.arguments import build_parser
from recipes.cli.train import train_codec_command
from recipes.codec_recipe import CodecRecipe
from recipes.step_cost import one_update
from tests.codec.small_codecs import SMALL_PARTS

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
    if file.stem not in (
        "decoder_only",
        "any_voice",
    ):  # whose models are the reader's own, and one with a name
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


def test_the_published_hybrid_training_is_the_published_one() -> None:
    config = recipe(RECIPES.parent / "hybrid_codec" / "librispeech.yaml")
    (stage,) = config.stages
    assert stage.segment_seconds * 25 == 75 and stage.steps == 300_000
    losses, quantizer = stage.losses, model_config(config).quantizer_config
    weights = (losses.multi_scale_mel, losses.distillation, losses.vq * quantizer.commitment)
    assert weights == (15, 15, 0.25) and losses.waveform_mel == losses.multi_scale == losses.mel == 0
    assert losses.discriminators.keys() == {"multi_period", "multi_scale_stft"}  # periods once
    assert {(d.adversarial, d.feature_matching) for d in losses.discriminators.values()} == {(1, 2)}
    with torch.device("meta"):
        assert sum(p.numel() for p in model_of(model_config(config)).parameters()) == 159_622_562


def test_the_cost_of_an_update_grows_with_its_segment() -> None:
    losses = LossWeights(waveform_mel=1, discriminators={"multi_resolution": DiscriminatorWeights()})
    stages = [Stage(train=list(PARTS), losses=losses, segment_seconds=seconds) for seconds in (1.0, 2.0)]
    config = CodecTrainingConfig(
        model="hh-codec-tiny",
        model_overrides=SMALL_PARTS["hh-codec-tiny"],
        discriminators={"multi_resolution": {"channels": 4}},
        stages=stages,
    )
    found = [one_update(config, stage) for stage in stages]
    (short, weights, kept), (long, same, more) = found
    assert long == pytest.approx(2 * short, rel=0.05) and 1.5 * kept < more <= 2 * kept
    with torch.device("meta"):
        step = model_of(model_config(config))
        judge = build_discriminators(losses.discriminators, config.discriminators, 0)
    # of the codec: weight, gradient, two moments, average; of the discriminator all but the average
    codec, other = (sum(p.numel() for p in module.parameters()) for module in (step, judge))
    assert weights == same == 20 * codec + 16 * other


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


def test_the_recipe_for_any_voice_makes_what_it_says() -> None:
    config = model_config(recipe(RECIPES / "any_voice.yaml"))
    assert config.quantizer_config.kind == "fsq" and list(config.codebook_sizes) == [8_192]
    assert config.encoder_config.level == "running" and config.voice_dim == 64
    with pytest.raises(UserError, match="no mel for the discriminator"):
        Stage(
            train=["vocoder"],
            vocoder_input="recording",
            losses=LossWeights(multi_scale=1, discriminators={"mel": {}}),
        )
