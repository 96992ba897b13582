"""The files of a token dataset: Parquet shards of rows, `metadata.json`, and the dataset card.

DIR/train-00000-of-00008.parquet    a shard
DIR/.train-00000-of-00008.json      what `metadata.json` needs to know of it: counts, hash, failures
DIR/.begun.json                     the identity of the run that makes it
DIR/.manifest-1f0c…/                what the corpus lists, and the lengths of its recordings (`data.corpora.scanned`)
DIR/failures.jsonl, README.md       written when all shards are there
DIR/metadata.json                   written last
DIR/data/                           links to the shards and nothing else, for `pandas.read_parquet("DIR/data")`

The hidden files are removed when the dataset is whole.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

from codec import CodecInfo
from codec.foundation import UserError, write_json
from data.corpora.utterance import Word, words_column
from data.sharded_directory import (
    FORMAT_VERSION,
    WORDS_TYPE,
    Contents,
    Shard,
    ShardedDirectory,
    read_json,
)

# In the Parquet file's own metadata, so that a shard alone says what its codes mean. pandas hands its `attrs` on to
# what it writes, `datasets` the features of columns, whose `id` is for whatever one likes.
_CODEC_KEY, _PANDAS_KEY, _DATASETS_KEY = b"codec", b"PANDAS_ATTRS", b"huggingface"
BEGUN = ".begun.json"
_FORMER = ".headers.safetensors"  # which earlier versions had for it, with the lengths of the recordings
DATA = "data"  # a folder with links to the Parquet files alone: some tools read directories of nothing else
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One utterance as tokens."""

    id: str
    codes: np.ndarray  # (frames * num_quantizers,) uint16, frame-major
    seconds: float  # of the audio that was encoded
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    words: Sequence[Word] | None = None
    voice: np.ndarray | None = None  # (voice_dim,) of who speaks, by a codec with a voice vector


def token_schema(info: CodecInfo) -> pa.Schema:
    """The columns of a shard. Types are explicit: a column of nulls in one shard has the type of the next shard's."""
    codec = json.dumps(info.to_dict(), sort_keys=True)
    voice = [pa.field("voice", pa.list_(pa.float16()))] if info.voice_dim else []
    feature = {"dtype": "string", "id": codec, "_type": "Value"}
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("codes", pa.list_(pa.uint16())),
            pa.field("text", pa.string()),
            pa.field("speaker", pa.string()),
            pa.field("language", pa.string()),
            pa.field("words", WORDS_TYPE),
            pa.field("seconds", pa.float32()),
            *voice,
        ],
        metadata={
            _CODEC_KEY: codec,
            _PANDAS_KEY: json.dumps({"codec": codec}),
            _DATASETS_KEY: json.dumps({"info": {"features": {"id": feature}}}),
        },
    )


def parquet_bytes(rows: Sequence[TokenRow], info: CodecInfo) -> bytes:
    """The rows as a Parquet file; the same rows give the same bytes."""
    schema = token_schema(info)
    offsets = np.cumsum([0, *(len(row.codes) for row in rows)], dtype=np.int64)
    if offsets[-1] >= 2**31:
        raise UserError(
            f"a shard of {offsets[-1]:,} codes is too large for Parquet lists: ask for more shards"
        )
    values = np.concatenate([row.codes for row in rows]) if rows else np.zeros(0, np.uint16)
    columns = {
        "id": [row.id for row in rows],
        "codes": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.uint16())),
        "text": [row.text for row in rows],
        "speaker": [row.speaker for row in rows],
        "language": [row.language for row in rows],
        "words": words_column([row.words for row in rows]),
        "seconds": np.array([row.seconds for row in rows], dtype=np.float32),
    }
    if info.voice_dim:
        columns["voice"] = [None if row.voice is None else row.voice.astype(np.float16) for row in rows]
    table = pa.table(columns, schema=schema)
    sink = pa.BufferOutputStream()
    # The dictionary of at most a few thousand codes packs a code into as many bits as it has.
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        if rows:  # `datasets` stumbles over a group of no rows, not over no group
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
    return sink.getvalue().to_pybytes()


