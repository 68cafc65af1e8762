"""`mhcnb data`: token shards, from a person's own text or from a hub."""

import json
from pathlib import Path

import click


@click.group()
def data() -> None:
    """Prepare your own text, fetch published shards, check a folder."""


@data.command()
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder for the shards.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="A tokenizers JSON file, instead of a new one.")
@click.option("--vocab", default=2048, show_default=True, help="Size of the tokenizer trained on the texts.")
@click.option("--seed", default=0, show_default=True, help="Draws the tenth that is validation.")
def prepare(texts: tuple[Path, ...], out: Path, tokenizer: Path | None, vocab: int, seed: int) -> None:
    """Token shards of your own text files; train on them with data.root=OUT."""
    from mhcnb.data.text import prepare as run

    run(list(texts), out, tokenizer, vocab, seed)
    click.echo(f"ready: mhcnb train params/gpt/tiny.yaml data.root={out}")


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
