"""Right answers pass in more than one form; plausible wrong ones are refused with a reason."""

import math

import pytest
import torch

from companion_lib import data, exercises
from companion_lib.exercises import ch02_kurtosis, ch02_ours
from companion_lib.subspaces import polar


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def normalized(v):
    return v / v.norm()


def tangent(u, g):
    return g - (u @ g) * u


def sym(M):
    return (M + M.T) / 2


def skew(M):
    return (M - M.T) / 2


def inverse_root(M):
    values, vectors = torch.linalg.eigh(M)
    return (vectors / values.sqrt()) @ vectors.T


def rotate(U):
    """Return ``U`` times a fixed orthogonal matrix."""
    rng = torch.Generator().manual_seed(1)
    return U @ data.random_orthogonal(U.shape[1], generator=rng, dtype=U.dtype)


def gaussian(Y, M, sigma, volume=True, forward=False, power=2):
    Z = Y @ M.T if forward else torch.linalg.solve(M, Y.T).T
    value = -Z.square().sum(1) / (2 * sigma**power)
    value = value - len(M) / 2 * math.log(2 * math.pi * sigma**2)
    return value - torch.linalg.slogdet(M).logabsdet if volume else value


def split_by_svd(A, variances):
    U, S, Vt = torch.linalg.svd(A)
    return S, U @ Vt, torch.ones_like(S)


def split(A, variances, scale=1.0):
    outer = ((A * variances) @ A.T).diagonal().sqrt()
    return (
        torch.diag(scale * outer),
        A / outer[:, None] * variances.sqrt(),
        1 / (scale * variances.sqrt()),
    )


def factor_by_svd(X, k, scaled=False):
    U, S, Vt = torch.linalg.svd(X, full_matrices=False)
    return (Vt[:k].T * S[:k], U[:, :k]) if scaled else (Vt[:k].T, U[:, :k] * S[:k])


def factor_centered(X, k):
    V = torch.linalg.svd(X - X.mean(0), full_matrices=False).Vh[:k].T
    return V, (X - X.mean(0)) @ V


def whiten(Y, n=None):
    return Y @ inverse_root(Y.T @ Y / (n or len(Y)))


def whiten_by_cholesky(Y):
    L = torch.linalg.cholesky(Y.T @ Y / len(Y))
    return torch.linalg.solve_triangular(L, Y.T, upper=False).T


def rotation_from_roots(U, Z, V):
    Y = Z @ U.T @ V
    root = torch.linalg.inv(inverse_root(Z.T @ Z / len(Z)))
    return inverse_root(Y.T @ Y / len(Y)) @ V.T @ U @ root


def pair(values, probabilities):
    return lambda: (
        torch.tensor(values, dtype=torch.float64),
        torch.tensor(probabilities, dtype=torch.float64),
    )


def sphere_hessian(u, g, H, curvature=1.0, left=True):
    P = eye(len(u)) - torch.outer(u, u)
    inner = (H - curvature * (u @ g) * eye(len(u))) @ P
    return P @ inner if left else inner


def point(k, S, weights):
    w = torch.zeros_like(k)
    w[S] = weights(k[S])
    return w


def group_hessian(Q, Delta, G, H, curvature=1.0, left=False, project=True):
    Delta = Q @ skew(Q.T @ Delta) if project else Delta
    S = sym(Q.T @ G)
    term = S @ Delta if left else Delta @ S
    return Q @ skew(Q.T @ (H(Delta) - curvature * term))


def group_hessian_from_the_left(Q, Delta, G, H):
    """Curve with sym(G Q^T) on the left of a tangent matrix: the same after projection."""
    Delta = Q @ skew(Q.T @ Delta)
    return Q @ skew(Q.T @ (H(Delta) - sym(G @ Q.T) @ Delta))


def newton_schulz(X, steps=60):
    Q = X / X.norm()
    for _ in range(steps):
        Q = 1.5 * Q - 0.5 * Q @ Q.T @ Q
    return Q


def flip(X, column):
    U, _, Vt = torch.linalg.svd(X)
    U[:, column] *= -1
    return U @ Vt


def kabsch(X):
    """Return the nearest rotation."""
    Q = polar(X)
    return Q if torch.linalg.det(Q) > 0 else flip(X, -1)


