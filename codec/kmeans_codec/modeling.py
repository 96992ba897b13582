"""The plain baseline among tokenizers: k-means on patches of log-mel.

A frame's code is the centroid nearest to its few mel frames, and its sound is the centroid, through the vocoder of
another codec. Nothing is learnt but the centroids, so what a trained codec adds can be seen beside it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from codec.base import CodecOutput, SingleCodebookModel, build_vocoder
from codec.kmeans_codec.configuration import CentroidConfig, KMeansCodecConfig, PatchConfig
from codec.nn.kernels import nearest
from codec.nn.mel import LogMel
from codec.nn.sequences import StreamState, windows_input


class PatchEncoder(nn.Module):
    """Log-mel in patches of `stride` frames."""

    def __init__(self, config: PatchConfig):
        super().__init__()
        self.config = config
        self.mel = LogMel(config.mel)

    def forward(
        self, waveform: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, samples in whole hops, zero beyond each row's frames) -> (batch, frames, stride * n_mels)."""
        config = self.config
        x = self.mel(waveform, state) - config.mel_mean  # (batch, mel frames, n_mels)
        x = windows_input(x, self, state, left=0, right=0, stride=config.stride)
        frames = x.shape[1] // config.stride
        return x[:, : frames * config.stride].reshape(x.shape[0], frames, config.dim)


class CentroidQuantizer(nn.Module):
    """The nearest centroid, by squared distance."""

    codebook: Tensor

    def __init__(self, config: CentroidConfig, dim: int):
        super().__init__()
        # found by Lloyd's algorithm, not by gradients: no parameter
        self.register_buffer("codebook", torch.zeros(config.codebook_size, dim))

    def encode(self, latent: Tensor) -> Tensor:
        """(batch, frames, dim) -> codes (batch, frames) int64."""
        return nearest(latent, self.codebook)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (batch, frames) -> (batch, frames, dim)."""
        return F.embedding(codes, self.codebook)


class PatchDecoder(nn.Module):
    """Patches as the mel frames that they are made of."""

    def __init__(self, config: PatchConfig):
        super().__init__()
        self.config = config

    def forward(
        self, latent: Tensor, frame_mask: Tensor | None = None, state: StreamState | None = None
    ) -> Tensor:
        """(batch, frames, stride * n_mels) -> (batch, mel frames, n_mels), natural log."""
        config = self.config
        return latent.reshape(latent.shape[0], -1, config.mel.n_mels) + config.mel_mean

    def mel_mask(self, frame_mask: Tensor) -> Tensor:
        """(batch, frames) -> (batch, mel frames): which mel frames belong to a row of so many codec frames."""
        return frame_mask.repeat_interleave(self.config.stride, dim=1)


class KMeansCodecModel(SingleCodebookModel):
    """Log-mel patches -> nearest centroid -> its mel -> vocoder."""

    config_class = KMeansCodecConfig
    config: KMeansCodecConfig
    encoder: PatchEncoder
    quantizer: CentroidQuantizer
    decoder: PatchDecoder
    base_model_prefix = "kmeans_codec"

    def __init__(self, config: KMeansCodecConfig):
        super().__init__(config)
        patches = config.encoder_config
        self.encoder = PatchEncoder(patches)
        self.quantizer = CentroidQuantizer(config.quantizer_config, patches.dim)
        self.decoder = PatchDecoder(patches)
        self.vocoder = build_vocoder(config.vocoder_config, folded=config.exported)
        self.post_init()

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, dim): the centroids."""
        return self.quantizer.codebook.detach()

    def folded(self) -> dict[str, Tensor]:
        """Nothing: the model is as it is used."""
        return {}

    def forward(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        synthesize: bool = True,
        total_frames: Tensor | float | None = None,
        draws: Tensor | None = None,
    ) -> CodecOutput:
        """There is no training pass: raises RuntimeError."""
        raise RuntimeError(
            "centroids are fitted by codec.kmeans_codec.fitting.fit_kmeans, not trained by gradients"
        )


AutoConfig.register(KMeansCodecConfig.model_type, KMeansCodecConfig, exist_ok=True)
AutoModel.register(KMeansCodecConfig, KMeansCodecModel, exist_ok=True)
