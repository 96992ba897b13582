"""Configurations of codecs: one typed part a module, one `PreTrainedConfig` around them; that of HH-Codec."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

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
    padding: Literal["reflect", "zeros"] = "reflect"  # before the first sample
    dim: int = 512  # of the latent

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios)

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole without windows: not with reflected ends or an LSTM that looks back."""
        return self.padding == "zeros" and not self.bidirectional

    @property
    def lookahead_samples(self) -> int:
        """Samples behind a frame's own that it waits for in a stream: the convolutions are causal."""
        return 0


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

    @property
    def lookahead_samples(self) -> int:
        """Samples behind a frame's own that it waits for in a stream."""
        return self.lookahead * self.mel.hop_length + self.mel.right_padding


@dataclass(frozen=True)
class SLMVQConfig:
    """The SLM-VQ (arXiv 2507.18897, section 3.2): a frozen random codebook behind a learnable MLP."""

    codebook_size: int = 8_192
    dim: int = 512
    hidden_dim: int = 1_024
    frozen: bool = True  # False: the random codebook learns beside its MLP (the paper's ablation)
    gradient: Literal["rotation", "straight-through"] = "rotation"
    commitment: float = 0.25
    training_quantizers: int = 2  # residual quantizers in the VQ loss; only the first one makes codes


@dataclass(frozen=True)
class MelDecoderConfig:
    """Codes to mel: context blocks and ConvNeXt at the frame rate, then ConvNeXt at `upsample` times that rate.

    `fine_dim` None is the published end: one transposed convolution straight to the mel, whose rate must be the fine
    one.
    """

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
    fine_dim: int | None = 256
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

    @property
    def lookahead_samples(self) -> int:
        """Samples that a stream's audio waits for behind the mel frames that are there."""
        return (self.lookahead or 0) * self.mel.hop_length + self.mel.right_padding


@dataclass(frozen=True)
class BigVGANConfig:
    """BigVGAN v2 (arXiv 2206.04658), as published for 24 kHz and 100 bands: `nvidia/bigvgan_v2_24khz_100band_256x`."""

    kind: Literal["bigvgan"] = "bigvgan"
    mel: MelConfig = field(default_factory=lambda: MelConfig(n_fft=1_024, hop_length=256, power_offset=1e-9))
    dim: int = 1_536  # before the first upsampling; each halves it
    upsample_rates: tuple[int, ...] = (4, 4, 2, 2, 2, 2)  # their product is the mel's hop
    upsample_kernel_sizes: tuple[int, ...] = (8, 8, 4, 4, 4, 4)
    block_kernel_sizes: tuple[int, ...] = (3, 7, 11)  # of the AMP blocks behind each upsampling
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3  # of each of them

    def __post_init__(self) -> None:
        if math.prod(self.upsample_rates) != self.mel.hop_length:
            raise ValueError(
                f"BigVGAN's upsample_rates multiply to {math.prod(self.upsample_rates)}: "
                f"they have to make the mel's hop of {self.mel.hop_length} samples"
            )

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole: not with look-ahead in every layer."""
        return False


class CodecConfig(PreTrainedConfig):
    """What the configurations of all codecs have: windows, rates, codebooks, and what of them decides a code's meaning.

    A subclass sets `encoder` and its other parts, as plain dictionaries with every field filled in, so that config.json
    says everything; then it calls this `__init__`, which ends with the subclass's `_check`.

    Args:
        name: what the codec calls itself in datasets and checkpoints.
        chunk_seconds, overlap_seconds: audio longer than `chunk_seconds` is coded in windows of that length, of
            which `overlap_seconds` on each side are context; None for codecs that stream, where chunked equals
            whole.
        exported: what only training needs is gone, and what it needed apart is worked together.
        fingerprint: 16 hex digits that name the meaning of a code; set by `export`.
    """

    if TYPE_CHECKING:  # `PreTrainedConfig` makes what is annotated here an argument
        encoder: dict[str, Any]  # fields of the part, by name

    def __init__(
        self,
        name: str = "codec",
        chunk_seconds: float | None = None,
        overlap_seconds: float | None = None,
        exported: bool = False,
        fingerprint: str | None = None,
        **kwargs: Any,
    ):
        self.name = name
        self.chunk_seconds = chunk_seconds
        self.overlap_seconds = overlap_seconds
        self.exported = exported
        self.fingerprint = fingerprint
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Raise ValueError, naming what does not fit together."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the model's parts."""
        return PARTS

    @property
    def sampling_rate(self) -> int:
        """Samples a second, in and out."""
        raise NotImplementedError

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        raise NotImplementedError

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of each quantizer."""
        raise NotImplementedError

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole."""
        raise NotImplementedError

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def num_quantizers(self) -> int:
        """Codes a frame."""
        return len(self.codebook_sizes)

    @property
    def window(self) -> Window | None:
        """The windows in which long audio is coded; None for a codec that streams."""
        if self.chunk_seconds is None or self.overlap_seconds is None:
            return None
        rate = self.frame_rate
        return Window(frames=round(self.chunk_seconds * rate), overlap=round(self.overlap_seconds * rate))

    @property
    def meaning(self) -> dict[str, Any]:
        """The fields that, with encoder and quantizer weights, decide what a code means."""
        return {
            "encoder": _without_later_fields(self.encoder),
            "codebook_sizes": self.codebook_sizes,
            "sampling_rate": self.sampling_rate,
            "hop_length": self.hop_length,
            "chunk_seconds": self.chunk_seconds,
            "overlap_seconds": self.overlap_seconds,
        }

    def _check_mel_parts(self, encoder: object, upsample: int) -> None:
        """Raise ValueError unless an encoder that starts from log-mel, and a decoder ending there, fit the frames."""
        if isinstance(encoder, LogMelEncoderConfig) and (
            encoder.mel.alignment != "same" or encoder.mel.sampling_rate != self.sampling_rate
        ):
            raise ValueError(
                f"the encoder's mel must have alignment 'same' and the output's sampling rate, {self.sampling_rate}"
            )
        if self.hop_length % upsample:
            raise ValueError(
                f"the decoder cannot upsample {upsample} times: the hop is {self.hop_length} samples"
            )

    def _check_windows(self) -> None:
        """Raise ValueError unless there are windows exactly where there is no streaming."""
        if self.streams:
            if self.chunk_seconds is not None or self.overlap_seconds is not None:
                raise ValueError(
                    "a codec that streams needs no windows: set chunk_seconds and overlap_seconds to null"
                )
        elif self.window is None:
            raise ValueError("a codec that does not stream needs chunk_seconds and overlap_seconds")


