"""A key/value cache for decoding on a CPU: room is made ahead, so a step copies one token and not the whole past."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_FIRST_ROOM = 256  # tokens


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views of buffers that double when they are full.

    transformers' own layer concatenates: every step copies all keys and values of all layers. Its static layer
    copies nothing but attends to its whole length, used or not.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, tokens, dim) and return everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + key_states.shape[2]
        if not self._has_room(total):
            self._key_room = self._grown(self.keys, key_states, total)
            self._value_room = self._grown(self.values, value_states, total)
        self._key_room[:, :, past:total] = key_states
        self._value_room[:, :, past:total] = value_states
        self.keys = self._key_room[:, :, :total]
        self.values = self._value_room[:, :, :total]
        return self.keys, self.values

    def _has_room(self, total: int) -> bool:
        # Rows that were selected or repeated since live in memory of their own.
        room = getattr(self, "_key_room", None)
        if room is None or self.keys is None:
            return False
        return room.data_ptr() == self.keys.data_ptr() and room.shape[2] >= total

    @staticmethod
    def _grown(held: Tensor | None, new: Tensor, total: int) -> Tensor:
        batch, heads, _, dim = new.shape
        room = new.new_empty(batch, heads, max(_FIRST_ROOM, 2 * total), dim)
        if held is not None and held.numel():
            room[:, :, : held.shape[2]] = held
        return room


def growing_cache() -> Cache:
    """An empty cache for a model whose layers all attend to everything before."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Keep these rows of the batch (int64 indices, repeats allowed), in this order."""
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.batch_select_indices(rows)


__all__ = ["GrowingLayer", "growing_cache", "select_rows"]
