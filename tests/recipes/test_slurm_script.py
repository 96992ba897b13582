"""`recipes/slm/slurm.sh` with stand-ins for SLURM and torchrun: who is signalled, when the job is handed in again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes" / "slm" / "slurm.sh"
STAND_INS = {
    "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo node1 || echo "$@" >> requeued\n',
    # As slurmstepd does: the task begins with the usual signals.
    "srun": "#!/usr/bin/env python3\nimport os, signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    "open('task', 'w').write(f'{os.getpid()} {os.environ[\"SRUN_CPUS_PER_TASK\"]}')\nos.execvp('bash', sys.argv[2:])\n",
    "torchrun": "#!/usr/bin/env python3\nimport signal, subprocess, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: open('launcher_killed', 'w').close())\n"
    "open('arguments', 'w').write(' '.join(sys.argv[1:]))\n"
    "sys.exit(subprocess.call([sys.executable, 'worker']))\n",
    "worker": "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (open('saved', 'w').close(), sys.exit(0)))\n"
    "open('working', 'w').close()\ntime.sleep(30)\n",
}


@pytest.mark.parametrize("output", [["--output", "run"], ["--output=run"]])
def test_a_job_whose_time_is_up_saves_and_is_handed_in_again(tmp_path: Path, output: list[str]) -> None:
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)  # a first line cannot name a path with a space
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node1", "SLURM_NNODES": "1",
        "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_END_TIME": str(int(time.time()) + 120),
    }  # fmt: skip
    job = subprocess.Popen(
        ["bash", str(SCRIPT), "--config", "a b.yaml", *output], cwd=tmp_path, env=environment
    )
    limit = time.monotonic() + 20
    while not (tmp_path / "working").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    task, cores = (tmp_path / "task").read_text().split()
    os.kill(int(task), signal.SIGTERM)
    assert job.wait(20) == 0 and cores == "3"
    assert (tmp_path / "saved").exists() and not (tmp_path / "launcher_killed").exists()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert (
        f"-m recipes train-slm --config a b.yaml {' '.join(output)}" in (tmp_path / "arguments").read_text()
    )
    (tmp_path / "run" / "final").mkdir(parents=True)
    (tmp_path / "worker").write_text("")
    assert subprocess.call(["bash", str(SCRIPT), *output], cwd=tmp_path, env=environment) == 0
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"  # not again
