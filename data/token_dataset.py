"""Reading a token dataset: columns mapped into memory, streams as views of them."""

import hashlib
import os
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError, first_line
from data.corpora import Word
from data.sharded_directory import METADATA, missing_files, read_json
from data.tokenization.directory import TokenDirectory, codec_of_schema
from data.tokenization.plan import HEADERS

if TYPE_CHECKING:
    import pyarrow as pa


class TokenDataset:
    """One split of a token dataset; `open` makes one.

    A directory is read through the memory-mapped Arrow cache that `datasets` makes of it once for all
    processes of a machine: opening reads no codes, and `codes(i)` copies none.
    """

    def __init__(
        self,
        name: str,
        table: "pa.Table",
        info: CodecInfo,
        split: str,
        splits: list[str],
        metadata: Mapping[str, Any],
    ) -> None:
        self.name, self.info, self.split, self.splits = name, info, split, splits
        self.metadata = metadata  # of metadata.json; empty for a single file
        self._table = table
        chunks = table.column("codes").chunks
        self._values = [
            chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks
        ]  # (codes,) uint16 each
        self._offsets = [
            chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks
        ]  # (rows + 1,) int32 each
        # Chunks of one table begin at the same rows in all columns of ours, which come from one file.
        self._first = np.cumsum([0, *(len(chunk) for chunk in chunks)], dtype=np.int64)
        lengths = [np.diff(offsets) for offsets in self._offsets]
        self.lengths: np.ndarray = (  # (rows,) int64: codes in each stream
            np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, np.int64)
        )

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], split: str = "train", codec: CodecInfo | None = None
    ) -> "TokenDataset":
        """Open a split of the dataset at a directory, or a single Parquet file that `codec-slm encode` wrote.

        `codec` is the one that the codes shall be used with. Raises UserError when there is no whole token
        dataset, no such split, or one of another codec.
        """
        path = Path(path)
        opened = cls._of_file(path) if path.is_file() else cls._of_directory(path, split)
        if codec is not None:
            codec.check_same(opened.info, what=str(path))
        return opened

    @classmethod
    def _of_directory(cls, path: Path, split: str) -> "TokenDataset":
        metadata = read_metadata(path)
        splits = list(metadata["splits"])
        if split not in splits:
            raise UserError(f"{path}: has no split {split!r}, only {', '.join(splits)}")
        missing = missing_files(path, TokenDirectory.shard_names(metadata))
        if missing:
            raise UserError(
                f"{path}: {len(missing)} shards are missing ({missing[0]} first): run codec-slm tokenize again"
            )
        if metadata["splits"][split]["rows"] == 0:
            raise UserError(
                f"{path}: its {split} split has no rows: failures.jsonl says why each recording failed"
            )
        table = _mapped_table(path, f"{split}-*-of-{metadata['splits'][split]['shards']:05d}.parquet")
        expected = metadata["splits"][split]["rows"]
        if len(table) != expected:
            raise UserError(f"{path}: the {split} split has {len(table)} rows, metadata.json says {expected}")
        return cls(str(path), table, CodecInfo.from_dict(metadata["codec"]), split, splits, metadata)

    @classmethod
    def _of_file(cls, path: Path) -> "TokenDataset":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a Parquet file ({first_line(error)})") from None
        return cls(str(path), table, codec_of_schema(table.schema, str(path)), "train", ["train"], {})

    def __len__(self) -> int:
        return len(self.lengths)

    def codes(self, index: int) -> np.ndarray:
        """The stream of a row, (frames * num_quantizers,) uint16, frame-major: a view, not to be written
        to.
        """
        chunk, row = self._place(index)
        offsets = self._offsets[chunk]
        return self._values[chunk][offsets[row] : offsets[row + 1]]

    def id(self, index: int) -> str:
        return self._cell("id", index)

    def text(self, index: int) -> str | None:
        return self._cell("text", index)

    def speaker(self, index: int) -> str | None:
        return self._cell("speaker", index)

    def speaker_numbers(self) -> tuple[np.ndarray, list[str]]:
        """Number of each row's speaker, (rows,) int32, -1 for none; and the names by number."""
        encoded = self._table.column("speaker").dictionary_encode().unify_dictionaries()
        if not encoded.num_chunks:
            return np.zeros(0, dtype=np.int32), []
        numbers = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
        return np.concatenate(numbers).astype(np.int32), encoded.chunk(0).dictionary.to_pylist()

    def language(self, index: int) -> str | None:
        return self._cell("language", index)

    def seconds(self, index: int) -> float:
        """Length of the audio that was encoded."""
        return self._cell("seconds", index)

    def words(self, index: int) -> list[Word] | None:
        """Words and when they are spoken, in seconds; a word that could not be placed has no times."""
        words = self._cell("words", index)
        return None if words is None else [Word(w["word"], w["start"], w["end"]) for w in words]

    @property
    def content_hash(self) -> str:
        """16 hex digits that name what is in the dataset (all splits)."""
        if self.metadata:
            return self.metadata["content_hash"]
        return hashlib.sha256(Path(self.name).read_bytes()).hexdigest()[:16]

    def _cell(self, column: str, index: int) -> Any:
        chunk, row = self._place(index)
        return self._table.column(column).chunk(chunk)[row].as_py()

    def _place(self, index: int) -> tuple[int, int]:
        """Chunk, and row within it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has rows 0 to {len(self) - 1}, not {index}")
        chunk = int(np.searchsorted(self._first, index, side="right")) - 1
        return chunk, index - int(self._first[chunk])


def read_metadata(path: Path) -> dict[str, Any]:
    """`metadata.json` of a whole token dataset. Raises UserError that says what is there instead."""
    if not path.exists():
        raise UserError(f"{path}: no such directory")
    file = path / METADATA
    if not file.is_file():
        if (path / HEADERS).is_file():
            raise UserError(
                f"{path}: this token dataset is not whole yet: run its codec-slm tokenize command again"
            )
        raise UserError(f"{path}: not a token dataset (no metadata.json): make one with codec-slm tokenize")
    metadata = read_json(file)
    if not {"codec", "splits", "content_hash"} <= metadata.keys():
        raise UserError(f"{file}: not the metadata of a token dataset")
    return metadata


def _mapped_table(path: Path, pattern: str) -> "pa.Table":
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(
            "parquet", data_files={"train": f"{escape(str(path.resolve()))}/{pattern}"}, split="train"
        )
    finally:
        if bars:
            datasets.enable_progress_bars()
    return dataset.data.table
