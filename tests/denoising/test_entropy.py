"""Entropy: scipy, closed forms, quadrature, de Bruijn, I-MMSE, one denoising step, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.compression import coding_rate
from companion_lib.data import random_orthogonal
from companion_lib.denoising.entropy import (
    cross_entropy,
    denoising_error,
    differential_entropy,
    discretized_entropy,
    entropy_by_de_bruijn,
    entropy_drop,
    fisher_from_denoiser,
    fisher_information,
    gaussian_entropy,
    kl_divergence,
    midpoint_grid,
    mutual_information_by_i_mmse,
    posterior_covariance,
)
from companion_lib.denoising.processes import FlowMatching, VarianceExploding, VariancePreserving

VE, VP, FM = VarianceExploding(), VariancePreserving(), FlowMatching()
PROCESSES = {"VE": VE, "VP": VP, "FM": FM, "FM, data at 1": FlowMatching(data_at=1)}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
NORMAL = math.log(2 * math.pi * math.e) / 2  # entropy of N(0, 1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


class Mixture:
    """Balls ``N(μ_k, v_k I)``, ``v_k`` at least 0: points, Gaussians, and what is between."""

    def __init__(self, weights, means, variances):
        self.weights, self.means, self.variances = map(tensor, (weights, means, variances))

    def logits(self, x, alpha, sigma):
        v = alpha**2 * self.variances + sigma**2
        squares = (x[:, None] - alpha * self.means).square().sum(2)
        return self.weights.log() - squares / (2 * v) - x.shape[1] / 2 * (2 * math.pi * v).log()

    def log_prob(self, x, alpha=1.0, sigma=0.0):
        return self.logits(x, alpha, sigma).logsumexp(1)

    def density(self, x, t):
        return self.log_prob(x, 1.0, t).exp()

    def score(self, x, alpha, sigma):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.log_prob(x, alpha, sigma).sum(), x)[0]

    def denoiser(self, process):
        def denoise(x, t):
            alpha, sigma = process.alpha(t), process.sigma(t)
            w = self.logits(x, alpha, sigma).softmax(1)
            gains = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
            parts = self.means + gains[:, None] * (x[:, None] - alpha * self.means)
            return (w[:, :, None] * parts).sum(1)

        return denoise


BUMPS = Mixture([0.3, 0.7], [[-1.5], [1.0]], [0.05, 0.2])
TWO_POINTS = Mixture([0.5, 0.5], [[-1.0], [1.0]], [0.0, 0.0])
LINE, CELL = midpoint_grid(-30, 30, 6000)


def gaussian_denoiser(covariance, process):
    """The Wiener filter of N(0, Σ)."""

    def denoise(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        noised = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance)).double()
        return alpha * x @ torch.linalg.inv(noised) @ covariance

    return denoise


# Densities on a grid


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_cells_fill_the_cube(d):
    X, volume = midpoint_grid(-1, 3, 8, d)
    assert X.shape == (8**d, d) and X.dtype == torch.float64
    assert len(X) * volume == 4**d
    assert X.min() == -0.75 and X.max() == 2.75
    assert torch.allclose(X.mean(0), torch.ones(d).double())
    assert (X[1] - X[0])[-1] == 0.5 and (X[1] - X[0])[:-1].eq(0).all()
    integral = X.square().prod(1).sum().item() * volume  # of a polynomial, to second order
    assert integral == pytest.approx((28 / 3) ** d, rel=0.03)


LAWS = [
    scipy.stats.norm(0.3, 2),
    scipy.stats.laplace(0, 1),
    scipy.stats.uniform(0, 1),
    scipy.stats.beta(3, 2),
    scipy.stats.gamma(4),
    scipy.stats.logistic(1, 2),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.dist.name)
def test_entropy_of_laws_that_scipy_knows(law):
    low, high = law.ppf(1e-13), law.isf(1e-13)
    X, cell = midpoint_grid(low, high, 20_000)
    h = differential_entropy(tensor(law.pdf(X[:, 0])), cell).item()
    assert h == pytest.approx(float(law.entropy()), abs=1e-6)


def test_cells_of_different_sizes():
    edges = torch.linspace(-4, 4, 2001).double().sinh()
    middle, widths = (edges[1:] + edges[:-1]) / 2, edges.diff()
    p = tensor(scipy.stats.norm.pdf(middle))
    assert differential_entropy(p, widths).item() == pytest.approx(NORMAL, abs=1e-4)


@pytest.mark.parametrize("side", [1.0, 0.5, 0.1, 0.01])
def test_naming_the_cell_of_a_normal(side):
    edges = side * np.arange(-round(12 / side), round(12 / side) + 1)
    density = tensor(np.diff(scipy.stats.norm.cdf(edges)) / side)
    for p, d in ((density, 1), (density[:, None] * density, 2)):
        if p.numel() > 10**6:
            continue
        H = discretized_entropy(p, side).item()
        masses = p * side**d
        assert H == pytest.approx(scipy.stats.entropy(masses.flatten().numpy()), rel=1e-12)
        more = H + d * math.log(side) - d * NORMAL
        assert more == pytest.approx(d * side**2 / 24, rel=0.05 * side + 1e-4)
        assert H == pytest.approx(
            differential_entropy(p, side**d).item() - d * math.log(side), abs=1e-12
        )


@pytest.mark.parametrize("eps", [0.3, 0.15, 0.075])
def test_entropy_of_thickened_curves(eps):
    """Volume of the points within ε of a circle, and of a segment: slope 1 = codimension."""
    X, cell = midpoint_grid(-2, 2, 1600, 2)
    circle = (X.norm(dim=1) - 1).abs() < eps
    segment = (X - X.clamp(tensor([-1.0, 0]), tensor([1.0, 0]))).norm(dim=1) < eps
    volumes = (4 * math.pi * eps, 4 * eps + math.pi * eps**2)
    for inside, volume in zip((circle, segment), volumes, strict=True):
        p = inside.double() / volume
        h = differential_entropy(p / (p.sum() * cell), cell).item()
        assert h == pytest.approx(math.log(volume), abs=1e-3)


def test_among_laws_of_equal_covariance_the_gaussian_has_most():
    cases = [
        (scipy.stats.uniform(0, 1), 0.0, 0.1765),
        (scipy.stats.laplace(0, 1), 1.6931, 1.7655),
        (scipy.stats.norm(1, 2), NORMAL + math.log(2), NORMAL + math.log(2)),
    ]
    for law, h, top in cases:
        X, cell = midpoint_grid(-40, 40, 64_000)
        p, q = (
            tensor(law.pdf(X[:, 0])),
            tensor(scipy.stats.norm(law.mean(), law.std()).pdf(X[:, 0])),
        )
        most = gaussian_entropy(tensor([[law.var()]])).item()
        assert differential_entropy(p, cell).item() == pytest.approx(h, abs=6e-5)
        assert most == pytest.approx(top, abs=6e-5)
        if law.dist.name == "laplace":  # its Gaussian underflows in the tails
            X, cell = midpoint_grid(-25, 25, 64_000)
            p, q = tensor(law.pdf(X[:, 0])), tensor(scipy.stats.norm(0, law.std()).pdf(X[:, 0]))
        assert kl_divergence(p, q, cell).item() == pytest.approx(most - h, abs=6e-5)


@few
@given(st.floats(-1, 1), st.floats(0.3, 2), st.floats(-1, 1), st.floats(0.3, 2))
def test_kl_divergence_of_gaussians(m, s, n, r):
    X, cell = midpoint_grid(-30, 30, 4000)
    p, q = (tensor(scipy.stats.norm(*law).pdf(X[:, 0])) for law in ((m, s), (n, r)))
    keep = (q > 0).double()
    exact = math.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5
    if (p * (1 - keep)).sum() == 0:
        assert kl_divergence(p, q, cell).item() == pytest.approx(exact, abs=1e-9)
    assert kl_divergence(p, q, cell).item() >= -1e-12


def test_a_code_without_a_word_costs_infinitely_much():
    X, cell = midpoint_grid(0, 2, 100)
    wide, narrow = torch.full((100,), 0.5).double(), (X[:, 0] < 1).double()
    assert kl_divergence(wide, narrow, cell).item() == math.inf
    assert kl_divergence(narrow, wide, cell).item() == pytest.approx(math.log(2), rel=1e-12)


# Laws and samples


@few
@given(seeds, st.integers(1, 6))
def test_gaussian_entropy_is_that_of_scipy(seed, d):
    A = randn(d, d, seed=seed) + 2 * torch.eye(d).double()
    S = A @ A.T + 0.1 * torch.eye(d).double()
    exact = scipy.stats.multivariate_normal(cov=S.numpy()).entropy()
    assert gaussian_entropy(S).item() == pytest.approx(exact, rel=1e-10, abs=1e-10)
    assert gaussian_entropy(S.float()).item() == pytest.approx(exact, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("vanishing", [1, 2, 3])
def test_half_a_nat_for_each_vanishing_direction_and_e_fold(vanishing):
    deltas = torch.logspace(-12, -1, 12).double()
    values = [[*[x.item()] * vanishing, 1.0, 2.0] for x in deltas]
    h = torch.stack([gaussian_entropy(torch.diag(tensor(v))) for v in values])
    assert torch.allclose(h.diff() / deltas.log().diff(), tensor(vanishing / 2.0), rtol=1e-10)


def test_a_degenerate_gaussian_has_no_entropy():
    u = randn(5, 2)
    for S in (torch.diag(tensor([1.0, 0.0])), torch.zeros(3, 3)):
        assert gaussian_entropy(S).item() == -math.inf
    assert gaussian_entropy(u @ u.T).item() < -40  # rounding may leave a little variance


def low_rank_mixture(n, seed):
    bases = [random_orthogonal(6, generator(k))[:2] for k in range(3)]
    pieces = [randn(n, 2, seed=seed + k) @ basis for k, basis in enumerate(bases)]
    X = torch.cat(pieces) + 0.1 * randn(3 * n, 6, seed=seed + 9)
    return X, [basis.T @ basis + 0.01 * torch.eye(6).double() for basis in bases]


def test_the_cost_of_the_wrong_code():
    """A ball, a Gaussian, the right mixture and the samples, on data that none was fitted to."""
    train, covariances = low_rank_mixture(300, seed=20)
    held_out, _ = low_rank_mixture(300, seed=50)
    S = train.T @ train / len(train)
    normal = torch.distributions.MultivariateNormal

    def gaussian(S):
        return normal(torch.zeros(6).double(), S).log_prob

    def mixture(X):
        return torch.stack([gaussian(C)(X) for C in covariances]).logsumexp(0) - math.log(3)

    def kernel_estimate(width):
        law = normal(torch.zeros(6).double(), width**2 * torch.eye(6).double())
        return lambda X: law.log_prob(X[:, None] - train).logsumexp(1) - math.log(len(train))

    largest = torch.linalg.eigvalsh(S)[-1]
    ball, fitted, right = (
        cross_entropy(q, held_out).item()
        for q in (gaussian(4 * largest * torch.eye(6).double()), gaussian(S), mixture)
    )
    assert ball > fitted + 1 and fitted > right + 1
    by_width = [cross_entropy(kernel_estimate(w), held_out).item() for w in (0.2, 0.05, 0.01)]
    assert by_width[2] > by_width[1] > by_width[0] > right
    assert cross_entropy(lambda X: torch.full((len(X),), -math.inf), held_out).item() == math.inf
    # The second moment is all that a centered Gaussian code sees.
    quadratic = torch.trace(torch.linalg.inv(S) @ (held_out.T @ held_out) / len(held_out))
    exact = gaussian_entropy(S) + (quadratic - 6) / 2
    assert fitted == pytest.approx(exact.item(), rel=1e-12)


# Noise raises entropy

PLANE_MEANS = tensor([[-3.0, -3.0], [3.0, 3.0], [0.0, 3.0]])
FACTORS = tensor([[[2, 0.5], [0.5, 0.5]], [[0.5, 0], [0, 2]], [[1, -0.8], [-0.8, 1]]])
PLANE = [  # t, h, dh/dt = t J
    (0.0, 3.4607, None),
    (0.5, 4.0699, 1.2888),
    (1.0, 4.5842, 0.8214),
    (2.0, 5.2075, 0.4993),
    (3.0, 5.6504, 0.4004),
    (5.0, 6.3473, 0.3055),
    (10.0, 7.5281, 0.1840),
]


def plane(t, cells=None):
    """Entropy and Fisher information of the book's mixture in the plane, by quadrature."""
    width = 12 + 7 * t
    X, cell = midpoint_grid(-width, width, cells or (400 if t < 0.5 else 240), 2)
    X.requires_grad_()
    covariances = FACTORS @ FACTORS.mT + t**2 * torch.eye(2).double()
    laws = torch.distributions.MultivariateNormal(PLANE_MEANS, covariances)
    log_p = laws.log_prob(X[:, None]).logsumexp(1) - math.log(3)
    (score,) = torch.autograd.grad(log_p.sum(), X)
    p = log_p.detach().exp()
    J = fisher_information(score, p * cell)
    return differential_entropy(p, cell).item(), J.item()


