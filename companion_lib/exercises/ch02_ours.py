"""Chapter 2, exercises of our own: a rank for noisy digits, MSP's rate, ISTA's step size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib import data
from companion_lib.exercises.grading import (
    ask_number,
    ask_tensor,
    exercise,
    generator,
    need,
    need_equal,
    normal,
)
from companion_lib.subspaces import polar


def _error_by_rank(noisy: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared error against ``clean`` of PCA at every rank 0, ..., d."""
    mean = noisy.mean(0)
    directions = torch.linalg.eigh((noisy - mean).T @ (noisy - mean)).eigenvectors.flip(1)
    codes, targets = (noisy - mean) @ directions, (clean - mean) @ directions
    removed = targets.square().sum(0)
    kept = (codes - targets).square().sum(0)
    start = removed.sum()[None]
    return torch.cat([start, start + (kept - removed).cumsum(0)]) / clean.numel()


@exercise("2.E1")
def choose_rank(answer: Callable) -> None:
    rng = generator()
    digits = data.digits()[0].double()
    flat = normal(2000, 5, generator=rng) @ normal(5, 40, generator=rng)
    cases = [("samples of a 5-dimensional subspace", flat, 0.3)]
    cases += [(f"digits with noise {sigma}", digits, sigma) for sigma in (0.1, 0.25, 0.4, 0.6)]
    cases.append(("pure noise", torch.zeros(1000, 20, dtype=torch.float64), 1.0))
    for where, clean, sigma in cases:
        noisy = clean + sigma * normal(*clean.shape, generator=rng)
        rank = ask_number(answer, where, noisy, sigma)
        valid = rank == int(rank) and 0 <= rank <= clean.shape[1]
        need(valid, where, f"your rank {rank:g} is not an integer from 0 to {clean.shape[1]}")
        errors = _error_by_rank(noisy, clean)
        excess = float(errors[int(rank)] / errors.min()) - 1
        side = "more" if rank < int(errors.argmin()) else "fewer"
        failure = f"rank {rank:g} has {excess:.0%} more error than the best; keep {side} directions"
        need(excess < 0.03, where, failure)


def _fourth_moments(theta: float, d: int) -> Tensor:
    """Return E[z_a z_b z_c z_j] of independent Bernoulli–Gaussian entries, from their pairings."""
    eye = torch.eye(d, dtype=torch.float64)
    pairs = (
        torch.einsum("ab,cj->abcj", eye, eye)
        + torch.einsum("ac,bj->abcj", eye, eye)
        + torch.einsum("aj,bc->abcj", eye, eye)
    )
    same = torch.einsum("ab,bc,cj->abcj", eye, eye, eye)
    return pairs + (3 / theta - 3) * same


@exercise("2.E2a")
def population_match(answer: Callable) -> None:
    rng = generator()
    for d, theta in ((3, 0.1), (4, 0.5), (2, 1.0), (1, 0.3)):
        where = f"d = {d}, θ = {theta}"
        W = data.random_orthogonal(d, generator=rng, dtype=torch.float64)
        got = ask_tensor(answer, where, W, theta, shape=(d, d))
        want = torch.einsum("ia,ib,ic,abcj->ij", W, W, W, _fourth_moments(theta, d))
        need_equal(got, want, where, "this is not E[(Wz)³ zᵀ], whose entry (i, j) is E[(wᵢᵀz)³ zⱼ]")


@exercise("2.E2b")
def contraction(answer: Callable) -> None:
    rng = generator()
    for theta in (0.1, 0.3, 0.5, 0.9):
        k = 3 / theta - 3
        for shift in (0.0, 1.0, 3.0, 3.0 + k / 2):
            where = f"θ = {theta}, shift = {shift:.3g}"
            got = ask_number(answer, where, theta, shift)
            A = normal(4, 4, generator=rng)
            Omega = 1e-4 * (A - A.T)
            W = torch.matrix_exp(Omega)
            after = polar(k * W**3 + (3 - shift) * W)
            error = (after - after.T) / 2
            measured = float((error * Omega).sum() / Omega.square().sum())
            failure = f"one step from W = exp(Ω) with a tiny Ω gives {measured:.4f} Ω"
            need_equal(got, measured, where, failure, tol=1e-5)


def _grows(D: Tensor, step: float, rng: torch.Generator) -> bool:
    """Return whether gradient descent on ‖x - zD‖² from a random start blows up."""
    z = normal(1, len(D), generator=rng)
    x = torch.zeros(1, D.shape[1], dtype=D.dtype)
    start = (x - z @ D).norm()
    for _ in range(1500):
        z = z + 2 * step * (x - z @ D) @ D.T
    return not bool((x - z @ D).norm() <= start)


@exercise("2.E3")
def largest_stable_step(answer: Callable) -> None:
    rng = generator()
    for m, d in ((1, 1), (8, 8), (20, 6), (3, 10)):
        where = f"a dictionary of shape ({m}, {d})"
        D = 2 * normal(m, d, generator=rng)
        step = ask_number(answer, where, D)
        need(step > 0, where, f"the step must be positive, got {step:.3g}")
        need(_grows(D, 1.01 * step, rng), where, "iterations 1 % above your step still converge")
        need(not _grows(D, 0.99 * step, rng), where, "iterations 1 % below your step diverge")
