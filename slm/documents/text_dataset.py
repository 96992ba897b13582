"""Texts of a Hugging Face dataset as token ids in a file: tokenized once, mapped into memory by every process."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import numpy as np

from codec.foundation import Progress, UserError, rank
from slm.array_cache import cache_root, load_or_make
from slm.documents.config import TextDatasetConfig
from slm.documents.rows import TextRows
from slm.vocabulary import Vocabulary

_VERSION = 1  # of the files
_BATCH = 1024  # texts tokenized at a time
_FILES = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def open_texts(config: TextDatasetConfig, vocabulary: Vocabulary, longest: int | None = None) -> TextRows:
    """The texts of a dataset as rows of at most `longest` tokens.

    Empty texts are skipped, and counted in the cache's `facts.json`. Raises UserError where there is no such dataset,
    split or column, or no text in it.
    """
    source = _open(config)
    if config.column not in source.columns:
        raise UserError(
            f"{config.path}: has no column {config.column!r} for column, only {', '.join(source.columns)}"
        )
    key = blake2b(digest_size=16, person=b"text tokens")
    parts = [_VERSION, source.identity, config.split, config.column, config.max_tokens, vocabulary.text_hash]
    key.update(json.dumps(parts).encode())
    cached = load_or_make(
        cache_root() / "texts" / key.hexdigest(),
        lambda directory: _tokenize(directory, source, config, vocabulary),
    )
    if not cached.facts["texts"]:
        raise UserError(f"{config.path}: its {config.split} split has no text in column {config.column}")
    return TextRows(
        config.path, cached.arrays["ids"], cached.arrays["offsets"], cached.facts["content_hash"], longest
    )


@dataclass(frozen=True)
class _Texts:
    rows: datasets.Dataset | datasets.IterableDataset
    columns: list[str]
    identity: str  # names the content

    def batches(self, column: str) -> Iterator[list[str | None]]:
        for batch in self.rows.select_columns([column]).iter(_BATCH):
            yield batch[column]  # type: ignore[index]


def _open(config: TextDatasetConfig) -> _Texts:
    path = Path(config.path)
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            saved: Any = datasets.load_from_disk(config.path)
            rows = saved[config.split] if isinstance(saved, datasets.DatasetDict) else saved
            return _Texts(rows, rows.column_names, rows._fingerprint)
        if path.is_file():
            if path.suffix.lower() not in _FILES:
                raise UserError(f"{path}: not one of {', '.join(_FILES)}; name a file of text, or a dataset")
            builder = datasets.load_dataset_builder(
                _FILES[path.suffix.lower()], data_files={config.split: str(path.resolve())}
            )
        else:
            builder = datasets.load_dataset_builder(config.path, config.name, revision=config.revision)
        # Names the files by their times or, on the hub, their commit.
        identity = str(builder.cache_dir)
        if config.streaming:
            stream: Any = builder.as_streaming_dataset(config.split)
            columns = stream.column_names or list(next(iter(stream.take(1)), {}))
            return _Texts(stream, columns, identity)
        builder.download_and_prepare()
        rows = builder.as_dataset(config.split)
        return _Texts(rows, rows.column_names, identity)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{config.path}: cannot be opened as a text dataset, split {config.split} ({reason})"
        ) from error


def _tokenize(
    directory: Path, source: _Texts, config: TextDatasetConfig, vocabulary: Vocabulary
) -> dict[str, Any]:
    dtype = np.dtype(np.uint16 if vocabulary.num_text <= 1 << 16 else np.uint32)
    sizes: list[np.ndarray] = []
    tokens = empty = 0
    digest = blake2b(digest_size=8)
    total = len(source.rows) if hasattr(source.rows, "__len__") else None
    progress = Progress(total, unit="texts", label=f"tokenize {config.path}")
    if rank() == 0:
        print(f"{config.path}: tokenizing the texts of its {config.split} split, once", file=sys.stderr)
    with open(directory / "ids.npy", "wb") as file:
        header = _write_header(file, dtype, 0)
        for batch in source.batches(config.column):
            encoded = [ids for ids in vocabulary.encode_texts([text or "" for text in batch]) if len(ids)]
            empty += len(batch) - len(encoded)
            lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
            if config.max_tokens is not None:
                fit = int(np.searchsorted(np.cumsum(lengths), config.max_tokens - tokens, side="right"))
                encoded, lengths, full = encoded[:fit], lengths[:fit], fit < len(lengths)
            else:
                full = False
            if encoded:
                content = np.concatenate(encoded).astype(dtype).tobytes()
                file.write(content)
                digest.update(content + lengths.tobytes())
                sizes.append(lengths)
                tokens += int(lengths.sum())
            progress.update(len(batch))
            if full:
                break
        file.seek(0)
        if _write_header(file, dtype, tokens) != header:
            raise RuntimeError("numpy wrote headers of two sizes")  # it leaves room for any length
    progress.close()
    offsets = np.concatenate([[0], *sizes]).cumsum(dtype=np.int64)
    np.save(directory / "offsets.npy", offsets)
    return {
        "path": config.path,
        "split": config.split,
        "column": config.column,
        "texts": len(offsets) - 1,
        "empty_texts": empty,
        "tokens": tokens,
        "content_hash": digest.hexdigest(),
    }


def _write_header(file: BinaryIO, dtype: np.dtype, size: int) -> int:
    """The header of an .npy file of (size,) numbers; returns where the numbers begin."""
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, description)
    return file.tell()
