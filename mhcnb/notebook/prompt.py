"""A box to write into: a prompt, how tokens are drawn, Generate and Stop, and the text as it comes. Where nobody can
touch it, what follows the prompt that is given."""

import html
import threading
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mhcnb.errors import MhcnbError
from mhcnb.models.generation import Sampling
from mhcnb.notebook.controls import Slider, slider, wrapping
from mhcnb.notebook.parameters import checked
from mhcnb.notebook.start import headless
from mhcnb.notebook.writer import Writer, Writing

EVERY_S = 0.1  # between two looks at the text
Tokens = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0)]
READY = "Ready."


@checked
def prompt_box(run: str | Path, prompt: str, tokens: Tokens = 100, temperature: Temperature = 0.8) -> None:
    """Displays a box in which a run goes on with a text; where nobody watches, prints how it goes on with `prompt`.
    Raises as Writer.open does."""
    writer = Writer.open(run)
    if headless():
        writing = writer.write(prompt, tokens, Sampling(temperature))
        print(prompt + "".join(writing))
        print(f"({writing.words()})")
        return
    from IPython.display import display

    display(PromptBox(writer, prompt, tokens, temperature).box)


class PromptBox:
    """`box` is the widget. A thread writes, so that Stop can be pressed."""

    def __init__(self, writer: Writer, prompt: str, tokens: int, temperature: float) -> None:
        from ipywidgets import HTML, Button, HBox, Layout, Textarea, VBox

        self.writer, self.writing = writer, None
        self.prompt = Textarea(prompt, description="prompt", layout=Layout(width="auto", height="6em"))
        self.drawn = {name: slider(control) for name, control in _controls(writer, tokens, temperature).items()}
        self.generate = Button(description="Generate", tooltip="Goes on with the prompt")
        self.stop = Button(description="Stop", tooltip="Ends the text here", disabled=True)
        self.generate.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._stop())
        self.text, self.words = HTML(layout=Layout(max_width="100%")), HTML(_said(READY))
        rows = [row for _, row in self.drawn.values()]
        buttons = HBox([self.generate, self.stop])
        self.box = VBox([self.prompt, wrapping(rows), buttons, self.words, self.text])

    def value(self, name: str) -> Any:
        """Of one of the fields tokens, temperature, top_p, top_k and seed."""
        return self.drawn[name][0].value

    def _start(self) -> None:
        """An error is said in the words' place: a callback's would be lost in a log."""
        prompt, sampling = self.prompt.value, Sampling(*(self.value(k) for k in Sampling._fields))
        try:
            self.writing = self.writer.write(prompt, self.value("tokens"), sampling, self.value("seed"))
        except MhcnbError as error:
            self.words.value = f'<div role="alert"><b>Not written.</b> {html.escape(str(error))}</div>'
            return
        self.generate.disabled, self.stop.disabled = True, False
        self.words.value = _said("Writing ...")
        self.thread = threading.Thread(target=self._write, args=(prompt, self.writing), daemon=True)
        self.thread.start()

    def _stop(self) -> None:
        if self.writing is not None:
            self.writing.stopped = True

    def _write(self, prompt: str, writing: Writing) -> None:
        text, shown = "", 0.0
        try:
            for piece in writing:
                text += piece
                if time.monotonic() - shown > EVERY_S:
                    self.text.value, shown = _lines(prompt, text), time.monotonic()
            self.text.value, self.words.value = _lines(prompt, text), _said(writing.words())
        except Exception as error:  # in a thread nobody would see it
            self.words.value = f'<div role="alert"><b>{type(error).__name__}.</b> {html.escape(str(error))}</div>'
        finally:
            self.generate.disabled, self.stop.disabled = False, True


def _controls(writer: Writer, tokens: int, temperature: float) -> dict[str, Slider]:
    most = writer.block_size - 1
    help_k = "only so many of the most likely tokens; 0: all"
    return {
        "tokens": Slider("tokens", "tokens", min(tokens, most), 1, most),
        "temperature": Slider("temperature", "temperature", temperature, 0, 2, 0.05, help="0: the most likely token"),
        "top_p": Slider("top_p", "top p", 1.0, 0.05, 1.0, 0.05, help="only the most likely, with this probability"),
        "top_k": Slider("top_k", "top k", 0, 0, 200, help=help_k),
        "seed": Slider("seed", "seed", 0, 0, 1000, help="same seed, same text"),
    }


def _lines(prompt: str, text: str) -> str:
    """The prompt set apart from what was written."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;line-height:1.4"
    return f'<div style="{style}"><b>{html.escape(prompt)}</b>{html.escape(text)}</div>'


def _said(words: str) -> str:
    return f'<div role="status" style="line-height:1.4">{html.escape(words)}</div>'
