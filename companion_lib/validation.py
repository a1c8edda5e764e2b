"""Checks of what a reader passes in, with errors that say what to do about it."""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensor(value: Tensor, name: str, ndim: int | None = None, finite: bool = True) -> Tensor:
    """Return ``value`` if it is a finite floating-point tensor with ``ndim`` axes.

    Raises
    ------
    TypeError
        If it is not a tensor, or does not hold floating-point numbers.
    ValueError
        If it is empty, has another number of axes, or holds NaN or infinity.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(
            f"{name} must hold floating-point numbers, got {value.dtype}; convert it with .double()"
        )
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {tuple(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty: got shape {tuple(value.shape)}")
    if finite and not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
    return value


def check_samples(X: Tensor, name: str = "X", min_rows: int = 1) -> Tensor:
    """Return ``X`` if it is a finite ``(n, d)`` tensor of at least ``min_rows`` samples as rows."""
    check_tensor(X, name, ndim=2)
    if len(X) < min_rows:
        raise ValueError(f"{name} needs at least {min_rows} samples (rows), got {len(X)}")
    return X


def check_square(M: Tensor, name: str = "M") -> Tensor:
    """Return ``M`` if it is a finite square matrix, or a batch of them."""
    check_tensor(M, name)
    if M.ndim < 2 or M.shape[-1] != M.shape[-2]:
        raise ValueError(f"{name} must be square, got shape {tuple(M.shape)}")
    return M


def check_range(
    value: float, name: str, low: float, high: float | None = None, why: str = ""
) -> float:
    """Return ``value`` if ``low <= value <= high``; ``why`` names what sets the upper end."""
    if low <= value and (high is None or value <= high):
        return value
    if high is None:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    limit = f"{why} = {high}" if why else f"{high}"
    raise ValueError(f"{name} must be between {low} and {limit}, got {value}")


def check_like(value: Tensor, name: str, shape: tuple[int, ...], other: Tensor) -> Tensor:
    """Return ``value`` if it has ``shape`` and shares dtype and device with ``other``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    if value.dtype != other.dtype or value.device != other.device:
        raise ValueError(
            f"{name} must be {other.dtype} on {other.device}, got {value.dtype} on {value.device}"
        )
    return value


def working(X: Tensor) -> Tensor:
    """Return ``X`` in the precision closed forms need: half precision becomes float32."""
    return X.float() if X.dtype in (torch.float16, torch.bfloat16) else X
