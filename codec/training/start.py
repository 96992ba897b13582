"""The model that a training run starts from."""

from pathlib import Path

from codec.configuration import HHCodecConfig
from codec.modeling import HHCodecModel
from codec.presets import PRESETS, preset_config
from codec.runs import UserError
from codec.training.config import CodecTrainingConfig


def build_model(config: CodecTrainingConfig) -> HHCodecModel:
    """A fresh model of the config, with the parts of `initialize` taken from elsewhere.

    Raises UserError for an unknown preset, a part that does not exist or does not fit.
    """
    model = HHCodecModel(_model_config(config))
    for part, source in config.initialize.items():
        names = list(model.PARTS) if part == "all" else [part]
        donor = load_trained(source)
        for name in names:
            if name not in model.PARTS:
                raise UserError(f"initialize names {name!r}: the parts are {', '.join(model.PARTS)}, or all")
            try:
                model.get_submodule(name).load_state_dict(donor.get_submodule(name).state_dict())
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise UserError(f"the {name} of {source} does not fit this model: {reason}") from error
    return model


def load_trained(directory: str) -> HHCodecModel:
    """A codec from a run directory (its `final`) or a model directory; float32."""
    path = Path(directory)
    if (path / "final").is_dir():
        path = path / "final"
    if not (path / "config.json").is_file():
        raise UserError(
            f"{directory} holds no codec: expected a finished run or a directory with config.json"
        )
    return HHCodecModel.from_pretrained(path)


def _model_config(config: CodecTrainingConfig) -> HHCodecConfig:
    if config.model in PRESETS:
        base = preset_config(config.model).to_dict()
    elif (Path(config.model) / "config.json").is_file():
        base = HHCodecConfig.from_pretrained(config.model).to_dict()
    else:
        raise UserError(
            f"no codec {config.model!r} to train: give a directory with config.json or a preset "
            f"({', '.join(sorted(PRESETS))})"
        )
    for part, overrides in config.model_overrides.items():
        if not isinstance(base.get(part), dict):
            raise UserError(f"model_overrides names {part!r}: the parts are {', '.join(HHCodecModel.PARTS)}")
        base[part] = {**base[part], **overrides}
    if config.name is not None:
        base["name"] = config.name
    base["fingerprint"] = None if not base.get("exported") else base["fingerprint"]
    try:
        return HHCodecConfig(**base)
    except (ValueError, TypeError) as error:
        raise UserError(f"the model's configuration does not hold together: {error}") from error
