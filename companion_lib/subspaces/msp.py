"""Matching, stretching, projection: learn a complete orthogonal dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.data import random_orthogonal
from companion_lib.subspaces.polar import polar_factor
from companion_lib.validation import (
    check_count,
    check_features,
    check_finite,
    check_like,
    check_orthonormal,
    check_range,
    check_samples,
    check_tensor,
    unit_scale,
    working,
)


@dataclass(frozen=True, eq=False, repr=False)
class MSP:
    """An orthogonal dictionary learned by ``msp``.

    Attributes
    ----------
    dictionary : Tensor, shape (d, d)
        The orthogonal operator ``A`` of ``z = A x``. Its rows are the atoms: ``x = A^T z``.
    objective : Tensor, shape (steps + 1,)
        The mean of :math:`\\|A x\\|_4^4` over the samples, before each step and after the last.
    moves : Tensor, shape (steps,)
        How far each step moved the dictionary, in Frobenius norm and up to the signs of rows.
    converged : bool
        Whether the last step moved it by at most ``tol``.
    """

    dictionary: Tensor
    objective: Tensor
    moves: Tensor
    converged: bool

    def encode(self, X: Tensor) -> Tensor:
        """Return the codes ``X A^T`` of samples ``X`` of shape (n, d)."""
        check_features(X, self.dictionary)
        return (working(X) @ working(self.dictionary).T).to(X.dtype)

    def decode(self, Z: Tensor) -> Tensor:
        """Return the samples ``Z A`` that have the codes ``Z`` of shape (n, d)."""
        check_features(Z, self.dictionary, "Z")
        return (working(Z) @ working(self.dictionary)).to(Z.dtype)

    def __repr__(self) -> str:
        d, steps = len(self.dictionary), len(self.moves)
        return f"MSP(d={d}, steps={steps}, converged={self.converged})"


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
        If ``X`` is empty, not finite or all zeros, ``A`` is not finite or does not fit it, or
        ``shift`` is not finite.

    Notes
    -----
    Book: section ``complete-dictionary-learning``. Two products of ``2 n d^2`` operations and one
    singular value decomposition of a ``(d, d)`` matrix.
    """
    check_samples(X)
    check_like(check_tensor(A, "A", ndim=2), "A", (X.shape[1], X.shape[1]), X)
    check_finite(shift, "shift")
    data, operator = working(X), working(A)
    scale, weight, pull = fourth_powers(data, shift)
    stretched = (data @ (operator / scale).T).pow_(3).T @ data / scale / len(data)
    return polar_factor(weight * stretched - pull * operator).to(X.dtype)


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
        Stop when a step moves the dictionary by at most this much in Frobenius norm; never below
        what the dtype resolves.
    shift : float
        0 for the book's iteration; 3 for the kurtosis-corrected one.
    start : Tensor, shape (d, d), optional
        The first orthogonal dictionary. A random one if not given.
    generator : torch.Generator, optional
        Draws the random start.

    Returns
    -------
    MSP
        In the dtype of ``X``, without gradients. An objective beyond the range of the dtype comes
        out infinite.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty, not finite or all zeros, ``start`` does not fit it or is not orthogonal,
        ``steps`` or ``tol`` is negative, or ``shift`` is not finite.

    Notes
    -----
    Book: section ``complete-dictionary-learning``; Zhai, Yang, Liao, Wright and Ma (2020).
    Operations per step: ``4 n d^2`` and one decomposition of a ``(d, d)`` matrix. Memory: two
    arrays of the size of ``X``. Samples that span less than ``d`` dimensions, as fewer than ``d``
    of them must, say nothing about the other atoms, which then are arbitrary.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> codes = torch.randn(2000, 3, generator=g) * (torch.rand(2000, 3, generator=g) < 0.1)
    >>> msp(codes, tol=1e-4, generator=g).dictionary.abs().round().sum(0)
    tensor([1., 1., 1.])
    """
    check_samples(X)
    check_count(steps, "steps", low=0)
    check_range(tol, "tol", 0)
    check_finite(shift, "shift")
    data, A = working(X), _start(X, start, generator)
    scale, weight, pull = fourth_powers(data, shift)
    tol = move_floor(data, tol)
    codes, cubes = torch.empty_like(data), torch.empty_like(data)
    objective, moves = [], []
    while True:
        moments = _stretch(A, data, scale, codes, cubes)
        objective.append((A * moments).sum() * scale**4)
        if len(moves) == steps or settled(moves, tol):
            break
        previous, A = A, polar_factor(weight * moments - pull * A)
        moves.append(_distance_up_to_signs(A, previous))
    histories = torch.stack(objective), torch.stack(moves) if moves else data.new_zeros(0)
    return MSP(*(part.to(X.dtype) for part in (A, *histories)), settled(moves, tol))


def fourth_powers(X: Tensor, shift: float) -> tuple[Tensor, float | Tensor, Tensor]:
    """Return a unit for ``X``, and the weights of its fourth moments in it and of the shift.

    The weights stand in the proportion that the change of unit needs, and are at most 1 and
    ``shift``: nothing overflows.
    """
    scale = unit_scale(X)
    if scale == 1 and not X.any():
        raise ValueError("X must not be all zeros")
    fourth = scale**4
    return scale, fourth.clamp(max=1) if shift else 1.0, shift / fourth.clamp(min=1)


def move_floor(X: Tensor, tol: float) -> float:
    """Return ``tol``, or the rounding in an iterate's movement if that is larger."""
    return max(tol, 4 * torch.finfo(X.dtype).eps * X.shape[1] ** 0.5)


def settled(moves: list[Tensor], tol: float) -> bool:
    """Return whether the last move is at most ``tol``."""
    return bool(moves) and bool(moves[-1] <= tol)


def _start(X: Tensor, start: Tensor | None, generator: torch.Generator | None) -> Tensor:
    d = X.shape[1]
    if start is None:
        return random_orthogonal(d, generator, working(X).dtype).to(X.device)
    return working(check_orthonormal(check_like(start, "start", (d, d), X), "start"))


def _stretch(A: Tensor, X: Tensor, scale: Tensor, codes: Tensor, cubes: Tensor) -> Tensor:
    """Return ``(Y A^T)^3^T Y / n`` for ``Y = X / scale``, which is not formed.

    Its inner product with ``A`` is the mean of ``||A y||_4^4``.
    """
    torch.mm(X, (A / scale).T, out=codes)
    torch.pow(codes, 3, out=cubes)
    return cubes.T @ X / scale / len(X)


def _distance_up_to_signs(A: Tensor, B: Tensor) -> Tensor:
    signs = torch.where((A * B).sum(1, keepdim=True) < 0, -1.0, 1.0)
    return torch.linalg.matrix_norm(A - signs * B)