def rank_above(threshold):
    def choose(noisy, sigma):
        n, d = noisy.shape
        eigenvalues = torch.linalg.eigvalsh(noisy.T.cov(correction=0))
        return int((eigenvalues > threshold(d / n) * sigma**2).sum())

    return choose


def gavish_donoho(beta):
    return 2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1))


def rank_by_energy(noisy, sigma):
    eigenvalues = torch.linalg.eigvalsh(noisy.T.cov(correction=0)).flip(0)
    return int((eigenvalues.cumsum(0) < 0.9 * eigenvalues.sum()).sum()) + 1


def norm(D, order):
    return torch.linalg.matrix_norm(D, ord=order)


# Other right answers than those of the solutions notebook.
RIGHT = {
    "2.1a": lambda A, k: rotate(torch.linalg.eigh(A).eigenvectors[:, -k:]),
    "2.1b": lambda A, U: torch.stack(
        [(U.T @ w).norm() ** 2 for w in torch.linalg.eigh(-A).eigenvectors.T]
    ),
    "2.2": gaussian,
    "2.3a": lambda U, Z, V, Y: Z @ torch.linalg.pinv(Y),
    "2.3b": lambda A, v: split(A, v, scale=-3.0),
    "2.4a": factor_by_svd,
    "2.4b": lambda Y: math.sqrt(len(Y)) * polar(Y),
    "2.4c": rotation_from_roots,
    "2.5a": lambda w, k: float(k @ w**4),
    "2.5b": pair([[0, -1], [1, 2], [-1, 0], [2, -1], [-2, 0]], [0.2] * 5),
    "2.6a": lambda u, g: (eye(len(u)) - torch.outer(u, u)) @ g,
    "2.6b": lambda v: (normalized(v), normalized(-v)),
    "2.6c": lambda u, g, H: (
        sphere_hessian(u, 0 * g, H) - (u @ g) * sphere_hessian(u, 0 * g, eye(len(u)))
    ),
    "2.7a": lambda w, k: 4 * tangent(w, k * w**3),
    "2.7b": lambda k, S: -point(k, S, lambda c: normalized(c.abs() ** -0.5)),
    "2.7c": lambda k, S: (
        torch.tensor(len(S) - 1 if k[S[0]] > 0 else len(k) - len(S)),
        torch.tensor(len(k) - len(S) if k[S[0]] > 0 else len(S) - 1),
    ),
    "2.7d": lambda k: (
        -eye(len(k))[k > 0].flip(0) if k.max() > 0 else -normalized(k.abs() ** -0.5)[None]
    ),
    "2.8a": lambda Q, Delta: (Delta - Q @ Delta.T @ Q) / 2,
    "2.8b": group_hessian_from_the_left,
    "2.8c": newton_schulz,
    "2.8d": lambda X: polar(X) @ (eye(len(X)) - 2 * smallest_direction(X)),
    "2.E1": rank_above(gavish_donoho),
    "2.E2a": lambda W, theta: 3 * ((1 - theta) / theta * W**3 + W),
    "2.E2b": lambda theta, s: theta * (3 - s) / (3 - theta * s),
    "2.E3": lambda D: 1 / torch.linalg.eigvalsh(D @ D.T)[-1],
}


def smallest_direction(X):
    v = torch.linalg.eigh(X.T @ X).eigenvectors[:, 0]
    return torch.outer(v, v)


