"""`mhcnb bench`: times, side by side."""

import importlib
import json
import logging
from pathlib import Path

import click

log = logging.getLogger(__name__)
# those of the first line run on a device, beside peers
PLACED = ("step", "connection", "sinkhorn", "compile")
CASES = (*PLACED, "rlm", "hrm", "generate", "reader", "imports", "record", "save", "prepare")
KINDS = (".png", ".pdf", ".svg")
PATH = click.Path(path_type=Path, dir_okay=False)


def _file(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """Refuses what could not be written when all is timed, minutes later."""
    if file and not file.absolute().parent.is_dir():
        raise click.BadParameter(f"{file}: there is no folder {file.parent}")
    if file and parameter.name == "picture" and file.suffix not in KINDS:
        raise click.BadParameter(f"{file}: expected a name that ends in {', '.join(KINDS)}")
    return file


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(CASES))
@click.option(
    "--peer", "peers", multiple=True, metavar="NAME=PATH", help="mhc-lite=DIR or hrm=DIR: a checkout to time, too."
)
@click.option("--device", default="auto", help="Of step, connection, sinkhorn, compile; auto: an accelerator, or cpu.")
@click.option("--json", "file", type=PATH, callback=_file, help="Write the figures there, too.")
@click.option("--picture", type=PATH, callback=_file, help="Draw them there, too: a .png, .pdf or .svg.")
def bench(cases: tuple[str, ...], peers: tuple[str, ...], device: str, file: Path | None, picture: Path | None) -> None:
    """Time this machine: ratios measured side by side in one run. Default: all cases.

    PyPI's hyper-connections is timed where it is installed.
    """
    from mhcnb.bench.hrm_peer import apart
    from mhcnb.bench.measure import held, table
    from mhcnb.bench.peers import peers as found
    from mhcnb.bench.place import place

    others, original = apart(peers)
    where, timings = place(device, found(others)), []
    for case in cases or CASES:
        log.info(f"timing {case}{' on ' + where.words() if case in PLACED else ''}")
        run = getattr(importlib.import_module(f"mhcnb.bench.{case}"), case)
        arguments = {"hrm": (original,)}.get(case, (where,) if case in PLACED else ())
        timings += run(*arguments)
    click.echo("\n".join([table(timings), *held(timings)]))
    if file:
        file.write_text(json.dumps([t._asdict() for t in timings], indent=1) + "\n")
    if picture:
        from mhcnb.plots.speed import plot_ratios

        plot_ratios([t._asdict() for t in timings]).savefig(picture)
