"""Matching, stretching, projection: learn a complete orthogonal dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.subspaces.polar import polar_factor
from companion_lib.validation import check_like, check_range, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class MSP:
    """An orthogonal dictionary learned by ``msp``.

    Attributes
    ----------
    dictionary : Tensor, shape (d, d)
        The orthogonal operator ``A`` of ``z = A x``. Its rows are the atoms: ``x = A^T z``.
    objective : Tensor, shape (steps + 1,)
        The mean of :math:`\\|A x\\|_4^4` over the samples, before each step and after the last.
    step_sizes : Tensor, shape (steps,)
        How far each step moved the dictionary, in Frobenius norm and up to the signs of rows.
    """

    dictionary: Tensor
    objective: Tensor
    step_sizes: Tensor

    def encode(self, X: Tensor) -> Tensor:
        """Return the codes ``X A^T`` of samples ``X`` of shape (n, d)."""
        return X @ self.dictionary.T

    def decode(self, Z: Tensor) -> Tensor:
        """Return the samples ``Z A`` that have the codes ``Z`` of shape (n, d)."""
        return Z @ self.dictionary

    def __repr__(self) -> str:
        return f"MSP(d={len(self.dictionary)}, steps={len(self.step_sizes)})"


def msp_step(A: Tensor, X: Tensor, shift: float = 0.0) -> Tensor:
    """Take one step: match the data with the atoms, stretch by a cube, project on rotations.

    ``polar((X A^T)^3^T X / n - shift * A)`` with an entrywise cube. The book, whose samples are
    columns, writes :math:`P_O[(AX)^{\\odot 3} X^\\top]`.

    Parameters
    ----------
    A : Tensor, shape (d, d)
        An orthogonal dictionary whose rows are atoms, of the dtype and on the device of ``X``.
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    shift : float
        0 for the book's step; 3 for the kurtosis-corrected one, see ``msp``.

    Returns
    -------
    Tensor, shape (d, d)
        The next orthogonal dictionary.

    Raises
    ------
    TypeError
        If ``X`` or ``A`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or not finite, or ``A`` does not fit it.

    Notes
    -----
    Book: section ``complete-dictionary-learning``. Two products of ``2 n d^2`` operations and one
    singular value decomposition of a ``(d, d)`` matrix.
    """
    check_samples(X)
    check_like(A, "A", (X.shape[1], X.shape[1]), X)
    data, operator = working(X), working(A)
    stretched = (data @ operator.T).pow_(3).T @ data / len(data)
    return polar_factor(stretched - shift * operator).to(X.dtype)


@torch.no_grad()
def msp(
    X: Tensor,
    steps: int = 1000,
    tol: float = 1e-9,
    shift: float = 0.0,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> MSP:
    """Learn an orthogonal dictionary by maximizing the fourth powers of the codes.

    Repeats ``msp_step`` until it moves the dictionary by at most ``tol``. Sparse codes have the
    largest fourth powers among all rotations of the same data, so the maximizer recovers the
    atoms, up to their order, their signs, and a bias of order ``d / sqrt(n)``.

    With ``shift=0`` the objective never decreases, and on white Bernoulli-Gaussian data
    (``theta`` of the codes nonzero) the error shrinks by a factor ``theta`` a step. With
    ``shift=3`` the Gaussian part of the fourth moments is taken away, and convergence is cubic
    down to the sampling error. This is symmetric FastICA. It **needs white data** (see
    ``whiten``), has no proof of monotonicity, and finds sources of negative kurtosis too: their
    rows change sign at every step, so steps are compared up to the signs of rows.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    steps : int
        The largest number of steps.
    tol : float
        Stop when a step moves the dictionary by at most this much in Frobenius norm.
    shift : float
        0 for the book's iteration; 3 for the kurtosis-corrected one.
    start : Tensor, shape (d, d), optional
        The first orthogonal dictionary. A random one if not given.
    generator : torch.Generator, optional
        Draws the random start, on the device of ``X``.

    Returns
    -------
    MSP
        With ``dictionary``, ``objective``, ``step_sizes``, ``encode`` and ``decode``.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or not finite, ``start`` does not fit it, or ``steps`` or ``tol`` is
        negative.

    Notes
    -----
    Book: section ``complete-dictionary-learning``; Zhai, Yang, Liao, Wright and Ma (2020).
    Operations per step: ``4 n d^2`` and one decomposition of a ``(d, d)`` matrix. Memory: two
    arrays of the size of ``X``.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> codes = torch.randn(2000, 3, generator=g) * (torch.rand(2000, 3, generator=g) < 0.1)
    >>> msp(codes, tol=1e-4, generator=g).dictionary.abs().round().sum(0)
    tensor([1., 1., 1.])
    """
    check_samples(X)
    check_range(steps, "steps", 0)
    check_range(tol, "tol", 0)
    data, A = working(X), _start(X, start, generator)
    codes, cubes = torch.empty_like(data), torch.empty_like(data)
    objective, step_sizes = [], []
    for _ in range(steps):
        moments = _stretch(A, data, codes, cubes)
        objective.append((A * moments).sum())
        previous, A = A, polar_factor(moments - shift * A)
        step_sizes.append(_distance_up_to_signs(A, previous))
        if step_sizes[-1] <= tol:
            break
    objective.append((A * _stretch(A, data, codes, cubes)).sum())
    history = torch.stack(step_sizes) if step_sizes else data.new_zeros(0)
    return MSP(A.to(X.dtype), torch.stack(objective), history)


def _start(X: Tensor, start: Tensor | None, generator: torch.Generator | None) -> Tensor:
    d = X.shape[1]
    if start is None:
        return random_rotation(d, working(X), generator)
    return working(check_like(start, "start", (d, d), X))


def random_rotation(d: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a uniformly random orthogonal matrix (the polar factor of a Gaussian one)."""
    gaussian = torch.randn(d, d, generator=generator, dtype=like.dtype, device=like.device)
    return polar_factor(gaussian)


def _stretch(A: Tensor, X: Tensor, codes: Tensor, cubes: Tensor) -> Tensor:
    """Return ``(X A^T)^3^T X / n``; its inner product with ``A`` is the mean of ``||A x||_4^4``."""
    torch.mm(X, A.T, out=codes)
    # Two multiplications: a general power is far slower.
    torch.mul(codes, codes, out=cubes).mul_(codes)
    return cubes.T @ X / len(X)


def _distance_up_to_signs(A: Tensor, B: Tensor) -> Tensor:
    signs = torch.where((A * B).sum(1, keepdim=True) < 0, -1.0, 1.0)
    return torch.linalg.matrix_norm(A - signs * B)
