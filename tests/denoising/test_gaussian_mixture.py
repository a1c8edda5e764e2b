"""Gaussian mixtures under noise: scipy, torch.distributions, autograd, closed forms, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib import data
from companion_lib.denoising.gaussian_mixture import GaussianMixture, subspace_mixture

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
K, D, R = 3, 5, 2

# Variance exploding, preserving and flow, from little noise to much.
LEVELS = [(1.0, 0.05), (1.0, 0.3), (1.0, 4.0), (0.6, 0.8), (0.95, 0.05), (0.2, 0.8), (1e-3, 1.0)]
levels = pytest.mark.parametrize("alpha, sigma", LEVELS)
KINDS = ["full", "diagonal", "low_rank", "degenerate"]
kinds = pytest.mark.parametrize("kind", KINDS)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def law(kind, seed=0, dtype=torch.float64, K=K, d=D, r=R):
    weights = torch.softmax(randn(K, seed=seed), 0).to(dtype)
    means = randn(K, d, seed=seed + 1).to(dtype)
    factors = randn(K, d, r, seed=seed + 2).to(dtype)
    if kind == "full":
        square = randn(K, d, d, seed=seed + 2).to(dtype)
        return GaussianMixture.full(weights, means, square @ square.mT)
    if kind == "diagonal":
        return GaussianMixture.diagonal(weights, means, factors.square().sum(2))
    return GaussianMixture.low_rank(weights, means, factors, 0.04 if kind == "low_rank" else 0.0)


def noisy(mixture, n, alpha, sigma, seed=5):
    x = mixture.sample(n, torch.Generator().manual_seed(seed))
    return alpha * x + sigma * randn(*x.shape, seed=seed + 1, dtype=x.dtype)


def dense(mixture, alpha, sigma):
    """The same law by torch.distributions, from its covariances."""
    eye = torch.eye(mixture.means.shape[1], dtype=torch.float64)
    covariances = alpha**2 * mixture.covariances() + sigma**2 * eye
    parts = torch.distributions.MultivariateNormal(alpha * mixture.means, covariances)
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights), parts
    )


def by_the_formula(mixture, x, alpha, sigma):
    """The posterior and the denoised samples, with one dense solve for each component."""
    logits, answers = [], []
    eye = torch.eye(mixture.means.shape[1], dtype=torch.float64)
    for weight, mean, S in zip(mixture.weights, mixture.means, mixture.covariances(), strict=True):
        total = alpha**2 * S + sigma**2 * eye
        law = torch.distributions.MultivariateNormal(alpha * mean, total)
        logits.append(weight.log() + law.log_prob(x))
        answers.append(mean + alpha * torch.linalg.solve(total, (x - alpha * mean).T).T @ S)
    weights = torch.softmax(torch.stack(logits, 1), 1)
    return weights, torch.einsum("nk,knd->nd", weights, torch.stack(answers))


# Densities


@kinds
@levels
def test_log_prob_agrees_with_torch_distributions(kind, alpha, sigma):
    mixture = law(kind)
    x = noisy(mixture, 64, alpha, sigma)
    expected = dense(mixture, alpha, sigma).log_prob(x)
    assert torch.allclose(mixture.log_prob(x, alpha, sigma), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_log_prob_without_noise_agrees_with_scipy(kind):
    mixture = law(kind)
    x = mixture.sample(50, torch.Generator().manual_seed(0))
    densities = [
        scipy.stats.multivariate_normal(mean.numpy(), S.numpy()).pdf(x.numpy())
        for mean, S in zip(mixture.means, mixture.covariances(), strict=True)
    ]
    expected = (mixture.weights[:, None] * torch.from_numpy(np.stack(densities))).sum(0).log()
    assert torch.allclose(mixture.log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_a_density_integrates_to_one():
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.5], [1.0]]).double()
    mixture = GaussianMixture.diagonal(weights, means, torch.tensor([[0.05], [0.2]]).double())
    for alpha, sigma in [(1.0, 0.0), (0.5, 0.7), (1.0, 1.0)]:
        density = mixture.log_prob(grid[:, None], alpha, sigma).exp()
        assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-12)


# Denoisers and scores


@kinds
@levels
def test_denoiser_and_posterior_agree_with_dense_solves(kind, alpha, sigma):
    mixture = law(kind)
    x = noisy(mixture, 64, alpha, sigma)
    weights, denoised = by_the_formula(mixture, x, alpha, sigma)
    assert torch.allclose(mixture.posterior(x, alpha, sigma), weights, rtol=0, atol=1e-10)
    assert torch.allclose(mixture.denoise(x, alpha, sigma), denoised, rtol=0, atol=1e-10)


@kinds
@levels
def test_tweedie(kind, alpha, sigma):
    """α E[x₀ | x_t] = x_t + σ² ∇ log p_t(x_t), with the gradient by autograd and in closed form."""
    mixture = law(kind)
    x = noisy(mixture, 64, alpha, sigma).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, alpha, sigma).sum(), x)
    x = x.detach()
    for score in (gradient, mixture.score(x, alpha, sigma)):
        error = alpha * mixture.denoise(x, alpha, sigma) - (x + sigma**2 * score)
        assert error.abs().max() < 1e-11
    # A score is up to 1/σ long, and so are its errors.
    assert (gradient - mixture.score(x, alpha, sigma)).abs().max() < 1e-11 / sigma**2


def test_the_score_of_the_law_itself():
    mixture = law("full")
    x = mixture.sample(20, torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    assert torch.allclose(mixture.score(x.detach(), 1.0, 0.0), gradient, rtol=1e-9, atol=1e-9)
    assert torch.allclose(mixture.denoise(x.detach(), 1.0, 0.0), x.detach(), atol=1e-12)


def test_two_points():
    """The denoiser of x = ±1 is tanh(x_t / t²), with a plus: it goes the way the noisy one is."""
    points = torch.tensor([[1.0], [-1.0]]).double()
    mixture = GaussianMixture.diagonal(
        torch.tensor([0.5, 0.5]).double(), points, torch.zeros(2, 1).double()
    )
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    for t in (0.2, 0.5, 1.0, 3.0):
        denoised = mixture.denoise(x, 1.0, t)
        assert torch.allclose(denoised, torch.tanh(x / t**2), rtol=0, atol=1e-13)
        assert (denoised - torch.tanh(-x / t**2)).abs().max() > math.tanh(3 / t**2)


@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0, 4.0])
def test_one_gaussian_is_a_wiener_filter(lam):
    mean, one = torch.tensor([[2.0]]).double(), torch.ones(1).double()
    mixture = GaussianMixture.diagonal(one, mean, torch.tensor([[lam]], dtype=torch.float64))
    x = torch.linspace(-3, 3, 11, dtype=torch.float64)[:, None]
    for t in (0.3, 2.0):
        expected = mean + lam / (lam + t**2) * (x - mean)
        assert torch.allclose(mixture.denoise(x, 1.0, t), expected, rtol=0, atol=1e-14)


def test_the_denoiser_is_the_conditional_mean():
    """E (x₀ - x̄) f(x_t) is zero for every f: by samples, to five standard errors."""
    mixture, (alpha, sigma) = law("low_rank"), (0.6, 0.8)
    x0 = mixture.sample(200_000, torch.Generator().manual_seed(0))
    x = alpha * x0 + sigma * randn(*x0.shape, seed=3)
    left = x0 - mixture.denoise(x, alpha, sigma)
    for f in (torch.ones_like(x), x, x.sin(), mixture.denoise(x, alpha, sigma)):
        products = left * f
        error = products.std(0) / math.sqrt(len(products))
        assert (products.mean(0).abs() < 5 * error).all()


@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.05), (1.0, 0.7), (0.3, 0.9)])
@pytest.mark.parametrize("variance", [0.0, 0.1])
def test_low_rank_equals_full(alpha, sigma, variance):
    """Woodbury and the determinant lemma, for factors narrower and wider than the features."""
    for r in (1, 4, 12, 15):
        factors, means = randn(4, 12, r), randn(4, 12, seed=1)
        weights = torch.softmax(randn(4, seed=2), 0)
        low = GaussianMixture.low_rank(weights, means, factors, variance)
        covariances = factors @ factors.mT + variance * torch.eye(12).double()
        full = GaussianMixture.full(weights, means, covariances)
        assert torch.allclose(low.covariances(), covariances, rtol=0, atol=1e-12)
        assert torch.allclose(full.covariances(), covariances, rtol=0, atol=1e-12)
        x = noisy(low, 40, alpha, sigma)
        for name in ("log_prob", "posterior", "denoise"):
            a, b = (getattr(mixture, name)(x, alpha, sigma) for mixture in (low, full))
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10), (name, r)
        a, b = (mixture.score(x, alpha, sigma) for mixture in (low, full))
        assert torch.allclose(a, b, rtol=0, atol=1e-11 / sigma**2)


def test_each_component_may_have_its_own_noise():
    factors, variance = randn(K, D, R), torch.tensor([0.1, 0.0, 2.0]).double()
    weights, means = torch.full((K,), 1 / K).double(), randn(K, D, seed=1)
    low = GaussianMixture.low_rank(weights, means, factors, variance)
    eye = torch.eye(D).double()
    covariances = factors @ factors.mT + variance[:, None, None] * eye
    full = GaussianMixture.full(weights, means, covariances)
    x = noisy(low, 40, 0.8, 0.6)
    assert torch.allclose(low.denoise(x, 0.8, 0.6), full.denoise(x, 0.8, 0.6), atol=1e-12)


def test_diagonal_equals_full():
    weights, means, variances = torch.full((K,), 1 / K).double(), randn(K, D), randn(K, D).exp()
    diagonal = GaussianMixture.diagonal(weights, means, variances)
    full = GaussianMixture.full(weights, means, torch.diag_embed(variances))
    x = noisy(full, 40, 0.8, 0.6)
    for name in ("log_prob", "score", "denoise", "posterior"):
        a, b = (getattr(mixture, name)(x, 0.8, 0.6) for mixture in (diagonal, full))
        assert torch.allclose(a, b, rtol=0, atol=1e-12), name


# Mixtures of subspaces


def attention(bases, x, alpha, sigma, extra=0.0):
    total = alpha**2 + sigma**2
    z = [x @ U for U in bases]
    logits = torch.stack([alpha**2 * c.square().sum(1) / (2 * sigma**2 * total) for c in z], 1)
    weights = torch.softmax(logits + extra, 1)
    parts = zip(weights.T, z, bases, strict=True)
    return alpha / total * sum(w[:, None] * (c @ U.T) for w, c, U in parts)


@pytest.mark.parametrize("alpha, sigma", [(1.0, 0.05), (1.0, 0.5), (0.6, 0.8)])
def test_a_mixture_of_subspaces_is_attention(alpha, sigma):
    bases = torch.linalg.qr(randn(6, 50, 4)).Q
    mixture = subspace_mixture(bases)
    x = noisy(mixture, 64, alpha, sigma)
    expected = attention(bases, x, alpha, sigma)
    assert torch.allclose(mixture.denoise(x, alpha, sigma), expected, rtol=0, atol=1e-11)


def test_unequal_ranks_and_weights_add_to_the_logits():
    """-½ Pₖ log(1 + α²/σ²) + log πₖ. Without it, the answer is another."""
    ranks, weights = [1, 2, 4], torch.tensor([0.2, 0.5, 0.3]).double()
    bases = [torch.linalg.qr(randn(10, rank, seed=rank)).Q for rank in ranks]
    factors = torch.stack([torch.nn.functional.pad(U, (0, 4 - U.shape[1])) for U in bases])
    mixture = GaussianMixture.low_rank(weights, torch.zeros(3, 10).double(), factors)
    alpha, sigma = 0.8, 0.6
    x = noisy(mixture, 64, alpha, sigma)
    extra = weights.log() - torch.tensor(ranks).double() / 2 * math.log1p(alpha**2 / sigma**2)
    ours = mixture.denoise(x, alpha, sigma)
    assert torch.allclose(ours, attention(bases, x, alpha, sigma, extra), rtol=0, atol=1e-12)
    assert (ours - attention(bases, x, alpha, sigma)).abs().max() > 0.1


def test_weights_of_subspaces():
    bases = torch.linalg.qr(randn(2, 6, 2)).Q
    weights = torch.tensor([0.9, 0.1]).double()
    assert torch.equal(subspace_mixture(bases, weights).weights, weights)
    assert torch.allclose(subspace_mixture(bases).covariances(), bases @ bases.mT, atol=1e-14)


# Limits and invariances


@kinds
def test_with_pure_noise_nothing_is_learned(kind):
    mixture, x = law(kind), randn(10, D)
    mean = mixture.weights @ mixture.means
    assert torch.allclose(mixture.denoise(x, 0.0, 1.0), mean.expand(10, D), atol=1e-14)
    assert torch.allclose(mixture.posterior(x, 0.0, 1.0), mixture.weights.expand(10, K))
    assert torch.allclose(mixture.score(x, 0.0, 2.0), -x / 4, atol=1e-14)


@kinds
def test_levels_by_row(kind):
    mixture, x = law(kind), randn(5, D)
    alpha, sigma = torch.linspace(0, 1, 5).double(), torch.linspace(0.1, 2, 5).double()
    for name in ("log_prob", "score", "denoise", "posterior"):
        function = getattr(mixture, name)
        together = function(x, alpha, sigma)
        for i in range(5):
            alone = function(x[i : i + 1], alpha[i].item(), sigma[i])[0]
            assert torch.allclose(together[i], alone, rtol=1e-12, atol=1e-12), name


def test_a_weight_of_zero_leaves_a_component_out():
    full = law("full")
    weights = torch.tensor([0.4, 0.0, 0.6]).double()
    three = GaussianMixture.full(weights, full.means, full.covariances())
    kept = weights > 0
    two = GaussianMixture.full(weights[kept], full.means[kept], full.covariances()[kept])
    x = noisy(two, 10, 0.8, 0.6)
    assert torch.allclose(three.log_prob(x, 0.8, 0.6), two.log_prob(x, 0.8, 0.6))
    assert torch.allclose(three.score(x, 0.8, 0.6), two.score(x, 0.8, 0.6))


@kinds
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_make_no_difference(kind, scale):
    mixture = law(kind)
    other = GaussianMixture(
        mixture.weights,
        scale * mixture.means,
        mixture.axes,
        scale**2 * mixture.eigenvalues,
        scale**2 * mixture.off_variance,
    )
    x = noisy(mixture, 20, 0.8, 0.6)
    for name, power in {"denoise": 1, "score": -1, "posterior": 0}.items():
        ours = getattr(mixture, name)(x, 0.8, 0.6)
        theirs = getattr(other, name)(scale * x, 0.8, scale * 0.6)
        assert torch.allclose(theirs, scale**power * ours, rtol=1e-11, atol=1e-12 * scale**power)


@few
@given(seeds, st.sampled_from(KINDS))
def test_rotations_and_shifts(seed, kind):
    mixture = law(kind, seed)
    Q, shift = data.random_orthogonal(D, torch.Generator().manual_seed(seed)), randn(D, seed=seed)
    moved = GaussianMixture.full(
        mixture.weights, mixture.means @ Q + shift, Q.T @ mixture.covariances() @ Q
    )
    alpha, sigma = 0.7, 0.5
    x = noisy(mixture, 20, alpha, sigma, seed)
    y = x @ Q + alpha * shift
    ours, theirs = mixture.log_prob(x, alpha, sigma), moved.log_prob(y, alpha, sigma)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-9)
    ours = mixture.denoise(x, alpha, sigma) @ Q + shift
    assert torch.allclose(moved.denoise(y, alpha, sigma), ours, rtol=0, atol=1e-9)


# Derivatives


@kinds
def test_gradient_of_the_posterior(kind):
    """∇ log wₖ is the score of component k minus that of the mixture."""
    mixture, (alpha, sigma) = law(kind), (0.8, 0.6)
    x = noisy(mixture, 10, alpha, sigma).requires_grad_()
    posterior = mixture.posterior(x, alpha, sigma)
    eye = torch.eye(D).double()
    for k, S in enumerate(mixture.covariances()):
        (gradient,) = torch.autograd.grad(posterior[:, k].sum(), x, retain_graph=True)
        y = (x - alpha * mixture.means[k]).detach()
        alone = -torch.linalg.solve(alpha**2 * S + sigma**2 * eye, y.T).T
        expected = posterior[:, k, None] * (alone - mixture.score(x.detach(), alpha, sigma))
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-11)


@kinds
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside of jacfwd
def test_jacobians_of_the_denoiser_are_posterior_covariances(kind):
    """∂ x̄ / ∂ x_t = α/σ² Cov(x₀ | x_t), by autograd and by torch.func."""
    mixture, (alpha, sigma) = law(kind), (0.8, 0.6)
    x = noisy(mixture, 6, alpha, sigma)

    def one(row):
        return mixture.denoise(row[None], alpha, sigma)[0]

    jacobians = torch.func.vmap(torch.func.jacrev(one))(x)
    forward = torch.func.vmap(torch.func.jacfwd(one))(x)
    rows = [torch.autograd.functional.jacobian(one, row) for row in x]
    assert torch.allclose(jacobians, torch.stack(rows), rtol=0, atol=1e-12)
    assert torch.allclose(jacobians, forward, rtol=0, atol=1e-12)
    weights, _ = by_the_formula(mixture, x, alpha, sigma)
    eye, moments, mean = torch.eye(D).double(), 0, mixture.denoise(x, alpha, sigma)
    for k, S in enumerate(mixture.covariances()):
        gain = alpha * torch.linalg.solve(alpha**2 * S + sigma**2 * eye, S)
        part = mixture.means[k] + (x - alpha * mixture.means[k]) @ gain
        within = S - alpha * gain.T @ S
        moments = moments + weights[:, k, None, None] * (within + part[:, :, None] * part[:, None])
    covariances = moments - mean[:, :, None] * mean[:, None]
    assert torch.allclose(jacobians, alpha / sigma**2 * covariances, rtol=0, atol=1e-11)


def test_gradcheck_of_noise_levels():
    mixture = law("low_rank")
    x = randn(3, D).requires_grad_()
    alpha = torch.tensor([0.5, 0.8, 1.0]).double().requires_grad_()
    sigma = torch.tensor([0.3, 0.6, 1.0]).double().requires_grad_()
    for function in (mixture.denoise, mixture.score, mixture.log_prob, mixture.posterior):
        assert torch.autograd.gradcheck(function, (x, alpha, sigma))


# Precision and memory


@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 0.3, 3.0])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_float32_keeps_the_posterior_at_every_noise_level(sigma, shift):
    """Close to a subspace, a difference of squares would have no digits left."""
    bases = torch.linalg.qr(randn(4, 60, 3)).Q
    # Subspaces that nearly meet: a sample is within a few noise levels of more than one.
    bases = torch.linalg.qr(bases[:1] + 1.5 * sigma * bases).Q.float()
    weights, means = torch.full((4,), 0.25), torch.full((4, 60), shift)
    low = GaussianMixture.low_rank(weights, means, bases)
    wide = GaussianMixture.low_rank(weights.double(), means.double(), bases.double())
    x = noisy(low, 200, 1.0, sigma)
    exact = wide.posterior(x.double(), 1.0, sigma)
    assert exact.max(1).values.median() < 0.999 or sigma > 1
    # x is rounded to eps times its size, and the logits are x²/σ².
    limit = 3e-2 if shift else 3e-3
    error = (low.posterior(x, 1.0, sigma).double() - exact).abs().max()
    assert error < (limit if sigma < 0.1 else 1e-3)


def test_float32_keeps_the_digits_of_what_is_far_from_zero():
    """Integers are exact: what is lost is lost in products."""
    factors, means = randn(4, 20, 2), (3 * randn(4, 20, seed=1)).round()
    x = (3 * randn(30, 20, seed=2)).round()
    near = GaussianMixture.low_rank(torch.full((4,), 0.25).double(), means, factors, 0.5)
    far = GaussianMixture.low_rank(
        torch.full((4,), 0.25), (means + 2.0**14).float(), factors.float(), 0.5
    )
    y = (x + 2.0**14).float()
    for name in ("score", "posterior"):
        ours, theirs = getattr(far, name)(y, 1.0, 1.0), getattr(near, name)(x, 1.0, 1.0)
        assert (ours - theirs).abs().max() < 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    mixture = law("low_rank", dtype=torch.float32)
    x = noisy(mixture, 10, 0.8, 0.6).to(dtype)
    ours = mixture.denoise(x, 0.8, 0.6)
    assert ours.dtype == dtype
    assert torch.equal(ours, mixture.denoise(x.float(), 0.8, 0.6).to(dtype))
    halves = GaussianMixture.low_rank(
        torch.tensor([0.25, 0.75], dtype=dtype), torch.ones(2, 4, dtype=dtype), x[:8].view(2, 4, 5)
    )
    assert halves.means.dtype == torch.float32


@pytest.mark.parametrize("sigma", [1e-4, 1.0])
def test_low_rank_never_holds_a_sample_for_each_component(largest_tensor, sigma):
    mixture = law("low_rank" if sigma == 1 else "degenerate", K=10, d=200, r=4)
    x = noisy(mixture, 300, 1.0, sigma)
    with largest_tensor:
        mixture.denoise(x, 1.0, sigma)
    assert largest_tensor.entries <= 300 * 200


# Samples


@kinds
def test_samples_have_the_moments_of_the_law(kind):
    mixture, n = law(kind), 200_000
    x = mixture.sample(n, torch.Generator().manual_seed(0))
    mean = mixture.weights @ mixture.means
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / math.sqrt(n)).all()
    second = mixture.covariances() + mixture.means[:, :, None] * mixture.means[:, None]
    expected = torch.einsum("k,kij->ij", mixture.weights, second)
    products = x[:, :, None] * x[:, None]
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - expected).abs() < 5 * error).all()


def test_samples_are_repeatable_and_on_their_subspaces():
    mixture = law("degenerate", K=1)
    x, again = (mixture.sample(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(x, again)
    assert torch.linalg.matrix_rank(x - mixture.means[0]) == R


def test_the_denoiser_of_a_process():
    class Process:
        def alpha(self, t):
            return 1 - t

        def sigma(self, t):
            return t

    mixture, x, t = law("low_rank"), randn(3, D), torch.tensor([0.1, 0.5, 1.0]).double()
    denoise = mixture.denoiser(Process())
    assert torch.equal(denoise(x, 0.3), mixture.denoise(x, 0.7, 0.3))
    assert torch.equal(denoise(x, t), mixture.denoise(x, 1 - t, t))


def test_repr():
    assert repr(law("low_rank")) == "GaussianMixture(K=3, d=5, rank=2)"
    assert repr(law("diagonal")) == "GaussianMixture(K=3, d=5, diagonal)"


# Bad input

HALVES, ZEROS, EYES = torch.tensor([0.5, 0.5]), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)
NAN = torch.full((2, 3), math.nan)
BAD = {
    "weights must sum to one, got 1.5": lambda: GaussianMixture.full(HALVES + 0.25, ZEROS, EYES),
    "weights must be at least 0 and finite, got -0.5": lambda: GaussianMixture.full(
        torch.tensor([1.5, -0.5]), ZEROS, EYES
    ),
    r"weights must have shape \(2,\), got \(3,\)": lambda: GaussianMixture.full(
        torch.ones(3) / 3, ZEROS, EYES
    ),
    "weights must be torch.float32 on cpu, got torch.float64": lambda: GaussianMixture.full(
        HALVES.double(), ZEROS, EYES
    ),
    "means must be finite, got 6": lambda: GaussianMixture.full(HALVES, NAN, EYES),
    "covariances must have 3 axes": lambda: GaussianMixture.full(HALVES, ZEROS, EYES[0]),
    r"covariances must have shape \(2, 3, 3\)": lambda: GaussianMixture.full(
        HALVES, ZEROS, EYES[:, :2]
    ),
    "covariances must be symmetric, got entries 1 apart in 0": lambda: GaussianMixture.full(
        HALVES, ZEROS, EYES + torch.eye(3)[[2, 0, 1]] * torch.tensor([1.0, 0, 0])
    ),
    "covariances must be positive semidefinite, got an eigenvalue -1 in 1": (
        lambda: GaussianMixture.full(HALVES, ZEROS, EYES * torch.tensor([1.0, -1])[:, None, None])
    ),
    "variances must be at least 0 and finite, got -1": lambda: GaussianMixture.diagonal(
        HALVES, ZEROS, ZEROS - 1
    ),
    r"factors must have shape \(2, 3, 1\), got \(2, 2, 1\)": lambda: GaussianMixture.low_rank(
        HALVES, ZEROS, torch.ones(2, 2, 1)
    ),
    "variance must be at least 0 and finite, got -0.1": lambda: GaussianMixture.low_rank(
        HALVES, ZEROS, torch.ones(2, 3, 1), -0.1
    ),
    "variance must be one number or 2": lambda: GaussianMixture.low_rank(
        HALVES, ZEROS, torch.ones(2, 3, 1), torch.ones(3)
    ),
    "bases must have orthonormal columns, got products off by 2": lambda: subspace_mixture(
        torch.ones(2, 3, 1)
    ),
    "weights must sum to one, got 0.5": lambda: subspace_mixture(
        torch.eye(3)[None], torch.tensor([0.5])
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_a_law_that_is_none(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


BAD_QUERIES = {
    r"x must have shape \(4, 5\), got \(4, 3\)": (randn(4, 3), 1.0, 1.0),
    "x must be torch.float64 on cpu, got torch.float32": (randn(4, 5).float(), 1.0, 1.0),
    "x must be finite, got 20": (randn(4, 5) * math.nan, 1.0, 1.0),
    "x must have 2 axes": (randn(5), 1.0, 1.0),
    "sigma must be at least 0 and finite, got -1": (randn(4, 5), 1.0, -1.0),
    "sigma must be at least 0 and finite, got nan": (randn(4, 5), 1.0, math.nan),
    "alpha must be at least 0 and finite, got inf": (randn(4, 5), math.inf, 1.0),
    "alpha must be one number or one for each of 4 rows": (randn(4, 5), torch.ones(3), 1.0),
    "sigma must be positive where a covariance is singular": (randn(4, 5), 1.0, 0.0),
    "or alpha is zero": (randn(4, 5), 0.0, torch.tensor([1.0, 1, 0, 1])),
}


@pytest.mark.parametrize("name", ["log_prob", "score", "denoise", "posterior"])
@pytest.mark.parametrize("message", BAD_QUERIES)
def test_bad_queries(name, message):
    x, alpha, sigma = BAD_QUERIES[message]
    for kind in ("degenerate",) if "singular" in message else KINDS:
        with pytest.raises(ValueError, match=message):
            getattr(law(kind), name)(x, alpha, sigma)


@pytest.mark.parametrize("seed", range(8))
def test_a_singular_covariance_is_seen_through_rounding(seed):
    factors, one = randn(1, D, D - 1, seed=seed), torch.ones(1).double()
    full = GaussianMixture.full(one, randn(1, D), factors @ factors.mT)
    with pytest.raises(ValueError, match="sigma must be positive where a covariance is singular"):
        full.log_prob(randn(4, D))
