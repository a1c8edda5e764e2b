"""Which form runs: the default of each device, forced forms, one warning, clear errors."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from companion_lib import kernels
from companion_lib.kernels import dispatch
from companion_lib.kernels.dispatch import FORMS, pick

CPU = torch.zeros(1)
CUDA = SimpleNamespace(device=torch.device("cuda"))  # all that pick looks at

# Imports and runs the kernels as if Triton were not installed.
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from companion_lib import kernels
Z = torch.randn(6, 3)
print(kernels.softmax_mean(Z, Z, Z).shape, kernels.class_gram(Z, torch.arange(6) % 2).shape)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget warnings and settings of other tests."""
    dispatch._warn_once.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    yield
    dispatch._warn_once.cache_clear()


def test_defaults():
    assert pick("kernel", CPU) == "fast"
    assert pick("kernel", CUDA) == "triton"
    assert pick("kernel", CUDA, triton=False) == "fast"


@pytest.mark.parametrize("like", [CPU, CUDA], ids=["cpu", "cuda"])
def test_a_forced_form_runs_until_the_block_ends(like):
    before = pick("kernel", like)
    with kernels.use("reference"):
        assert pick("kernel", like) == "reference"
        with kernels.use("fast"):
            assert pick("kernel", like) == "fast"
        assert pick("kernel", like) == "reference"
        with pytest.raises(ZeroDivisionError), kernels.use("fast"):
            1 / 0  # noqa: B018
        assert pick("kernel", like) == "reference"
    assert pick("kernel", like) == before


def test_forced_triton():
    with kernels.use("triton"):
        assert pick("kernel", CUDA) == "triton"
        assert pick("kernel", CUDA, triton=False) == "fast"
        with pytest.raises(ValueError, match=r"kernel cannot run .* got cpu"):
            pick("kernel", CPU)
        with pytest.raises(ValueError, match="cannot run in Triton here: too odd"):
            pick("kernel", CUDA, obstacle="too odd")


def test_forced_triton_on_a_cpu_says_what_is_missing(monkeypatch):
    Z = torch.randn(6, 3)
    with kernels.use("triton"), pytest.raises(ValueError, match=r"softmax_mean .*INTERPRET"):
        kernels.softmax_mean(Z, Z, Z)
    with kernels.use("triton"), pytest.raises(ValueError, match=r"class_gram .*INTERPRET"):
        kernels.class_gram(Z, torch.arange(6) % 2)
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    with kernels.use("triton"), pytest.raises(ValueError, match="pip install triton"):
        kernels.softmax_mean(Z, Z, Z)


def test_the_interpreter_takes_cpu_tensors(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert pick("kernel", CPU) == "fast"
    with kernels.use("triton"):
        assert pick("kernel", CPU) == "triton"


@pytest.mark.parametrize("obstacle", [None, "it takes float32, got torch.float64"])
def test_one_warning_for_each_kernel_and_reason(monkeypatch, obstacle):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    reason = "Triton is not installed" if obstacle is None else obstacle
    with pytest.warns(RuntimeWarning, match=f"one runs in PyTorch instead of Triton: {reason}"):
        assert pick("one", CUDA, obstacle) == "fast"
    with pytest.warns(RuntimeWarning, match="other runs in PyTorch"):
        assert pick("other", CUDA, obstacle) == "fast"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert pick("one", CUDA, obstacle) == pick("other", CUDA, obstacle) == "fast"
            assert pick("one", CPU, obstacle) == pick("third", CUDA, triton=False) == "fast"


def test_an_unknown_form():
    with (
        pytest.raises(ValueError, match=f"one of {', '.join(FORMS)}, got 'cuda'"),
        kernels.use("cuda"),
    ):
        pass


def test_kernels_run_without_triton(root):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TRITON],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == "torch.Size([6, 3]) torch.Size([2, 3, 3])".split(), (
        result.stderr
    )
