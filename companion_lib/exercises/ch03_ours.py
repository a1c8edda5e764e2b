"""Chapter 3, exercises of our own: entropy of a step, its limit, nats to store, memorization."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib.exercises.ch03_mistakes import need_value
from companion_lib.exercises.grading import ask_number, exercise, generator, need, normal
from companion_lib.exercises.work import Work

# Eigenvalues, t and s: one and many, a tiny step, all the way to s = 0, a zero eigenvalue.
_GAUSSIANS = [
    ([1.0], 1.0, 0.5),
    ([1.0], 3.0, 0.0),
    ([4.0, 1.0, 0.25], 0.7, 0.2),
    ([4.0, 1.0, 0.25], 0.7, 0.699),
    ([2.0, 0.0], 0.5, 0.25),
    ([0.0, 0.0, 0.0], 2.0, 1.0),
    ([0.01] * 20, 1.0, 0.0),
]


def _drop(values: Tensor, t: float, s: float) -> float:
    """Return h(x_t) − h(E[x_s | x_t]), from the factors by which the step shrinks x_t."""
    return -float((s / t + (1 - s / t) * values / (values + t**2)).log().sum())


@exercise("3.E3a")
def entropy_drop(answer: Callable) -> None:
    for values, t, s in _GAUSSIANS:
        where = f"eigenvalues {_listed(values)}, t = {t:g} and s = {s:g}"
        eigenvalues = torch.tensor(values, dtype=torch.float64)
        got = ask_number(answer, where, eigenvalues, t, s)
        want = _drop(eigenvalues, t, s)
        narrower = torch.log((eigenvalues + t**2) / (eigenvalues + s**2)).sum() / 2
        mistakes = {
            "this is the drop in bits, not nats": want / math.log(2),
            "entropy falls, so the drop is positive": -want,
            "half of it: a factor c on x changes h by log c, not ½ log c": want / 2,
            "twice the drop: a factor c on x changes h by log c, not log c²": 2 * want,
            "this is h(x_t) − h(x_s), but the mean E[x_s | x_t] spreads less than x_s": narrower,
        }
        failure = f"the entropy falls by {want:.4f} nats, not by {got:.4f}"
        need_value(got, want, where, failure, mistakes)


def _listed(values: list[float]) -> str:
    if len(values) > 4:
        return f"{values[0]:g} ({len(values)} times)"
    return ", ".join(f"{value:g}" for value in values)


def _two_points(t: float, s: float) -> tuple[float, float, float]:
    """Return loss, t² times Fisher information, and entropy drop of x = ±1, by quadrature."""
    x = torch.linspace(-1 - 12 * t, 1 + 12 * t, 40_001, dtype=torch.float64)
    density = sum(torch.exp(-((x - c) ** 2) / (2 * t**2)) for c in (-1, 1))
    weights = density / density.sum()
    mean = (x / t**2).tanh()
    variance = 1 - mean**2
    information = weights @ ((mean - x) / t).square()
    drop = -weights @ torch.log(s / t + (1 - s / t) * variance / t**2)
    return float(weights @ variance), float(information), float(drop)


@exercise("3.E3b")
def guaranteed_drop(answer: Callable) -> None:
    cases = []
    for t, s in ((0.3, 0.15), (1.0, 0.9), (1.0, 0.2), (3.0, 1.5)):
        loss, information, drop = _two_points(t, s)
        cases.append((f"x = ±1, t = {t:g} and s = {s:g}", loss, 1, t, s, information, drop))
    for values, t, s in _GAUSSIANS:
        where = f"a Gaussian with eigenvalues {_listed(values)}, t = {t:g} and s = {s:g}"
        lam = torch.tensor(values, dtype=torch.float64)
        loss = float((lam * t**2 / (lam + t**2)).sum())
        information = float((t**2 / (lam + t**2)).sum())
        cases.append((where, loss, len(values), t, s, information, _drop(lam, t, s)))
    for where, loss, d, t, s, information, drop in cases:
        got = ask_number(answer, where, loss, d, t, s)
        want = (1 - s / t) * information
        mistakes = {
            "this is the bound in bits, not nats": want / math.log(2),
            "this is J itself; the bound has the factor (1 − s/t) t²": information / t**2,
            "the loss is a sum over the coordinates, and so is d: compare d with loss/t²": (
                (1 - s / t) * (1 - loss / t**2)
            ),
        }
        failure = f"(1 − s/t) t² J is {want:.4f} here, not {got:.4f}"
        if got > drop + 1e-9:
            failure = f"you promise {got:.4f} nats, but the entropy falls by {drop:.4f} only"
        need_value(got, want, where, failure, mistakes, tol=1e-7)


def _product_of_gains(lam: float, T: float) -> float:
    """Return the limit of ∏ (1 − ℓT²/(λL² + ℓ²T²)) for L → ∞."""

    def product(L: int) -> float:
        ell = torch.arange(1, L + 1, dtype=torch.float64)
        return float((1 - ell * T**2 / (lam * L**2 + ell**2 * T**2)).prod())

    return 2 * product(40_000) - product(20_000)  # the error falls like 1/L


@exercise("3.E4a")
def limit_of_gains(answer: Callable) -> None:
    for lam, T in ((1.0, 1.0), (0.1, 1.0), (4.0, 1.0), (1.0, 10.0), (0.25, 3.0), (0.0, 2.0)):
        where = f"λ = {lam:g} and T = {T:g}"
        got = ask_number(answer, where, lam, T)
        want = _product_of_gains(lam, T)
        mistakes = {
            "this is the gain of one step from T to 0; many small steps contract less": (
                lam / (lam + T**2)
            ),
            "this shrinks as if every step sent x to the mean; the product does not go to 0": 0.0,
        }
        failure = f"40,000 steps multiply to {want:.6f}, not to {got:.6f}"
        need_value(got, want, where, failure, mistakes, tol=1e-6)


@exercise("3.E4b")
def horizon(answer: Callable) -> None:
    for values, share in (
        ([1.0], 0.5),
        ([1.0], 0.99),
        ([4.0, 1.0, 0.25], 0.9),
        ([0.25, 9.0, 0.0], 0.95),
        ([0.04] * 5, 0.999),
    ):
        where = f"eigenvalues {_listed(values)} and a share of {share:g}"
        eigenvalues = torch.tensor(values, dtype=torch.float64)
        T = ask_number(answer, where, eigenvalues, share)
        need(T > 0, where, f"T must be positive, got {T:.4g}")
        arrives = min(_product_of_gains(lam, T) ** 2 * T**2 / lam for lam in values if lam)
        failure = f"from T = {T:.4g} some direction gets {arrives:.2%} of its variance only"
        need(arrives >= share - 1e-6, where, failure)
        failure = f"from T = {T:.4g} each direction gets {arrives:.2%} and more; T may be smaller"
        need(arrives <= share + 1e-6, where, failure)


def _entropy_of_counts(counts: list[int]) -> float:
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts)


@exercise("3.E5a")
def nats_to_store(answer: Callable) -> None:
    rng = generator()
    for counts, d in (([1] * 16, 8), ([1] * 2, 1), ([1] * 100, 2), ([3, 1, 1], 4), ([5], 3)):
        n = sum(counts)
        twice = "" if max(counts) == 1 else f", {n - len(counts)} of them repeated"
        where = f"{n} training samples in R^{d}{twice}"
        X = torch.cat([normal(1, d, generator=rng).expand(c, d) for c in counts])
        got = ask_number(answer, where, X[torch.randperm(n, generator=rng)])
        want = _entropy_of_counts(counts)
        if len(counts) < n:
            failure = "a sample that occurs twice needs no second name"
            need(abs(got - math.log(n)) > 1e-6, where, failure)
            failure = "the distinct samples are not equally likely"
            need(len(counts) == 1 or abs(got - math.log(len(counts))) > 1e-6, where, failure)
        mistakes = {
            "this is in bits, not nats": want / math.log(2),
            "this is the integral without its factor ½": 2 * want,
            "half of it: the integral already has its factor ½": want / 2,
        }
        failure = f"½ ∫ mmse du is {want:.4f} nats, not {got:.4f}"
        need_value(got, want, where, failure, mistakes, tol=1e-6)


@exercise("3.E5b")
def break_even(answer: Callable) -> None:
    cases = (([1.0], 16), ([1.0] * 10, 1000), ([4.0, 1.0, 0.25], 100), ([9.0, 0.0, 0.0], 2))
    for values, n in (*cases, ([1e-3] * 50, 60_000)):
        where = f"eigenvalues {_listed(values)} and {n:,} samples"
        eigenvalues = torch.tensor(values, dtype=torch.float64)
        snr = ask_number(answer, where, eigenvalues, n)
        need(snr > 0, where, f"a signal-to-noise ratio must be positive, got {snr:.4g}")
        rate = float((snr * eigenvalues).log1p().sum()) / 2
        place = f"{where}, at your ratio {snr:.5g}"
        want = math.log(n)
        failure = f"the Gaussian code has {rate:.4f} nats and the names {want:.4f}"
        need_value(rate, want, place, failure, tol=1e-6)


@exercise("3.E6a")
def memorization_ratio(answer: Callable) -> None:
    rng = generator()
    for n, N, d, copies in (
        (40, 25, 2, 10),
        (30, 200, 1, 0),
        (25, 40, 12, 25),
        (2000, 2000, 3, 500),
    ):
        where = f"{n} samples, {copies} of them near copies, and {N} training samples in R^{d}"
        X, samples = normal(N, d, generator=rng), normal(n, d, generator=rng)
        chosen = torch.randint(N, (copies,), generator=rng)
        samples[:copies] = X[chosen] + 1e-4 * samples[:copies]
        samples = samples[torch.randperm(n, generator=rng)]
        with Work() as work:
            got = ask_number(answer, where, samples, X)
        _need_ratio(got, samples, X, where)
        failure = (
            f"the ratio is right, but your function makes a tensor of {work.largest:,} numbers; "
            f"there are {n * N:,} distances"
        )
        need(work.largest <= max(2 * n * N, 20_000), where, failure)


def _need_ratio(got: float, samples: Tensor, X: Tensor, where: str) -> None:
    near = torch.cdist(samples, X).topk(2, largest=False).values
    ratio = near[:, 0] / near[:, 1]
    back = torch.cdist(X, samples).topk(2, largest=False).values
    want = float((ratio < 1 / 3).double().mean())
    mistakes = {
        "this compares squared distances": (ratio.square() < 1 / 3).double().mean(),
        "this looks for the nearest generated sample of each training sample": (
            (back[:, 0] / back[:, 1] < 1 / 3).double().mean()
        ),
        "this is the part of samples that are not memorized": 1 - want,
        "this is a count; divide by the number of samples": want * len(samples),
    }
    need_value(got, want, where, f"a part {want:.4f} is memorized, not {got:.4f}", mistakes)


@exercise("3.E6b")
def honest_ratio(answer: Callable) -> None:
    for d, threshold in ((1, 1 / 3), (2, 1 / 3), (10, 1 / 3), (1, 0.5), (3, 0.9)):
        where = f"intrinsic dimension {d} and threshold {threshold:.3g}"
        got = ask_number(answer, where, d, threshold)
        mistakes = {
            "honest samples do pass the test now and then": 0.0,
            "this does not depend on the dimension, but it must": threshold if d > 1 else -1.0,
            "this is the part of samples that are not counted as memorized": 1 - threshold**d,
        }
        failure = f"honest samples are counted as memorized with probability {threshold**d:.3g}"
        need_value(got, threshold**d, where, failure, mistakes, tol=1e-9)
