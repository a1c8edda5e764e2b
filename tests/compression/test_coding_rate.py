"""Coding rates: closed forms, one matrix at a time, invariances, gradients, memory, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib import data, kernels
from companion_lib.compression import class_coding_rates, coding_rate, mcr2_loss, rate_reduction

seeds = st.integers(0, 2**16)
precisions = st.floats(0.03, 30)
few = settings(max_examples=20, deadline=None)

# Class sizes and d. By name of the path they take: Gram matrices of features, of padded samples,
# and of features again where the largest class is too large for padding, n >= d and n < d.
PATHS = {
    "features": ((9, 5, 8), 4),
    "samples": ((3, 2, 4), 6),
    "lopsided": ((6, 1, 1, 1), 6),
    "lopsided and wide": ((7, 1), 7),
}
paths = pytest.mark.parametrize("sizes, d", PATHS.values(), ids=PATHS)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(d, seed=0):
    return data.random_orthogonal(d, torch.Generator().manual_seed(seed))


def permutation(n, seed=0):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def problem(sizes, d, seed=0):
    """Samples with a different spectrum in each class, and their labels, shuffled."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[permutation(len(labels), seed)]
    return randn(len(labels), d, seed=seed) * (1 + labels[:, None]) + labels[:, None], labels


def memberships(n, k, seed=0):
    return torch.softmax(2 * randn(n, k, seed=seed + 50), dim=1)


def onehot(labels, dtype=torch.float64):
    return torch.nn.functional.one_hot(labels).to(dtype)


def literal_rate(Z, weights, eps, gamma=1.0):
    """½ log det(I + γ d/(tr Π ε²) Zᵀ Π Z) with a dense Π and an LU factor."""
    d = Z.shape[1]
    S = Z.T @ torch.diag(weights) @ Z
    return torch.logdet(torch.eye(d).to(Z) + gamma * d / (weights.sum() * eps**2) * S) / 2


def literal_loss(Z, members, eps, gamma1=1.0, gamma2=1.0):
    whole = literal_rate(Z, torch.ones(len(Z)).to(Z), eps, gamma2) / gamma1
    return sum(p.sum() / len(Z) * literal_rate(Z, p, eps) for p in members.T) - whole


# Closed forms


def test_one_sample():
    Z = torch.tensor([[3.0, 4.0]]).double()
    # d = 2, n = 1, squared length 25.
    assert coding_rate(Z, 0.5).item() == pytest.approx(math.log(1 + 2 * 25 / 0.25) / 2, rel=1e-14)


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (6, 6), (1, 7), (7, 1)])
@pytest.mark.parametrize("eps", [1e-3, 0.5, 100.0])
def test_half_the_sum_of_log_one_plus_a_sigma_squared(shape, eps):
    (n, d), r = shape, min(shape)
    sigma = torch.linspace(0.2, 3, r, dtype=torch.float64)
    left, right = rotation(n)[:, :r], rotation(d, 1)[:, :r]
    expected = torch.log1p(d / (n * eps**2) * sigma.square()).sum().item() / 2
    assert coding_rate(left * sigma @ right.T, eps).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cosine", [-1.0, -0.3, 0.0, 0.6, 1.0])
