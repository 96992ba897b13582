"""What the configurations of all codecs share: one typed part a module, one `PreTrainedConfig` around them."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from transformers import PreTrainedConfig

from codec.nn.mel import MelConfig
from codec.nn.windows import Window

PARTS = (
    "encoder",
    "quantizer",
    "decoder",
    "vocoder",
)  # of every model: what can be frozen, and taken from elsewhere

Part = TypeVar("Part")


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
    """An encoder's fields less those that came after codecs had been published, where they change nothing."""
    mel = encoder.get("mel")
    if mel is None or mel["power_offset"] != 0:
        return encoder
    return {**encoder, "mel": {key: value for key, value in mel.items() if key != "power_offset"}}


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
