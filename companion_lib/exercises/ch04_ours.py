"""Chapter 4, exercises of our own: views, the optimum of rate reduction, merging, the threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from companion_lib.exercises.ch04_measures import need_rate
from companion_lib.exercises.grading import (
    Wrong,
    as_tensor,
    ask,
    ask_number,
    ask_tuple,
    exercise,
    generator,
    need,
    need_equal,
    normal,
)


@exercise("4.E1a")
def log_det_of_views(answer: Callable) -> None:
    cases = [
        (2, 1.0, 0.0),
        (2, 8.0, 0.7),
        (2, 8.0, -0.7),
        (2, 3.0, 1.0),
        (3, 2.0, 0.4),
        (3, 2.0, -0.5),
        (8, 20.0, 0.95),
        (5, 0.1, 1.0),
        (1, 4.0, 1.0),
    ]
    for m, a, c in cases:
        where = f"m = {m}, a = {a:g}, cosine {c:g}"
        gram = (1 - c) * torch.eye(m, dtype=torch.float64) + c
        want = float((a * torch.linalg.eigvalsh(gram)).log1p().sum())
        got = ask_number(answer, where, m, a, c)
        need_equal(got, want, where, f"log det(I + aG) is {want:.4f}, not {got:.4f}")


@exercise("4.E1b")
def views_that_disagree(answer: Callable) -> None:
    where = "your two triples"
    totals, rates = [], []
    for name, triple in zip(("Z", "W"), ask_tuple(answer, where, length=2), strict=True):
        d = triple.shape[-1] if isinstance(triple, Tensor) and triple.ndim == 2 else 3
        triple = as_tensor(triple, name, where, (3, d))
        lengths = triple.square().sum(1)
        need_equal(lengths, torch.ones(3), where, f"the rows of {name} are not unit vectors")
        gram = triple @ triple.T
        cosines = gram[[0, 0, 1], [1, 2, 2]]
        need(bool((cosines >= -1e-9).all()), where, f"two rows of {name} have a negative cosine")
        totals.append(float(cosines.sum()))
        rates.append(float(torch.linalg.eigvalsh(gram).clamp(min=0).log1p().sum()))
    failure = f"the cosines of Z sum to {totals[0]:.4f}, not above {totals[1]:.4f}, those of W"
    need(totals[0] > totals[1] + 1e-6, where, failure)
    failure = f"log det(I + ZZᵀ) = {rates[0]:.4f} is not above {rates[1]:.4f}, that of W"
    need(rates[0] > rates[1] + 1e-6, where, failure)


def _largest_reduction(K: int, r: int, d: int, eps: float) -> float:
    """Return ΔR of K orthogonal classes of n_k samples with r equal singular values each."""
    n_k = 100
    n = K * n_k
    squares = torch.full((r,), n_k / r, dtype=torch.float64)
    whole = K * (d / (n * eps**2) * squares).log1p().sum() / 2
    part = (d / (n_k * eps**2) * squares).log1p().sum() / 2
    return float(whole - part)


@exercise("4.E2")
def best_rate_reduction(answer: Callable) -> None:
    cases = [(2, 1, 2, 1.0), (4, 4, 16, 0.5), (3, 2, 10, 2.0), (2, 3, 8, 0.01), (5, 1, 30, 9.0)]
    cases += [(1, 3, 5, 0.1), (10, 6, 64, 0.5)]
    for K, r, d, square in cases:
        where = f"K = {K}, r = {r}, d = {d}, ε² = {square:g}"
        want = _largest_reduction(K, r, d, square**0.5)
        got = ask_number(answer, where, K, r, d, square**0.5)
        short = f"classes can reach {want:.4f} nats, more than {got:.4f}"
        over = f"no such classes reach {got:.4f} nats; the largest is {want:.4f}"
        need_rate(got, want, where, short if got < want else over)


@exercise("4.E3")
def best_rank(answer: Callable) -> None:
    cases = [(4, 16, square) for square in (0.5, 1.0, 2.0, 4.0, 20.0)]
    cases += [(10, 64, 0.5), (2, 60, 1.0), (2, 60, 6.0), (3, 3, 0.1), (1, 5, 1.0), (3, 20, 1e-4)]
    for K, d, square in cases:
        where = f"K = {K}, d = {d}, ε² = {square:g}"
        rank = ask_number(answer, where, K, d, square**0.5)
        valid = rank == int(rank) and 1 <= rank <= d // K
        need(valid, where, f"your rank {rank:g} is not an integer from 1 to {d // K}")
        values = [_largest_reduction(K, r, d, square**0.5) for r in range(1, d // K + 1)]
        reached = values[int(rank) - 1]
        failure = f"rank {rank:g} gives {reached:.4f} nats, another rank {max(values):.4f}"
        need(reached >= max(values) - 1e-9, where, failure)


def _length(X: Tensor, eps: float) -> float:
    """Return (n + d) R_ε(X) in nats."""
    n, d = X.shape
    squares = torch.linalg.svdvals(X).square()
    return float((n + d) * (d / (n * eps**2) * squares).log1p().sum() / 2)


def _savings(X: Tensor, labels: Tensor, eps: float) -> dict[tuple[int, int], float]:
    """Return what merging each pair of clusters saves, in nats, memberships included."""
    clusters = [X[labels == k] for k in range(int(labels.max()) + 1)]
    savings = {}
    for k, m in combinations(range(len(clusters)), 2):
        sizes = torch.tensor([len(clusters[k]), len(clusters[m])], dtype=torch.float64)
        membership = float((sizes * (sizes.sum() / sizes).log()).sum())
        apart = _length(clusters[k], eps) + _length(clusters[m], eps) + membership
        savings[k, m] = apart - _length(torch.cat([clusters[k], clusters[m]]), eps)
    return savings


def _clusterings() -> Iterator[tuple[str, Tensor, Tensor, float]]:
    """Yield a description, samples, the labels of a clustering and ε."""
    rng = generator()

    def on(n: int, *directions: list[float]) -> Tensor:
        frame = torch.tensor(directions, dtype=torch.float64)
        return normal(n, len(frame), generator=rng) @ frame

    first, second = on(40, [0.6, 0.0, 0.8]), on(40, [0.0, -0.6, 0.8])
    plane = on(60, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    X = torch.cat([first, second, plane])
    X = X + 0.03 * normal(*X.shape, generator=rng)
    truth = torch.tensor([0] * 40 + [1] * 40 + [2] * 60)
    halves = truth.clone()
    halves[(truth == 0) & (X @ first[0] < 0)] = 3
    order = torch.randperm(len(X), generator=rng)
    yield "a line cut in two halves, a second line and a plane", X[order], halves[order], 0.1
    yield "two lines and a plane, each one cluster", X[order], truth[order], 0.1
    few = X[[0, 1, 2, 40, 41, 80]]
    yield "two clusters of one sample each", few[[0, 3]], torch.tensor([1, 0]), 0.1
    yield "two lines and a plane, and a large ε", X[order], truth[order], 4.0
    yield "six samples, each its own cluster", few, torch.arange(6), 0.1
    yield "one cluster", few, torch.zeros(6, dtype=torch.int64), 0.1
    sizes = torch.tensor([0] * 50 + [1] * 50 + [2] * 2 + [3] * 2)
    Y = torch.cat([plane[:50] * 3, first[:25], first[:25] * 1.1, second[:4]])
    yield "clusters of 50, 50, 2 and 2 samples", Y, sizes, 0.3


def _as_pair(reply: Any, where: str, K: int) -> tuple[int, ...]:
    """Return the reply as two different labels in order, or as () for no merge."""
    try:
        labels = sorted(float(label) for label in reply)
    except (TypeError, ValueError, RuntimeError):
        labels = [-1.0]
    valid = not labels or (
        len(set(labels)) == 2 == len(labels) and all(label in range(K) for label in labels)
    )
    failure = f"your answer must be two different labels from 0 to {K - 1}, or ()"
    if not valid:
        raise Wrong(f"for {where}, {failure}")
    return tuple(int(label) for label in labels)


@exercise("4.E4")
def best_merge(answer: Callable) -> None:
    for where, X, labels, eps in _clusterings():
        pair = _as_pair(ask(answer, where, X, labels, eps), where, int(labels.max()) + 1)
        savings = _savings(X, labels, eps)
        best = max(savings.values(), default=0.0)
        if not pair:
            need(best <= 1e-9, where, f"one merge saves {best:.4g} nats, and you merge nothing")
            continue
        saved = savings[pair]
        need(saved > 0, where, f"merging {pair} costs {-saved:.4g} nats more than it saves")
        failure = f"merging {pair} saves {saved:.4g} nats, another merge {best:.4g}"
        need(saved >= best - 1e-9 * abs(best), where, failure)


# d, n, n_k, ε²: equal halves, a tenth, a hundredth, most samples, small and large ε.
_CLASSES = [
    (8, 20, 10, 0.5),
    (64, 1000, 100, 0.5),
    (128, 2000, 20, 0.5),
    (8, 40, 30, 0.1),
    (3, 6, 2, 4.0),
]


def _gain(s: Tensor, d: int, n: int, n_k: int, square: float) -> Tensor:
    """Return what one singular value with square ``s`` in a class adds to ΔR."""
    whole = (d / (n * square) * s).log1p()
    return (whole - n_k / n * (d / (n_k * square) * s).log1p()) / 2


def _squares(d: int, n_k: int, square: float) -> Tensor:
    """Return squared singular values on a fine logarithmic grid around the scale of the class."""
    return n_k * square / d * torch.logspace(-4, 5, 20001, dtype=torch.float64)


def _largest_slope(d: int, n: int, n_k: int, square: float) -> float:
    """Return the largest λ that leaves a critical point, found on the grid."""
    s = _squares(d, n_k, square)
    a, a_k = d / (n * square), d / (n_k * square)
    return float((a / (1 + a * s) - a / (1 + a_k * s)).max())


@exercise("4.E5a")
def critical_singular_value(answer: Callable) -> None:
    for d, n, n_k, square in _CLASSES:
        for part in (0.1, 0.5, 0.95):
            lam = part * _largest_slope(d, n, n_k, square)
            where = f"d = {d}, n = {n}, n_k = {n_k}, ε² = {square:g}, λ = {lam:.4g}"
            sigma = ask_number(answer, where, d, n, n_k, square**0.5, lam)
            need(sigma > 0, where, f"a singular value must be positive, got {sigma:.4g}")
            s = torch.tensor(sigma**2, dtype=torch.float64, requires_grad=True)
            value = _gain(s, d, n, n_k, square) - lam / 2 * s
            (slope,) = torch.autograd.grad(value, s, create_graph=True)
            (bend,) = torch.autograd.grad(slope, s)
            slope, bend, place = slope.item(), bend.item(), f"at σ² = {sigma**2:.4g}"
            flat = abs(slope) < 1e-8 * lam
            need(flat, where, f"{place} the objective has slope {slope:.2g}, not 0")
            need(bend < 0, where, f"{place} the objective has a minimum, not a maximum")


@exercise("4.E5b")
def zero_threshold(answer: Callable) -> None:
    for d, n, n_k, square in _CLASSES:
        where = f"d = {d}, n = {n}, n_k = {n_k}, ε² = {square:g}"
        lam = ask_number(answer, where, d, n, n_k, square**0.5)
        need(lam > 0, where, f"λ must be positive, got {lam:.4g}")
        s = _squares(d, n_k, square)
        gain = _gain(s, d, n, n_k, square)
        below = float((gain - 0.999 * lam / 2 * s).max())
        failure = f"at a λ 0.1 % below your {lam:.5g} every σ > 0 is worse than Z = 0 already"
        need(below > 0, where, failure)
        above = float((gain - 1.001 * lam / 2 * s).max())
        failure = f"at a λ 0.1 % above your {lam:.5g} some σ > 0 is still better than Z = 0"
        need(above < 0, where, failure)
