"""What torch.compile takes: from nothing in any cache to the end of the first forward and backward pass."""

import time
from collections.abc import Callable

import torch
from torch import nn

from mhcnb.bench.gpt import Size, compiled, gpt
from mhcnb.bench.measure import Timing, timing
from mhcnb.bench.place import Place, one_thread, there_and_back

METHODS = ("residual", "hc", "mhc", "mhc_lite")
SIZE = Size(batch=1, tokens=64)  # little to run
THEIRS = "mhc"  # one of each peer: it takes minutes


def compile(where: Place, rounds: int = 3) -> list[Timing]:
    """The model of 6 layers as training compiles it, and the mhc model of each peer, whole, in one
    round. A model of one layer goes first, and warms up the compiler."""
    makes: dict[str, Callable[[], nn.Module]] = {name: lambda name=name: gpt(name, SIZE) for name in METHODS}
    theirs = {f"{p.name}: {THEIRS}": lambda p=p: p.gpts[THEIRS](SIZE) for p in where.peers}
    with one_thread():
        _seconds(lambda: gpt("residual", SIZE._replace(layers=1)), where)
        times: dict[str, list[float]] = {name: [] for name in makes}
        for _ in range(rounds):
            for name, make in makes.items():
                times[name].append(_seconds(make, where))
        base = times["residual"]
        timings = [timing("compile", name, own, base) for name, own in times.items()]
        for name, make in theirs.items():
            timings.append(timing("compile", name, [_seconds(make, where)], base[:1]))
    return timings


def _seconds(make: Callable[[], nn.Module], where: Place) -> float:
    """Of the first pass of a new model, with nothing compiled before it."""
    from torch._inductor.utils import fresh_cache

    torch.compiler.reset()
    run = there_and_back(compiled(make()), SIZE.batch_of(where.device), where)
    with fresh_cache():
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
