"""The denoiser of a data set: the formula, mixtures, limits, precision, memory, bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.denoising.empirical import empirical_denoiser
from companion_lib.denoising.gaussian_mixture import GaussianMixture

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)


class At:
    """A process that is always at one noise level, or at one for each row."""

    def __init__(self, alpha, sigma):
        self.levels = alpha, sigma

    def alpha(self, t):
        return self.levels[0]

    def sigma(self, t):
        return self.levels[1]


class Flow:
    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_distances(X, x, alpha, sigma):
    logits = -(x[:, None] - alpha * X).square().sum(2) / (2 * sigma**2)
    return torch.softmax(logits, 1) @ X


LEVELS = [(1.0, 0.05), (1.0, 0.7), (1.0, 50.0), (0.6, 0.8), (1e-3, 1.0), (0.99, 0.01)]
levels = pytest.mark.parametrize("alpha, sigma", LEVELS)


@levels
@pytest.mark.parametrize("shift", [0.0, 3.0, 1000.0])
def test_agrees_with_the_formula(alpha, sigma, shift):
    X = randn(200, 8) + shift
    x = alpha * X[:30] + sigma * randn(30, 8, seed=1)
    expected = by_distances(X, x, alpha, sigma)
    denoised = empirical_denoiser(X, At(alpha, sigma))(x, 0.0)
    limit = 1e-10 if shift < 10 or sigma > 0.5 else 1e-7  # x itself has fewer digits
    assert torch.allclose(denoised, expected, rtol=0, atol=limit)


@levels
def test_it_is_a_mixture_without_covariances(alpha, sigma):
    X = randn(50, 4)
    weights = torch.full((50,), 1 / 50).double()
    mixture = GaussianMixture.diagonal(weights, X, torch.zeros_like(X))
    x = alpha * X[:30] + sigma * randn(30, 4, seed=1)
    denoised = empirical_denoiser(X, At(alpha, sigma))(x, 0.0)
    assert torch.allclose(denoised, mixture.denoise(x, alpha, sigma), rtol=0, atol=1e-11)


def test_two_points():
    denoise = empirical_denoiser(torch.tensor([[1.0], [-1.0]]).double(), At(1.0, 0.5))
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    assert torch.allclose(denoise(x, 0.0), torch.tanh(x / 0.25), rtol=0, atol=1e-13)


def test_one_time_for_each_row():
    X, x = randn(20, 3), randn(4, 3, seed=1)
    times = torch.tensor([0.01, 0.3, 0.9, 1.0]).double()
    denoise = empirical_denoiser(X, Flow())
    together = denoise(x, times)
    for i, t in enumerate(times):
        assert torch.allclose(together[i : i + 1], denoise(x[i : i + 1], t), rtol=0, atol=1e-13)
        assert torch.allclose(together[i : i + 1], denoise(x[i : i + 1], t.item()), atol=1e-13)


def test_images_keep_their_axes():
    X, x = randn(20, 2, 3, 4), randn(5, 2, 3, 4, seed=1)
    flat = empirical_denoiser(X.flatten(1), Flow())(x.flatten(1), 0.5)
    assert torch.equal(empirical_denoiser(X, Flow())(x, 0.5), flat.view_as(x))


# Limits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.0, 1e-30, 1e-12])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_pure_noise_gives_the_mean(dtype, alpha, shift):
    X = randn(100, 784, dtype=dtype) + shift
    for sigma in (1.0, 80.0, 1e6):
        denoised = empirical_denoiser(X, At(alpha, sigma))(sigma * randn(5, 784, dtype=dtype), 0.0)
        error = (denoised.double() - X.double().mean(0)).abs().max()
        assert error < max(50 * torch.finfo(dtype).eps * (1 + shift), 100 * alpha)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-3, 1e-10, 1e-19, 1e-30, 1e-38, 1e-42])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_little_noise_gives_the_nearest_sample(dtype, sigma, alpha):
    X = randn(100, 784, dtype=dtype)
    x = alpha * X[:20] + sigma * randn(20, 784, seed=1, dtype=dtype)
    denoised = empirical_denoiser(X, At(alpha, sigma))(x, 0.0)
    assert torch.allclose(denoised, X[:20], rtol=0, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e10])
def test_no_exponent_overflows_whatever_the_lengths(unit):
    """One sample is long and some queries very long, along it; another query is zero."""
    X = randn(200, 784, dtype=torch.float32)
    X[7] = 300.0
    along = torch.logspace(5, 10, 20)[:, None].expand(20, 784)  # products are rounded up or down
    x = torch.cat([torch.zeros(1, 784), X[3:4], along])
    nearest = torch.cdist(x.double(), X.double()).argmin(1)
    assert nearest[1:].tolist() == [3, *[7] * 20]
    for sigma in (1e-6 * unit, 1e-30):
        denoised = empirical_denoiser(unit * X, At(1.0, sigma))(unit * x, 0.0)
        assert torch.allclose(denoised, unit * X[nearest], rtol=1e-6)


def test_copies_share_the_weight():
    X = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    denoised = empirical_denoiser(X, At(1.0, 1e-6))(torch.tensor([[1.1, 0.0]]), 0.0)
    assert torch.allclose(denoised, X[:1])


def test_one_sample():
    X = randn(1, 3)
    assert torch.allclose(empirical_denoiser(X, At(0.5, 2.0))(randn(4, 3), 0.0), X.expand(4, 3))


def test_steps_to_the_data_end_at_samples():
    """DDIM, x_s = (s/t) x_t + (1 - s - (1 - t) s/t) x̄, is led to training points by it."""
    X = 2 * randn(50, 10)
    denoise, x = empirical_denoiser(X, Flow()), randn(30, 10, seed=1)
    grid = torch.linspace(0.999, 0.001, 51).tolist()
    for t, s in itertools.pairwise(grid):
        x = s / t * x + (1 - s - (1 - t) * s / t) * denoise(x, t)
    assert (torch.cdist(x, X).min(1).values < 0.05).all()


@few
@given(seeds)
def test_invariances(seed):
    X, x, (alpha, sigma) = randn(12, 4, seed=seed), randn(5, 4, seed=seed + 1), (0.8, 0.6)
    denoised = empirical_denoiser(X, At(alpha, sigma))(x, 0.0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    Q, shift = torch.linalg.qr(randn(4, 4, seed=seed)).Q, 100 * randn(4, seed=seed + 2)
    permuted = empirical_denoiser(X[order], At(alpha, sigma))(x, 0.0)
    assert torch.allclose(permuted, denoised, rtol=0, atol=1e-12)
    moved = empirical_denoiser(X @ Q + shift, At(alpha, sigma))(x @ Q + alpha * shift, 0.0)
    assert torch.allclose(moved, denoised @ Q + shift, rtol=0, atol=1e-9)
    scaled = empirical_denoiser(3 * X, At(alpha, 3 * sigma))(3 * x, 0.0)
    assert torch.allclose(scaled, 3 * denoised, rtol=0, atol=1e-12)
    assert (denoised <= X.max(0).values + 1e-12).all()
    assert (denoised >= X.min(0).values - 1e-12).all()


# Derivatives, precision, memory


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_tweedie(shift):
    X, (alpha, sigma) = randn(40, 5) + shift, (0.8, 0.6)
    x = (alpha * X[:20] + sigma * randn(20, 5, seed=1)).requires_grad_()
    logits = -(x[:, None] - alpha * X).square().sum(2) / (2 * sigma**2)
    (score,) = torch.autograd.grad(torch.logsumexp(logits, 1).sum(), x)
    denoised = empirical_denoiser(X, At(alpha, sigma))(x.detach(), 0.0)
    error = alpha * denoised - (x + sigma**2 * score)
    assert error.abs().max() < 1e-12 * (1 + shift)


def test_jacobians_are_posterior_covariances():
    X, x, (alpha, sigma) = randn(40, 5), randn(1, 5, seed=1), (0.8, 0.6)
    denoise = empirical_denoiser(X, At(alpha, sigma))
    jacobian = torch.autograd.functional.jacobian(lambda row: denoise(row, 0.0)[0], x)[:, 0]
    weights = torch.softmax(-(x - alpha * X).square().sum(1) / (2 * sigma**2), 0)
    rest = X - weights @ X
    covariance = rest.T @ (weights[:, None] * rest)
    assert torch.allclose(jacobian, alpha / sigma**2 * covariance, rtol=0, atol=1e-12)


def test_far_data_keep_their_digits_in_float32():
    """Integers are exact: what is lost is lost in products."""
    X = (10 * randn(100, 20)).round()
    x = X[:20] + (3 * randn(20, 20, seed=1)).round()
    expected = by_distances(X, x, 1.0, 10.0)
    for shift in (0.0, 2.0**10, 2.0**14):
        denoise = empirical_denoiser((X + shift).float(), At(1.0, 10.0))
        error = denoise((x + shift).float(), 0.0).double() - shift - expected
        assert error.abs().max() < 1e-4 + 2e-7 * shift


@pytest.mark.parametrize("deviations, copied", [(9, False), (11, True)])
def test_data_far_from_zero_are_copied(deviations, copied):
    X = randn(100, 20)
    X = (X - X.mean(0)) / X.std(0, correction=0) + deviations
    denoise = empirical_denoiser(X, Flow())
    X.zero_()  # which only a copy survives
    assert denoise(randn(5, 20), 0.5).any() == copied


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    X, x = randn(100, 20).to(dtype), randn(10, 20, seed=1).to(dtype)
    denoised = empirical_denoiser(X, Flow())(x, 0.3)
    assert denoised.dtype == dtype
    assert torch.equal(denoised, empirical_denoiser(X.float(), Flow())(x.float(), 0.3).to(dtype))


def test_sixty_thousand_images_take_little_memory(growth_of_peak):
    """In MB, making the denoiser included; the images are 188."""
    process = """