def test_two_unit_vectors(cosine):
    other = [cosine, (1 - cosine**2) ** 0.5, 0]
    Z, eps = torch.tensor([[1.0, 0, 0], other], dtype=torch.float64), 0.7
    a = 3 / (2 * eps**2)
    whole = math.log((1 + a) ** 2 - (a * cosine) ** 2) / 2
    apart = math.log(1 + 2 * a) / 2
    assert coding_rate(Z, eps).item() == pytest.approx(whole, rel=1e-14)
    gain = rate_reduction(Z, torch.tensor([0, 1]), eps).item()
    assert gain == pytest.approx(whole - apart, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("sizes", [(8, 8), (20, 5), (2, 3)])
def test_orthogonal_classes_add_up(sizes):
    n, d, eps = sum(sizes), 7, 0.3
    basis = rotation(d)
    blocks = [randn(size, 3, seed=i) @ basis[3 * i : 3 * i + 3] for i, size in enumerate(sizes)]
    expected = 0.0
    for block in blocks:
        energies = torch.linalg.svdvals(block)[:3].square()
        whole = torch.log1p(d / (n * eps**2) * energies).sum() / 2
        apart = torch.log1p(d / (len(block) * eps**2) * energies).sum() / 2
        expected += whole - len(block) / n * apart
    labels = torch.tensor([0, 1]).repeat_interleave(torch.tensor(sizes))
    gain = rate_reduction(torch.cat(blocks), labels, eps)
    assert gain.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("shape", [(40, 6), (3, 6)])
def test_it_is_the_information_that_noise_of_variance_eps_squared_lets_through(shape):
    Z, eps, d = randn(*shape) * torch.linspace(3, 0.1, 6), 0.4, 6
    moments, noise = (Z.T @ Z / len(Z)).numpy(), eps**2 / d * np.eye(d)
    entropy = scipy.stats.multivariate_normal.entropy
    information = entropy(cov=moments + noise) - entropy(cov=noise)
    assert coding_rate(Z, eps).item() == pytest.approx(information, rel=1e-12)


@pytest.mark.parametrize("rank, d", [(4, 64), (2, 10), (5, 5)])
def test_empty_directions_cost_a_gap_that_no_precision_closes(rank, d):
    """(r/2) log(d/r) above the rate-distortion function, which codes r directions only."""
    Z = rotation(d)[:rank] * 2.0  # as many samples as directions: moments 4/r in each
    eps = 1e-4
    exact = rank / 2 * math.log(4 / eps**2)
    assert coding_rate(Z, eps).item() - exact == pytest.approx(
        rank / 2 * math.log(d / rank), rel=1e-7, abs=1e-7
    )


@pytest.mark.parametrize("eps, bits", [(0.1, 41.0), (0.3, 30.1), (1.0, 14.8), (3.0, 3.9)])
def test_digits_save_more_than_the_entropy_of_their_labels(eps, bits):
    images, labels = data.digits()
    Z = (images - images.mean(0)).double()
    gain = rate_reduction(Z, labels, eps).item() / math.log(2)
    assert gain == pytest.approx(bits, abs=0.05)
    assert gain > math.log2(10)


# The formulas, one dense matrix at a time


@paths
@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_labels_agree_with_the_books_formula(sizes, d, eps):
    Z, labels = problem(sizes, d)
    members = onehot(labels)
    rates = class_coding_rates(Z, labels, eps)
    expected = torch.stack([literal_rate(Z, p, eps) for p in members.T])
    assert rates.shape == (len(sizes),)
    assert torch.allclose(rates, expected, rtol=1e-12)
    assert torch.allclose(coding_rate(Z, eps), literal_rate(Z, torch.ones(len(Z)).double(), eps))
    assert rate_reduction(Z, labels, eps).item() == pytest.approx(
        -literal_loss(Z, members, eps).item(), rel=1e-11
    )


@pytest.mark.parametrize("n, k, d", [(12, 3, 4), (5, 4, 9), (6, 1, 3)])
def test_memberships_agree_with_the_books_formula(n, k, d):
    Z, members = randn(n, d), memberships(n, k)
    expected = torch.stack([literal_rate(Z, p, 0.4) for p in members.T])
    assert torch.allclose(class_coding_rates(Z, members, 0.4), expected, rtol=1e-12)
    gain = rate_reduction(Z, members, 0.4).item()
    assert gain == pytest.approx(-literal_loss(Z, members, 0.4).item(), rel=1e-11, abs=1e-14)


@paths
@pytest.mark.parametrize("gamma1, gamma2", [(1.0, 1.0), (3.0, 1.0), (1.0, 0.2), (20.0, 20.0)])
def test_gammas_stand_where_the_book_has_them(sizes, d, gamma1, gamma2):
    Z, labels = problem(sizes, d)
    expected = literal_loss(Z, onehot(labels), 0.6, gamma1, gamma2).item()
    assert mcr2_loss(Z, labels, 0.6, gamma1, gamma2).item() == pytest.approx(expected, rel=1e-11)


@paths
def test_both_forms_of_the_kernels_agree(sizes, d):
    Z, labels = problem(sizes, d)
    fast = mcr2_loss(Z, labels, 0.5, 2.0, 3.0)
    with kernels.use("reference"):
        assert torch.allclose(mcr2_loss(Z, labels, 0.5, 2.0, 3.0), fast, rtol=1e-12)


def test_a_batch_and_several_precisions():
    Z, eps = randn(3, 8, 5), torch.tensor([0.1, 1.0, 4.0]).double()
    rates = coding_rate(Z, eps[:, None])
    assert rates.shape == (3, 3)
    for i in range(3):
        for j in range(3):
            assert rates[i, j].item() == pytest.approx(coding_rate(Z[j], eps[i].item()).item())
    assert torch.allclose(coding_rate(Z, eps), rates.diagonal(), rtol=1e-13)
    assert torch.allclose(coding_rate(Z[0], eps), rates[:, 0], rtol=1e-12)


# Properties


@few
@given(seeds, st.integers(1, 9), st.integers(1, 9), precisions, st.floats(1e-3, 1e3))
def test_rotation_order_sign_and_units(seed, n, d, eps, scale):
    Z = randn(n, d, seed=seed)
    signs = randn(n, 1, seed=seed + 1).sign()
    moved = (signs * Z)[permutation(n, seed)] @ rotation(d, seed)
    rate = coding_rate(Z, eps).item()
    assert coding_rate(moved, eps).item() == pytest.approx(rate, rel=1e-10)
    assert coding_rate(scale * Z, scale * eps).item() == pytest.approx(rate, rel=1e-10)


@few
@given(seeds, st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 8), precisions)
def test_rate_reduction_does_not_see_rotation_order_sign_or_names(seed, sizes, d, eps):
    Z, labels = problem(sizes, d, seed)
    order = permutation(len(Z), seed + 1)
    signs = randn(len(Z), 1, seed=seed + 2).sign()
    moved = (signs * Z)[order] @ rotation(d, seed)
    names = permutation(len(sizes), seed + 3)
    gain = rate_reduction(Z, labels, eps).item()
    other = rate_reduction(moved, names[labels[order]], eps).item()
    assert other == pytest.approx(gain, rel=1e-9, abs=1e-11)
    rates = class_coding_rates(Z, labels, eps)
    renamed = class_coding_rates(moved, names[labels[order]], eps)
    assert torch.allclose(renamed[names], rates, rtol=1e-9)


