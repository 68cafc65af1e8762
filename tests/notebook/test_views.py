import pandas

from mhcnb.notebook.views import by_setting


def test_each_setting_has_a_figure_of_its_own_under_a_name_that_any_file_system_takes():
    frame = pandas.DataFrame({"setting": ["small", "tiny data.root=/a b", "small"], "x": [1, 2, 3]})
    parts = {name: part["x"].tolist() for name, part in by_setting(frame, "losses")}
    assert parts == {"losses-small": [1, 3], "losses-tiny-data.root=-a-b": [2]}


def test_one_setting_needs_no_name_and_no_runs_no_figure():
    frame = pandas.DataFrame({"setting": ["tiny"]})
    assert [name for name, _ in by_setting(frame, "losses")] == ["losses"]
    assert list(by_setting(frame.iloc[:0], "losses")) == []