import torch
from companion_lib.denoising.empirical import empirical_denoiser
class Process:
    alpha = staticmethod(lambda t: 1 - t)
    sigma = staticmethod(lambda t: t)
X = torch.rand(60_000, 784)
noisy = torch.randn(256, 784)
empirical_denoiser(X[:300], Process)(noisy, 0.5)
"""
    assert growth_of_peak(process, "empirical_denoiser(X, Process)(noisy, 0.5)") < 60


# Bad input

GOOD = randn(4, 3)
BAD_DATA = {
    "X is empty": torch.zeros(0, 3),
    "X must be finite, got 3 NaN": torch.full((1, 3), math.nan),
    "X must have samples along its first axis": torch.zeros(3),
}
BAD_QUERIES = {
    r"x_t must have shape \(2, 3\), got \(2, 4\)": (randn(2, 4), At(1.0, 1.0)),
    "x_t must be torch.float64 on cpu, got torch.float32": (GOOD.float(), At(1.0, 1.0)),
    "x_t must be finite, got 12 NaN": (GOOD * math.nan, At(1.0, 1.0)),
    "sigma must be positive for an average of samples, got 0": (GOOD, At(1.0, 0.0)),
    "sigma must be positive": (GOOD, At(1.0, torch.tensor([1.0, 0.0, 1.0, 1.0]))),
    "sigma must be at least 0 and finite, got -1": (GOOD, At(1.0, -1.0)),
    "alpha must be at least 0 and finite, got nan": (GOOD, At(math.nan, 1.0)),
    "sigma must be one number or one for each of 4 rows": (GOOD, At(1.0, torch.ones(3))),
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_bad_data(message):
    with pytest.raises(ValueError, match=message):
        empirical_denoiser(BAD_DATA[message], Flow())


@pytest.mark.parametrize("message", BAD_QUERIES)
def test_bad_queries(message):
    x, process = BAD_QUERIES[message]
    with pytest.raises(ValueError, match=message):
        empirical_denoiser(GOOD, process)(x, 0.0)


def test_data_must_be_a_floating_point_tensor():
    with pytest.raises(TypeError, match=r"X must be a torch\.Tensor, got list"):
        empirical_denoiser([[1.0]], Flow())
    with pytest.raises(TypeError, match="X must hold floating-point numbers"):
        empirical_denoiser(torch.ones(3, 2, dtype=torch.long), Flow())
