"""Put trained models into the package: 16-bit weights, and a model card that is kept beside them.

python -m recipes.bundled.publish codec runs/tiny-adversarial codec/checkpoints/hh-codec-tiny
python -m recipes.bundled.publish slm runs/slm-tiny slm/checkpoints/slm-tiny

The card, `README.md` in the directory that is replaced, stays: numbers in it are written by hand from what the
evaluation commands say.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from codec.export import save_codec
from codec.foundation import UserError, whole_directory, write_json
from codec.loading import load_trained
from recipes.bundled.commands import run
from slm.bundled import SPEECH_FILE
from slm.models.checkpoint import MODEL_FILE


def publish_codec(source: Path, target: Path) -> str:
    """Export a codec's run in float16; returns its fingerprint."""
    return str(save_codec(load_trained(source), target, "float16", card=_card(target)).config.fingerprint)


def publish_slm(source: Path, target: Path, codec: str) -> str:
    """Copy the result of a language model's run with its weights in float16, naming the bundled codec it speaks.

    Returns the codec's fingerprint. Raises UserError when the run is not finished or a weight does not fit 16 bits.
    """
    final = source / "final" if (source / "final").is_dir() else source
    if not (final / SPEECH_FILE).is_file():
        raise UserError(
            f"{source} holds no finished language model: expected {SPEECH_FILE} in it or in its final/"
        )
    card = _card(target)
    with whole_directory(target) as directory:
        for path in final.iterdir():
            if path.suffix == ".json":
                (directory / path.name).write_bytes(path.read_bytes())
        weights = {name: tensor.half() for name, tensor in load_file(final / MODEL_FILE).items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            raise UserError(f"{final}: a weight is too large for float16")
        save_file(weights, directory / MODEL_FILE, metadata={"format": "pt"})
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        write_json(directory / "config.json", config | {"dtype": "float16"})
        speech = json.loads((directory / SPEECH_FILE).read_text(encoding="utf-8"))
        write_json(directory / SPEECH_FILE, speech | {"codec_location": codec})
        if card is not None:
            (directory / "README.md").write_text(card, encoding="utf-8")
    return str(speech["codec"]["fingerprint"])


def _card(target: Path) -> str | None:
    path = target / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["codec", "slm"])
    parser.add_argument("source", type=Path, help="a finished run, or a model directory")
    parser.add_argument("target", type=Path, help="where the bundled model goes")
    parser.add_argument(
        "--codec", default="hh-codec-tiny", help="the bundled codec that a language model speaks"
    )
    arguments = parser.parse_args()
    if arguments.what == "codec":
        fingerprint = publish_codec(arguments.source, arguments.target)
    else:
        fingerprint = publish_slm(arguments.source, arguments.target, arguments.codec)
    print(f"{arguments.target}: codes of {fingerprint}")


if __name__ == "__main__":
    run(main)