@pytest.mark.parametrize("t, h, slope", PLANE)
def test_entropy_of_the_mixture_in_the_plane(t, h, slope):
    entropy, J = plane(t)
    assert entropy == pytest.approx(h, abs=6e-5)
    if slope is not None:
        assert t * J == pytest.approx(slope, abs=6e-5)
        rise = (plane(t + 0.01)[0] - plane(t - 0.01)[0]) / 0.02
        assert rise == pytest.approx(t * J, rel=3e-4)
        assert J < 2 / t**2


def test_entropy_of_the_mixture_in_the_plane_from_its_scores():
    times = torch.logspace(math.log10(0.5), 1, 31).double()
    J = tensor([plane(t.item(), 120)[1] for t in times])
    h = entropy_by_de_bruijn(times, J, 7.5281)
    for t, exact, _ in PLANE[1:]:
        nearest = (times - t).abs().argmin()
        here = plane(times[nearest].item())[0]
        assert h[nearest].item() == pytest.approx(here, abs=1.5e-4)
        if abs(times[nearest] - t) < 1e-9:
            assert here == pytest.approx(exact, abs=1e-4)


@few
@given(seeds, st.integers(1, 4), st.floats(0.05, 5))
def test_fisher_information_of_a_gaussian(seed, d, t):
    """Whitened samples have second moments I exactly, so the mean is the expectation."""
    lam = randn(d, seed=seed).exp()
    W = torch.linalg.qr(randn(50, d, seed=seed + 1)).Q * 50**0.5
    noised = lam + t**2
    J = fisher_information(-(W * noised.sqrt()) / noised)
    assert J.item() == pytest.approx((1 / noised).sum().item(), rel=1e-10)


