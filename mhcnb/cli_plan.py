"""`mhcnb plan`: what it will cost."""

from pathlib import Path

import click


@click.command()
@click.argument("params", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Where it would be written: whose free space counts.")
@click.option("--processes", type=click.IntRange(min=1), default=1, help="Ranks of a run; a sweep file has its own.")
@click.option("--no-measure", is_flag=True, help="Arithmetic alone: no step is made and no data are opened.")
def plan(params: Path, overrides: tuple[str, ...], out: Path | None, processes: int, no_measure: bool) -> None:
    """What a run or a sweep will cost: parameters, FLOPs, memory, disk and, from a few measured steps, time."""
    from mhcnb.config import parse_overrides
    from mhcnb.notebook.plan import plan

    given = parse_overrides(overrides)
    click.echo(str(plan(params, given, out=out, processes=processes, measured=not no_measure)))
