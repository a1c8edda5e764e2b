"""Probabilistic PCA: likelihood, posterior mean and noise estimate against independent formulas."""

import numpy as np
import pytest
import sklearn.decomposition
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces.pca import pca
from companion_lib.subspaces.probabilistic_pca import ProbabilisticPCA, probabilistic_pca, shrink

few = settings(max_examples=20, deadline=None)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def basis(d, k, seed=0):
    return torch.linalg.qr(randn(d, k, seed=seed)).Q.T


def samples(n, d, k=3, noise=0.1, seed=0):
    """Return noisy samples of a subspace that misses the origin, and their signal."""
    scales = torch.arange(k, 0, -1, dtype=torch.float64)
    signal = 2 + (randn(n, k, seed=seed) * scales) @ basis(d, k, seed + 1)
    return signal + noise * randn(n, d, seed=seed + 2), signal


def covariance(model):
    """Return the model's (d, d) covariance, which the library never forms."""
    V, d = model.components, len(model.mean)
    return V.T * model.signal_variances @ V + model.noise_variance * torch.eye(d).double()


@pytest.mark.parametrize("n, d", [(200, 8), (9, 30)])
@pytest.mark.parametrize("center", [True, False])
def test_noise_variance_is_the_mean_of_the_discarded_eigenvalues(n, d, center):
    X, _ = samples(n, d)
    model = probabilistic_pca(X, 3, center)
    W = X - X.mean(0) * center
    eigenvalues = np.linalg.eigvalsh((W.T @ W / n).numpy())
    assert model.noise_variance.item() == pytest.approx(eigenvalues[:-3].mean(), rel=1e-10)
    assert torch.equal(model.components, pca(X, 3, center).components)
    assert torch.equal(model.eigenvalues, pca(X, 3, center).eigenvalues)


def test_noise_variance_is_consistent():
    n, d, k = 4000, 20, 3
    X, _ = samples(n, d, k, noise=0.1)
    # n (d - k) squares have a standard error of 0.54 %; dropping k of d dimensions biases by k / n.
    assert probabilistic_pca(X, k).noise_variance.item() == pytest.approx(0.01, rel=0.025)


def test_agrees_with_scikit_learn():
    X, _ = samples(60, 7)
    model = probabilistic_pca(X, 3)
    other = sklearn.decomposition.PCA(3, svd_solver="full").fit(X.numpy())
    factor = 60 / 59  # scikit-learn divides by n - 1
    rescaled = ProbabilisticPCA(
        model.components, model.eigenvalues * factor, model.noise_variance * factor, model.mean
    )
    assert rescaled.noise_variance.item() == pytest.approx(other.noise_variance_, rel=1e-11)
    scores = torch.from_numpy(other.score_samples(X.numpy()))
    assert torch.allclose(rescaled.log_prob(X), scores, rtol=1e-11)


@pytest.mark.parametrize("n, d, k", [(50, 6, 2), (5, 12, 3), (50, 6, 1)])
def test_log_prob_is_that_of_the_gaussian(n, d, k):
    model = probabilistic_pca(samples(n, d, k)[0], k)
    gaussian = torch.distributions.MultivariateNormal(model.mean, covariance(model))
    points = samples(11, d, k, seed=5)[0]
    assert torch.allclose(model.log_prob(points), gaussian.log_prob(points), rtol=1e-10)


@few
@given(st.integers(0, 2**16), st.sampled_from(["noise", "eigenvalues", "components", "mean"]))
def test_fit_maximizes_the_likelihood(seed, part):
    X, _ = samples(40, 6, 2, noise=0.5, seed=seed)
    fit = probabilistic_pca(X, 2)
    V, lam, noise, mean = fit.components, fit.eigenvalues, fit.noise_variance, fit.mean
    if part == "noise":
        moved = [ProbabilisticPCA(V, lam, noise * c, mean) for c in (0.98, 1.02)]
    elif part == "eigenvalues":
        moved = [ProbabilisticPCA(V, lam * c, noise, mean) for c in (0.98, 1.02)]
    elif part == "components":
        turned = torch.linalg.qr(V.T + 0.02 * randn(6, 2, seed=seed)).Q.T
        moved = [ProbabilisticPCA(turned, lam, noise, mean)]
    else:
        moved = [ProbabilisticPCA(V, lam, noise, mean + 0.02 * randn(6, seed=seed))]
    best = fit.log_prob(X).mean()
    assert all(other.log_prob(X).mean() < best for other in moved)


def test_denoise_is_the_gaussian_conditional_mean():
    X, _ = samples(50, 6, noise=0.7)
    model = probabilistic_pca(X, 3)
    signal = covariance(model) - model.noise_variance * torch.eye(6).double()
    gain = torch.linalg.solve(covariance(model), signal)  # (C_s + s^2 I)^{-1} C_s
    assert torch.allclose(model.denoise(X), model.mean + (X - model.mean) @ gain, atol=1e-12)


