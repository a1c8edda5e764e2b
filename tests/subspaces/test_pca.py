"""Principal components: closed forms, other libraries, invariances, precision, bad input."""

import numpy as np
import pytest
import sklearn.datasets
import sklearn.decomposition
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces.pca import pca

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(d, seed=0):
    return torch.linalg.qr(randn(d, d, seed=seed)).Q


def samples(n, d, seed=0):
    """Samples with well-separated variances in a random basis, off center."""
    scales = torch.linspace(3, 1, d, dtype=torch.float64)
    return (randn(n, d, seed=seed) * scales) @ rotation(d, seed + 1) + 5


def with_singular_values(values, n, d, seed=0):
    values = torch.as_tensor(values, dtype=torch.float64)
    left = torch.linalg.qr(randn(n, len(values), seed=seed)).Q
    right = torch.linalg.qr(randn(d, len(values), seed=seed + 1)).Q
    return left * values @ right.T, right.T


def projector(components):
    return components.T @ components


def test_four_points_on_a_cross():
    X = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    fit = pca(X + torch.tensor([10.0, 20.0]), 2)
    assert torch.allclose(fit.eigenvalues, torch.tensor([4.5, 0.5]).double(), rtol=1e-14)
    assert torch.allclose(fit.components, torch.eye(2).double(), atol=1e-14)
    assert torch.allclose(fit.mean, torch.tensor([10.0, 20.0]).double(), rtol=1e-14)
    assert fit.total_variance.item() == pytest.approx(5, rel=1e-14)


def test_without_centering_the_mean_counts():
    X = torch.tensor([[2.0, 1.0], [2.0, -1.0]]).double()
    fit = pca(X, 2, center=False)
    assert torch.allclose(fit.eigenvalues, torch.tensor([4.0, 1.0]).double(), rtol=1e-14)
    assert fit.mean.tolist() == [0, 0]
    assert pca(X, 1).eigenvalues.item() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("shape, k", [((200, 12), 3), ((200, 30), 2), ((15, 40), 3), ((9, 9), 8)])
def test_agrees_with_scikit_learn(shape, k):
    X = samples(*shape)
    fit, n = pca(X, k), len(X)
    other = sklearn.decomposition.PCA(k, svd_solver="full").fit(X.numpy())
    # scikit-learn divides by n - 1.
    variance = torch.from_numpy(other.explained_variance_) * (n - 1) / n
    assert torch.allclose(fit.eigenvalues, variance, rtol=1e-11)
    assert torch.allclose(
        projector(fit.components), projector(torch.from_numpy(other.components_)), atol=1e-10
    )
    back = torch.from_numpy(other.inverse_transform(other.transform(X.numpy())))
    assert torch.allclose(fit.denoise(X), back, atol=1e-10)
    share = torch.from_numpy(other.explained_variance_ratio_)
    assert torch.allclose(fit.eigenvalues / fit.total_variance, share, rtol=1e-11)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_components_are_eigenvectors_of_the_second_moment(shape, center):
    X = samples(*shape)
    fit = pca(X, 5, center=center)
    W = X - X.mean(0) * center
    S = W.T @ W / len(X)
    assert torch.allclose(fit.components @ S, fit.eigenvalues[:, None] * fit.components, atol=1e-11)
    assert (fit.eigenvalues.diff() < 0).all()


def test_digits_need_21_29_41_components_for_90_95_99_percent():
    X = torch.from_numpy(sklearn.datasets.load_digits().data) / 16
    share = pca(X, 64).eigenvalues.cumsum(0) / pca(X, 64).total_variance
    assert [int((share < level).sum()) + 1 for level in (0.90, 0.95, 0.99)] == [21, 29, 41]


def test_residual_is_the_sum_of_discarded_eigenvalues():
    X = samples(60, 9)
    fit, full = pca(X, 4), pca(X, 9)
    residual = (X - fit.denoise(X)).square().sum() / 60
    assert residual.item() == pytest.approx(full.eigenvalues[4:].sum().item(), rel=1e-12)
    assert full.eigenvalues.sum().item() == pytest.approx(full.total_variance.item(), rel=1e-13)


