"""Adapters by the `model_type` of a `config.json`."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from codec.adapters.base import CodecAdapter
from codec.adapters.dac import DacAdapter
from codec.adapters.encodec import EncodecAdapter
from codec.adapters.mimi import MimiAdapter
from codec.adapters.xcodec2 import XCodec2Adapter
from codec.foundation import UserError
from codec.foundation.quiet import quiet_transformers

_ADAPTERS: tuple[type[CodecAdapter], ...] = (MimiAdapter, EncodecAdapter, DacAdapter, XCodec2Adapter)
ADAPTERS: dict[str, type[CodecAdapter]] = {adapter.model_type: adapter for adapter in _ADAPTERS}


def adapt(model: PreTrainedModel, name: str, num_quantizers: int | None = None) -> CodecAdapter:
    """Put the adapter around a model of `transformers`; `num_quantizers` of its first are used, all unless given.

    Raises UserError for a model that has no adapter or cannot have one.
    """
    kind = model.config.model_type
    if kind not in ADAPTERS:
        raise UserError(f"{name} is of type {kind!r}: there are adapters for {', '.join(sorted(ADAPTERS))}")
    return ADAPTERS[kind](model, name, num_quantizers)


def read_adapter(source: str | Path, num_quantizers: int | None = None) -> CodecAdapter:
    """Read a codec of `transformers` from a directory or the hub, in float32 whatever it is stored in.

    It is called as its directory is, or by its hub id. Raises UserError where weights are missing or of other shapes,
    OSError or ValueError as `transformers` does.
    """
    from transformers import AutoModel

    with quiet_transformers():
        model, report = AutoModel.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    for trouble in ("missing_keys", "mismatched_keys"):
        if report[trouble]:
            first = min(entry if isinstance(entry, str) else entry[0] for entry in report[trouble])
            raise UserError(
                f"the weights in {source} do not fit its config.json: {trouble.replace('_', ' ')} {first}"
            )
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return adapt(model, name, num_quantizers)
