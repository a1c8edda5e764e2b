"""Speed of closed-form denoisers: low-rank mixtures, and averages of a data set."""

import pytest
import torch

from companion_lib import data
from companion_lib.denoising.empirical import empirical_denoiser
from companion_lib.denoising.gaussian_mixture import GaussianMixture
from companion_lib.denoising.processes import FlowMatching, VarianceExploding

K, D, R, N = 10, 784, 16, 1024
LEVELS = [(1.0, 0.2), (1.0, 1.0), (0.6, 0.8)]


def mixture(dtype):
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(K, D, generator=generator, dtype=dtype)
    factors = torch.randn(K, D, R, generator=generator, dtype=dtype) / 10
    return GaussianMixture.low_rank(torch.full((K,), 1 / K, dtype=dtype), means, factors, 0.01)


def by_dense_covariances(law, covariances, x, alpha, sigma):
    """What a step at a new noise level costs: a Cholesky factor for each component, two solves."""
    noisy = alpha**2 * covariances + sigma**2 * torch.eye(D).to(x)
    L = torch.linalg.cholesky(noisy)
    logits, residuals = [], []
    for k in range(K):
        half = torch.linalg.solve_triangular(L[k], (x - alpha * law.means[k]).T, upper=False)
        volume = L[k].diagonal().log().sum()
        logits.append(law.weights[k].log() - volume - half.square().sum(0) / 2)
        residuals.append(half)
    weights, score = torch.softmax(torch.stack(logits), 0), 0.0
    for k in range(K):  # one solve of the other triangle, with the posterior inside
        score = score - torch.linalg.solve_triangular(L[k].T, weights[k] * residuals[k], upper=True)
    return (x + sigma**2 * score.T) / alpha


def by_dense_eigenvectors(law, vectors, values, x, alpha, sigma):
    """The same with full covariances that were factored once, for all noise levels."""
    total = alpha**2 * values + sigma**2
    z = [(x - alpha * law.means[k]) @ vectors[k] for k in range(K)]
    distances = [(z[k].square() / total[k]).sum(1) + total[k].log().sum() for k in range(K)]
    logits = law.weights.log() - torch.stack(distances, 1) / 2
    weights, denoised = torch.softmax(logits, 1), 0.0
    for k in range(K):
        filtered = law.means[k] + (z[k] * (alpha * values[k] / total[k])) @ vectors[k].T
        denoised = denoised + weights[:, k, None] * filtered
    return denoised


@pytest.mark.parametrize(
    "name, at_least, note",
    [
        ("Cholesky factors", 30.0, "the noise changes each step, and with it the matrices"),
        ("eigenvectors", 10.0, "the dense covariances are factored once, as ours are"),
    ],
    ids=["cholesky", "eigenvectors"],
)
def test_low_rank_mixture(race, name, at_least, note):
    def baseline(law, x, alpha, sigma, prepared):
        if name == "eigenvectors":
            return by_dense_eigenvectors(law, *prepared, x, alpha, sigma)
        return by_dense_covariances(law, prepared, x, alpha, sigma)

    def problem(dtype):
        law = mixture(dtype)
        x = law.sample(N, torch.Generator().manual_seed(1))
        covariances = law.covariances()
        if name != "eigenvectors":
            return law, x, covariances
        values, vectors = torch.linalg.eigh(covariances)
        return law, x, (vectors, values)

    law, x, prepared = problem(torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    for alpha, sigma in LEVELS:
        noisy = alpha * x + sigma * noise
        expected = baseline(law, noisy, alpha, sigma, prepared)
        assert torch.allclose(law.denoise(noisy, alpha, sigma), expected, rtol=0, atol=1e-10)

    law, x, prepared = problem(torch.float32)
    x = 0.6 * x + 0.8 * noise.float()
    race(
        f"low-rank mixture denoiser, against {name}",
        lambda: law.denoise(x, 0.6, 0.8),
        lambda: baseline(law, x, 0.6, 0.8, prepared),
        at_least=at_least,
        baseline_name=f"{name} of dense covariances",
        sizes=f"{N} queries, {D} features, {K} components of rank {R}",
        note=note,
    )


def test_little_noise(race):
    """Where residuals are computed, and not differences of squares, in the units of the other."""
    law = mixture(torch.float32)
    bare = GaussianMixture.low_rank(law.weights, law.means, law.axes.mT)
    x = bare.sample(N, torch.Generator().manual_seed(1))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    race(
        "low-rank mixture denoiser, little noise",
        lambda: bare.denoise(x + 0.01 * noise, 1.0, 0.01),
        lambda: bare.denoise(x + noise, 1.0, 1.0),
        at_least=0.3,
        baseline_name="the same with much noise",
        sizes=f"{N} queries, {D} features, {K} components of rank {R}",
        note="below 1 is the cost of residuals, which keep their digits close to a subspace",
    )


def test_empirical_denoiser(race):
    X, _ = data.mnist(5000)
    X, sigma = X.float(), 4.0
    noisy = X[:256] + sigma * torch.randn(256, D, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(256, len(X), generator=torch.Generator().manual_seed(0))
    denoise = empirical_denoiser(X, VarianceExploding())
    exponents = -torch.cdist(noisy.double(), X.double()).square() / (2 * sigma**2)
    expected = torch.softmax(exponents, 1) @ X.double()
    assert torch.allclose(denoise(noisy, sigma).double(), expected, rtol=0, atol=1e-4)
    race(
        "denoiser of 5,000 MNIST digits",
        lambda: denoise(noisy, sigma),
        lambda: (noisy @ X.T, weights @ X),
        at_least=1 / 1.3,
        baseline_name="its two matrix products",
        sizes=f"256 queries, 5000 x {D}",
        note="below 1 is the cost of all but the products",
    )


def test_empirical_denoiser_with_a_time_for_each_row(race):
    X, _ = data.mnist(5000)
    X, t = X.float(), torch.linspace(0.05, 1, 256)
    noise = torch.randn(256, D, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(256, len(X), generator=torch.Generator().manual_seed(0))
    denoise, noisy = empirical_denoiser(X, FlowMatching()), (1 - t[:, None]) * X[:256]
    noisy = noisy + t[:, None] * noise
    assert torch.allclose(denoise(noisy, t)[:1], denoise(noisy[:1], 0.05), atol=1e-4)
    race(
        "denoiser of 5,000 MNIST digits, a noise level for each query",
        lambda: denoise(noisy, t),
        lambda: (noisy @ X.T, weights @ X),
        at_least=1 / 1.3,
        baseline_name="its two matrix products",
        sizes=f"256 queries, 5000 x {D}",
        note="below 1 is the cost of all but the products",
    )