@few
@given(seeds, st.integers(1, 5))
def test_no_subspace_has_a_smaller_residual(seed, k):
    X = samples(40, 6, seed)
    best = (X - pca(X, k).denoise(X)).square().sum()
    W, V = X - X.mean(0), rotation(6, seed + 7)[:, :k]
    assert (W - W @ V @ V.T).square().sum() >= best * (1 - 1e-12)


@few
@given(seeds, st.integers(3, 12), st.integers(2, 12))
def test_rotating_the_samples_rotates_the_components(seed, n, d):
    X, Q = samples(n, d, seed), rotation(d, seed + 3)
    k = min(n - 1, d)
    before, after = pca(X, k), pca(X @ Q, k)
    assert torch.allclose(after.eigenvalues, before.eigenvalues, atol=1e-10)
    assert torch.allclose(after.denoise(X @ Q), before.denoise(X) @ Q, atol=1e-7)


@few
@given(seeds, st.floats(1e-3, 1e3), st.booleans())
def test_scale_shift_and_order_of_samples(seed, scale, center):
    X = samples(20, 5, seed)
    shuffled = X[torch.randperm(20, generator=torch.Generator().manual_seed(seed))]
    shift = randn(5, seed=seed + 9) if center else 0.0
    before, after = pca(X, 2, center), pca(scale * (shuffled + shift), 2, center)
    assert torch.allclose(after.eigenvalues, scale**2 * before.eigenvalues, rtol=1e-9)
    assert torch.allclose(after.components, before.components, atol=1e-7)
    assert torch.allclose(after.mean, scale * (before.mean + shift), atol=1e-10 * max(scale, 1))


@few
@given(seeds, st.integers(2, 10), st.integers(1, 10))
def test_encode_and_decode_are_adjoint_and_project(seed, n, d):
    X = samples(n, d, seed)
    fit = pca(X, min(n, d))
    Z = fit.encode(X)
    identity = torch.eye(min(n, d), dtype=torch.float64)
    assert torch.allclose(fit.components @ fit.components.T, identity, atol=1e-13)
    assert torch.allclose(fit.decode(Z), X, atol=1e-11)  # min(n, d) components span the samples
    assert torch.allclose(fit.encode(fit.decode(Z)), Z, atol=1e-11)
    assert torch.allclose(Z.mean(0), torch.zeros(1).double(), atol=1e-12)
    assert torch.allclose(Z.square().mean(0), fit.eigenvalues, atol=1e-11)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30), (60, 40)])
def test_sign_rule(shape):
    components = pca(samples(*shape), 4).components
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_noise_law_of_the_subspace():
    """E ||P - P*||^2 = 2 k (d - k) s^2 (1 + s^2) / n to first order, for unit signal variance."""
    n, d, k, noise = 1000, 30, 4, 0.1
    U = rotation(d)[:, :k]
    errors = []
    for seed in range(20):
        X = randn(n, k, seed=seed) @ U.T + noise * randn(n, d, seed=seed + 100)
        P = projector(pca(X, k, center=False).components)
        errors.append((P - U @ U.T).square().sum())
    law = 2 * k * (d - k) * noise**2 * (1 + noise**2) / n
    # 20 trials of about k (d - k) = 104 squares each: 3 % standard error.
    assert torch.stack(errors).mean().item() == pytest.approx(law, rel=0.12)


def test_noiseless_subspace_is_recovered_exactly():
    U = rotation(20)[:, :3]
    P = projector(pca(randn(50, 3) @ U.T, 3, center=False).components)
    assert torch.allclose(P, U @ U.T, atol=1e-13)


