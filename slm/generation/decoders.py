"""How generation reads a model: some more tokens, logits for the next one, a selection of rows.

There are two decoders: one for any causal model of `transformers`, through its own forward pass, and a faster one for
the Llama and Qwen architectures.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

_FIRST_ROOM = 256  # tokens
_FUSED_MODELS = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotary embeddings whose angles do not depend on the length of the sequence.
_FIXED_ROPES = ("default", "linear", "llama3", "yarn")


class Reading(Protocol):
    """A batch of rows being read, all of them the same number of tokens far."""

    position: int  # tokens read so far

    def read(self, ids: Tensor, token_range: range) -> Tensor:
        """Read (rows, tokens) int64 more; logits for the token after them, (rows, len(token_range)) float32.

        Only the tokens of `token_range` are of interest.
        """
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (int64 indices, repeats allowed), in this order."""
        ...


class Decoder(Protocol):
    """A model as generation sees it."""

    longest: int  # tokens it can read

    def start(self) -> Reading:
        """Begin to read."""
        ...


class TransformersDecoder:
    """Any causal LM of `transformers`, through its own forward pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.longest: int = model.config.max_position_embeddings

    def start(self) -> "TransformersReading":
        """Begin to read."""
        return TransformersReading(self.model)


class TransformersReading:
    """Rows read by a model's forward pass into a growing cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.cache, self.position = model, growing_cache(), 0

    def read(self, ids: Tensor, token_range: range) -> Tensor:
        """(rows, tokens) -> (rows, len(token_range)) float32."""
        positions = torch.arange(self.position, self.position + ids.shape[1], device=ids.device)[None]
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.position += ids.shape[1]
        return output.logits[:, -1, token_range.start : token_range.stop].float()

    def select(self, rows: Tensor) -> None:
        """Go on with these rows."""
        select_rows(self.cache, rows)


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views of buffers that double when they are full.

    transformers' own layer concatenates: every step copies all keys and values of all layers. Its static layer
    copies nothing but attends to its whole length, used or not.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, tokens, dim) and return everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        past = self.get_seq_length()
        total = past + key_states.shape[2]
        if not self._has_room(total):
            self._key_room = self._grown(self.keys, key_states, total)
            self._value_room = self._grown(self.values, value_states, total)
        self._key_room[:, :, past:total] = key_states
        self._value_room[:, :, past:total] = value_states
        self.keys = self._key_room[:, :, :total]
        self.values = self._value_room[:, :, :total]
        return self.keys, self.values

    def _has_room(self, total: int) -> bool:
        # Rows that were selected or repeated since live in memory of their own.
        room = getattr(self, "_key_room", None)
        if room is None or self.keys is None:
            return False
        return room.data_ptr() == self.keys.data_ptr() and room.shape[2] >= total

    @staticmethod
    def _grown(held: Tensor | None, new: Tensor, total: int) -> Tensor:
        batch, heads, _, dim = new.shape
        room = new.new_empty(batch, heads, max(_FIRST_ROOM, 2 * total), dim)
        if held is not None and held.numel():
            room[:, :, : held.shape[2]] = held
        return room


def growing_cache() -> Cache:
    """An empty cache for a model whose layers all attend to everything before."""
    return Cache(layer_class_to_replicate=GrowingLayer)


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Keep these rows of the batch (int64 indices, repeats allowed), in this order."""
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.batch_select_indices(rows)


@dataclass(frozen=True)
class _Projection:
    """One matrix product for one or several linear layers."""

    weight: Tensor  # (out, in)
    bias: Tensor | None  # (out,)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` and the projection of `x`, (positions, dim) each."""
        if self.bias is not None:
            return residual + F.linear(x, self.weight, self.bias)
        return torch.addmm(residual, x, self.weight.t())