@few
@given(seeds, st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 8), precisions)
def test_labels_are_memberships_of_zeros_and_ones(seed, sizes, d, eps):
    Z, labels = problem(sizes, d, seed)
    hard, soft = (class_coding_rates(Z, c, eps) for c in (labels, onehot(labels)))
    assert torch.allclose(hard, soft, rtol=1e-10)
    a, b = (mcr2_loss(Z, c, eps, 2.0, 0.5).item() for c in (labels, onehot(labels)))
    assert a == pytest.approx(b, rel=1e-10, abs=1e-11)


@few
@given(seeds, st.integers(2, 9), st.integers(1, 4), st.integers(1, 8), precisions)
def test_knowing_the_class_never_costs(seed, n, k, d, eps):
    Z = randn(n, d, seed=seed)
    assert rate_reduction(Z, memberships(n, k, seed), eps) >= -1e-12
    labels = torch.cat([torch.arange(k), permutation(9, seed) % k])[: max(n, k)]
    assert rate_reduction(randn(len(labels), d, seed=seed), labels, eps) >= -1e-12


@few
@given(seeds, st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(2, 8))
def test_more_scale_more_reduction_more_error_less_rate(seed, sizes, d):
    Z, labels = problem(sizes, d, seed)
    gains = torch.stack([rate_reduction(s * Z, labels, 1.0) for s in (0.1, 0.3, 1, 3, 10, 100)])
    assert (gains.diff() > -1e-12).all()
    assert (coding_rate(Z, torch.tensor([0.01, 0.1, 1, 10, 100]).double()).diff() < 0).all()


@few
@given(seeds, st.floats(0, 1))
def test_the_weighted_class_rate_is_concave_in_the_memberships(seed, t):
    Z, first, second = randn(9, 4, seed=seed), memberships(9, 3, seed), memberships(9, 3, seed + 1)

    def weighted(members):
        return (members.sum(0) / 9 * class_coding_rates(Z, members, 0.5)).sum()

    between = weighted(t * first + (1 - t) * second)
    assert between >= t * weighted(first) + (1 - t) * weighted(second) - 1e-12


