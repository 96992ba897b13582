"""Configuration of HH-Codec: one typed part a module, one `PreTrainedConfig` around them."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from transformers import PreTrainedConfig

from codec.mel import MelConfig
from codec.windows import Window

PARTS = (
    "encoder",
    "quantizer",
    "decoder",
    "vocoder",
)  # of every model: what can be frozen, and taken from elsewhere

Part = TypeVar("Part")


@dataclass(frozen=True)
class SEANetConfig:
    """The published encoder (arXiv 2507.18897, section 3.1): convolutions on the waveform, then an LSTM."""

    kind: Literal["seanet"] = "seanet"
    num_filters: int = 32
    ratios: tuple[int, ...] = (5, 5, 5, 8)  # in the order they are applied; their product is the hop length
    kernel_size: int = 7
    residual_kernel_size: int = 3
    last_kernel_size: int = 7
    lstm_layers: int = 2
    bidirectional: bool = True
    dim: int = 512  # of the latent

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios)

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole without windows: not with reflected ends and an LSTM that looks back."""
        return False


@dataclass(frozen=True)
class LogMelEncoderConfig:
    """An encoder that starts from log-mel: learns within minutes on a CPU, and streams."""

    kind: Literal["log-mel"] = "log-mel"
    mel: MelConfig = field(default_factory=lambda: MelConfig(padding="zeros"))
    # of the training corpora's log-mel: what enters the first layer has mean 0, deviation 1
    mel_mean: float = -5.9
    mel_std: float = 1.8
    mel_dim: int = 192
    mel_blocks: int = 2
    frame_dim: int = 256
    frame_blocks: int = 3
    stride: int = 4  # mel frames a frame
    lookahead: int = 4  # mel frames; the only look-ahead besides the STFT's own half window
    kernel_size: int = 7
    hidden_ratio: int = 3
    layer_scale: float = 0.3
    lstm_layers: int = 1
    dim: int = 128  # of the latent

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.mel.hop_length * self.stride

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole without windows: the first samples of a stream cannot be reflected."""
        return self.mel.padding == "zeros"


@dataclass(frozen=True)
class SLMVQConfig:
    """The SLM-VQ (arXiv 2507.18897, section 3.2): a frozen random codebook behind a learnable MLP."""

    codebook_size: int = 8_192
    dim: int = 512
    hidden_dim: int = 1_024
    gradient: Literal["rotation", "straight-through"] = "rotation"
    commitment: float = 0.25
    training_quantizers: int = 2  # residual quantizers in the VQ loss; only the first one makes codes


@dataclass(frozen=True)
class MelDecoderConfig:
    """Codes to mel: context blocks and ConvNeXt at the frame rate, then ConvNeXt at `upsample` times that rate."""

    dim: int = 768
    kernel_size: int = 7
    # frames, in the first convolution; None: half the kernel, in every convolution
    lookahead: int | None = None
    attention_window: int | None = None  # frames; None: the whole utterance
    residual_blocks: int = 2  # before the attention, and again behind it
    dropout: float = 0.1
    blocks: int = 12
    hidden_ratio: int = 3
    upsample: int = 4
    fine_dim: int = 256
    fine_blocks: int = 3
    layer_scale: float = 1 / 12
    mel_mean: float = -5.9
    mel_std: float = 1.8

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        return self.lookahead is not None and self.attention_window is not None


@dataclass(frozen=True)
class VocosConfig:
    """Vocos (arXiv 2306.00814): ConvNeXt on mel frames, then an inverse STFT."""

    kind: Literal["vocos"] = "vocos"
    mel: MelConfig = field(default_factory=MelConfig)
    dim: int = 512
    hidden_dim: int = 1_536
    blocks: int = 8
    kernel_size: int = 7
    # mel frames, in the first convolution; None: half the kernel, in every convolution
    lookahead: int | None = None
    layer_scale: float | None = None  # None: 1 / blocks, as published
    mel_mean: float = 0.0  # what enters the first layer is (mel - mean) / std
    mel_std: float = 1.0

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        return self.lookahead is not None and self.mel.alignment == "same"


class HHCodecConfig(PreTrainedConfig):
    """Configuration of `HHCodecModel`: waveform -> VQ -> mel -> waveform (arXiv 2507.18897).

    Args:
        name: what the codec calls itself in datasets and checkpoints.
        encoder: fields of `SEANetConfig` or `LogMelEncoderConfig`, by its `kind`.
        quantizer: fields of `SLMVQConfig`.
        decoder: fields of `MelDecoderConfig`.
        vocoder: fields of `VocosConfig`.
        chunk_seconds, overlap_seconds: audio longer than `chunk_seconds` is coded in windows of that length, of
            which `overlap_seconds` on each side are context; None for codecs that stream, where chunked equals
            whole.
        exported: the codebook transform is folded and what only training needs is gone.
        fingerprint: 16 hex digits that name the meaning of a code; set by `export`.
    """

    model_type = "hh-codec"

    def __init__(
        self,
        name: str = "hh-codec",
        encoder: dict[str, Any] | None = None,
        quantizer: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        vocoder: dict[str, Any] | None = None,
        chunk_seconds: float | None = 20.0,
        overlap_seconds: float | None = 2.0,
        exported: bool = False,
        fingerprint: str | None = None,
        **kwargs: Any,
    ):
        self.name = name
        kind = (encoder or {}).get("kind", "seanet")
        encoder_class = {"seanet": SEANetConfig, "log-mel": LogMelEncoderConfig}.get(kind)
        if encoder_class is None:
            raise ValueError(f"unknown encoder kind {kind!r}: expected 'seanet' or 'log-mel'")
        # kept as plain dictionaries with every field filled in, so that config.json says everything
        self.encoder = plain(part_from(encoder_class, encoder))
        self.quantizer = plain(part_from(SLMVQConfig, quantizer))
        self.decoder = plain(part_from(MelDecoderConfig, decoder))
        self.vocoder = plain(part_from(VocosConfig, vocoder))
        self.chunk_seconds = chunk_seconds
        self.overlap_seconds = overlap_seconds
        self.exported = exported
        self.fingerprint = fingerprint
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Raise ValueError, naming what does not fit together."""
        encoder, upsample = self.encoder_config, self.decoder_config.upsample
        if encoder.dim != self.quantizer_config.dim:
            raise ValueError(
                f"the encoder's latent has {encoder.dim} dimensions, "
                f"the quantizer's codebook {self.quantizer_config.dim}"
            )
        if isinstance(encoder, LogMelEncoderConfig) and (
            encoder.mel.alignment != "same" or encoder.mel.sampling_rate != self.sampling_rate
        ):
            raise ValueError(
                f"the encoder's mel must have alignment 'same' and the vocoder's sampling rate, {self.sampling_rate}"
            )
        if self.hop_length % upsample:
            raise ValueError(
                f"the decoder cannot upsample {upsample} times: the hop is {self.hop_length} samples"
            )
        if self.streams:
            if self.chunk_seconds is not None or self.overlap_seconds is not None:
                raise ValueError(
                    "a codec that streams needs no windows: set chunk_seconds and overlap_seconds to null"
                )
        elif self.window is None:
            raise ValueError("a codec that does not stream needs chunk_seconds and overlap_seconds")

    @property
    def window(self) -> Window | None:
        """The windows in which long audio is coded; None for a codec that streams."""
        if self.chunk_seconds is None or self.overlap_seconds is None:
            return None
        rate = self.frame_rate
        return Window(frames=round(self.chunk_seconds * rate), overlap=round(self.overlap_seconds * rate))

    @property
    def encoder_config(self) -> SEANetConfig | LogMelEncoderConfig:
        """The encoder's fields, typed."""
        if self.encoder["kind"] == "seanet":
            return part_from(SEANetConfig, self.encoder)
        return part_from(LogMelEncoderConfig, self.encoder)

    @property
    def quantizer_config(self) -> SLMVQConfig:
        """The quantizer's fields, typed."""
        return part_from(SLMVQConfig, self.quantizer)

    @property
    def decoder_config(self) -> MelDecoderConfig:
        """The mel decoder's fields, typed."""
        return part_from(MelDecoderConfig, self.decoder)

    @property
    def vocoder_config(self) -> VocosConfig:
        """The vocoder's fields, typed."""
        return part_from(VocosConfig, self.vocoder)

    @property
    def sampling_rate(self) -> int:
        """Samples a second, in and out."""
        return self.vocoder_config.mel.sampling_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.encoder_config.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of each quantizer."""
        return [self.quantizer_config.codebook_size]

    @property
    def num_quantizers(self) -> int:
        """Codes a frame."""
        return 1

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole, for encoder, decoder, vocoder, and from decoder to vocoder."""
        decoder, vocoder = self.decoder_config, self.vocoder_config
        interpolates = vocoder.mel.hop_length * decoder.upsample != self.hop_length
        return self.encoder_config.streams and decoder.streams and vocoder.streams and not interpolates


def part_from(cls: type[Part], values: dict[str, Any] | None) -> Part:
    """Build the dataclass `cls` from a dictionary as read from JSON; ValueError names fields it does not have."""
    values = dict(values or {})
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    if isinstance(values.get("mel"), dict):
        values["mel"] = part_from(MelConfig, values["mel"])
    if "ratios" in values:
        values["ratios"] = tuple(values["ratios"])
    return cls(**values)


def plain(part: Any) -> dict[str, Any]:
    """A part's fields as JSON writes them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(part).items()}
