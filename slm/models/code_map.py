"""Which codes of a former codec sound like each code of a new one, counted over recordings that both have coded."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError

_PRIOR = 1.0  # frames: how much each code leans on how often the old codes are used at all


class CodedRecordings(Protocol):
    """Recordings as codes, by id; `data.TokenDataset` is one."""

    info: CodecInfo
    name: str

    def __len__(self) -> int: ...
    def id(self, index: int, /) -> str: ...
    def codes(self, index: int, /) -> np.ndarray: ...  # (frames,) uint16


@dataclass(frozen=True)
class CodeMap:
    """Shares of the old codes for each new one, and what they were counted from."""

    shares: np.ndarray  # (new codes, old codes) float32; rows sum to 1
    recordings: int
    frames: int
    bits: float  # of information that a new code gives about the old one of its frame


def map_codes(old: CodedRecordings, new: CodedRecordings) -> CodeMap:
    """How the frames of the same recordings are coded by an old and a new codec of one frame rate.

    Raises UserError for codecs whose frames do not go together, and datasets that share no recording.
    """
    for dataset in (old, new):
        if dataset.info.num_quantizers > 1:
            raise UserError(f"{dataset.name}: codes are mapped between codecs with one quantizer")
    if old.info.frame_rate != new.info.frame_rate:
        raise UserError(
            f"{old.name} has {old.info.frame_rate:g} frames a second, {new.name} {new.info.frame_rate:g}: "
            "codes are mapped frame by frame"
        )
    places = {old.id(index): index for index in range(len(old))}
    codes, former = new.info.codebook_sizes[0], old.info.codebook_sizes[0]
    counts = np.zeros(codes * former, dtype=np.int64)
    recordings = 0
    for index in range(len(new)):
        place = places.get(new.id(index))
        if place is None:
            continue
        before, after = old.codes(place), new.codes(index)
        if abs(len(before) - len(after)) > 1:
            raise UserError(
                f"recording {new.id(index)} has {len(before)} frames in {old.name} and {len(after)} in {new.name}: "
                "code both datasets from the same audio"
            )
        length = min(len(before), len(after))
        pairs = after[:length].astype(np.int64) * former + before[:length]
        counts += np.bincount(pairs, minlength=len(counts))
        recordings += 1
    if not recordings:
        raise UserError(f"{old.name} and {new.name} have no recording in common (by id)")
    table = counts.reshape(codes, former).astype(np.float64)
    usual = table.sum(0) / table.sum()
    smoothed = table + _PRIOR * usual
    shares = smoothed / smoothed.sum(1, keepdims=True)
    joint = table / table.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = joint * np.log2(joint / (joint.sum(1, keepdims=True) * usual))
    return CodeMap(shares.astype(np.float32), recordings, int(table.sum()), float(np.nansum(information)))
