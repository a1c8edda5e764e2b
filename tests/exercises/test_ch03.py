"""Right answers pass in more than one form; plausible wrong ones are refused with a reason."""

import math
from itertools import pairwise

import pytest
import torch

from companion_lib import exercises
from companion_lib.exercises import ch03_denoising, ch03_ours

NAMES = [name for name in exercises.names() if name.startswith("3.")]


def eye(d):
    return torch.eye(d, dtype=torch.float64)


def rows(values):
    return torch.tensor(values, dtype=torch.float64)


def mean_one_by_one(values, joint):
    columns = [column if column.sum() else column + 1 for column in joint.T]
    return torch.stack([(c[:, None] * values).sum(0) / c.sum() for c in columns])


def difference_of_losses(values, joint, f):
    def loss(g):
        return (joint * (values[:, None] - g).square().sum(2)).sum()

    return loss(f) - loss(mean_one_by_one(values, joint))


def factors(Sx, Sxy, Sy, lower=False, sign=1):
    D, d = Sxy.shape
    B = Sxy @ Sy.inverse()
    L = eye(D + d)
    if lower:
        L[D:, :D] = Sxy.T @ torch.linalg.pinv(Sx)
        return L, torch.block_diag(Sx, Sy - L[D:, :D] @ Sxy)
    L[:D, D:] = B
    return L, torch.block_diag(Sx - sign * B @ Sxy.T, Sy)


def distances(x, y, mean_x, mean_y, Sx, Sxy, Sy, shift=True, schur=True):
    B = Sxy @ Sy.inverse()
    dy = y - mean_y
    dx = x - mean_x - (dy @ B.T if shift else 0)
    S = Sx - B @ Sxy.T if schur else Sx
    of_x = torch.einsum("ni,ij,nj->n", dx, torch.linalg.pinv(S, hermitian=True), dx)
    return of_x, torch.einsum("ni,ij,nj->n", dy, Sy.inverse(), dy)


def distances_of_the_pair(x, y, mean_x, mean_y, Sx, Sxy, Sy):
    """Subtract the part of y from the whole."""
    S = torch.cat([torch.cat([Sx, Sxy], 1), torch.cat([Sxy.T, Sy], 1)])
    both = torch.cat([x - mean_x, y - mean_y], 1)
    dy = y - mean_y
    of_y = torch.linalg.solve_triangular(torch.linalg.cholesky(Sy), dy.T, upper=False)
    of_y = of_y.square().sum(0)
    whole = both @ torch.linalg.pinv(S, hermitian=True, rtol=1e-12)
    return (whole * both).sum(1) - of_y, of_y


def conditional(y, mean_x, mean_y, Sx, Sxy, Sy, center=True, cov=1.0):
    root = torch.linalg.cholesky(Sy)
    half = torch.linalg.solve_triangular(root, Sxy.T, upper=False)
    dy = torch.linalg.solve_triangular(root, (y - mean_y if center else y).T, upper=False)
    return mean_x + dy.T @ half, Sx - cov * half.T @ half


def woodbury(solve, U, C, V, B, sign=-1, invert=True):
    X, Y = solve(B), solve(U)
    small = (C.inverse() if invert else C) + V @ Y
    return X + sign * Y @ torch.linalg.solve(small, V @ X)


def solve_together(solve, U, C, V, B):
    """Avoid the inverse of C; one call solves for both."""
    both = solve(torch.cat([B, U], 1))
    X, Y = both[:, : B.shape[1]], both[:, B.shape[1] :]
    return X - Y @ torch.linalg.solve(eye(len(C)) + C @ V @ Y, C @ V @ X)


def build_the_matrix(solve, U, C, V, B):
    A = solve(eye(len(U))).inverse()
    return torch.linalg.solve(A + U @ C @ V, B)


def by_singular_values(X, F, t, power=2):
    W, s, _ = torch.linalg.svd(F, full_matrices=False)
    return (X @ W * s**2 / (s**2 + t**power)) @ W.T


def by_inverse_of_d(X, F, t):
    S = F @ F.T
    return X @ torch.linalg.solve(S + t**2 * eye(len(S)), S)


def by_woodbury(X, F, t):
    small = eye(F.shape[1]) + F.T @ F / t**2
    inverse_applied = X / t**2 - X @ F @ small.inverse() @ F.T / t**4
    return inverse_applied @ F @ F.T