def codec_of_schema(schema: pa.Schema) -> CodecInfo | None:
    """The codec that a Parquet file's codes belong to; None where the file does not say."""
    about = schema.metadata or {}
    features = json.loads(about.get(_DATASETS_KEY, b"{}")).get("info", {}).get("features", {})
    for codec in (
        about.get(_CODEC_KEY),
        json.loads(about.get(_PANDAS_KEY, b"{}")).get("codec"),
        features.get("id", {}).get("id"),
    ):
        if codec is not None:
            return CodecInfo.from_dict(json.loads(codec))
    return None


def has_begun(directory: Path) -> bool:
    """Whether a token dataset was begun there and is not whole yet."""
    return any((directory / name).is_file() for name in (BEGUN, _FORMER))


class TokenDirectory(ShardedDirectory):
    """The directory of one token dataset; its identity has the keys codec, corpus and options."""

    kind = "token dataset"
    has_notes = True
    temporary = (BEGUN, _FORMER, ".manifest-*")

    def begin(self) -> None:
        """Say in the directory what is being made there."""
        write_json(self.path / BEGUN, self.identity)

    def begun_identity(self) -> dict[str, Any] | None:
        if (self.path / BEGUN).exists():
            return read_json(self.path / BEGUN)
        if (self.path / _FORMER).exists():
            with safe_open(self.path / _FORMER, framework="np") as file:
                return json.loads((file.metadata() or {})["identity"])
        for foreign in sorted(self.path.glob("*.parquet"))[:1]:
            if not self.notes_file(foreign.name).exists():
                raise UserError(
                    f"{foreign}: is not of this run; give another --output, or an empty directory"
                )
        return None

    def write_rows(
        self, shard: Shard, rows: Sequence[TokenRow], failures: Sequence[Mapping[str, str]]
    ) -> None:
        """Write a shard; `failures` are of recordings that could not be read: id and reason."""
        codec = CodecInfo.from_dict(self.identity["codec"])
        content = parquet_bytes(rows, codec)
        notes = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "rows": len(rows),
            "frames": sum(len(row.codes) for row in rows) // codec.num_quantizers,
            "seconds": sum(row.seconds for row in rows),
            "usage": [counts.tolist() for counts in _usage(rows, codec)],
            "failures": list(failures),
        }
        self.write_shard(shard, content, notes)

    def contents(self, shards: Sequence[Shard]) -> Contents:
        notes = [read_json(self.notes_file(shard.file_name)) for shard in shards]
        metadata = _summary(self.path, self.identity, shards, notes)
        failures = [failure for of_shard in notes for failure in of_shard["failures"]]
        return Contents(metadata, failures, {"README.md": dataset_card(metadata)})

    def finish(self, shards: Sequence[Shard]) -> bool:
        """As of every such directory; then link the shards into a folder of their own, where links are known."""
        whole = super().finish(shards)
        if whole:
            with suppress(OSError):
                (self.path / DATA).mkdir(exist_ok=True)
            for name in self.shard_names(self.metadata()):
                with suppress(OSError):
                    (self.path / DATA / name).symlink_to(Path("..", name))
        return whole

    @staticmethod
    def shard_names(metadata: Mapping[str, Any]) -> list[str]:
        return [
            Shard(split, number, counts["shards"], 0, 0).file_name
            for split, counts in metadata["splits"].items()
            for number in range(counts["shards"])
        ]

    @staticmethod
    def count_tried(metadata: Mapping[str, Any]) -> int:
        return metadata["rows"] + metadata["failures"]


def _usage(rows: Sequence[TokenRow], codec: CodecInfo) -> list[np.ndarray]:
    """How often each code of each quantizer occurs."""
    counts = [np.zeros(size, dtype=np.int64) for size in codec.codebook_sizes]
    for row in rows:
        for quantizer, count in enumerate(counts):
            count += np.bincount(row.codes[quantizer :: codec.num_quantizers], minlength=len(count))
    return counts


