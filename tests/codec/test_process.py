"""Which process this is, under each launcher."""

import pytest

from codec.foundation import UserError, local_rank, rank, world_size

_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "2"}, (5, 16, 2)),
        # One process in an sbatch script of a job of eight tasks: nobody else is running.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0)),
        # torchrun on two machines, itself started by srun as task 1 of 2.
        (
            {
                "RANK": "6",
                "WORLD_SIZE": "8",
                "LOCAL_RANK": "2",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "0",
            },
            (6, 8, 2),
        ),
    ],
    ids=["none", "torchrun", "srun", "sbatch", "torchrun under srun"],
)
def test_launchers(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int, int]
) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (rank(), world_size(), local_rank()) == expected


def test_contradictions_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="process 2 of 2"):
        rank()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE is 'two'"):
        world_size()