def densities(x_t, weights, means, covariances, alpha, sigma, volume=True, square=True):
    logs = []
    for k in range(len(weights)):
        scale = alpha**2 if square else alpha
        S = scale * covariances[k] + sigma**2 * eye(x_t.shape[1])
        apart = x_t - alpha * means[k]
        value = torch.log(weights[k]) - (apart @ S.inverse() * apart).sum(1) / 2
        logs.append(value - torch.logdet(S) / 2 if volume else value)
    return torch.stack(logs, 1)


def mixture(x_t, weights, means, covariances, alpha, sigma, gain=True, rule="softmax", **options):
    logs = densities(x_t, weights, means, covariances, alpha, sigma, **options)
    parts = []
    for mean, S in zip(means, covariances, strict=True):
        noised = alpha**2 * S + sigma**2 * eye(len(S))
        W = (alpha if gain else 1) * S @ noised.inverse()
        parts.append(mean + (x_t - alpha * mean) @ W.T)
    parts = torch.stack(parts, 1)
    if rule == "hard":
        return parts[torch.arange(len(x_t)), logs.argmax(1)]
    if rule == "exp":
        w = logs.exp()
        return (w[:, :, None] * parts).sum(1) / w.sum(1, keepdim=True)
    return (logs.softmax(1)[:, :, None] * parts).sum(1)


def mixture_by_tweedie(x_t, weights, means, covariances, alpha, sigma):
    """Differentiate the log density; where α = 0 nothing is known but the mean."""
    if alpha == 0:
        return (weights @ means).expand_as(x_t)
    x = x_t.clone().requires_grad_()
    logs = densities(x, weights, means, covariances, alpha, sigma).logsumexp(1)
    (score,) = torch.autograd.grad(logs.sum(), x)
    return (x_t + sigma**2 * score) / alpha


def step(x_t, clean, a_t, s_t, a_s, s_s):
    return a_s * clean + s_s * (x_t - a_t * clean) / s_t


def run(denoise, alpha, sigma, times, noise, step=step, ask_at=0):
    x = noise
    for pair in pairwise(times):
        t, s = pair
        x = step(x, denoise(x, pair[ask_at]), alpha(t), sigma(t), alpha(s), sigma(s))
    return x


def run_by_ratio(denoise, alpha, sigma, times, noise):
    """Follow u = x + (σ/α) g, whose steps are those of variance exploding, after a first step."""
    x = step(
        noise,
        denoise(noise, float(times[0])),
        alpha(times[0]),
        sigma(times[0]),
        *(f(times[1]) for f in (alpha, sigma)),
    )
    for t, s in pairwise(times[1:].tolist()):
        ratio = sigma(s) / alpha(s) / (sigma(t) / alpha(t))
        clean = denoise(x, t)
        x = alpha(s) * (ratio * x / alpha(t) + (1 - ratio) * clean)
    return x


def run_second_order(denoise, alpha, sigma, times, noise):
    """DPM-Solver++ (2M): extrapolate the denoised sample in half the log-SNR."""
    x, before, h_before = noise, None, None
    for t, s in pairwise(times):
        clean = guess = denoise(x, t)
        inside = alpha(t) > 0 and sigma(s) > 0
        h = (alpha(s) / sigma(s) * sigma(t) / alpha(t)).log() if inside else None
        if h is not None and h_before is not None:
            guess = clean + h / h_before / 2 * (clean - before)
        x = step(x, guess, alpha(t), sigma(t), alpha(s), sigma(s))
        before, h_before = clean, h
    return x


def run_variance_exploding(denoise, alpha, sigma, times, noise):
    def simple(x, clean, a_t, s_t, a_s, s_s):
        return s_s / s_t * x + (1 - s_s / s_t) * clean

    return run(denoise, alpha, sigma, times, noise, step=simple)


def run_one_over_l(denoise, alpha, sigma, times, noise):
    """Weights of the uniform grid on any grid."""
    x = noise
    for left in range(len(times) - 1, 0, -1):
        x = (1 - 1 / left) * x + denoise(x, times[-1 - left]) / left
    return x


def from_preserving(denoise, x_t, t, time=None, scale=None):
    length = math.sqrt(t**2 + (1 - t) ** 2)
    return denoise(x_t / (length if scale is None else scale), time or t / length)


def from_angle(denoise, x_t, t):
    angle = math.atan2(t, 1 - t)
    return denoise(x_t * math.sin(angle) / t, rows(math.sin(angle)))


def two_points(x_t, t, p, sign=1, power=2, odds=0.5):
    return torch.tanh(sign * x_t / t**power + odds * math.log(p / (1 - p)))


