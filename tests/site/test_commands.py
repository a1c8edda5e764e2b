"""The Makefile, the script for clean machines and the tools: what they run, and when."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

URL = "https://github.com/example-owner/deep-companion"
MAKE_VENV = "-m venv .venv"


@pytest.fixture
def checkout(root, tmp_path) -> Path:
    """Return a folder, with a space in its name, that holds what the Makefile needs."""
    target = tmp_path / "a clone"
    target.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-test.txt"):
        shutil.copy2(root / name, target)
    return target


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    # Under `make test` these would hand that make's own options to this one.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name} | variables
    return subprocess.run(["make", *words], cwd=folder, env=env, capture_output=True, text=True)


def finish_venv(folder: Path) -> None:
    """Leave what a finished installation leaves."""
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".ready").write_text(f"{folder}\n", encoding="utf-8")
    (folder / ".venv" / ".ready-test").touch()


def test_a_finished_venv_is_left_alone(checkout):
    finish_venv(checkout)
    assert MAKE_VENV not in make(checkout, "-n", "site").stdout


def test_an_interrupted_venv_is_made_again(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").touch(mode=0o755)
    assert MAKE_VENV in make(checkout, "-n", "site").stdout


def test_a_moved_checkout_is_installed_again(checkout):
    finish_venv(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert MAKE_VENV in make(moved, "-n", "site").stdout


def test_the_suites_run_one_after_another(checkout):
    finish_venv(checkout)
    log = checkout / "log"
    (checkout / "suite.sh").write_text("echo start >> log; sleep 0.3; echo end >> log\n")
    result = make(checkout, "-j3", "test", "RUN=sh suite.sh")
    assert result.returncode == 0, result.stderr
    assert log.read_text().split() == ["start", "end"] * 3


def test_the_address_is_taken_out_on_request_only(checkout):
    finish_venv(checkout)
    for given in ({}, {"URL": URL}):  # what the shell exports is no request
        refused = make(checkout, "-n", "repository", **given)
        assert refused.returncode != 0
        assert "URL=https://github.com/OWNER/NAME" in refused.stderr
    assert make(checkout, "-n", "repository", "URL=").stdout.endswith('repository.py ""\n')
    assert make(checkout, "-n", "repository", f"URL={URL}").stdout.endswith(f'"{URL}"\n')


@pytest.mark.parametrize("browser", [None, "chromium", "chromium-browser"])
def test_a_clean_machine_gets_what_it_lacks(root, tmp_path, browser):
    """Every command is a stand-in that writes down how it was called; this Python has no venv."""
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    commands = {"apt-get": 0, "make": 0, "python3": 1} | ({browser: 0} if browser else {})
    for name, code in commands.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/log"\nexit {code}\n')
        script.chmod(0o755)
    subprocess.run([root / ".ci" / "run"], env={"PATH": str(tmp_path)}, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    installed = next(line for line in lines if line.startswith("apt-get install"))
    wanted = ["git", "python3-venv"] + ([] if browser else ["chromium"])
    assert [word for word in installed.split()[2:] if not word.startswith("-")] == wanted
    assert lines[-1] == "make test"


def test_text_is_read_and_written_as_utf_8(root):
    """Without ``encoding=`` the machine's locale decides."""
    folders = (root / "tools", root / "book", root / "companion_lib")
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("read_text", "write_text"):
                    named = {keyword.arg for keyword in node.keywords}
                    assert "encoding" in named, f"{path.relative_to(root)}:{node.lineno}"