# Wrong answers and a piece of the reason they must be given.
WRONG = {
    "2.1a": [
        ("largest in absolute value", lambda A, k: torch.linalg.svd(A).U[:, :k], "trace"),
        ("smallest", lambda A, k: torch.linalg.eigh(A).eigenvectors[:, :k], "trace"),
        ("not normalized", lambda A, k: 2 * eye(len(A))[:, :k], "orthonormal"),
        ("rows", lambda A, k: torch.linalg.eigh(A).eigenvectors[:, -k:].T, "shape"),
    ],
    "2.1b": [
        ("ascending", lambda A, U: (torch.linalg.eigh(A).eigenvectors.T @ U).square().sum(1), "Σ"),
        ("lengths", lambda A, U: torch.linalg.eigh(A).eigenvectors.flip(1).T @ U[:, 0], "weight"),
        ("uniform", lambda A, U: 0 * A[0] + U.shape[1] / len(A), "Σ cⱼλⱼ"),
        ("diagonal of the projector", lambda A, U: (U @ U.T).diagonal().clone(), "Σ cⱼλⱼ"),
    ],
    "2.2": [
        ("no volume", lambda Y, M, s: gaussian(Y, M, s, volume=False), "constant"),
        ("M for its inverse", lambda Y, M, s: gaussian(Y, M, s, forward=True), "on y"),
        ("sigma not squared", lambda Y, M, s: gaussian(Y, M, s, power=1), "on y"),
        ("log of a signed det", lambda Y, M, s: gaussian(Y, M, s, False) - M.det().log(), "NaN"),
    ],
    "2.3a": [
        ("inverse", lambda U, Z, V, Y: torch.linalg.pinv(V) @ U, "second U"),
        ("identity", lambda U, Z, V, Y: eye(U.shape[1]), "second U"),
        ("transposed", lambda U, Z, V, Y: (torch.linalg.pinv(U) @ V).T, "second U"),
    ],
    "2.3b": [
        ("singular values", split_by_svd, "not A"),
        ("row norms only", lambda A, v: (A.norm(dim=1), normalize_rows(A), 0 * v + 1), "Q"),
        ("variances for deviations", lambda A, v: (0 * v + 1, A * v, 1 / v), "Q"),
        ("full D₁", lambda A, v: (A, eye(len(A)), 0 * v + 1), "not diagonal"),
    ],
    "2.4a": [
        ("codes orthonormal instead", lambda X, k: factor_by_svd(X, k, scaled=True), "orthonormal"),
        ("centered", factor_centered, "give back"),
        ("first columns", lambda X, k: (eye(X.shape[1])[:, :k], X[:, :k]), "give back"),
    ],
    "2.4b": [
        ("without 1/n", lambda Y: whiten(Y, n=1), "not I"),
        ("1/(n - 1)", lambda Y: whiten(Y, n=len(Y) - 1), "not I"),
        ("centered", lambda Y: whiten(Y - Y.mean(0)), "symmetric root"),
        ("another root", whiten_by_cholesky, "symmetric root"),
        ("scaled only", lambda Y: Y / Y.square().mean(0).sqrt(), "not I"),
    ],
    "2.4c": [
        ("the book's, for Z itself", lambda U, Z, V: whiten(Z @ U.T @ V).T @ Z / len(Z), "W"),
        ("transposed", lambda U, Z, V: rotation_from_roots(U, Z, V).T, "whiten(Y)"),
        ("the limit", lambda U, Z, V: polar(V.T @ U), "whiten(Y)"),
    ],
    "2.5a": [
        ("variance", lambda w, k: (w**2 * k).sum(), "weights"),
        ("linear", lambda w, k: (w * k).sum(), "weights"),
        ("normalized", lambda w, k: (w**4 * k).sum() / (w**2).sum() ** 2, "weights"),
    ],
    "2.5b": [
        ("independent", pair([[1, 1], [1, -1], [-1, 1], [-1, -1]], [0.25] * 4), "equals"),
        ("correlated", pair([[1, 1], [-1, -1]], [0.5, 0.5]), "correlated"),
        ("with a mean", pair([[1, 0], [0, 1]], [0.5, 0.5]), "mean"),
        ("constant", pair([[1, 0], [-1, 0]], [0.5, 0.5]), "constant"),
        ("sum 2", pair([[1, 0], [-1, 0]], [1, 1]), "sum to 1"),
        ("negative", pair([[1, 0], [-1, 0]], [2, -1]), "negative"),
    ],
    "2.6a": [
        ("the ordinary gradient", lambda u, g: g, "tangent"),
        ("zero", lambda u, g: 0 * g, "removed"),
        ("the normal part", lambda u, g: (u @ g) * u, "tangent"),
        ("twice", lambda u, g: 2 * tangent(u, g), "removed"),
    ],
    "2.6b": [
        ("v itself", lambda v: (v, -v), "not on the sphere"),
        ("swapped", lambda v: (-normalized(v), normalized(v)), "nearest"),
        ("a sign per entry", lambda v: (v.sign() / len(v) ** 0.5, -normalized(v)), "nearest"),
        ("one point", normalized, "2 values"),
    ],
    "2.6c": [
        ("no curvature", lambda u, g, H: sphere_hessian(u, g, H, 0.0), "great circle"),
        ("wrong sign", lambda u, g, H: sphere_hessian(u, g, H, -1.0), "great circle"),
        ("one projection", lambda u, g, H: sphere_hessian(u, g, H, left=False), "symmetric"),
        ("the ordinary Hessian", lambda u, g, H: H, "vanish"),
    ],
    "2.7a": [
        ("not projected", lambda w, k: 4 * k * w**3, "tangent"),
        ("factor lost", lambda w, k: tangent(w, k * w**3), "not the gradient"),
        ("wrong sign", lambda w, k: -4 * tangent(w, k * w**3), "not the gradient"),
    ],
    "2.7b": [
        ("uniform", lambda k, S: point(k, S, lambda c: 0 * c + len(c) ** -0.5), "gradient"),
        ("proportional to k", lambda k, S: point(k, S, normalized), "gradient"),
        ("not normalized", lambda k, S: point(k, S, lambda c: c.abs() ** -0.5), "unit sphere"),
        ("one axis", lambda k, S: eye(len(k))[S[0]], "nonzero"),
    ],
    "2.7c": [
        ("normal direction counted", lambda k, S: (len(S), len(k) - len(S)), "directions"),
        ("sign of k ignored", lambda k, S: (len(S) - 1, len(k) - len(S)), "Hessian"),
        ("reversed", lambda k, S: tuple(reversed(RIGHT["2.7c"](k, S))), "Hessian"),
    ],
    "2.7d": [
        ("only the global one", lambda k: eye(len(k))[[int(k.argmax())]], "more"),
        ("every axis", lambda k: eye(len(k)), "climb"),
        ("one vector", lambda k: eye(len(k))[int(k.argmax())], "shape"),
        (
            "the book's, normalized",
            lambda k: eye(len(k))[k > 0] if k.max() > 0 else 0 * k[None] + len(k) ** -0.5,
            "no critical point",
        ),
        (
            "the book's, as printed",
            lambda k: eye(len(k))[k > 0] if k.max() > 0 else 0 * k[None] + 1,
            "unit norm",
        ),
        (
            "the same one twice",
            lambda k: eye(len(k))[k > 0][:1].repeat(max(1, int((k > 0).sum())), 1),
            "same",
        ),
        (
            "axes of negative kurtosis",
            lambda k: eye(len(k))[k > 0] if k.max() > 0 else eye(len(k))[:1],
            "climb",
        ),
    ],
    "2.8a": [
        ("skew part of Δ", lambda Q, Delta: Q @ skew(Delta), "removed"),
        ("symmetric part", lambda Q, Delta: Q @ sym(Q.T @ Delta), "tangent space"),
        ("only Ω", lambda Q, Delta: skew(Q.T @ Delta), "tangent space"),
        ("factor lost", lambda Q, Delta: Delta - Q @ Delta.T @ Q, "removed"),
    ],
    "2.8b": [
        ("no curvature", lambda *a: group_hessian(*a, curvature=0.0), "disagrees"),
        ("wrong sign", lambda *a: group_hessian(*a, curvature=-1.0), "disagrees"),
        ("from the left", lambda *a: group_hessian(*a, left=True), "disagrees"),
        ("Δ not projected", lambda *a: group_hessian(*a, project=False), "disagrees"),
        ("the ordinary one", lambda Q, Delta, G, H: H(Delta), "tangent space"),
    ],
    "2.8c": [
        ("Gram-Schmidt", lambda X: torch.linalg.qr(X).Q, "nearer"),
        ("nearest rotation", kabsch, "nearer"),
        ("columns normalized", lambda X: X / X.norm(dim=0), "orthonormal"),
        ("transposed", lambda X: polar(X).T, "nearer"),
    ],
    "2.8d": [
        ("the nearest", polar, "same sign"),
        ("first column flipped", lambda X: flip(X, 0), "nearer"),
        ("minus the nearest", lambda X: -polar(X), "same sign"),
    ],
    "2.E1": [
        ("all", lambda noisy, sigma: noisy.shape[1], "fewer"),
        ("90 % of the energy", rank_by_energy, "more"),
        ("detectable", rank_above(lambda beta: (1 + beta**0.5) ** 2), "fewer"),
        ("above the noise", rank_above(lambda beta: 1.0), "fewer"),
        ("fixed", lambda noisy, sigma: 10, "fewer"),
        ("four sigma squared", rank_above(lambda beta: 4.0), "more"),
        ("a fraction", lambda noisy, sigma: 0.5, "integer"),
    ],
    "2.E2a": [
        ("no Gaussian part", lambda W, theta: (3 / theta - 3) * W**3, "E["),
        ("fourth moment for kurtosis", lambda W, theta: 3 / theta * W**3 + 3 * W, "E["),
        ("other normalization", lambda W, theta: 3 * theta * (1 - theta) * W**3 + 3 * W, "E["),
    ],
    "2.E2b": [
        ("unshifted", lambda theta, shift: theta, "exp"),
        ("superlinear", lambda theta, shift: 0.0, "exp"),
        ("shift in the numerator only", lambda theta, s: (3 - s) * theta / 3, "exp"),
    ],
    "2.E3": [
        ("descent step", lambda D: 1 / (2 * norm(D, 2) ** 2), "above your step still converge"),
        ("factor 2 forgotten", lambda D: 2 / norm(D, 2) ** 2, "below your step diverge"),
        ("Frobenius", lambda D: 1 / norm(D, "fro") ** 2, "above your step still converge"),
        ("norm not squared", lambda D: 1 / norm(D, 2), "above your step"),
        ("negative", lambda D: -1.0, "positive"),
    ],
}


