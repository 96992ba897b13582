"""Configuration of the k-means tokenizer: patches of log-mel, a codebook of centroids, somebody else's vocoder."""

from dataclasses import asdict, dataclass, field
from typing import Any

from codec.configuration import CodecConfig, part_from, vocoder_from
from codec.nn.mel import MelConfig
from codec.vocoders.bigvgan import BigVGANConfig
from codec.vocoders.vocos import VocosConfig


@dataclass(frozen=True)
class PatchConfig:
    """A frame of the codec: `stride` frames of log-mel side by side."""

    mel: MelConfig = field(default_factory=lambda: MelConfig(padding="zeros"))
    stride: int = 4  # mel frames a frame
    mel_mean: float = -5.9  # taken off: distances between numbers around zero are more exact

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.mel.hop_length * self.stride

    @property
    def dim(self) -> int:
        """Of a patch."""
        return self.mel.n_mels * self.stride

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole: the first samples of a stream cannot be reflected."""
        return self.mel.padding == "zeros"


@dataclass(frozen=True)
class CentroidConfig:
    """The quantizer."""

    codebook_size: int = 2_048


class KMeansCodecConfig(CodecConfig):
    """Configuration of `KMeansCodecModel`.

    Args:
        encoder: fields of `PatchConfig`; its mel is the vocoder's, but for the padding.
        quantizer: fields of `CentroidConfig`.
        vocoder: fields of `VocosConfig` or `BigVGANConfig`, by its `kind`.
        exported: always: there is nothing that only training needs.
        name, chunk_seconds, overlap_seconds, fingerprint: as in `CodecConfig`.
    """

    model_type = "kmeans-codec"

    def __init__(
        self,
        name: str = "kmeans",
        encoder: dict[str, Any] | None = None,
        quantizer: dict[str, Any] | None = None,
        vocoder: dict[str, Any] | None = None,
        chunk_seconds: float | None = None,
        overlap_seconds: float | None = None,
        exported: bool = True,
        fingerprint: str | None = None,
        **kwargs: Any,
    ):
        self.encoder = asdict(part_from(PatchConfig, encoder))
        self.quantizer = asdict(part_from(CentroidConfig, quantizer))
        self.vocoder = asdict(vocoder_from(vocoder))
        super().__init__(name, chunk_seconds, overlap_seconds, exported, fingerprint, **kwargs)

    def _check(self) -> None:
        mel, expected = self.encoder_config.mel, self.vocoder_config.mel
        if expected.alignment != "same":
            raise ValueError("patches need a vocoder whose mel frames tile the samples: alignment 'same'")
        differing = [
            name
            for name in expected.__dataclass_fields__
            if name != "padding" and getattr(mel, name) != getattr(expected, name)
        ]
        if differing:
            raise ValueError(f"the encoder's mel is not the vocoder's: {', '.join(differing)} differ")
        self._check_windows()

    @property
    def encoder_config(self) -> PatchConfig:
        """The encoder's fields, typed."""
        return part_from(PatchConfig, self.encoder)

    @property
    def quantizer_config(self) -> CentroidConfig:
        """The quantizer's fields, typed."""
        return part_from(CentroidConfig, self.quantizer)

    @property
    def vocoder_config(self) -> VocosConfig | BigVGANConfig:
        """The vocoder's fields, typed."""
        return vocoder_from(self.vocoder)

    @property
    def sampling_rate(self) -> int:
        """Samples a second, in and out."""
        return self.encoder_config.mel.sampling_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return self.encoder_config.hop_length

    @property
    def codebook_sizes(self) -> list[int]:
        """Codes of the one quantizer."""
        return [self.quantizer_config.codebook_size]

    @property
    def streams(self) -> bool:
        """Whether chunked equals whole, for encoder and vocoder; what is between them sees one frame at a time."""
        return self.encoder_config.streams and self.vocoder_config.streams
