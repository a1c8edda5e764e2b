"""Which form of a kernel runs: the one asked for, else the fastest that takes the input."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

FORMS = ("reference", "fast", "triton")
OLDEST = (7, 0)  # the compute capability that Triton needs
_forced: ContextVar[str | None] = ContextVar("form", default=None)


@contextmanager
def use(form: str) -> Iterator[None]:
    """Force one form of every kernel called inside the block.

    Parameters
    ----------
    form : str
        ``"reference"``, ``"fast"`` or ``"triton"``. A kernel without a Triton form uses *fast*.
        On CPU tensors ``"triton"`` needs Triton's interpreter (``TRITON_INTERPRET=1``).

    Raises
    ------
    ValueError
        If there is no such form; or, when a kernel runs, if its Triton form cannot take the input.

    Examples
    --------
    >>> with use("reference"):
    ...     ...  # slow, and as the book writes it
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    token = _forced.set(form)
    try:
        yield
    finally:
        _forced.reset(token)


def pick(kernel: str, like: Tensor, obstacle: str | None = None, triton: bool = True) -> str:
    """Return the form of ``kernel`` to run on tensors such as ``like``.

    Parameters
    ----------
    kernel : str
        Its name, for messages.
    like : Tensor
        An input; its device counts.
    obstacle : str, optional
        Why the Triton form cannot take this input, if it cannot.
    triton : bool
        Whether the kernel has a Triton form at all.
    """
    form = _forced.get()
    if form == "triton":
        if not triton:
            return "fast"
        reason = obstacle or _missing(like)
        if reason:
            raise ValueError(f"{kernel} cannot run in Triton here: {reason}")
        return form
    if form is not None:
        return form
    if not triton or like.device.type != "cuda":
        return "fast"
    reason = obstacle or _missing(like)
    if reason is None:
        return "triton"
    _warn_once(kernel, reason)
    return "fast"


@cache
def _not_importable() -> str | None:
    """Say why Triton cannot be imported, if it cannot: to find it is not enough."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    try:
        importlib.import_module("triton.language")
    except Exception as error:  # what a broken installation raises can be anything
        return f"Triton cannot be imported ({type(error).__name__}: {error})"
    return None


def _missing(like: Tensor) -> str | None:
    if reason := _not_importable():
        return reason
    if like.device.type != "cuda":
        if os.environ.get("TRITON_INTERPRET") == "1":
            return None
        return f"it needs CUDA tensors, got {like.device.type}, or TRITON_INTERPRET=1"
    capability = torch.cuda.get_device_capability(like.device)
    if capability < OLDEST:
        needed, found = (".".join(map(str, pair)) for pair in (OLDEST, capability))
        return f"it needs compute capability {needed}, got {found}"
    return None


@cache
def _warn_once(kernel: str, reason: str) -> None:
    message = f"{kernel} runs in PyTorch instead of Triton: {reason}"
    warnings.warn(message, RuntimeWarning, stacklevel=4)