class _Norm:
    """Root mean square norm.

    torch has no CPU kernel for it. In float32 on a CPU it is x w sqrt(d) / sqrt(|x|^2 + d eps), in four calls, twice as
    fast.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight  # (dim,)
        size = weight.shape[0]
        own = weight.device.type == "cpu" and weight.dtype == torch.float32
        self.scaled = weight.detach() * size**0.5 if own else None
        self.floor = torch.tensor((size * eps) ** 0.5)


@dataclass(frozen=True)
class _Layer:
    attention_norm: _Norm
    query_key_value: _Projection
    query_norm: _Norm | None  # Qwen3 has them
    key_norm: _Norm | None
    attention_out: _Projection
    mlp_norm: _Norm
    gate_up: _Projection
    mlp_out: _Projection


class FusedDecoder:
    """A model of the Llama or Qwen architectures, read without the overhead of `transformers`.

    It computes what the model's own forward pass computes, but for rounding. One token of a small model is a few dozen
    small matrix products. In `transformers` the calls around them (modules, hooks, cache objects, masks, one product
    for each projection) take most of the time. Here a layer is a dozen calls: query, key and value are one product,
    gate and up another, and keys and values are written in place.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Joins layers that read the same input; the model's parameters become views of what they were joined to."""
        config: Any = model.config
        base: Any = model.base_model
        self.longest: int = config.max_position_embeddings
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = base.layers[0].self_attn.head_dim
        self.scaling: float = base.layers[0].self_attn.scaling
        self.eps: float = config.rms_norm_eps
        self.rotary: nn.Module = base.rotary_emb
        self.layers = [
            _Layer(
                attention_norm=_Norm(layer.input_layernorm.weight, self.eps),
                query_key_value=_join(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                query_norm=_norm_of(layer.self_attn, "q_norm", self.eps),
                key_norm=_norm_of(layer.self_attn, "k_norm", self.eps),
                attention_out=_join(layer.self_attn.o_proj),
                mlp_norm=_Norm(layer.post_attention_layernorm.weight, self.eps),
                gate_up=_join(layer.mlp.gate_proj, layer.mlp.up_proj),
                mlp_out=_join(layer.mlp.down_proj),
            )
            for layer in base.layers
        ]
        self.norm = _Norm(base.norm.weight, self.eps)
        head: Any = model.get_output_embeddings()
        self.head = _join(head)
        if config.tie_word_embeddings:
            base.embed_tokens.weight = head.weight
        self.embedding: Tensor = base.embed_tokens.weight
        model.register_state_dict_post_hook(_with_memory_of_their_own)

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether the model is one of these, with nothing added: no adapters, no quantization, no sliding window."""
        if type(model).__name__ not in _FUSED_MODELS:
            return False
        config: Any = model.config
        rope = config.rope_parameters or {}
        attends_to_all = {*(getattr(config, "layer_types", None) or ["full_attention"])} == {"full_attention"}
        plain = all(
            type(module) is nn.Linear and module.weight.is_floating_point()
            for name, module in model.named_modules()
            if name.endswith(("_proj", "lm_head"))
        )
        return (
            attends_to_all
            and plain
            and config.hidden_act == "silu"
            and rope.get("rope_type", "default") in _FIXED_ROPES
            and rope.get("partial_rotary_factor", 1.0) == 1.0
            and len({parameter.dtype for parameter in model.parameters()}) == 1
        )

    def start(self) -> "FusedReading":
        """Begin to read."""
        return FusedReading(self)


class FusedReading:
    """Rows read by a `FusedDecoder`: keys and values of all layers, in buffers that double when they are full."""

    def __init__(self, decoder: FusedDecoder) -> None:
        self.decoder = decoder
        self.position = self.room = 0
        # of each layer, (rows, kv_heads, room, head_dim)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def select(self, rows: Tensor) -> None:
        """Go on with these rows."""
        self.keys = [keys.index_select(0, rows) for keys in self.keys]
        self.values = [values.index_select(0, rows) for values in self.values]

    def read(self, ids: Tensor, token_range: range) -> Tensor:
        """(rows, tokens) -> (rows, len(token_range)) float32."""
        decoder = self.decoder
        rows, tokens = ids.shape
        start, end = self.position, self.position + tokens
        x = F.embedding(ids.flatten(), decoder.embedding)  # (rows * tokens, dim)
        if end > self.room:
            self._grow(x, rows, end)
        # (tokens, 1, head_dim): the same for all heads
        cosine, sine = self.cosine[start:end], self.sine[start:end]
        causal = None
        if tokens > 1 and start:
            causal = torch.ones(tokens, end, dtype=torch.bool, device=ids.device).tril(start)
        for layer, keys, values in zip(decoder.layers, self.keys, self.values, strict=True):
            projected = layer.query_key_value(self._norm(x, layer.attention_norm))
            heads = projected.view(rows, tokens, -1, decoder.head_dim)
            query_key, value = heads.split([decoder.heads + decoder.kv_heads, decoder.kv_heads], dim=2)
            if layer.query_norm is not None and layer.key_norm is not None:
                query, key = query_key.split([decoder.heads, decoder.kv_heads], dim=2)
                query_key = torch.cat(
                    [self._norm(query, layer.query_norm), self._norm(key, layer.key_norm)], dim=2
                )
            # the two halves of a head turn against each other (rotary positions, arXiv 2104.09864, section 3.4.2)
            turned = query_key.roll(decoder.head_dim // 2, -1)
            query_key = torch.addcmul(query_key * cosine, turned, sine).transpose(1, 2)
            query, key = query_key.split([decoder.heads, decoder.kv_heads], dim=1)
            keys.narrow(2, start, tokens).copy_(key)
            values.narrow(2, start, tokens).copy_(value.transpose(1, 2))
            attended = self._attend(query, keys.narrow(2, 0, end), values.narrow(2, 0, end), causal)
            x = layer.attention_out.added_to(x, attended)
            gate, up = layer.gate_up(self._norm(x, layer.mlp_norm)).chunk(2, -1)
            x = layer.mlp_out.added_to(x, F.silu(gate).mul_(up))
        self.position = end
        weight, bias = decoder.head.weight, decoder.head.bias
        return F.linear(
            self._norm(x.view(rows, tokens, -1)[:, -1], decoder.norm),
            weight[token_range.start : token_range.stop],
            None if bias is None else bias[token_range.start : token_range.stop],
        ).float()

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, causal: Tensor | None) -> Tensor:
        """(rows, heads, tokens, head_dim), keys and values (rows, kv_heads, all, head_dim) -> (positions, dim)."""
        rows, heads, tokens, head_dim = query.shape
        scale = self.decoder.scaling
        if tokens == 1:
            # the queries that share a head of keys stand side by side: nothing is repeated, nothing masked
            grouped = query.reshape(rows, keys.shape[1], -1, head_dim)
            attended = F.scaled_dot_product_attention(grouped, keys, values, scale=scale)
            return attended.reshape(rows, heads * head_dim)
        attended = F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=causal,
            is_causal=causal is None,
            scale=scale,
            enable_gqa=heads != keys.shape[1],
        )
        return attended.transpose(1, 2).reshape(rows * tokens, heads * head_dim)

    def _norm(self, x: Tensor, norm: "_Norm") -> Tensor:
        if norm.scaled is None:
            return F.rms_norm(x, norm.weight.shape, norm.weight, self.decoder.eps)
        return x * (norm.scaled / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), norm.floor))

    def _grow(self, x: Tensor, rows: int, needed: int) -> None:
        """Make room for `needed` tokens, and more."""
        decoder = self.decoder
        self.room = min(max(_FIRST_ROOM, 2 * needed), max(decoder.longest, needed))
        shape = (rows, decoder.kv_heads, self.room, decoder.head_dim)
        grown = []
        for held in (self.keys, self.values):
            rooms = [x.new_empty(shape) for _ in decoder.layers]
            for room, past in zip(rooms, held, strict=False):
                room[:, :, : self.position] = past[:, :, : self.position]
            grown.append(rooms)
        self.keys, self.values = grown
        positions = torch.arange(self.room, device=x.device)[None]
        cosine, sine = decoder.rotary(x, positions)  # (1, room, head_dim) each
        half = decoder.head_dim // 2
        self.cosine = cosine[0, :, None]
        self.sine = torch.cat([-sine[0, :, None, :half], sine[0, :, None, half:]], dim=-1)


@torch.no_grad()
def _join(*layers: nn.Linear) -> _Projection:
    """One product for several layers. Their parameters become views of its weight.

    On a CPU, a weight with more outputs than inputs is stored with the inputs' dimension first. For a single row this
    halves the time of the BLAS in torch (2,048 x 256: 124 us instead of 255).
    """
    weight = torch.cat([layer.weight for layer in layers])  # (out, in)
    if weight.device.type == "cpu" and weight.shape[0] > weight.shape[1]:
        weight = weight.t().contiguous().t()
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    start = 0
    for layer in layers:
        end = start + layer.out_features
        layer.weight = nn.Parameter(weight[start:end], requires_grad=layer.weight.requires_grad)
        if bias is not None:
            layer.bias = nn.Parameter(bias[start:end], requires_grad=layer.bias.requires_grad)
        start = end
    return _Projection(weight, bias)


def _with_memory_of_their_own(module: nn.Module, state: dict[str, Any], *_: object) -> None:
    """Copy every tensor of a state dict, so that it can be saved; tied tensors stay one tensor."""
    copies: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            place = (value.data_ptr(), value.stride())
            state[name] = copies.setdefault(place, value.clone(memory_format=torch.contiguous_format))


def _norm_of(module: nn.Module, name: str, eps: float) -> _Norm | None:
    norm: Any = getattr(module, name, None)
    return None if norm is None else _Norm(norm.weight, eps)


def decoder_for(model: PreTrainedModel) -> Decoder:
    """The fastest decoder for a model. It may lay the weights out anew; their values stay."""

    return FusedDecoder(model) if FusedDecoder.fits(model) else TransformersDecoder(model)
