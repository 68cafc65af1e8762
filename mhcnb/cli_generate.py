"""`mhcnb generate`: what a run writes."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", required=True, metavar="TEXT", help="What the text begins with; - takes it from stdin.")
@click.option("--tokens", type=click.IntRange(min=1), default=200, show_default=True, help="At most so many.")
@click.option("--temperature", default=0.8, show_default=True, help="0: always the most likely token.")
@click.option("--top-p", default=1.0, show_default=True, help="Only the most likely, with this share of probability.")
@click.option("--top-k", default=0, show_default=True, help="Only so many of the most likely; 0: all.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Same seed, same text.")
@click.option("--tokenizer", help="A file, folder or id, where the run has kept none.")
def generate(
    run: Path,
    prompt: str,
    tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    tokenizer: str | None,
) -> None:
    """Go on with a text, as it comes: mhcnb generate outputs/mhc-tiny-s1 --prompt "def "

    RUN: a run, one of its checkpoints, or what RLM.save_pretrained wrote.
    """
    from mhcnb.models.generation import Sampling
    from mhcnb.notebook.writer import Writer

    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    writing = Writer.open(run, tokenizer).write(prompt, tokens, Sampling(temperature, top_p, top_k), seed)
    click.echo(prompt, nl=False)
    for piece in writing:
        click.echo(piece, nl=False)
    click.echo()
    click.echo(writing.words(), err=True)
