"""The proximal operator of the l1 norm."""

from __future__ import annotations

import torch
from torch import Tensor

from companion_lib.validation import check_tensor


def soft_threshold(z: Tensor, threshold: float | Tensor) -> Tensor:
    """Move every entry toward zero by ``threshold``, and stop at zero.

    ``sign(z) max(|z| - t, 0)``: the minimizer over ``u`` of ``(u - z)^2 / 2 + t |u|``, the book's
    :math:`S_t(z)`. Differentiable in both arguments wherever ``|z| != t``.

    Parameters
    ----------
    z : Tensor, any shape
        Where to evaluate. Half precision loses nothing here.
    threshold : float or Tensor that broadcasts to the shape of ``z``
        ``t >= 0``, taken to the dtype and device of ``z``.

    Returns
    -------
    Tensor
        The shape and dtype of ``z``.

    Raises
    ------
    TypeError
        If ``z`` is not a floating-point tensor.
    ValueError
        If ``z`` is empty or not finite, or a threshold is negative, not a number or of a shape
        that does not broadcast to that of ``z``.

    Notes
    -----
    Book: section ``sparse-coding``.

    Examples
    --------
    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    check_tensor(z, "z")
    t = torch.as_tensor(threshold, dtype=z.dtype, device=z.device)
    if not (t >= 0).all():
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    try:
        t = t.expand_as(z)
    except RuntimeError as error:
        shapes = f"{tuple(z.shape)} of z, got {tuple(t.shape)}"
        raise ValueError(f"threshold must broadcast to the shape {shapes}") from error
    return shrinkage(z, t)


def shrinkage(z: Tensor, threshold: float | Tensor) -> Tensor:
    """Soft-threshold without checks."""
    return z - z.clamp(-threshold, threshold)
