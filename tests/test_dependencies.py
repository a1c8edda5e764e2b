"""The bounds of pyproject.toml: Colab's own packages satisfy them, and so do the pins."""

from __future__ import annotations

import re
import tomllib

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
}
# Installed there too, in versions that were not recorded; bounds must be years old.
UNRECORDED = {"pyyaml": "6.0"}


@pytest.fixture(scope="module")
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def bounds(project) -> list[Requirement]:
    return [Requirement(line) for line in project["dependencies"]]


def pins(path) -> dict[str, str]:
    lines = re.findall(r"(?m)^([\w.-]+)==(\S+)$", path.read_text())
    return {canonicalize_name(name): version for name, version in lines}


def test_colab_satisfies_every_bound(bounds, project):
    for bound in bounds:
        name = canonicalize_name(bound.name)
        have = COLAB.get(name) or UNRECORDED[name]
        assert bound.specifier.contains(have), f"{bound} would replace Colab's {have}"
    assert SpecifierSet(project["requires-python"]).contains(COLAB_PYTHON)


def test_no_bound_is_a_pin_or_a_cap(bounds):
    for bound in bounds:
        assert {clause.operator for clause in bound.specifier} == {">="}, str(bound)


def test_pins_satisfy_every_bound(bounds, root):
    pinned = pins(root / "requirements.txt")
    for bound in bounds:
        assert bound.specifier.contains(pinned[canonicalize_name(bound.name)]), str(bound)


def test_requirements_are_exact_and_portable(root):
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (root / name).read_text().splitlines():
            assert not line or line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_the_two_lists_agree(root):
    reading, testing = pins(root / "requirements.txt"), pins(root / "requirements-test.txt")
    shared = reading.keys() & testing.keys()
    assert {name: reading[name] for name in shared} == {name: testing[name] for name in shared}