@pytest.mark.parametrize(
    "dtype, smallest, rtol",
    [(torch.float64, 1e-10, 1e-4), (torch.float64, 1e-4, 1e-7), (torch.float32, 1e-4, 1e-1)],
)
@pytest.mark.parametrize("shape", [(40, 10), (10, 40)])
def test_small_eigenvalues_survive(shape, dtype, smallest, rtol):
    """Squaring the data into a Gram matrix would leave nothing of these."""
    values = torch.tensor([1.0, 0.3, smallest], dtype=torch.float64)
    X, rows = with_singular_values(values, *shape)
    fit = pca(X.to(dtype), 3, center=False)
    assert torch.allclose(fit.eigenvalues.double() * shape[0], values.square(), rtol=rtol, atol=0)
    assert (fit.components.double() * rows).sum(1).abs().min() > 1 - rtol


@pytest.mark.parametrize("shape", [(400, 60), (60, 400)])
def test_well_conditioned_data_take_the_gram_matrix(shape, monkeypatch):
    X = samples(*shape)
    by_svd = torch.linalg.svd(X - X.mean(0), full_matrices=False)

    def refuse(*args, **kwargs):
        raise AssertionError("the slow decomposition was called")

    monkeypatch.setattr(torch.linalg, "svd", refuse)
    for k in (3, 40):  # a partial and a full eigendecomposition
        fit = pca(X, k)
        assert torch.allclose(fit.eigenvalues, by_svd.S[:k].square() / shape[0], rtol=1e-12)
        rows = by_svd.Vh[:k]
        assert torch.allclose(projector(fit.components), projector(rows), atol=1e-10)


@pytest.mark.parametrize("shape", [(400, 60), (60, 400)])
def test_float32_needs_no_slow_decomposition(shape, monkeypatch):
    """Singular values down to 1e-6, below what a Gram matrix in float32 can see."""
    X, rows = with_singular_values(torch.logspace(0, -6, 13).double(), *shape)
    monkeypatch.delattr(torch.linalg, "svd")
    fit = pca(X.float(), 13, center=False)
    assert fit.components.dtype == fit.eigenvalues.dtype == torch.float32
    got, wanted = fit.eigenvalues.double() * shape[0], torch.logspace(0, -12, 13).double()
    # Rounding the data already moves a singular value by 1e-7 or so of the first.
    assert ((got.sqrt() - wanted.sqrt()).abs() < 3e-7).all()
    assert torch.allclose(fit.components @ fit.components.T, torch.eye(13), atol=3e-6)
    assert (fit.components.double() * rows).sum(1).abs()[:9].min() > 0.99


def test_blocked_gram_matrix_of_many_columns():
    X = samples(700, 530)
    values = np.linalg.eigvalsh(np.cov(X.T.numpy(), bias=True))[::-1][:5]
    assert torch.allclose(pca(X, 5).eigenvalues, torch.from_numpy(values.copy()), rtol=1e-11)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_rank_deficient_data(shape):
    X, _ = with_singular_values([3.0, 2.0], *shape)
    fit = pca(X, 8, center=False)
    assert fit.eigenvalues[2:].abs().max() < 1e-28
    assert torch.allclose(fit.components @ fit.components.T, torch.eye(8).double(), atol=1e-13)
    assert torch.allclose(fit.denoise(X), X, atol=1e-13)


def test_centering_costs_one_rank():
    fit = pca(samples(5, 20), 5)
    assert fit.eigenvalues[3] > 1e-3
    assert fit.eigenvalues[4] < 1e-25


def test_identical_samples_have_no_variance():
    fit = pca(torch.full((4, 3), 7.0), 2)
    assert fit.eigenvalues.tolist() == [0, 0]
    assert fit.total_variance.item() == 0
    assert torch.allclose(fit.components @ fit.components.T, torch.eye(2), atol=1e-6)