def two_points_by_logits(x_t, t, p):
    logs = [math.log(w) - (x_t - c).square() / (2 * t**2) for w, c in ((p, 1), (1 - p, -1))]
    a, b = torch.stack(logs).softmax(0)
    return a - b


def variation(p, q, half=0.5):
    return half * (p - q).abs().sum(), p >= q


def laws(*values):
    return lambda: tuple(map(rows, values))


def drop(eigenvalues, t, s, base=1.0, power=1):
    gains = s / t + (1 - s / t) * eigenvalues / (eigenvalues + t**2)
    return -torch.log(gains**power).sum() / base


def gain_by_steps(lam, T, L=200_000):
    """Follow dx/dt = t x / (λ + t²) from T to 0 with the midpoint rule."""
    h = T / L
    t = (torch.arange(L, dtype=torch.float64) + 0.5) * h
    return 0.0 if lam == 0 else math.exp(-float((t / (lam + t**2)).sum()) * h)


def start(eigenvalues, share, choose=max):
    return math.sqrt(choose(eigenvalues.tolist()) * share / (1 - share))


def names_in_nats(X, base=1.0):
    rows = [tuple(row) for row in X.tolist()]
    return sum(math.log(len(rows) / rows.count(row)) for row in rows) / len(rows) / base


def even_snr(eigenvalues, n, half=0.5, base=1.0):
    log_snr = torch.linspace(-20, 40, 61).tolist()
    low, high = log_snr[0], log_snr[-1]
    for _ in range(200):
        middle = (low + high) / 2
        rate = half * torch.log1p(math.exp(middle) * eigenvalues).sum() / base
        low, high = (middle, high) if rate < math.log(n) else (low, middle)
    return math.exp(high)


def ratio(samples, X, threshold=1 / 3, power=1, swap=False):
    D = torch.cdist(X, samples) if swap else torch.cdist(samples, X)
    first, second = D.pow(power).sort(1).values[:, :2].T
    return float((first / second < threshold).sum()) / len(D)


def ratio_by_broadcasting(samples, X):
    D = (samples[:, None] - X).square().sum(2).sqrt()
    near = D.topk(2, largest=False).values
    return (near[:, 0] < near[:, 1] / 3).double().mean()


# Other right answers than those of the solutions notebook.
RIGHT = {
    "3.1a": [mean_one_by_one],
    "3.1b": [difference_of_losses],
    "3.2a": [factors],
    "3.2b": [distances, distances_of_the_pair],
    "3.2c": [conditional],
    "3.3a": [woodbury, solve_together],
    "3.3b": [by_singular_values],
    "3.4a": [lambda x, g, a, s: (x / a + s * s / a * g, -s * g)],
    "3.4b": [step],
    "3.4c": [mixture, mixture_by_tweedie],
    "3.5a": [run, run_by_ratio, run_second_order],
    "3.5b": [from_preserving, from_angle],
    "3.E1": [two_points, two_points_by_logits],
    "3.E2a": [variation, lambda p, q: (1 - torch.minimum(p, q).sum(), p < q)],
    "3.E2b": [
        laws([0.9, 0.1], [0.5, 0.5], [0.01, 0.99]),
        laws([1 / 3] * 3, [0.3, 0.3, 0.4], [0.01, 0.01, 0.98]),
    ],
    "3.E3a": [drop],
    "3.E3b": [lambda loss, d, t, s: (t - s) * t * (d / t**2 - loss / t**4)],
    "3.E4a": [gain_by_steps],
    "3.E4b": [start],
    "3.E5a": [names_in_nats],
    "3.E5b": [even_snr],
    "3.E6a": [ratio],
    "3.E6b": [lambda d, threshold: math.exp(d * math.log(threshold))],
}

