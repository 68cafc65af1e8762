"""The notebooks as a person opens them: every cell runs, pictures appear, a training is stopped by its button."""

import pytest

from mhcnb.run import Run

pytestmark = pytest.mark.browser


def test_02_trains_in_the_background_and_stops_at_the_button(open_notebook, project):
    page = open_notebook("02-train").run_all()
    run = Run(project / "outputs" / "mhc-tiny-s1")
    page.wait(lambda: page.button("Stop after this step"), 30, "no Stop button")
    page.wait(lambda: run.results("train"), 60, f"no training: {page.printed()}")
    page.button("Stop after this step").click()
    page.wait(lambda: run.status().get("state") in ("stopped", "done"), 60, "it did not stop")
    assert run.status()["reason"] == "asked by control/stop"
    page.wait(lambda: page.button("Ended"), 30, "the button does not say that it ended")
    page.wait(lambda: "is stopped at step" in page.printed(), 30, "the state is not said")
    assert page.errors() == []
    assert page.pictures()


@pytest.mark.parametrize(("name", "pictures"), [("01-data", 2), ("03-stability", 4), ("04-compare", 3)])
def test_every_cell_runs_and_pictures_are_drawn(open_notebook, project, name, pictures):
    """03 and 04 look at whatever the test above has trained."""
    page = open_notebook(name)
    if name != "01-data":
        (project / "outputs" / "demo").mkdir(parents=True, exist_ok=True)
        trained = project / "outputs" / "mhc-tiny-s1"
        if trained.is_dir():
            trained.rename(project / "outputs" / "demo" / trained.name)
    page.run_all()
    assert page.errors() == []
    page.wait(lambda: len(page.pictures()) >= pictures, 10, f"{len(page.pictures())} pictures; {page.printed()}")
