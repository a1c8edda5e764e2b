"""Chapter 2, exercises 1 to 4: subspaces, Gaussian invariance, symmetries, whitening."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from companion_lib.data import random_orthogonal
from companion_lib.exercises.grading import (
    as_tensor,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    need_equal,
    need_orthonormal_columns,
    normal,
)


def _with_eigenvalues(eigenvalues: list[float], rng: torch.Generator) -> Tensor:
    W = random_orthogonal(len(eigenvalues), generator=rng, dtype=torch.float64)
    return (W * torch.tensor(eigenvalues, dtype=torch.float64)) @ W.T


def _symmetric_matrices() -> Iterator[tuple[str, Tensor, int]]:
    rng = generator()
    yield "a positive definite matrix", _with_eigenvalues([5, 3, 2, 1, 0.5], rng), 2
    yield "an indefinite matrix", _with_eigenvalues([2, 1, -0.5, -3, -7], rng), 2
    yield "a negative definite matrix", _with_eigenvalues([-1, -2, -4, -8], rng), 1
    yield "a matrix with repeated eigenvalues", _with_eigenvalues([4, 2, 2, 2, -1, -1], rng), 3
    yield "a 1 × 1 matrix", _with_eigenvalues([-2], rng), 1
    yield "k = d", _with_eigenvalues([3, 0, -1], rng), 3


@exercise("2.1a")
def largest_eigenvectors(answer: Callable) -> None:
    for where, A, k in _symmetric_matrices():
        U = ask_tensor(answer, where, A, k, shape=(len(A), k))
        need_orthonormal_columns(U, where, "U")
        value = float(torch.trace(U.T @ A @ U))
        best = float(torch.linalg.eigvalsh(A)[-k:].sum())
        failure = f"trace(UᵀAU) = {value:.4g}, but another orthonormal U reaches {best:.4g}"
        need_equal(value, best, where, failure, tol=1e-9)


@exercise("2.1b")
def eigenvector_weights(answer: Callable) -> None:
    rng = generator()
    spectra = [[5, 3, 2, 1, 0.5], [2, 1, -0.5, -3, -7], [-2]]
    for eigenvalues, k in zip(spectra, (2, 3, 1), strict=True):
        d = len(eigenvalues)
        where = f"d = {d}, k = {k} and eigenvalues {eigenvalues}"
        A = _with_eigenvalues(eigenvalues, rng)
        U = random_orthogonal(d, generator=rng, dtype=torch.float64)[:, :k]
        c = ask_tensor(answer, where, A, U, shape=(d,))
        need(bool((c > -1e-9).all() and (c < 1 + 1e-9).all()), where, "a weight is outside [0, 1]")
        need_equal(c.sum(), float(k), where, "the weights do not sum to k")
        values, vectors = torch.linalg.eigh(A)
        failure = "Σ cⱼλⱼ is not trace(UᵀAU) with the eigenvalues from largest to smallest"
        need_equal(c @ values.flip(0), torch.trace(U.T @ A @ U), where, failure)
        want = (vectors.flip(1).T @ U).square().sum(1)
        need_equal(c, want, where, "these are not the weights on the eigenvectors")


@exercise("2.2")
def gaussian_log_density(answer: Callable) -> None:
    rng = generator()
    Q = random_orthogonal(4, generator=rng, dtype=torch.float64)
    stretch = torch.tensor([3.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    cases = [
        ("M = I", torch.eye(3, dtype=torch.float64), 1.0),
        ("a 1 × 1 matrix M", torch.tensor([[-2.0]], dtype=torch.float64), 0.7),
        ("an invertible M that stretches", Q * stretch @ Q.T + 0.1 * Q, 1.3),
        ("an orthogonal M", Q, 0.5),
        ("a reflection M", torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)), 2.0),
    ]
    for where, M, sigma in cases:
        Y = normal(6, len(M), generator=rng)
        got = ask_tensor(answer, where, Y, M, sigma, shape=(6,))
        law = torch.distributions.MultivariateNormal(
            torch.zeros(len(M), dtype=torch.float64), sigma**2 * M @ M.T
        )
        want = law.log_prob(Y)
        if (got - want).std(correction=0) < 1e-8:
            need_equal(got, want, where, "the log-density is off by a constant")
        need_equal(got, want, where, "the log-density depends on y in the wrong way")


@exercise("2.3a")
def find_symmetry(answer: Callable) -> None:
    rng = generator()
    for d, k, n in ((6, 3, 20), (4, 4, 9), (5, 1, 7), (1, 1, 3)):
        where = f"U of shape ({d}, {k}) and Z of shape ({k}, {n})"
        U, Z = normal(d, k, generator=rng), normal(k, n, generator=rng)
        A = normal(k, k, generator=rng) + 2 * torch.eye(k, dtype=torch.float64)
        other_U, other_Z = U @ A, torch.linalg.solve(A, Z)
        got = ask_tensor(answer, where, U, Z, other_U, other_Z, shape=(k, k))
        need_equal(U @ got, other_U, where, "U A is not the second U")
        need_equal(got @ other_Z, Z, where, "A⁻¹ Z is not the second Z")


def _diagonal(value: object, what: str, where: str, d: int) -> Tensor:
    """Return a diagonal given as a vector or as a matrix."""
    if isinstance(value, Tensor) and value.ndim == 2:
        matrix = as_tensor(value, what, where, (d, d))
        need_equal(matrix, torch.diag(matrix.diagonal()), where, f"{what} is not diagonal")
        return matrix.diagonal()
    return as_tensor(value, what, where, (d,))


@exercise("2.3b")
def split_scales(answer: Callable) -> None:
    rng = generator()
    for d in (1, 2, 5):
        where = f"a {d} × {d} matrix A"
        Q = random_orthogonal(d, generator=rng, dtype=torch.float64)
        variances = 0.2 + 3 * torch.rand(d, generator=rng, dtype=torch.float64)
        outer = 0.5 + torch.rand(d, generator=rng, dtype=torch.float64)
        A = outer[:, None] * Q / variances.sqrt()
        first, middle, last = ask_tuple(answer, where, A, variances, length=3)
        first = _diagonal(first, "D₁", where, d)
        last = _diagonal(last, "D₂", where, d)
        middle = as_tensor(middle, "Q", where, (d, d))
        need_equal(first[:, None] * middle * last, A, where, "D₁ Q D₂ is not A")
        need_orthonormal_columns(middle, where, "Q")


def _factor_cases() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a description, the mixing matrix U (d, k) and codes Z (n, k)."""
    rng = generator()
    for d, k, n in ((7, 3, 40), (4, 4, 30), (5, 1, 12)):
        Z = normal(n, k, generator=rng) @ normal(k, k, generator=rng)
        yield f"d = {d}, k = {k}, n = {n}", normal(d, k, generator=rng), Z


