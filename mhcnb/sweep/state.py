"""The state of a cell, from the record of it and what its run says of itself, whoever of them is still there."""

import socket
from contextlib import suppress
from typing import Any

import psutil

from mhcnb.sweep.folder import ENDED_BADLY, STATES

LETTERS: dict[str, str] = dict(zip(STATES, "PRDFXTIS", strict=True))
OPEN = ("running", "planned", "interrupted")  # there is something left to do


def judged(entry: dict[str, Any], status: dict[str, Any], driver: dict[str, Any]) -> str:
    """One of STATES. `entry`: the record of the cell, {} for a run that belongs to no sweep; `status`: what its run
    says, {} before it has begun; `driver`: who wrote the record.

    What is done is done. Else a driver that lives knows what is still to run; the run of one that was killed knows how
    far it came, and its process whether it goes on without it."""
    recorded, said = entry.get("state"), status.get("state")
    if said == "done":
        return "done"
    waits = recorded in ("planned", "skipped") and lives(driver) is not False
    if waits or recorded in (*ENDED_BADLY, "interrupted"):
        return recorded  # type: ignore[return-value]
    if said in ("failed", "diverged"):
        return "failed"
    works = recorded == "running" and _works(entry, driver)
    if works:
        return "running"
    if said in ("starting", "running"):
        return "died" if lives(status) is False else "running"
    if said == "stopped":
        return "interrupted"
    return ("running" if works is None else "died") if recorded == "running" else recorded or "planned"


def lives(owner: dict[str, Any]) -> bool | None:
    """Whether the process {pid, host} is there; None where that cannot be seen from here."""
    if not owner.get("pid") or owner.get("host") != socket.gethostname():
        return None
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(owner["pid"]).status() != psutil.STATUS_ZOMBIE  # dead, and not yet collected
    return False


def _works(entry: dict[str, Any], driver: dict[str, Any]) -> bool | None:
    """Whether a cell that was running has a driver, or a process of its own, that is still there; None: unknown."""
    seen = {lives(driver), lives({"host": driver.get("host")} | entry) if entry.get("pid") else lives(driver)}
    return True if True in seen else None if None in seen else False