def test_classes_of_equal_second_moments_save_nothing():
    Z = randn(7, 5)
    labels = torch.arange(2).repeat_interleave(7)
    assert abs(rate_reduction(torch.cat([Z, rotation(7) @ Z]), labels, 0.1)) < 1e-12
    assert abs(rate_reduction(Z, torch.zeros(7, dtype=torch.long), 0.1)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_any_integers_are_labels(dtype):
    Z, labels = problem((4, 3, 5), 4)
    expected = class_coding_rates(Z, labels, 1.0)
    assert torch.equal(class_coding_rates(Z, labels.to(dtype), 1.0), expected)


# Gradients


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (2, 4, 3)])
def test_gradient_of_the_coding_rate(shape):
    Z = randn(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda Z: coding_rate(Z, 0.7), Z)
    assert torch.autograd.gradcheck(lambda Z: coding_rate(Z, 0.02), Z)


def test_gradient_as_the_book_writes_it():
    Z, eps = randn(9, 4).requires_grad_(), 0.6
    alpha = 4 / (9 * eps**2)
    (gradient,) = torch.autograd.grad(coding_rate(Z, eps), Z)
    columns = Z.detach().T
    inner = torch.eye(4).double() + alpha * columns @ columns.T
    assert torch.allclose(gradient.T, alpha * torch.linalg.solve(inner, columns), atol=1e-14)


@paths
def test_gradients_with_labels(sizes, d):
    Z, labels = problem(sizes, d)
    Z = Z.requires_grad_()
    for function in (
        lambda Z: class_coding_rates(Z, labels, 0.7),
        lambda Z: rate_reduction(Z, labels, 0.7),
        lambda Z: mcr2_loss(Z, labels, 0.7, 5.0, 2.0),
    ):
        assert torch.autograd.gradcheck(function, Z)


@pytest.mark.parametrize(
    "sizes, d",
    [((150, 90, 120), 70), ((90, 150, 70), 520), ((300, 250, 20), 140), ((30, 1, 40), 520)],
    ids=["features", "samples", "more than d", "fewer samples than d"],
)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_large_problems_take_the_same_value_and_gradient(sizes, d, dtype, tolerance):
    """In blocks and halves. Backward twice, with a weight, and the value without a gradient."""
    Z, labels = problem(sizes, d)
    expected = literal_loss(Z.requires_grad_(), onehot(labels), 0.9 * d**0.5, 5.0, 2.0)
    (slope,) = torch.autograd.grad(-3 * expected, Z)
    Z = Z.detach().to(dtype).requires_grad_()
    loss = mcr2_loss(Z, labels, 0.9 * d**0.5, 5.0, 2.0)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    for _ in range(2):
        (ours,) = torch.autograd.grad(-3 * loss, Z, retain_graph=True)
        assert torch.allclose(ours.double(), slope, rtol=0, atol=tolerance * slope.abs().max())
    assert torch.equal(mcr2_loss(Z.detach(), labels, 0.9 * d**0.5, 5.0, 2.0), loss.detach())


@pytest.mark.parametrize("n, k, d", [(7, 3, 4), (4, 2, 6)])
def test_gradients_with_memberships(n, k, d):
    """To the features and to the memberships, through a softmax that keeps sums at one."""
    inputs = (randn(n, d).requires_grad_(), randn(n, k, seed=3).requires_grad_())
    for function in (
        lambda Z, logits: class_coding_rates(Z, logits.softmax(1), 0.7),
        lambda Z, logits: rate_reduction(Z, logits.softmax(1), 0.7),
        lambda Z, logits: mcr2_loss(Z, logits.softmax(1), 0.7, 5.0, 2.0),
    ):
        assert torch.autograd.gradcheck(function, inputs)


REDUCTIONS = {
    "rates": class_coding_rates,
    "reduction": rate_reduction,
    "loss": lambda Z, classes, eps: mcr2_loss(Z, classes, eps, 5.0, 2.0),
}
reductions = pytest.mark.parametrize("function", REDUCTIONS.values(), ids=REDUCTIONS)


