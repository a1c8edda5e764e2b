"""A widget in a live JupyterLab: Python moves it, and moving it reaches Python."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

TOKEN = "only-for-this-test"
SECONDS = 180  # for anything JupyterLab does; some of it is slow beside other tests
PATIENCE = 10  # before a key counts as dropped
MOVE = "w.angle = 71.5\nprint('moved to', w.angle)"
REPORT = "print('angle is', w.angle)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers, or fail with what it said."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"JupyterLab stopped:\n{log.read_text(encoding='utf-8')}"
        try:
            with urllib.request.urlopen(f"{url}api/status?token={TOKEN}", timeout=5) as answer:
                json.load(answer)
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer within {SECONDS} s")


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
    log = folder / "lab.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/", process, log)
            yield f"http://127.0.0.1:{port}/lab/tree/live.ipynb?token={TOKEN}&reset"
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)


@pytest.fixture
def notebook(new_page, lab):
    """Open the notebook and run its first cell, so that the widget is there."""
    page = new_page(1200, 1400)
    page.set_default_timeout(1000 * SECONDS)
    page.goto(lab)
    page.locator(".jp-NotebookPanel .jp-Cell").nth(2).wait_for()
    # Ready when the kernel's state is known to be idle.
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    run_cell(page, 0)
    page.locator(".companion-widget input[type=range]").first.wait_for()
    return page


def run_cell(page, index: int) -> str:
    """Run a cell, wait until it has run, and return what it printed."""
    cell = page.locator(".jp-Cell").nth(index)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    # The prompt goes from an old number, or none, by way of a star to a new number. While the page
    # is still being set up JupyterLab may drop keys without a word, so they are pressed again.
    deadline = time.monotonic() + SECONDS
    while prompt.inner_text() == before:
        assert time.monotonic() < deadline, f"cell {index} did not start in {SECONDS} s"
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        with contextlib.suppress(AssertionError):
            expect(prompt).not_to_have_text(before, timeout=1000 * PATIENCE)
    expect(prompt).to_have_text(re.compile(r"\d+"), timeout=1000 * SECONDS)
    return "".join(cell.locator(".jp-OutputArea-output pre").all_inner_texts()).strip()


def wait_until_python_has(page, angle: float) -> None:
    """Ask until the kernel has the slider's last move: moves travel in messages of their own."""
    deadline = time.monotonic() + SECONDS
    while (printed := run_cell(page, 2)) != f"angle is {angle}":
        assert time.monotonic() < deadline, f"the slider is at {angle}, Python says {printed!r}"


def slider(page):
    """Return the slider of the rotation's angle."""
    return page.locator(".companion-widget input[type=range]").first


def test_python_moves_the_widget_and_the_widget_reaches_python(notebook):
    before = notebook.locator(".companion-widget svg.plot").first.inner_html()
    assert run_cell(notebook, 1) == "moved to 71.5"
    notebook.wait_for_function(
        "() => document.querySelector('.companion-widget input[type=range]').value === '71.5'"
    )
    assert notebook.locator(".companion-widget svg.plot").first.inner_html() != before

    slider(notebook).focus()
    notebook.keyboard.press("ArrowRight")
    value = float(slider(notebook).input_value())
    assert value > 71.5
    wait_until_python_has(notebook, value)

    box = slider(notebook).bounding_box()
    middle = box["y"] + box["height"] / 2
    notebook.mouse.move(box["x"] + box["width"] * value / 180, middle)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=8)
    notebook.mouse.up()
    dragged = float(slider(notebook).input_value())
    assert dragged < 60
    wait_until_python_has(notebook, dragged)