def test_one_sample_has_a_direction_but_no_variance_of_its_own():
    fit = pca(torch.tensor([[3.0, -4.0]]), 1, center=False)
    assert torch.allclose(fit.components, torch.tensor([[-0.6, 0.8]]))
    assert fit.eigenvalues.item() == pytest.approx(25, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_components_at_the_ends_of_float32(scale):
    X = samples(30, 4).float()
    assert torch.allclose(pca(X * scale, 3).components, pca(X, 3).components, atol=1e-4)


@pytest.mark.parametrize(
    "dtype, atol", [(torch.float16, 4e-3), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)]
)
def test_lower_precision_follows_float64(dtype, atol):
    X = (samples(40, 6) / 5).to(dtype)
    fit, exact = pca(X, 2), pca(X.double(), 2)
    for name in ("components", "eigenvalues", "total_variance", "mean"):
        got = getattr(fit, name)
        assert got.dtype == dtype
        assert torch.allclose(got.double(), getattr(exact, name), atol=atol, rtol=atol)
    for method in ("encode", "denoise"):
        got, want = getattr(fit, method)(X), getattr(exact, method)(X.double())
        assert got.dtype == dtype
        assert torch.allclose(got.double(), want, atol=4 * atol)


@pytest.mark.parametrize("shape", [(3000, 5), (5, 3000)])
@pytest.mark.parametrize("k", [1, 5])
def test_nothing_larger_than_the_data_is_formed(largest_tensor, shape, k):
    X = samples(*sorted(shape, reverse=True)).reshape(shape)
    with largest_tensor:
        pca(X, k, center=False).denoise(X)
    assert largest_tensor.entries == X.numel()


def test_gradients():
    X = samples(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: pca(X, 2).eigenvalues, X)
    assert torch.autograd.gradcheck(lambda X: pca(X, 2).denoise(X), X)
    wide = samples(6, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: pca(X, 1).denoise(X), wide)


def test_input_is_untouched_and_result_repeats():
    X = samples(30, 5)
    copy = X.clone()
    first, second = pca(X, 2), pca(X, 2)
    assert torch.equal(X, copy)
    assert torch.equal(first.components, second.components)
    assert repr(first) == "PCA(k=2, d=5)"


BAD = [
    ([[1.0, 2.0]], 1, TypeError, "X must be a torch.Tensor, got list"),
    (torch.ones(3, 2, dtype=torch.int64), 1, TypeError, "X must hold floating-point"),
    (torch.ones(3), 1, ValueError, r"X must have 2 axes, got shape \(3,\)"),
    (torch.ones(0, 2), 1, ValueError, "X is empty"),
    (torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), 1, ValueError, "X must be finite"),
    (torch.tensor([[1.0, float("inf")], [0.0, 1.0]]), 1, ValueError, "X must be finite"),
    (torch.ones(1, 5), 1, ValueError, r"X needs at least 2 samples \(rows\), got 1"),
    (torch.ones(5, 7), 6, ValueError, r"k must be between 1 and min\(n, d\) = 5, got 6"),
    (torch.ones(7, 5), 6, ValueError, r"k must be between 1 and min\(n, d\) = 5, got 6"),
    (torch.ones(7, 5), 0, ValueError, "got 0"),
    (torch.ones(7, 5), 2.0, TypeError, "k must be an integer, got 2.0"),
    (torch.ones(7, 5), True, TypeError, "k must be an integer, got True"),
]


@pytest.mark.parametrize("X, k, error, message", BAD)
def test_bad_input(X, k, error, message):
    with pytest.raises(error, match=message):
        pca(X, k)


@pytest.mark.parametrize(
    "method, value, message",
    [
        ("encode", torch.ones(2, 4).double(), r"X must have shape \(2, 3\), got \(2, 4\)"),
        ("denoise", torch.ones(2, 3), "X must be torch.float64 on cpu, got torch.float32"),
        ("decode", torch.ones(2, 3).double(), r"Z must have shape \(2, 2\), got \(2, 3\)"),
        ("encode", torch.ones(3).double(), "X must have 2 axes"),
    ],
)
def test_bad_input_to_the_result(method, value, message):
    fit = pca(samples(9, 3), 2)
    with pytest.raises(ValueError, match=message):
        getattr(fit, method)(value)
