"""The dataset card: what `load_dataset` reads, and what a person reads."""

from collections.abc import Mapping
from typing import Any

import yaml

from codec import CodecInfo

_COLUMNS = """\
| column | type | |
| --- | --- | --- |
| `id` | string | unique |
| `codes` | list of uint16 | the stream: {quantizers} a frame, frame after frame |
| `text`, `speaker`, `language` | string or null | |
| `words` | list of {{word, start, end}} or null | seconds; null for a word that could not be placed |
| `seconds` | float32 | of audio |"""


def dataset_card(metadata: Mapping[str, Any]) -> str:
    """README.md from `metadata.json`; the header tells Hugging Face which file belongs to which split."""
    codec = CodecInfo.from_dict(metadata["codec"])
    name = metadata["corpus"]["name"]
    header: dict[str, Any] = {
        "configs": [
            {
                "config_name": "default",
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

{about}{_COLUMNS.format(quantizers=quantizers)}

```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/directory")
```

The codes mean something only to the codec of that fingerprint. `codec-slm inspect DIRECTORY --row 0
--audio out.wav` shows a row and decodes it. Everything that was set is in `metadata.json`; recordings that
could not be read, and why, are in `failures.jsonl`.
"""
