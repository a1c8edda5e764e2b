"""Memorization: do samples repeat the training set, and what capacity does that take?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from companion_lib.denoising.processes import Process, Time, per_row
from companion_lib.validation import (
    check_like,
    check_positive,
    check_range,
    check_samples,
    check_tensor,
    working,
)

NUMBERS = 2**22  # distances, or coordinates of differences, that exist at a time


@dataclass(frozen=True, eq=False, repr=False)
class Memorization:
    """Which samples repeat a training point; computed by ``memorization_ratio``.

    Attributes
    ----------
    memorized : Tensor, (n,), bool
        Whether the nearest training point is far nearer than the second nearest.
    indices : Tensor, (n, 2)
        The nearest training point and the second nearest.
    distances : Tensor, (n, 2)
        Euclidean distances to them.
    """

    memorized: Tensor
    indices: Tensor
    distances: Tensor

    @property
    def ratio(self) -> float:
        """Fraction of the samples that are memorized; one minus it is a generalization score."""
        return self.memorized.double().mean().item()

    def __repr__(self) -> str:
        return f"Memorization({int(self.memorized.sum())} of {len(self.memorized)} samples)"


def memorization_ratio(samples: Tensor, X: Tensor, threshold: float = 1 / 3) -> Memorization:
    """Tell which samples are copies: nearest training point at most ⅓ as far as the second.

    Parameters
    ----------
    samples : Tensor, (n, ...)
        To be judged. Half precision is computed in float32.
    X : Tensor, (N, ...)
        The training set, at least two points.
    threshold : float, from 0 to 1

    Returns
    -------
    Memorization

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes, dtypes or devices do not fit, something is empty or NaN, ``X`` has one point
        only, or ``threshold`` is out of range.

    Notes
    -----
    Report ``N`` with the ratio: the criterion is about gaps between training points, and those
    narrow as the training set grows. An exact copy is memorized even if the training set has the
    point twice.

    ``n N d`` multiply-adds in one matrix product, at most four million distances at a time.

    Book: section ``memorization-and-generalization``; Yoon et al. (2023).
    """
    check_range(threshold, "threshold", 0, 1)
    indices, distances = nearest_two(samples, X)
    return Memorization(distances[:, 0] <= threshold * distances[:, 1], indices, distances)


def nearest_two(samples: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """Return indices and distances ``(n, 2)`` of the two points of ``X`` nearest to each sample.

    Parameters
    ----------
    samples : Tensor, (n, ...)
    X : Tensor, (N, ...)
        At least two points.

    Returns
    -------
    indices : Tensor, (n, 2)
    distances : Tensor, (n, 2)
        Euclidean, the smaller first; for half precision float32.

    Raises
    ------
    TypeError, ValueError
        As ``memorization_ratio``.

    Notes
    -----
    Found by a matrix product of centered points and then measured from differences: a copy has
    distance zero, not what rounding leaves of two large squares. Points whose squared distances
    to a sample agree to rounding of their squared lengths may be taken for each other.
    """
    check_tensor(X, "X")
    check_tensor(samples, "samples")
    check_like(samples, "samples", (len(samples), *X.shape[1:]), X)
    X, samples = working(X).flatten(1), working(samples).flatten(1)
    check_samples(X, "X", min_rows=2)
    center = X.mean(0)
    points = X - center
    halves = points.square().sum(1) / 2
    rows = max(1, NUMBERS // max(len(X), 2 * X.shape[1]))
    indices, distances = [], []
    for block in samples.split(rows):
        closeness = torch.addmm(halves, block - center, points.T, alpha=-1)  # up to ‖sample‖²/2
        found = closeness.topk(2, largest=False).indices
        exact = (block[:, None] - X[found]).norm(dim=2)
        ordered = exact.sort(1)
        indices.append(found.gather(1, ordered.indices))
        distances.append(ordered.values)
    return torch.cat(indices), torch.cat(distances)


class PartialMemorizer(nn.Module):
    """The best denoiser of a mixture of M equal balls: a model whose capacity is M points.

    The model law is ``1/M Σ N(μ_k, v I)``. Its M means and its one variance are what it learns.
    With ``c = α² v + σ²``,

        E[x | x_t] = (α v x_t + σ² Σ w_k μ_k) / c,    w_k ∝ exp(-‖x_t - α μ_k‖² / (2c)).

    With a mean on every training point and ``v = 0`` it is the empirical denoiser, which memorizes;
    with few means it has to generalize.

    Parameters
    ----------
    means : Tensor, (M, d)
        Where the means start, such as M of the training points; copied.
    process : Process
    variance : float, positive
        Where ``v`` starts.

    Attributes
    ----------
    means : nn.Parameter, (M, d)
    log_variance : nn.Parameter, ()
        ``log v``, so that v stays positive.

    Raises
    ------
    TypeError, ValueError
        If ``means`` is not a finite floating-point ``(M, d)`` tensor or ``variance`` not positive.

    Notes
    -----
    ``2 M d`` multiply-adds for each row.

    Book: section ``memorization-and-generalization``.
    """

    def __init__(self, means: Tensor, process: Process, variance: float = 0.1):
        super().__init__()
        check_samples(means, "means")
        check_positive(variance, "variance")
        self.process = process
        self.means = nn.Parameter(means.detach().clone())
        self.log_variance = nn.Parameter(means.new_tensor(math.log(variance)))

    def forward(self, x_t: Tensor, t: Time) -> Tensor:
        """Return ``E[x | x_t]`` ``(n, d)`` under the model, for noised samples ``(n, d)``.

        Times ``t`` are () or (n,). Where there is no noise it returns ``x_t / α``.
        """
        check_like(x_t, "x_t", (len(x_t), self.means.shape[1]), self.means)
        alpha, sigma = (per_row(f(t), x_t) for f in (self.process.alpha, self.process.sigma))
        variance = self.log_variance.exp()
        total = alpha**2 * variance + sigma**2
        lengths = self.means.square().sum(1)
        logits = (alpha * (x_t @ self.means.T) - alpha**2 / 2 * lengths) / total
        mean = logits.softmax(1) @ self.means
        return (alpha * variance * x_t + sigma**2 * mean) / total
