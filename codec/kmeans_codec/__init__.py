"""k-means on patches of log-mel: the plain baseline among tokenizers."""

from codec.kmeans.configuration import KMeansCodecConfig
from codec.kmeans.fitting import KMeansFit, fit_kmeans, kmeans_codec, patches
from codec.kmeans.modeling import KMeansCodecModel

__all__ = ["KMeansCodecConfig", "KMeansCodecModel", "KMeansFit", "fit_kmeans", "kmeans_codec", "patches"]
