"""k-means on patches of log-mel: the plain baseline among tokenizers."""

from codec.kmeans_codec.configuration import KMeansCodecConfig
from codec.kmeans_codec.fitting import KMeansFit, fit_kmeans, kmeans_codec, patches
from codec.kmeans_codec.modeling import KMeansCodecModel

__all__ = ["KMeansCodecConfig", "KMeansCodecModel", "KMeansFit", "fit_kmeans", "kmeans_codec", "patches"]