def test_weights_are_probabilities():
    score = tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    assert fisher_information(score).item() == pytest.approx(14 / 3, rel=1e-15)
    assert fisher_information(score, tensor([0.5, 0.25, 0.25])).item() == 4.75


@pytest.mark.parametrize("steps, error", [(20, 6e-4), (40, 4e-5), (80, 2.5e-6)])
def test_de_bruijn_to_fourth_order(steps, error):
    lam = tensor([0.01, 0.3, 4.0])
    t = torch.logspace(-2, 2, steps + 1).double()
    J = (1 / (lam + t[:, None] ** 2)).sum(1)
    h = entropy_by_de_bruijn(t, J, gaussian_entropy(torch.diag(lam + 1e4)))
    exact = 3 * NORMAL + (lam + t[:, None] ** 2).log().sum(1) / 2
    assert (h - exact).abs().max() < error
    assert h[-1] == exact[-1]


def test_de_bruijn_from_a_gaussian_anchor():
    """At t = 40 the mixture is a Gaussian of equal variance, to far more digits than these."""
    t = torch.logspace(math.log10(0.02), math.log10(40), 300).double()
    X, cell = midpoint_grid(-6, 6, 3000)
    J, h = [], []
    for time in t.tolist():
        Y, volume = X * (1 + 1.2 * time), cell * (1 + 1.2 * time)
        p = BUMPS.density(Y, time)
        J.append(fisher_information(BUMPS.score(Y, 1.0, time), p * volume).item())
        h.append(differential_entropy(p, volume).item())
    mean = (BUMPS.weights[:, None] * BUMPS.means).sum()
    second = (BUMPS.weights * (BUMPS.variances + BUMPS.means[:, 0] ** 2)).sum()
    anchor = gaussian_entropy((second - mean**2 + 1600).reshape(1, 1))
    found = entropy_by_de_bruijn(t, tensor(J), anchor)
    assert (found - tensor(h)).abs().max() < 1e-6


