"""DAC (Descript, arXiv 2306.06546): residual quantizers with factorised codes; 16, 24 and 44.1 kHz."""

import torch.nn.functional as F
from torch import Tensor

from codec.adapters.base import CodecAdapter


class DacAdapter(CodecAdapter):
    """`DacModel`. Convolutions alone, which see less than the overlap: windows change nothing.

    Where a stride is odd, its decoder gives a few samples less than T * hop_length; those are zero.
    """

    model_type = "dac"
    chunk_seconds = 20.0
    overlap_seconds = 1.0
    meaning = (
        "sampling_rate", "encoder_hidden_size", "downsampling_ratios", "n_codebooks", "codebook_size", "codebook_dim",
    )  # fmt: skip

    def _codebook_sizes(self) -> list[int]:
        return [self.model.config.codebook_size] * self.model.config.n_codebooks

    def _hop_length(self) -> int:
        return int(self.model.config.hop_length)

    def _encode_row(self, waveform: Tensor) -> Tensor:
        # as its feature extractor does: its convolutions drop what does not fill a frame
        padded = F.pad(waveform, (0, -waveform.shape[-1] % self.config.hop_length))
        return self.model.encode(padded, n_quantizers=self.config.num_quantizers).audio_codes[0]

    def _decode_row(self, codes: Tensor) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values[0]

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, hidden_size): entries after the projection out of the factorised space."""
        layer = self.model.quantizer.quantizers[quantizer]
        return layer.out_proj(layer.codebook.weight.T[None])[0].T.detach()
