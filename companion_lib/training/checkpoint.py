"""Checkpoints: what a training run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "companion_lib checkpoint 1"
_TENSOR, _PAIRS = "(tensor)", "(pairs)"  # mark what JSON has no words for


class CheckpointError(ValueError):
    """A file is no checkpoint, is not a whole one, or is that of another run."""


def save_checkpoint(path: str | Path, state: dict[str, Any], run: dict[str, Any]) -> None:
    """Write the state of a training run to a file, all of it or nothing.

    Parameters
    ----------
    path : str or Path
        File to write; one that is there is replaced once the new one is complete. Its folder
        is made if it is missing.
    state : dict
        Tensors, numbers, texts, and dictionaries and lists of them, as the ``state_dict`` of
        modules and optimizers are.
    run : dict
        What the run is: names and values that JSON can hold, such as the model, the data and
        the learning rate. ``load_checkpoint`` compares them.

    Raises
    ------
    TypeError
        If ``state`` or ``run`` holds something else.
    ValueError
        If two tensors have the same place, as under the keys 1 and ``"1"``.

    Notes
    -----
    The file is in the safetensors format, so reading one never runs code. A tensor is found in it
    by its place in ``state``: ``model.layers.0.weight``. Everything is written beside the target
    first, to ``<name>.partial``, and then renamed, which is one operation of the file system:
    a run killed in the middle of writing leaves the former checkpoint intact.

    Book: section ``ch8-setup``.
    """
    path, tensors = Path(path), {}
    metadata = {
        "format": FORMAT,
        "run": json.dumps(run),
        "state": json.dumps(_take_tensors(state, "", tensors)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())  # the name must not be on the disk before the content is
    os.replace(partial, path)


def load_checkpoint(path: str | Path, run: dict[str, Any]) -> dict[str, Any]:
    """Read the state that ``save_checkpoint`` wrote, if it belongs to the same run.

    Parameters
    ----------
    path : str or Path
    run : dict
        What the run is; it must equal the one that was saved.

    Returns
    -------
    dict
        The state, with its tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If the file is not a checkpoint or is cut short, or ``run`` differs: the message names
        what does, with both values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; it is damaged, cut short, or another kind of "
            f"file ({error}). Delete it to start anew"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds tensors, but is not a checkpoint of a training run")
    _check_same(json.loads(metadata["run"]), json.loads(json.dumps(run)), path)
    return _put_tensors(json.loads(metadata["state"]), tensors)


def _check_same(saved: dict[str, Any], run: dict[str, Any], path: Path) -> None:
    """Raise a ``CheckpointError`` that names every difference between two runs."""
    missing = "nothing"
    differences = [
        f"{name} was {saved.get(name, missing)} and is now {run.get(name, missing)}"
        for name in {**saved, **run}
        if saved.get(name, missing) != run.get(name, missing)
    ]
    if differences:
        raise CheckpointError(
            f"{path} is the checkpoint of another run: {'; '.join(differences)}. It was left as "
            "it is; name another file, or delete this one to start anew"
        )


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` as JSON can hold it; its tensors go to ``tensors``, by their place."""
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"two tensors of the state would have the name {name}")
        # A copy each, since safetensors refuses tensors that share memory, as tied weights do.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, dict):  # as pairs, since the keys of an optimizer's state are numbers
        items = {key: _take_tensors(item, _join(name, key), tensors) for key, item in value.items()}
        return {_PAIRS: list(items.items())}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(item, _join(name, i), tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {name}, which is a {type(value).__name__}")


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_take_tensors``."""
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    return {key: _put_tensors(item, tensors) for key, item in value[_PAIRS]}


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
