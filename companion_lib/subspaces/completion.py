"""Matrix completion: fill in a low-rank matrix from some of its entries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.validation import (
    check_count,
    check_range,
    check_tensor,
    draw_normal,
    unit_scale,
    working,
)


@dataclass(frozen=True, eq=False, repr=False)
class Completion:
    """A matrix of low rank fitted to the entries seen.

    Attributes
    ----------
    matrix : Tensor, shape (n, d)
        The completed matrix, ``left @ right.T``.
    left : Tensor, shape (n, r)
        Coefficients of each row.
    right : Tensor, shape (d, r)
        Orthonormal columns that span the rows.
    history : Tensor, shape (steps taken,)
        Root-mean-square error on the observed entries after each sweep.
    """

    matrix: Tensor
    left: Tensor
    right: Tensor
    history: Tensor

    def __repr__(self) -> str:
        n, d = self.matrix.shape
        return f"Completion(n={n}, d={d}, rank={self.left.shape[1]}, steps={len(self.history)})"


@torch.no_grad()
def complete_matrix(
    Y: Tensor,
    mask: Tensor,
    rank: int,
    steps: int = 200,
    tol: float = 1e-12,
    ridge: float = 1e-12,
    generator: torch.Generator | None = None,
) -> Completion:
    """Complete ``Y`` from its entries where ``mask`` is true, by alternating least squares.

    Minimizes ``sum over mask of (Y - L R^T)^2`` over the rows of ``L`` with ``R`` fixed, then over
    those of ``R`` with ``L`` fixed, and so on, from the leading singular vectors of the matrix
    with zeros for the missing entries.

    Parameters
    ----------
    Y : Tensor, shape (n, d)
        Data; entries outside the mask are never read and may be NaN.
    mask : Tensor of bool, shape (n, d)
        True where an entry was observed: at least one per row and per column.
    rank : int
        Rank of the completion, between 1 and ``min(n, d)``.
    steps : int
        Most sweeps over both factors.
    tol : float
        Stop once a sweep lowers the error by less than ``tol`` times the root mean square of the
        observed entries; never below what the dtype resolves.
    ridge : float
        Keeps rows with fewer than ``rank`` entries solvable: relative to the mean eigenvalue of
        each row's normal matrix, and never below 100 roundings of the dtype.
    generator : torch.Generator, optional
        Source of the random vectors that start the search for those singular vectors.

    Returns
    -------
    Completion
        In the dtype of ``Y``; half precision is computed in float32. No gradients are tracked.

    Raises
    ------
    TypeError
        If ``Y`` is not a floating-point tensor or ``mask`` not a bool one.
    ValueError
        If the shapes or devices differ, an observed entry is not finite, a row or column has no
        entry at all (nothing could recover it), or a number is out of range.

    Notes
    -----
    The problem is not convex. With random masks it is solved when the observed entries outnumber
    the ``r (n + d - r)`` degrees of freedom well enough, and fails on either side of a sharp
    transition; watch ``history``, which then stalls above zero. Rows with fewer than ``rank``
    entries fit exactly and are still not determined.

    Memory beyond a few copies of the data is ``(n + d) r^2``: the normal equations of all rows are
    one matrix product with the mask, solved by batched Cholesky.

    Book: section ``matrix-completion``.
    """
    check_tensor(Y, "Y", ndim=2, finite=False)
    _check_mask(mask, Y)
    n, d = Y.shape
    check_count(rank, "rank", min(n, d), "min(n, d)")
    check_count(steps, "steps")
    check_range(tol, "tol", 0)
    check_range(ridge, "ridge", 0)
    W = check_tensor(torch.where(mask, working(Y), 0.0), "Y (where observed)")
    largest = unit_scale(W)  # the squares in a root mean square could leave the dtype's range
    spread = _root_mean_square(W / largest, mask)
    scale = largest * torch.where(spread > 0, spread, 1.0)
    start = draw_normal((d, rank), W, generator)
    left, right, errors = _alternate(W / scale, mask, start, steps, tol, ridge)
    left, history = left * scale, torch.stack(errors) * scale
    return Completion(*(part.to(Y.dtype) for part in (left @ right.T, left, right, history)))


def _alternate(W, mask, start, steps, tol, ridge):
    """Return both factors after the sweeps, and the error after each."""
    precision = torch.finfo(W.dtype).eps
    tol, ridge = max(tol, precision), max(ridge, 100 * precision)
    weight = mask.to(W.dtype)
    right, errors = _leading_rows(W, start), []
    left = _fit_rows(W, weight, right, ridge)
    while len(errors) < steps:
        # Only the span of a factor matters to the next fit, so it may as well be orthonormal.
        right = _orthonormal(_fit_rows(W.T, weight.T, _orthonormal(left), ridge))
        left = _fit_rows(W, weight, right, ridge)
        errors.append(_root_mean_square((W - left @ right.T) * weight, mask))
        if len(errors) > 1 and errors[-2] - errors[-1] <= tol:
            break
    return left, right, errors


def _leading_rows(W: Tensor, start: Tensor, steps: int = 20) -> Tensor:
    """Return roughly the leading right singular vectors of ``W``, by orthogonal iteration.

    With zeros where nothing was observed, these already point at the row space; from a start
    drawn blindly, alternating least squares often diverges.
    """
    for _ in range(steps):
        start = _orthonormal(W.T @ (W @ start))
    return start


def _fit_rows(W: Tensor, weight: Tensor, factor: Tensor, ridge: float) -> Tensor:
    """Regress each row of ``W`` on the rows of ``factor`` where it was observed."""
    r = factor.shape[1]
    products = (factor[:, :, None] * factor[:, None, :]).flatten(1)  # (d, r r)
    normal = (weight @ products).unflatten(1, (r, r))  # (n, r, r)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    # The smallest normal number stands in where all factors seen by a row are zero.
    diagonal += ridge * diagonal.mean(1, keepdim=True) + torch.finfo(W.dtype).tiny
    root = torch.linalg.cholesky(normal)
    return torch.cholesky_solve((W @ factor).unsqueeze(2), root).squeeze(2)


def _orthonormal(factor: Tensor) -> Tensor:
    return torch.linalg.qr(factor).Q


def _root_mean_square(W: Tensor, mask: Tensor) -> Tensor:
    """Return the root mean square over the observed entries of ``W``, zero elsewhere."""
    return W.norm() / mask.sum().to(W.dtype).sqrt()  # the root of an integer is float32


def _check_mask(mask: Tensor, Y: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a torch.Tensor of bool, got {given}")
    if mask.shape != Y.shape:
        raise ValueError(f"mask must have shape {tuple(Y.shape)}, got {tuple(mask.shape)}")
    if mask.device != Y.device:
        raise ValueError(f"mask must be on {Y.device}, got {mask.device}")
    for axis, name in ((1, "rows"), (0, "columns")):
        unseen = (~mask.any(axis)).nonzero().flatten().tolist()
        if unseen:
            listed = ", ".join(map(str, unseen[:5])) + (", ..." if len(unseen) > 5 else "")
            raise ValueError(
                f"mask must observe every row and column at least once, got no entry in {name} "
                f"{listed}"
            )
