"""The model that a training run starts from, and its compilation."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn

from codec.base import CodecModel
from codec.configuration import CodecConfig
from codec.export import holds_vocoder
from codec.foundation import UserError
from codec.loading import CODECS, load_trained, load_vocoder, model_of, preset_config, read_config
from codec.losses.adversarial import Adversary
from codec.nn.blocks import fit_weight_norm
from codec.nn.mel import MelConfig
from codec.presets import PARTS, PRESETS
from codec.training.config import CodecTrainingConfig
from codec.training.step import CodecTrainingStep


def build_model(config: CodecTrainingConfig) -> CodecModel:
    """A fresh model of the config, with the parts of `initialize` taken from elsewhere.

    Raises UserError for an unknown preset, and for a part that does not exist or does not fit.
    """
    model = model_of(model_config(config))
    _check_stages(config, model)
    if config.gradient_checkpointing:
        if not hasattr(getattr(model, "vocoder", None), "gradient_checkpointing"):
            raise UserError(
                f"the vocoder of {config.model} has no gradient_checkpointing: leave it off, only BigVGAN needs it"
            )
        model.vocoder.gradient_checkpointing = True
    for part, source in config.initialize.items():
        if part not in (*model.PARTS, "all"):
            raise UserError(f"initialize names {part!r}: the parts are {', '.join(model.PARTS)}, or all")
        names = model.PARTS if part == "all" else (part,)
        if part == "vocoder" and holds_vocoder(source):
            vocoder = load_vocoder(source)
            donors: dict[str, nn.Module] = {part: vocoder}
            mel: MelConfig | None = vocoder.config.mel
        else:
            donor = load_trained(source)
            if missing := sorted(set(names) - set(donor.PARTS)):
                raise UserError(f"{source} has no {missing[0]} to start from")
            mel = donor.config.vocoder_config.mel if "vocoder" in names else None
            if "quantizer" in names and donor.config.exported and not model.config.exported:
                raise UserError(
                    f"{source} is an exported codec, whose quantizer holds finished codes and nothing to learn with: "
                    "give the run that it came from"
                )
            donors = {name: donor.get_submodule(name) for name in names}
        # a vocoder that trains may start from another mel
        learns = any("vocoder" in stage.train for stage in config.stages)
        if "vocoder" in names and not learns and mel != model.config.vocoder_config.mel:
            raise UserError(
                f"the vocoder of {source} was trained on another mel than this model's decoder makes"
            )
        for name in names:
            own = model.get_submodule(name)
            try:
                own.load_state_dict(fit_weight_norm(donors[name].state_dict(), own))
            except RuntimeError as error:
                # torch names every tensor, after a heading: the first says enough
                reasons = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
                more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
                raise UserError(
                    f"the {name} of {source} does not fit this model: {reasons[0]}{more}"
                ) from error
    return model


def _check_stages(config: CodecTrainingConfig, model: CodecModel) -> None:
    """Raise UserError when a stage asks for something that this model does not have."""
    for stage in config.stages:
        if missing := sorted(set(stage.train) - set(model.PARTS)):
            raise UserError(
                f"a stage trains {missing[0]}: the parts of {config.model} are {', '.join(model.PARTS)}"
            )
        if "vocoder" not in model.PARTS and (stage.losses.mel > 0 or stage.vocoder_input == "recording"):
            raise UserError(
                f"the decoder of {config.model} makes the waveform, with no mel before it: set losses.mel to 0, leave "
                "vocoder_input as it is, and weigh losses of the waveform"
            )


def model_config(config: CodecTrainingConfig) -> CodecConfig:
    """The configuration of the model that a run trains.

    Raises UserError for an unknown preset, and for overrides that do not exist or do not fit together.
    """
    try:
        if config.model in PRESETS:
            base = preset_config(config.model).to_dict()
        elif (Path(config.model) / "config.json").is_file():
            base = read_config(config.model).to_dict()
        else:
            raise UserError(
                f"no codec {config.model!r} to train: give a preset ({', '.join(sorted(PRESETS))}) "
                "or a directory with config.json"
            )
        for part, overrides in config.model_overrides.items():
            if not isinstance(base.get(part), dict):
                names = ", ".join(name for name in PARTS if isinstance(base.get(name), dict))
                raise UserError(f"model_overrides names {part!r}: the parts are {names}")
            # a part of another kind has other fields
            same_kind = overrides.get("kind", base[part].get("kind")) == base[part].get("kind")
            base[part] = {**base[part], **overrides} if same_kind else overrides
        if config.name is not None:
            base["name"] = config.name
        base["fingerprint"] = None  # of what is trained; the export computes it
        return CODECS[base["model_type"]].config_class(**base)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the configuration of {config.model} does not hold together: {error}") from error


def compile_networks(step_module: CodecTrainingStep, adversary: Adversary | None) -> None:
    """Have codec and discriminators compiled when they are first called. Their weights keep their names.

    What cannot be compiled raises, and so does a module with so many shapes that torch would give up on it.
    """
    torch._dynamo.config.suppress_errors = False
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    discriminators = [] if adversary is None else list(adversary.discriminators.values())
    # They share the code of one `forward`, which is compiled for each, with and without gradients, for one batch and
    # for two.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(discriminators))
    for name in step_module.model.PARTS:
        if name != "quantizer":  # one matrix product and a choice
            step_module.model.get_submodule(name).compile()
    for discriminator in discriminators:
        discriminator.compile()


def uncompiled(is_compiled: bool) -> AbstractContextManager[object]:
    """Within the context nothing compiled runs and nothing is compiled: for audio of many lengths."""
    return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