def _summary(
    path: Path, identity: Mapping[str, Any], shards: Sequence[Shard], notes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`metadata.json`: a function of the corpus, the codec and the options."""
    codec = CodecInfo.from_dict(identity["codec"])
    splits: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        own = [of_shard for shard, of_shard in zip(shards, notes, strict=True) if shard.split == split]
        usage = [np.sum([one["usage"][q] for one in own], axis=0) for q in range(codec.num_quantizers)]
        splits[split] = {
            "shards": len(own),
            "bytes": sum((path / shard.file_name).stat().st_size for shard in shards if shard.split == split),
            "rows": sum(one["rows"] for one in own),
            "frames": sum(one["frames"] for one in own),
            "seconds": round(sum(one["seconds"] for one in own), 3),
            "failures": sum(len(one["failures"]) for one in own),
            "codes_in_use": [int(np.count_nonzero(counts)) for counts in usage],
            "codebook_perplexity": [round(_perplexity(counts), 2) for counts in usage],
        }
    digest = hashlib.sha256("".join(one["sha256"] for one in notes).encode())
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


_COLUMNS = """\
| column | type | |
| --- | --- | --- |
| `id` | string | unique |
| `codes` | list of uint16 | the stream: {quantizers} a frame, frame after frame |
| `text`, `speaker`, `language` | string or null | |
| `words` | list of {{word, start, end}} or null | seconds; null for a word that could not be placed |
| `seconds` | float32 | of audio |"""
_VOICE_COLUMN = """
| `voice` | list of float16 | {numbers} numbers that say who speaks |"""


def dataset_card(metadata: Mapping[str, Any]) -> str:
    """README.md from `metadata.json`; the header tells Hugging Face which file belongs to which split."""
    codec = CodecInfo.from_dict(metadata["codec"])
    name = metadata["corpus"]["name"]
    header: dict[str, Any] = {
        "configs": [
            {
                "config_name": "default",
                # `datasets` would else take another directory of this name and these splits from its cache.
                "description": f"content {metadata['content_hash']}",
                "data_files": [
                    {"split": split, "path": f"{split}-*.parquet"} for split in metadata["splits"]
                ],
            }
        ],
        "task_categories": ["text-to-speech", "automatic-speech-recognition"],
        "tags": ["speech-tokens", "codec-slm"],
    }
    if metadata["licence"]:
        header["license"] = metadata["licence"]
    quantizers = "one code" if codec.num_quantizers == 1 else f"{codec.num_quantizers} codes"
    columns = _COLUMNS.format(quantizers=quantizers)
    if codec.voice_dim:
        columns += _VOICE_COLUMN.format(numbers=codec.voice_dim)
    codebooks = " + ".join(map(str, codec.codebook_sizes))
    window = (
        f", in windows of {codec.chunk_seconds:g} s with {codec.overlap_seconds:g} s of context"
        if codec.chunk_seconds is not None
        else ""
    )
    splits = "\n".join(
        f"| {split} | {counts['rows']:,} | {counts['seconds'] / 3600:,.2f} | {counts['frames']:,} | "
        f"{', '.join(map(str, counts['codes_in_use']))} | {counts['failures']:,} |"
        for split, counts in metadata["splits"].items()
    )
    about = "".join(
        f"{title}: {metadata[key]}\n\n"
        for title, key in (("Source of the recordings", "source"), ("Licence", "licence"))
        if metadata[key]
    )
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# {name}: speech as tokens

The recordings of `{name}`, encoded by `{codec.name}` (fingerprint `{codec.fingerprint}`) at
{codec.frame_rate:g} frames a second, {quantizers} a frame from {codebooks}, in {metadata["precision"]}{window}.

| split | rows | hours | frames | codes in use | failures |
| --- | --- | --- | --- | --- | --- |
{splits}

{about}{columns}

```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/directory")
```

pandas and polars read `path/to/this/directory/data`. What `datasets` or pandas write names the codec again, and so is a
token dataset; beside what other tools write, put a copy of `metadata.json`.

The codes mean something only to the codec of that fingerprint. `codec-slm inspect DIRECTORY --row 0
--audio out.wav` shows a row and decodes it. Everything that was set is in `metadata.json`; recordings that
could not be read, and why, are in `failures.jsonl`.
"""
