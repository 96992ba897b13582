"""What the configurations of all codecs share, and the facts about a codec that its codes carry along."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

from transformers import PreTrainedConfig, PreTrainedModel

from codec.foundation import UserError
from codec.nn.mel import MelConfig
from codec.nn.sequences import Window
from codec.presets import PARTS
from codec.vocoders.bigvgan import BigVGANConfig
from codec.vocoders.vocos import VocosConfig

Part = TypeVar("Part")


class CodecConfig(PreTrainedConfig):
    """What the configurations of all codecs have: windows, rates, codebooks, and what gives a code its meaning.

    A subclass sets `encoder` and its other parts, as plain dictionaries with every field filled in, so that config.json
    says everything. Then it calls this `__init__`, which ends with the subclass's `_check`.

    Args:
        name: the codec's name in datasets and checkpoints.
        chunk_seconds, overlap_seconds: audio longer than `chunk_seconds` is coded in windows of that length, of
            which `overlap_seconds` on each side are context; None for codecs that stream, where chunked equals
            whole.
        exported: whether what only training needs is dropped, and weight norm and projections are folded.
        fingerprint: 16 hex digits that name the meaning of a code; set by `export_codec`.
    """

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
    def voice_dim(self) -> int:
        """Numbers of a voice vector; 0 for a codec without one."""
        return 0

    @property
    def voice_samples(self) -> int:
        """Samples from a recording's start that its voice vector is taken from, in whole frames."""
        return 0

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
            "encoder": _without_later_fields(vars(self)["encoder"]),  # what the subclass has set
            "codebook_sizes": self.codebook_sizes,
            "sampling_rate": self.sampling_rate,
            "hop_length": self.hop_length,
            "chunk_seconds": self.chunk_seconds,
            "overlap_seconds": self.overlap_seconds,
        }

    def _check_windows(self) -> None:
        """Raise ValueError unless there are windows exactly where there is no streaming."""
        if self.streams:
            if self.chunk_seconds is not None or self.overlap_seconds is not None:
                raise ValueError(
                    "a codec that streams needs no windows: set chunk_seconds and overlap_seconds to null"
                )
        elif self.window is None:
            raise ValueError("a codec that does not stream needs chunk_seconds and overlap_seconds")


def _without_later_fields(encoder: dict[str, Any]) -> dict[str, Any]:
    """An encoder's fields without those that are younger than published codecs, where they change nothing."""
    encoder = {
        key: value
        for key, value in encoder.items()
        if (key, value) not in (("level", "none"), ("voice", None))
    }
    if (mel := encoder.get("mel")) is not None:
        encoder["mel"] = {key: value for key, value in mel.items() if (key, value) != ("power_offset", 0)}
    return encoder


def vocoder_from(values: dict[str, Any] | None) -> VocosConfig | BigVGANConfig:
    """A vocoder's configuration of the `kind` that a dictionary names, Vocos unless it does.

    Raises ValueError for an unknown kind or field.
    """
    return part_of_kind("vocoder", {"vocos": VocosConfig, "bigvgan": BigVGANConfig}, values)


def part_of_kind(part: str, kinds: Mapping[str, type[Any]], values: dict[str, Any] | None) -> Any:
    """The configuration of the `kind` that a dictionary names, the first of `kinds` unless it does.

    Raises ValueError for an unknown kind or field.
    """
    kind = (values or {}).get("kind", next(iter(kinds)))
    if kind not in kinds:
        raise ValueError(f"unknown {part} kind {kind!r}: expected {' or '.join(map(repr, kinds))}")
    return part_from(kinds[kind], values)


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


@dataclass(frozen=True)
class CodecInfo:
    """The facts about a codec that its codes carry along."""

    name: str
    fingerprint: str  # 16 hex digits over config and weights of encoder and quantizer
    sampling_rate: int  # Hz
    hop_length: int  # samples a frame
    frame_rate: float  # frames a second
    codebook_sizes: tuple[int, ...]  # codes of each quantizer
    num_quantizers: int  # codes a frame
    chunk_seconds: float | None  # windows of long audio; None when chunked equals whole
    overlap_seconds: float | None
    voice_dim: int = 0  # numbers of a voice vector; 0 for a codec without one

    @classmethod
    def of(cls, model: Any) -> Self:
        """The facts about a loaded codec: an exported one of ours, or an adapter."""
        config = model.config
        return cls(
            name=config.name,
            fingerprint=config.fingerprint or fingerprint(model),
            sampling_rate=config.sampling_rate,
            hop_length=config.hop_length,
            frame_rate=config.frame_rate,
            codebook_sizes=tuple(config.codebook_sizes),
            num_quantizers=config.num_quantizers,
            chunk_seconds=config.chunk_seconds,
            overlap_seconds=config.overlap_seconds,
            voice_dim=getattr(config, "voice_dim", 0),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it; without `voice_dim` where there is no voice vector."""
        values = {**asdict(self), "codebook_sizes": list(self.codebook_sizes)}
        if not self.voice_dim:
            del values["voice_dim"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what `to_dict` gave; other keys are ignored."""
        values = {"voice_dim": 0, **values}
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "codebook_sizes": tuple(known["codebook_sizes"])})

    def check_same(self, other: "CodecInfo", what: str, as_many: bool = False) -> None:
        """Raise UserError naming both fingerprints unless codes of `other`, the codec of `what`, mean the same.

        Codes may be of fewer or more quantizers, the first ones in both, unless `as_many` asks for the same number.
        """
        if self.fingerprint != other.fingerprint:
            raise UserError(
                f"{what} was made with the codec {other.name} ({other.fingerprint}), not with {self.name} "
                f"({self.fingerprint}): the same codes mean other sounds; use the codec it was made with"
            )
        if as_many and self.num_quantizers != other.num_quantizers:
            raise UserError(
                f"{what} has {other.num_quantizers} codes a frame, where {self.num_quantizers} are expected: "
                "make both with the same --max_quantizers"
            )


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits of SHA-256 over encoder and quantizer weights and the config fields that decide what a code means.

    Weights are taken as they are, in float32. Decoder and vocoder do not count.
    Raises ValueError for a model that is not exported: folding and rounding are still to change its weights.
    """
    digest = hashlib.sha256()
    config = model.config
    if not config.exported:
        raise ValueError("only an exported codec has a fingerprint: use export_codec first")
    digest.update(json.dumps(config.meaning, sort_keys=True).encode())
    for part in ("encoder", "quantizer"):
        for name, tensor in sorted(model.get_submodule(part).state_dict().items()):
            digest.update(f"{part}.{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