# Wrong answers and a piece of the reason they must be given.
WRONG = {
    "3.1a": [
        ("prior mean", lambda v, P: (P.sum(1) @ v).expand(P.shape[1], -1), "is possible"),
        ("not normalized", lambda v, P: P.T @ v, "sum to one"),
        ("rows for columns", lambda v, P: (P / P.sum(1, keepdim=True)).T @ v, "is possible"),
        ("divided by zero", lambda v, P: (P / P.sum(0)).T @ v, "NaN"),
        ("most likely", lambda v, P: v[P.argmax(0)], "is possible"),
        ("transposed", lambda v, P: mean_one_by_one(v, P).T, "shape"),
    ],
    "3.1b": [
        ("the loss", lambda v, P, f: (P * (v[:, None] - f).square().sum(2)).sum(), "itself"),
        (
            "not weighted",
            lambda v, P, f: (f - mean_one_by_one(v, P)).square().sum(1).mean(),
            "P(y)",
        ),
        ("per coordinate", lambda *a: difference_of_losses(*a) / a[0].shape[1], "coordinates"),
        ("root", lambda *a: difference_of_losses(*a).abs().sqrt(), "more than the best"),
        (
            "difference of squares",
            lambda v, P, f: P.sum(0) @ (f.square() - mean_one_by_one(v, P).square()).sum(1),
            "more than the best",
        ),
        ("minus", lambda *a: -difference_of_losses(*a), "more than the best"),
    ],
    "3.2a": [
        ("lower", lambda *a: factors(*a, lower=True), "lower left"),
        ("plus", lambda *a: factors(*a, sign=-1), "joint covariance"),
        ("not reduced", lambda *a: factors(*a, sign=0), "joint covariance"),
        ("transposed", lambda *a: (factors(*a)[0].T, factors(*a)[1]), "lower left"),
        (
            "scaled",
            lambda *a: (2 * factors(*a)[0], factors(*a)[1] / 4),
            "must be identities",
        ),
        (
            "Cholesky",
            lambda Sx, Sxy, Sy: (
                eye(len(Sx) + len(Sy)),
                torch.cat([torch.cat([Sx, Sxy], 1), torch.cat([Sxy.T, Sy], 1)]),
            ),
            "beside",
        ),
        ("one", lambda *a: factors(*a)[0], "2 values"),
    ],
    "3.2b": [
        ("marginal", lambda *a: distances(*a, shift=False, schur=False), "as if y told nothing"),
        ("mean not moved", lambda *a: distances(*a, shift=False), "do not sum"),
        ("covariance not reduced", lambda *a: distances(*a, schur=False), "do not sum"),
        ("swapped", lambda *a: distances(*a)[::-1], "the part of y"),
        ("roots", lambda *a: tuple(part.sqrt() for part in distances(*a)), "the part of y"),
        (
            "no pseudoinverse",
            lambda x, y, mx, my, Sx, Sxy, Sy: (
                torch.linalg.solve(
                    Sx - Sxy @ Sy.inverse() @ Sxy.T,
                    (x - mx - (y - my) @ (Sxy @ Sy.inverse()).T).T,
                )
                .T.mul(x - mx - (y - my) @ (Sxy @ Sy.inverse()).T)
                .sum(1),
                distances(x, y, mx, my, Sx, Sxy, Sy)[1],
            ),
            "singular",
        ),
    ],
    "3.2c": [
        ("mean of y kept", lambda *a: conditional(*a, center=False), "forget μ_y"),
        ("covariance of x", lambda *a: conditional(*a, cov=0), "is that of x; knowing"),
        ("plus", lambda *a: conditional(*a, cov=-1), "exceeds"),
        ("twice", lambda *a: conditional(*a, cov=2), "not that of"),
        (
            "of the mean",
            lambda *a: (conditional(*a)[0], a[3] - conditional(*a)[1]),
            "covariance of the mean",
        ),
        (
            "y for x",
            lambda y, mx, my, Sx, Sxy, Sy: (
                mx + (y - my) @ torch.linalg.pinv(Sxy),
                conditional(y, mx, my, Sx, Sxy, Sy)[1],
            ),
            "still has a covariance",
        ),
        ("only the mean", lambda *a: conditional(*a)[0], "2 values"),
    ],
    "3.3a": [
        ("sign", lambda *a: woodbury(*a, sign=1), "wrong sign"),
        ("C", lambda *a: woodbury(*a, invert=False), "C⁻¹ belongs"),
        ("no update", lambda solve, U, C, V, B: solve(B), "update is missing"),
        ("symmetric", lambda solve, U, C, V, B: woodbury(solve, U, C, U.T, B), "does not solve"),
        ("the matrix", build_the_matrix, "300 columns"),
        ("transposed", lambda *a: woodbury(*a).T, "shape"),
    ],
    "3.3b": [
        ("1 + t²", lambda X, F, t: X @ F @ F.T / (1 + t**2), "orthonormal columns only"),
        ("t for t²", lambda X, F, t: by_singular_values(X, F, t, power=1), "variance t²"),
        ("rest", lambda X, F, t: X - by_singular_values(X, F, t), "removes"),
        ("d × d", by_inverse_of_d, "digits are lost"),
        ("textbook Woodbury", by_woodbury, "digits are lost"),
        (
            "d × d for large t",
            lambda X, F, t: (by_singular_values if t < 1e-3 else by_inverse_of_d)(X, F, t),
            "998,001 numbers",
        ),
        (
            "full SVD",
            lambda X, F, t: by_singular_values(X, torch.linalg.svd(F).U[:, :1] * 1, t),
            "x_t",
        ),
    ],
    "3.4a": [
        ("no α", lambda x, g, a, s: (x + s**2 * g, -s * g), "E[α x | x_t]"),
        ("σ for σ²", lambda x, g, a, s: ((x + s * g) / a, -s * g), "variance σ²"),
        ("down", lambda x, g, a, s: ((x - s**2 * g) / a, -s * g), "down the log density"),
        ("half divided", lambda x, g, a, s: (x + s**2 * g / a, -s * g), "only one"),
        ("noise sign", lambda x, g, a, s: ((x + s**2 * g) / a, s * g), "wrong sign"),
        ("noise scaled", lambda x, g, a, s: ((x + s**2 * g) / a, -(s**2) * g), "E[σ g | x_t]"),
        ("noise over σ", lambda x, g, a, s: ((x + s**2 * g) / a, -g / s), "is not α E"),
        ("one", lambda x, g, a, s: (x + s**2 * g) / a, "2 values"),
    ],
    "3.4b": [
        ("VE", lambda x, c, at, st, a, s: s / st * x + (1 - s / st) * c, "α = 1 only"),
        ("no noise", lambda x, c, at, st, a, s: a * c + 0 * x, "no noise"),
        ("noise kept", lambda x, c, at, st, a, s: a * c + x - at * c, "keeps its size"),
        ("swapped", lambda x, c, at, st, a, s: step(x, c, a, s or 1.0, at, st), "must arrive"),
        ("divided by α", lambda x, c, at, st, a, s: a / at * x if at else x / 0, "keeps its size"),
        ("half", lambda x, c, at, st, a, s: s / st * x + a * c, "must arrive"),
    ],
    "3.4c": [
        ("no weights", lambda x, w, *a: mixture(x, torch.ones_like(w), *a), "weights are missing"),
        ("no volume", lambda *a: mixture(*a, volume=False), "determinants"),
        ("σ for σ²", lambda x, w, m, S, a, s: mixture(x, w, m, S, a, s**0.5), "not σ"),
        ("α for α²", lambda *a: mixture(*a, square=False), "not the mean"),
        ("no α in the gain", lambda *a: mixture(*a, gain=False), "not the mean"),
        ("hard", lambda *a: mixture(*a, rule="hard"), "most likely"),
        ("mean of α x", lambda *a: a[4] * mixture(*a), "divide by α"),
        ("densities underflow", lambda *a: mixture(*a, rule="exp"), "NaN"),
        (
            "prior",
            lambda x, w, m, S, a, s: (
                w[:, None, None]
                * torch.stack(
                    [mixture(x, w[k:][:1], m[k:][:1], S[k:][:1], a, s) for k in range(len(w))]
                )
            ).sum(0),
            "told nothing",
        ),
        ("VE only", lambda x, w, m, S, a, s: mixture(x, w, m, S, 1.0, s), "not the mean"),
    ],
    "3.5a": [
        ("one shot", lambda f, a, s, times, x: f(x, times[0]), "total variation"),
        ("VE only", run_variance_exploding, "variance preserving"),
        ("uniform weights", run_one_over_l, "total variation"),
        ("asks too late", lambda *a: run(*a, ask_at=1), "that point"),
        ("upward", lambda f, a, s, times, x: run(f, a, s, times.flip(0), x), "NaN"),
        ("a step short", lambda f, a, s, times, x: run(f, a, s, times[:-1], x), "that point"),
        (
            "all steps",
            lambda f, a, s, times, x: torch.stack([x, run(f, a, s, times, x)]),
            "shape",
        ),
        (
            "too narrow in many dimensions",
            lambda f, a, s, times, x: run(f, a, s, times, x * (1 if x.shape[1] < 50 else 0.9)),
            "times as far",
        ),
        (
            "off the subspace",
            lambda *a: run(*a) + (1e-3 * a[-1] if a[-1].shape[1] == 50 else 0),
            "miss the data's subspace",
        ),
    ],
    "3.5b": [
        ("same t", lambda f, x, t: f(x, t), "but x_t has"),
        ("time only", lambda *a: from_preserving(*a, scale=1.0), "another scale"),
        ("scale only", lambda f, x, t: from_preserving(f, x, t, time=t), "but x_t has"),
        (
            "divided by 1 - t",
            lambda f, x, t: f(x / (1.001 - t), min(1.0, t / (1.001 - t))),
            "but x_t",
        ),
        ("output scaled", lambda f, x, t: 2 * from_preserving(f, x, t), "flow matching"),
        ("never asks", lambda f, x, t: x, "call denoise once"),
        ("out of range", lambda f, x, t: f(x, 1 + t), "times from 0 to 1"),
    ],
    "3.E1": [
        ("as printed", lambda *a: two_points(*a, sign=-1), "wrong sign"),
        ("t for t²", lambda *a: two_points(*a, power=1), "variance t²"),
        ("even", lambda *a: two_points(*a, odds=0), "not equally likely"),
        ("odds twice", lambda *a: two_points(*a, odds=1), "count twice"),
        ("odds flipped", lambda *a: two_points(*a, odds=-0.5), "less likely"),
        ("probability", lambda *a: (1 + two_points(*a)) / 2, "not the mean"),
        ("negative", lambda *a: -two_points(*a), "wrong sign"),
        (
            "densities",
            lambda x, t, p: (
                (p * torch.exp(x / t**2) - (1 - p) * torch.exp(-x / t**2))
                / (p * torch.exp(x / t**2) + (1 - p) * torch.exp(-x / t**2))
            ),
            "NaN",
        ),
    ],
    "3.E2a": [
        ("no half", lambda p, q: variation(p, q, half=1.0), "twice"),
        ("largest entry", lambda p, q: ((p - q).abs().max(), p > q), "single outcome"),
        ("euclidean", lambda p, q: ((p - q).norm(), p > q), "by more"),
        ("everything", lambda p, q: (variation(p, q)[0], p > -1), "your event"),
        ("indices", lambda p, q: (variation(p, q)[0], (p > q).nonzero()), "boolean"),
        ("signed", lambda p, q: ((p - q).sum() / 2, p > q), "by more"),
    ],
    "3.E2b": [
        ("the same", laws([0.5, 0.5], [0.5, 0.5], [0.5, 0.5]), "not more than"),
        ("detour is longer", laws([0.5, 0.5], [0.01, 0.99], [0.4, 0.6]), "not more than"),
        ("zeros", laws([1, 0], [0.5, 0.5], [0.1, 0.9]), "not positive"),
        ("no law", laws([0.5, 0.6], [0.5, 0.5], [0.1, 0.9]), "sum to"),
        ("two", laws([0.5, 0.5], [0.1, 0.9]), "3 values"),
        ("numbers", laws(0.5, 0.3, 0.1), "shape (m,)"),
        ("other sizes", laws([0.5, 0.5], [0.2, 0.2, 0.6], [0.1, 0.9]), "shape"),
    ],
    "3.E3a": [
        ("bits", lambda *a: drop(*a, base=math.log(2)), "bits"),
        ("half", lambda *a: drop(*a) / 2, "half of it"),
        ("variances", lambda *a: drop(*a, power=2), "twice"),
        ("negative", lambda *a: -drop(*a), "positive"),
        ("to x_s", lambda e, t, s: torch.log((e + t**2) / (e + s**2)).sum() / 2, "spreads less"),
        ("one eigenvalue", lambda e, t, s: drop(e[:1], t, s), "falls by"),
    ],
    "3.E3b": [
        ("no factor", lambda loss, d, t, s: d - loss / t**2, "falls by"),
        ("s / t", lambda loss, d, t, s: s / t * (d - loss / t**2), "promise"),
        ("J", lambda loss, d, t, s: d / t**2 - loss / t**4, "J itself"),
        ("loss only", lambda loss, d, t, s: (1 - s / t) * loss / t**2, "here, not"),
        ("d = 1", lambda loss, d, t, s: (1 - s / t) * (1 - loss / t**2), "compare d"),
        ("half", lambda loss, d, t, s: (1 - s / t) * (d - loss / t**2) / 2, "here, not"),
        (
            "bits",
            lambda loss, d, t, s: (1 - s / t) * (d - loss / t**2) / math.log(2),
            "bits",
        ),
    ],
    "3.E4a": [
        ("one step", lambda lam, T: lam / (lam + T**2), "gain of one step"),
        ("zero", lambda lam, T: 0.0, "does not go to 0"),
        ("variance", lambda lam, T: math.sqrt(lam / (lam + T)), "multiply to"),
        ("other way", lambda lam, T: math.sqrt(T**2 / (lam + T**2)), "multiply to"),
        ("exp", lambda lam, T: math.exp(-(T**2) / (2 * lam)) if lam else 0.0, "multiply to"),
    ],
    "3.E4b": [
        ("negative", lambda *a: -start(*a), "positive"),
        ("smallest", lambda e, c: start(e, c, choose=min) or 1.0, "only"),
        ("mean", lambda e, c: math.sqrt(float(e.mean()) * c / (1 - c)), "only"),
        ("trace", lambda e, c: math.sqrt(float(e.sum()) * c / (1 - c)), "may be smaller"),
        ("T²", lambda e, c: start(e, c) ** 2, "may be smaller"),
        ("lost share", lambda e, c: start(e, 1 - c), "of its variance only"),
        ("standard deviations", lambda e, c: start(e, c**2), "of its variance only"),
    ],
    "3.E5a": [
        ("bits", lambda X: names_in_nats(X, base=math.log(2)), "bits"),
        ("log N", lambda X: math.log(len(X)), "no second name"),
        ("log of distinct", lambda X: math.log(len(X.unique(dim=0))), "equally likely"),
        ("no half", lambda X: 2 * names_in_nats(X), "without its factor"),
        ("half twice", lambda X: names_in_nats(X) / 2, "already"),
        ("N", lambda X: float(len(X)), "nats"),
    ],
    "3.E5b": [
        ("no half", lambda e, n: even_snr(e, n, half=1.0), "the names"),
        ("bits", lambda e, n: even_snr(e, n, base=math.log(2)), "the names"),
        ("trace", lambda e, n: 2 * math.log(n) / float(e.sum()), "the names"),
        ("root", lambda e, n: math.sqrt(even_snr(e, n)), "the names"),
        ("one direction", lambda e, n: even_snr(e[:1], n), "the names"),
        ("zero", lambda e, n: 0.0, "positive"),
        ("in decibels", lambda e, n: 10 * math.log10(even_snr(e, n)), "the names"),
    ],
    "3.E6a": [
        ("squares", lambda *a: ratio(*a, power=2), "squared distances"),
        ("other way", lambda *a: ratio(*a, swap=True), "of each training sample"),
        ("generalization", lambda *a: 1 - ratio(*a), "not memorized"),
        ("count", lambda Y, X: len(Y) * ratio(Y, X), "divide by"),
        ("a half", lambda *a: ratio(*a, threshold=0.5), "is memorized"),
        ("inverted", lambda *a: 1 - ratio(*a, threshold=1.0), "is memorized"),
        ("broadcast", ratio_by_broadcasting, "distances"),
    ],
    "3.E6b": [
        ("never", lambda d, c: 0.0, "now and then"),
        ("threshold", lambda d, c: c, "depend on the dimension"),
        ("volume", lambda d, c: c ** (d / 2), "counted as memorized with"),
        ("complement", lambda d, c: 1 - c**d, "not counted"),
        ("of two", lambda d, c: c**d / (1 + c**d), "counted as memorized with"),
    ],
}


