"""The codecs of this project: by the `model_type` of their configurations, and by the names of presets."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from codec.base import CodecModel
from codec.configuration import CodecConfig
from codec.hh_codec.configuration import HHCodecConfig
from codec.hh_codec.modeling import HHCodecModel
from codec.hh_codec.presets import HH_PRESETS
from codec.hybrid_codec.configuration import HybridCodecConfig
from codec.hybrid_codec.modeling import HybridCodecModel
from codec.hybrid_codec.presets import HYBRID_PRESETS
from codec.kmeans_codec.modeling import KMeansCodecModel

CODECS: dict[str, type[CodecModel]] = {
    model.config_class.model_type: model for model in (HHCodecModel, HybridCodecModel, KMeansCodecModel)
}
PRESETS: dict[str, dict[str, Any]] = HH_PRESETS | HYBRID_PRESETS


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