# What denoising errors say


def test_error_of_denoisers_whose_error_is_known():
    X = randn(40, 3)
    assert denoising_error(lambda x, t: 0 * x, VE, X, 0.7).item() == pytest.approx(
        X.square().sum(1).mean().item(), rel=1e-14
    )
    g = [torch.randn(40, 3, generator=source, dtype=X.dtype) for source in [generator(3)] * 2]
    times = tensor([0.5, 2.0])
    errors = denoising_error(lambda x, t: x, VE, X, times, draws=2, generator=generator(3))
    noise = sum(x.square().sum(1).mean() for x in g) / 2
    assert torch.allclose(errors, times**2 * noise, rtol=1e-12)
    alone = denoising_error(lambda x, t: x, VE, X, 2.0, draws=2, generator=generator(3))
    assert alone.shape == () and alone.item() == pytest.approx(errors[1].item(), rel=1e-14)
    images = X.reshape(20, 1, 2, 3)
    error = denoising_error(lambda x, t: 0 * x, VE, images, 0.7)
    assert error.item() == pytest.approx(X.square().sum().item() / 20, rel=1e-14)


def test_a_worse_denoiser_errs_by_its_distance_more():
    X = BUMPS.means[(torch.arange(20_000) % 10 > 2).long()]
    X = X + BUMPS.variances[(torch.arange(20_000) % 10 > 2).long(), None].sqrt() * randn(20_000, 1)
    best = BUMPS.denoiser(VE)

    def error(shift):
        def denoise(x, t):
            return best(x, t) + shift * x.sin()

        return denoising_error(denoise, VE, X, 0.8, generator=generator(1)).item()

    x_t = X + 0.8 * randn(20_000, 1, seed=5)
    extra = 0.25 * x_t.sin().square().mean().item()
    assert error(0.5) - error(0.0) == pytest.approx(extra, abs=0.01)
    assert error(-0.5) - error(0.0) == pytest.approx(extra, abs=0.01)


