"""Timing side by side: every round runs each contender once, so that what the machine does meanwhile hits all."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

FLOOR = "floor: "  # begins the name of a contender that does nothing but what all others cannot avoid

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Timing(NamedTuple):
    """Seconds: median over rounds, and the quartiles around it. ratio: median over rounds of this to the first.

    work: what it had to do at least, in units of `unit` (B: bytes moved; FLOP); 0 where nobody counted.
    """

    case: str
    name: str
    median_s: float
    low_s: float
    high_s: float
    ratio: float
    work: float = 0.0
    unit: str = ""


def side_by_side(
    case: str,
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Times of all contenders over interleaved rounds after one that warms up; the first is what others are held to.
    By `time.process_time` only what this process computed counts, not what it waited for."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            began = clock()
            run()
            if i:
                times[name].append(clock() - began)
    base = next(iter(times.values()))
    return [timing(case, name, own, base) for name, own in times.items()]


def timing(case: str, name: str, own: list[float], base: list[float]) -> Timing:
    """Of one contender: its seconds, round by round, beside those of the first."""
    low, _, high = statistics.quantiles(own, n=4) if len(own) > 1 else own * 3
    ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
    return Timing(case, name, statistics.median(own), low, high, ratio)


def table(timings: list[Timing]) -> str:
    """Plain text, a line a contender; with what it did of the counted work in a second, where somebody counted."""
    wide = max([8, *(len(t.case) for t in timings)])
    long = max([24, *(len(t.name) for t in timings)])
    counted = any(t.unit for t in timings)
    head = f"{'case':{wide}} {'contender':{long}} {'median ms':>10} {'quartiles':>19} {'ratio':>6}"
    lines = [head + f" {'rate':>12}" * counted]
    for t in timings:
        spread = f"{t.low_s * 1e3:.1f} - {t.high_s * 1e3:.1f}"
        ratio = f"{t.ratio:6.2f}" if t.ratio >= 0.01 else f"{t.ratio:6.0e}"
        line = f"{t.case:{wide}} {t.name:{long}} {t.median_s * 1e3:10.1f} {spread:>19} {ratio}"
        lines.append(f"{line} {rate(t):>12}".rstrip() if counted else line)
    return "\n".join(lines)


def rate(t: Timing) -> str:
    """`11.2 GB/s`: the counted work over the median; empty where nobody counted."""
    if not t.unit:
        return ""
    per_s = t.work / t.median_s
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if per_s >= size), (1, ""))
    return f"{per_s / size:.{1 if per_s < 100 * size else 0}f} {prefix}{t.unit}/s"


def held(timings: list[Timing]) -> list[str]:
    """In words, for each case: how many times as fast as each peer, method by method, and how far from the floor."""
    words = []
    for case in dict.fromkeys(t.case for t in timings):
        part = {t.name: t for t in timings if t.case == case}
        theirs = dict.fromkeys(name.split(": ")[0] for name in part if ": " in name and not name.startswith(FLOOR))
        words += [f"{case}, times as fast as {peer}: {_against(part, peer)}" for peer in theirs]
        words += _from_floor(case, part)
    return words


def _against(part: Mapping[str, Timing], peer: str) -> str:
    """Each method of ours beside `peer: method`."""
    pairs = {name: part.get(f"{peer}: {name}") for name in part}
    return ", ".join(f"{name} {theirs.ratio / part[name].ratio:.2f}" for name, theirs in pairs.items() if theirs)


def _from_floor(case: str, part: Mapping[str, Timing]) -> Iterator[str]:
    """Ours over the floor, where there is one and it does the same work."""
    for floor in (t for name, t in part.items() if name.startswith(FLOOR)):
        ours = [t for name, t in part.items() if ": " not in name and (t.work, t.unit) == (floor.work, floor.unit)]
        if ours:
            over = ", ".join(f"{t.name} {t.ratio / floor.ratio:.2f}" for t in ours)
            yield f"{case}, times the time of {floor.name.removeprefix(FLOOR)} alone: {over}"
