"""Chapter 3, exercises 1 to 3: the conditional mean, conditional Gaussians, Woodbury's identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from companion_lib.data import random_orthogonal
from companion_lib.exercises.ch03_mistakes import need_value
from companion_lib.exercises.grading import (
    as_tensor,
    ask_number,
    ask_tensor,
    ask_tuple,
    exercise,
    generator,
    need,
    need_equal,
    normal,
)
from companion_lib.exercises.work import Work


def _joint_laws() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a description, the values (m, d) of x, and the probabilities (m, k) of (x, y)."""
    rng = generator()

    def table(m: int, k: int, sharpness: float) -> Tensor:
        return (sharpness * normal(m, k, generator=rng)).flatten().softmax(0).view(m, k)

    signs = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    coin = torch.tensor([[0.4, 0.2], [0.1, 0.3]], dtype=torch.float64)
    yield "a coin seen through a noisy channel", signs, coin
    yield "5 values of x in the plane and 3 of y", normal(5, 2, generator=rng), table(5, 3, 1)
    yield "40 values of x and 100 of y", normal(40, 3, generator=rng), table(40, 100, 3)
    apart = torch.outer(table(4, 1, 1)[:, 0], table(3, 1, 1)[:, 0])
    yield "independent x and y", normal(4, 2, generator=rng), apart
    yield "a y that tells x", normal(6, 2, generator=rng), table(6, 1, 1)[:, 0].diag()
    never = torch.cat([table(4, 2, 1), torch.zeros(4, 1, dtype=torch.float64)], 1)
    yield "a third y that never occurs", normal(4, 2, generator=rng), never
    yield "one value of x and one of y", normal(1, 3, generator=rng), table(1, 1, 1)


def _conditional_mean(values: Tensor, joint: Tensor) -> Tensor:
    """Return E[x | y] for every y, zero where y has probability zero."""
    return (joint / joint.sum(0).where(joint.sum(0) > 0, 1)).T @ values


def _loss(values: Tensor, joint: Tensor, f: Tensor) -> float:
    return float((joint * (values[:, None] - f).square().sum(2)).sum())


@exercise("3.1a")
def best_denoiser(answer: Callable) -> None:
    for where, values, joint in _joint_laws():
        occurs = joint.sum(0) > 0
        f = ask_tensor(answer, where, values, joint, shape=(joint.shape[1], values.shape[1]))
        best = _conditional_mean(values, joint)
        least, loss = _loss(values, joint, best), _loss(values, joint, f)
        failure = f"E‖x − f(y)‖² is {loss:.4f} with your f, but {least:.4f} is possible"
        sums = "the probabilities of x given y must sum to one; yours sum to P(y)"
        mistakes = {sums: (joint.T @ values)[occurs]}
        need_value(f[occurs], best[occurs], where, failure, mistakes)


@exercise("3.1b")
def excess_loss(answer: Callable) -> None:
    rng = generator()
    for where, values, joint in _joint_laws():
        best = _conditional_mean(values, joint)
        occurs = joint.sum(0)[:, None] > 0
        for kind, f in (
            ("a random f", normal(*best.shape, generator=rng)),
            ("f(y) = E[x | y]", best),
            ("f = 0", torch.zeros_like(best)),
            ("f far off where y never occurs", best.where(occurs, 1e3)),
        ):
            place = f"{where}, and {kind}"
            got = ask_number(answer, place, values, joint, f)
            loss, least = _loss(values, joint, f), _loss(values, joint, best)
            want = loss - least
            mistakes = {
                "this is the loss itself; subtract the least possible one": loss,
                "this counts every y alike; weight it with P(y)": (f - best).square().sum(1).mean(),
                "this is a mean over coordinates; ‖·‖² is their sum": want / values.shape[1],
            }
            failure = f"your f loses {want:.4f} more than the best denoiser, not {got:.4f}"
            need_value(got, want, place, failure, mistakes)