@reductions
@pytest.mark.parametrize("n, k, d", [(7, 3, 4), (4, 2, 6)])
def test_gradients_with_raw_memberships(function, n, k, d):
    """As the formula has them for any weights, not only in directions that keep sums at one."""
    inputs = (randn(n, d).requires_grad_(), memberships(n, k).requires_grad_())

    def formula(Z, members):
        rates = torch.stack([literal_rate(Z, p, 0.7) for p in members.T])
        if function is class_coding_rates:
            return rates
        gammas = (5.0, 2.0) if function is REDUCTIONS["loss"] else (1.0, 1.0)
        loss = literal_loss(Z, members, 0.7, *gammas)
        return -loss if function is rate_reduction else loss

    ours = torch.autograd.grad(function(*inputs, 0.7).sum(), inputs)
    expected = torch.autograd.grad(formula(*inputs).sum(), inputs)
    for slope, wanted in zip(ours, expected, strict=True):
        assert torch.allclose(slope, wanted, rtol=0, atol=1e-12)


@reductions
@paths
def test_second_derivatives(function, sizes, d):
    Z, labels = problem(sizes, d)
    members = memberships(len(Z), len(sizes)).requires_grad_()
    Z = Z.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda Z: function(Z, labels, 3.0), Z)
    assert torch.autograd.gradgradcheck(lambda Z, p: function(Z, p, 3.0), (Z, members))


@paths
def test_hessian_as_the_formula_has_it(sizes, d):
    Z, labels = problem(sizes, d)
    hessian = torch.autograd.functional.hessian
    ones = torch.ones(len(Z)).to(Z)
    for ours, literal in (
        (lambda Z: coding_rate(Z, 2.0), lambda Z: literal_rate(Z, ones, 2.0)),
        (lambda Z: mcr2_loss(Z, labels, 2.0), lambda Z: literal_loss(Z, onehot(labels), 2.0)),
    ):
        expected = hessian(literal, Z)
        assert expected.norm() > 0.01
        assert torch.allclose(hessian(ours, Z), expected, rtol=0, atol=1e-12)


# Precision