def test_denoise_shrinks_by_observed_eigenvalues():
    X, _ = samples(50, 6, noise=0.7)
    model, plain = probabilistic_pca(X, 3), pca(X, 3)
    factor = (model.eigenvalues - model.noise_variance) / model.eigenvalues
    assert (factor < 0.99).any()  # else there is nothing to see
    coordinates = plain.encode(model.denoise(X))
    assert torch.allclose(coordinates, plain.encode(X) * factor, atol=1e-12)


def test_shrinking_beats_projecting():
    X, signal = samples(2000, 10, noise=1.0)
    shrunk = (probabilistic_pca(X, 3).denoise(X) - signal).square().mean()
    projected = (pca(X, 3).denoise(X) - signal).square().mean()
    # Signal variances 9, 4, 1 under unit noise: 9/10 + 4/5 + 1/2 = 2.2 instead of 3 per sample.
    assert shrunk.item() * 10 == pytest.approx(2.2, rel=0.05)
    assert projected.item() * 10 == pytest.approx(3.0, rel=0.05)


def test_samples_have_the_moments_of_the_model():
    model = probabilistic_pca(samples(100, 6, noise=0.5)[0], 3)
    drawn = model.sample(40_000, torch.Generator().manual_seed(0))
    C = covariance(model)
    spread = C.diagonal().sqrt()
    # Standard errors 1 / sqrt(n) = 0.005 of the mean and at most sqrt(2 / n) = 0.007 of C.
    assert ((drawn.mean(0) - model.mean) / spread).abs().max() < 0.025
    assert ((torch.cov(drawn.T) - C) / spread / spread[:, None]).abs().max() < 0.035
    again = model.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


@few
@given(st.integers(0, 2**16), st.floats(0.01, 100))
def test_rotation_shift_and_scale(seed, scale):
    X, _ = samples(15, 5, 2, noise=0.5, seed=seed)
    Q, shift = basis(5, 5, seed + 1), randn(5, seed=seed)
    before, after = probabilistic_pca(X, 2), probabilistic_pca(scale * (X @ Q) + shift, 2)
    assert after.noise_variance.item() == pytest.approx(
        before.noise_variance.item() * scale**2, rel=1e-6
    )
    assert torch.allclose(
        after.denoise(scale * (X @ Q) + shift), scale * before.denoise(X) @ Q + shift, atol=1e-5
    )
    # A density scales with the inverse volume.
    change = before.log_prob(X) - after.log_prob(scale * (X @ Q) + shift)
    assert torch.allclose(change, torch.tensor(5 * np.log(scale)).expand(15), atol=1e-5)


def test_wide_samples_never_meet_a_d_by_d_matrix():
    d = 200_000  # d x d would take 320 GB
    X = randn(4, d)
    model = probabilistic_pca(X, 2)
    assert model.sample(3).shape == (3, d)
    assert model.denoise(X).shape == (4, d)
    assert torch.isfinite(model.log_prob(X)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(50, 8), (6, 40)])
def test_samples_on_a_subspace_have_no_noise_and_no_density(dtype, shape):
    X, _ = samples(*shape, noise=0.0)
    model = probabilistic_pca(X.to(dtype), 3)
    assert model.noise_variance.item() == 0
    assert torch.allclose(model.denoise(X.to(dtype)), X.to(dtype), atol=1e-5)
    with pytest.raises(ValueError, match="noise_variance must be positive for a density, got 0"):
        model.log_prob(X.to(dtype))


def test_no_noise_with_uneven_variances():
    """Components of small variance are less exact, and leak more of the rest."""
    Z = randn(2000, 50) * 0.9 ** torch.arange(50)
    X = Z @ torch.linalg.qr(randn(100, 50, seed=1)).Q.T
    assert probabilistic_pca(X, 50).noise_variance.item() == 0


def test_noise_that_float16_cannot_hold():
    X = (samples(60, 5, noise=0.0)[0] / 10).half()  # its own rounding is the noise, below 6e-8
    model = probabilistic_pca(X, 3)
    assert model.noise_variance.item() == 0
    with pytest.raises(ValueError, match=r"as far as torch\.float16 can tell"):
        model.log_prob(X)


def test_tiny_noise_is_measured_beside_a_large_signal():
    X, _ = samples(300, 8, noise=1e-9)
    # Its variance is 1e-19 of the total: total minus kept would see rounding only.
    assert probabilistic_pca(X, 3).noise_variance.item() == pytest.approx(1e-18, rel=0.2)


def test_identical_samples():
    X = torch.full((5, 4), 3.0)
    model = probabilistic_pca(X, 2)
    assert model.noise_variance.item() == 0
    assert torch.equal(model.denoise(X), X)


