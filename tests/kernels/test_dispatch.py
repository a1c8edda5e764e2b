"""Which form runs: the default of each device, forced forms, one warning, clear errors."""

import importlib
import importlib.util
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

# On a CPU nothing asks for Triton, not even to see whether it is there.
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
    """Forget warnings and settings of other tests; Triton is there, and a GPU that suits it."""
    dispatch._warn_once.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_not_importable", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
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
    monkeypatch.setattr(dispatch, "_not_importable", lambda: "no luck")
    with kernels.use("triton"), pytest.raises(ValueError, match="no luck"):
        kernels.softmax_mean(Z, Z, Z)


def test_the_interpreter_takes_cpu_tensors(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert pick("kernel", CPU) == "fast"
    with kernels.use("triton"):
        assert pick("kernel", CPU) == "triton"


@pytest.mark.parametrize("obstacle", [None, "it takes float32, got torch.float64"])
def test_one_warning_for_each_kernel_and_reason(monkeypatch, obstacle):
    monkeypatch.setattr(dispatch, "_not_importable", lambda: "no luck")
    reason = obstacle or "no luck"
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


def not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(dispatch, "_not_importable", not_importable)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return r"Triton is not installed \(pip install triton\)"


def broken(monkeypatch, tmp_path):
    """A package that is found and cannot be imported."""
    monkeypatch.setattr(dispatch, "_not_importable", not_importable)
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("raise OSError('undefined symbol: x')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    return r"Triton cannot be imported \(OSError: undefined symbol: x\)"


def too_old(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    return r"it needs compute capability 7\.0, got 6\.1"


not_importable = dispatch._not_importable.__wrapped__  # without its memory


@pytest.mark.parametrize("trouble", [not_installed, broken, too_old])
@pytest.mark.parametrize("kernel", ["softmax_mean", "class_gram"])
def test_kernels_fall_back_with_one_warning(monkeypatch, tmp_path, kernel, trouble):
    """As on a GPU: the kernels ask about their input, and are told that it is on one."""
    Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    inputs = (Z, Z, Z) if kernel == "softmax_mean" else (Z, torch.arange(6) % 2)
    run = getattr(kernels, kernel)
    expected = run(*inputs)
    reason = trouble(monkeypatch, tmp_path)
    module = importlib.import_module(f"companion_lib.kernels.{kernel}")
    monkeypatch.setattr(
        module, "pick", lambda name, like, *rest, **kw: pick(name, CUDA, *rest, **kw)
    )
    with pytest.warns(
        RuntimeWarning, match=f"{kernel} runs in PyTorch instead of Triton: {reason}"
    ):
        assert torch.equal(run(*inputs), expected)
    assert torch.equal(run(*inputs), expected)  # warnings are errors: there is no second one
    with kernels.use("triton"), pytest.raises(ValueError, match=reason):
        run(*inputs)


def test_cpu_tensors_do_not_ask_for_triton(root):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TRITON],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == "torch.Size([6, 3]) torch.Size([2, 3, 3])".split(), (
        result.stderr
    )