@processes
def test_fisher_information_from_the_error(process):
    X = Mixture([0.3, 0.7], [[-1.5], [1.0]], [0.05, 0.2])
    n = 20_000
    first = torch.arange(n) < 0.3 * n
    clean = torch.where(first, -1.5, 1.0) + torch.where(first, 0.05, 0.2).sqrt() * randn(n, 1)[:, 0]
    t = 0.5 if process is not VE else 0.8
    alpha, sigma = process.alpha(t), process.sigma(t)
    p = X.log_prob(LINE, alpha, sigma).exp()
    exact = fisher_information(X.score(LINE, alpha, sigma), p * CELL).item()
    J = fisher_from_denoiser(X.denoiser(process), process, clean[:, None], t, 5, generator(2))
    assert J.item() == pytest.approx(exact, rel=0.03)


def test_a_point_mass_has_the_most_information():
    X = torch.zeros(5, 3).double()
    J = fisher_from_denoiser(lambda x, t: 0 * x, VE, X, tensor([0.5, 2.0]))
    assert torch.allclose(J, 3 / tensor([0.25, 4.0]))


@pytest.mark.parametrize("points, error", [(100, 1e-5), (200, 1e-6)])
def test_gaussian_errors_add_up_to_half_log_det(points, error):
    lam = tensor([0.3, 1.0, 2.5, 0.01])
    s = torch.logspace(-5, 4, points).double()
    mmse = (lam / (1 + s[:, None] * lam)).sum(1)
    exact = (s[:, None] * lam).log1p().sum(1) / 2
    assert (mutual_information_by_i_mmse(s, mmse) - exact).abs().max() < error


def test_denoising_errors_of_a_gaussian_give_the_coding_rate():
    """R_ε(X) of chapter 4 is the information at s = d/ε², for a Gaussian with these moments."""
    X, eps = randn(30, 4) @ torch.diag(tensor([2.0, 1.0, 0.5, 0.1])), 0.05
    s = torch.logspace(-6, math.log10(4 / eps**2), 200).double()
    lam = torch.linalg.eigvalsh(X.T @ X / 30)
    information = mutual_information_by_i_mmse(s, (lam / (1 + s[:, None] * lam)).sum(1))
    assert information[-1].item() == pytest.approx(coding_rate(X, eps).item(), abs=1e-5)


def test_stored_points_are_worth_the_logarithm_of_their_number():
    """Two points by quadrature, 16 in eight dimensions by 400 draws: 2.77 of ln 16 = 2.7726."""
    s = torch.logspace(-5, 2.5, 120).double()
    X, cell = midpoint_grid(-9, 9, 2000)
    weights = tensor(scipy.stats.norm.pdf(X[:, 0])) * cell
    mmse = torch.stack([((1 - torch.tanh(u + u.sqrt() * X[:, 0])) * weights).sum() for u in s])
    two = mutual_information_by_i_mmse(s, mmse)
    assert two[-1].item() == pytest.approx(math.log(2), abs=1e-6)
    assert (two.diff() > -1e-7).all()

    points = randn(16, 8, seed=4)
    law = Mixture([1 / 16] * 16, points.tolist(), [0.0] * 16)
    s = torch.logspace(-3.5, 2.5, 60).double()
    errors = denoising_error(law.denoiser(VE), VE, points.repeat(200, 1), s**-0.5, 2, generator(0))
    sixteen = mutual_information_by_i_mmse(s, errors)
    assert sixteen[-1].item() == pytest.approx(math.log(16), abs=0.03)


def test_entropy_is_that_of_the_noise_and_the_information():
    s = torch.logspace(-5, 2, 300).double()
    mmse, h = [], []
    X, cell = midpoint_grid(-6, 6, 3000)
    for t in (s**-0.5).tolist():
        Y, volume = X * (1 + 1.2 * t), cell * (1 + 1.2 * t)
        p = BUMPS.density(Y, t)
        covariance = posterior_covariance(BUMPS.denoiser(VarianceExploding(400.0)), VE_FAR, Y, t)
        mmse.append((covariance[:, 0, 0] * p * volume).sum().item())
        h.append(differential_entropy(p, volume).item())
    information = mutual_information_by_i_mmse(s, tensor(mmse))
    assert (tensor(h) - NORMAL + s.log() / 2 - information).abs().max() < 1e-6


VE_FAR = VarianceExploding(400.0)

# A step back lowers it

