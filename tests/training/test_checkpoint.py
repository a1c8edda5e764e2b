"""Checkpoints: round trips, runs killed while they write, damaged files, other runs."""

import math
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from companion_lib.training import CheckpointError, load_checkpoint, save_checkpoint

RUN = {"model": "small", "lr": 1e-3}
# Writes half of the new file, and dies as a process does whose machine is taken away.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from companion_lib.training import checkpoint

def save_half(tensors, path, metadata):
    whole(tensors, path, metadata)
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)

whole, checkpoint.save_file = checkpoint.save_file, save_half
checkpoint.save_checkpoint(sys.argv[1], {"w": torch.ones(1000)}, {"model": "small", "lr": 1e-3})
"""


def state():
    weights = torch.arange(6.0).reshape(2, 3)
    return {
        "model": {"layers.0.weight": weights, "layers.0.bias": torch.tensor([math.pi])},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "mean": weights.T}, 11: {}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "fused": None, "params": [0]}],
        },
        "generator": torch.Generator().manual_seed(2).get_state(),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "name": "a run",
        "done": 7,
    }


def assert_same(found, expected):
    """Compare nested states; tuples come back as lists."""
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        assert found == expected and type(found) is type(expected)


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new folder" / "run.safetensors"
    save_checkpoint(path, state(), RUN)
    assert_same(load_checkpoint(path, RUN), state())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_path_may_be_a_text(tmp_path):
    save_checkpoint(str(tmp_path / "run"), state(), RUN)
    assert_same(load_checkpoint(str(tmp_path / "run"), RUN), state())


def test_tensors_are_found_by_their_place(tmp_path):
    save_checkpoint(tmp_path / "run", state(), RUN)
    with safe_open(tmp_path / "run", "pt") as file:
        weight = file.get_tensor("model.layers.0.weight")
        assert "optimizer.state.0.mean" in file.keys()
    assert torch.equal(weight, state()["model"]["layers.0.weight"])


def test_tied_weights_are_saved_twice(tmp_path):
    weight = torch.ones(3, 3)
    tied = {"in": weight, "out": weight, "row": weight[1]}
    save_checkpoint(tmp_path / "run", tied, RUN)
    assert_same(load_checkpoint(tmp_path / "run", RUN), tied)


def test_an_optimizer_goes_on(tmp_path):
    def stepped(weight, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            weight.sin().sum().backward()
            optimizer.step()
        return weight.detach()

    weight = torch.nn.Parameter(torch.tensor([0.3, 2.0]))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    stepped(weight, optimizer)
    save_checkpoint(tmp_path / "run", {"w": weight, "optimizer": optimizer.state_dict()}, RUN)
    expected = stepped(weight, optimizer).clone()

    saved = load_checkpoint(tmp_path / "run", RUN)
    weight = torch.nn.Parameter(saved["w"])
    optimizer = torch.optim.Adam([weight], lr=0.5)
    optimizer.load_state_dict(saved["optimizer"])
    assert torch.equal(stepped(weight, optimizer), expected)


def test_a_run_killed_while_it_writes_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, state(), RUN)
    old = path.read_bytes()
    killed = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert path.read_bytes() == old
    assert_same(load_checkpoint(path, RUN), state())
    assert len(list(tmp_path.iterdir())) == 2  # the half is still there, and does no harm
    save_checkpoint(path, {"w": torch.ones(2)}, RUN)
    assert_same(load_checkpoint(path, RUN), {"w": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_file_cut_short(tmp_path, share):
    path = tmp_path / "run"
    save_checkpoint(path, state(), RUN)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"run cannot be read as a checkpoint.*cut short"):
        load_checkpoint(path, RUN)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02pickle" * 50])
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "run"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="run cannot be read as a checkpoint"):
        load_checkpoint(path, RUN)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_tensors_alone_are_no_checkpoint(tmp_path, metadata):
    save_file({"w": torch.ones(2)}, tmp_path / "run", metadata)
    with pytest.raises(CheckpointError, match="run holds tensors, but is not a checkpoint"):
        load_checkpoint(tmp_path / "run", RUN)


@pytest.mark.parametrize(
    "run, difference",
    [
        ({"model": "small", "lr": 2e-3}, "lr was 0.001 and is now 0.002"),
        ({"model": "small"}, "lr was 0.001 and is now nothing"),
        ({**RUN, "batch": 8}, "batch was nothing and is now 8"),
        ({"model": "large"}, "model was small and is now large; lr was 0.001 and is now nothing"),
    ],
)
def test_the_checkpoint_of_another_run(tmp_path, run, difference):
    path = tmp_path / "run"
    save_checkpoint(path, state(), RUN)
    old = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"checkpoint of another run: {difference}. It was"):
        load_checkpoint(path, run)
    assert path.read_bytes() == old


def test_a_run_is_compared_as_json_holds_it(tmp_path):
    save_checkpoint(tmp_path / "run", {}, {"widths": (32, 64), "weight": None})
    assert load_checkpoint(tmp_path / "run", {"widths": [32, 64], "weight": None}) == {}


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*missing"):
        load_checkpoint(tmp_path / "missing", RUN)


@pytest.mark.parametrize(
    "bad, error, message",
    [
        ({"a": {"b": [1, {2}]}}, TypeError, "a checkpoint cannot hold a.b.1, which is a set"),
        ({"f": math.sin}, TypeError, "a checkpoint cannot hold f, which is a builtin_function"),
        (
            {1: torch.ones(1), "1": torch.zeros(1)},
            ValueError,
            "two tensors of the state would have the name 1",
        ),
    ],
)
def test_what_a_checkpoint_cannot_hold(tmp_path, bad, error, message):
    path = tmp_path / "run"
    save_checkpoint(path, state(), RUN)
    with pytest.raises(error, match=message):
        save_checkpoint(path, bad, RUN)
    assert_same(load_checkpoint(path, RUN), state())
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(path, {}, {"model": torch.ones(1)})
    assert_same(load_checkpoint(path, RUN), state())
