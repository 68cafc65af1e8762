"""A run as it is left by a kill."""

import shutil

from mhcnb.run import Run

EVERY_STEP = {"train.steps": 8, "train.save_every": 1, "train.keep_last": 9, "train.eval_every": 3, "log.maps_every": 4}


def killed_after(run, step, copy):
    """What is left of `run` where it is killed just before it saves again after `step`."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("summary.json"))
    for checkpoint in Run(copy).checkpoints():
        if int(checkpoint.name[5:]) > step:
            shutil.rmtree(checkpoint)
    Run(copy).set_status("running", step + 1)
    return copy