STEPS = [  # law, t, s, h(x_t), drop, bound
    (BUMPS, 0.3, 0.27, 1.2931, 0.03908, 0.03798),
    (BUMPS, 1.0, 0.5, 1.8481, 0.31264, 0.24623),
    (BUMPS, 3.0, 0.0, 2.5930, 2.00579, 0.86037),
    (TWO_POINTS, 0.3, 0.15, 0.9069, 0.68705, 0.49264),
    (TWO_POINTS, 1.0, 0.9, 1.7558, 0.05725, 0.05504),
    (TWO_POINTS, 3.0, 1.5, 2.5702, 0.59797, 0.45003),
]


@pytest.mark.parametrize("law, t, s, h, drop, bound", STEPS)
def test_drops_in_one_dimension(law, t, s, h, drop, bound):
    p = law.density(LINE, t)
    step = entropy_drop(law.denoiser(VE), VE, LINE, t, s, p * CELL)
    J = fisher_information(law.score(LINE, 1.0, t), p * CELL).item()
    assert differential_entropy(p, CELL).item() == pytest.approx(h, abs=6e-5)
    assert step.drop == pytest.approx(drop, abs=6e-6)
    assert step.bound == pytest.approx(bound, abs=6e-6)
    assert step.bound == pytest.approx((1 - s / t) * t**2 * J, abs=1e-9)
    # The entropy of what comes out, from its own density on its own cells.
    clean = law.denoiser(VE)(LINE, t)
    edges = torch.cat([LINE - CELL / 2, LINE[-1:] + CELL / 2])
    out = (s / t * edges + (1 - s / t) * law.denoiser(VE)(edges, t))[:, 0]
    assert (clean.diff(dim=0) >= -1e-12).all()
    widths = out.diff().clamp(min=1e-300)
    masses = p * CELL
    entropy = differential_entropy(masses / widths, widths).item()
    assert h - entropy == pytest.approx(drop, abs=2e-4)


@few
@given(seeds, st.floats(0.05, 5), st.floats(0.01, 0.99), st.integers(1, 3))
def test_no_drop_is_below_its_bound(seed, t, share, d):
    law = Mixture([0.2, 0.3, 0.5], randn(3, d, seed=seed).tolist(), [0.0, 0.1, 0.5])
    which = torch.multinomial(law.weights, 40, replacement=True, generator=generator(seed))
    x_t = law.means[which] + (law.variances[which, None] + t**2).sqrt() * randn(40, d, seed=seed)
    step = entropy_drop(law.denoiser(VE), VE, x_t, t, share * t)
    assert step.drop >= step.bound - 1e-12


TIMES = [(VE, 2.0, 0.5), (VP, 0.8, 0.3), (FM, 0.7, 0.2), (FlowMatching(data_at=1), 0.3, 0.9)]


@pytest.mark.parametrize("process, t, s", TIMES, ids=PROCESSES)
def test_drop_of_a_gaussian(process, t, s):
    """The step is linear, so what comes out is a Gaussian whose covariance we know."""
    Q = random_orthogonal(3, generator(1))
    S = Q.T @ torch.diag(tensor([0.1, 1.0, 3.0])) @ Q
    eye = torch.eye(3).double()
    alpha, sigma, alpha_s, sigma_s = (f(x) for x in (t, s) for f in (process.alpha, process.sigma))
    before = alpha**2 * S + sigma**2 * eye
    filters = alpha * S @ torch.linalg.inv(before)
    A = sigma_s / sigma * eye + (alpha_s - alpha * sigma_s / sigma) * filters
    step = entropy_drop(gaussian_denoiser(S, process), process, randn(7, 3), t, s)
    exact = gaussian_entropy(before) - gaussian_entropy(
        (A @ before @ A.T + (A @ before @ A.T).T) / 2
    )
    assert step.drop == pytest.approx(exact.item(), rel=1e-10)
    a, J = alpha_s / alpha, torch.trace(torch.linalg.inv(before)).item()
    bound = (1 - sigma_s / (a * sigma)) * sigma**2 * J - 3 * math.log(a)
    assert step.bound == pytest.approx(bound, rel=1e-10)
    assert step.drop > step.bound
    if process is VE:
        lam = tensor([0.1, 1.0, 3.0])
        closed = -((lam + s * t) / (lam + t**2)).log().sum().item()
        assert step.drop == pytest.approx(closed, rel=1e-10)


@pytest.mark.parametrize("steps, error", [(50, 0.02), (200, 0.005)])
def test_entropy_ledger_of_a_sampler(steps, error):
    """All steps together take what the noise had added, up to the steps' own error of 1/L."""
    times = 5 * (torch.linspace(1, 0, steps + 1).double() ** 3)
    denoise, x = BUMPS.denoiser(VE), LINE
    weights = BUMPS.density(x, 5.0) * CELL
    total, bounds = 0.0, 0.0
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        step = entropy_drop(denoise, VE, x, t, s, weights)
        x = s / t * x + (1 - s / t) * denoise(x, t)
        total, bounds = total + step.drop, bounds + step.bound
    ends = [differential_entropy(BUMPS.density(LINE, t), CELL).item() for t in (5.0, 0.0)]
    assert total == pytest.approx(ends[0] - ends[1], abs=error * 5)
    assert 0 < bounds < total


