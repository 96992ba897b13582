"""Codecs by name: bundled, a directory, a training run, or a hub id; ours, or an adapted one of `transformers`."""

import json
import re
from pathlib import Path
from typing import Any, Literal, TypeAlias

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedConfig

from codec.adapters import ADAPTERS, CodecAdapter, read_adapter
from codec.base import CodecModel, Vocoder, build_vocoder
from codec.configuration import CodecConfig, vocoder_from
from codec.export import export_codec, holds_vocoder
from codec.foundation import RunDirectory, UserError
from codec.foundation.errors import not_found
from codec.foundation.quiet import quiet_transformers
from codec.hh_codec.configuration import HHCodecConfig
from codec.hh_codec.modeling import HHCodecModel
from codec.hybrid_codec.configuration import HybridCodecConfig
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.kmeans_codec.modeling import KMeansCodecModel
from codec.presets import CHECKPOINTS, HYBRID_PRESETS, PRESETS, bundled_codecs, check_codec_name

Codec: TypeAlias = CodecModel | CodecAdapter

# by the `model_type` of their configurations
CODECS: dict[str, type[CodecModel]] = {
    model.config_class.model_type: model for model in (HHCodecModel, HybridCodecModel, KMeansCodecModel)
}

# A training checkpoint is `config.json` and `state.safetensors`, whose tensors are named by what they belong to.
CHECKPOINT_STATE = "state.safetensors"
WEIGHTS, AVERAGE = "model/", "average/"  # of the training step, and the moving average of its weights
_CODEC = "model."  # the codec within the training step


def preset_config(name: str) -> CodecConfig:
    """The configuration of the preset `name`; KeyError lists the names when there is none."""
    if name not in PRESETS:
        raise KeyError(f"no preset {name!r}; there are {', '.join(sorted(PRESETS))}")
    config_class = HybridCodecConfig if name in HYBRID_PRESETS else HHCodecConfig
    return config_class(name=name, **PRESETS[name])


def read_config(directory: str | Path) -> CodecConfig:
    """The configuration in a directory. Raises ValueError when it is of no codec of ours, OSError when not there."""
    found, _ = PreTrainedConfig.get_config_dict(directory)
    kind = found.get("model_type")
    if kind not in CODECS:
        raise ValueError(f"its model_type is {kind!r}, not one of {', '.join(CODECS)}")
    config: CodecConfig = CODECS[kind].config_class.from_pretrained(directory)
    return config


def model_of(config: CodecConfig) -> CodecModel:
    """A fresh model of a configuration."""
    return CODECS[config.model_type](config)


def load_codec(name_or_path: str | Path, device: str = "cpu", num_quantizers: int | None = None) -> Codec:
    """Load a codec for use: float32, evaluation mode, exported (a training run's is exported on the way).

    `name_or_path` is the name of a bundled codec, a model directory, a run directory or one of its checkpoints, or a
    hub id; also of the audio codecs of `transformers` that have an adapter (Mimi, EnCodec, DAC, X-Codec-2). Of a
    codec with several quantizers the first `num_quantizers` are used, or as many as the name says behind a colon
    (`kyutai/mimi:8`); all unless given. Raises UserError when there is no such codec, naming the bundled ones.
    """
    name, count = split_count(str(name_or_path), num_quantizers)
    model = _load(name, count)
    return model.eval().to(device)


def split_count(name: str, num_quantizers: int | None = None) -> tuple[str, int | None]:
    """`kyutai/mimi:8` -> `kyutai/mimi`, 8; a directory whose name ends that way is a directory."""
    found = re.fullmatch(r"(.+):(\d+)", name)
    if found is None or Path(name).exists():
        return name, num_quantizers
    count = int(found[2])
    if num_quantizers not in (None, count):
        raise UserError(f"{name} asks for {count} quantizers, num_quantizers for {num_quantizers}")
    return found[1], count


def _load(name: str, num_quantizers: int | None) -> Codec:
    check_codec_name(name)
    path = Path(name)
    if name in bundled_codecs():
        model = read_model(CHECKPOINTS / name)
    elif _is_adapted(name):
        try:
            return read_adapter(name, num_quantizers)
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"cannot load the codec {name}: {' '.join(str(error).split())}") from error
    elif path.is_dir() and not (path / "model.safetensors").is_file():
        model = load_trained(path)
    else:
        model = read_model(name)
    if not model.config.exported:
        model = export_codec(model)
    if num_quantizers not in (None, model.config.num_quantizers):
        try:
            model.use_quantizers(num_quantizers)
        except ValueError as error:
            raise UserError(str(error)) from None
    return model


