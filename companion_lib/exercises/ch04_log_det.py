"""Chapter 4, exercises 1 and 2: log det is concave, cheap on one side, and measures two vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from companion_lib.data import random_orthogonal
from companion_lib.exercises.ch04_measures import need_rate
from companion_lib.exercises.grading import (
    as_number,
    ask_number,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    need_equal,
    normal,
    second_derivative,
)
from companion_lib.exercises.work import Work


def _symmetric(d: int, rng: torch.Generator) -> Tensor:
    H = normal(d, d, generator=rng)
    return (H + H.T) / 2


def _definite(eigenvalues: list[float], rng: torch.Generator) -> Tensor:
    W = random_orthogonal(len(eigenvalues), generator=rng, dtype=torch.float64)
    return (W * torch.tensor(eigenvalues, dtype=torch.float64)) @ W.T


def _lines() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a description, a positive definite X and a symmetric direction H."""
    rng = generator()
    v = normal(4, generator=rng)
    X = _definite([4, 2, 1, 0.5], rng)
    yield "X = I and a random H", torch.eye(3, dtype=torch.float64), _symmetric(3, rng)
    yield "a random X and H", X, _symmetric(4, rng)
    yield "H = X", X, X.clone()
    yield "an H of rank one", X, torch.outer(v, v)
    yield "a negative definite H", X, -_definite([1, 1, 2, 3], rng)
    yield "an ill-conditioned X", _definite([100, 1, 0.01], rng), _symmetric(3, rng)
    yield "1 × 1 matrices", _definite([2.5], rng), _symmetric(1, rng)
    yield "H = 0", X, torch.zeros_like(X)


@exercise("4.1a")
def bend_along_line(answer: Callable) -> None:
    for where, X, H in _lines():
        got = ask_number(answer, where, X, H)
        need(got <= 1e-9, where, f"your number {got:.4g} is positive: log det would not be concave")
        want = second_derivative(lambda t, X=X, H=H: torch.linalg.slogdet(X + t * H).logabsdet)
        failure = f"the second derivative of log det(X + tH) at t = 0 is {want:.4g}, not {got:.4g}"
        need_equal(got, want, where, failure)


def _rank_two(n: int, d: int, rng: torch.Generator) -> Tensor:
    return normal(n, 2, generator=rng) @ normal(2, d, generator=rng)


@exercise("4.1b")
def log_det_on_the_smaller_side(answer: Callable) -> None:
    rng = generator()
    cases = [normal(n, d, generator=rng) for n, d in ((6, 4), (3, 7), (5, 5), (1, 1), (1, 6))]
    cases += [_rank_two(40, 8, rng), torch.zeros(4, 7, dtype=torch.float64)]
    cases += [normal(3, 1000, generator=rng), normal(1000, 3, generator=rng)]
    for X in cases:
        where = f"X of shape {tuple(X.shape)}"
        with Work() as work:
            got = ask_number(answer, where, X)
        want = float(torch.linalg.svdvals(X).square().log1p().sum())
        need_equal(got, want, where, "this is not log det(I + XᵀX)")
        side = min(X.shape)
        failure = (
            f"the value is right, but your function makes a tensor of {work.largest:,} numbers; "
            f"a Gram matrix of {side * side} is enough"
        )
        need(work.largest <= 10 * max(X.numel(), 100), where, failure)


@exercise("4.1c")
def rates_at_many_precisions(answer: Callable) -> None:
    rng = generator()
    precisions = torch.logspace(-2, 1, 200, dtype=torch.float64)
    cases = [
        (normal(30, 5, generator=rng), precisions),
        (normal(4, 9, generator=rng), precisions),
        (_rank_two(12, 6, rng), precisions),
        (normal(1, 3, generator=rng), precisions[[150, 10]]),
        (3 * normal(8, 1, generator=rng), precisions[:1]),
        (torch.zeros(5, 3, dtype=torch.float64), precisions),
    ]
    for Z, eps in cases:
        n, d = Z.shape
        where = f"Z of shape ({n}, {d}) and {len(eps)} values of ε"
        with Work() as work:
            rates = ask_tensor(answer, where, Z, eps, shape=(len(eps),))
        squares = torch.linalg.svdvals(Z).square()
        want = (d / (n * eps[:, None] ** 2) * squares).log1p().sum(1) / 2
        need_rate(rates, want, where, "these are not the rates ½ log det(I + d/(nε²) ZᵀZ)")
        failure = f"the rates are right, but {work.factored} matrices were factored; one is enough"
        need(work.factored <= max(4, len(eps) // 50), where, failure)


def _pair(c: float, d: int, rng: torch.Generator) -> Tensor:
    """Return two unit vectors as rows (2, d) with cosine ``c``; d = 1 has only c = 1 and c = -1."""
    Q = random_orthogonal(d, generator=rng, dtype=torch.float64)
    first = Q[0]
    second = c * first + (math.sqrt(1 - c * c) * Q[1] if d > 1 else 0)
    return torch.stack([first, second])


def _log_det_of_pair(c: float, d: int, rng: torch.Generator) -> float:
    return float(torch.linalg.svdvals(_pair(c, d, rng)).square().log1p().sum())


@exercise("4.2a")
def log_det_of_two(answer: Callable) -> None:
    rng = generator()
    cases = [(0.0, 3), (0.5, 2), (-0.5, 2), (0.9, 7), (-0.3, 4), (1.0, 3), (-1.0, 1), (1.0, 1)]
    for c, d in cases:
        where = f"two unit vectors of R^{d} with cosine {c:g}"
        want = _log_det_of_pair(c, d, rng)
        got = ask_number(answer, where, c)
        need_equal(got, want, where, f"log det(I + ZZᵀ) is {want:.4f}, not {got:.4f}")


@exercise("4.2b")
def cosines_of_the_optima(answer: Callable) -> None:
    rng = generator()
    objectives = [
        ("largest inner product", lambda Z: Z[0] @ Z[1]),
        ("smallest distance", lambda Z: -(Z[0] - Z[1]).square().sum()),
        ("smallest log det", lambda Z: -torch.linalg.svdvals(Z).square().log1p().sum()),
        ("largest log det", lambda Z: torch.linalg.svdvals(Z).square().log1p().sum()),
    ]
    ranges = [(0.0, 1.0), (0.2, 0.7), (-1.0, 1.0), (-0.3, 0.5), (-0.8, 0.5), (-0.9, -0.4)]
    for low, high in ranges:
        where = f"cosines from {low:g} to {high:g}"
        cosines = ask_tuple(answer, where, low, high, length=4)
        grid = [*torch.linspace(low, high, 41).tolist(), low, high, min(max(0.0, low), high)]
        pairs = [_pair(c, 2, rng) for c in grid]
        for cosine, (name, objective) in zip(cosines, objectives, strict=True):
            c = as_number(cosine, f"the cosine of the {name}", where)
            inside = low - 1e-9 <= c <= high + 1e-9
            need(inside, where, f"your cosine of the {name}, {c:.4g}, is outside the range")
            reached = float(objective(_pair(min(max(c, -1.0), 1.0), 2, rng)))
            best = max(float(objective(Z)) for Z in pairs)
            failure = f"cosine {c:.4g} does not give the {name}; another cosine does better"
            need(reached >= best - 1e-6, where, failure)