def test_every_exercise_has_right_and_wrong_answers():
    assert list(RIGHT) == list(WRONG) == NAMES
    assert min(len(answers) for answers in WRONG.values()) >= 5


@pytest.mark.parametrize(
    ("name", "answer"),
    [(name, answer) for name, answers in RIGHT.items() for answer in answers],
)
def test_another_right_answer_is_accepted(name, answer):
    result = exercises.check(name, answer)
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


def test_the_mixtures_in_the_checks_obey_tweedie():
    """The closed form of the mean against the gradient of an independent log density."""
    rng = torch.Generator().manual_seed(0)
    for _, law in ch03_denoising._mixtures():
        for alpha, sigma in ch03_denoising._LEVELS:
            x_t = ch03_denoising._noised(law, alpha, sigma, rng)
            want = mixture_by_tweedie(x_t, law.weights, law.means, law.covariances, alpha, sigma)
            got = law.denoise(x_t, alpha, sigma)
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_the_total_variation_of_ddim_is_the_known_one():
    """Values from the density of the moved noise, p(F(z)) F'(z), on another grid."""
    law = ch03_denoising._variances([0.3, 0.7], [-1.5, 1.0], [0.05, 0.2])
    z = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    known = {"variance exploding": 0.0166, "variance preserving": 0.0130, "flow matching": 0.0124}
    for process in ch03_denoising._processes(64):
        denoise = ch03_denoising._Denoiser(law, process)
        noise = float(process.sigma(process.times[0])) * z[:, None]
        outputs = run(denoise, process.alpha, process.sigma, process.times, noise)
        got = ch03_denoising._sampler_error(outputs, z, law)
        assert got == pytest.approx(known[process.name], abs=3e-4)


