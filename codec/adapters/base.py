"""What all adapters share: one utterance at a time, real frame counts, exact lengths, windows, a fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from codec.base import CodecDecoderOutput, CodecEncoderOutput, check_codes
from codec.foundation import UserError
from codec.nn.kernels import at_least_float32
from codec.nn.sequences import Window, join_windows, lengths_from_mask, mask_from_lengths, windows_over


@dataclass(frozen=True)
class AdapterConfig:
    """The facts about an adapted codec, under the names that this project's own codecs use."""

    name: str
    model_type: str  # of `transformers`
    fingerprint: str
    sampling_rate: int  # Hz
    hop_length: int  # samples a frame
    codebook_sizes: tuple[int, ...]  # codes of each quantizer in use
    chunk_seconds: float  # windows of long audio
    overlap_seconds: float

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def num_quantizers(self) -> int:
        """Codes a frame."""
        return len(self.codebook_sizes)

    @property
    def window(self) -> Window:
        """The windows in which long audio is coded."""
        rate = self.frame_rate
        return Window(frames=round(self.chunk_seconds * rate), overlap=round(self.overlap_seconds * rate))


class CodecAdapter(nn.Module, ABC):
    """An audio codec of `transformers` that encodes and decodes as `HHCodecModel` does.

    These models know no padding: their masks, where they take one, blank the waveform and nothing inside. So every row
    of a batch is run by itself, which keeps the law that codes do not depend on the batch. A recording of S samples has
    ceil(S / hop_length) frames, T frames decode to T * hop_length samples. What is longer than `chunk_seconds` is
    coded in windows.

    Args:
        model: the model, with all its parts.
        name: what the codec is called in tables and datasets.
        num_quantizers: use the first so many; all that the model has when unset.

    Raises UserError for a model that cannot be adapted, and for more quantizers than it has.
    """

    model_type: ClassVar[str]
    # Windows for long audio. The overlap covers what a frame can see, or most of it where that is without bound.
    chunk_seconds: ClassVar[float]
    overlap_seconds: ClassVar[float]
    # config fields that, with encoder and quantizer weights, decide what a code means; not all fields, for a later
    # version of `transformers` may add some
    meaning: ClassVar[tuple[str, ...]]
    encoding_parts: ClassVar[tuple[str, ...]] = ("encoder", "quantizer")

    def __init__(self, model: PreTrainedModel, name: str, num_quantizers: int | None = None):
        super().__init__()
        self.model = model.eval()
        sizes = self._codebook_sizes()
        count = len(sizes) if num_quantizers is None else num_quantizers
        if not self._fewest_quantizers() <= count <= len(sizes):
            raise UserError(
                f"{name} has {self._fewest_quantizers()} to {len(sizes)} quantizers to use, not {count}"
            )
        self.config = AdapterConfig(
            name=name if count == len(sizes) else f"{name}:{count}",
            model_type=self.model_type,
            fingerprint=self._fingerprint(count),
            sampling_rate=int(model.config.sampling_rate),
            hop_length=self._hop_length(),
            codebook_sizes=tuple(sizes[:count]),
            chunk_seconds=self.chunk_seconds,
            overlap_seconds=self.overlap_seconds,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    # -- what a subclass defines ------------------------------------------------------------------------------------

    @abstractmethod
    def _codebook_sizes(self) -> list[int]:
        """Of all quantizers of the model."""

    @abstractmethod
    def _hop_length(self) -> int:
        """Samples a frame."""

    @abstractmethod
    def _encode_row(self, waveform: Tensor) -> Tensor:
        """(1, 1, samples), at least one -> codes (num_quantizers, at least ceil(samples / hop_length) frames)."""

    @abstractmethod
    def _decode_row(self, codes: Tensor) -> Tensor:
        """Codes (1, num_quantizers, frames), at least one frame -> (samples,), about frames * hop_length."""

    @abstractmethod
    def effective_codebook(self, quantizer: int = 0) -> Tensor:
        """(codebook_size, dim): what the codes of `quantizer` add to the decoder's input."""

    def _fewest_quantizers(self) -> int:
        return 1

    # -- waveform to codes ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, input_values: Tensor, padding_mask: Tensor | None = None) -> CodecEncoderOutput:
        """Code a batch: (batch, 1, samples), mask (batch, samples) -> codes (batch, num_quantizers, frames), mask.

        The mask is true (or 1) for a row's own samples, a prefix. Codes beyond a row's own frames are 0.
        """
        if input_values.ndim != 3 or input_values.shape[1] != 1:
            raise ValueError(
                f"expected input_values of shape (batch, 1, samples), got {tuple(input_values.shape)}"
            )
        batch, _, samples = input_values.shape
        device, hop = input_values.device, self.config.hop_length
        lengths = torch.full((batch,), samples, device=device)
        if padding_mask is not None:
            lengths = padding_mask.long().sum(dim=1)
        frames = (lengths + hop - 1) // hop
        codes = torch.zeros(
            batch, self.config.num_quantizers, -(-samples // hop), dtype=torch.long, device=device
        )
        for row, (length, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
            codes[row, :, :count] = self.encode_blocks([input_values[row, 0, :length]]).audio_codes[0]
        return CodecEncoderOutput(audio_codes=codes, frame_mask=mask_from_lengths(frames, codes.shape[-1]))

    @torch.no_grad()
    def encode_blocks(self, blocks: Iterable[Tensor]) -> CodecEncoderOutput:
        """Code one recording that comes in blocks (samples,) of any size, in bounded memory: a batch of one row.

        The codes are those of `encode` on the whole, and do not depend on how the recording is cut into blocks.
        """
        hop = self.config.hop_length
        codes = [torch.zeros(self.config.num_quantizers, 0, dtype=torch.long, device=self.device)]
        on_device = (at_least_float32(block.to(self.device)) for block in blocks)
        for piece in windows_over(on_device, self.config.window, hop):
            codes.append(self._encode_row(piece.samples[None, None])[:, piece.keep_from : piece.keep_to])
        joined = torch.cat(codes, dim=-1).long()[None]
        return CodecEncoderOutput(
            audio_codes=joined, frame_mask=torch.ones_like(joined[:, 0], dtype=torch.bool)
        )

    # -- codes to waveform ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(
        self, audio_codes: Tensor, frame_mask: Tensor | None = None, voice: Tensor | None = None
    ) -> CodecDecoderOutput:
        """Codes (batch, num_quantizers, frames), mask (batch, frames) -> audio (batch, 1, frames * hop_length).

        Behind a row's own frames it is zero. These codecs have no voice vector, so `voice` is None.
        Raises UserError for what are no codes of this codec.
        """
        check_codes(audio_codes, self._codebook_sizes())
        batch, _, frames = audio_codes.shape
        audio = torch.zeros(batch, 1, frames * self.config.hop_length, device=audio_codes.device)
        lengths = [frames] * batch if frame_mask is None else lengths_from_mask(frame_mask).tolist()
        for row, length in enumerate(lengths):
            position = 0
            for block in self.decode_blocks(audio_codes[row, :, :length]):
                audio[row, 0, position : position + block.numel()] = block
                position += block.numel()
        return CodecDecoderOutput(audio_values=audio)

    @torch.no_grad()
    def decode_blocks(self, audio_codes: Tensor, voice: Tensor | None = None) -> Iterator[Tensor]:
        """Decode one recording of any length in bounded memory: codes (num_quantizers, frames) -> blocks (samples,).

        Raises UserError for what are no codes of this codec.
        """
        check_codes(audio_codes[None], self._codebook_sizes())
        hop, codes = self.config.hop_length, audio_codes.to(self.device)
        if codes.shape[-1] == 0:
            yield torch.zeros(0, device=self.device)
            return
        positions = torch.arange(codes.shape[-1], device=self.device)
        decoded = (
            (_exactly(self._decode_row(codes[None, :, piece.samples]), piece.samples.numel() * hop), piece)
            for piece in windows_over([positions], self.config.window, 1)
        )
        yield from join_windows(decoded, hop, fade=hop)

    # -- identity ---------------------------------------------------------------------------------------------------

    def _fingerprint(self, num_quantizers: int) -> str:
        """16 hex digits of SHA-256 over what decides the meaning of the codes.

        Tensors count by shape and value, not by name: versions of `transformers` name them differently.
        """
        config = self.model.config.to_dict()
        facts = {
            "model_type": self.model_type,
            "quantizers_in_use": num_quantizers,
            "chunk_seconds": self.chunk_seconds,
            "overlap_seconds": self.overlap_seconds,
            **{key: config[key] for key in self.meaning},
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        tensors = []
        for part, module in self.model.named_children():
            if part not in self.encoding_parts:
                continue
            for tensor in module.state_dict().values():
                values = tensor.detach().float().cpu().contiguous().numpy().tobytes()
                tensors.append(hashlib.sha256(str(tuple(tensor.shape)).encode() + values).digest())
        for entry in sorted(tensors):
            digest.update(entry)
        return digest.hexdigest()[:16]


def _exactly(audio: Tensor, samples: int) -> Tensor:
    """(samples',) cut, or filled with zeros, to (samples,)."""
    return F.pad(audio, (0, max(0, samples - audio.numel())))[:samples]
