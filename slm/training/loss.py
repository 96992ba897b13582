"""A language model on packed documents: attention within each of them, and the loss, counted per modality."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from slm.models.adapters import head_bias, head_weight

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
    """A `transformers` attention function for packed blocks, in training and without a cache: causal, for a CPU.

    `transformers` keeps packed documents apart with a dense mask over the whole block, which a CPU pays for in full: at
    2,048 tokens a block this takes half the training step. Here each document is attended by itself, so the block
    length costs nothing. Utterances are short, and for those plain matrix products beat PyTorch's fused kernel, most
    of all in its backward pass.

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


MODALITIES = ("control", "text", "speech")  # as numbered in a block's `modality`
_MIB = 2**20


class PackedLanguageModel(nn.Module):
    """A causal LM that reads packed blocks and returns sums of losses.

    The loss is inside the module so that what wraps it (DDP, mixed precision) sees one forward pass, and so that
    logits are made only where a token is to be predicted.
    """

    def __init__(
        self, model: PreTrainedModel, text_bytes: Tensor, logits_mib: float = 512.0, z_loss: float = 0.0
    ) -> None:
        """text_bytes: (vocabulary,) UTF-8 bytes that each token stands for, 0 for all but text.

        logits_mib: logits that would take more than this are computed in chunks. z_loss: its weight while training.
        """
        super().__init__()
        self.model = model
        self.logits_mib, self.z_loss = logits_mib, z_loss
        # What runs: the decoder itself, or its compiled form, which shares its parameters.
        self._decoder: list[Callable[..., Any]] = [model.base_model]
        self.text_bytes: Tensor
        self.register_buffer("text_bytes", text_bytes, persistent=False)

    def compile_decoder(self) -> None:
        """Run the decoder through `torch.compile`."""
        self._decoder = [torch.compile(self.model.base_model)]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        loss_weights: Tensor,
        modality: Tensor,
    ) -> dict[str, Tensor]:
        """All (batch, length); `labels[t]` and `loss_weights[t]` are about token t itself.

        Returns `loss` (the weighted sum, with a gradient), and without one, by modality, `nats` (3,), `tokens`
        (3,), and `text_bytes`.
        """
        # attention_mask=None, restarting positions and no cache: only then does transformers keep packed
        # documents apart.
        attention = self.model.config._attn_implementation or ""
        boundaries = flash_boundaries(position_ids) if attention.startswith("flash_attention") else {}
        hidden = self._decoder[0](
            input_ids=input_ids,
            attention_mask=None,
            position_ids=position_ids,
            use_cache=False,
            **boundaries,
        ).last_hidden_state  # (batch, length, dim)
        weights = loss_weights[:, 1:].flatten()
        predicted = weights.nonzero().squeeze(1)
        weights = weights[predicted]
        targets = labels[:, 1:].flatten()[predicted]
        kinds = modality[:, 1:].flatten()[predicted].long()
        loss, nats = self._weighted_loss(hidden[:, :-1].flatten(0, 1)[predicted], targets, weights)
        zeros = torch.zeros(len(MODALITIES), dtype=nats.dtype, device=nats.device)
        return {
            "loss": loss,
            "nats": zeros.index_add(0, kinds, nats.detach()),
            "tokens": zeros.index_add(0, kinds, torch.ones_like(nats)),
            "text_bytes": self.text_bytes[targets].sum(),
        }

    def _weighted_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of cross-entropies and each of them, (predicted,), at hidden states (predicted, dim)."""
        head = self.model.get_output_embeddings()
        chunk = places_at_once(len(targets), len(self.text_bytes), hidden.dtype, self.logits_mib)
        matrix = head_weight(head) if chunk < len(targets) else None
        z_loss = self.z_loss if self.training else 0.0
        if matrix is not None:
            return weighted_cross_entropy(hidden, matrix, head_bias(head), targets, weights, chunk, z_loss)
        logits = head(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        nats = F.cross_entropy(logits, targets, reduction="none")  # (predicted,)
        losses = nats + z_loss * _log_normalizers(logits, targets, nats).square() if z_loss else nats
        return (losses * weights.to(nats.dtype)).sum(), nats


def flash_boundaries(position_ids: Tensor) -> dict[str, Any]:
    """Where the documents of packed blocks lie, as flash attention is told it.

    position_ids: (batch, length). transformers would find the boundaries of a single row by itself, in every layer,
    and none in several rows, whose documents would then leak into each other.
    """
    lengths = document_lengths(position_ids)
    edges = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=position_ids.device)
    longest = max(lengths)
    return {
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def places_at_once(places: int, vocabulary: int, dtype: torch.dtype, mib: float) -> int:
    """How many places' logits fit in `mib` MiB; at least one, at most all."""
    wide = torch.finfo(_loss_dtype(dtype)).bits // 8
    return max(1, min(places, int(mib * _MIB / (vocabulary * wide))))


