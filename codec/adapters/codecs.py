"""Mimi (Kyutai, arXiv 2410.00037): one semantic and up to 31 acoustic quantizers at 12.5 Hz."""

from torch import Tensor
from transformers import PreTrainedModel

from codec.adapters.base import CodecAdapter
from codec.foundation import UserError


class MimiAdapter(CodecAdapter):
    """`MimiModel`: its transformers see 10 s a layer, all of it to the left."""

    model_type = "mimi"
    chunk_seconds = 30.0
    overlap_seconds = 5.0
    meaning = (
        "sampling_rate", "hidden_size", "num_filters", "num_residual_layers", "upsampling_ratios", "kernel_size",
        "last_kernel_size", "residual_kernel_size", "dilation_growth_rate", "use_causal_conv", "pad_mode", "compress",
        "codebook_size", "codebook_dim", "num_quantizers", "num_semantic_quantizers", "use_conv_shortcut",
        "vector_quantization_hidden_dimension", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "hidden_act", "norm_eps", "sliding_window",
    )  # fmt: skip
    # before version 5 of `transformers` the encoder was three parts
    encoding_parts = ("encoder", "encoder_transformer", "downsample", "quantizer")

    def __init__(self, model: PreTrainedModel, name: str, num_quantizers: int | None = None):
        config = model.config
        if config.audio_channels != 1:
            raise UserError(f"{name} codes {config.audio_channels} channels: only mono codecs can be used")
        if getattr(model, "encoder", None) is None or getattr(model, "decoder", None) is None:
            raise UserError(f"{name} is half a codec: give one with encoder and decoder")
        super().__init__(model, name, num_quantizers)

    def _codebook_sizes(self) -> list[int]:
        return [self.model.config.codebook_size] * self.model.config.num_quantizers

    def _fewest_quantizers(self) -> int:
        return self.model.config.num_semantic_quantizers

    def _hop_length(self) -> int:
        return round(self.model.config.sampling_rate / self.model.config.frame_rate)

    def _encode_row(self, waveform: Tensor) -> Tensor:
        return self.model.encode(waveform, num_quantizers=self.config.num_quantizers).audio_codes[0]

    def _decode_row(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[0, 0]

    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, hidden_size): entries after the projection to the decoder's width."""
        both = self.model.quantizer
        semantic = both.num_semantic_quantizers
        if quantizer < semantic:
            residual, layer = both.semantic_residual_vector_quantizer, quantizer
        else:
            residual, layer = both.acoustic_residual_vector_quantizer, quantizer - semantic
        codebook = residual.layers[layer].codebook
        # not its `embed`, which it computes once and leaves behind when the model moves to another device
        entries = codebook.embed_sum / codebook.cluster_usage.clamp(min=codebook.epsilon)[:, None]
        if residual.output_proj is not None:
            entries = entries @ residual.output_proj.weight[:, :, 0].T
        return entries.detach()
