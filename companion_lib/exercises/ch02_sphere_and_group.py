"""Chapter 2, exercises 6 and 8: calculus on the sphere and on the orthogonal group."""

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
    second_derivative,
)


def _unit(d: int, rng: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(normal(d, generator=rng), dim=0)


def _smooth_function(shape: tuple[int, ...], rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return a smooth real function on arrays of ``shape`` with no symmetry to lean on."""
    a, b, c = (normal(*shape, generator=rng) for _ in range(3))

    def f(x: Tensor) -> Tensor:
        return (a * x).sum() ** 3 + torch.sin((b * x).sum()) + (c * x**2).sum() + (c * x).sum()

    return f


@exercise("2.6a")
def sphere_gradient(answer: Callable) -> None:
    rng = generator()
    for d in (1, 2, 6):
        where = f"d = {d}"
        u, g = _unit(d, rng), normal(d, generator=rng)
        got = ask_tensor(answer, where, u, g, shape=(d,))
        need_equal(got @ u, 0.0, where, "your vector is not tangent to the sphere at u")
        rest = g - got
        failure = "what you removed from the gradient is not normal to the sphere"
        need_equal(rest, (rest @ u) * u, where, failure)


@exercise("2.6b")
def nearest_and_farthest(answer: Callable) -> None:
    rng = generator()
    for d, scale in ((1, -3.0), (2, 0.2), (5, 4.0)):
        where = f"d = {d}, ‖v‖ = {abs(scale):.3g}"
        v = scale * _unit(d, rng)
        near, far = ask_tuple(answer, where, v, length=2)
        for u, name, distance in (
            (near, "nearest", abs(abs(scale) - 1)),
            (far, "farthest", abs(scale) + 1),
        ):
            u = as_tensor(u, f"the {name} point", where, (d,))
            need_equal(u.norm(), 1.0, where, f"the {name} point is not on the sphere")
            failure = f"another point of the sphere beats your {name} one"
            need_equal((u - v).norm(), distance, where, failure)


@exercise("2.6c")
def sphere_hessian(answer: Callable) -> None:
    rng = generator()
    for d in (1, 2, 5):
        where = f"d = {d}"
        f, u = _smooth_function((d,), rng), _unit(d, rng)
        gradient, hessian = (
            torch.autograd.functional.jacobian(f, u),
            torch.autograd.functional.hessian(f, u),
        )
        H = ask_tensor(answer, where, u, gradient, hessian, shape=(d, d))
        need_equal(H @ u, torch.zeros_like(u), where, "your Hessian does not vanish on u")
        need_equal(H, H.T, where, "your Hessian is not symmetric")
        for _ in range(d * d if d > 1 else 0):
            v = normal(d, generator=rng)
            v = torch.nn.functional.normalize(v - (u @ v) * u, dim=0)
            bend = second_derivative(lambda t, f=f, u=u, v=v: f(t.cos() * u + t.sin() * v))
            failure = "vᵀHv is not the second derivative of f along the great circle from u to v"
            need_equal(v @ H @ v, bend, where, failure)


def _skew(M: Tensor) -> Tensor:
    return (M - M.T) / 2


def _points_on_group(rng: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield rotations and reflections of a few sizes."""
    for d in (1, 2, 4):
        Q = random_orthogonal(d, generator=rng, dtype=torch.float64)
        flip = torch.eye(d, dtype=torch.float64)
        flip[0, 0] = -1
        for point in (Q, Q @ flip):
            yield f"d = {d}, det Q = {float(torch.linalg.det(point)):+.0f}", point


@exercise("2.8a")
def group_tangent_part(answer: Callable) -> None:
    rng = generator()
    for where, Q in _points_on_group(rng):
        Delta = normal(*Q.shape, generator=rng)
        got = ask_tensor(answer, where, Q, Delta, shape=tuple(Q.shape))
        inside = Q.T @ got
        need_equal(inside, -inside.T, where, "your matrix is not in the tangent space at Q")
        rest = Q.T @ (Delta - got)
        failure = "what you removed from Δ is not orthogonal to the tangent space"
        need_equal(rest, rest.T, where, failure)


@exercise("2.8b")
def group_hessian(answer: Callable) -> None:
    rng = generator()
    for where, Q in _points_on_group(rng):
        f = _smooth_function(tuple(Q.shape), rng)
        gradient = torch.autograd.functional.jacobian(f, Q)

        def hessian(Delta: Tensor, f: Callable = f, Q: Tensor = Q) -> Tensor:
            return torch.autograd.functional.hvp(f, Q, Delta)[1]

        def bend(Omega: Tensor, f: Callable = f, Q: Tensor = Q) -> float:
            return second_derivative(lambda t: f(Q @ torch.matrix_exp(t * Omega)))

        Delta = normal(*Q.shape, generator=rng)
        H = ask_tensor(answer, where, Q, Delta, gradient, hessian, shape=tuple(Q.shape))
        inside = Q.T @ H
        need_equal(inside, -inside.T, where, "your result is not in the tangent space at Q")
        Omega = _skew(Q.T @ Delta)
        for _ in range(4):
            Other = _skew(normal(*Q.shape, generator=rng))
            # A quadratic form determines its bilinear form (polarization).
            want = (bend(Omega + Other) - bend(Omega - Other)) / 4
            failure = "⟨QΩ, Hess f(Q)[Δ]⟩ disagrees with second derivatives along t ↦ Q exp(tΩ)"
            need_equal((Q @ Other * H).sum(), want, where, failure)


def _matrices_to_project() -> Iterator[tuple[str, Tensor]]:
    rng = generator()
    for d in (1, 2, 3, 4):
        for sign in (1.0, -1.0):
            X = normal(d, d, generator=rng)
            X[0] *= sign * torch.linalg.det(X).sign()
            yield f"a {d} × {d} matrix with {'positive' if sign > 0 else 'negative'} determinant", X


def _need_distance(Q: Tensor, X: Tensor, squared: Tensor, where: str, failure: str) -> None:
    need_orthonormal_columns(Q, where, "Q")
    need_equal((Q - X).square().sum(), squared, where, failure)


@exercise("2.8c")
def nearest_orthogonal(answer: Callable) -> None:
    for where, X in _matrices_to_project():
        Q = ask_tensor(answer, where, X, shape=tuple(X.shape))
        best = (torch.linalg.svdvals(X) - 1).square().sum()
        _need_distance(Q, X, best, where, "another orthogonal matrix is nearer to X")


@exercise("2.8d")
def nearest_of_other_determinant(answer: Callable) -> None:
    for where, X in _matrices_to_project():
        Q = ask_tensor(answer, where, X, shape=tuple(X.shape))
        need_orthonormal_columns(Q, where, "Q")
        opposite = bool(torch.linalg.det(Q) * torch.linalg.det(X) < 0)
        need(opposite, where, "det Q and det X have the same sign")
        signed = torch.linalg.svdvals(X)
        signed[-1] *= -1
        failure = "another orthogonal matrix with this determinant is nearer to X"
        _need_distance(Q, X, (signed - 1).square().sum(), where, failure)
