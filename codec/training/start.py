"""The model that a training run starts from."""

from pathlib import Path

from torch import nn

from codec.configuration import PARTS, HHCodecConfig
from codec.modeling import HHCodecModel
from codec.presets import PRESETS, preset_config
from codec.runs import UserError
from codec.training.checkpoint import load_trained
from codec.training.config import CodecTrainingConfig
from codec.vocoders import holds_vocoder, load_vocoder
from codec.weight_norm import fit_weight_norm


def build_model(config: CodecTrainingConfig) -> HHCodecModel:
    """A fresh model of the config, with the parts of `initialize` taken from elsewhere.

    Raises UserError for an unknown preset, a part that does not exist or does not fit.
    """
    model = HHCodecModel(model_config(config))
    if config.gradient_checkpointing:
        if not hasattr(model.vocoder, "gradient_checkpointing"):
            raise UserError(
                f"the vocoder of {config.model} has no gradient_checkpointing: leave it off, only BigVGAN needs it"
            )
        model.vocoder.gradient_checkpointing = True
    for part, source in config.initialize.items():
        if part not in (*PARTS, "all"):
            raise UserError(f"initialize names {part!r}: the parts are {', '.join(PARTS)}, or all")
        names = PARTS if part == "all" else (part,)
        if part == "vocoder" and holds_vocoder(source):
            vocoder = load_vocoder(source)
            donors: dict[str, nn.Module] = {part: vocoder}
            mel = vocoder.config.mel
        else:
            donor = load_trained(source)
            mel = donor.config.vocoder_config.mel
            donors = {name: donor.get_submodule(name) for name in names}
        if "vocoder" in names and mel != model.config.vocoder_config.mel:
            raise UserError(
                f"the vocoder of {source} was trained on another mel than this model's decoder makes"
            )
        for name in names:
            own = model.get_submodule(name)
            try:
                own.load_state_dict(fit_weight_norm(donors[name].state_dict(), own))
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"the {name} of {source} does not fit this model: {reason}") from error
    return model


def model_config(config: CodecTrainingConfig) -> HHCodecConfig:
    """The configuration of the model that a run trains.

    Raises UserError for an unknown preset, and for overrides of what is not there or does not fit together.
    """
    try:
        if config.model in PRESETS:
            base = preset_config(config.model).to_dict()
        elif (Path(config.model) / "config.json").is_file():
            base = HHCodecConfig.from_pretrained(config.model).to_dict()
        else:
            raise UserError(
                f"no codec {config.model!r} to train: give a preset ({', '.join(sorted(PRESETS))}) "
                "or a directory with config.json"
            )
        for part, overrides in config.model_overrides.items():
            if part not in PARTS:
                raise UserError(f"model_overrides names {part!r}: the parts are {', '.join(PARTS)}")
            base[part] = {**base[part], **overrides}
        if config.name is not None:
            base["name"] = config.name
        base["fingerprint"] = None  # of what is trained; the export computes it
        return HHCodecConfig(**base)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the configuration of {config.model} does not hold together: {error}") from error
