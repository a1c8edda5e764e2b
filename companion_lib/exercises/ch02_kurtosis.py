"""Chapter 2, exercises 5 and 7: the algebra of kurtosis and its landscape on the sphere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib.exercises.grading import (
    as_number,
    as_tensor,
    ask,
    ask_number,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    need_equal,
    normal,
)

# Mixed signs with a tie, all positive, all negative, all negative and equal, and d = 1 twice.
_KURTOSES = [
    [7.0, 3.0, -1.2, 5.0, -0.5],
    [2.0, 6.0, 6.0],
    [-1.0, -2.0, -0.5, -3.0],
    [-1.0, -1.0],
    [4.0],
    [-1.2],
]


def _moment(values: Tensor, probabilities: Tensor, power: int) -> Tensor:
    return (values**power * probabilities).sum()


def _kurtosis(values: Tensor, probabilities: Tensor) -> Tensor:
    """Return E x⁴ - 3 (E x²)² of a variable with finitely many values."""
    second = _moment(values, probabilities, 2)
    return _moment(values, probabilities, 4) - 3 * second**2


def _two_valued(p: float) -> tuple[Tensor, Tensor]:
    """Return a zero-mean variable that is 1 - p with probability p and -p otherwise."""
    values = torch.tensor([1 - p, -p], dtype=torch.float64) * 2
    return values, torch.tensor([p, 1 - p], dtype=torch.float64)


@exercise("2.5a")
def kurtosis_of_combination(answer: Callable) -> None:
    for weights, ps in (
        ([1.0, 1.0], [0.5, 0.1]),
        ([-2.0], [0.2]),
        ([0.5, -1.0, 3.0], [0.5, 0.3, 0.05]),
        ([0.0, 1.5], [0.4, 0.9]),
    ):
        where = f"weights {weights}"
        total, law = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        for weight, p in zip(weights, ps, strict=True):
            values, probabilities = _two_valued(p)
            total = (total[:, None] + weight * values).flatten()
            law = (law[:, None] * probabilities).flatten()
        kurtoses = torch.stack([_kurtosis(*_two_valued(p)) for p in ps])
        weights = torch.tensor(weights, dtype=torch.float64)
        got = ask_number(answer, where, weights, kurtoses)
        failure = "this is not the kurtosis of Σ wᵢXᵢ for independent two-valued Xᵢ"
        need_equal(got, _kurtosis(total, law), where, failure)


@exercise("2.5b")
def dependent_pair(answer: Callable) -> None:
    where = "your table"
    values, law = ask_tuple(answer, where, length=2)
    rows = len(values) if isinstance(values, Tensor) and values.ndim else 0
    values = as_tensor(values, "values", where, (rows, 2))
    law = as_tensor(law, "probabilities", where, (rows,))
    need(bool((law >= 0).all()), where, "a probability is negative")
    need_equal(law.sum(), 1.0, where, "the probabilities do not sum to 1")
    need_equal(law @ values, torch.zeros(2), where, "a mean is not zero")
    x, y = values.T
    need(float(_moment(x, law, 2)) > 1e-6, where, "X is constant")
    need(float(_moment(y, law, 2)) > 1e-6, where, "Y is constant")
    need_equal((x * y) @ law, 0.0, where, "X and Y are correlated")
    gap = _kurtosis(x + y, law) - _kurtosis(x, law) - _kurtosis(y, law)
    need(float(gap.abs()) > 1e-6, where, "kurt(X + Y) equals kurt(X) + kurt(Y) for this pair")


def _gradient(w: Tensor, k: Tensor) -> Tensor:
    return 4 * (k * w**3 - (k * w**4).sum() * w)


def _hessian(w: Tensor, k: Tensor) -> Tensor:
    P = torch.eye(len(w), dtype=w.dtype) - torch.outer(w, w)
    curvature = 4 * (k * w**4).sum() * torch.eye(len(w), dtype=w.dtype)
    return P @ (torch.diag(12 * k * w**2) - curvature) @ P


@exercise("2.7a")
def kurtosis_gradient(answer: Callable) -> None:
    rng = generator()
    for values in _KURTOSES:
        where = f"kurtoses {values}"
        k = torch.tensor(values, dtype=torch.float64)
        w = torch.nn.functional.normalize(normal(len(k), generator=rng), dim=0)
        got = ask_tensor(answer, where, w, k, shape=(len(k),))
        need_equal(got @ w, 0.0, where, "your gradient is not tangent to the sphere at w")
        need_equal(got, _gradient(w, k), where, "this is not the gradient of Σ kᵢwᵢ⁴ on the sphere")


def _supports(values: list[float]) -> list[list[int]]:
    """Return a few supports S on which all kurtoses have one sign."""
    positive = [i for i, k in enumerate(values) if k > 0]
    negative = [i for i, k in enumerate(values) if k < 0]
    chosen = [S[:m] for S in (positive, negative) for m in (1, 2, len(S)) if 0 < m <= len(S)]
    return [S for i, S in enumerate(chosen) if S not in chosen[:i]]


@exercise("2.7b")
def critical_point(answer: Callable) -> None:
    for values in _KURTOSES:
        k = torch.tensor(values, dtype=torch.float64)
        for S in _supports(values):
            where = f"kurtoses {values} and S = {S}"
            w = ask_tensor(answer, where, k, S, shape=(len(k),))
            need_equal(w.norm(), 1.0, where, "your point is not on the unit sphere")
            support = [i for i, entry in enumerate(w.tolist()) if abs(entry) > 1e-9]
            need(support == S, where, f"the nonzero entries of your point are {support}")
            zero = torch.zeros_like(w)
            need_equal(_gradient(w, k), zero, where, "the gradient is not zero at your point")


def _known_critical_point(k: Tensor, S: list[int]) -> Tensor:
    w = torch.zeros_like(k)
    w[S] = (1 / (k[S] * (1 / k[S]).sum())).sqrt()
    return w


@exercise("2.7c")
def ascent_and_descent(answer: Callable) -> None:
    for values in _KURTOSES:
        k = torch.tensor(values, dtype=torch.float64)
        for S in _supports(values):
            where = f"kurtoses {values} and S = {S}"
            counts = ask_tuple(answer, where, k, S, length=2)
            up, down = (as_number(count, "a count", where) for count in counts)
            eigenvalues = torch.linalg.eigvalsh(_hessian(_known_critical_point(k, S), k))
            want_up = int((eigenvalues > 1e-9).sum())
            want_down = int((eigenvalues < -1e-9).sum())
            need(up + down == len(k) - 1, where, f"the tangent space has {len(k) - 1} directions")
            failure = f"your counts {up:g} and {down:g} are not those of the Riemannian Hessian"
            need((up, down) == (want_up, want_down), where, failure)


@exercise("2.7d")
def local_maximizers(answer: Callable) -> None:
    for values in _KURTOSES:
        where = f"kurtoses {values}"
        k = torch.tensor(values, dtype=torch.float64)
        d = len(k)
        positive = [i for i, entry in enumerate(values) if entry > 0]
        supports = [[i] for i in positive] or [list(range(d))]
        found = ask(answer, where, k)
        rows = len(found) if isinstance(found, Tensor) and found.ndim else 0
        found = as_tensor(found, "your answer", where, (rows, d)).abs()
        need(rows > 0, where, "there is at least one local maximizer")
        need_equal(found.norm(dim=1), torch.ones(rows), where, "a row is not of unit norm")
        for w in found:
            failure = f"the row {[round(entry, 3) for entry in w.tolist()]} is"
            zero = torch.zeros_like(w)
            need_equal(_gradient(w, k), zero, where, f"{failure} no critical point")
            top = float(torch.linalg.eigvalsh(_hessian(w, k)).max())
            need(top < 1e-9, where, f"{failure} critical, but one can still climb from it")
        gaps = torch.cdist(found, found) + 2 * torch.eye(rows, dtype=found.dtype)
        need(bool((gaps > 1e-6).all()), where, "two rows are the same up to signs")
        need(rows == len(supports), where, f"{rows} found, but there are more local maximizers")