@pytest.mark.parametrize("dtype, tol", [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision(dtype, tol):
    X = samples(60, 5, noise=0.5)[0].to(dtype)
    model, exact = probabilistic_pca(X, 2), probabilistic_pca(X.double(), 2)
    assert model.noise_variance.item() == pytest.approx(exact.noise_variance.item(), rel=tol)
    for got, want in (
        (model.denoise(X), exact.denoise(X.double())),
        (model.log_prob(X), exact.log_prob(X.double())),
    ):
        assert got.dtype == dtype
        assert torch.allclose(got.double(), want, rtol=tol, atol=tol * 5)
    assert model.sample(3).dtype == dtype


def test_gradients():
    X = samples(8, 4, 2, noise=0.5)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda X: probabilistic_pca(X, 2).log_prob(X), X)
    assert torch.autograd.gradcheck(lambda X: probabilistic_pca(X, 2).denoise(X), X)


def test_wiener_factors_of_the_textbook_example():
    """Signal variances (1, .2, .05), noise .1: the best linear gains lose .1909 in all."""
    variances, noise = torch.tensor([1.0, 0.2, 0.05], dtype=torch.float64), 0.1

    def risk(gains):
        return ((1 - gains) ** 2 * variances + gains**2 * noise).sum().item()

    gains = shrink(variances, noise)
    assert torch.allclose(
        gains, torch.tensor([10 / 11, 2 / 3, 1 / 3], dtype=torch.float64), rtol=1e-14
    )
    assert risk(gains) == pytest.approx(0.190909090909, rel=1e-9)
    kept = [risk((torch.arange(3) < k).double()) for k in (1, 2, 3)]
    assert kept == pytest.approx([0.35, 0.25, 0.30], rel=1e-12)
    assert all(risk(gains + 0.01 * randn(3, seed=seed)) > risk(gains) for seed in range(5))


def test_shrink_limits():
    assert shrink(torch.tensor([0.0, 2.0]), 0.0).tolist() == [0, 1]
    assert shrink(torch.tensor([0.0, 2.0]), torch.tensor(2.0)).tolist() == [0, 0.5]
    half = shrink(torch.tensor([6e4], dtype=torch.float16), 6e4)  # the sum overflows float16
    assert half.dtype == torch.float16 and half.item() == 0.5


@pytest.mark.parametrize(
    "eigenvalues, noise, error, message",
    [
        (torch.tensor([-1.0, 1.0]), 0.1, ValueError, "eigenvalues must be nonnegative.*got -1"),
        (torch.tensor([1.0]), -0.1, ValueError, "noise_variance must be nonnegative.*got -0.1"),
        (torch.tensor([1.0]), float("nan"), ValueError, "noise_variance must be nonneg.*got nan"),
        (torch.tensor([1.0]), float("inf"), ValueError, "noise_variance must be nonneg.*got inf"),
        (torch.tensor([float("nan")]), 0.1, ValueError, "eigenvalues must be finite"),
        (torch.tensor([1]), 0.1, TypeError, "eigenvalues must hold floating-point"),
        ([1.0], 0.1, TypeError, "eigenvalues must be a torch.Tensor, got list"),
    ],
)
def test_bad_input_to_shrink(eigenvalues, noise, error, message):
    with pytest.raises(error, match=message):
        shrink(eigenvalues, noise)


@pytest.mark.parametrize(
    "X, k, error, message",
    [
        (torch.ones(1, 5), 1, ValueError, r"X needs at least 2 samples \(rows\), got 1"),
        (torch.ones(6, 5), 5, ValueError, r"k must be between 1 and min\(n, d\) - 1 = 4, got 5"),
        (torch.ones(4, 5), 4, ValueError, r"k must be between 1 and min\(n, d\) - 1 = 3, got 4"),
        (torch.ones(4, 5), 0, ValueError, "got 0"),
        (torch.ones(4, 5), 1.5, TypeError, "k must be an integer, got 1.5"),
        (torch.ones(4, 5).long(), 1, TypeError, "X must hold floating-point"),
        (torch.full((4, 5), torch.nan), 1, ValueError, "X must be finite, got 20"),
        (np.ones((4, 5)), 1, TypeError, "X must be a torch.Tensor, got ndarray"),
    ],
)
def test_bad_input(X, k, error, message):
    with pytest.raises(error, match=message):
        probabilistic_pca(X, k)


@pytest.mark.parametrize("method", ["denoise", "log_prob"])
def test_bad_input_to_the_result(method):
    model = probabilistic_pca(samples(9, 4)[0], 2)
    with pytest.raises(ValueError, match=r"X must have shape \(2, 4\), got \(2, 5\)"):
        getattr(model, method)(torch.ones(2, 5).double())
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)
    assert repr(model) == "ProbabilisticPCA(k=2, d=4)"