class HHCodecConfig(CodecConfig):
    """Configuration of `HHCodecModel`: waveform -> VQ -> mel -> waveform (arXiv 2507.18897).

    Args:
        encoder: fields of `SEANetConfig` or `LogMelEncoderConfig`, by its `kind`.
        quantizer: fields of `SLMVQConfig`.
        decoder: fields of `MelDecoderConfig`.
        vocoder: fields of `VocosConfig` or `BigVGANConfig`, by its `kind`.
        name, chunk_seconds, overlap_seconds, exported, fingerprint: as in `CodecConfig`.
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
        kind = (encoder or {}).get("kind", "seanet")
        encoder_class = {"seanet": SEANetConfig, "log-mel": LogMelEncoderConfig}.get(kind)
        if encoder_class is None:
            raise ValueError(f"unknown encoder kind {kind!r}: expected 'seanet' or 'log-mel'")
        self.encoder = plain(part_from(encoder_class, encoder))
        self.quantizer = plain(part_from(SLMVQConfig, quantizer))
        self.decoder = plain(part_from(MelDecoderConfig, decoder))
        self.vocoder = plain(vocoder_from(vocoder))
        super().__init__(name, chunk_seconds, overlap_seconds, exported, fingerprint, **kwargs)

    def _check(self) -> None:
        encoder, upsample = self.encoder_config, self.decoder_config.upsample
        if encoder.dim != self.quantizer_config.dim:
            raise ValueError(
                f"the encoder's latent has {encoder.dim} dimensions, "
                f"the quantizer's codebook {self.quantizer_config.dim}"
            )
        self._check_mel_parts(encoder, upsample)
        mel = self.vocoder_config.mel
        straight = mel.alignment == "same" and mel.hop_length * upsample == self.hop_length
        if self.decoder_config.fine_dim is None and not straight:
            raise ValueError(
                f"a decoder without fine_dim gives mel frames of {self.hop_length / upsample:g} samples: "
                f"the vocoder's are of {mel.hop_length}"
            )
        self._check_windows()

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
    def vocoder_config(self) -> VocosConfig | BigVGANConfig:
        """The vocoder's fields, typed."""
        return vocoder_from(self.vocoder)

    @property
    def sampling_rate(self) -> int:
        """Samples a second, in and out."""
        return self.vocoder_config.mel.sampling_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.encoder_config.hop_length

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of each quantizer."""
        return [self.quantizer_config.codebook_size]

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole, for encoder, decoder, vocoder, and from decoder to vocoder."""
        decoder, vocoder = self.decoder_config, self.vocoder_config
        interpolates = vocoder.mel.hop_length * decoder.upsample != self.hop_length
        return self.encoder_config.streams and decoder.streams and vocoder.streams and not interpolates


def _without_later_fields(encoder: dict[str, Any]) -> dict[str, Any]:
    """An encoder's fields less those that came after codecs had been published, where they change nothing."""
    mel = encoder.get("mel")
    if mel is None or mel["power_offset"] != 0:
        return encoder
    return {**encoder, "mel": {key: value for key, value in mel.items() if key != "power_offset"}}


def vocoder_from(values: dict[str, Any] | None) -> VocosConfig | BigVGANConfig:
    """A vocoder's configuration of the `kind` that a dictionary names, Vocos unless it does.

    Raises ValueError for an unknown kind or field.
    """
    kind = (values or {}).get("kind", "vocos")
    if kind == "bigvgan":
        return part_from(BigVGANConfig, values)
    if kind == "vocos":
        return part_from(VocosConfig, values)
    raise ValueError(f"unknown vocoder kind {kind!r}: expected 'vocos' or 'bigvgan'")


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
    return cls(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    """Lists, as JSON has them, as tuples, however deep."""
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value


def plain(part: Any) -> dict[str, Any]:
    """A part's fields as JSON writes them."""

    def lists(value: Any) -> Any:
        return [lists(entry) for entry in value] if isinstance(value, tuple) else value

    return {key: lists(value) for key, value in asdict(part).items()}