def _is_adapted(source: str) -> bool:
    try:
        found, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError):  # `read_model` and `load_trained` say what is wrong
        return False
    return found.get("model_type") in ADAPTERS


def read_model(source: str | Path) -> CodecModel:
    """Read `config.json` and `model.safetensors` of a model directory or a hub id, as they are but in float32.

    Raises UserError unless they are there, whole, and a codec's.
    """
    try:
        found, _ = PreTrainedConfig.get_config_dict(source)
        kind = found.get("model_type")
        if kind in ADAPTERS:
            raise UserError(f"{source} is a codec of transformers ({kind}): it can be used here, not trained")
        if kind not in CODECS:
            raise UserError(
                f"{source} is no codec: its model_type is {kind!r}, not one of {', '.join(CODECS)}, "
                f"{', '.join(sorted(ADAPTERS))}"
            )
        with quiet_transformers():
            loaded: tuple[CodecModel, dict[str, Any]] = CODECS[kind].from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        if not Path(source).exists():
            raise not_found("codec", str(source), bundled_codecs()) from error
        raise UserError(f"{source} holds no codec ({' '.join(str(error).split())})") from error
    model, report = loaded
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # mismatched ones come with their shapes
        if names := sorted(entry if isinstance(entry, str) else entry[0] for entry in report[trouble]):
            raise UserError(
                f"the weights in {source} do not fit its config.json: {trouble.replace('_', ' ')} "
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
            )
    return model


def load_trained(
    path: str | Path, checkpoint: Literal["final", "best", "latest"] | None = None
) -> CodecModel:
    """The codec of a run, a checkpoint, a model directory, or a bundled one, in float32. It is not exported.

    A run gives its result, or without one its latest checkpoint; `checkpoint` names another. A checkpoint gives its
    averaged weights, as the result would have them. Raises UserError when there is no such codec.
    """
    path = Path(path)
    if not path.is_dir() and str(path) in bundled_codecs():
        path = CHECKPOINTS / path
    if not path.is_dir():
        raise UserError(
            f"{path} is not there: expected a training run, a model directory or a bundled codec "
            f"({', '.join(bundled_codecs())})"
        )
    run = RunDirectory(path)
    if not run.final.is_dir() and not run.checkpoints.is_dir():
        if checkpoint is not None:
            raise UserError(f"{path} is not a training run: leave out which checkpoint to take")
        if (path / CHECKPOINT_STATE).is_file():
            return _model_of_checkpoint(path)
        return _model_of_directory(path)
    if checkpoint == "final" or (checkpoint is None and run.final.is_dir()):
        if not run.final.is_dir():
            raise UserError(f"the run {path} is not finished: take its latest or best checkpoint")
        return _model_of_directory(run.final)
    found = run.best() if checkpoint == "best" else run.latest()
    if found is None:
        raise UserError(f"the run {path} has no {'scored ' if checkpoint == 'best' else ''}checkpoint yet")
    return _model_of_checkpoint(found)


def _model_of_directory(path: Path) -> CodecModel:
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path} holds no codec: expected a training run or a directory with config.json and model.safetensors"
        )
    return read_model(path)


def _model_of_checkpoint(path: Path) -> CodecModel:
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json: go on with its run, whose next checkpoint will have one")
    try:
        model = model_of(read_config(path))
        with safe_open(path / CHECKPOINT_STATE, framework="pt") as file:
            tensors = {
                name.removeprefix(prefix + _CODEC): file.get_tensor(name)
                for prefix in (WEIGHTS, AVERAGE)  # the average, where there is one, over the weights
                for name in file.keys()  # noqa: SIM118  (it is no mapping)
                if name.startswith(prefix + _CODEC)
            }
        model.load_state_dict(tensors)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot read the checkpoint {path}: {' '.join(str(error).split())}") from error
    return model.eval()


def load_vocoder(directory: str | Path) -> Vocoder:
    """Read what `save_vocoder` wrote; evaluation mode, without weight norm.

    Raises UserError unless it is there, whole, and fits together.
    """
    directory = Path(directory)
    if not holds_vocoder(directory):
        raise UserError(f"{directory} holds no vocoder: expected what `import-weights` writes of one")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        vocoder = build_vocoder(vocoder_from(config["vocoder"]), folded=True)
        vocoder.load_state_dict(load_file(directory / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot read the vocoder {directory}: {' '.join(str(error).split())}") from error
    return vocoder.eval()
