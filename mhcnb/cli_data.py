"""`mhcnb data`: token shards, from a person's own text or from a hub, and puzzles."""

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


class Span(click.ParamType):
    """`30`, or `22-30` for the least and the most, as a pair."""

    name = "N or N-N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(least, most)."""
        first, dash, last = str(value).partition("-")
        if not first.isdecimal() or bool(dash) != last.isdecimal():
            self.fail(f"{value!r}: expected a number, as 30, or two, as 22-30", param, ctx)
        return int(first), int(last or first)


@click.group()
def data() -> None:
    """Prepare your own text or puzzles, make puzzles, fetch published shards, check a folder."""


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
    """Read every token of a data folder: formats, lengths, ids, and a file in both splits.

    Of puzzles (a CSV, a folder of train.csv and test.csv, or one of arrays): rules, answers, numbers of solutions, and
    grids in both splits.
    """
    from mhcnb.data.puzzles import check as puzzles
    from mhcnb.data.shards import check_all

    path = Path(root)
    found = puzzles.check_all(path) if puzzles.holds_puzzles(path) else check_all(root, vocab)
    click.echo(json.dumps(found, indent=1))


@data.command()
@click.option("--out", "--output-dir", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--csv", help="Your own: a file, or a folder of train.csv and test.csv; or owner/name on Hugging Face.")
@click.option("--train", "--subsample-size", type=click.IntRange(min=1), help="Training puzzles [1000, or all of CSV].")
@click.option("--test", type=click.IntRange(min=1), help="Test puzzles [1000; all, or a tenth, of CSV].")
@click.option("--size", type=click.Choice(["9", "4"]), help="Of generated grids [9].")
@click.option("--clues", type=Span(), help="Of a generated puzzle [30; 6-12 of size 4; fewest with --rating].")
@click.option("--rating", type=Span(), help="Generate puzzles that take so many backtracks, N or N-N [singles do].")
@click.option("--min-difficulty", type=click.IntRange(min=0), help="Leave puzzles of CSV with a smaller rating out.")
@click.option("--augmentations", "--num-aug", default=0, show_default=True, help="Copies of each training puzzle.")
@click.option("--seed", default=0, show_default=True, help="Draws puzzles, copies, and the split of one CSV.")
def sudoku(out: Path, csv: str | None, size: str | None, **options: Any) -> None:
    """Sudoku puzzles for training: new ones, or those of a CSV (source, question, answer, rating).

    OUT has the array layout of HRM; train on it with data.root=OUT. Puzzles on one solution grid stay in one split.
    """
    from mhcnb.data.puzzles import prepare as puzzles
    from mhcnb.data.sudoku import SudokuConfig

    asked = {name: value for name, value in options.items() if value is not None}
    if csv and (size or {"clues", "rating"} & set(asked)):
        raise click.UsageError("--size, --clues and --rating are for generated puzzles; --csv has its own")
    if not csv and "min_difficulty" in asked:
        raise click.UsageError("--min-difficulty goes with --csv; of generated puzzles --rating says how hard they are")
    section = SudokuConfig.build({"size": int(size or 9)} | asked, "mhcnb data sudoku")
    if csv:
        record = puzzles.write_built(out, puzzles.located(csv), section.recipe)
    else:
        record = puzzles.write_generated(out, section.kind, section.recipe)
    train, test = record["puzzles"]["train"], record["puzzles"]["test"]
    click.echo(f"{train:,} training puzzles with {section.augmentations:,} copies of each, {test:,} test puzzles")
    preset = "small" if record["size"] == 9 else "tiny4x4"
    click.echo(f"ready: mhcnb train params/hrm/{preset}.yaml data.root={out}")
