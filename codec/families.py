"""The codecs of this project by the `model_type` of their configurations."""

from pathlib import Path

from transformers import PreTrainedConfig

from codec.base import CodecModel
from codec.configuration import CodecConfig
from codec.hybrid.modeling import HybridCodecModel
from codec.kmeans.modeling import KMeansCodecModel
from codec.modeling import HHCodecModel

CODECS: dict[str, type[CodecModel]] = {
    model.config_class.model_type: model for model in (HHCodecModel, HybridCodecModel, KMeansCodecModel)
}


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
