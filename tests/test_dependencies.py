"""The bounds of pyproject.toml: Colab's own packages satisfy them, and so do the pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

# What Colab had installed in August 2026. Installing companion_lib there must replace none of it.
COLAB_PYTHON = "3.13"
COLAB = {
    "torch": "2.11.0+cu128",
    "numpy": "2.1.3",
    "scipy": "1.16.3",
    "matplotlib": "3.10.0",
    "ipywidgets": "7.7.1",
    "ipython": "7.34.0",
    "anywidget": "0.9.21",
    "scikit-learn": "1.6.1",
    "scikit-image": "0.25.2",
    "mlxtend": "0.23.4",
    "pooch": "1.9.0",
    "tqdm": "4.67.3",
    "triton": "3.6.0",
}
# Installed there too, in these versions or newer ones; bounds must be years old.
UNRECORDED = {
    "pyyaml": "6.0",
    "pillow": "11.0",
    "requests": "2.32",
    "cycler": "0.12",
    "traitlets": "5.7.1",
    "safetensors": "0.4",
}
# An exact version, perhaps for one system: Triton has packages for Linux only.
PIN = r'[\w.-]+==[\w.]+(; sys_platform == "linux")?'
# Imports companion_lib where importlib.metadata knows no such package: a clone on the path.
UNINSTALLED = """
from importlib import metadata
find = metadata.distribution
def hide(name):
    if name == "companion_lib":
        raise metadata.PackageNotFoundError(name)
    return find(name)
metadata.distribution = hide
import companion_lib
print(companion_lib.__version__)
"""


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def bounds(project) -> list[Requirement]:
    return [Requirement(line) for line in project["dependencies"]]


@pytest.fixture(scope="module")
def extras(project) -> list[Requirement]:
    return [
        Requirement(line) for group in project["optional-dependencies"].values() for line in group
    ]


def pins(path) -> dict[str, str]:
    lines = re.findall(r"(?m)^([\w.-]+)==([\w.]+)", path.read_text())
    return {canonicalize_name(name): version for name, version in lines}


def imported(path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in names | {node.module for node in froms}}


def test_every_import_is_declared(bounds, extras, root):
    names = set().union(*map(imported, (root / "companion_lib").rglob("*.py")))
    outside = names - sys.stdlib_module_names - {"companion_lib"}
    distributions = packages_distributions()
    used = {canonicalize_name(distributions.get(name, [name])[0]) for name in outside}
    assert used <= {canonicalize_name(bound.name) for bound in bounds + extras}


def test_a_clone_that_is_not_installed_can_be_imported(root):
    result = subprocess.run(
        [sys.executable, "-c", UNINSTALLED], cwd=root, capture_output=True, text=True
    )
    assert result.stdout.strip() == version("companion_lib"), result.stderr


def test_colab_satisfies_every_bound(bounds, extras, project):
    for bound in bounds + extras:
        name = canonicalize_name(bound.name)
        have = COLAB.get(name) or UNRECORDED[name]
        assert bound.specifier.contains(have), f"{bound} would replace Colab's {have}"
    assert SpecifierSet(project["requires-python"]).contains(COLAB_PYTHON)


def test_no_bound_is_a_pin_or_a_cap(bounds, extras):
    for bound in bounds + extras:
        assert {clause.operator for clause in bound.specifier} == {">="}, str(bound)


def test_pins_satisfy_every_bound(bounds, extras, root):
    pinned = pins(root / "requirements-test.txt") | pins(root / "requirements.txt")
    for bound in bounds + extras:
        assert bound.specifier.contains(pinned[canonicalize_name(bound.name)]), str(bound)


def test_requirements_are_exact_and_portable(root):
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (root / name).read_text().splitlines():
            assert not line or line.startswith("#") or re.fullmatch(PIN, line), line


def test_the_two_lists_agree(root):
    reading, testing = pins(root / "requirements.txt"), pins(root / "requirements-test.txt")
    shared = reading.keys() & testing.keys()
    assert {name: reading[name] for name in shared} == {name: testing[name] for name in shared}
