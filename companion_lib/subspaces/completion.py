"""Matrix completion: fill in a low-rank matrix from some of its entries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.subspaces.pca import check_count
from companion_lib.validation import check_range, check_tensor, working


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


def complete_matrix(
    Y: Tensor,
    mask: Tensor,
    rank: int,
    steps: int = 200,
    tol: float = 1e-12,
    ridge: float | None = None,
    generator: torch.Generator | None = None,
) -> Completion:
    """Complete ``Y`` from its entries where ``mask`` is true, by alternating least squares.

    Minimizes ``sum over mask of (Y - L R^T)^2`` over the rows of ``L`` with ``R`` fixed, then over
    those of ``R`` with ``L`` fixed, and so on.

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
    ridge : float, optional
        Weight of ``||L||^2 + ||R||^2`` beside data of unit mean square and a fixed factor with
        orthonormal columns. By default just what keeps rows with fewer than ``rank`` entries
        solvable, ``eps**(2/3)``.
    generator : torch.Generator, optional
        Source of the random start.

    Returns
    -------
    Completion
        In the dtype of ``Y``; half precision is computed in float32.

    Raises
    ------
    TypeError
        If ``Y`` is not a floating-point tensor or ``mask`` not a bool one.
    ValueError
        If the shapes differ, an observed entry is not finite, a row or column has no entry at all
        (nothing could recover it), or a number is out of range.

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
    W = check_tensor(torch.where(mask, working(Y), 0.0), "Y (where observed)")
    weight, precision = mask.to(W.dtype), torch.finfo(W.dtype).eps
    scale = (W.square().sum() / weight.sum()).sqrt()
    W = W / torch.where(scale > 0, scale, 1.0)
    ridge = precision ** (2 / 3) if ridge is None else check_range(ridge, "ridge", 0)
    start = torch.randn(d, rank, generator=generator, dtype=W.dtype, device=W.device)
    right, errors = torch.linalg.qr(start).Q, []
    while len(errors) < steps:
        left = torch.linalg.qr(_fit_rows(W, weight, right, ridge)).Q
        right = torch.linalg.qr(_fit_rows(W.T, weight.T, left, ridge)).Q
        left = _fit_rows(W, weight, right, ridge)
    raise NotImplementedError
