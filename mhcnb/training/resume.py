"""Going on with a run: which checkpoint, whether it is the same run, and everything back as it was.

Bit-equal to a run that was never interrupted where configuration, number of processes and stack are the same.
"""

import logging
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import mhcnb
from mhcnb.config import RunConfig, as_dict, flatten
from mhcnb.durable import FULL
from mhcnb.errors import CheckpointError, RunError
from mhcnb.run import Run
from mhcnb.training import checkpoint, launch

log = logging.getLogger(__name__)
# what may change on resume: none of it changes what is learned from which sample, but for the schedule of more steps.
# data.root and data.cache: the files there must be the same, see _require_same_data
FREE = (
    "train.save_every", "train.save_minutes", "train.keep_last", "train.eval_every", "train.save_evaluated",
    "train.resume", "train.timeout_s", "train.epochs",
    "train.recompute", "data.root", "data.cache", "log.",
)  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """How a run folder is opened: `folder` is the checkpoint to go on from, None to begin; `finished`: nothing is left
    to do. `words` are for the one who trains."""

    folder: Path | None = None
    state: dict[str, Any] = field(default_factory=dict)
    damaged: tuple[tuple[Path, str], ...] = ()
    finished: str = ""
    words: tuple[str, ...] = ()


class Finished(Exception):
    """The run is done already; its text says so."""


def stack(device: str, world_size: int) -> dict[str, Any]:
    """What the bits of a training depend on beside its configuration."""
    return {
        "processes": world_size,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mhcnb": mhcnb.__version__,
        "machine": platform.machine(),
    }


def plan(run: Run, config: RunConfig, data: dict[str, str], own_stack: dict[str, Any]) -> Opening:
    """What to do with a folder; reads it alone, holding its lock where it has checkpoints. For rank 0.

    Raises RunError where it must not be trained in, CheckpointError where it cannot be gone on with.
    """
    if not run.checkpoints():
        return Opening()
    again = restarted(run)
    if again and run.status().get("state") == "diverged":
        raise RunError(
            f"{run.path} diverged in this job: a restart from {run.last_checkpoint().name} would do the same"
        )
    if config.train.resume == "never" and not again:
        run.require_new()
    run.lock()
    try:
        folder, damaged = checkpoint.newest_sound(run)
        state = checkpoint.read_state(folder)
        if not (folder / checkpoint.OPTIMIZER).is_file():
            raise CheckpointError(
                f"{folder} holds weights alone; start a new run from them: `mhcnb train PARAMS --from {run.path}`"
            )
        changed = _require_same_run(run, checkpoint.read_config(folder), config, state["step"])
        require_same_data(folder, state.get("data", {}), data)
        finished = state["step"] == config.train.steps and run.status().get("state") == "done"
    except BaseException:
        run.release()
        raise
    said = f"{run.path} is done: already at step {state['step']} of {config.train.steps}; train.steps=N adds to it"
    words = changed + _stack_words(state.get("stack", {}), own_stack)
    return Opening(folder, state, tuple(damaged), said if finished else "", tuple(words))


def begin(run: Run, config: RunConfig, opening: Opening) -> None:
    """Makes the folder, or takes it back to its checkpoint. Raises RunError."""
    if opening.folder is None:
        run.make(config)
        checkpoint.sweep_up(run)
        return
    step = opening.state["step"]
    try:
        checkpoint.sweep_up(run)
        for folder, reason in opening.damaged:
            bad = folder.with_name(f"bad-{folder.name}")
            folder.rename(bad)
            log.warning("%s: set aside as %s; %s is used instead", reason, bad.name, opening.folder.name)
        last = run.go_back(step)
        run.write_config(config)
        run.set_status("starting", step)
    except OSError as error:
        full = "; free some space" if error.errno in FULL else ""
        raise RunError(f"cannot write to {run.path}: {error.strerror} (errno {error.errno}){full}") from error
    repeated = f", repeating {last - step} that came after it" if last > step else ""
    log.info("%s: resumed at step %d of %d%s", run.path, step, config.train.steps, repeated)
    for text in opening.words:
        log.info("  %s", text)


def restarted(run: Run) -> bool:
    """Whether the launcher started this process anew, after a rank was lost."""
    return launch.job() is not None and run.env().get("job") == launch.job()


def compare(old: RunConfig, new: RunConfig) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """{dotted key: (old, new)} of what differs, and of that what must not on resume."""
    before, after = flatten(as_dict(old)), flatten(as_dict(new))
    changed = {key: (before.get(key, "unset"), after.get(key, "unset")) for key in sorted(before.keys() | after.keys())}
    changed = {key: pair for key, pair in changed.items() if pair[0] != pair[1]}
    longer = new.train.steps > old.train.steps
    return changed, {k: p for k, p in changed.items() if not k.startswith(FREE) and not (k == "train.steps" and longer)}


def _require_same_run(run: Run, old: RunConfig, new: RunConfig, step: int) -> list[str]:
    """What has changed and may, in words. Raises CheckpointError with a table of what must not."""
    changed, refused = compare(old, new)
    if step > new.train.steps:
        raise CheckpointError(f"{run.path} is at step {step} already, beyond train.steps = {new.train.steps}")
    if refused:
        table = "\n".join(f"  {key}: {a} -> {b}" for key, (a, b) in refused.items())
        raise CheckpointError(
            f"{run.path} was begun with another configuration; nothing was changed:\n{table}\nOn resume only "
            f"train.steps (up) and {', '.join(key.rstrip('.') for key in FREE)} may change. A new run from its "
            f"weights: `mhcnb train PARAMS --from {run.path} --out ...`"
        )
    told = {key: pair for key, pair in changed.items() if key != "train.resume"}
    words = [f"{key}: {a} -> {b}" for key, (a, b) in told.items()]
    longer = "train.steps" in changed
    return words + (["from here on the learning rate follows the schedule of the new train.steps"] if longer else [])


def require_same_data(folder: Path, old: dict[str, str], new: dict[str, str]) -> None:
    """The files may have moved, but not changed."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            a, b = (str(files.get(name, "absent"))[:12] for files in (old, new))
            raise CheckpointError(
                f"{folder}: the data have changed since: {name}, digest {a} -> {b}; put the old files back, or start "
                "a new run"
            )


def _stack_words(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changed = [f"{key} {old[key]} -> {new[key]}" for key in new if key in old and old[key] != new[key]]
    if not changed:
        return []
    return [f"{', '.join(changed)}: the same samples in the same order, but not equal to the last bit"]


def random_state(device: torch.device) -> dict[str, str]:
    """torch's generators as text. Updates seed them anew; what a person's own code draws between updates goes on."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def set_random_state(states: dict[str, str], device: torch.device) -> None:
    """Back to a `random_state`."""
    for name, text in states.items():
        state = torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
        if name == "cpu":
            torch.set_rng_state(state)
        elif name == device.type:
            torch.get_device_module(device).set_rng_state(state, device)
