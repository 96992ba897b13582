"""Reading a token dataset: from a directory, from a file, or shard by shard from where it is published."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from codec import CodecInfo
from codec.foundation import UserError, first_line, remove_leftovers
from data.corpora.utterance import Word
from data.sharded_directory import METADATA
from data.token_files import arrow_table, find_files, rows_of
from data.tokenization.directory import TokenRow, token_schema

_CODES_SHOWN = 48
_COLUMNS = ("id", "codes", "text", "speaker", "language", "words", "seconds", "voice")


class TokenDataset:
    """One split of a token dataset; `open` makes one.

    A directory is read through the memory-mapped Arrow cache that `datasets` makes of it, once for all processes of a
    machine: `open` reads no codes, and `codes(i)` copies none.
    """

    def __init__(
        self,
        name: str,
        table: pa.Table,
        info: CodecInfo,
        split: str,
        splits: list[str],
        metadata: Mapping[str, Any],
        files: Sequence[Path] = (),
    ) -> None:
        self.name, self.info, self.split, self.splits = name, info, split, splits
        # of metadata.json; empty for a single file, and for files that it does not describe
        self.metadata = metadata
        self._files = files  # of all splits
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

        `codec` is the one that will use the codes. Raises UserError when there is no whole token dataset, no such
        split, or one of another codec.
        """
        path = Path(path)
        found = find_files(path)
        splits = list(found.splits)
        if path.is_file():
            split = "train"
        if split not in splits:
            raise UserError(f"{path}: has no split {split!r}, only {', '.join(splits)}")
        if codec is not None:
            codec.check_same(found.info, what=str(path))
        files = found.splits[split]
        if path.is_dir() and not any(map(rows_of, files)):
            why = ": failures.jsonl says why each recording failed" if found.metadata else ""
            raise UserError(f"{path}: its {split} split has no rows{why}")
        try:
            if path.is_file():
                table = pq.read_table(path).combine_chunks()
            elif files[0].suffix == ".arrow":
                table = pa.concat_tables([arrow_table(file) for file in files])
            else:
                table = _mapped_table(path, files)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)})") from None
        if not found.metadata:
            table = _checked(table, found.info, str(path))
        every = [file for of_split in found.splits.values() for file in of_split]
        return cls(str(path), table, found.info, split, splits, found.metadata, every)

    def __len__(self) -> int:
        return len(self.lengths)

    def codes(self, index: int) -> np.ndarray:
        """The stream of a row, (frames * num_quantizers,) uint16, frame-major: a view that cannot be written to."""
        chunk, row = self._place(index)
        offsets = self._offsets[chunk]
        return self._values[chunk][offsets[row] : offsets[row + 1]]

    def row(self, index: int, identity: str | None = None) -> TokenRow:
        """All of a row, under another id if one is given."""
        return TokenRow(
            self.id(index) if identity is None else identity,
            self.codes(index),
            self.seconds(index),
            self.text(index),
            self.speaker(index),
            self.language(index),
            self.words(index),
            self.voice(index),
        )

    def column(self, name: str, rows: slice = slice(None)) -> list[Any]:
        """A column but `codes`, of consecutive rows, as Python's values; None where there is no such column."""
        first, stop, _ = rows.indices(len(self))
        if name not in self._table.column_names:
            return [None] * (stop - first)
        return self._table.column(name).slice(first, stop - first).to_pylist()

    def id(self, index: int) -> str:
        return self._cell("id", index)

    def text(self, index: int) -> str | None:
        return self._cell("text", index)

    def speaker(self, index: int) -> str | None:
        return self._cell("speaker", index)

    def speaker_numbers(self) -> tuple[np.ndarray, list[str]]:
        """Number of each row's speaker, (rows,) int32, -1 for none; and the names by number."""
        if "speaker" not in self._table.column_names:
            return np.full(len(self), -1, dtype=np.int32), []
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

    def voice(self, index: int) -> np.ndarray | None:
        """Who speaks, (voice_dim,) float32; None where the codec has no voice vector."""
        voice = self._cell("voice", index)
        return None if voice is None else np.array(voice, dtype=np.float32)

    def words(self, index: int) -> list[Word] | None:
        """Words and when they are spoken, in seconds; a word that could not be placed has no times."""
        words = self._cell("words", index)
        return None if words is None else [Word(w["word"], w["start"], w["end"]) for w in words]

    def word_columns(self, rows: slice) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
        """The words of consecutive rows, row after row: how many each row has, (rows,) int64; how they are written; and
        start and end, (words,) float, in seconds, NaN where not known.
        """
        first, stop, _ = rows.indices(len(self))
        if "words" not in self._table.column_names:
            return np.zeros(stop - first, dtype=np.int64), [], np.zeros(0), np.zeros(0)
        lists = self._table.column("words").slice(first, stop - first).combine_chunks()
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        words = lists.flatten()
        start, end = (
            words.field(name).to_numpy(zero_copy_only=False).astype(float) for name in ("start", "end")
        )
        return counts, words.field("word").to_pylist(), start, end

    @property
    def content_hash(self) -> str:
        """16 hex digits that name what is in the dataset (all splits)."""
        if self.metadata:
            return self.metadata["content_hash"]
        digest = hashlib.sha256()
        for file in self._files:
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _cell(self, column: str, index: int) -> Any:
        chunk, row = self._place(index)
        if column not in self._table.column_names:
            return None
        return self._table.column(column).chunk(chunk)[row].as_py()

    def _place(self, index: int) -> tuple[int, int]:
        """Chunk, and row within it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has rows 0 to {len(self) - 1}, not {index}")
        chunk = int(np.searchsorted(self._first, index, side="right")) - 1
        return chunk, index - int(self._first[chunk])


def _mapped_table(path: Path, files: Sequence[Path]) -> pa.Table:
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    named = [name for name in _COLUMNS if name in pq.read_schema(files[0]).names]
    try:
        dataset = datasets.load_dataset(
            "parquet",
            data_files={"train": [escape(str(file.resolve())) for file in files]},
            split="train",
            columns=named,
        )
    except datasets.exceptions.DatasetGenerationError as error:
        raise UserError(f"{path}: {first_line(error.__cause__ or error)}") from None
    finally:
        if bars:
            datasets.enable_progress_bars()
    return dataset.data.table


def _checked(table: pa.Table, info: CodecInfo, name: str) -> pa.Table:
    """Rows that others have written, with codes as uint16. Raises UserError for what are no codes of the codec."""
    if missing := {"id", "codes", "seconds"} - set(table.column_names):
        raise UserError(f"{name}: lacks the column {sorted(missing)[0]}")
    codes = table.column("codes")
    if codes.type not in (pa.list_(pa.uint16()), pa.large_list(pa.uint16())):
        try:
            codes = codes.cast(pa.large_list(pa.uint16()))
        except pa.ArrowException as error:
            raise UserError(f"{name}: its codes are no lists of codes ({first_line(error)})") from None
        table = table.set_column(table.column_names.index("codes"), "codes", codes)
    for chunk in codes.chunks:
        offsets = chunk.offsets.to_numpy()
        values = chunk.values.to_numpy()[offsets[0] : offsets[-1]]
        if chunk.null_count or (np.diff(offsets) % info.num_quantizers).any():
            raise UserError(f"{name}: has rows without whole frames of {info.num_quantizers} codes")
        if not len(values):
            continue
        most = values.reshape(-1, info.num_quantizers).max(axis=0)
        for quantizer, size in enumerate(info.codebook_sizes):
            if most[quantizer] >= size:
                raise UserError(
                    f"{name}: has the code {most[quantizer]}; those of {info.name}, quantizer {quantizer}, go from 0 "
                    f"to {size - 1}"
                )
    return table


class TokenStream:
    """A token dataset behind an address such as `hf://datasets/user/name`, `s3://bucket/name` or `file:///name`.

    Only the shards in use lie on the disk, as files that all processes of a machine map into memory.

    Attributes:
        name: the address.
        info: the codec.
        metadata: of metadata.json.
    """

    def __init__(self, address: str, cache: Path) -> None:
        """`cache`: directory for the shards in use.

        Raises UserError when there is no whole token dataset, or no way to read from there.
        """
        self.name, self._cache = address.rstrip("/"), cache
        self._files, self._root = _file_system(self.name)
        try:
            self.metadata: dict[str, Any] = json.loads(self._files.cat_file(f"{self._root}/{METADATA}"))
            self.info = CodecInfo.from_dict(self.metadata["codec"])
            self.splits = list(self.metadata["splits"])
            self.content_hash: str = self.metadata["content_hash"]
        except FileNotFoundError:
            raise UserError(f"{address}: not a whole token dataset (no {METADATA})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{address}: {METADATA} is not that of a token dataset ({error})") from None

    def shards(self, split: str) -> int:
        """Number of shards of a split. Raises UserError for a split that is not there."""
        return int(self._split(split)["shards"])

    def rows(self, split: str) -> int:
        """Number of rows of a split. Raises UserError for a split that is not there."""
        return int(self._split(split)["rows"])

    def open(self, split: str, numbers: Iterable[int] | None = None) -> TokenDataset:
        """Some shards of a split as one dataset, all of them unless told; fetches what is not there yet.

        Raises UserError when a shard cannot be read.
        """
        count = self.shards(split)
        numbers = range(count) if numbers is None else numbers
        tables = [self._table(f"{split}-{number:05d}-of-{count:05d}") for number in numbers]
        table = pa.concat_tables(tables) if tables else token_schema(self.info).empty_table()
        return TokenDataset(self.name, table, self.info, split, self.splits, self.metadata)

    def forget(self, split: str, kept: set[int]) -> None:
        """Remove the files of shards other than `kept`; a process that still maps one goes on reading it."""
        count = self.shards(split)
        keep = {f"{split}-{number:05d}-of-{count:05d}.arrow" for number in kept}
        for file in self._directory.glob(f"{split}-*-of-{count:05d}.arrow"):
            if file.name not in keep:
                file.unlink(missing_ok=True)
        remove_leftovers(self._directory, older_than_seconds=3600)

    @cached_property
    def _directory(self) -> Path:
        address = hashlib.blake2b(f"{self.name} {self.content_hash}".encode(), digest_size=16).hexdigest()
        return self._cache / address

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.metadata["splits"]:
            raise UserError(f"{self.name}: has no split {split!r}, only {', '.join(self.splits)}")
        return self.metadata["splits"][split]

    def _table(self, shard: str) -> pa.Table:
        path = self._directory / f"{shard}.arrow"
        for _ in range(3):  # another process may remove it before it is mapped
            if not path.exists():
                self._directory.mkdir(parents=True, exist_ok=True)
                with FileLock(self._directory / f".{shard}.lock"):
                    if not path.exists():
                        self._fetch(shard, path)
            try:
                return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except FileNotFoundError:
                continue
        raise UserError(
            f"{path}: removed by another run as soon as it is written; set CODEC_SLM_CACHE for each run"
        )

    def _fetch(self, shard: str, path: Path) -> None:
        """Copy a shard to the disk, as Arrow: Parquet cannot be mapped."""
        address = f"{self._root}/{shard}.parquet"
        try:
            with self._files.open(address, "rb") as file:
                table = pq.read_table(file).combine_chunks()
        except FileNotFoundError:
            raise UserError(f"{self.name}: its shard {shard}.parquet is missing") from None
        except (pa.ArrowException, OSError) as error:
            reason = first_line(error)
            raise UserError(f"{self.name}: its shard {shard}.parquet cannot be read ({reason})") from error
        temporary = path.with_name(f".{path.name}.{id(table):032x}.new")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        temporary.rename(path)


def is_address(path: str) -> bool:
    """Whether a path is an address to stream from (`hf://`, `s3://`, `file://`) and not a directory."""
    return "://" in path


def _file_system(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address}: {first_line(error)}") from None


def describe_row(dataset: TokenDataset, index: int) -> str:
    """A row as several lines of text: what was said, by whom, when each word is spoken, how the stream begins.

    Raises IndexError for a row that is not there.
    """
    info, stream = dataset.info, dataset.codes(index)
    frames = stream.reshape(-1, info.num_quantizers)  # (frames, num_quantizers)
    lines = [
        f"row {index} of {len(dataset):,} in {dataset.name}, {dataset.split}",
        f"id        {dataset.id(index)}",
        f"codec     {info.name} ({info.fingerprint}), {info.frame_rate:g} frames/s, "
        f"{' + '.join(map(str, info.codebook_sizes))} codes",
        f"length    {dataset.seconds(index):.2f} s, {len(frames)} frames",
    ]
    for title, value in (
        ("speaker", dataset.speaker(index)),
        ("language", dataset.language(index)),
        ("text", dataset.text(index)),
    ):
        lines.append(f"{title:<10}{value if value is not None else '-'}")
    shown = [" ".join(map(str, frame)) for frame in frames[:_CODES_SHOWN].tolist()]
    separator = " | " if info.num_quantizers > 1 else " "
    more = f" ... ({len(frames) - _CODES_SHOWN} more frames)" if len(frames) > _CODES_SHOWN else ""
    lines.append(f"codes     {separator.join(shown)}{more}")
    words = dataset.words(index)
    if words is None:
        return "\n".join([*lines, "words     -"])
    placed = sum(word.placed for word in words)
    lines.append(
        f"words     {len(words)}" + (f", {len(words) - placed} without times" if placed < len(words) else "")
    )
    return "\n".join([*lines, *(_word_line(word, info.frame_rate) for word in words)])


def _word_line(word: Word, frame_rate: float) -> str:
    if word.start is None or word.end is None:
        return f"        - unplaced -  {word.word}"
    first, last = (round(seconds * frame_rate) for seconds in (word.start, word.end))
    return f"  {word.start:7.2f} - {word.end:6.2f} s  {word.word:<16} frames {first} to {last}"
