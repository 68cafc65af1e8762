"""Controls around a figure: `explore(draw, controls)`. draw(**state) gives a figure and its result in words; where
nobody can touch it (papermill, an untrusted or exported notebook) the same figure of the same state is shown alone.

Every control works by keyboard and has a visible name that belongs to its field: a slider's handle has none of its
own, so a field for its number stands beside it. The result is stated in words whenever it changes.
"""

import html
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mhcnb.errors import MhcnbError
from mhcnb.notebook.show import bundle, save, show
from mhcnb.notebook.start import headless

if TYPE_CHECKING:
    from matplotlib.figure import Figure

State = dict[str, Any]
Draw = Callable[..., tuple["Figure", str]]
WIDE = {"description_width": "initial"}  # a name is never cut off
WRAPPING = dict(flex_flow="row wrap", align_items="center", grid_gap="4px 18px")  # beside one another where they fit


class Slider(NamedTuple):
    """A number from low to high; whole where `step` is. With `log`, low and high are powers of ten, step a tenth."""

    name: str
    label: str  # with its unit
    value: float
    low: float
    high: float
    step: float = 1
    log: bool = False
    help: str = ""


class Menu(NamedTuple):
    """One of `options`: (text, value) each."""

    name: str
    label: str
    value: Any
    options: Iterable[tuple[str, Any]]
    help: str = ""


class Text(NamedTuple):
    """A line of text, taken when it is left or Enter is pressed."""

    name: str
    label: str
    value: str
    help: str = ""


class Jump(NamedTuple):
    """A button; `to(**state)` gives the controls that it sets."""

    label: str
    to: Callable[..., State]
    help: str = ""


Control = Slider | Menu | Text | Jump


def explore(draw: Draw, controls: Iterable[Control], name: str, folder: str | Path | None = None) -> None:
    """Displays draw of the controls' values with the controls, or alone where nobody watches; saves that picture."""
    controls = list(controls)
    state: State = {c.name: c.value for c in controls if not isinstance(c, Jump)}
    if headless():
        show(*draw(**state), folder, name)
        return
    from IPython.display import display

    explorer = Explorer(draw, controls, state)
    figure, words = draw(**state)
    if folder:
        save(figure, folder, name)
    explorer.put(figure, words)
    data, metadata = bundle(figure, words)
    live: Any = explorer.box._repr_mimebundle_()
    display(live | data, raw=True, metadata=metadata)  # where widgets are not drawn, the picture is


class Explorer:
    """The controls, the picture and the words under it. `box` is the widget, `state` what is drawn now."""

    def __init__(self, draw: Draw, controls: list[Control], state: State) -> None:
        from ipywidgets import HTML, Layout, VBox

        self.draw, self.state = draw, state
        self.widgets: dict[str, Any] = {}
        self._held = False
        rows = [self._row(control) for control in controls]
        self.picture = HTML(layout=Layout(max_width="100%"))
        self.words = HTML(layout=Layout(max_width="100%"))
        self.box = VBox([wrapping(rows), self.words, self.picture])

    def put(self, figure: "Figure", words: str) -> None:
        """Shows a picture and says its result."""
        self.words.value = f'<div role="status" style="line-height:1.4">{_lines(words)}</div>'
        data, metadata = bundle(figure, words, dpi=120)
        width = metadata["image/png"]["width"]
        self.picture.value = (
            f'<img alt="{html.escape(words)}" style="width:{width}px;max-width:100%" '
            f'src="data:image/png;base64,{data["image/png"]}">'
        )

    def redraw(self) -> None:
        """Draws the present values. A callback's error would be lost in a log: it is said in the words' place."""
        try:
            self.put(*self.draw(**self.state))
        except Exception as error:
            name = "" if isinstance(error, MhcnbError) else f"{type(error).__name__}: "
            self.words.value = f'<div role="alert"><b>Not drawn.</b> {_lines(name + str(error))}</div>'

    def _changed(self, name: str, value: Any) -> None:
        self.state[name] = value
        if not self._held:
            self.redraw()

    def _jump(self, jump: Jump) -> None:
        self._held = True
        try:
            for name, value in jump.to(**self.state).items():
                self.widgets[name].value = value
        finally:
            self._held = False
        self.redraw()

    def _row(self, control: Control) -> Any:
        if isinstance(control, Jump):
            from ipywidgets import Button, Layout

            button = Button(description=control.label, tooltip=control.help, layout=Layout(width="max-content"))
            button.on_click(lambda _: self._jump(control))
            return button
        widget, row = slider(control) if isinstance(control, Slider) else _field(control)
        self.widgets[control.name] = widget
        widget.observe(lambda change: self._changed(control.name, change["new"]), "value")
        return row


def slider(control: Slider) -> tuple[Any, Any]:
    """(the widget whose value counts, the row): a field for the number, and the slider, linked in the browser."""
    import ipywidgets as W

    whole = not control.log and float(control.step).is_integer()
    given: dict[str, Any] = dict(value=control.value, description=control.label, tooltip=control.help, style=WIDE)
    bar: dict[str, Any] = dict(readout=False, continuous_update=False, tooltip=control.help, value=control.value)
    bar["layout"] = W.Layout(width="150px")
    if control.log:
        low, high = 10**control.low, 10**control.high
        field = W.BoundedFloatText(min=low, max=high, step=low, layout=W.Layout(width="auto"), **given)
        slider = W.FloatLogSlider(min=control.low, max=control.high, step=0.1, **bar)
    else:
        limits: dict[str, Any] = dict(min=control.low, max=control.high, step=control.step)
        Field, Bar = (W.BoundedIntText, W.IntSlider) if whole else (W.BoundedFloatText, W.FloatSlider)
        field, slider = Field(layout=W.Layout(width="auto"), **limits, **given), Bar(**limits, **bar)
    W.jslink((slider, "value"), (field, "value"))
    row = W.HBox([field, slider], layout=W.Layout(flex_flow="row wrap", max_width="100%"))
    return slider, row


def _field(control: Menu | Text) -> tuple[Any, Any]:
    import ipywidgets as W

    given: dict[str, Any] = dict(value=control.value, description=control.label, tooltip=control.help, style=WIDE)
    given["layout"] = W.Layout(width="auto", max_width="100%")
    if isinstance(control, Text):  # as wide as what stands in it at first
        given["layout"].width = f"{max(24, len(control.label) + len(control.value) + 6)}ch"
        widget = W.Text(continuous_update=False, **given)
    else:
        widget = W.Dropdown(options=list(control.options), **given)
    return widget, widget


def wrapping(rows: list[Any]) -> Any:
    """Side by side where there is room, one below the other on a narrow screen."""
    from ipywidgets import HBox, Layout

    return HBox(rows, layout=Layout(**WRAPPING))


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
