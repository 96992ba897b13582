"""The codecs of this project by the `model_type` of their configurations."""

from codec.base import CodecModel
from codec.configuration import CodecConfig
from codec.hybrid.modeling import HybridCodecModel
from codec.kmeans.modeling import KMeansCodecModel
from codec.modeling import HHCodecModel

CODECS: dict[str, type[CodecModel]] = {
    model.config_class.model_type: model for model in (HHCodecModel, HybridCodecModel, KMeansCodecModel)
}


def model_of(config: CodecConfig) -> CodecModel:
    """A fresh model of a configuration."""
    return CODECS[config.model_type](config)
