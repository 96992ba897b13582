"""The Parquet files of a token dataset: as `codec-slm tokenize` left them, or as somebody has filtered or joined them.

The files name their codec themselves, in the schema's metadata: under a key of ours, and where `datasets` and pandas
hand it on to what they write. What other tools write (DuckDB, polars) names none: `metadata.json` beside it does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codec import CodecInfo
from codec.foundation import UserError, first_line
from data.corpora.utterance import split_name
from data.sharded_directory import METADATA, missing_files, read_json
from data.tokenization.directory import DATA, TokenDirectory, codec_of_schema, has_begun

_SHARD = re.compile(r"(?P<split>.*)-(?P<number>\d{5})-of-(?P<of>\d{5})")


@dataclass(frozen=True)
class TokenFiles:
    """Where the rows are.

    metadata: of `metadata.json`, where it describes these very files; else empty
    """

    info: CodecInfo
    splits: Mapping[str, Sequence[Path]]
    metadata: Mapping[str, Any]


def find_files(path: Path) -> TokenFiles:
    """The files of the dataset at a directory, or a single Parquet file.

    Raises UserError that says what is there instead, what is missing, or that nothing names the codec.
    """
    if path.is_file():
        beside = {} if _schema(path)[1] else _metadata(path.parent)
        return TokenFiles(_codec([path], beside), {"train": [path]}, {})
    if not path.exists():
        raise UserError(f"{path}: no such directory")
    metadata = _metadata(path)
    if not metadata and has_begun(path):
        raise UserError(
            f"{path}: this token dataset is not whole yet: run its codec-slm tokenize command again"
        )
    if saved := _saved_files(path):
        return TokenFiles(_codec([file for files in saved.values() for file in files], metadata), saved, {})
    folder = path if _parquet_files(path) else path / DATA  # where the hub has them
    found = _parquet_files(folder)
    names = TokenDirectory.shard_names(metadata) if metadata else []
    if metadata and {file.name for file in found} <= set(names):
        if missing := missing_files(folder, names):
            raise UserError(
                f"{path}: {len(missing)} shards are missing ({missing[0]} first): run codec-slm tokenize again"
            )
        splits = {split: [f for f in found if _split(f) == split] for split in metadata["splits"]}
        if all(_as_made(splits[split], counts) for split, counts in metadata["splits"].items()):
            return TokenFiles(CodecInfo.from_dict(metadata["codec"]), splits, metadata)
    if not found:
        raise UserError(f"{path}: not a token dataset (no {METADATA}): make one with codec-slm tokenize")
    splits = {}
    for file in found:
        splits.setdefault(_split(file), []).append(file)
    for file in found:
        if numbered := _SHARD.fullmatch(file.stem):
            shards = [
                f"{numbered['split']}-{n:05d}-of-{numbered['of']}.parquet" for n in range(int(numbered["of"]))
            ]
            if missing := missing_files(folder, shards):
                raise UserError(f"{path}: {len(missing)} shards are missing ({missing[0]} first)")
    return TokenFiles(_codec(found, metadata), splits, {})


def holds_tokens(path: Path) -> bool:
    """Whether a directory or file is a token dataset, and no corpus of audio."""
    saved = [file for files in _saved_files(path).values() for file in files]
    files = (
        [path] if path.suffix == ".parquet" else saved or _parquet_files(path) or _parquet_files(path / DATA)
    )
    return (path / METADATA).is_file() or any("codes" in _schema(file)[0].names for file in files[:1])


def arrow_table(file: Path) -> pa.Table:
    """A file that `Dataset.save_to_disk` has written, mapped into memory."""
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def rows_of(file: Path) -> int:
    """Number of rows, without reading them."""
    return arrow_table(file).num_rows if file.suffix == ".arrow" else pq.read_metadata(file).num_rows


def _saved_files(path: Path) -> dict[str, list[Path]]:
    """Arrow files by split, where `save_to_disk` of `datasets` has left a Dataset or a DatasetDict; else none."""
    folders = {}
    if (path / "dataset_dict.json").is_file():
        folders = {split: path / split for split in read_json(path / "dataset_dict.json")["splits"]}
    elif (path / "state.json").is_file():
        folders = {split_name(read_json(path / "state.json").get("_split") or "") or "train": path}
    return {
        split: [folder / file["filename"] for file in read_json(folder / "state.json")["_data_files"]]
        for split, folder in folders.items()
    }


def _parquet_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]


def _metadata(path: Path) -> dict[str, Any]:
    """`metadata.json` in a directory; empty where there is none."""
    file = path / METADATA
    if not file.is_file():
        return {}
    metadata = read_json(file)
    if not {"codec", "splits", "content_hash"} <= metadata.keys():
        raise UserError(f"{file}: not the metadata of a token dataset")
    return metadata


def _split(file: Path) -> str:
    numbered = _SHARD.fullmatch(file.stem)
    name = numbered["split"] if numbered else file.stem
    return split_name(name) or (name if numbered else "train")


def _as_made(files: Sequence[Path], counts: Mapping[str, Any]) -> bool:
    """Whether the files of a split are those that `metadata.json` counts."""
    if "bytes" in counts:
        return sum(file.stat().st_size for file in files) == counts["bytes"]
    return sum(map(rows_of, files)) == counts["rows"]


def _schema(file: Path) -> tuple[pa.Schema, CodecInfo | None]:
    """What is in a file, and the codec that it names."""
    try:
        schema = arrow_table(file).schema if file.suffix == ".arrow" else pq.read_schema(file)
        return schema, codec_of_schema(schema)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = "an Arrow" if file.suffix == ".arrow" else "a Parquet"
        raise UserError(f"{file}: not {kind} file ({first_line(error)})") from None


def _codec(files: Sequence[Path], metadata: Mapping[str, Any]) -> CodecInfo:
    """The one codec of all files."""
    known = CodecInfo.from_dict(metadata["codec"]) if metadata else None
    for file in files:
        schema, named = _schema(file)
        if "codes" not in schema.names or (named is None and not metadata):
            raise UserError(
                f"{file}: not a file of speech tokens (it names no codec): make one with codec-slm encode, or copy "
                f"the {METADATA} of the dataset it comes from beside it"
            )
        if known is None:
            known = named
        elif named is not None:
            known.check_same(named, what=str(file), as_many=True)
    assert known is not None  # there is a file at least
    return known
