"""Configuration of HybridCodec: its parts' fields, and one `PreTrainedConfig` around them."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from codec.configuration import CodecConfig, part_from, part_of_kind, vocoder_from
from codec.hh_codec.configuration import LogMelEncoderConfig, MelDecoderConfig, check_mel_parts
from codec.presets import PARTS
from codec.vocoders.bigvgan import BigVGANConfig
from codec.vocoders.vocos import VocosConfig


@dataclass(frozen=True)
class DACEncoderConfig:
    """The convolutional encoder of DAC (arXiv 2306.06546, section 3.1) on the waveform."""

    kind: Literal["dac"] = "dac"
    num_filters: int = 64  # of the first layer; each downsampling doubles them
    ratios: tuple[int, ...] = (4, 5, 6, 8)  # in the order they are applied; their product is the hop length
    dim: int = 1_024  # of the latent

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios)

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole without windows: not with look-ahead in every layer."""
        return False


@dataclass(frozen=True)
class HybridQuantizerConfig:
    """A semantic stream of one quantizer, and a residual quantizer over what it leaves.

    The defaults are the published sizes; only `acoustic_blocks` and `weight_norm`, which codecs from before there were
    any do not have in their config.json, are what those codecs are.

    semantic_dim: width of the semantic stream; linear maps lead there and back where it is not the latent's.
    semantic_hidden_dim: inner width of every ConvNeXt block.
    semantic_blocks: ConvNeXt blocks of the semantic encoder; semantic_decoder_blocks: of its decoder, None: as many.
    acoustic_blocks: ConvNeXt blocks of the acoustic encoder, and of its decoder. (Of the paper's variants, HC-SED has
        none, and HC-SE no semantic decoder either.)
    layer_scale: of every ConvNeXt block; None: without.
    lookahead: frames that each ConvNeXt block sees ahead.
    weight_norm: of the quantizers' projections.
    codebook_transform_dim: hidden width of an MLP behind frozen codebooks in training; None: codebooks are learned as
        they are, as published.
    quantizer_dropout: share of the training rows that get the first few acoustic quantizers only, as many as drawn.
    acoustic_bypass: share of the training rows that get none at all: this trains decoding from the semantic codes.
    """

    dim: int = 1_024  # of the latent
    semantic_codebook_size: int = 16_384
    semantic_dim: int = 1_024
    semantic_hidden_dim: int = 2_048
    semantic_blocks: int = 5
    semantic_decoder_blocks: int | None = None
    acoustic_blocks: int = 0
    kernel_size: int = 7
    lookahead: int = 0
    layer_scale: float | None = None
    weight_norm: bool = False
    acoustic_quantizers: int = 11
    acoustic_codebook_size: int = 1_024
    codebook_dim: int = 8
    codebook_transform_dim: int | None = None
    commitment: float = 0.25
    quantizer_dropout: float = 1.0
    acoustic_bypass: float = 0.125

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        return self.lookahead == 0

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of each quantizer: the semantic one, then the acoustic ones."""
        return [self.semantic_codebook_size] + [self.acoustic_codebook_size] * self.acoustic_quantizers


@dataclass(frozen=True)
class DACDecoderConfig:
    """The convolutional decoder of DAC (arXiv 2306.06546, section 3.1), straight to the waveform."""

    num_filters: int = 1_536  # before the first upsampling; each halves them
    ratios: tuple[int, ...] = (8, 6, 5, 4)  # in the order they are applied
    sampling_rate: int = 24_000  # Hz, of the waveform


_ENCODERS = {"dac": DACEncoderConfig, "log-mel": LogMelEncoderConfig}


class HybridCodecConfig(CodecConfig):
    """Configuration of `HybridCodecModel` (arXiv 2606.06743).

    Args:
        encoder: fields of `DACEncoderConfig` or `LogMelEncoderConfig`, by its `kind`.
        quantizer: fields of `HybridQuantizerConfig`.
        decoder: fields of `DACDecoderConfig`, or where there is a vocoder of `MelDecoderConfig`.
        vocoder: fields of `VocosConfig` or `BigVGANConfig`, by its `kind`; None: the decoder makes the waveform itself.
        used_quantizers: codes a frame that `encode` gives: the first so many of the quantizers; all unless set. What a
            code means does not depend on it.
        name, chunk_seconds, overlap_seconds, exported, fingerprint: as in `CodecConfig`.
    """

    model_type = "hybrid-codec"

    def __init__(
        self,
        name: str = "hybrid-codec",
        encoder: dict[str, Any] | None = None,
        quantizer: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        vocoder: dict[str, Any] | None = None,
        used_quantizers: int | None = None,
        chunk_seconds: float | None = 20.0,
        overlap_seconds: float | None = 2.0,
        exported: bool = False,
        fingerprint: str | None = None,
        **kwargs: Any,
    ):
        self.encoder = asdict(part_of_kind("encoder", _ENCODERS, encoder))
        self.quantizer = asdict(part_from(HybridQuantizerConfig, quantizer))
        self.vocoder = None if vocoder is None else asdict(vocoder_from(vocoder))
        if vocoder is None:
            self.decoder = asdict(part_from(DACDecoderConfig, decoder))
        else:
            self.decoder = asdict(part_from(MelDecoderConfig, decoder))
        self.used_quantizers = used_quantizers
        super().__init__(name, chunk_seconds, overlap_seconds, exported, fingerprint, **kwargs)

    def _check(self) -> None:
        encoder, decoder, quantizer = self.encoder_config, self.decoder_config, self.quantizer_config
        if encoder.dim != quantizer.dim:
            raise ValueError(
                f"the encoder's latent has {encoder.dim} dimensions, the quantizer's {quantizer.dim}"
            )
        check_mel_parts(self, encoder, 1 if isinstance(decoder, DACDecoderConfig) else decoder.upsample)
        if isinstance(decoder, DACDecoderConfig) and math.prod(decoder.ratios) != self.hop_length:
            raise ValueError(
                f"the decoder's ratios multiply to {math.prod(decoder.ratios)}: "
                f"they have to make the hop of {self.hop_length} samples"
            )
        most = len(quantizer.codebook_sizes)
        if self.used_quantizers is not None and not 1 <= self.used_quantizers <= most:
            raise ValueError(f"{self.name} has 1 to {most} quantizers to use, not {self.used_quantizers}")
        self._check_windows()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the model's parts."""
        return PARTS if self.vocoder is not None else tuple(part for part in PARTS if part != "vocoder")

    @property
    def encoder_config(self) -> DACEncoderConfig | LogMelEncoderConfig:
        """The encoder's fields, typed."""
        return part_of_kind("encoder", _ENCODERS, self.encoder)

    @property
    def quantizer_config(self) -> HybridQuantizerConfig:
        """The quantizer's fields, typed."""
        return part_from(HybridQuantizerConfig, self.quantizer)

    @property
    def decoder_config(self) -> DACDecoderConfig | MelDecoderConfig:
        """The decoder's fields, typed."""
        if self.vocoder is None:
            return part_from(DACDecoderConfig, self.decoder)
        return part_from(MelDecoderConfig, self.decoder)

    @property
    def vocoder_config(self) -> VocosConfig | BigVGANConfig | None:
        """The vocoder's fields, typed; None where the decoder makes the waveform."""
        return None if self.vocoder is None else vocoder_from(self.vocoder)

    @property
    def sampling_rate(self) -> int:
        """Samples a second, in and out."""
        vocoder, decoder = self.vocoder_config, self.decoder_config
        if vocoder is not None:
            return vocoder.mel.sampling_rate
        assert isinstance(decoder, DACDecoderConfig)
        return decoder.sampling_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.encoder_config.hop_length

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of each quantizer in use."""
        return self.quantizer_config.codebook_sizes[: self.used_quantizers]

    @property
    def meaning(self) -> dict[str, Any]:
        """The fields that, with encoder and quantizer weights, decide what a code means."""
        quantizer = self.quantizer_config
        return {
            **super().meaning,
            "codebook_sizes": quantizer.codebook_sizes,
            "lookahead": quantizer.lookahead,
        }

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole, for all parts and between them."""
        decoder, vocoder = self.decoder_config, self.vocoder_config
        if vocoder is None or isinstance(decoder, DACDecoderConfig):
            return False
        interpolates = vocoder.mel.hop_length * decoder.upsample != self.hop_length
        parts = (self.encoder_config, self.quantizer_config, decoder, vocoder)
        return all(part.streams for part in parts) and not interpolates
