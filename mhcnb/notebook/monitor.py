"""A running training, live: losses as they come, the state in words, and a Stop button. Read from the run folder,
so it shows the same whoever trains."""

import threading
import time
from typing import TYPE_CHECKING, Any

from mhcnb.analysis import compare
from mhcnb.notebook.show import bundle, save, show
from mhcnb.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mhcnb.notebook.start import Training

EVERY_S = 1.0


def monitor(training: "Training") -> None:
    """A picture that follows the training until its end; a still one where it has ended already."""
    if training.ended:
        show(losses(training.run), describe(training.run), training.run.figures, "losses")
        return
    from IPython.display import display
    from ipywidgets import Button, Label, Layout, VBox

    words = Label(describe(training.run))
    button = Button(
        description="Stop after this step", tooltip="Leaves a checkpoint", layout=Layout(width="max-content")
    )
    button.on_click(lambda _: _ask(training, button))
    display(VBox([words, button]))
    handle: Any = display({"text/plain": "no losses yet"}, raw=True, display_id=True)
    follow = threading.Thread(target=_follow, args=(training, handle, words, button), name="mhcnb-monitor", daemon=True)
    follow.start()


def _ask(training: "Training", button: Any) -> None:
    training.stop()
    button.disabled, button.description = True, "Stopping ..."


def _follow(training: "Training", handle: Any, words: Any, button: Any) -> None:
    """Says and draws whatever is new, until the end; a problem is shown in the picture's place."""
    drawn = None
    while True:
        ended = training.ended
        words.value = describe(training.run)
        news = (len(training.run.results()), ended)
        if news != drawn and news[0]:
            try:
                figure = losses(training.run)
                data, metadata = bundle(figure, words.value)
                if ended:
                    save(figure, training.run.figures, "losses")
            except Exception as error:  # in a thread nobody would see it
                data, metadata = {"text/plain": f"no picture: {type(error).__name__}: {error}"}, {}
            handle.update(data, raw=True, metadata=metadata)
            drawn = news
        if ended:
            button.disabled, button.description = True, "Ended"
            return
        time.sleep(EVERY_S)


def losses(run: Run) -> "Figure":
    """The loss curves of one run so far."""
    from mhcnb.plots.curves import plot_losses

    members, _ = compare.read([run])
    entropy = compare.finals(members)["unigram_entropy"]
    return plot_losses(compare.curves(members), float(entropy.iloc[0]) if len(entropy) else float("nan"))


def describe(run: Run) -> str:
    """State, step, latest losses and speed in a sentence."""
    status, train, evals = run.status(), run.results("train"), run.results("eval")
    words = [f"{run.name} is {status.get('state', 'not started')} at step {status.get('step', 0)}"]
    if train:
        words.append(f"loss {train[-1]['loss']:.3f}, {train[-1]['tokens_per_s']:,.0f} tokens/s")
    if evals:
        words.append(f"val loss {evals[-1]['val_loss']:.3f} at step {evals[-1]['step']}")
    return "; ".join(words) + (f" ({status['reason']})" if status.get("reason") else "")