@exercise("2.4a")
def factor_samples(answer: Callable) -> None:
    cases = [(where, Z @ U.T, U.shape[1]) for where, U, Z in _factor_cases()]
    X = cases[0][1]
    cases.append(("samples on a line, k = 3", X[:, :1] * X[:1], 3))
    for where, X, k in cases:
        V, Y = ask_tuple(answer, where, X, k, length=2)
        V = as_tensor(V, "V", where, (X.shape[1], k))
        Y = as_tensor(Y, "Y", where, (len(X), k))
        need_orthonormal_columns(V, where, "V")
        need_equal(Y @ V.T, X, where, "Y Vᵀ does not give back X")


def _inverse_root(M: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(M)
    return (vectors / values.sqrt()) @ vectors.T


def _white(Y: Tensor) -> Tensor:
    return Y @ _inverse_root(Y.T @ Y / len(Y))


@exercise("2.4b")
def whiten_rows(answer: Callable) -> None:
    rng = generator()
    cases = [(where, Z) for where, _, Z in _factor_cases()]
    cases.append(("samples whose mean is not zero", normal(25, 2, generator=rng) + 1))
    for where, Y in cases:
        white = ask_tensor(answer, where, Y, shape=tuple(Y.shape))
        second = white.T @ white / len(Y)
        size = float(second.diagonal().mean())
        failure = f"the second moment of your rows is not I; its diagonal averages {size:.3g}"
        need_equal(second, torch.eye(Y.shape[1], dtype=Y.dtype), where, failure)
        failure = "the rows are white, but they are not the ones the symmetric root gives"
        need_equal(white, _white(Y), where, failure)


@exercise("2.4c")
def whitening_rotation(answer: Callable) -> None:
    for where, U, Z in _factor_cases():
        V = torch.linalg.qr(U).Q
        W = ask_tensor(answer, where, U, Z, V, shape=(Z.shape[1], Z.shape[1]))
        need_orthonormal_columns(W, where, "W")
        white = _white(Z @ U.T @ V)
        need_equal(_white(Z) @ W.T, white, where, "whiten(Z) Wᵀ is not whiten(Y)")