def normalize_rows(A):
    return A / A.norm(dim=1, keepdim=True)


def test_every_exercise_has_right_and_wrong_answers():
    names = [name for name in exercises.names() if name.startswith("2.")]
    assert names == list(RIGHT) == list(WRONG)
    assert min(len(answers) for answers in WRONG.values()) >= 2


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_answer_is_accepted(name):
    result = exercises.check(name, RIGHT[name])
    assert result.passed, result.reason


@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        pytest.param(name, answer, reason, id=f"{name}-{label}")
        for name, answers in WRONG.items()
        for label, answer, reason in answers
    ],
)
def test_a_wrong_answer_is_refused_for_the_right_reason(name, answer, reason):
    result = exercises.check(name, answer)
    assert result.status == "wrong"
    assert reason in result.reason


@pytest.mark.parametrize("k", ch02_kurtosis._KURTOSES)
def test_kurtosis_derivatives_match_autograd_along_great_circles(k):
    k = torch.tensor(k, dtype=torch.float64)
    rng = torch.Generator().manual_seed(3)
    w, v = torch.randn(2, len(k), generator=rng, dtype=torch.float64)
    w = normalized(w)
    v = tangent(w, v)
    speed = v.norm()
    if len(k) > 1:
        v = v / speed

    def along(t):
        return (k * (t.cos() * w + t.sin() * v) ** 4).sum()

    if len(k) == 1:
        assert ch02_kurtosis._gradient(w, k).abs().max() < 1e-12
        assert ch02_kurtosis._hessian(w, k).abs().max() < 1e-12
        return
    slope = torch.func.grad(along)(torch.zeros((), dtype=torch.float64))
    bend = torch.func.grad(torch.func.grad(along))(torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(ch02_kurtosis._gradient(w, k) @ v, slope)
    torch.testing.assert_close(v @ ch02_kurtosis._hessian(w, k) @ v, bend)


def test_fourth_moments_are_those_of_bernoulli_gaussian_samples():
    n, theta = 200_000, 0.4
    Z = data.bernoulli_gaussian(n, 2, theta, generator=torch.Generator().manual_seed(0))
    products = torch.einsum("na,nb,nc,nj->nabcj", Z, Z, Z, Z)
    error = products.mean(0) - ch02_ours._fourth_moments(theta, 2)
    assert (error.abs() <= 5 * products.std(0) / n**0.5).all()


def test_error_by_rank_is_that_of_pca_projections():
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn(30, 4, generator=rng, dtype=torch.float64)
    noisy = clean + 0.5 * torch.randn(30, 4, generator=rng, dtype=torch.float64) + 1
    U, S, Vt = torch.linalg.svd(noisy - noisy.mean(0), full_matrices=False)
    for rank, error in enumerate(ch02_ours._error_by_rank(noisy, clean)):
        denoised = noisy.mean(0) + (U[:, :rank] * S[:rank]) @ Vt[:rank]
        torch.testing.assert_close(error, (denoised - clean).square().mean())
