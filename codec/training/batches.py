"""The batches of one process. Segment numbers alone decide them, so a run resumes by counting."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from codec.losses.semantic import Transcripts
from codec.training.validation import ValidationSet

STAGE_STRIDE = 10**9  # segments of different stages never share a number


class Segments(Protocol):
    """Training examples by number: {"waveform": (samples,), "length": int}, a pure function of the number.

    Segments with noise also have {"heard": (samples,)}, which is encoded instead of "waveform", the target. For a codec
    with a voice vector they have {"reference": (samples,), "reference_length": int}, a stretch of the same speaker.

    With transcripts also {"labels": (characters,) int64 numbers in the alphabet, "span": (2,) int64 first sample and
    end of the stretch in which exactly that is spoken}.
    """

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass
class TrainingData:
    """What a codec learns from. The caller makes it, because the codec package knows no corpora."""

    segments: Callable[[float], Segments]  # segment length in seconds -> examples
    validation: Sequence[ValidationSet] = field(default_factory=list)
    digest: str = ""  # identifies the data: a run resumes on the same data only
    older_digest: str = ""  # what checkpoints of older versions have in its place
    alphabet: str = ""  # the characters of labels; empty: segments have none


@dataclass(frozen=True)
class SegmentNumbers:
    """Batch sampler of one process: the segments of each of its batches."""

    stage: int
    batches: Iterable[int]  # those that are left, by their number in the stage
    batch_size: int
    process: int
    processes: int

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            first = self.stage * STAGE_STRIDE + (batch * self.processes + self.process) * self.batch_size
            yield list(range(first, first + self.batch_size))


def open_batches(segments: Segments, numbers: SegmentNumbers, workers: int) -> Iterator[dict[str, Tensor]]:
    """Read batches {"waveform": (batch, samples), "length": (batch,)} in `workers` processes, or in this one for 0."""
    loader: DataLoader[Any] = DataLoader(
        segments,  # type: ignore[arg-type]  # a Dataset by its __getitem__
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=collate,
    )
    return iter(loader)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack examples of one length to a batch."""
    batch = {
        "waveform": torch.stack([example["waveform"] for example in examples]),
        "length": torch.tensor([example["length"] for example in examples]),
    }
    if any("heard" in example for example in examples):
        batch["heard"] = torch.stack([example.get("heard", example["waveform"]) for example in examples])
    if "reference" in examples[0]:
        batch["reference"] = torch.stack([example["reference"] for example in examples])
        batch["reference_length"] = torch.tensor([example["reference_length"] for example in examples])
    if "labels" in examples[0]:
        labels = [example["labels"] for example in examples]
        batch |= {
            "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
            "label_lengths": torch.tensor([len(row) for row in labels]),
            "spans": torch.stack([example["span"] for example in examples]),
        }
    return batch


def transcripts(batch: Mapping[str, Tensor]) -> Transcripts | None:
    """The transcripts of a batch, if its segments have them."""
    if "labels" not in batch:
        return None
    return Transcripts(batch["labels"], batch["label_lengths"], batch["spans"])
