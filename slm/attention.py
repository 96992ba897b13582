"""Causal attention within each packed document, for a CPU: cost grows with documents, not with blocks.

`transformers` keeps packed documents apart with a dense mask over the whole block, which a CPU pays for in
full: at 2,048 tokens a block this takes half the training step. Here each document is attended by itself, so
the block length costs nothing.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

PER_DOCUMENT = "per_document"


def document_lengths(position_ids: Tensor) -> list[int]:
    """Lengths of the documents of packed blocks, row after row.

    position_ids: (batch, length), from 0 in every document. A row starts a document whatever its first position.
    """
    starts = torch.ones_like(position_ids, dtype=torch.bool)  # (batch, length)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    edges = starts.flatten().nonzero().squeeze(1).tolist()
    return [end - start for start, end in zip(edges, [*edges[1:], position_ids.numel()], strict=True)]


def per_document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    documents: list[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """A `transformers` attention function; the model is called with `documents=document_lengths(position_ids)`.

    query (batch, heads, length, head_dim), key and value (batch, key-value heads, length, head_dim).
    Returns (batch, length, heads, head_dim) and no attention weights.
    """
    batch, _heads, length, _dim = query.shape
    grouped = query.shape[1] != key.shape[1]
    # (batch, heads, length, dim) -> documents of (tokens, heads, dim)
    parts = [tensor.transpose(1, 2).flatten(0, 1).split(documents) for tensor in (query, key, value)]
    attended = []
    for document in zip(*parts, strict=True):
        q, k, v = (part.transpose(0, 1)[None] for part in document)  # (1, heads, tokens, dim)
        output = F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        attended.append(output[0].transpose(0, 1))
    return torch.cat(attended).unflatten(0, (batch, length)), None


AttentionInterface.register(PER_DOCUMENT, per_document_attention)
