"""Causal attention within each packed document, for a CPU: cost grows with documents, not with blocks.

`transformers` keeps packed documents apart with a dense mask over the whole block, which a CPU pays for in full: at
2,048 tokens a block this takes half the training step. Here each document is attended by itself, so the block
length costs nothing. Utterances are short, and for those plain matrix products beat PyTorch's fused kernel, most of
all in its backward pass.
"""

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

PER_DOCUMENT = "per_document"
_LONGEST_PLAIN = 512  # tokens; above, the memory for all attention weights is not worth it


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
    position_ids: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """A `transformers` attention function for packed blocks, in training and without a cache.

    query (batch, heads, length, head_dim), key and value (batch, key-value heads, length, head_dim); position_ids
    (batch, length). Returns (batch, length, heads, head_dim) and no attention weights.
    """
    batch, heads, length, _dim = query.shape
    # Rotary embeddings leave mixed precision's queries and keys in float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if key.shape[1] != heads:  # grouped heads
        key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    documents = document_lengths(position_ids.expand(batch, length))
    # (batch, heads, length, dim) -> documents of (tokens, heads, dim)
    parts = [tensor.transpose(1, 2).flatten(0, 1).split(documents) for tensor in (query, key, value)]
    attended = []
    for document in zip(*parts, strict=True):
        q, k, v = (part.transpose(0, 1) for part in document)  # (heads, tokens, dim)
        tokens = q.shape[1]
        if tokens > _LONGEST_PLAIN:
            output = F.scaled_dot_product_attention(
                q[None], k[None], v[None], dropout_p=dropout, is_causal=True, scale=scaling
            )[0]
        else:
            mask = _causal_mask(q.dtype, q.device)[:tokens, :tokens]
            weights = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scaling).softmax(-1)
            output = torch.bmm(F.dropout(weights, dropout) if dropout else weights, v)
        attended.append(output.transpose(0, 1))
    return torch.cat(attended).unflatten(0, (batch, length)), None


@lru_cache(maxsize=4)
def _causal_mask(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to scores: -inf above the diagonal."""
    with torch.inference_mode(False):  # it is kept, and training cannot use what inference mode makes
        return torch.full((_LONGEST_PLAIN, _LONGEST_PLAIN), -math.inf, dtype=dtype, device=device).triu(1)


AttentionInterface.register(PER_DOCUMENT, per_document_attention)
