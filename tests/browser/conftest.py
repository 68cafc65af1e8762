"""A real JupyterLab on loopback with a copy of the notebooks, driven in a real headless Chromium."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "outputs" / "screenshots"
# in 02, as its JSON has it: until it is stopped, with records that come soon
BRIEF = 'train.steps\\": 60'
LONG = 'train.steps\\": 100000, \\"log.every\\": 2, \\"log.maps_every\\": 5'
KERNEL_READY = """
const context = jupyterapp.shell.currentWidget?.context?.sessionContext;
const kernel = context?.session?.kernel;
return Boolean(context?.isReady && kernel?.connectionStatus === 'connected' && kernel?.status === 'idle');
"""
RUN_ALL = """
const done = arguments[arguments.length - 1];
jupyterapp.commands.execute('notebook:run-all-cells').then(() => done('ran'), error => done(String(error)));
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """What a user has: running a notebook writes its outputs into this copy, where 02 trains until it is stopped."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name)
    notebook = folder / "notebooks" / "02-train.ipynb"
    text = notebook.read_text()
    assert BRIEF in text
    notebook.write_text(text.replace(BRIEF, LONG))
    return folder


@pytest.fixture(scope="session")
def lab(project, tmp_path_factory):
    """The address of a running JupyterLab."""
    home = tmp_path_factory.mktemp("jupyter")
    settings = {  # all cells in the page, not only those in sight; no question about news over them
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in settings.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    folders = {"CONFIG": "config", "DATA": "data", "RUNTIME": "runtime"}
    environment = os.environ | {f"JUPYTER_{name}_DIR": str(home / folder) for name, folder in folders.items()}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "spaces"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={project}"]
    options += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(lambda: _answers(port), 60, f"JupyterLab did not start: {(home / 'log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    paths = [shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")]
    if not all(paths):
        pytest.skip("needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync --window-size=1400,1000"
    for flag in flags.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    driver.set_script_timeout(240)
    yield driver
    driver.quit()


class Page:
    """A notebook in the browser."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        _wait(lambda: driver.execute_script("return Boolean(window.jupyterapp)"), 60, "the page did not load")
        _wait(lambda: driver.find_elements("css selector", ".jp-Notebook .jp-Cell"), 60, "no notebook")
        _wait(lambda: driver.execute_script(KERNEL_READY), 60, "no kernel")

    def run_all(self):
        assert self.driver.execute_async_script(RUN_ALL) == "ran"
        return self

    def errors(self):
        return self._texts('[data-mime-type="application/vnd.jupyter.error"]')

    def pictures(self):
        """The width of each picture that is drawn."""
        script = "return [...document.querySelectorAll('.jp-OutputArea img')].map(e => e.naturalWidth)"
        return [width for width in self.driver.execute_script(script) if width]

    def printed(self):
        return "\n".join(self._texts(".jp-OutputArea-output"))

    def _texts(self, css):
        """In one go: an element found may be gone when it is asked for its text."""
        return self.driver.execute_script(f"return [...document.querySelectorAll('{css}')].map(e => e.innerText)")

    def button(self, text):
        buttons = self.driver.find_elements("css selector", ".jp-OutputArea button.widget-button")
        return next((button for button in buttons if button.text.startswith(text)), None)

    def said(self):
        """What each explorer says of its picture."""
        return self._texts('.jp-OutputArea [role="status"]')

    def press(self, label, keys):
        """Keys on the handle of the slider beside the first field of that name."""
        rows = self.driver.find_elements("xpath", f"//label[text()='{label}']/ancestor::*[.//*[@role='slider']][1]")
        handle = rows[0].find_element("css selector", '[role="slider"]')
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", handle)
        handle.send_keys(keys)

    def screenshot(self, name, css='.jp-OutputArea [role="status"]'):
        """Kept for people to look at, scrolled to the first of what the selector finds."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        found = self.driver.find_elements("css selector", css)
        if found:
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def wait(self, condition, seconds, what):
        _wait(condition, seconds, what)


@pytest.fixture
def open_notebook(lab, browser):
    """open_notebook("03-stability") -> Page."""
    yield lambda name: Page(browser, f"{lab}/lab/tree/notebooks/{name}.ipynb?reset")
    browser.execute_async_script(
        "const done = arguments[0]; jupyterapp.serviceManager.sessions.shutdownAll().then(done, done)"
    )


def _answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2).status == 200
    except OSError:
        return False


def _wait(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
