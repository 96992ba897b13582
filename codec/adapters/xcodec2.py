"""X-Codec-2 (arXiv 2502.04128): one finite scalar quantizer of 65,536 codes at 50 Hz, semantic and acoustic at once."""

from math import prod

from torch import Tensor
from transformers import PreTrainedModel

from codec.adapters.base import CodecAdapter


class XCodec2Adapter(CodecAdapter):
    """`Xcodec2Model`, with the spectrogram that its semantic encoder starts from made here.

    Its attention sees the whole recording, so windows change codes a little; recordings up to `chunk_seconds` have
    the codes that `transformers` gives.
    """

    model_type = "xcodec2"
    chunk_seconds = 20.0
    overlap_seconds = 2.0
    meaning = (
        "sampling_rate", "hidden_size", "encoder_hidden_size", "downsampling_ratios", "quantization_dim",
        "quantization_levels",
    )  # fmt: skip
    encoding_parts = ("semantic_encoder", "semantic_adapter", "acoustic_encoder", "fc_encoder", "quantizer")

    def __init__(self, model: PreTrainedModel, name: str, num_quantizers: int | None = None):
        from transformers import Xcodec2FeatureExtractor

        super().__init__(model, name, num_quantizers)
        self._features = Xcodec2FeatureExtractor(
            sampling_rate=self.config.sampling_rate, hop_length=self.config.hop_length
        )

    def _codebook_sizes(self) -> list[int]:
        return [prod(self.model.config.quantization_levels)]

    def _hop_length(self) -> int:
        return self.model.config.hop_length

    def _encode_row(self, waveform: Tensor) -> Tensor:
        # The extractor always adds a sample, and so now and then a frame behind the recording; `keep_to` cuts it.
        inputs = self._features(
            waveform[0, 0].cpu().numpy(), sampling_rate=self.config.sampling_rate, return_tensors="pt"
        ).to(self.device)
        return self.model.encode(**inputs).audio_codes[0]

    def _decode_row(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[0, 0]

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(65,536, quantization_dim)."""
        whole = self.model.quantizer
        return whole.project_out(whole.quantizer.codebook).detach()
