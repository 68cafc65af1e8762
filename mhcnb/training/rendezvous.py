"""Meeting anew after a restart.

Restarted processes find the store of the launcher as the dead ones left it: their addresses are still there, and who
reads one of those waits for nobody. So the processes first agree upon a token that never was, and meet under it.
"""

import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

POLL_S = 0.02


def fresh_store(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """A part of `store` that only these `size` processes know, whatever is in it already.

    Every key that is waited for contains a number drawn in this attempt, so nothing that was left can answer it.
    Raises TimeoutError, or the store's RuntimeError, where not all come in time.
    """
    return PrefixStore(_lead(store, size, timeout) if rank == 0 else _follow(store, rank, timeout), store)


def _follow(store: Store, rank: int, timeout: timedelta) -> str:
    """Says hello under a fresh name until rank 0 answers it with the token."""
    name = uuid.uuid4().hex
    store.set(f"hello/{rank}", name)
    store.wait([f"token/{name}"], timeout)
    token = store.get(f"token/{name}").decode()
    store.set(f"heard/{token}/{name}", "")
    return token


def _lead(store: Store, size: int, timeout: timedelta) -> str:
    """Answers everybody, the dead too, until the one last heard of at each rank has the token."""
    token, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    answered: set[str] = set()
    while missing := [rank for rank in range(1, size) if not _heard(store, rank, token, answered)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no sign of rank {', '.join(map(str, missing))} for {timeout.total_seconds():g} s")
        time.sleep(POLL_S)
    return token


def _heard(store: Store, rank: int, token: str, answered: set[str]) -> bool:
    if not store.check([f"hello/{rank}"]):
        return False
    name = store.get(f"hello/{rank}").decode()
    if name not in answered:
        store.set(f"token/{name}", token)
        answered.add(name)
    return store.check([f"heard/{token}/{name}"])
