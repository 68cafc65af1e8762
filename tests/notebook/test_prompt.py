"""The prompt box as a person meets it, in the kernel's half, and what is printed where nobody is there."""

from types import SimpleNamespace

import pytest

from mhcnb.errors import DataError, NotebookError
from mhcnb.models.generation import Sampling
from mhcnb.notebook import prompt
from mhcnb.notebook.prompt import PromptBox, prompt_box
from mhcnb.notebook.writer import Writing

PIECES = ["<b>", " & ", "so", " on"]


class Fixed:
    """A writer that goes on with PIECES, or refuses an empty prompt."""

    block_size = 50

    def __init__(self, pieces=PIECES):
        self.pieces, self.asked = pieces, []

    def write(self, text, tokens, sampling, seed=0):
        self.asked.append((text, tokens, sampling, seed))
        if not text:
            raise DataError("the prompt is empty")
        return Writing(iter(self.pieces), tokens, self.block_size)


@pytest.fixture
def box():
    return PromptBox(Fixed(), "Once", 3, 0.5)


def pressed(box):
    box.generate.click()
    box.thread.join(10)


def test_generate_writes_the_text_after_the_prompt_and_says_how_it_ended(box):
    pressed(box)
    assert "<b>Once</b>&lt;b&gt; &amp; so on</div>" in box.text.value
    assert "4 tokens, " in box.words.value
    assert 'role="status"' in box.words.value
    assert (box.generate.disabled, box.stop.disabled) == (False, True)


def test_what_is_set_is_what_is_asked_for(box):
    pressed(box)
    box.prompt.value = "Twice"
    for name, value in (("tokens", 7), ("temperature", 1.5), ("top_p", 0.9), ("top_k", 40), ("seed", 5)):
        box.drawn[name][0].value = value
    pressed(box)
    assert box.writer.asked == [("Once", 3, Sampling(0.5, 1.0, 0), 0), ("Twice", 7, Sampling(1.5, 0.9, 40), 5)]


def test_stop_ends_it_between_two_tokens():
    def endless():
        while True:
            box.stop.click()  # pressed while it writes
            yield "x"

    box = PromptBox(Fixed(endless()), "Once", 3, 0.5)
    pressed(box)
    assert box.text.value.endswith("<b>Once</b>x</div>")
    assert "; stopped" in box.words.value


def test_errors_are_said_in_the_words_place_and_it_can_be_pressed_again(box):
    def failing():
        yield "x"
        raise ZeroDivisionError("a <fault>")

    box.prompt.value = ""
    box.generate.click()
    assert 'role="alert"' in box.words.value
    assert "the prompt is empty" in box.words.value
    box.prompt.value, box.writer.pieces = "Once", failing()
    pressed(box)
    assert "ZeroDivisionError" in box.words.value
    assert "a &lt;fault&gt;" in box.words.value
    assert (box.generate.disabled, box.stop.disabled) == (False, True)


def test_every_control_has_a_name(box):
    fields = [row.children[0].description for _, row in box.drawn.values()]
    assert fields == ["tokens", "temperature", "top p", "top k", "seed"]
    assert [w.description for w in (box.prompt, box.generate, box.stop)] == ["prompt", "Generate", "Stop"]


def test_alone_it_prints_the_text_and_with_a_person_it_shows_the_box(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(prompt, "Writer", SimpleNamespace(open=lambda run: Fixed()))
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setattr(prompt, "headless", lambda: True)
    prompt_box("outputs/any", "Once", 9)
    assert capsys.readouterr().out.startswith("Once<b> & so on\n(4 tokens, ")
    assert shown == []
    monkeypatch.setattr(prompt, "headless", lambda: False)
    prompt_box("outputs/any", "Once", 9)
    assert [type(widget).__name__ for widget in shown] == ["VBox"]
    with pytest.raises(NotebookError, match="parameter tokens = 0"):
        prompt_box("outputs/any", "Once", 0)
