"""Encoding and decoding of all codecs, in turn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from recipes.benchmark.contestants import Contestant, build, speech_like
from recipes.benchmark.timing import Case, Timing, take_turns


@dataclass(frozen=True)
class CodecTiming:
    """One codec on `seconds` of audio, batch 1, float32."""

    name: str
    about: str
    seconds: float
    encode: Timing
    decode: Timing

    @property
    def together(self) -> float:
        """Encoding and decoding as a multiple of real time, by the median rounds."""
        return self.seconds / (self.encode.median + self.decode.median)


def time_codecs(
    names: Sequence[str], seconds: float, rounds: int, device: str, counts_work: bool = False
) -> dict[str, CodecTiming]:
    """Time the codecs of those names; by name, in their order."""
    contestants = [build(name, device) for name in names]
    where = torch.device(device)
    with torch.inference_mode():
        encoding, decoding = [], []
        for contestant in contestants:
            audio = speech_like(contestant.sampling_rate, seconds).to(where)
            encoding.append(_encoding(contestant, audio))
            decoding.append(_decoding(contestant, contestant.encode(audio)))
        encoded = take_turns(encoding, rounds, where, "encoding", counts_work=counts_work)
        decoded = take_turns(decoding, rounds, where, "decoding", counts_work=counts_work)
    return {
        c.name: CodecTiming(c.name, c.about, seconds, encoded[c.name], decoded[c.name]) for c in contestants
    }


def _encoding(contestant: Contestant, audio: torch.Tensor) -> Case:
    return Case(contestant.name, lambda: contestant.encode(audio))


def _decoding(contestant: Contestant, codes: object) -> Case:
    return Case(contestant.name, lambda: contestant.decode(codes))
