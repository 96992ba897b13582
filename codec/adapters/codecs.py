"""Adapters of Mimi, EnCodec, DAC and X-Codec-2, and how to open one by the `model_type` of a `config.json`."""

from math import log2, prod
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from codec.adapters.base import CodecAdapter
from codec.foundation import UserError
from codec.foundation.quiet import quiet_transformers


class MimiAdapter(CodecAdapter):
    """`MimiModel` (Kyutai, arXiv 2410.00037): one semantic and up to 31 acoustic quantizers at 12.5 Hz.

    Its transformers see 10 s a layer, all of it to the left.
    """

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


class EncodecAdapter(CodecAdapter):
    """`EncodecModel` (Meta, arXiv 2210.13438), mono and without normalisation: the 24 kHz model.

    A causal SEANet with residual quantizers at 75 Hz. The 48 kHz model scales every second of audio by its own level
    and sends the levels beside the codes: its codes alone are not the recording, and it is refused.
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


class DacAdapter(CodecAdapter):
    """`DacModel` (Descript, arXiv 2306.06546): residual quantizers with factorised codes; 16, 24 and 44.1 kHz.

    It has convolutions alone, which see less than the overlap: windows change nothing. Where a stride is odd, its
    decoder gives a few samples less than T * hop_length; those are zero.
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


class XCodec2Adapter(CodecAdapter):
    """`Xcodec2Model` (arXiv 2502.04128): one finite scalar quantizer of 65,536 codes at 50 Hz, semantic and acoustic.

    The spectrogram that its semantic encoder starts from is made here. Its attention sees the whole recording, so
    windows change codes a little; recordings up to `chunk_seconds` have the codes that `transformers` gives.
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
        super().__init__(model, name, num_quantizers)
        self._features = transformers.Xcodec2FeatureExtractor(
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


_ADAPTERS: tuple[type[CodecAdapter], ...] = (MimiAdapter, EncodecAdapter, DacAdapter, XCodec2Adapter)
ADAPTERS: dict[str, type[CodecAdapter]] = {adapter.model_type: adapter for adapter in _ADAPTERS}


def adapt(model: PreTrainedModel, name: str, num_quantizers: int | None = None) -> CodecAdapter:
    """Put the adapter around a model of `transformers`; `num_quantizers` of its first are used, all unless given.

    Raises UserError for a model that has no adapter or cannot have one.
    """
    kind = model.config.model_type
    if kind not in ADAPTERS:
        raise UserError(f"{name} is of type {kind!r}: there are adapters for {', '.join(sorted(ADAPTERS))}")
    return ADAPTERS[kind](model, name, num_quantizers)


def read_adapter(source: str | Path, num_quantizers: int | None = None) -> CodecAdapter:
    """Read a codec of `transformers` from a directory or the hub, in float32 whatever it is stored in.

    It is called as its directory is, or by its hub id. Raises UserError where weights are missing or of other shapes,
    OSError or ValueError as `transformers` does.
    """
    with quiet_transformers():
        model, report = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    for trouble in ("missing_keys", "mismatched_keys"):
        if report[trouble]:
            first = min(entry if isinstance(entry, str) else entry[0] for entry in report[trouble])
            raise UserError(
                f"the weights in {source} do not fit its config.json: {trouble.replace('_', ' ')} {first}"
            )
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return adapt(model, name, num_quantizers)
