"""A saved optimizer goes on exactly as the one that was never saved."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from codec.foundation import (
    UserError,
    load_training_state,
    optimizer_tensors,
    restore_optimizer,
    save_training_state,
)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    "AdamW, averaging the largest": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, amsgrad=True),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, fused=True),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),
    "Adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=1e-2),
    "two groups": lambda parameters: torch.optim.AdamW(
        [{"params": parameters[:1], "lr": 1e-3}, {"params": parameters[1:]}], lr=1e-2
    ),
}


def _model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(inputs.to(next(model.parameters()).dtype)).square().mean().backward()
        optimizer.step()


def _through_files(directory: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    save_training_state(directory, tensors, {})
    return load_training_state(directory).tensors


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_five_more_steps_equal_those_of_the_run_that_went_on(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    model = _model(dtype)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    _train(model, optimizer, range(5))
    saved = _through_files(tmp_path, optimizer_tensors(optimizer))

    resumed = _model(dtype)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer = OPTIMIZERS[name](list(resumed.parameters()))
    restore_optimizer(resumed_optimizer, saved)

    _train(model, optimizer, range(5, 10))
    _train(resumed, resumed_optimizer, range(5, 10))
    for expected, found in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)
    expected_state, found_state = optimizer_tensors(optimizer), optimizer_tensors(resumed_optimizer)
    assert expected_state.keys() == found_state.keys()
    assert all(torch.equal(expected_state[key], found_state[key]) for key in expected_state)


def test_moments_keep_their_precision_and_python_numbers_their_type(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    kept = {
        "moment": torch.tensor([1 / 3, 1e-30, 7.0]),
        "count": 2**40,
        "scale": 0.1,
        "done": True,
        "unused": None,
    }
    optimizer.state[parameter] = dict(kept)
    saved = _through_files(tmp_path, optimizer_tensors(optimizer))
    restore_optimizer(optimizer, saved)
    found = optimizer.state[parameter]
    assert found["moment"].dtype == torch.float32 and torch.equal(found.pop("moment"), kept.pop("moment"))
    del kept["unused"]
    assert found == kept and {type(value) for value in found.values()} == {int, float, bool}


def test_the_restored_state_shares_no_memory_with_what_was_given() -> None:
    model = _model()
    optimizer = OPTIMIZERS["AdamW"](list(model.parameters()))
    _train(model, optimizer, range(2))
    tensors = optimizer_tensors(optimizer)
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    other = _model()
    other_optimizer = OPTIMIZERS["AdamW"](list(other.parameters()))
    restore_optimizer(other_optimizer, tensors)
    _train(other, other_optimizer, range(3))
    assert all(torch.equal(before[key], tensors[key]) for key in before)


def test_the_state_of_another_model_is_refused() -> None:
    model = _model()
    optimizer = OPTIMIZERS["AdamW"](list(model.parameters()))
    _train(model, optimizer, range(2))
    tensors = optimizer_tensors(optimizer)
    narrow = OPTIMIZERS["AdamW"]([nn.Parameter(torch.ones(4, 5)), *list(model.parameters())[1:]])
    with pytest.raises(UserError, match=r"shape \(4, 6\) for a parameter of \(4, 5\)"):
        restore_optimizer(narrow, tensors)
    short = OPTIMIZERS["AdamW"](list(model.parameters())[:2])
    with pytest.raises(UserError, match="2 parameters"):
        restore_optimizer(short, tensors)
    assert not short.state


def test_tied_and_strided_tensors_and_counters_come_back(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "embedding": table,
        "head": table,
        "transposed": table.T,
        "row": table[1],
        "count": torch.tensor(7),
    }
    counters = {"step": 3, "epoch": 1, "dataset": "ab12", "best": 0.1, "history": [1, None]}
    save_training_state(tmp_path, tensors, counters)
    state = load_training_state(tmp_path)
    assert state.counters == counters
    assert all(torch.equal(state.tensors[name], tensors[name]) for name in tensors)
    assert sorted(os.listdir(tmp_path)) == ["state.json", "state.safetensors"]
    (tmp_path / "state.json").unlink()
    with pytest.raises(UserError, match=r"not a checkpoint .* no state\.json"):
        load_training_state(tmp_path)


@pytest.fixture
def one_process_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_sharded_moments_are_saved_whole_and_restored_sharded(
    tmp_path: Path, one_process_group: None
) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    model, plain = _model(), _model()
    fully_shard(model, mesh=mesh)
    optimizer, plain_optimizer = (OPTIMIZERS["AdamW"](list(m.parameters())) for m in (model, plain))
    _train(model, optimizer, range(3))
    _train(plain, plain_optimizer, range(3))
    saved = _through_files(tmp_path, optimizer_tensors(optimizer))
    expected = optimizer_tensors(plain_optimizer)
    assert saved.keys() == expected.keys()
    assert all(type(tensor) is Tensor and torch.equal(tensor, expected[key]) for key, tensor in saved.items())

    restore_optimizer(optimizer, saved)
    _train(model, optimizer, range(3, 6))
    _train(plain, plain_optimizer, range(3, 6))
    for sharded, whole in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(sharded.full_tensor(), whole)  # type: ignore[attr-defined]