def test_the_total_variation_of_an_exact_map_and_of_a_constant():
    law = ch03_denoising._variances([1.0], [2.0], [9.0])
    z = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    exact = 2 + 3 * z[:, None]
    assert ch03_denoising._sampler_error(exact, z, law) == pytest.approx(0, abs=1e-6)
    constant = torch.full_like(exact, 2.0)
    assert ch03_denoising._sampler_error(constant, z, law) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("t", "s", "entropy_drop", "bound"),
    [(0.3, 0.15, 0.68705, 0.49264), (1.0, 0.9, 0.05725, 0.05504), (3.0, 1.5, 0.59797, 0.45003)],
)
def test_two_points_lose_the_known_entropy(t, s, entropy_drop, bound):
    loss, information, got = ch03_ours._two_points(t, s)
    assert got == pytest.approx(entropy_drop, abs=1e-5)
    assert (1 - s / t) * information == pytest.approx(bound, abs=1e-5)
    assert information == pytest.approx(1 - loss / t**2, abs=1e-10)


def test_the_entropy_drop_of_a_gaussian_is_that_of_its_step():
    """The step is linear, so both laws are Gaussian with known covariances."""
    values, t, s = rows([4.0, 1.0, 0.0]), 0.7, 0.2
    gains = (values + s * t) / (values + t**2)
    before = (values + t**2).log().sum() / 2
    after = (gains**2 * (values + t**2)).log().sum() / 2
    assert ch03_ours._drop(values, t, s) == pytest.approx(float(before - after))


