"""Codecs by name: bundled, a directory, or a hub id."""

from pathlib import Path
from typing import TYPE_CHECKING

from codec.runs import UserError

if TYPE_CHECKING:
    from codec.modeling import HHCodecModel

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def bundled_codecs() -> list[str]:
    """Names of the codecs that come with the package."""
    return sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))


def load_codec(name_or_path: str | Path, device: str = "cpu") -> "HHCodecModel":
    """Load a codec for use: float32, evaluation mode, exported (a training run's result is exported on the way).

    `name_or_path` is the name of a bundled codec, a model directory or run directory, or a hub id.
    Raises UserError when there is no such codec, naming the bundled ones.
    """
    from codec.export import export_codec
    from codec.modeling import HHCodecModel

    name = str(name_or_path)
    path = Path(name)
    if name in bundled_codecs():
        source = CHECKPOINTS / name
    elif (path / "final" / "config.json").is_file():
        source = path / "final"
    elif path.exists() and not (path / "config.json").is_file():
        raise UserError(f"{name} holds no codec: expected a directory with config.json and model.safetensors")
    else:
        source = path
    try:
        model = HHCodecModel.from_pretrained(source if source.exists() else name)
    except (OSError, ValueError) as error:
        bundled = ", ".join(bundled_codecs()) or "none"
        reason = "" if not source.exists() else f" ({str(error).splitlines()[0]})"
        raise UserError(
            f"no codec {name}: expected a bundled one ({bundled}), a directory or a hub id{reason}"
        ) from error
    if not model.config.exported:
        model = export_codec(model)
    return model.eval().to(device)
