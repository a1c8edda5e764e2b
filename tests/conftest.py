"""What all tests share: the repository's files, one clean build of the site, looks at memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch
from filelock import FileLock
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from build_site import BuildError, build  # noqa: E402


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id) -> Path:
    """Return the folder of the site, built from clean with warnings as errors.

    Worker processes share the build: the first one makes it, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    log = shared / "site.log"
    with FileLock(shared / "site.lock"):
        if not log.exists():
            try:
                build(shared / "site")
                log.write_text("")
            except BuildError as error:
                log.write_text(str(error))
    if log.read_text():
        pytest.fail(f"the site does not build without warnings:\n{log.read_text()}", pytrace=False)
    return shared / "site" / "_build" / "html"


@pytest.fixture(scope="session")
def notebooks(root) -> dict[str, nbformat.NotebookNode]:
    """Return every notebook by file name."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    return {path.name: nbformat.read(path, as_version=4) for path in paths}


class LargestTensor(TorchDispatchMode):
    """Records the number of entries of the largest tensor that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.entries = max(self.entries, x.numel())
        return result


@pytest.fixture
def largest_tensor() -> LargestTensor:
    """Watch for the largest tensor: ``with largest_tensor:``, then ``largest_tensor.entries``."""
    return LargestTensor()


# VmHWM is the peak of this process alone. ``ru_maxrss`` of a child starts at its parent's peak, and
# would hide whatever stays below that of the tests.
PEAK = """
import pathlib, re
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
"""


@pytest.fixture
def growth_of_peak(root) -> Callable[[str, str], float]:
    """Return the MB by which a fresh process's peak of memory grows in the second piece of code."""
    if sys.platform != "linux":
        pytest.skip("reads the peak from /proc")

    def measure(before: str, measured: str) -> float:
        code = f"{PEAK}{before}\nbefore = peak()\n{measured}\nprint(peak() - before)"
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return float(result.stdout)

    return measure
