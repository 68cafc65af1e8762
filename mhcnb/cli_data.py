"""`mhcnb data`: token shards, from a person's own text or from a hub."""

import json
from pathlib import Path
from typing import Any

import click

TEXTS = click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path))
KEY = click.option("--key", default="text", show_default=True, help="What holds the text in a line of .jsonl.")
VOCAB = click.option("--vocab", default=2048, show_default=True, help="Size of a tokenizer trained on the texts.")
ON_BAD = click.option(
    "--on-bad", type=click.Choice(["raise", "skip"]), default="raise", show_default=True, help="Lines of no use."
)


@click.group()
def data() -> None:
    """Prepare your own text, fetch published shards, check a folder."""


@data.command()
@TEXTS
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the shards.")
@KEY
@click.option("--tokenizer", help="A tokenizer.json, a folder that holds one, or an id, instead of a new one.")
@VOCAB
@click.option("--seed", default=0, show_default=True, help="Draws the documents that are validation, and --shuffle.")
@click.option("--val-fraction", default=0.1, show_default=True, help="Share of the documents that is validation.")
@click.option("--min-tokens", default=0, show_default=True, help="Leave shorter documents out.")
@click.option("--max-tokens", default=0, help="Cut longer documents into chunks of at most so many.")
@click.option("--dedup", is_flag=True, help="Of documents with the same text keep the first.")
@click.option("--shuffle", is_flag=True, help="Write the documents in an order drawn by --seed.")
@ON_BAD
@click.option("--processes", type=click.IntRange(min=1), help="Default: one a core, where the text is long enough.")
def prepare(texts: tuple[Path, ...], out: Path, processes: int | None, **options: Any) -> None:
    """Token shards of your own text, .jsonl or plain, gzipped or not; train on them with data.root=OUT.

    The same command goes on with one that was killed.
    """
    from mhcnb.data.prepare import prepare as run
    from mhcnb.data.recipe import Recipe

    run(list(texts), out, Recipe(**options), processes)
    click.echo(f"ready: mhcnb train params/gpt/tiny.yaml data.root={out}")


@data.command()
@TEXTS
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new tokenizer.json.")
@KEY
@VOCAB
@ON_BAD
def tokenizer(texts: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Train a tokenizer on text; use it with --tokenizer or data.tokenizer=OUT."""
    from mhcnb.data.prepare import write_tokenizer
    from mhcnb.data.recipe import Recipe

    size = write_tokenizer(list(texts), out, Recipe(**options))
    click.echo(f"ready: {out}, {size:,} entries")


@data.command()
@click.option("--hub", metavar="ID", help="A Hugging Face data set; default kjj0/fineweb10B-gpt2.")
@click.option("--train-shards", type=int, default=1, show_default=True, help="How many of the hub's training shards.")
@click.option("--modelscope", metavar="ID", help="A ModelScope data set, instead of the hub.")
@click.option("--files", multiple=True, metavar="PATTERN", help="Which of its files; default all shards.")
@click.option("--revision", help="A branch, tag or commit.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where ModelScope's files are kept between runs.")
@click.option("--out", type=click.Path(path_type=Path), help="A folder for the files, instead of the cache.")
def download(
    hub: str | None,
    train_shards: int,
    modelscope: str | None,
    files: tuple[str, ...],
    revision: str | None,
    cache: Path | None,
    out: Path | None,
) -> None:
    """Fetch published token shards (FineWeb10B); what is there already is checked, not fetched again."""
    from mhcnb.data import download as hubs

    if hub and modelscope:
        raise click.UsageError("--hub and --modelscope name two sources; give one")
    at = {"revision": revision} if revision else {}
    if modelscope:
        folder = hubs.download_modelscope(modelscope, out=out, cache=cache, patterns=list(files) or None, **at)
    elif files or cache:
        raise click.UsageError("--files and --cache go with --modelscope; the hub takes --train-shards and --out")
    else:
        folder = hubs.download_hub(hub or hubs.FINEWEB, train_shards=train_shards, out=out, **at)
    click.echo(f"ready: mhcnb train params/gpt/small.yaml data.root={folder}")


@data.command()
@click.argument("root")
@click.option("--vocab", type=int, help="Vocabulary of the model; default what meta.json says.")
def check(root: str, vocab: int | None) -> None:
    """Read every token of a data folder: formats, lengths, ids, and a file in both splits."""
    from mhcnb.data.shards import check_all

    click.echo(json.dumps(check_all(root, vocab), indent=1))
