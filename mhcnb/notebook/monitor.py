"""A running training, live: its records as they come, the state in words, buttons to stop it or to save a checkpoint.
Read from the run folder, so it shows the same whoever trains."""

import html
import threading
import time
from typing import TYPE_CHECKING, Any

from mhcnb.analysis import compare
from mhcnb.analysis.healthy import say_amax
from mhcnb.notebook.controls import WRAPPING
from mhcnb.notebook.show import bundle, save, show
from mhcnb.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mhcnb.notebook.start import Training

EVERY_S = 1.0
SILENT_S = 60.0
STOP, CHECKPOINT = "Stop after this step", "Checkpoint now"


def monitor(training: "Training") -> None:
    """A picture that follows the training until its end; a still one where it has ended already."""
    if training.ended:
        still(training.run)
        return
    from IPython.display import display

    panel = Panel(training)
    display(panel.box)
    handle: Any = display({"text/plain": "no losses yet"}, raw=True, display_id=True)
    threading.Thread(target=_follow, args=(panel, handle), name="mhcnb-monitor", daemon=True).start()


def still(run: Run) -> None:
    """The picture of a run so far, and its losses as a file."""
    save(losses(run), run.figures, "losses")
    show(picture(run), describe(run), run.figures, "monitor")


class Panel:
    """The state in words and the two buttons."""

    def __init__(self, training: "Training") -> None:
        from ipywidgets import HTML, Button, HBox, Layout, VBox

        self.training, self.run = training, training.run
        wide = Layout(width="max-content")
        self.words = HTML(_lines(describe(self.run)))
        self.stop = Button(description=STOP, tooltip="Ends the training; leaves a checkpoint", layout=wide)
        self.checkpoint = Button(description=CHECKPOINT, tooltip="Saves one; the training goes on", layout=wide)
        self.stop.on_click(lambda _: self._stop())
        self.checkpoint.on_click(lambda _: self._checkpoint())
        self.box = VBox([self.words, HBox([self.stop, self.checkpoint], layout=Layout(**WRAPPING))])

    def refresh(self) -> None:
        """Says the present state."""
        self.words.value = _lines(describe(self.run))
        if self.checkpoint.disabled and not self.run.requested("checkpoint"):
            self.checkpoint.disabled, self.checkpoint.description = False, CHECKPOINT

    def end(self) -> None:
        """Nothing more to press."""
        self.stop.disabled, self.stop.description = True, "Ended"
        self.checkpoint.disabled, self.checkpoint.description = True, CHECKPOINT

    def _stop(self) -> None:
        self.training.stop()
        self.stop.disabled, self.stop.description = True, "Stopping ..."

    def _checkpoint(self) -> None:
        self.run.request("checkpoint")
        self.checkpoint.disabled, self.checkpoint.description = True, "Saving ..."


def _follow(panel: Panel, handle: Any) -> None:
    """Says and draws whatever is new, until the end; a problem is shown in the picture's place."""
    drawn, run = None, panel.run
    while True:
        ended = panel.training.ended
        panel.refresh()
        news = (len(run.results()), ended)
        if news != drawn and news[0]:
            try:
                figure = picture(run)
                data, metadata = bundle(figure, describe(run))
                if ended:
                    save(losses(run), run.figures, "losses")
                    save(figure, run.figures, "monitor")
            except Exception as error:  # in a thread nobody would see it
                data, metadata = {"text/plain": f"no picture: {type(error).__name__}: {error}"}, {}
            handle.update(data, raw=True, metadata=metadata)
            drawn = news
        if ended:
            panel.end()
            return
        time.sleep(EVERY_S)


def losses(run: Run) -> "Figure":
    """The loss curves of one run so far."""
    from mhcnb.plots.curves import plot_losses

    return plot_losses(*_curves(run))


def picture(run: Run) -> "Figure":
    """Loss, gradient norm, tokens/s and gains of one run so far."""
    from mhcnb.plots.live import plot_live

    curves, entropy = _curves(run)
    return plot_live(curves, run.results(), entropy)


def describe(run: Run) -> str:
    """State, step, latest losses, speed, memory and gains; the age of the last news while it trains; warnings."""
    status, train, evals = run.status(), run.results("train"), run.results("eval")
    step = max([status.get("step", 0), *(records[-1]["step"] for records in (train, evals) if records)])
    words = [f"{run.name} is {status.get('state', 'not started')} at step {step}"]
    if train:
        last = train[-1]
        words.append(f"loss {last['loss']:.3f}, gradient norm {last['grad_norm']:.3g}")
        words.append(f"{last['tokens_per_s']:,.0f} tokens/s")
        words += [f"peak memory {last['peak_memory_gb']:.2f} GB"] if "peak_memory_gb" in last else []
    if evals:
        words.append(f"val loss {evals[-1]['val_loss']:.3f} at step {evals[-1]['step']}")
    words += _gains(run) + _checkpoints(run) + _age(run, status)
    text = "; ".join(words) + (f" ({status['reason']})" if status.get("reason") else "")
    return "\n".join([text, *status.get("words", [])])


def _gains(run: Run) -> list[str]:
    from mhcnb.plots.live import largest

    maps = run.results("maps")
    if not maps:
        return []
    forward, backward = (largest(maps[-1]["composite"], side) for side in ("forward", "backward"))
    words = [f"composite gain at step {maps[-1]['step']} forward {forward:.4g}, backward {backward:.4g}"]
    return [*words, *filter(None, [say_amax(maps[-1], run.config.log)])]


def _checkpoints(run: Run) -> list[str]:
    found = run.checkpoints()
    return [f"{len(found)} checkpoint(s), the last of step {int(found[-1].name[5:])}"] if found else []


def _age(run: Run, status: dict[str, Any]) -> list[str]:
    """How long ago the training wrote something, while it should."""
    if status.get("state") not in ("starting", "running"):
        return []
    results = run.path / "results.jsonl"
    written = results.stat().st_mtime if results.is_file() else 0.0
    age = max(0.0, time.time() - max(written, status.get("heartbeat", 0.0)))
    return [f"last news {age:.0f} s ago" + (": it may have died" if age > SILENT_S else "")]


def _curves(run: Run) -> tuple[Any, float]:
    members, _ = compare.read([run])
    entropy = compare.finals(members)["unigram_entropy"]
    return compare.curves(members), float(entropy.iloc[0]) if len(entropy) else float("nan")


def _lines(text: str) -> str:
    return f'<div style="line-height:1.4">{html.escape(text)}</div>'.replace("\n", "<br>")
