"""Independent components, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.subspaces.whitening import whiten as whiten_data
from companion_lib.validation import check_range, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class FastICA:
    """Independent components found by ``fast_ica``.

    Attributes
    ----------
    unmixing : Tensor, shape (k, d)
        Row ``i`` reads source ``i`` off a centered sample: ``z = (x - mean) @ unmixing.T``.
    mean : Tensor, shape (d,)
        What is subtracted first; zero if the data were taken as white.
    step_sizes : tuple of k Tensors
        For each component, how far each of its steps moved the direction, up to sign.
    """

    unmixing: Tensor
    mean: Tensor
    step_sizes: tuple[Tensor, ...]

    def encode(self, X: Tensor) -> Tensor:
        """Return the sources (n, k) of samples ``X`` of shape (n, d)."""
        return (X - self.mean) @ self.unmixing.T

    def __repr__(self) -> str:
        k, d = self.unmixing.shape
        return f"FastICA(k={k}, d={d}, steps={[len(s) for s in self.step_sizes]})"


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
        Go on to the next component when a step moves the direction by at most this much.
    generator : torch.Generator, optional
        Draws the random starts, on the device of ``X``.
    whiten : bool
        Center and whiten first. Say False for data that are white already.

    Returns
    -------
    FastICA
        The unmixing matrix for ``X`` itself, whitening included, with ``encode``. Components
        come in no particular order, with arbitrary signs.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty, not finite or not of full rank, or ``k`` is not between 1 and ``d``.

    Notes
    -----
    Book: section ``ica``; Hyvärinen and Oja (1997). At most one source may be Gaussian. A step
    costs ``4 n d`` operations.
    """
    check_samples(X)
    d = X.shape[1]
    k = d if k is None else k
    check_range(k, "k", 1, d, why="d")
    check_range(steps, "steps", 0)
    check_range(tol, "tol", 0)
    data, mean, white = working(X), working(X).new_zeros(d), None
    if whiten:
        white = whiten_data(data)
        data, mean = white.apply(data), white.mean
    found, histories = data.new_zeros(0, d), []
    for _ in range(k):
        direction, history = _component(data, found, steps, tol, generator)
        found = torch.cat([found, direction[None]])
        histories.append(history)
    unmixing = found if white is None else found @ white.matrix
    return FastICA(unmixing.to(X.dtype), mean.to(X.dtype), tuple(histories))


def _component(
    X: Tensor, found: Tensor, steps: int, tol: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    start = torch.randn(X.shape[1], generator=generator, dtype=X.dtype, device=X.device)
    u, history = _orthonormalize(start, found), []
    for _ in range(steps):
        y = X @ u
        new = _orthonormalize((y * y * y) @ X / len(X) - 3 * u, found)
        history.append(torch.minimum((new - u).norm(), (new + u).norm()))
        u = new
        if history[-1] <= tol:
            break
    return u, torch.stack(history) if history else X.new_zeros(0)


def _orthonormalize(v: Tensor, found: Tensor) -> Tensor:
    """Make ``v`` a unit vector orthogonal to the rows of ``found``."""
    for _ in range(2):  # Once is not enough when v lies almost in their span.
        v = v - (found @ v) @ found
        v = v / v.norm()
    return v