def low_rank(sizes, d):
    """Unit rows of rank two in each class, rounded to float32, and labels in order."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    blocks = [randn(n, 2, seed=j) @ randn(2, d, seed=j + 9) for j, n in enumerate(sizes)]
    return torch.nn.functional.normalize(torch.cat(blocks), dim=1).float(), labels


def by_singular_values(Z, labels, eps, gamma2=1.0):
    """Class rates and the rate of all samples, from singular values in float64."""
    blocks = [Z[labels == j] for j in range(int(labels.max()) + 1)]
    scales = [Z.shape[1] / (len(X) * eps**2) for X in (*blocks, Z)]
    scales[-1] *= gamma2
    sigma = [torch.linalg.svdvals(X.double()) for X in (*blocks, Z)]
    rates = [torch.log1p(a * s.square()).sum() / 2 for a, s in zip(scales, sigma, strict=True)]
    return torch.stack(rates[:-1]), rates[-1]


WIDER = {**PATHS, "ten classes": ((140,) * 10, 64), "pairs": ((2,) * 30, 64)}


@pytest.mark.parametrize("sizes, d", WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("eps", [100, 1, 0.1, 0.01, 0.003, 1e-3, 1e-4, 1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_precision_is_too_small(sizes, d, eps, soft, dtype):
    Z, labels = low_rank(sizes, d)
    classes = onehot(labels, dtype) if soft else labels
    rates, whole = by_singular_values(Z, labels, eps)
    weights = torch.tensor(sizes).double() / len(Z)
    gain = (whole - (weights * rates).sum()).item()
    rtol = 2e-7 if dtype == torch.float64 else 3e-5  # at the upper end of Cholesky factors
    got = class_coding_rates(Z.to(dtype), classes, eps)
    assert got.dtype == dtype
    assert torch.allclose(got.double(), rates, rtol=rtol, atol=0)
    digits = {"abs": 2 * rtol * whole.item()}  # of the terms of a difference
    assert rate_reduction(Z.to(dtype), classes, eps).item() == pytest.approx(gain, **digits)
    _, inflated = by_singular_values(Z, labels, eps, 1000.0)
    loss = mcr2_loss(Z.to(dtype), classes, eps, 2.0, 1000.0).item()
    expected = (weights * rates).sum() - inflated / 2
    assert loss == pytest.approx(expected.item(), abs=2 * rtol * inflated.item())


@pytest.mark.parametrize("sizes, d", WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("soft", [False, True])
def test_float32_gradients_where_little_error_is_allowed(sizes, d, soft):
    Z, labels = low_rank(sizes, d)
    classes = onehot(labels) if soft else labels
    for eps in (0.5, 0.1, 0.03, 0.01, 0.003):
        slopes = []
        for X in (Z, Z.double()):
            X = X.clone().requires_grad_()
            slopes += torch.autograd.grad(rate_reduction(X, classes, eps), X)
        assert (slopes[0] - slopes[1]).norm() < 1e-3 * slopes[1].norm()


@pytest.mark.parametrize("soft", [False, True])
def test_float32_where_almost_all_error_is_allowed(soft):
    """The reduction is of second order in 1/ε², and the rates of first: 3.7e-7 of 6e-3."""
    Z = torch.nn.functional.normalize(randn(1000, 128), dim=1)
    labels = torch.arange(1000) % 10
    exact = rate_reduction(Z, labels, 100.0).item()
    assert 3e-7 < exact < 5e-7
    classes = onehot(labels).float() if soft else labels
    assert rate_reduction(Z.float(), classes, 100.0).item() == pytest.approx(exact, abs=2e-9)


@paths
@pytest.mark.parametrize("soft", [False, True])
def test_autocast_changes_nothing(sizes, d, soft):
    Z, labels = problem(sizes, d)
    Z = Z.float().requires_grad_()
    classes = memberships(len(Z), 3).float() if soft else labels

    def values_and_slopes():
        values = (coding_rate(Z, 1.0), mcr2_loss(Z, classes, 1.0, 2.0, 3.0))
        return values + torch.autograd.grad(sum(values), Z)

    expected = values_and_slopes()
    with torch.autocast("cpu", torch.bfloat16):
        got = values_and_slopes()
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
@pytest.mark.parametrize("dtype, eps", [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_the_ones_do_not_drown(shape, dtype, eps):
    """Rank three, and so little error that 1 + a σ² has no digit left for the one."""
    n, d = shape
    Z = rotation(n)[:, :3] @ rotation(d, 1)[:, :3].T
    expected = 3 / 2 * math.log1p(d / (n * eps**2))
    rounded = Z.to(dtype)
    if dtype == torch.float32:  # rounding the data gives it full rank
        sigma = torch.linalg.svdvals(rounded.double())
        expected = torch.log1p(d / (n * eps**2) * sigma.square()).sum().item() / 2
    assert coding_rate(rounded, eps).item() == pytest.approx(expected, rel=1e-5)


@paths
@pytest.mark.parametrize("dtype, rtol", [(torch.float16, 1e-5), (torch.bfloat16, 1e-5)])
def test_half_precision_is_computed_in_float32(sizes, d, dtype, rtol):
    Z, labels = problem(sizes, d)
    half, single = Z.to(dtype), Z.to(dtype).float()
    members = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], dtype=dtype)
    members = members[torch.arange(len(Z)) % 2]
    pairs = [
        (coding_rate(half, 0.1), coding_rate(single, 0.1)),
        (class_coding_rates(half, labels, 0.1), class_coding_rates(single, labels, 0.1)),
        (rate_reduction(half, labels, 0.1), rate_reduction(single, labels, 0.1)),
        (rate_reduction(half, members, 0.1), rate_reduction(single, members.float(), 0.1)),
        (mcr2_loss(half, labels, 0.1, 2.0, 3.0), mcr2_loss(single, labels, 0.1, 2.0, 3.0)),
    ]
    for got, wanted in pairs:
        assert got.dtype == torch.float32
        assert torch.allclose(got, wanted, rtol=rtol)


def test_many_samples_in_half_precision():
    """More of them than float16 has numbers for."""
    Z = randn(70_000, 2).half()
    assert coding_rate(Z, 1.0).item() == pytest.approx(coding_rate(Z.double(), 1.0).item(), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_samples(dtype):
    Z, labels = problem((5, 6), 4)
    exact, Z = mcr2_loss(Z, labels, 0.3, 2.0), Z.to(dtype)
    for classes in (labels, onehot(labels, torch.float32), onehot(labels)):
        loss = mcr2_loss(Z, classes, 0.3, 2.0)
        assert loss.dtype == dtype and loss.shape == ()
        assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert coding_rate(Z, torch.tensor(0.3)).dtype == dtype


# Corners


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@paths
def test_nothing_costs_nothing(sizes, d, dtype):
    _, labels = problem(sizes, d)
    for classes in (labels, onehot(labels, dtype)):
        Z = torch.zeros(len(labels), d, dtype=dtype, requires_grad=True)
        assert coding_rate(Z, 0.1).item() == 0
        assert class_coding_rates(Z, classes, 0.1).tolist() == [0] * len(sizes)
        mcr2_loss(Z, classes, 0.1, 2.0, 3.0).backward()
        assert Z.grad.tolist() == torch.zeros_like(Z).tolist()


def test_a_single_sample_is_a_class():
    Z, labels = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([0])
    for classes in (labels, onehot(labels)):
        rates = class_coding_rates(Z, classes, 1.0)
        assert rates.item() == pytest.approx(math.log(51) / 2, rel=1e-14)
        assert abs(rate_reduction(Z, classes, 1.0).item()) < 1e-14


@pytest.mark.parametrize("k, soft, times", [(10, False, 1), (10, True, 1), (1000, False, 2)])
def test_no_matrix_of_samples_by_samples(largest_tensor, k, soft, times):
    """Not even in the gradient: 16 million numbers, where the data have 64,000."""
    n, d = 4000, 16
    Z, labels = randn(n, d).requires_grad_(), torch.arange(n) % k
    classes = memberships(n, k).requires_grad_() if soft else labels
    with largest_tensor:
        mcr2_loss(Z, classes, 0.5).backward()
        coding_rate(Z, 0.5).backward()
    assert n * d <= largest_tensor.entries <= times * n * d
    assert Z.grad.any()


def test_one_class_larger_than_many_costs_little(largest_tensor):
    """256 pairs and a class of five: still matrices of samples, not 257 of features."""
    d, labels = 128, torch.cat([torch.arange(512) % 256, torch.full((5,), 256)])
    Z = randn(517, d).requires_grad_()
    with largest_tensor:
        rate_reduction(Z, labels, 0.5).backward()
    assert largest_tensor.entries == 257 * 5 * d


def test_input_is_untouched_and_result_repeats():
    Z, labels = problem((4, 3, 5), 6)
    members = memberships(12, 3)
    copies = [x.clone() for x in (Z, labels, members)]
    for classes in (labels, members):
        assert torch.equal(rate_reduction(Z, classes, 0.2), rate_reduction(Z, classes, 0.2))
    assert all(map(torch.equal, (Z, labels, members), copies))


# Bad input

ONES = torch.ones(4, 3)
TWO = torch.tensor([0, 1, 0, 1])
NAN, INF = float("nan"), float("inf")


def with_entry(value):
    Z = torch.ones(4, 3)
    Z[1, 2] = value
    return Z


BAD_SAMPLES = [
    ([[1.0, 2.0]], TypeError, "Z must be a torch.Tensor, got list"),
    (torch.ones(4, 3, dtype=torch.int64), TypeError, "Z must hold floating-point"),
    (torch.ones(4), ValueError, r"Z must .*got shape \(4,\)"),
    (torch.ones(0, 3), ValueError, "Z is empty"),
    (torch.ones(4, 0), ValueError, "Z is empty"),
    (with_entry(NAN), ValueError, "Z must be finite, got 1 NaN"),
    (with_entry(INF), ValueError, "Z must be finite, got 1 NaN"),
    (with_entry(-INF).half(), ValueError, "Z must be finite, got 1 NaN"),
]
CALLS = {
    "coding_rate": lambda Z, classes, eps: coding_rate(Z, eps),
    "class_coding_rates": class_coding_rates,
    "rate_reduction": rate_reduction,
    "mcr2_loss": mcr2_loss,
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
with_classes = pytest.mark.parametrize("call", list(CALLS.values())[1:], ids=list(CALLS)[1:])


@calls
@pytest.mark.parametrize("Z, error, message", BAD_SAMPLES)
def test_bad_samples(call, Z, error, message):
    with pytest.raises(error, match=message):
        call(Z, TWO, 1.0)


@calls
@pytest.mark.parametrize("eps", [0.0, -1.0, NAN, INF, torch.tensor([])])
def test_bad_precision(call, eps):
    with pytest.raises(ValueError, match="eps must be positive and finite"):
        call(ONES, TWO, eps)


@calls
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_beyond_the_numbers(call, dtype):
    with pytest.raises(ValueError, match=r"eps is too small: .* overflows torch.float32"):
        call(ONES.to(dtype), TWO, 1e-20)


@with_classes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_memberships_may_be_off_by_their_rounding(call, dtype):
    members = memberships(4, 2).to(dtype)
    call(ONES, members, 1.0)
    rounding = max(torch.finfo(dtype).eps, 1e-5)
    for factor in (0.2, 0.8, 1 - 10 * rounding, 1 + 10 * rounding):
        with pytest.raises(ValueError, match="memberships must sum to one"):
            call(ONES, factor * members, 1.0)


@with_classes
@pytest.mark.parametrize("classes", [TWO, onehot(TWO)], ids=["labels", "memberships"])
def test_classes_on_another_device(call, classes):
    with pytest.raises(ValueError, match="classes must be on cpu like Z, got meta"):
        call(ONES, classes.to("meta"), 1.0)


@with_classes
def test_one_precision_for_all_classes(call):
    """A tensor would broadcast against the classes, and no one would know."""
    with pytest.raises(ValueError, match=r"eps must be one number, got shape \(2,\)"):
        call(ONES, TWO, torch.tensor([1.0, 2.0]))


def members(*rows):
    return torch.tensor(rows)


BAD_CLASSES = [
    ([0, 1, 0, 1], TypeError, "classes must be a tensor of labels or memberships"),
    (TWO.to(torch.complex64), TypeError, "classes must be a tensor of labels or memberships"),
    (torch.tensor([0, 2, 0, 2]), ValueError, "there is none with label 1"),
    (torch.tensor([1, 2, 1, 2]), ValueError, "there is none with label 0"),
    (torch.tensor([0, -1, 0, 1]), ValueError, "labels must be from 0 .*got -1 to 1"),
    (torch.tensor([0, 1, 0]), ValueError, r"4 integer labels, .*got torch.int64 of shape \(3,\)"),
    (torch.tensor([[0, 1, 0, 1]]), ValueError, r"4 integer labels, .* shape \(1, 4\)"),
    (TWO.bool(), ValueError, "4 integer labels, .*got torch.bool"),
    (TWO.float(), ValueError, r"memberships must have 2 axes, got shape \(4,\)"),
    (torch.full((3, 2), 0.5), ValueError, r"memberships must have 4 rows, .*got shape \(3, 2\)"),
    (members([1.0, 0], [0, 1.0], [0.9, 0], [0, 1.0]), ValueError, "sum to one .*got 0.9 in row 2"),
    (members([1.5, -0.5], [0, 1.0], [1, 0], [0, 1]), ValueError, "at least 0, got -0.5"),
    (members([NAN, 0], [0, 1.0], [1, 0], [0, 1]), ValueError, "memberships must be finite"),
    (members(*[[1.0, 0]] * 4), ValueError, "every class needs a sample, but class 1 has none"),
    (torch.ones(4, 0), ValueError, "memberships is empty"),
]


@with_classes
@pytest.mark.parametrize("classes, error, message", BAD_CLASSES)
def test_bad_classes(call, classes, error, message):
    with pytest.raises(error, match=message):
        call(ONES, classes, 1.0)


@pytest.mark.parametrize("gammas", [(0.0, 1.0), (1.0, -1.0), (NAN, 1.0), (1.0, INF)])
def test_bad_gammas(gammas):
    with pytest.raises(ValueError, match=r"gamma[12] must be positive and finite"):
        mcr2_loss(ONES, TWO, 1.0, *gammas)
