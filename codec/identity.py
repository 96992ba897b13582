"""What a code means, in 16 hex digits, and the facts about a codec that datasets and language models must agree on."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from transformers import PreTrainedModel

from codec.foundation import UserError


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
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return {**asdict(self), "codebook_sizes": list(self.codebook_sizes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From what `to_dict` gave; other keys are passed over."""
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