def test_a_step_onto_points_takes_everything():
    denoise = TWO_POINTS.denoiser(VE)
    assert entropy_drop(denoise, VE, tensor([[1.0], [-0.9]]), 0.02, 0.0).drop == math.inf
    assert entropy_drop(denoise, VE, tensor([[1.0], [-0.9]]), 0.02, 0.01).drop == pytest.approx(
        math.log(2), rel=1e-9
    )


def test_a_learned_denoiser_need_not_be_symmetric():
    A = randn(4, 4)
    step = entropy_drop(lambda x, t: x @ A.T, VE, randn(5, 4, seed=1), 2.0, 0.5)
    jacobian = 0.25 * torch.eye(4).double() + 0.75 * A
    assert step.drop == pytest.approx(-torch.linalg.slogdet(jacobian).logabsdet.item(), rel=1e-10)
    assert step.bound == pytest.approx(4 - torch.trace(jacobian).item(), rel=1e-10)
    C = posterior_covariance(lambda x, t: x @ A.T, VE, randn(5, 4, seed=1), 2.0)
    assert torch.allclose(C, (4 * A).expand(5, 4, 4), rtol=1e-12)


# Posterior covariance


@pytest.mark.parametrize("t", [0.3, 1.0, 3.0])
def test_posterior_variance_of_two_points(t):
    x = torch.linspace(-2, 2, 41).double()[:, None]
    C = posterior_covariance(TWO_POINTS.denoiser(VE), VE, x, t)
    assert torch.allclose(C[:, 0], 1 - torch.tanh(x / t**2) ** 2, atol=1e-12)


@processes
@pytest.mark.parametrize("t", [0.3, 0.7])
def test_hessian_of_the_log_density(process, t):
    law = Mixture([0.2, 0.3, 0.5], randn(3, 3).tolist(), [0.0, 0.1, 0.5])
    alpha, sigma = process.alpha(t), process.sigma(t)
    for x in randn(6, 3, seed=2):
        hessian = torch.autograd.functional.hessian(
            lambda y: law.log_prob(y[None], alpha, sigma)[0], x
        )
        C = posterior_covariance(law.denoiser(process), process, x[None], t)[0]
        predicted = (alpha**2 * C / sigma**2 - torch.eye(3).double()) / sigma**2
        assert torch.allclose(hessian, predicted, rtol=1e-9, atol=1e-9)
        assert torch.linalg.eigvalsh((C + C.T) / 2)[0] > -1e-12


# Precision and bad input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_follows(dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    p = torch.full((8,), 0.5, dtype=dtype)
    assert differential_entropy(p, 0.25).dtype == wide
    assert differential_entropy(p, 0.25).item() == pytest.approx(math.log(2), rel=1e-6)
    assert discretized_entropy(p, 0.25).item() == pytest.approx(math.log(8), rel=1e-6)
    assert gaussian_entropy(torch.eye(2, dtype=dtype)).dtype == wide
    assert fisher_information(torch.ones(4, 2, dtype=dtype)).dtype == wide
    t = torch.tensor([0.5, 1.0, 2.0], dtype=wide)
    assert entropy_by_de_bruijn(t, t, 0.0).dtype == wide
    assert denoising_error(lambda x, t: 0 * x, VE, torch.ones(3, 2, dtype=dtype), 0.5).dtype == wide


def test_input_is_untouched():
    x, before = LINE[:50].clone(), LINE[:50].clone()
    entropy_drop(BUMPS.denoiser(VE), VE, x, 1.0, 0.5)
    assert torch.equal(x, before) and not x.requires_grad


NAN, INF = math.nan, math.inf
P = torch.full((4,), 0.25).double()
T3 = tensor([0.5, 1.0, 2.0])


def ZERO(x, t):
    return 0 * x


