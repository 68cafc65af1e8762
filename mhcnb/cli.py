"""The command line: thin, and light to start; each command imports what it needs."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from mhcnb.cli_bench import bench
from mhcnb.cli_data import data
from mhcnb.cli_generate import generate
from mhcnb.cli_import import import_
from mhcnb.cli_plan import plan
from mhcnb.cli_sweep import OVERRIDES, sweep
from mhcnb.errors import MhcnbError


class Group(click.Group):
    """Our errors are messages with exit status 2, not tracebacks, unless --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MhcnbError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            click.echo(str(error) or "interrupted", err=True)
            ctx.exit(130)


@click.group(cls=Group)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """How should information travel between the layers of a deep network? Train, compare, look."""
    leads = os.environ.get("RANK", "0") == "0"
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.INFO if leads else logging.ERROR)  # the others' words go to their own logs
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    for noisy in ("papermill", "matplotlib", "modelscope_hub", "httpx", "distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@main.command()
@click.argument("arguments", nargs=-1, metavar="PARAMS [KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default outputs/<method>-<preset>-s<seed>.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run; without PARAMS.")
@click.option("--from", "weights", metavar="RUN", help="Start from the weights of a run or checkpoint folder.")
def train(arguments: tuple[str, ...], out: Path | None, resume: Path | None, weights: str | None) -> None:
    """Train one run: mhcnb train params/gpt/tiny.yaml connection.name=mhc train.steps=100

    Go on with one: mhcnb train --resume outputs/mhc-tiny-s1 [KEY=VALUE]...

    Go on, or start a new run from its weights, as what has changed allows: ... PARAMS +resume_from_checkpoint=RUN

    Several processes: torchrun --standalone --nproc_per_node=N -m mhcnb train ...
    """
    if resume and (out or weights or any("=" not in argument for argument in arguments)):
        raise click.UsageError("--resume RUN takes key=value alone: the run has its own parameters and its own folder")
    if not resume and not arguments:
        raise click.UsageError("give a parameters file, as params/gpt/tiny.yaml, or --resume RUN")
    from mhcnb.training.rank import as_rank

    with as_rank():
        from mhcnb.config import load_config, parse_overrides, run_name
        from mhcnb.renames import checkpoint_in
        from mhcnb.run import Run

        given = parse_overrides(arguments if resume else arguments[1:])
        checkpoint = checkpoint_in(given)
        if checkpoint and (resume or weights):
            raise click.UsageError("+resume_from_checkpoint goes without --resume and --from: it is one of them")
        given |= {"train.weights": weights} if weights else {}
        if resume:
            config = load_config(Run.open(resume).path / "config.yaml", given | {"train.resume": "auto"})
        else:
            config = load_config(arguments[0], given)
        if checkpoint:
            from mhcnb.training.continuation import go_on

            config, out = go_on(config, checkpoint, out)
        out = resume or out or Path("outputs") / run_name(config)
        from mhcnb.training.loop import train as run

        summary = run(config, out)
        if os.environ.get("RANK", "0") == "0":
            click.echo(f"{out}: {Path(out, 'status.json').read_text()}" if not summary else f"done: {out}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@OVERRIDES
def evaluate(run: Path, overrides: tuple[str, ...]) -> None:
    """Loss and accuracy of a run's last checkpoint, as words (stderr) and JSON (stdout)."""
    from mhcnb.config import parse_overrides
    from mhcnb.training.evaluate import evaluate_run

    click.echo(json.dumps(evaluate_run(run, parse_overrides(overrides))))


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
def show(runs: tuple[Path, ...]) -> None:
    """A table of runs or sweep folders (default: outputs): losses, speed, memory, time, parameters."""
    from mhcnb.sweep.collect import collect, table

    click.echo(table(collect(runs or (Path("outputs"),))))


@main.command()
def doctor() -> None:
    """Check this installation: torch, devices, packages, data, folders."""
    from mhcnb.doctor import examine

    findings = examine()
    for finding in findings:
        click.echo(f"{finding.state:4}  {finding.text}")
    if any(finding.state == "FAIL" for finding in findings):
        sys.exit(1)


main.add_command(bench)
main.add_command(data)
main.add_command(generate)
main.add_command(import_)
main.add_command(plan)
main.add_command(sweep)