@pytest.mark.parametrize(("lam", "T"), [(1.0, 1.0), (0.1, 1.0), (4.0, 1.0), (1.0, 10.0)])
def test_the_product_of_gains_has_its_closed_form(lam, T):
    want = math.sqrt(lam / (lam + T**2))
    assert ch03_ours._product_of_gains(lam, T) == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("weights", [[0.25] * 4, [0.6, 0.2, 0.2]])
def test_the_loss_of_finite_data_integrates_to_its_entropy(weights):
    """½ ∫ mmse du on a line, with the mmse from quadrature at each signal-to-noise ratio."""
    points, p = torch.arange(len(weights)).double(), rows(weights)
    snr = torch.linspace(0, 12, 601, dtype=torch.float64) ** 2
    losses = []
    for u in snr:
        y = torch.linspace(-9, 9 + float(u.sqrt()) * 3, 2001, dtype=torch.float64)
        logs = p.log() - (y[:, None] - u.sqrt() * points).square() / 2
        posterior, density = logs.softmax(1), logs.exp().sum(1) / math.sqrt(2 * math.pi)
        mean = posterior @ points
        variance = posterior @ points**2 - mean**2
        losses.append(torch.trapezoid(density * variance, y))
    got = float(torch.trapezoid(torch.stack(losses), snr)) / 2
    counts = [round(20 * w) for w in weights]
    assert got == pytest.approx(ch03_ours._entropy_of_counts(counts), abs=1e-3)


