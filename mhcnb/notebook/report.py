"""A comparison as files: CSV for further work, and a table for a paper in Markdown and LaTeX."""

import math
from pathlib import Path
from typing import Any

import pandas

from mhcnb.analysis.gains import Frame
from mhcnb.analysis.seeds import LEVEL, paired_differences
from mhcnb.errors import NotebookError
from mhcnb.notebook.views import Comparison
from mhcnb.plots.style import number
from mhcnb.sweep.collect import markdown as all_runs

COLUMNS = (
    "setting", "method", "runs", "val loss", "to residual", "gain forward", "gain backward", "tokens/s", "memory (GB)",
    "parameters",
)  # fmt: skip
NOTE = f"val loss: mean ± standard deviation over seeds; to residual: paired by seed, {LEVEL:.0%} bootstrap interval; "
NOTE += "gains: amax of the product of all maps, each token's, then over tokens and seeds"


def export(seen: Comparison) -> list[Path]:
    """Writes results.csv and results.md (a row a run), finals.csv, curves.csv, products.csv, gains.csv, table.md and
    table.tex into the comparison's folder. Returns the paths; none where there are no runs. Raises NotebookError where
    the disk refuses."""
    if not seen.members:
        return []
    rows = paper_table(seen.finals, seen.products)
    frames = {"results": seen.table, "finals": seen.finals, "curves": seen.curves}
    frames |= {"products": seen.products, "gains": seen.gains}
    texts = {f"{name}.csv": frame.to_csv(index=False) for name, frame in frames.items()}
    texts |= {"results.md": all_runs(seen.table), "table.md": markdown(rows), "table.tex": latex(rows)}
    try:
        for name, text in texts.items():
            (seen.folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotebookError(f"cannot write to {seen.folder}: {error.strerror} (errno {error.errno})") from error
    return [seen.folder / name for name in texts]


def paper_table(finals: Frame, products: Frame) -> Frame:
    """A row for each setting and method of the finished runs, all text."""
    done = finals[finals.state == "done"]
    paired = paired_differences(finals).set_index(["setting", "method"])
    gains = products.groupby(["setting", "method"])[["forward", "backward"]].mean() if len(products) else None
    rows = []
    for key, part in done.groupby(["setting", "method"], sort=False):
        gain = gains.loc[key] if gains is not None and key in gains.index else None
        rows.append(
            [
                *key,
                str(len(part)),
                _loss(part.val_loss),
                _difference(paired.loc[key]) if key in paired.index else "-",
                *(["-", "-"] if gain is None else [number(gain.forward, 4), number(gain.backward, 4)]),
                f"{part.tokens_per_s.mean():,.0f}",
                f"{part.peak_memory_gb.mean():.2f}",
                f"{part.params.mean():,.0f}",
            ]
        )
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def markdown(rows: Frame) -> str:
    """A pipe table with aligned columns and a line that explains it."""
    table = [list(rows.columns), *rows.to_numpy().tolist()]
    widths = [max(len(row[k]) for row in table) for k in range(len(rows.columns))]
    marks = ["-" * w if k < 2 else "-" * (w - 1) + ":" for k, w in enumerate(widths)]
    lines = [
        " | ".join(f"{x:<{w}}" if k < 2 else f"{x:>{w}}" for k, (x, w) in enumerate(zip(row, widths, strict=True)))
        for row in [table[0], marks, *table[1:]]
    ]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{NOTE}\n"


def latex(rows: Frame) -> str:
    """A tabular for booktabs."""
    heads = " & ".join(_escaped(name) for name in rows.columns)
    body = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in rows.to_numpy().tolist()]
    lines = [f"% {NOTE}", rf"\begin{{tabular}}{{ll{'r' * (len(rows.columns) - 2)}}}", r"\toprule", rf"{heads} \\"]
    return "\n".join([*lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _loss(losses: Any) -> str:
    spread = losses.std()
    return f"{losses.mean():.4f}" + (f" ± {spread:.4f}" if math.isfinite(spread) else "")


def _difference(row: Any) -> str:
    interval = f" [{row.low:+.4f}, {row.high:+.4f}]" if math.isfinite(row.low) else ""
    return f"{row.difference:+.4f}{interval}"


def _escaped(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", r"$\pm$")