def weighted_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    loss_weights: Tensor,
    chunk: int,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of cross-entropies at (places, dim) hidden states, and each of them in nats, (places,).

    `z_loss` times the squared logarithm of the softmax's denominator is added to each in the sum.

    weight (vocabulary, dim) and bias (vocabulary,) are the head's; targets and loss_weights are (places,). The sum
    has a gradient towards hidden, weight and bias, the single losses have none.

    All logits are never held at once: of 8,192 places over 150,000 tokens they take 4.6 GiB in float32, their gradient
    as much again. `chunk` places at a time go through head, softmax and both gradients, and only sums are kept. The
    result is the same up to the order of additions.
    """
    return _Chunked.apply(hidden, weight, bias, targets, loss_weights, chunk, z_loss)  # type: ignore[return-value]


class _Chunked(torch.autograd.Function):
    """Computes gradients in the forward pass, where each chunk's probabilities are known, so nothing is done twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        loss_weights: Tensor,
        chunk: int,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        # As under autocast, the head multiplies in the decoder's precision.
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        wide = _loss_dtype(dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        needs_bias = bias is not None and ctx.needs_input_grad[2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias and bias is not None else None
        nats = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        matrix = weight.to(dtype)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), chunk):
                places = slice(start, start + chunk)
                inputs, labels = hidden[places].to(dtype), targets[places]
                logits = F.linear(inputs, matrix, None if bias is None else bias.to(dtype)).to(wide)
                nats[places] = F.cross_entropy(logits, labels, reduction="none")
                weights = loss_weights[places].to(wide)
                losses = nats[places]
                if z_loss:
                    normalizers = _log_normalizers(logits, labels, losses)
                    losses = losses + z_loss * normalizers.square()
                loss += (losses * weights).sum()
                if not (needs_hidden or needs_weight or needs_bias):
                    continue
                # d loss / d logits = w (softmax (1 + 2 z log Z) - one hot), in the logits' own memory
                gradient = torch.softmax(logits, dim=-1, out=logits)
                if z_loss:
                    gradient *= 1 + 2 * z_loss * normalizers[:, None]
                gradient[torch.arange(len(labels), device=labels.device), labels] -= 1.0
                gradient *= weights[:, None]
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                narrow = gradient.to(dtype)
                if grad_hidden is not None:
                    grad_hidden[places] = narrow @ matrix
                if grad_weight is not None:
                    if grad_weight.dtype == dtype:
                        grad_weight.addmm_(narrow.T, inputs)
                    else:
                        grad_weight += narrow.T @ inputs
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.mark_non_differentiable(nats)
        return loss, nats

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if gradient is None else gradient.mul_(grad_loss) for gradient in ctx.gradients]
        del ctx.gradients
        return (*scaled, None, None, None, None)


def _log_normalizers(logits: Tensor, targets: Tensor, nats: Tensor) -> Tensor:
    """The logarithm of the softmax's denominator, (places,), from the cross-entropies."""
    return nats + logits.gather(1, targets[:, None]).squeeze(1)


def _loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass
class LossSums:
    """Losses summed over any number of blocks; sums of several processes add up."""

    weighted: float = 0.0  # nats times weight
    weight: float = 0.0
    nats: tuple[float, ...] = (0.0, 0.0, 0.0)  # by modality, every predicted token counting once
    tokens: tuple[float, ...] = (0.0, 0.0, 0.0)
    text_bytes: float = 0.0

    SIZE: ClassVar[int] = 9  # numbers in a `vector`

    @classmethod
    def of(cls, values: Tensor) -> "LossSums":
        """From `vector`s, added up over blocks and processes."""
        numbers = values.tolist()
        return cls(numbers[0], numbers[1], tuple(numbers[2:5]), tuple(numbers[5:8]), numbers[8])

    @classmethod
    def together(cls, parts: Iterable["LossSums"]) -> "LossSums":
        """The sums of several sets as one."""
        total = cls()
        for part in parts:
            total = cls(
                total.weighted + part.weighted,
                total.weight + part.weight,
                tuple(map(add, total.nats, part.nats)),
                tuple(map(add, total.tokens, part.tokens)),
                total.text_bytes + part.text_bytes,
            )
        return total

    @staticmethod
    def vector(output: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """The output of a forward pass as one tensor (9,), on its device and in the loss's dtype."""
        names = ("nats", "tokens", "text_bytes")
        parts = [output["loss"].detach(), weight, *(output[name] for name in names)]
        return torch.cat([part.reshape(-1).to(output["loss"].dtype) for part in parts])

    @property
    def loss(self) -> float:
        """The training objective: nats per unit of weight."""
        return self.weighted / self.weight if self.weight else math.nan

    def report(self, frame_rate: float, num_quantizers: int) -> dict[str, float]:
        """The objective, and each modality in units that compare across vocabularies and codecs.

        Text in bits per byte; speech in bits per token and per second of audio. Modalities without tokens are missing.
        """
        report = {"loss": self.loss}
        bits = [nats / math.log(2) for nats in self.nats]
        if self.tokens[0]:
            report["control/bits_per_token"] = bits[0] / self.tokens[0]
        if self.text_bytes:
            report["text/bits_per_byte"] = bits[1] / self.text_bytes
        if self.tokens[2]:
            per_token = bits[2] / self.tokens[2]
            report["speech/bits_per_token"] = per_token
            report["speech/bits_per_second"] = per_token * frame_rate * num_quantizers
        return report
