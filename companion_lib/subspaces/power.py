"""Power iteration and its block form: leading eigenvectors from matrix-vector products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from companion_lib.validation import (
    check_count,
    check_finite,
    check_like,
    check_range,
    check_square,
    check_tensor,
    draw_normal,
    unit_scale,
    working,
)

Operator = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class PowerIteration:
    """A leading eigenvector, and the way there.

    Attributes
    ----------
    vector : Tensor, shape (d,)
        Unit vector, the last iterate.
    value : Tensor, shape ()
        Its Rayleigh quotient ``v^T M v``.
    steps : int
        The number ``t`` of steps taken.
    converged : bool
        Whether ``||M v - value v|| <= tol |value|`` was reached.
    iterates : Tensor, shape (t + 1, d), or (0, d) without ``history``
        The start (normalized) and the vector after each step.
    values : Tensor, shape (t + 1,), or (0,) without ``history``
        Rayleigh quotient of each iterate.
    """

    vector: Tensor
    value: Tensor
    steps: int
    converged: bool
    iterates: Tensor
    values: Tensor

    def __repr__(self) -> str:
        d = len(self.vector)
        return f"PowerIteration(d={d}, steps={self.steps}, converged={self.converged})"


@dataclass(frozen=True, eq=False, repr=False)
class OrthogonalIteration:
    """Leading eigenvectors found together, and the way there.

    Attributes
    ----------
    vectors : Tensor, shape (d, k)
        Orthonormal columns: eigenvectors within the span of the last iterate (Ritz vectors).
    values : Tensor, shape (k,)
        Their eigenvalues, by falling magnitude.
    steps : int
        The number ``t`` of steps taken.
    converged : bool
        Whether ``||M V - V V^T M V|| <= tol ||V^T M V||`` was reached (Frobenius norms).
    iterates : Tensor, shape (t + 1, d, k), or (0, d, k) without ``history``
        Orthonormal basis at the start and after each step.
    """

    vectors: Tensor
    values: Tensor
    steps: int
    converged: bool
    iterates: Tensor

    def __repr__(self) -> str:
        d, k = self.vectors.shape
        return f"OrthogonalIteration(d={d}, k={k}, steps={self.steps}, converged={self.converged})"


@torch.no_grad()
def power_iteration(
    M: Operator,
    steps: int = 1000,
    tol: float = 1e-12,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    history: bool = False,
) -> PowerIteration:
    """Return the leading eigenvector of ``M`` by repeating ``v <- M v / ||M v||``.

    The tangent of the angle to the leading eigenvector falls by ``lambda_2 / lambda_1`` per step
    or faster, the gap of the Rayleigh quotient by its square.

    Parameters
    ----------
    M : Tensor, shape (d, d), or callable
        Symmetric positive semidefinite matrix, or the map ``v -> M v``, which needs ``start``.
        For the covariance of rows ``X``, ``lambda v: X.T @ (X @ v) / len(X)`` never forms it.
    steps : int
        Most steps to take.
    tol : float
        Stop once ``||M v - value v|| <= tol |value|``; never below what the dtype resolves.
    start : Tensor, shape (d,), optional
        First vector; Gaussian by default. Needs a part along the leading eigenvector.
    generator : torch.Generator, optional
        Source of the default start.
    history : bool
        Keep every iterate and its Rayleigh quotient.

    Returns
    -------
    PowerIteration
        In the dtype of ``M`` (of ``start`` for a callable); half precision runs in float32. No
        gradients are tracked.

    Raises
    ------
    TypeError
        If ``M`` is neither a floating-point tensor nor callable.
    ValueError
        If ``M`` is not square, symmetric and finite, if ``start`` is missing for a callable, zero,
        or of the wrong shape, or if ``M v`` has another shape than ``v`` or is not finite.

    Notes
    -----
    *Ties*: with several leading eigenvectors, the limit is the projection of ``start`` onto their
    span. *Indefinite* ``M``: the eigenvalue of largest magnitude wins; if it is negative, the
    iterates change sign at every step and ``value`` is negative. If ``lambda`` and ``-lambda`` tie,
    nothing converges.

    Book: section ``power-iteration``.
    """
    apply, start, dtype = _prepare(M, start, 1, generator)
    run = _iterate(apply, start, _normalize, steps, tol, history)
    vector, value = run.block.flatten().to(dtype), run.quotient.flatten()[0].to(dtype)
    iterates, values = run.path.flatten(1).to(dtype), run.quotients.flatten().to(dtype)
    return PowerIteration(vector, value, run.steps, run.converged, iterates, values)


@torch.no_grad()
def orthogonal_iteration(
    M: Operator,
    k: int,
    steps: int = 1000,
    tol: float = 1e-12,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    history: bool = False,
) -> OrthogonalIteration:
    """Return the ``k`` leading eigenvectors of ``M`` by repeating ``V <- orthonormalize(M V)``.

    The span converges at the rate ``lambda_{k+1} / lambda_k``, whatever the gaps inside it. The
    eigenvectors are then read off the small matrix ``V^T M V`` (Rayleigh-Ritz).

    Parameters
    ----------
    M : Tensor, shape (d, d), or callable
        Symmetric positive semidefinite matrix, or the map ``V -> M V`` on ``(d, k)`` blocks, which
        needs ``start``.
    k : int
        Number of eigenvectors, between 1 and ``d``.
    steps : int
        Most steps to take.
    tol : float
        Stop once the span is invariant to this relative precision; never below what the dtype
        resolves.
    start : Tensor, shape (d, k), optional
        First block of full rank; Gaussian by default.
    generator : torch.Generator, optional
        Source of the default start.
    history : bool
        Keep every iterate: ``steps * d * k`` numbers at most.

    Returns
    -------
    OrthogonalIteration
        In the dtype of ``M`` (of ``start`` for a callable); half precision runs in float32. No
        gradients are tracked.

    Raises
    ------
    TypeError, ValueError
        As for :func:`power_iteration`, and if ``k`` is out of range.

    Notes
    -----
    For indefinite ``M`` the eigenvalues of largest magnitude win. Signs are free within
    ``vectors``; iterates keep the diagonal of the triangular factor positive.

    Book: section ``power-iteration``.
    """
    apply, start, dtype = _prepare(M, start, k, generator)
    run = _iterate(apply, start, orthonormalize, steps, tol, history)
    values, rotation = torch.linalg.eigh((run.quotient + run.quotient.T) / 2)
    order = values.abs().argsort(descending=True)
    vectors, values = (run.block @ rotation[:, order]).to(dtype), values[order].to(dtype)
    return OrthogonalIteration(vectors, values, run.steps, run.converged, run.path.to(dtype))


def deflate(M: Tensor, vector: Tensor, value: float | Tensor) -> Tensor:
    """Return ``M - value v v^T``: the same eigenvectors, with the eigenvalue of ``v`` set to zero.

    Parameters
    ----------
    M : Tensor, shape (d, d)
        Symmetric matrix.
    vector : Tensor, shape (d,)
        Unit eigenvector ``v``, in the dtype and on the device of ``M``.
    value : float or Tensor, shape ()
        Its eigenvalue.

    Returns
    -------
    Tensor, shape (d, d)

    Raises
    ------
    ValueError
        If ``M`` is not a symmetric matrix, ``vector`` not a unit vector of its size, or ``value``
        not finite.

    Notes
    -----
    Book: section ``power-iteration``.
    """
    _check_symmetric(M)
    check_like(vector, "vector", M.shape[:1], M)
    length = working(vector).norm().item()
    if abs(length - 1) > torch.finfo(M.dtype).eps ** 0.5:
        raise ValueError(f"vector must have length 1, got {length}")
    check_finite(value, "value")
    return M - value * torch.outer(vector, vector)


class _Run(NamedTuple):
    block: Tensor  # the last iterate V (d, k)
    quotient: Tensor  # its V^T M V
    steps: int
    converged: bool
    path: Tensor  # all iterates, and none without history
    quotients: Tensor


def _iterate(apply, start, project, steps, tol, history):
    """Repeat ``V <- project(M V)`` until the span of ``V`` is invariant."""
    check_count(steps, "steps")
    check_range(tol, "tol", 0)
    tol = max(tol, 4 * torch.finfo(start.dtype).eps * len(start) ** 0.5)
    V, path, quotients = project(start / unit_scale(start)), [], []
    for taken in range(steps + 1):
        image = check_tensor(apply(V), "M(v)")
        scale = unit_scale(image)  # squares of the entries could leave the dtype's range
        image = image / scale
        small = V.T @ image
        if history:
            path.append(V)
            quotients.append(small * scale)
        settled = bool((image - V @ small).norm() <= tol * small.norm())
        if settled or taken == steps:
            kept = (_stack(path, V), _stack(quotients, small))
            return _Run(V, small * scale, taken, settled, *kept)
        V = project(image)


def _stack(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(parts) if parts else like.new_zeros(0, *like.shape)


def _normalize(V: Tensor) -> Tensor:
    return V / V.norm()


def orthonormalize(V: Tensor) -> Tensor:
    """Return the orthogonal factor of ``V``, with the signs that keep converging columns still."""
    Q, R = torch.linalg.qr(V)
    return Q * torch.where(R.diagonal() < 0, -1.0, 1.0)


def _prepare(M, start, k, generator):
    """Return ``V -> M V`` on ``(d, k)`` blocks in working precision, a start, and the dtype."""
    if not isinstance(M, Tensor):
        return _prepare_callable(M, start, k)
    _check_symmetric(M)
    matrix, shape = working(M), (len(M), k)
    check_count(k, "k", len(M), "d")
    if start is None:
        start = draw_normal(shape, matrix, generator)
    else:
        start = _check_start(start, shape, M)
    return lambda V: matrix @ V, start, M.dtype


def _prepare_callable(M, start, k):
    if not callable(M):
        raise TypeError(f"M must be a torch.Tensor or a callable, got {type(M).__name__}")
    if start is None:
        raise ValueError("start must be given when M is a callable, got None")
    check_tensor(start, "start")
    shape = start.shape
    check_count(k, "k", len(start), "d")

    def apply(V: Tensor) -> Tensor:
        image = M(V.to(start.dtype).reshape(shape))
        return working(check_like(image, "M(v)", shape, start)).reshape(-1, k)

    return apply, _check_start(start, (len(start), k), start), start.dtype


def _check_start(start: Tensor, shape: tuple[int, int], other: Tensor) -> Tensor:
    """Return ``start`` as a block of full rank; a single vector may lack the column axis."""
    check_tensor(start, "start")
    expected = shape[:1] if shape[1] == 1 and start.ndim == 1 else shape
    block = working(check_like(start, "start", expected, other)).reshape(shape)
    rank = int(torch.linalg.matrix_rank(block))
    if rank < shape[1]:
        raise ValueError(f"start must have rank {shape[1]}, got {rank}")
    return block


def _check_symmetric(M: Tensor) -> None:
    check_square(M, "M")
    skew = working(M - M.T).abs().max().item()
    if skew > 100 * torch.finfo(M.dtype).eps * M.abs().max().item():
        raise ValueError(f"M must be symmetric, got entries of M - M^T up to {skew:.2g}")