def _pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield a description and maps A_x (D, r), A_y (d, r): x, y = means + A_x z, A_y z, z normal.

    The maps together have full column rank, so z can be read off (x, y) even if that pair is
    degenerate, and ‖z‖² is its squared distance.
    """
    rng = generator()
    for D, d in ((2, 3), (4, 1), (1, 1), (1, 4)):
        A = normal(D + d, D + d, generator=rng)
        yield f"x in R^{D} and y in R^{d}", A[:D], A[D:]
    A = torch.block_diag(normal(3, 3, generator=rng), normal(2, 2, generator=rng))
    yield "uncorrelated x in R^3 and y in R^2", A[:3], A[3:]
    S = normal(3, 3, generator=rng)
    noise = 0.5 * torch.eye(3, dtype=torch.float64)
    clean = torch.cat([S, torch.zeros_like(S)], 1)
    yield "x in R^3 and y = x + g/2", clean, torch.cat([S, noise], 1)
    # Whole numbers, so that the Schur complement is exactly singular.
    A_y = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
    A_x = torch.tensor([[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]], dtype=torch.float64)
    yield "x in R^2 whose first entry is a function of y", A_x, A_y
    yield "x a function of y", A_x[:1, :2], A_y[:, :2]


def _blocks(A_x: Tensor, A_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return A_x @ A_x.T, A_x @ A_y.T, A_y @ A_y.T


@exercise("3.2a")
def block_factorization(answer: Callable) -> None:
    for where, A_x, A_y in _pairs():
        D, n = len(A_x), len(A_x) + len(A_y)
        L, M = ask_tuple(answer, where, *_blocks(A_x, A_y), length=2)
        L = as_tensor(L, "the triangular factor", where, (n, n))
        M = as_tensor(M, "the block-diagonal factor", where, (n, n))
        eye = torch.eye(n, dtype=torch.float64)
        failure = "the first factor must be upper block-triangular: its lower left block is not 0"
        need_equal(L[D:, :D], eye[D:, :D], where, failure)
        diagonal = torch.block_diag(L[:D, :D], L[D:, D:])
        failure = "the diagonal blocks of the first factor must be identities"
        need_equal(diagonal, eye, where, failure)
        failure = "the second factor has something beside its two diagonal blocks"
        need_equal(torch.block_diag(M[:D, :D], M[D:, D:]), M, where, failure)
        A = torch.cat([A_x, A_y])
        need_equal(L @ M @ L.T, A @ A.T, where, "L M Lᵀ is not the joint covariance")


@exercise("3.2b")
def split_distance(answer: Callable) -> None:
    rng = generator()
    for where, A_x, A_y in _pairs():
        (D, r), d = A_x.shape, len(A_y)
        mean_x, mean_y = normal(D, generator=rng), normal(d, generator=rng)
        z = normal(6, r, generator=rng)
        x, y = mean_x + z @ A_x.T, mean_y + z @ A_y.T
        reply = ask_tuple(answer, where, x, y, mean_x, mean_y, *_blocks(A_x, A_y), length=2)
        of_x = as_tensor(reply[0], "the part of x given y", where, (6,))
        of_y = as_tensor(reply[1], "the part of y", where, (6,))
        # What y shows of z is its projection on the rows of A_y.
        shown = (z @ torch.linalg.qr(A_y.T).Q).square().sum(1)
        failure = "the part of y is not (y − μ_y)ᵀ Σ_y⁻¹ (y − μ_y)"
        need_value(of_y, shown, where, failure, tol=1e-7)
        rest = z.square().sum(1) - shown
        dx = x - mean_x
        mistakes = {
            "the part of x is measured from μ_x with Σ_x, as if y told nothing of x": (
                (dx @ torch.linalg.pinv(A_x @ A_x.T) * dx).sum(1)
            )
        }
        failure = "the two parts do not sum to the squared distance of the pair (x, y)"
        need_value(of_x, rest, where, failure, mistakes, tol=1e-7)


@exercise("3.2c")
def condition(answer: Callable) -> None:
    rng = generator()
    for where, A_x, A_y in _pairs():
        D, d = len(A_x), len(A_y)
        mean_x, mean_y, y = (normal(*shape, generator=rng) for shape in ((D,), (d,), (5, d)))
        blocks = _blocks(A_x, A_y)
        reply = ask_tuple(answer, where, y, mean_x, mean_y, *blocks, length=2)
        means = as_tensor(reply[0], "the conditional means", where, (5, D))
        covariance = as_tensor(reply[1], "the conditional covariance", where, (D, D))
        Q = torch.linalg.qr(A_y.T).Q
        gain = torch.linalg.pinv(A_y).T @ A_x.T
        mistakes = {"the conditional means forget μ_y: what counts is y − μ_y": mean_x + y @ gain}
        failure = "x minus your conditional mean still has a covariance with y"
        need_value(means, mean_x + (y - mean_y) @ gain, where, failure, mistakes)
        hidden = A_x - A_x @ Q @ Q.T
        known = A_x @ Q @ Q.T @ A_x.T
        mistakes = {
            "your covariance is that of x; knowing y makes it smaller": blocks[0],
            "your covariance exceeds that of x; knowing y makes it smaller": blocks[0] + known,
            "this is the covariance of the mean E[x | y], not of x around it": known,
        }
        failure = "your covariance is not that of x − E[x | y]"
        need_value(covariance, hidden @ hidden.T, where, failure, mistakes)


class _Solver:
    """Solve A X = B for a matrix A that only it knows, and count the columns of all B."""

    def __init__(self, A: Tensor) -> None:
        self._A = A
        self.columns = 0

    def __call__(self, B: Tensor) -> Tensor:
        self.columns += 1 if B.ndim == 1 else B.shape[1]
        return torch.linalg.solve(self._A, B)


def _updates() -> Iterator[tuple[str, Tensor, Tensor, Tensor, Tensor]]:
    """Yield a description and A (d, d), U (d, r), C (r, r), V (r, d) of an update A + UCV."""
    rng = generator()

    def near_identity(d: int) -> Tensor:
        return torch.eye(d, dtype=torch.float64) + 0.3 * normal(d, d, generator=rng) / d**0.5

    for d, r in ((6, 2), (5, 1), (2, 5), (1, 1), (4, 4)):
        U, V = normal(d, r, generator=rng), 0.3 * normal(r, d, generator=rng)
        yield f"A of shape ({d}, {d}) and r = {r}", near_identity(d), U, near_identity(r), V
    minus = torch.tensor([[-0.5]], dtype=torch.float64)
    u = normal(3, 1, generator=rng)
    yield "C = −1/2 and r = 1", 4 * torch.eye(3, dtype=torch.float64), u, minus, u.T
    U = random_orthogonal(8, generator=rng, dtype=torch.float64)[:2].T
    eye = torch.eye(8, dtype=torch.float64)
    yield "A = t²I, orthonormal U, C = I, V = Uᵀ", 0.04 * eye, U, eye[:2, :2], U.T
    U, V = normal(300, 3, generator=rng), normal(3, 300, generator=rng)
    yield "A of shape (300, 300) and r = 3", 40 * near_identity(300), U, near_identity(3), V


@exercise("3.3a")
def woodbury_solve(answer: Callable) -> None:
    rng = generator()
    for where, A, U, C, V in _updates():
        B = normal(len(A), 2, generator=rng)
        solve = _Solver(A)
        got = ask_tensor(answer, where, solve, U, C, V, B, shape=tuple(B.shape))
        first, Y = torch.linalg.solve(A, B), torch.linalg.solve(A, U)
        small = V @ Y
        mistakes = {
            "this solves A X = B; the update is missing": first,
            "this has the wrong sign between the two terms": (
                first + Y @ torch.linalg.solve(C.inverse() + small, V @ first)
            ),
            "inside the small matrix stands C where C⁻¹ belongs": (
                first - Y @ torch.linalg.solve(C + small, V @ first)
            ),
        }
        want = torch.linalg.solve(A + U @ C @ V, B)
        failure = "your X does not solve (A + UCV) X = B"
        need_value(got, want, where, failure, mistakes)
        few = len(C) + 2
        failure = (
            f"the solution is right, but you solved with A for {solve.columns} columns; "
            f"{few} are enough"
        )
        need(solve.columns <= max(4 * few, 40), where, failure)


def _gains(X: Tensor, F: Tensor, t: float) -> Tensor:
    """Return the denoised rows of X, with the gains s²/(s² + t²) of the singular values of F."""
    W, s, _ = torch.linalg.svd(F, full_matrices=False)
    return X @ (W * (s.square() / (s.square() + t**2))) @ W.T


@exercise("3.3b")
def low_rank_denoiser(answer: Callable) -> None:
    rng = generator()
    F = normal(7, 2, generator=rng)
    Q = torch.linalg.qr(F).Q
    cases = [
        ("an orthonormal F of shape (7, 2) and t = 1", normal(5, 7, generator=rng), Q, 1.0),
        ("F of shape (7, 2) and t = 0.5", normal(5, 7, generator=rng), F, 0.5),
        ("F of shape (7, 2) and t = 3", normal(5, 7, generator=rng), F, 3.0),
        ("F with a column twice", normal(4, 7, generator=rng), F[:, [0, 1, 1]], 0.3),
        ("F of shape (4, 4)", normal(3, 4, generator=rng), normal(4, 4, generator=rng), 0.7),
        ("F of shape (1, 1)", normal(1, 1, generator=rng), normal(1, 1, generator=rng), 0.7),
        ("F of shape (7, 2) and t = 1e-06", normal(5, 7, generator=rng), F, 1e-6),
        ("F of shape (999, 3)", normal(4, 999, generator=rng), normal(999, 3, generator=rng), 1.0),
    ]
    for where, X, F, t in cases:
        with Work() as work:
            got = ask_tensor(answer, where, X, F, t, shape=tuple(X.shape))
        want = _gains(X, F, t)
        mistakes = {
            "t is a standard deviation; the noise has variance t²": _gains(X, F, t**0.5),
            "1/(1 + t²) is right for orthonormal columns only": X @ F @ F.T / (1 + t**2),
            "this is what the denoiser removes, not what it returns": X - want,
        }
        failure = "this is not E[x | x_t] for x ~ N(0, FFᵀ)"
        if t < 1e-3:
            failure = "digits are lost at so small a t; another form of the same matrix keeps them"
        need_value(got, want, where, failure, mistakes, tol=1e-7)
        failure = (
            f"the values are right, but your function makes a tensor of {work.largest:,} numbers; "
            f"F and the samples have {F.numel() + X.numel():,}"
        )
        need(work.largest <= 10 * max(X.numel(), F.numel(), 100), where, failure)
