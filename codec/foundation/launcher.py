"""Which process this is, as the launcher says: no process group is made, so nothing can time out.

`accelerate launch` and `torchrun` set RANK, WORLD_SIZE and LOCAL_RANK; `srun` sets the names of its job step.
"""

import os

from codec.foundation.errors import UserError

# SLURM_NTASKS is not used: inside an sbatch script it speaks of the whole job although one process is
# running.
_RANK = ("RANK", "SLURM_PROCID")
_WORLD_SIZE = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID")


def rank() -> int:
    """Number of this process among all processes, from 0; 0 without a launcher.

    Raises UserError when the launcher's variables contradict each other.
    """
    number, count = _read(_RANK, 0), world_size()
    if not 0 <= number < count:
        raise UserError(
            f"the launcher says process {number} of {count}: "
            "set RANK and WORLD_SIZE together, or unset both to run as one process"
        )
    return number


def world_size() -> int:
    """Number of processes in this launch; 1 without a launcher."""
    return _read(_WORLD_SIZE, 1)


def local_rank() -> int:
    """Number of this process on its own machine, from 0; 0 without a launcher."""
    return _read(_LOCAL_RANK, 0)


def _read(names: tuple[str, str], default: int) -> int:
    torch_name, slurm_name = names
    # The two families are never mixed: torchrun under srun sets its own, and only those describe this
    # process.
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        name = torch_name
    elif "SLURM_STEP_NUM_TASKS" in os.environ:
        name = slurm_name
    else:
        return default
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UserError(f"the environment variable {name} is {text!r}, not a whole number") from None
