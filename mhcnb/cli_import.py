"""`mhcnb import`: a checkpoint of another project becomes a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mhcnb.run import Run

FILE = click.argument("file", type=click.Path(path_type=Path))
OUT = click.argument("out", type=click.Path(path_type=Path))
DATA = click.option(
    "--data", metavar="ROOT", help="Token shards for it, as data.root; default DATA_ROOT when it is read."
)


@click.group("import")
def import_() -> None:
    """Bring in a checkpoint of another project, as a run folder."""


@import_.command("mhc-lite")
@FILE
@OUT
@click.option("--heads", type=click.IntRange(min=1), help="Attention heads, where the file does not say.")
@DATA
def mhc_lite(file: Path, out: Path, heads: int | None, data: str | None) -> None:
    """The ckpt.pt that mhc-lite's train.py writes: mhcnb import mhc-lite out/ckpt.pt outputs/theirs"""
    from mhcnb.interop.run_folder import import_mhc_lite

    _told(import_mhc_lite(file, out, heads, data), data)


@import_.command("nanogpt")
@FILE
@OUT
@DATA
def nanogpt(file: Path, out: Path, data: str | None) -> None:
    """The ckpt.pt that nanoGPT's train.py writes: mhcnb import nanogpt out/ckpt.pt outputs/theirs"""
    from mhcnb.interop.run_folder import import_nanogpt

    _told(import_nanogpt(file, out, data), data)


@import_.command("llama")
@click.argument("folder", type=click.Path(path_type=Path))
@OUT
@DATA
def llama(folder: Path, out: Path, data: str | None) -> None:
    """A Hugging Face folder of a Llama in safetensors: mhcnb import llama TinyLlama-1.1B outputs/theirs"""
    from mhcnb.interop.run_folder import import_llama

    _told(import_llama(folder, out, data), data)


def _told(run: "Run", data: str | None) -> None:
    config = run.config
    where = "" if data else "; its data: set DATA_ROOT to shards of its tokenizer, or import again with --data"
    if getattr(config.data, "tokenizer", None):
        where = "; a text as data.root, as data.root=TEXT.jsonl, is prepared with its tokenizer"
    click.echo(f"ready: {config.connection.name} at step {run.status()['step']} in {run.path}{where}")
    if config.connection.name == "residual":
        again = f"mhcnb train {run.path / 'config.yaml'} --from {run.path} connection.name=mhc train.steps=1000"
        click.echo(f"with streams: {again}")
