"""What generation asks of a model: read a few tokens more, say what may come next, go on with some of the rows."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from slm.generation.cache import growing_cache, select_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reading(Protocol):
    """A batch of rows being read, all of them the same number of tokens far."""

    position: int  # tokens read so far

    def read(self, ids: Tensor, reach: range) -> Tensor:
        """Read (rows, tokens) int64 more; logits for the token after them, (rows, len(reach)) float32.

        Only the tokens of `reach` are of interest.
        """
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (int64 indices, repeats allowed), in this order."""
        ...


class Decoder(Protocol):
    """A model as generation sees it."""

    longest: int  # tokens it can read

    def start(self) -> Reading:
        """Begin to read."""
        ...


class TransformersDecoder:
    """Any causal LM of `transformers`, through its own forward pass."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model
        self.longest: int = model.config.max_position_embeddings

    def start(self) -> "TransformersReading":
        """Begin to read."""
        return TransformersReading(self.model)


class TransformersReading:
    """Rows read by a model's forward pass into a growing cache."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model, self.cache, self.position = model, growing_cache(), 0

    def read(self, ids: Tensor, reach: range) -> Tensor:
        """(rows, tokens) -> (rows, len(reach)) float32."""
        positions = torch.arange(self.position, self.position + ids.shape[1], device=ids.device)[None]
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.position += ids.shape[1]
        return output.logits[:, -1, reach.start : reach.stop].float()

    def select(self, rows: Tensor) -> None:
        """Go on with these rows."""
        select_rows(self.cache, rows)


def decoder_for(model: "PreTrainedModel") -> Decoder:
    """The fastest decoder for a model; lays its weights out anew where that helps, their values stay."""
    from slm.generation.fused_decoder import FusedDecoder

    return FusedDecoder(model) if FusedDecoder.fits(model) else TransformersDecoder(model)
