"""Codecs by name: bundled, a directory, or a hub id."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.quiet import quiet_transformers
from codec.runs import UserError

if TYPE_CHECKING:
    from codec.modeling import HHCodecModel

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def bundled_codecs() -> list[str]:
    """Names of the codecs that come with the package."""
    return sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))


def load_codec(name_or_path: str | Path, device: str = "cpu") -> "HHCodecModel":
    """Load a codec for use: float32, evaluation mode, exported (a training run's is exported on the way).

    `name_or_path` is the name of a bundled codec, a model directory, a run directory or one of its checkpoints, or a
    hub id. Raises UserError when there is no such codec, naming the bundled ones.
    """
    from codec.export import export_codec

    name = str(name_or_path)
    path = Path(name)
    if name in bundled_codecs():
        model = read_model(CHECKPOINTS / name)
    elif path.is_dir() and not (path / "model.safetensors").is_file():
        from codec.training.checkpoint import load_trained

        model = load_trained(path)
    else:
        model = read_model(name)
    if not model.config.exported:
        model = export_codec(model)
    return model.eval().to(device)


def read_model(source: str | Path) -> "HHCodecModel":
    """Read `config.json` and `model.safetensors` of a model directory or a hub id, as they are but in float32.

    Raises UserError unless they are there, whole, and a codec's.
    """
    from safetensors import SafetensorError
    from transformers import PreTrainedConfig

    from codec.configuration import HHCodecConfig
    from codec.modeling import HHCodecModel

    try:
        found, _ = PreTrainedConfig.get_config_dict(source)
        kind = found.get("model_type")
        if kind != HHCodecConfig.model_type:
            raise UserError(
                f"{source} is no codec: its model_type is {kind!r}, not {HHCodecConfig.model_type!r}"
            )
        with quiet_transformers():
            loaded: tuple[HHCodecModel, dict[str, Any]] = HHCodecModel.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        bundled = ", ".join(bundled_codecs()) or "none"
        reason = f" ({' '.join(str(error).split())})" if Path(source).exists() else ""
        raise UserError(
            f"no codec {source}: expected a bundled one ({bundled}), a directory or a hub id{reason}"
        ) from error
    model, report = loaded
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # mismatched ones come with their shapes
        if names := sorted(entry if isinstance(entry, str) else entry[0] for entry in report[trouble]):
            raise UserError(
                f"the weights in {source} do not fit its config.json: {trouble.replace('_', ' ')} "
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
            )
    return model
