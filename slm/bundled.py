"""Where a speech language model is, by its name. Light: nothing that imports torch."""

import json
from pathlib import Path

from codec.foundation.errors import UserError, is_hub_id, not_found

BUNDLED = Path(__file__).parent / "checkpoints"
SPEECH_FILE = "speech.json"


def bundled_slms() -> list[str]:
    """Names of the speech language models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(path.name for path in BUNDLED.iterdir() if (path / "config.json").is_file())


def local_slm(name_or_path: str | Path) -> Path | None:
    """The directory of a model by bundled name, directory or run directory; None for a hub id.

    Raises UserError when it can be none of these, with the bundled name that is meant, if one is near.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in bundled_slms():
        return BUNDLED / name
    for directory in (path, path / "final"):
        if (directory / "config.json").is_file() or (directory / "adapter_config.json").is_file():
            return directory
    if path.exists():
        raise UserError(
            f"{name} holds no language model: expected a directory with config.json, or the adapter of one"
        )
    if not is_hub_id(name):
        raise not_found("language model", name, bundled_slms())
    return None


def known_voices(name_or_path: str | Path) -> list[str] | None:
    """The voices of a model that is on this machine; None where they are not known yet."""
    directory = local_slm(name_or_path)
    if directory is None or not (directory / SPEECH_FILE).is_file():
        return None
    return list(json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8")).get("voices", {}))
