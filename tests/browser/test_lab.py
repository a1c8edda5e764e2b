"""A widget in a live JupyterLab: Python moves it, and moving it reaches Python."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

TOKEN = "only-for-this-test"
START_SECONDS = 90
MOVE = "w.angle = 71.5\nprint('moved to', w.angle)"
REPORT = "print('angle is', w.angle)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(url: str, process: subprocess.Popen) -> None:
    """Wait until the server answers, or fail with what it said."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "JupyterLab stopped at once"
        try:
            with urllib.request.urlopen(f"{url}api/status?token={TOKEN}", timeout=5) as answer:
                json.load(answer)
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer within {START_SECONDS} s")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Run JupyterLab on a folder with one small notebook; yields the notebook's address."""
    folder = tmp_path_factory.mktemp("lab")
    cells = ["from companion_lib.widgets import RotateAndWatch\nw = RotateAndWatch()\nw"]
    cells += [MOVE, REPORT]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "live.ipynb")
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    settings = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
    env = os.environ | {name: str(folder / place) for name, place in settings.items()}
    with open(folder / "lab.log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/", process)
            yield f"http://127.0.0.1:{port}/lab/tree/live.ipynb?token={TOKEN}&reset"
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def notebook(new_page, lab):
    """Open the notebook and run its first cell, so that the widget is there."""
    page = new_page(1200, 1400)
    page.set_default_timeout(60_000)
    page.goto(lab)
    page.locator(".jp-NotebookPanel .jp-Cell").nth(2).wait_for()
    # Ready when the kernel's state is known to be idle.
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    run_cell(page, 0)
    page.locator(".companion-widget input[type=range]").first.wait_for()
    return page


def run_cell(page, index: int) -> None:
    page.locator(".jp-Cell .cm-content").nth(index).click()
    page.keyboard.press("Control+Enter")


def output(page, index: int, text: str):
    """Wait until the output of a cell contains a text, and return the output."""
    place = page.locator(".jp-Cell").nth(index).locator(".jp-OutputArea-output", has_text=text)
    place.first.wait_for()
    return place.first.inner_text()


def slider(page):
    """Return the slider of the rotation's angle."""
    return page.locator(".companion-widget input[type=range]").first


def test_python_moves_the_widget_and_the_widget_reaches_python(notebook):
    before = notebook.locator(".companion-widget svg.plot").first.inner_html()
    run_cell(notebook, 1)
    output(notebook, 1, "moved to 71.5")
    notebook.wait_for_function(
        "() => document.querySelector('.companion-widget input[type=range]').value === '71.5'"
    )
    assert notebook.locator(".companion-widget svg.plot").first.inner_html() != before

    slider(notebook).focus()
    notebook.keyboard.press("ArrowRight")
    value = float(slider(notebook).input_value())
    assert value > 71.5
    run_cell(notebook, 2)
    assert f"angle is {value:g}" in output(notebook, 2, "angle is")

    box = slider(notebook).bounding_box()
    middle = box["y"] + box["height"] / 2
    notebook.mouse.move(box["x"] + box["width"] * value / 180, middle)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=8)
    notebook.mouse.up()
    dragged = float(slider(notebook).input_value())
    assert dragged < 60
    run_cell(notebook, 2)
    assert float(output(notebook, 2, f"angle is {dragged:g}").split()[-1]) == dragged
