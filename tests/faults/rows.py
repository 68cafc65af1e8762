"""A row a trial, and the table of them."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SURVIVED, SKIPPED = "survived", "skipped: "


@dataclass
class Row:
    """Seconds of `injected_s` are from the start of the run, of the other two from the fault on; None where there is
    nothing to time. `outcome`: SURVIVED, else what went wrong in words, or SKIPPED and what this machine lacks."""

    fault: str
    point: str
    ranks: int
    connection: str
    seed: int
    injected_s: float | None = None
    detected_s: float | None = None
    recovered_s: float | None = None
    lost_steps: int | None = None
    restarts: int = 0
    bit_equal: bool | None = None
    torn: int = 0
    doubled: int = 0
    outcome: str = ""

    @property
    def skipped(self) -> bool:
        return self.outcome.startswith(SKIPPED)


def append(path: Path, row: Row) -> None:
    """To a JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    """The rows of a JSONL."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


HEAD = ("fault", "injected", "survived", "bit-equal", "torn or doubled", "detected, s", "recovered, s", "lost steps")


def table(rows: Sequence[Row]) -> str:
    """Plain text, a line a fault: counts, seconds as median / maximum, the most steps that were done again."""
    faults = list(dict.fromkeys(row.fault for row in rows))
    lines = [HEAD, *(_line(fault, [row for row in rows if row.fault == fault]) for fault in faults)]
    lines.append(_line("all", rows))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _line(fault: str, rows: Sequence[Row]) -> tuple[str, ...]:
    equal = [row.bit_equal for row in rows if row.bit_equal is not None]
    lost = [row.lost_steps for row in rows if row.lost_steps is not None]
    skipped = sum(row.skipped for row in rows)
    return (
        fault,
        str(len(rows) - skipped) + (f" ({skipped} skipped)" if skipped else ""),
        str(sum(row.outcome == SURVIVED for row in rows)),
        f"{sum(equal)} of {len(equal)}",
        str(sum(row.torn + row.doubled for row in rows)),
        *(_times(seconds) for seconds in ([r.detected_s for r in rows], [r.recovered_s for r in rows])),
        str(max(lost)) if lost else "-",
    )


def _times(seconds: Iterable[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{statistics.median(known):.2f} / {max(known):.2f}" if known else "-"
