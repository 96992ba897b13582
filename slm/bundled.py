"""Where a speech language model is: a bundled one, a directory, or on the hub."""

from pathlib import Path

from codec.foundation import UserError

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def bundled_slms() -> list[str]:
    """Names of the speech language models that come with the package."""
    if not CHECKPOINTS.is_dir():
        return []
    return sorted(path.name for path in CHECKPOINTS.iterdir() if (path / "config.json").is_file())


def find_slm(name_or_path: str | Path) -> Path:
    """The directory of a model that is given by bundled name, directory, run directory, or hub id.

    A hub id is downloaded, unless it was before. Raises UserError when there is no such model, naming the bundled
    ones.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in bundled_slms():
        return CHECKPOINTS / name
    for directory in (path, path / "final"):
        if (directory / "config.json").is_file() or (directory / "adapter_config.json").is_file():
            return directory
    if path.exists():
        raise UserError(
            f"{name} holds no language model: expected a directory with config.json, or the adapter of one"
        )
    bundled = ", ".join(bundled_slms()) or "none"
    missing = UserError(
        f"no language model {name}: expected a bundled one ({bundled}), a directory or a hub id"
    )
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise missing

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise missing from error
