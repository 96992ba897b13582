"""What a call computes and moves: its arithmetic and its memory traffic."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# they make tensors without touching memory
_TOUCH_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach")


@dataclass(frozen=True)
class Work:
    """What one call takes: a lower bound of its arithmetic, and an upper bound of its memory traffic."""

    flops: float  # in matrix products, convolutions, attention and recurrent layers
    bytes: float  # that its operations read and write, each by itself: caches and fusion save of it


def count_work(call: Callable[[], object]) -> Work:
    """Run a call once and count."""
    with _Counter() as counter:
        call()
    return Work(float(counter.flops), float(counter.bytes))


class _Counter(TorchDispatchMode):
    """Adds up what operations compute, and the bytes of what they are given and of what they make; views cost nothing.

    `FlopCounterMode` of torch has the formulas, but also looks for gradients, of which inference mode has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)  # what it is made of is counted instead
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        is_view = any(
            value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns
        )
        if not is_view and func.overloadpacket.__name__ not in _TOUCH_NOTHING:
            self.bytes += sum(map(_bytes, _tensors([args, kwargs, result])))
        return result


def _tensors(values: Any) -> Iterable[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    """What is behind a tensor: an expanded one is read once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _recurrent(inputs: Tensor, weights: Iterable[Tensor]) -> int:
    """Every weight once a step; inputs (time, batch, dim) or (batch, time, dim)."""
    return 2 * inputs.shape[0] * inputs.shape[1] * sum(w.numel() for w in weights if w.ndim == 2)


def _mkldnn_rnn(inputs: Tensor, first: Tensor, second: Tensor, *_: Any, **__: Any) -> int:
    return _recurrent(inputs, [first, second])


def _cudnn_rnn(inputs: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return _recurrent(inputs, weights)


def _cpu_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    batch, heads, tokens, dim = query.shape  # masked places are counted
    return 2 * batch * heads * tokens * key.shape[2] * (dim + value.shape[3])


def _linear(inputs: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * inputs.numel() * weight.shape[0]


def _convolution(inputs: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * weight[0].numel()


_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    # what torch has no formula for
    torch.ops.aten.mkldnn_rnn_layer: _mkldnn_rnn,
    torch.ops.aten._cudnn_rnn: _cudnn_rnn,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
}
for _name, _formula in (("_linear_pointwise", _linear), ("_convolution_pointwise", _convolution)):
    if hasattr(torch.ops.mkldnn, _name):  # not on every processor
        _FORMULAS[getattr(torch.ops.mkldnn, _name)] = _formula
