"""Memorization: brute force and a tree, samplers that copy and that do not, a model of M points."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from companion_lib.data import random_orthogonal
from companion_lib.denoising import memorization
from companion_lib.denoising.memorization import (
    PartialMemorizer,
    memorization_ratio,
    nearest_two,
)
from companion_lib.denoising.processes import FlowMatching, VarianceExploding, VariancePreserving

VE, VP, FM = VarianceExploding(), VariancePreserving(), FlowMatching()
seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


# The two nearest training points


@pytest.mark.parametrize("n, N, d", [(50, 20, 3), (1, 2, 1), (3000, 2000, 2), (40, 300, 30)])
def test_nearest_two_agree_with_a_tree(n, N, d):
    samples, X = randn(n, d), randn(N, d, seed=1)
    indices, distances = nearest_two(samples, X)
    exact, which = cKDTree(X.numpy()).query(samples.numpy(), k=2)
    assert torch.equal(indices, torch.from_numpy(which))
    assert torch.allclose(distances, torch.from_numpy(exact), rtol=1e-12)


def test_distances_by_hand():
    X = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    result = memorization_ratio(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), X)
    assert result.indices.tolist() == [[0, 2], [0, 2]]
    assert result.distances[0].tolist() == pytest.approx([3, 34**0.5])
    assert result.distances[1].tolist() == [1, 4]
    assert result.memorized.tolist() == [False, True]
    assert result.ratio == 0.5
    assert repr(result) == "Memorization(1 of 2 samples)"


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_copy_has_distance_zero(dtype, offset):
    """However far from the origin, where squared lengths would round distances away."""
    X = randn(100, 20, dtype=dtype) + offset
    order = torch.randperm(100, generator=generator(1))
    result = memorization_ratio(X[order], X)
    assert torch.equal(result.indices[:, 0], order)
    assert result.distances[:, 0].eq(0).all() and result.distances[:, 1].gt(0.1).all()
    assert result.ratio == 1


@pytest.mark.parametrize("threshold, ratio", [(0.0, 0.25), (1 / 3, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_threshold(threshold, ratio):
    """Four samples at 0, 1/4, 1/2 and 1 times the distance to the second nearest."""
    X = torch.tensor([[0.0], [60.0]])
    samples = torch.tensor([[0.0], [12.0], [20.0], [30.0]])
    assert memorization_ratio(samples, X, threshold).ratio == ratio


def test_a_point_that_the_training_set_has_twice():
    X = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
    assert memorization_ratio(X[:1], X).ratio == 1
    assert memorization_ratio(X[:1] + 0.1, X).ratio == 0


@few
@given(seeds, st.floats(0.01, 100))
def test_motions_and_units_change_nothing(seed, scale):
    samples, X = randn(30, 4, seed=seed), randn(12, 4, seed=seed + 1)
    Q, shift = random_orthogonal(4, generator(seed)), randn(4, seed=seed + 2)
    here = memorization_ratio(samples, X)
    there = memorization_ratio(scale * samples @ Q + shift, scale * X @ Q + shift)
    assert torch.equal(here.indices, there.indices)
    assert torch.allclose(there.distances, scale * here.distances, rtol=1e-9)
    assert here.ratio == there.ratio


def test_images_count_as_their_pixels():
    samples, X = randn(10, 1, 4, 4), randn(7, 1, 4, 4, seed=1)
    flat = nearest_two(samples.flatten(1), X.flatten(1))
    assert all(map(torch.equal, nearest_two(samples, X), flat))


def test_half_precision_is_computed_in_float32():
    samples, X = randn(30, 5).half(), randn(20, 5, seed=1).half()
    indices, distances = nearest_two(samples, X)
    exact = nearest_two(samples.float(), X.float())
    assert torch.equal(indices, exact[0]) and torch.equal(distances, exact[1])


def test_two_neighbors_at_nearly_the_same_distance_come_in_order():
    """Their squared lengths are rounded to fours, and half the squared distances are below one."""
    X = torch.tensor([[1e4], [1e4 + 1], [-2e4]])
    samples = 1e4 + torch.linspace(0, 1, 50)[:, None]
    indices, distances = nearest_two(samples, X)
    assert torch.equal(distances, (samples - X[indices, 0]).abs())
    assert (distances[:, 0] <= distances[:, 1]).all()


def test_a_training_set_larger_than_a_block_takes_one_sample_at_a_time(monkeypatch):
    samples, X = randn(9, 3), randn(20, 3, seed=1)
    expected = nearest_two(samples, X)
    monkeypatch.setattr(memorization, "NUMBERS", 19)
    assert all(map(torch.allclose, nearest_two(samples, X), expected))


@pytest.mark.parametrize("n, N, d", [(9000, 1000, 2), (2000, 2, 1500)])
def test_no_more_than_four_million_numbers_at_a_time(largest_tensor, n, N, d):
    """Of distances, or of differences to the two nearest."""
    samples, X = randn(n, d), randn(N, d, seed=1)
    with largest_tensor:
        memorization_ratio(samples, X)
    assert 2**21 < largest_tensor.entries <= 2**22


# Samplers


def laboratory(n=100, d=30, k=4, seed=0):
    """Samples of a mixture of unit balls whose centers have length √d, and the centers."""
    centers = torch.nn.functional.normalize(randn(k, d, seed=seed, dtype=torch.float32)) * d**0.5
    return centers[torch.arange(n) % k] + randn(n, d, seed=seed + 1, dtype=torch.float32), centers


def balls(centers, variance):
    """The best denoiser of equal balls, variance preserving, by its formula."""

    def denoise(x, t):
        alpha, sigma = VP.alpha(t), VP.sigma(t)
        total = alpha**2 * variance + sigma**2
        weights = (-torch.cdist(x, alpha * centers).square() / (2 * total)).softmax(1)
        pulled = weights @ centers
        return pulled + alpha * variance / total * (x - alpha * pulled)

    return denoise


@torch.no_grad()
def sample(denoise, d, n=500, steps=50):
    times = torch.linspace(1.57, 0.001, steps + 1).double().sin().tolist()
    x = randn(n, d, seed=7, dtype=torch.float32)
    for t, s in pairwise(times):
        r = VP.sigma(s) / VP.sigma(t)
        x = r * x + (VP.alpha(s) - r * VP.alpha(t)) * denoise(x, t)
    return x


@pytest.mark.parametrize("n, d", [(100, 30), (50, 10)])
def test_the_best_denoiser_of_the_data_copies_them(n, d):
    X, centers = laboratory(n, d)
    copies = memorization_ratio(sample(balls(X, 0.0), d), X)
    assert copies.ratio == 1
    assert copies.distances[:, 0].max() < 0.1
    assert len(copies.indices[:, 0].unique()) > 0.9 * n
    assert memorization_ratio(sample(balls(centers, 1.0), d), X).ratio == 0


# A model of M points


@pytest.mark.parametrize("process", [VE, VP, FM], ids=["VE", "VP", "FM"])
def test_partial_memorizer_is_the_conditional_mean_of_its_law(process):
    """Tweedie's formula with autograd's score of the model law."""
    model = PartialMemorizer(randn(7, 4), process, 0.3)
    x, t = randn(9, 4, seed=1).requires_grad_(), 0.6
    alpha, sigma = process.alpha(t), process.sigma(t)
    total = alpha**2 * 0.3 + sigma**2
    squares = (x[:, None] - alpha * model.means.detach()).square().sum(2)
    log_p = (-squares / (2 * total)).logsumexp(1)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    mean = (x + sigma**2 * score) / alpha
    assert torch.allclose(model(x, t), mean, rtol=1e-12)
    times = torch.full((9,), t, dtype=torch.float64)
    assert torch.allclose(model(x, times), mean, rtol=1e-12)
    assert torch.allclose(model(x, times[0]), mean, rtol=1e-12)


def test_partial_memorizer_with_every_point_is_the_empirical_denoiser():
    X, _ = laboratory()
    x = randn(20, 30, seed=3, dtype=torch.float32)
    model = PartialMemorizer(X, VP, 1e-12)
    for t in (0.2, 0.7, 0.99):
        assert torch.allclose(model(x, t), balls(X, 0.0)(x, t), atol=2e-4)


def test_partial_memorizer_at_both_ends():
    model = PartialMemorizer(randn(5, 3), VP, 0.3)
    x = randn(4, 3, seed=1)
    assert torch.allclose(model(x, 0.0), x, rtol=1e-14)
    assert torch.allclose(model(x, 1.0), model.means.mean(0).expand(4, 3), rtol=1e-14)


def test_partial_memorizer_has_gradients():
    model = PartialMemorizer(randn(3, 2), VP, 0.3)
    x = randn(4, 2, seed=1)

    def loss(means, log_variance):
        parameters = {"means": means, "log_variance": log_variance}
        return torch.func.functional_call(model, parameters, (x, torch.full((4,), 0.5).double()))

    assert torch.autograd.gradcheck(loss, (model.means, model.log_variance))
    assert [name for name, _ in model.named_parameters()] == ["means", "log_variance"]


def test_partial_memorizer_starts_from_a_copy():
    X = randn(3, 2)
    model = PartialMemorizer(X, VP, 0.25)
    with torch.no_grad():
        model.means += 1
    assert torch.equal(X, randn(3, 2))
    assert model.log_variance.item() == pytest.approx(math.log(0.25))
    again = PartialMemorizer(X, VP)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X, 0.5), model(X, 0.5))


def fit(X, m, steps=250, batch=128):
    """Learn means and variance from noised samples at uniform times."""
    model, source = PartialMemorizer(X[:m], VP), generator(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        rows = torch.randint(len(X), (batch,), generator=source)
        t = (torch.arange(batch) + torch.rand(batch, generator=source)) / batch
        noise = torch.randn(batch, X.shape[1], generator=source)
        error = model(VP.add_noise(X[rows], t, noise), t) - X[rows]
        optimizer.zero_grad()
        error.square().sum(1).mean().backward()
        optimizer.step()
    return model


def test_a_model_memorizes_when_it_has_the_capacity():
    """Of 100 points with 30, 80 and 100 means: none, a part, and all samples are copies."""
    X, _ = laboratory()
    models = [fit(X, m) for m in (30, 80, 100)]
    ratios = [memorization_ratio(sample(model, 30), X).ratio for model in models]
    assert ratios[0] == 0
    assert 0.1 < ratios[1] < 0.7
    assert ratios[2] > 0.98
    variances = [model.log_variance.exp().item() for model in models]
    assert variances[0] > 0.4 > variances[1] > 0.05 > variances[2]


# Bad input

NAN = math.nan
X4 = torch.ones(4, 3)
BAD = [
    (lambda: memorization_ratio([[1.0]], X4), TypeError, "samples must be a torch.Tensor"),
    (lambda: memorization_ratio(X4, X4.long()), TypeError, "X must hold floating-point"),
    (lambda: memorization_ratio(X4, X4[:0]), ValueError, "X is empty"),
    (lambda: memorization_ratio(X4[:0], X4), ValueError, "samples is empty"),
    (lambda: memorization_ratio(X4, X4[:1]), ValueError, "X needs at least 2 samples"),
    (lambda: memorization_ratio(X4 * NAN, X4), ValueError, "samples must be finite"),
    (lambda: memorization_ratio(X4, X4 * NAN), ValueError, "X must be finite"),
    (lambda: memorization_ratio(X4[:, :2], X4), ValueError, r"samples must have shape \(4, 3\)"),
    (lambda: memorization_ratio(X4.double(), X4), ValueError, "samples must be torch.float32"),
    (lambda: memorization_ratio(X4, X4, 1.5), ValueError, "threshold must be between 0 and 1"),
    (lambda: memorization_ratio(X4, X4, NAN), ValueError, "threshold must be between 0 and 1"),
    (lambda: nearest_two(X4, X4[:1]), ValueError, "X needs at least 2 samples"),
    (lambda: PartialMemorizer(X4[0], VP), ValueError, "means must have 2 axes"),
    (lambda: PartialMemorizer(X4 * NAN, VP), ValueError, "means must be finite"),
    (lambda: PartialMemorizer(X4, VP, 0.0), ValueError, "variance must be positive"),
    (lambda: PartialMemorizer(X4, VP)(X4[:, :2], 0.5), ValueError, "x_t must have shape"),
    (lambda: PartialMemorizer(X4, VP)(X4, 1.5), ValueError, r"t must be in \[0, 1\]"),
    (lambda: PartialMemorizer(X4, VP)(X4, torch.ones(3)), ValueError, "one for each of 4 rows"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