BAD = [
    (lambda: midpoint_grid(1, 1, 5), ValueError, "high must be finite and above low = 1, got 1"),
    (lambda: midpoint_grid(-INF, 1, 5), ValueError, "low must be finite"),
    (lambda: midpoint_grid(0, 1, 0), ValueError, "cells must be at least 1"),
    (lambda: midpoint_grid(0, 1, 5, 0), ValueError, "d must be at least 1"),
    (lambda: differential_entropy([0.5], 1.0), TypeError, "density must be a torch.Tensor"),
    (lambda: differential_entropy(P - 0.5, 1.0), ValueError, "density must be at least 0"),
    (lambda: differential_entropy(P * NAN, 1.0), ValueError, "density must be finite"),
    (lambda: differential_entropy(P, 0.5), ValueError, "integrate to one, got 0.5; use a grid"),
    (lambda: differential_entropy(P, -1.0), ValueError, "volume must be positive"),
    (lambda: discretized_entropy(P, 0.0), ValueError, "side must be positive"),
    (lambda: discretized_entropy(P, 2.0), ValueError, "density must integrate to one, got 2"),
    (lambda: kl_divergence(P, P[:3], 1.0), ValueError, r"q must have shape \(4,\)"),
    (lambda: kl_divergence(P, 2 * P, 1.0), ValueError, "q must integrate to one, got 2"),
    (lambda: kl_divergence(2 * P, P, 1.0), ValueError, "p must integrate to one, got 2"),
    (lambda: gaussian_entropy(torch.ones(2, 3)), ValueError, "covariance must be square"),
    (lambda: gaussian_entropy(tensor([[1.0, 0], [1, 1]])), ValueError, "must be symmetric"),
    (lambda: gaussian_entropy(-torch.eye(2)), ValueError, "semidefinite, got the eigenvalue -1"),
    (lambda: cross_entropy(lambda X: X, randn(3, 2)), ValueError, "must have 1 axes"),
    (lambda: cross_entropy(lambda X: P, randn(3, 2)), ValueError, r"shape \(3,\), got \(4,\)"),
    (lambda: cross_entropy(lambda X: P * NAN, randn(4, 2)), ValueError, "below infinity"),
    (lambda: cross_entropy(lambda X: P + INF, randn(4, 2)), ValueError, "below infinity"),
    (lambda: fisher_information(P), ValueError, "score must have 2 axes"),
    (lambda: fisher_information(randn(3, 2), P), ValueError, r"weights must have shape \(3,\)"),
    (lambda: fisher_information(randn(4, 2), 2 * P), ValueError, "weights must sum to one, got 2"),
    (
        lambda: fisher_information(randn(4, 2), tensor([1.5, -0.5, 0, 0])),
        ValueError,
        "weights must be at least 0",
    ),
    (lambda: denoising_error(ZERO, VE, randn(3, 2) * NAN, 1.0), ValueError, "X must be finite"),
    (lambda: denoising_error(ZERO, VE, randn(3, 2), 1.0, draws=0), ValueError, "draws"),
    (lambda: denoising_error(ZERO, VP, randn(3, 2), 1.5), ValueError, r"t must be in \[0, 1\]"),
    (lambda: fisher_from_denoiser(ZERO, VE, randn(3, 2), 0.0), ValueError, "a time with noise"),
    (lambda: entropy_by_de_bruijn(T3.flip(0), T3, 0.0), ValueError, "t must increase"),
    (lambda: entropy_by_de_bruijn(T3 - 0.5, T3, 0.0), ValueError, "t must be positive"),
    (lambda: entropy_by_de_bruijn(T3, P, 0.0), ValueError, r"fisher must have shape \(3,\)"),
    (lambda: entropy_by_de_bruijn(T3[:2], T3[:2], 0.0), ValueError, "t needs at least 3 values"),
    (lambda: entropy_by_de_bruijn(T3, T3, NAN), ValueError, "anchor must be finite"),
    (lambda: entropy_by_de_bruijn(T3, T3 * NAN, 0.0), ValueError, "fisher must be finite"),
    (lambda: mutual_information_by_i_mmse(T3 * 0, T3), ValueError, "snr must be positive"),
    (lambda: mutual_information_by_i_mmse(T3, P), ValueError, r"mmse must have shape \(3,\)"),
    (lambda: entropy_drop(ZERO, VE, randn(3, 2), 1.0, 1.0), ValueError, "less noise than t = 1"),
    (lambda: entropy_drop(ZERO, VE, randn(3, 2), 0.0, 0.0), ValueError, r"sigma\(t\)"),
    (lambda: entropy_drop(ZERO, VP, randn(3, 2), 1.0, 0.5), ValueError, r"alpha\(1.0\)"),
    (lambda: entropy_drop(ZERO, VE, P, 1.0, 0.5), ValueError, "x_t must have 2 axes"),
    (
        lambda: entropy_drop(torch.no_grad()(lambda x, t: 0 * x), VE, randn(3, 2), 1.0, 0.5),
        ValueError,
        "denoise must be differentiable",
    ),
    (lambda: posterior_covariance(ZERO, VP, randn(3, 2), 1.0), ValueError, r"alpha\(1.0\)"),
    (lambda: posterior_covariance(ZERO, VE, P, 1.0), ValueError, "x_t must have 2 axes"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
