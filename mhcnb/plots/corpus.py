"""Token frequencies and lengths of documents, by split."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhcnb.analysis.corpus import Corpus, entropy
from mhcnb.plots.style import canvas, empty, style

LOOKS = {"train": ("#0072B2", "-"), "val": ("#D55E00", "--")}


def plot_unigrams(splits: Mapping[str, Corpus], ax: Axes | None = None) -> Figure:
    """Share of each token by rank, a line a split, both axes logarithmic."""
    with style():
        figure, ax = canvas(ax, 6.4, 3.6)
        for split, corpus in splits.items():
            share = np.sort(corpus.counts[corpus.counts > 0])[::-1] / corpus.seen
            colour, line = LOOKS[split]
            label = f"{split} (entropy {entropy(corpus.counts):.2f} nats)"
            ax.plot(np.arange(1, len(share) + 1), share, color=colour, linestyle=line, label=label)
        ax.set(xscale="log", yscale="log", xlabel="rank of the token", ylabel="share of all tokens")
        ax.legend()
    return figure


def say_unigrams(splits: Mapping[str, Corpus]) -> list[str]:
    """How many tokens were counted and occur, and the entropy of a single one."""
    return [
        f"{split}: {corpus.seen:,} tokens counted, {np.count_nonzero(corpus.counts):,} ids occur, the largest is "
        f"{len(corpus.counts) - 1:,}; unigram entropy {entropy(corpus.counts):.3f} nats/token."
        for split, corpus in splits.items()
    ]


def plot_lengths(splits: Mapping[str, Corpus], ax: Axes | None = None) -> Figure:
    """Histogram of document lengths, in shares of the documents, on a logarithmic axis."""
    with style():
        figure, ax = canvas(ax, 6.4, 3.6)
        every = np.concatenate([corpus.lengths for corpus in splits.values()])
        if not len(every):
            empty(ax, "no document marks in these tokens")
            return figure
        bins = np.geomspace(every.min(), every.max() + 1, 25).tolist()
        for split, corpus in splits.items():
            colour, line = LOOKS[split]
            weights = np.full(len(corpus.lengths), 1 / max(len(corpus.lengths), 1))
            ax.hist(corpus.lengths, bins, weights=weights, histtype="step", color=colour, linestyle=line, label=split)
        ax.set(xscale="log", xlabel="length of a document (tokens)", ylabel="share of documents")
        ax.legend()
    return figure


def say_lengths(splits: Mapping[str, Corpus]) -> list[str]:
    """Number of documents, median and extremes."""
    words = []
    for split, corpus in splits.items():
        if not len(corpus.lengths):
            words.append(f"{split}: no whole document in the tokens counted.")
            continue
        low, middle, high = np.percentile(corpus.lengths, [0, 50, 100])
        words.append(
            f"{split}: {len(corpus.lengths):,} documents of {low:,.0f} to {high:,.0f} tokens, median {middle:,.0f}."
        )
    return words
