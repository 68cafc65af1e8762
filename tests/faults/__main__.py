"""`python -m tests.faults short|long`: trials, a row each to a JSONL, and the table of them."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from mhcnb import registry

from . import kinds, rows
from .kinds import INSIDE, Skipped
from .rows import SKIPPED, SURVIVED, Row
from .trial import INTERVAL, Lab

Case = Callable[[], Row]
IN_SAVE, AROUND = "kill -9 inside a save", "kill -9 between rename and end of prune"
SAVE_MS = 15.0  # that a save of a megabyte takes, about


def connections(count: int, first: int = 0) -> Iterator[str]:
    """All methods in turn."""
    known = sorted(registry.entries("connections"))
    for k in range(count):
        yield known[(first + k) % len(known)]


def short(lab: Lab) -> Iterator[Case]:
    """Every point, every method, one of each cheap fault, one run under torchrun."""
    yield lambda: kinds.lost_rank(lab, "mhc", 1)
    for c in connections(5):
        yield lambda c=c: kinds.kill_any_moment(lab, c)
    for c, point in zip(connections(6, 5), (*INSIDE, "renamed", "pruning"), strict=True):
        yield lambda c=c, p=point: kinds.kill_at(lab, IN_SAVE if p in INSIDE else AROUND, c, p)
    yield lambda: kinds.flipped_bit(lab, "mhc")
    yield lambda: kinds.full_disk(lab, "mhc", passing=False)
    yield lambda: kinds.poison(lab, "mhc", "nan", "loss")


def long(lab: Lab) -> Iterator[Case]:
    """50 kills at any moment, 50 inside a save, ten of each with two ranks; then everything else, several times."""
    for k, c in enumerate(connections(50)):
        yield lambda c=c, k=k: kinds.kill_any_moment(lab, c, 2 if k % 5 == 4 else 1)
    hits = 0
    for k, c in enumerate(connections(200)):
        if hits == 50:
            break
        point, ranks = (*INSIDE, "saving")[k % 5], 2 if k % 6 == 5 else 1
        yield lambda c=c, p=point, r=ranks, d=k % 5 == 4: kinds.kill_at(lab, IN_SAVE, c, p, r, SAVE_MS if d else 0.0)
        hits += lab.latest.row.fault == IN_SAVE
    for k, c in enumerate(connections(14)):
        yield lambda c=c, k=k: kinds.kill_at(lab, AROUND, c, ("renamed", "pruning")[k % 2])
    yield from _asked(lab)
    yield from _ranks(lab)
    yield from _disks(lab)
    for k, c in enumerate(connections(4)):
        yield lambda c=c, k=k: kinds.poison(lab, c, ("nan", "inf")[k % 2], ("loss", "gradient")[k // 2])
    yield lambda: kinds.poison(lab, "mhc", "nan", "loss", launched=True)
    for c in connections(3):
        yield lambda c=c: kinds.two_writers(lab, c)
    for c in connections(2, 4):
        yield lambda c=c: kinds.cut_link(lab, c, 20)


def _asked(lab: Lab) -> Iterator[Case]:
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        for k, c in enumerate(connections(4)):
            yield lambda c=c, n=name, k=k: kinds.asked(lab, n, c, 2 if k == 3 else 1)
        for c in connections(2, 3):
            yield lambda c=c, n=name: kinds.asked(lab, n, c, 2, launched=True)


def _ranks(lab: Lab) -> Iterator[Case]:
    for rank in (0, 1):
        for c in connections(5, 3 * rank):
            yield lambda c=c, r=rank: kinds.lost_rank(lab, c, r)
    for k, c in enumerate(connections(2)):
        yield lambda c=c, k=k: kinds.lost_rank(lab, c, k, "raise")
    for c in connections(3):
        yield lambda c=c: kinds.lost_launcher(lab, c)
    for k, c in enumerate(connections(3)):
        yield lambda c=c, k=k: kinds.hang(lab, c, ("STOP", "STOP", "hang")[k])


def _disks(lab: Lab) -> Iterator[Case]:
    for k, c in enumerate(connections(6)):
        yield lambda c=c, k=k: kinds.full_disk(lab, c, passing=k % 2 == 0)
    for c in connections(30):
        yield lambda c=c: kinds.flipped_bit(lab, c)
    for c in connections(2):
        yield lambda c=c: kinds.full_filesystem(lab, c)
    for c in connections(2, 2):
        yield lambda c=c: kinds.read_only(lab, c)


def run(cases: Callable[[Lab], Iterator[Case]], lab: Lab, path: Path) -> list[Row]:
    """All trials, one after another; what a trial raises is its outcome."""
    found = []
    for case in cases(lab):
        began = time.monotonic()
        try:
            row = case()
        except Exception as error:
            lab.latest.stop()
            row = lab.latest.row
            row.outcome = f"{SKIPPED}{error}" if isinstance(error, Skipped) else f"{type(error).__name__}: {error}"
        if row.outcome == SURVIVED or row.skipped:
            shutil.rmtree(lab.latest.folder)
        rows.append(path, row)
        found.append(row)
        told = f"{len(found):4} {time.monotonic() - began:6.1f} s  {row.fault}, {row.connection} x {row.ranks}"
        print(told, "" if row.outcome == SURVIVED else f"{row.outcome} ({lab.latest.folder})", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("set", choices=("short", "long"))
    parser.add_argument("--rows", type=Path, default=Path("outputs/faults") / f"{date.today()}.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="mhcnb-faults-"))
    found = run({"short": short, "long": long}[given.set], Lab(folder, given.seed), given.rows)
    print(f"\n{rows.table(found)}\n\n{len(found)} trials; a save every {INTERVAL} steps; rows: {given.rows}")
    if any(row.outcome != SURVIVED and not row.skipped for row in found):
        print(f"what is left of those that were not survived: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
