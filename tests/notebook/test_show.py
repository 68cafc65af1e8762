import base64

import pytest
from matplotlib.figure import Figure

from mhcnb.errors import NotebookError
from mhcnb.notebook.show import save, show


def draw():
    figure = Figure(figsize=(4, 3))
    figure.add_subplot().plot([1, 2], [3, 4])
    return figure


def test_the_same_figure_gives_the_same_files(tmp_path):
    first, second = save(draw(), tmp_path / "a", "x"), save(draw(), tmp_path / "b", "x")
    assert [path.name for path in first] == ["x.png", "x.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    png, pdf = (path.read_bytes() for path in first)
    assert int.from_bytes(png[16:20], "big") == 4 * 200  # inches x dpi
    assert b"/CreationDate" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded


def test_a_figure_is_shown_with_its_words(tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **kwargs: shown.append((bundle, kwargs)))
    show(draw(), ["one", "two"], tmp_path, "x")
    show(draw(), "alone")
    (bundle, kwargs), (other, _) = shown
    assert base64.b64decode(bundle["image/png"]) == (tmp_path / "x.png").read_bytes()
    assert bundle["text/plain"] == "one\ntwo"
    assert kwargs == {"raw": True, "metadata": {"image/png": {"width": 400, "height": 300}}}
    assert other["image/png"] == bundle["image/png"]
    assert capsys.readouterr().out == "one\ntwo\nalone\n"


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotebookError, match="file/x"):
        save(draw(), tmp_path / "file", "x")
