"""Checks of what a reader passes in, with errors that say what to do about it.

The last three functions are what solvers do first with what has passed: choose a precision, find
a scale, draw a start.
"""

from __future__ import annotations

import math
from numbers import Integral

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
    # A finite sum says that every entry is, in one pass; finite entries may still overflow it.
    if finite and not torch.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
    return value


def check_samples(X: Tensor, name: str = "X", min_rows: int = 1) -> Tensor:
    """Return ``X`` if it is a finite ``(n, d)`` tensor of at least ``min_rows`` samples as rows."""
    check_tensor(X, name, ndim=2)
    if len(X) < min_rows:
        raise ValueError(f"{name} needs at least {min_rows} samples (rows), got {len(X)}")
    return X


def check_features(X: Tensor, like: Tensor, name: str = "X") -> Tensor:
    """Return ``X`` if its rows are finite samples with the size, dtype and device of ``like``."""
    check_samples(X, name)
    return check_like(X, name, (len(X), len(like)), like)


def check_square(M: Tensor, name: str = "M") -> Tensor:
    """Return ``M`` if it is a finite square matrix."""
    check_tensor(M, name, ndim=2)
    if len(M) != len(M.T):
        raise ValueError(f"{name} must be square, got shape {tuple(M.shape)}")
    return M


def check_orthonormal(value: Tensor, name: str) -> Tensor:
    """Return ``value`` if its rows are orthonormal to half the digits of its dtype, or float32."""
    W = working(check_tensor(value, name, ndim=2))
    gap = (W @ W.T - torch.eye(len(W), dtype=W.dtype, device=W.device)).abs().max().item()
    rounding = max(torch.finfo(dtype).eps for dtype in (value.dtype, torch.float32))
    if not gap <= rounding**0.5:  # products that overflow are NaN
        raise ValueError(f"{name} must have orthonormal rows, got products off by {gap:.2g}")
    return value


def check_range(
    value: float, name: str, low: float, high: float | None = None, why: str = ""
) -> float:
    """Return ``value`` if it is finite and ``low <= value <= high``; ``why`` names ``high``."""
    if low <= value < math.inf and (high is None or value <= high):
        return value
    if high is None:
        finite = " and finite" if value == math.inf else ""
        raise ValueError(f"{name} must be at least {low}{finite}, got {value}")
    limit = f"{why} = {high}" if why else f"{high}"
    raise ValueError(f"{name} must be between {low} and {limit}, got {value}")


def check_positive(value: float, name: str) -> float:
    """Return ``value`` if it is finite and above zero."""
    if 0 < value < math.inf:
        return value
    raise ValueError(f"{name} must be positive and finite, got {float(value)}")


def check_count(value: int, name: str, high: int | None = None, why: str = "", low: int = 1) -> int:
    """Return ``value`` if it is an integer from ``low`` to ``high``; ``why`` names ``high``."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return check_range(value, name, low, high, why)


def check_finite(value: float | Tensor, name: str) -> float | Tensor:
    """Return the number ``value`` if it is neither NaN nor infinite."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {float(value)}")
    return value


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


def unit_scale(X: Tensor) -> Tensor:
    """Return the power of two, shape (), that brings the largest entry of ``X`` into [1, 2).

    Squares and fourth powers of ``X / unit_scale(X)`` stay in range, and the division is exact.
    It is 1 if all entries are zero.
    """
    low, high = torch.aminmax(X.detach())
    largest = torch.maximum(-low, high)
    mantissa = torch.frexp(largest).mantissa  # in [1/2, 1)
    return torch.where(largest > 0, largest / (2 * mantissa), 1.0)


def draw_normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard normals with the dtype and device of ``like``.

    They are drawn where the generator lives, so a CPU generator serves data on a GPU, with the
    same numbers.
    """
    device = like.device if generator is None else generator.device
    draw = torch.randn(shape, generator=generator, dtype=like.dtype, device=device)
    return draw.to(like.device)
