"""Chapter 4, exercise 3: the rate-distortion function of a Gaussian vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib.exercises.ch04_measures import need_rate
from companion_lib.exercises.grading import (
    ask_number,
    ask_tensor,
    exercise,
    generator,
    need,
    need_equal,
)

# Every direction coded, some, one; ε² equal to the trace and above it; a wrong order; ties; one
# eigenvalue; zeros; nothing but zeros.
_SOURCES = [
    ([1.0, 0.5, 0.25, 0.125], math.sqrt(0.1)),
    ([1.0, 0.5, 0.25, 0.125], math.sqrt(0.8)),
    ([1.0, 0.5, 0.25, 0.125], math.sqrt(1.5)),
    ([1.0, 0.5, 0.25, 0.125], math.sqrt(1.875)),
    ([1.0, 0.5, 0.25, 0.125], 2.0),
    ([0.25, 1.0, 0.125, 0.5], math.sqrt(0.8)),
    ([2.0, 2.0, 2.0], 1.0),
    ([3.0, 1.0, 1.0, 1.0], math.sqrt(3.6)),
    ([3.0], 1.0),
    ([3.0], 2.0),
    ([1.0, 0.0, 0.5, 0.0], 0.3),
    ([1.0, 0.0, 0.5, 0.0], 1.1),
    ([0.0, 0.0], 0.5),
]


def _water_filling(eigenvalues: Tensor, eps: float) -> Tensor:
    """Return the distortion of each direction, with the water level from bisection."""
    low, high = 0.0, float(eigenvalues.max())
    for _ in range(200):
        level = (low + high) / 2
        if float(eigenvalues.clamp(max=level).sum()) < eps**2:
            low = level
        else:
            high = level
    return eigenvalues.clamp(max=high)


@exercise("4.3a")
def share_the_distortion(answer: Callable) -> None:
    for values, eps in _SOURCES:
        where = f"eigenvalues {values} and ε² = {eps * eps:.4g}"
        eigenvalues = torch.tensor(values, dtype=torch.float64)
        D = ask_tensor(answer, where, eigenvalues, eps, shape=(len(values),))
        need(bool((D >= -1e-9).all()), where, "a distortion is negative")
        over = "a direction has more distortion than variance; coding nothing there is cheaper"
        need(bool((D <= eigenvalues + 1e-9).all()), where, over)
        total, allowed = float(D.sum()), min(eps**2, sum(values))
        failure = f"the distortions sum to {total:.4g}, but {allowed:.4g} may and should be spent"
        need_equal(total, allowed, where, failure)
        level = float(D.max())
        coded = D < eigenvalues - 1e-9
        failure = "the directions that are coded differ in distortion; evening out saves nats"
        need(bool((D[coded] >= level - 1e-9).all()), where, failure)


@exercise("4.3b")
def rate_of_gaussian(answer: Callable) -> None:
    for values, eps in _SOURCES:
        where = f"eigenvalues {values} and ε² = {eps * eps:.4g}"
        eigenvalues = torch.tensor(values, dtype=torch.float64)
        got = ask_number(answer, where, eigenvalues, eps)
        need(got >= -1e-9, where, f"your rate {got:.4g} is negative")
        upper = float((len(values) / eps**2 * eigenvalues).log1p().sum()) / 2
        failure = "this is R_ε, the rate of a test channel that is not the best one"
        need(upper == 0 or abs(got - upper) > 1e-9 * upper, where, failure)
        positive = eigenvalues > 0
        distortions = _water_filling(eigenvalues, eps)[positive]
        want = float((eigenvalues[positive] / distortions).log().sum()) / 2
        need_rate(got, want, where, f"{want:.4g} nats are enough and necessary, not {got:.4g}")


@exercise("4.3c")
def gap_of_low_rank(answer: Callable) -> None:
    rng = generator()
    for r, d in ((4, 64), (1, 10), (3, 3), (1, 1), (7, 8)):
        where = f"rank {r} in {d} dimensions"
        eigenvalues = 0.5 + torch.rand(r, generator=rng, dtype=torch.float64)
        eps = 1e-5
        upper = (d / eps**2 * eigenvalues).log1p().sum() / 2
        gap = float(upper - (r / eps**2 * eigenvalues).log().sum() / 2)
        got = ask_number(answer, where, r, d)
        failure = f"at ε = {eps:g} the gap is already {gap:.5f} nats, not {got:.5f}"
        need_equal(got, gap, where, failure, tol=1e-6)
