"""Configuration of HH-Codec: a typed part for each module."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from codec.configuration import CodecConfig, part_from, part_of_kind, vocoder_from
from codec.nn.mel import MelConfig
from codec.vocoders.bigvgan import BigVGANConfig
from codec.vocoders.vocos import VocosConfig


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
class VoiceConfig:
    """A vector of who speaks, beside the codes. The decoder adapts the norms of its ConvNeXt blocks to it."""

    dim: int = 64
    hidden_dim: int = 128
    blocks: int = 3
    seconds: float = 10.0  # of a recording, from its start, that the vector is taken from


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
    # "running": spectra are first divided by a running level, so that louder copies give the same codes
    level: Literal["none", "running"] = "none"
    voice: VoiceConfig | None = None  # with a voice vector

    def __post_init__(self) -> None:
        if isinstance(self.voice, dict):  # as JSON has it
            object.__setattr__(self, "voice", part_from(VoiceConfig, self.voice))

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

    kind: Literal["slm-vq"] = "slm-vq"
    codebook_size: int = 8_192
    dim: int = 512
    hidden_dim: int = 1_024
    frozen: bool = True  # False: the random codebook learns beside its MLP (the paper's ablation)
    gradient: Literal["rotation", "straight-through"] = "rotation"
    commitment: float = 0.25
    training_quantizers: int = 2  # residual quantizers in the VQ loss; only the first one makes codes


@dataclass(frozen=True)
class FSQConfig:
    """Finite scalar quantization (arXiv 2309.15505): each of a few numbers is rounded to one of its `levels`."""

    kind: Literal["fsq"] = "fsq"
    levels: tuple[int, ...] = (8, 8, 8, 4, 4)
    dim: int = 128  # of the latent

    @property
    def codebook_size(self) -> int:
        """Codes."""
        return math.prod(self.levels)


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


_ENCODERS = {"seanet": SEANetConfig, "log-mel": LogMelEncoderConfig}
_QUANTIZERS = {"slm-vq": SLMVQConfig, "fsq": FSQConfig}


class HHCodecConfig(CodecConfig):
    """Configuration of `HHCodecModel`: waveform -> VQ -> mel -> waveform (arXiv 2507.18897).

    Args:
        encoder: fields of `SEANetConfig` or `LogMelEncoderConfig`, by its `kind`.
        quantizer: fields of `SLMVQConfig` or `FSQConfig`, by its `kind`.
        decoder: fields of `MelDecoderConfig`.
        vocoder: fields of `VocosConfig` or `BigVGANConfig`, by its `kind`.
        default_voice: the voice vector that is decoded with where none is given; None: zeros.
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
        default_voice: list[float] | None = None,
        chunk_seconds: float | None = 20.0,
        overlap_seconds: float | None = 2.0,
        exported: bool = False,
        fingerprint: str | None = None,
        **kwargs: Any,
    ):
        self.encoder = asdict(part_of_kind("encoder", _ENCODERS, encoder))
        self.quantizer = asdict(part_of_kind("quantizer", _QUANTIZERS, quantizer))
        self.decoder = asdict(part_from(MelDecoderConfig, decoder))
        self.vocoder = asdict(vocoder_from(vocoder))
        self.default_voice = default_voice
        super().__init__(name, chunk_seconds, overlap_seconds, exported, fingerprint, **kwargs)

    def _check(self) -> None:
        encoder, upsample = self.encoder_config, self.decoder_config.upsample
        if encoder.dim != self.quantizer_config.dim:
            raise ValueError(
                f"the encoder's latent has {encoder.dim} dimensions, "
                f"the quantizer's codebook {self.quantizer_config.dim}"
            )
        if self.default_voice is not None and len(self.default_voice) != self.voice_dim:
            raise ValueError(f"default_voice has {len(self.default_voice)} numbers, a voice {self.voice_dim}")
        check_mel_parts(self, encoder, upsample)
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
        return part_of_kind("encoder", _ENCODERS, self.encoder)

    @property
    def quantizer_config(self) -> SLMVQConfig | FSQConfig:
        """The quantizer's fields, typed."""
        return part_of_kind("quantizer", _QUANTIZERS, self.quantizer)

    @property
    def voice_dim(self) -> int:
        """Numbers of a voice vector; 0 for a codec without one."""
        voice = self.encoder.get("voice")
        return 0 if voice is None else int(voice["dim"])

    @property
    def voice_samples(self) -> int:
        """Samples from a recording's start that its voice vector is taken from, in whole frames."""
        voice = self.encoder.get("voice")
        return 0 if voice is None else round(voice["seconds"] * self.frame_rate) * self.hop_length

    @property
    def meaning(self) -> dict[str, Any]:
        """The fields that, with the weights, decide what a code and a voice vector mean."""
        levels = {"levels": self.quantizer["levels"]} if self.quantizer["kind"] == "fsq" else {}
        return {**super().meaning, **levels}

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


def check_mel_parts(config: CodecConfig, encoder: object, upsample: int) -> None:
    """Raise ValueError unless an encoder that starts from log-mel, and a decoder ending there, fit the frames."""
    if isinstance(encoder, LogMelEncoderConfig) and (
        encoder.mel.alignment != "same" or encoder.mel.sampling_rate != config.sampling_rate
    ):
        raise ValueError(
            f"the encoder's mel must have alignment 'same' and the output's sampling rate, {config.sampling_rate}"
        )
    if isinstance(encoder, LogMelEncoderConfig) and encoder.voice is not None and not config.voice_dim:
        raise ValueError(f"{config.model_type} has no voice vector: leave out the encoder's voice")
    if config.hop_length % upsample:
        raise ValueError(
            f"the decoder cannot upsample {upsample} times: the hop is {config.hop_length} samples"
        )
