"""Online PCA: learn principal components from one sample at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib.subspaces.power import orthonormalize
from companion_lib.validation import (
    check_count,
    check_like,
    check_orthonormal,
    check_tensor,
    draw_normal,
    working,
)


class OnlinePCA:
    """Leading components of a stream of samples, by Oja's rule.

    Each sample pulls the basis toward itself, and the basis is made orthonormal again,

        U <- orthonormalize(U + gain x x^T U),

    a stochastic power iteration: one sample stands for the covariance. It keeps ``k d`` numbers
    and no sample. The stream is taken to have mean zero.

    Parameters
    ----------
    dim : int
        Number of coordinates ``d`` of a sample.
    k : int
        Number of components, between 1 and ``dim``.
    gain : float or callable
        Step size, positive, in units of one over variance; a callable gets the step's number,
        1, 2, ..., so ``gain=lambda t: 5 / (100 + t)`` cools down.
    generator : torch.Generator, optional
        Source of the random start, drawn at the first sample.
    start : Tensor, shape (k, d), optional
        First components, orthonormal rows, instead of a random start.

    Attributes
    ----------
    components : Tensor, shape (k, d)
        Current components, orthonormal rows.
    steps : int
        Samples seen.

    Raises
    ------
    TypeError, ValueError
        If a size or gain is out of range, or a sample has another size, dtype or device than the
        first, or is not finite.
    RuntimeError
        If ``components`` are read before the first sample, without a ``start``.

    Notes
    -----
    A constant gain never settles: for a small ``gain`` and Gaussian samples, the mean of
    ``sin^2`` of the angle to the leading eigenvector levels off at

        gain / 2 * sum_{j > 1} lambda_1 lambda_j / (lambda_1 - lambda_j),

    and in return it follows a drifting distribution. A gain that falls like ``1 / t`` converges,
    and then follows nothing.

    For half-precision samples the state is kept in float32. No gradients are tracked.

    Book: section ``online-pca``. Oja (1982).
    """

    def __init__(
        self,
        dim: int,
        k: int = 1,
        gain: float | Callable[[int], float] = 0.01,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
    ) -> None:
        self.dim = check_count(dim, "dim")
        self.k = check_count(k, "k", dim, "dim")
        self.gain = gain
        self.steps = 0
        self._generator = generator
        self._basis: Tensor | None = None  # (d, k), in working precision
        self._like: Tensor | None = None  # an empty tensor with the samples' dtype and device
        if not callable(gain):
            _check_gain(gain)
        if start is not None:
            self._set_start(start)

    @property
    def components(self) -> Tensor:
        """Current components ``(k, d)``, orthonormal rows, in the dtype of the samples."""
        if self._basis is None:
            raise RuntimeError("components are drawn at the first sample; call step or fit first")
        return self._basis.T.to(self._like.dtype)

    @torch.no_grad()
    def step(self, x: Tensor) -> OnlinePCA:
        """Learn from one sample ``x`` ``(d,)``; return ``self``."""
        check_tensor(x, "x", ndim=1)
        self._update(self._prepare(x, "x", (self.dim,)))
        return self

    @torch.no_grad()
    def fit(self, X: Tensor) -> OnlinePCA:
        """Learn from the rows of ``X`` ``(n, d)`` in order, as by :meth:`step`; return ``self``."""
        check_tensor(X, "X", ndim=2)
        for x in self._prepare(X, "X", (len(X), self.dim)):
            self._update(x)
        return self

    def _update(self, x: Tensor) -> None:
        self.steps += 1
        gain = _check_gain(self.gain(self.steps)) if callable(self.gain) else self.gain
        self._basis = orthonormalize(self._basis + gain * torch.outer(x, x @ self._basis))

    def _prepare(self, samples: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
        """Check samples against the state, drawing the start if they are the first."""
        check_like(samples, name, shape, samples if self._like is None else self._like)
        W = working(samples)
        if self._basis is None:
            draw = draw_normal((self.dim, self.k), W, self._generator)
            self._basis, self._like = orthonormalize(draw), samples.new_empty(0)
        return W

    @torch.no_grad()
    def _set_start(self, start: Tensor) -> None:
        check_like(start, "start", (self.k, self.dim), start)
        check_orthonormal(start, "start")
        self._basis, self._like = orthonormalize(working(start).T), start.new_empty(0)

    def __repr__(self) -> str:
        return f"OnlinePCA(dim={self.dim}, k={self.k}, steps={self.steps})"


def _check_gain(gain: float) -> float:
    if not 0 < gain < float("inf"):
        raise ValueError(f"gain must be positive and finite, got {gain}")
    return gain
