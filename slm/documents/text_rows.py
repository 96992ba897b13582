"""Texts that are token ids already: rows of a mixture that have no speech."""

import numpy as np


class TextRows:
    """Texts as one array of token ids; a text longer than a document may be is several rows, none of it lost.

    Attributes:
        name: for errors.
        content_hash: 16 hex digits that name the tokens.
        lengths: (rows,) int64, text tokens of each row.
        continues: (rows,) bool, whether the text goes on in the next row.
    """

    def __init__(
        self, name: str, ids: np.ndarray, offsets: np.ndarray, content_hash: str, longest: int | None = None
    ) -> None:
        """
        Args:
            ids: (tokens,) unsigned integers, text after text; may be mapped from a file.
            offsets: (texts + 1,) int64, where each text begins.
            longest: text tokens of a row at most; a text is cut into rows of this length and what is left.
        """
        self.name, self.content_hash = name, content_hash
        self._ids = ids
        sizes = np.diff(offsets)
        if longest is None or not len(sizes) or int(sizes.max()) <= longest:
            self._starts = np.asarray(offsets[:-1])
            self.lengths: np.ndarray = sizes.astype(np.int64)
            self.continues: np.ndarray = np.zeros(len(sizes), dtype=bool)
            return
        counts = np.maximum(-(-sizes // longest), 1)
        lasts = np.cumsum(counts) - 1
        part = np.arange(int(counts.sum())) - np.repeat(lasts + 1 - counts, counts)
        self._starts = np.repeat(offsets[:-1], counts) + part * longest
        self.lengths = np.minimum(np.repeat(offsets[1:], counts) - self._starts, longest)
        self.continues = np.ones(len(part), dtype=bool)
        self.continues[lasts] = False

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """Token ids of a row, (tokens,) int32."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has rows 0 to {len(self) - 1}, not {index}")
        start = int(self._starts[index])
        return self._ids[start : start + int(self.lengths[index])].astype(np.int32)
