"""The board in a real JupyterLab: it follows a real sweep by itself, and its button stops a cell."""

import json
import os
import subprocess
import sys
import time

import pytest

from mhcnb.run import Run

pytestmark = pytest.mark.browser
SWEEP = """# two cells, one after the other, that train until they are stopped
base: params/gpt/tiny.yaml
grid: {connection.name: [residual, hc]}
overrides: {train.steps: 100000, log.every: 2}
"""


@pytest.fixture
def sweep(project):
    """The folder of a sweep that runs for as long as the test does."""
    file = project / "params" / "sweeps" / "endless.yaml"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "mhcnb", "sweep", str(file), "--out", str(project / "outputs" / "endless")]
    driver = subprocess.Popen(
        command, cwd=project, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    yield project / "outputs" / "endless"
    if driver.poll() is None:
        driver.terminate()
        time.sleep(1)
        driver.terminate()  # once to stop, twice to kill
    driver.wait(30)


def test_00_follows_a_sweep_and_its_button_stops_a_cell(sweep, open_notebook, project):
    notebook = project / "notebooks" / "00-board.ipynb"
    notebook.write_text(notebook.read_text().replace("outputs/demo", "outputs/endless"))
    page = open_notebook("00-board")
    first, second = Run(sweep / "residual-tiny-s1"), Run(sweep / "hc-tiny-s1")
    page.wait(lambda: first.status().get("step", 0) > 2, 30, "no training")
    page.run_all()
    page.wait(lambda: page.button("Stop after its step"), 20, f"no button: {page.printed()}")
    page.wait(lambda: "1 planned, 1 running" in page.printed(), 10, page.printed())
    before = page.printed()
    page.wait(lambda: page.printed() != before and "tokens/s" in page.printed(), 15, "it does not follow")
    page.screenshot("00-board", "button.widget-button")
    page.button("Stop after its step").click()
    page.wait(lambda: first.status()["state"] == "stopped", 20, "it did not stop")
    assert second.status().get("state") != "stopped"
    page.wait(lambda: "1 interrupted" in page.printed(), 15, f"the end is not said: {page.printed()}")
    assert json.loads((sweep / "cells.json").read_text())["cells"][first.name]["state"] == "interrupted"
    links = page.driver.find_elements("css selector", ".jp-OutputArea td a")
    assert [link.text for link in links][:1] == ["I"]
    page.driver.execute_script("arguments[0].click()", links[0])
    script = "return jupyterapp.shell.currentWidget?.context?.path"
    path = f"outputs/endless/{first.name}/notebook.ipynb"
    page.wait(lambda: page.driver.execute_script(script) == path, 10, "the link does not lead to the notebook")
    assert page.errors() == []
