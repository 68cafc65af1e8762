"""Timing side by side: every round runs each contender once, so that what the machine does meanwhile hits all."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds: median over rounds, and the quartiles around it. ratio: median over rounds of this to the first."""

    case: str
    name: str
    median_s: float
    low_s: float
    high_s: float
    ratio: float


def side_by_side(case: str, contenders: Mapping[str, Callable[[], object]], rounds: int) -> list[Timing]:
    """Times of all contenders over interleaved rounds after one that warms up; the first is what others are held to."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - began)
    base = next(iter(times.values()))
    return [timing(case, name, own, base) for name, own in times.items()]


def timing(case: str, name: str, own: list[float], base: list[float]) -> Timing:
    """Of one contender: its seconds, round by round, beside those of the first."""
    low, _, high = statistics.quantiles(own, n=4)
    ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
    return Timing(case, name, statistics.median(own), low, high, ratio)


def table(timings: list[Timing]) -> str:
    """Plain text, a line a contender."""
    lines = [f"{'case':8} {'contender':24} {'median ms':>10} {'quartiles':>19} {'ratio':>6}"]
    for t in timings:
        spread = f"{t.low_s * 1e3:.1f} - {t.high_s * 1e3:.1f}"
        ratio = f"{t.ratio:6.2f}" if t.ratio >= 0.01 else f"{t.ratio:6.0e}"
        lines.append(f"{t.case:8} {t.name:24} {t.median_s * 1e3:10.1f} {spread:>19} {ratio}")
    return "\n".join(lines)
