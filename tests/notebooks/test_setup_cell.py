"""The setup cell: silent where the library is, else a wheel, the repository, or a clear error."""

from __future__ import annotations

import importlib.util

import pytest
import repository
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

URL = "https://github.com/example-owner/deep-companion"


@pytest.fixture(scope="module")
def shell() -> InteractiveShell:
    """Return an IPython shell that leaves no history behind."""
    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell(config=config)


@pytest.fixture
def run_setup(shell):
    """Return a function that runs the setup cell and returns what ``%pip`` was asked to do."""
    calls: list[str] = []
    shell.register_magic_function(calls.append, "line", "pip")

    def run(url: str) -> list[str]:
        shell.run_cell(repository.setup_cell(url)).raise_error()
        return calls

    return run


@pytest.fixture
def missing(monkeypatch, tmp_path):
    """Make companion_lib look absent, in an empty working directory."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_does_nothing_where_the_library_is_installed(run_setup, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_setup("") == []
    assert run_setup(URL) == []


def test_takes_the_newest_uploaded_wheel_first(run_setup, missing):
    (missing / "companion_lib-0.1.0-py3-none-any.whl").touch()
    (missing / "companion_lib-0.2.0-py3-none-any.whl").touch()
    assert run_setup(URL) == ["install --quiet companion_lib-0.2.0-py3-none-any.whl"]


def test_takes_the_repository_without_a_wheel(run_setup, missing):
    assert run_setup(URL) == [f"install --quiet git+{URL}"]


def test_says_what_to_do_with_neither(run_setup, missing, capsys):
    with pytest.raises(ModuleNotFoundError, match="make wheel"):
        run_setup("")
