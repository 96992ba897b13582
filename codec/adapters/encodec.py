"""EnCodec (Meta, arXiv 2210.13438): a causal SEANet with residual quantizers, 75 Hz at 24 kHz."""

from math import log2

from torch import Tensor
from transformers import PreTrainedModel

from codec.adapters.base import CodecAdapter
from codec.foundation import UserError


class EncodecAdapter(CodecAdapter):
    """`EncodecModel`, mono and without normalisation: the 24 kHz model.

    The 48 kHz model scales every second of audio by its own level and sends the levels beside the codes: its codes
    alone are not the recording, and it is refused.
    """

    model_type = "encodec"
    chunk_seconds = 30.0
    overlap_seconds = 2.0
    meaning = (
        "sampling_rate", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios", "norm_type",
        "kernel_size", "last_kernel_size", "residual_kernel_size", "dilation_growth_rate", "use_causal_conv",
        "pad_mode", "compress", "num_lstm_layers", "codebook_size", "codebook_dim", "use_conv_shortcut",
    )  # fmt: skip

    def __init__(self, model: PreTrainedModel, name: str, num_quantizers: int | None = None):
        config = model.config
        if config.normalize or config.audio_channels != 1 or config.chunk_length_s is not None:
            raise UserError(
                f"{name} is an EnCodec that sends loudness beside its codes, or codes two channels or chunks: codes "
                "alone do not hold its recordings; use the mono 24 kHz model"
            )
        super().__init__(model, name, num_quantizers)

    def _codebook_sizes(self) -> list[int]:
        return [self.model.config.codebook_size] * len(self.model.quantizer.layers)

    def _hop_length(self) -> int:
        return self.model.config.hop_length

    def _encode_row(self, waveform: Tensor) -> Tensor:
        # `EncodecModel.encode` takes one of a few bandwidths; its quantizer takes any, and floors
        quantizer = self.model.quantizer
        kilobits = log2(quantizer.codebook_size) * quantizer.frame_rate / 1_000
        embeddings = self.model.encoder(waveform)
        codes = quantizer.encode(embeddings, bandwidth=(self.config.num_quantizers + 0.5) * kilobits)
        return codes[:, 0]  # (quantizers, batch, frames) -> (quantizers, frames)

    def _decode_row(self, codes: Tensor) -> Tensor:
        # codes in one chunk, (chunks, batch, quantizers, frames), whose scale is none
        return self.model.decode(codes[None], [None]).audio_values[0, 0]

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, codebook_dim)."""
        return self.model.quantizer.layers[quantizer].codebook.embed.detach()
