"""A token dataset that lies elsewhere, on the hub or in object storage, read shard by shard."""

import json
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec import CodecInfo
from codec.foundation import UserError, first_line, remove_leftovers
from data.sharded_directory import METADATA
from data.token_dataset import TokenDataset

if TYPE_CHECKING:
    import fsspec
    import pyarrow as pa


class TokenStream:
    """A token dataset behind an address such as `hf://datasets/user/name`, `s3://bucket/name` or `file:///name`.

    Of its shards only those that are in use lie on the disk, as files that all processes of a machine map into
    memory.

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

    def open(self, split: str, numbers: "list[int] | range | None" = None) -> TokenDataset:
        """Some shards of a split, or all of them, as one dataset; fetches what is not there yet.

        Raises UserError when a shard cannot be read.
        """
        import pyarrow as pa

        count = self.shards(split)
        tables = [self._table(f"{split}-{number:05d}-of-{count:05d}") for number in numbers or range(count)]
        return TokenDataset(self.name, pa.concat_tables(tables), self.info, split, self.splits, self.metadata)

    def forget(self, split: str, kept: "set[int]") -> None:
        """Remove the files of shards that are no longer used; who still maps one goes on reading it."""
        count = self.shards(split)
        keep = {f"{split}-{number:05d}-of-{count:05d}.arrow" for number in kept}
        for file in self._directory.glob(f"{split}-*-of-{count:05d}.arrow"):
            if file.name not in keep:
                file.unlink(missing_ok=True)
        remove_leftovers(self._directory, older_than_seconds=3600)

    @cached_property
    def _directory(self) -> Path:
        address = blake2b(f"{self.name} {self.content_hash}".encode(), digest_size=16).hexdigest()
        return self._cache / address

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.metadata["splits"]:
            raise UserError(f"{self.name}: has no split {split!r}, only {', '.join(self.splits)}")
        return self.metadata["splits"][split]

    def _table(self, shard: str) -> "pa.Table":
        import pyarrow as pa
        from filelock import FileLock

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
        import pyarrow as pa
        import pyarrow.parquet as pq

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
    """Whether a path names something that is not on the disk, or is to be read as if it were not (`file://`)."""
    return "://" in path


def _file_system(address: str) -> "tuple[fsspec.AbstractFileSystem, str]":
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address}: {first_line(error)}") from None
