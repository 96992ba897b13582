"""The model that a training run starts from."""

from pathlib import Path

from torch import nn

from codec.base import CodecModel
from codec.configuration import PARTS, CodecConfig
from codec.families import CODECS, PRESETS, model_of, preset_config, read_config
from codec.foundation import UserError
from codec.nn.mel import MelConfig
from codec.nn.weight_norm import fit_weight_norm
from codec.training.checkpoint import load_trained
from codec.training.config import CodecTrainingConfig
from codec.vocoders.directories import holds_vocoder, load_vocoder


def build_model(config: CodecTrainingConfig) -> CodecModel:
    """A fresh model of the config, with the parts of `initialize` taken from elsewhere.

    Raises UserError for an unknown preset, a part that does not exist or does not fit.
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
        learns = any(
            "vocoder" in stage.train for stage in config.stages
        )  # another mel is a start like any other
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
    """Raise UserError when a stage asks for what this model has not."""
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

    Raises UserError for an unknown preset, and for overrides of what is not there or does not fit together.
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
            base[part] = {**base[part], **overrides}
        if config.name is not None:
            base["name"] = config.name
        base["fingerprint"] = None  # of what is trained; the export computes it
        return CODECS[base["model_type"]].config_class(**base)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the configuration of {config.model} does not hold together: {error}") from error
