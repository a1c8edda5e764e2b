"""Independent components, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.subspaces.msp import fourth_powers, move_floor, settled
from companion_lib.subspaces.whitening import whiten as whiten_data
from companion_lib.validation import (
    check_count,
    check_features,
    check_range,
    check_samples,
    draw_normal,
    working,
)


@dataclass(frozen=True, eq=False, repr=False)
class FastICA:
    """Independent components found by ``fast_ica``.

    Attributes
    ----------
    unmixing : Tensor, shape (k, d)
        Row ``i`` reads source ``i`` off a centered sample: ``z = (x - mean) @ unmixing.T``.
    mean : Tensor, shape (d,)
        What is subtracted first; zero if the data were taken as white.
    moves : tuple of k Tensors
        For each component, how far each of its steps moved the direction, up to sign.
    converged : bool
        Whether the last step of every component moved it by at most ``tol``.
    """

    unmixing: Tensor
    mean: Tensor
    moves: tuple[Tensor, ...]
    converged: bool

    def encode(self, X: Tensor) -> Tensor:
        """Return the sources (n, k) of samples ``X`` of shape (n, d)."""
        check_features(X, self.mean)
        return ((working(X) - self.mean) @ working(self.unmixing).T).to(X.dtype)

    def __repr__(self) -> str:
        k, d = self.unmixing.shape
        steps = [len(moves) for moves in self.moves]
        return f"FastICA(k={k}, d={d}, steps={steps}, converged={self.converged})"


@torch.no_grad()
def fast_ica(
    X: Tensor,
    k: int | None = None,
    steps: int = 200,
    tol: float = 1e-9,
    generator: torch.Generator | None = None,
    whiten: bool = True,
) -> FastICA:
    """Find ``k`` independent components, one after the other, by their kurtosis.

    On white data a direction ``u`` is replaced by the normalized ``X^T (X u)^3 / n - 3 u``, kept
    orthogonal to the directions already found. The kurtosis along ``u`` is stationary at the true
    components, positive or negative, and convergence is cubic down to the sampling error. A
    direction of negative kurtosis changes sign at each step, so steps are compared up to sign.
    All components at once (symmetric FastICA): ``msp(whitened, shift=3)``.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    k : int, optional
        The number of components; ``d`` if not given.
    steps : int
        The largest number of steps for each component.
    tol : float
        Go on to the next component when a step moves the direction by at most this much; never
        below what the dtype resolves.
    generator : torch.Generator, optional
        Draws the random starts.
    whiten : bool
        Center and whiten first. Say False for data that are white already.

    Returns
    -------
    FastICA
        The unmixing matrix for ``X`` itself, whitening included, with ``encode``; in the dtype of
        ``X``, without gradients. Components come in no particular order, with arbitrary signs.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty, not finite, all zeros, or (to be whitened) not of full rank or a single
        sample, or a number is out of range.

    Notes
    -----
    Book: section ``ica``; Hyvärinen and Oja (1997). At most one source may be Gaussian. A step
    costs ``4 n d`` operations.
    """
    check_samples(X)
    d = X.shape[1]
    k = d if k is None else k
    check_count(k, "k", d, "d")
    check_count(steps, "steps", low=0)
    check_range(tol, "tol", 0)
    data, mean, white = working(X), working(X).new_zeros(d), None
    if whiten:
        white = whiten_data(data)
        data, mean = white.apply(data), white.mean
    weights = fourth_powers(data, shift=3.0)
    tol = move_floor(data, tol)
    found, histories = data.new_zeros(0, d), []
    for _ in range(k):
        start = draw_normal((d,), data, generator)
        direction, moves = _component(data, weights, found, start, steps, tol)
        found = torch.cat([found, direction[None]])
        histories.append(moves)
    unmixing = found if white is None else found @ white.matrix
    moves = tuple(torch.stack(m).to(X.dtype) if m else X.new_zeros(0) for m in histories)
    converged = all(settled(m, tol) for m in histories)
    return FastICA(unmixing.to(X.dtype), mean.to(X.dtype), moves, converged)


def _component(
    X: Tensor, weights: tuple, found: Tensor, start: Tensor, steps: int, tol: float
) -> tuple[Tensor, list[Tensor]]:
    """Return one direction and how far each step moved it."""
    scale, weight, pull = weights
    u, moves = _normalize(_project(start, found), found), []
    while len(moves) < steps and not settled(moves, tol):
        moments = (X @ (u / scale)) ** 3 @ X / scale / len(X)
        gradient = _project(weight * moments - pull * u, found)
        # Where no kurtosis is left, what remains is rounding, and the direction may stay.
        flat = gradient.norm() <= 2 * torch.finfo(X.dtype).eps * pull
        new = u if flat else _normalize(gradient, found)
        moves.append(torch.minimum((new - u).norm(), (new + u).norm()))
        u = new
    return u, moves


def _project(v: Tensor, found: Tensor) -> Tensor:
    """Remove from ``v`` its part along the orthonormal rows of ``found``."""
    return v - (found @ v) @ found


def _normalize(v: Tensor, found: Tensor) -> Tensor:
    """Make ``v`` a unit vector; what is left of it along ``found`` counts if ``v`` was small."""
    v = _project(v / v.norm(), found)
    return v / v.norm()