@pytest.mark.parametrize(("d", "embedding"), [(1, 1), (2, 2), (2, 30), (3, 3)])
def test_honest_samples_are_counted_as_memorized_as_often_as_said(d, embedding):
    """Fresh samples of the law on a torus without border, embedded in more dimensions or not."""
    rng = torch.Generator().manual_seed(0)
    n = 3000
    X, Y = (2 * math.pi * torch.rand(n, d, generator=rng, dtype=torch.float64) for _ in range(2))

    def embed(angles):
        flat = torch.cat([angles.cos(), angles.sin()], 1)
        return torch.nn.functional.pad(flat, (0, max(0, embedding - 2 * d)))

    want = 3.0**-d
    error = math.sqrt(want * (1 - want) / n)
    assert ratio(embed(Y), embed(X)) == pytest.approx(want, abs=4 * error + 0.01 * want)


def test_blocks_with_a_pseudoinverse_are_a_generalized_inverse_only():
    """The book's footnote: with S⁺ for S⁻¹ the identity holds for squared distances only."""
    joint = rows([[1.0, 1.0], [1.0, 1.0]])
    P = rows([[1.0, 0.0], [-1.0, 1.0]])
    claimed = P @ rows([[0.0, 0.0], [0.0, 1.0]]) @ P.T
    assert not torch.allclose(claimed, torch.linalg.pinv(joint))
    torch.testing.assert_close(joint @ claimed @ joint, joint)
    z = rows([3.0, 3.0])  # on the support
    torch.testing.assert_close(z @ claimed @ z, z @ torch.linalg.pinv(joint) @ z)
