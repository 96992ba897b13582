"""The directory that a token dataset grows in: what is there, what is whole, and when all of it is.

DIR/train-00000-of-00008.parquet        a shard
DIR/.train-00000-of-00008.json          what is known of it, until the whole is finished: counts, hash,
failures DIR/.headers.safetensors                lengths of the recordings, likewise DIR/failures.jsonl,
README.md           written when all shards are there DIR/metadata.json                       written last:
its presence says that the dataset is whole
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codec import CodecInfo
from codec.foundation import UserError, remove_leftovers, write_bytes, write_json, write_text
from data.tokenization.card import dataset_card
from data.tokenization.headers import HEADERS, stored_identity
from data.tokenization.plan import Shard

METADATA = "metadata.json"
FAILURES = "failures.jsonl"
FORMAT_VERSION = 1


class TokenDirectory:
    """Reads and writes the files of one token dataset; safe for several processes at once."""

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.identity = identity

    def prepare(self) -> bool:
        """Make the directory, check that what is there belongs to this run; True if it is whole already.

        Raises UserError that names what differs, or when foreign Parquet files are there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; the output must be a directory")
        self.path.mkdir(parents=True, exist_ok=True)
        there = self._identity_there()
        if there is None:
            foreign = next(iter(sorted(self.path.glob("*.parquet"))), None)
            if foreign is not None and not self._side(foreign.name).exists():
                raise UserError(
                    f"{foreign}: is not of this run; give another --output, or an empty directory"
                )
            return False
        differing = _differences(there, self.identity)
        if differing:
            raise UserError(
                f"{self.path}: was begun with another {'; '.join(differing)}: give another --output, delete "
                "that directory, or run with what it was begun with"
            )
        if not (self.path / METADATA).exists():
            return False
        metadata = self.metadata()
        if not missing_shards(self.path, metadata):
            self._clean()  # in case the process that finished it died before it had
            return True
        (self.path / METADATA).unlink(missing_ok=True)  # somebody deleted shards: begin again
        return False

    def metadata(self) -> dict[str, Any]:
        return json.loads((self.path / METADATA).read_text(encoding="utf-8"))

    def is_whole(self) -> bool:
        return (self.path / METADATA).exists()

    def has(self, shard: Shard) -> bool:
        """Whether a shard is finished, by whatever process."""
        return self.is_whole() or (
            (self.path / shard.file_name).exists() and self._side(shard.file_name).exists()
        )

    def write_shard(self, shard: Shard, content: bytes, about: Mapping[str, Any]) -> None:
        """Put a shard in its place; `about` is what `finish` needs to know of it."""
        if self.has(shard):
            return  # by another process; it is the same
        try:
            # The shard comes last: where it is, the other is.
            about = {"sha256": hashlib.sha256(content).hexdigest(), **about}
            write_json(self._side(shard.file_name), about)
            write_bytes(self.path / shard.file_name, content)
        except FileNotFoundError:
            # Another process finished the dataset meanwhile and cleaned up.
            if not self.has(shard):
                raise

    def finish(self, shards: Sequence[Shard]) -> bool:
        """Make the dataset whole if every shard is there; False if some are not. Any number of processes
        may try.
        """
        if not self.is_whole():
            if not all(self.has(shard) for shard in shards):
                return False
            try:
                self._write_metadata(shards)
            except FileNotFoundError:
                if not self.is_whole():
                    raise
        self._clean()
        return True

    def _write_metadata(self, shards: Sequence[Shard]) -> None:
        sides = [json.loads(self._side(shard.file_name).read_text(encoding="utf-8")) for shard in shards]
        failures = [failure for side in sides for failure in side["failures"]]
        metadata = _summary(self.identity, shards, sides)
        lines = "".join(json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures)
        write_text(self.path / FAILURES, lines)
        write_text(self.path / "README.md", dataset_card(metadata))
        write_json(self.path / METADATA, metadata)

    def _clean(self) -> None:
        for side in self.path.glob(".*-of-*.json"):
            side.unlink(missing_ok=True)
        (self.path / HEADERS).unlink(missing_ok=True)
        remove_leftovers(self.path)

    def _side(self, file_name: str) -> Path:
        return self.path / f".{file_name.removesuffix('.parquet')}.json"

    def _identity_there(self) -> dict[str, Any] | None:
        """What the directory was begun with, by its metadata or, before it is whole, by what was shared."""
        if (self.path / METADATA).exists():
            metadata = self.metadata()
            if metadata.get("format_version") != FORMAT_VERSION:
                raise UserError(f"{self.path / METADATA}: is not of a token dataset of this version")
            return {key: metadata[key] for key in self.identity}
        if (self.path / HEADERS).exists():
            return stored_identity(self.path / HEADERS)
        return None


def missing_shards(path: Path, metadata: Mapping[str, Any]) -> list[str]:
    """Names of the shards that `metadata.json` speaks of and that are not there."""
    names = [
        Shard(split, number, counts["shards"], 0, 0).file_name
        for split, counts in metadata["splits"].items()
        for number in range(counts["shards"])
    ]
    return [name for name in names if not (path / name).is_file()]


def _summary(
    identity: Mapping[str, Any], shards: Sequence[Shard], sides: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`metadata.json`: a function of the corpus, the codec and the options."""
    codec = CodecInfo.from_dict(identity["codec"])
    splits: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        own = [side for shard, side in zip(shards, sides, strict=True) if shard.split == split]
        usage = [np.sum([side["usage"][q] for side in own], axis=0) for q in range(codec.num_quantizers)]
        splits[split] = {
            "shards": len(own),
            "rows": sum(side["rows"] for side in own),
            "frames": sum(side["frames"] for side in own),
            "seconds": round(sum(side["seconds"] for side in own), 3),
            "failures": sum(len(side["failures"]) for side in own),
            "codes_in_use": [int(np.count_nonzero(counts)) for counts in usage],
            "codebook_perplexity": [round(_perplexity(counts), 2) for counts in usage],
        }
    digest = hashlib.sha256("".join(side["sha256"] for side in sides).encode())
    options = identity["options"]
    return {
        "format_version": FORMAT_VERSION,
        "codec": identity["codec"],
        "corpus": identity["corpus"],
        "precision": options["precision"],
        "source": options["source"],
        "licence": options["licence"],
        "rows": sum(counts["rows"] for counts in splits.values()),
        "seconds": round(sum(counts["seconds"] for counts in splits.values()), 3),
        "failures": sum(counts["failures"] for counts in splits.values()),
        "splits": splits,
        "content_hash": digest.hexdigest()[:16],
        "options": options,
    }


def _perplexity(counts: np.ndarray) -> float:
    """2 to the entropy of the codes' frequencies in bits; 0 for no codes."""
    if counts.sum() == 0:
        return 0.0
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`codec.fingerprint (there 1f…, now 2e…)` for each field that differs."""
    found = []
    for key in dict.fromkeys([*there, *now]):
        was, is_now, name = there.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            found += _differences(was, is_now, f"{name}.")
        elif was != is_now:
            found.append(f"{name} (there {was}, now {is_now})")
    return found
