"""The command line in processes of its own."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def mhcnb(tmp_path):
    """mhcnb("train", ..., ranks=2): the command line in a process, or under torchrun; a finished process."""

    def run(*args, ranks=0, env=(), **options):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks else []
        command = [sys.executable, *torchrun, "-m", "mhcnb", *map(str, args)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env)
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, **options)

    return run
