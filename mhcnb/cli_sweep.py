"""`mhcnb sweep`: many runs."""

import sys
from pathlib import Path
from typing import Any

import click

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
OWN = {"workers": "workers", "devices_per_cell": "devices_per_cell", "timeout": "timeout_s"}  # option: key of the file


@click.command()
@click.argument("params", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--out", type=click.Path(path_type=Path), help="Sweep folder; default outputs/<name of the file>.")
@click.option("--only", metavar="PATTERN", help="Only cells whose name matches, as in '*-large-*'.")
@click.option("--cell", type=int, metavar="K", help="One cell, by its place in the plan from 0; for a job array.")
@click.option("--workers", type=int, help="Cells at a time.")
@click.option("--devices-per-cell", type=int, metavar="N", help="Accelerators of each cell; default one a process.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Kill a cell that takes longer.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a dask cluster, as tcp://host:8786; --out must be shared.")
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed, died or took too long.")
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--status", is_flag=True, help="Show where each cell stands and change nothing.")
def sweep(params: Path, overrides: tuple[str, ...], out: Path | None, **options: Any) -> None:
    """Run the cells of a sweep file, each a notebook under papermill; what is done is not repeated, and what was
    interrupted goes on from its checkpoint."""
    from mhcnb.config import parse_overrides

    own = {key: value for name, key in OWN.items() if (value := options.pop(name)) is not None}
    given, cell, status = parse_overrides(overrides) | own, options.pop("cell"), options.pop("status")
    chosen = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    chosen += ["--cell"] if cell is not None else []
    if status:
        _refuse("--status", chosen)
        return _show_status(params, given, out)
    from mhcnb.sweep.run import run_cell, run_sweep

    if cell is None:
        sys.exit(run_sweep(params, given, out, **options))
    _refuse("--cell", [name for name in chosen if name not in ("--cell", "--retry-failed")])
    sys.exit(run_cell(params, cell, given, out, retry_failed=options["retry_failed"]))


def _refuse(one: str, others: list[str]) -> None:
    if others:
        raise click.UsageError(f"{one} does not go with {', '.join(others)}")


def _show_status(params: Path, overrides: dict[str, Any], out: Path | None) -> None:
    from mhcnb.sweep.board import status
    from mhcnb.sweep.folder import SweepFolder
    from mhcnb.sweep.plan import plan

    planned = plan(params, overrides, out)
    click.echo(status(planned, SweepFolder(planned.out)))
