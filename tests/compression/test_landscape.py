"""The landscape of rate reduction: closed forms against ascent, gradients and scipy; bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from companion_lib.compression import (
    best_rank,
    largest_weight,
    max_rate_reduction,
    optimal_representation,
    rate_reduction,
    regularized_optimum,
    regularized_rate_reduction,
)

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
precisions = st.floats(0.05, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def on_shells(Z, labels):
    """Scale each class to the energy of its number of samples."""
    for k in range(int(labels.max()) + 1):
        rows = Z[labels == k]
        Z = torch.where((labels == k)[:, None], Z * (len(rows) ** 0.5 / rows.norm()), Z)
    return Z


def stationary(class_sizes, ranks, d, eps, share):
    """The critical point of the regularized problem at ``share`` of the smallest limit."""
    n = sum(class_sizes)
    weight = share * min(largest_weight(size, n, d, eps) for size in class_sizes)
    Z, labels = optimal_representation(class_sizes, ranks, d, generator())
    gain = 0.0
    parts = []
    for k, (size, rank) in enumerate(zip(class_sizes, ranks, strict=True)):
        optimum = regularized_optimum(size, n, d, eps, weight)
        parts.append(Z[labels == k] * (optimum.energy * rank / size) ** 0.5)
        gain += rank * optimum.gain
    return torch.cat(parts), labels, weight, gain


@st.composite
def problems(draw):
    """Class sizes, ranks and a dimension into which they fit."""
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    ranks = [draw(st.integers(1, size)) for size in sizes]
    return sizes, ranks, sum(ranks) + draw(st.integers(0, 3))


# The closed form


@pytest.mark.parametrize(
    "budget, rank, nats",
    [(0.5, 4, 4.394449), (1, 4, 2.326), (2, 2, 1.163), (2, 4, 1.047)],
)
def test_four_classes_in_sixteen_dimensions(budget, rank, nats):
    value = max_rate_reduction([8] * 4, [rank] * 4, 16, budget**0.5)
    assert value == pytest.approx(nats, abs=6e-4 if rank != 4 or budget > 0.5 else 6e-7)


@few
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 5), precisions)
def test_equal_classes(k, r, more, eps):
    """(kr/2) log(1 + d/(kr ε²)) - (r/2) log(1 + d/(r ε²))."""
    d = k * r + more
    expected = k * r / 2 * math.log1p(d / (k * r * eps**2)) - r / 2 * math.log1p(d / (r * eps**2))
    assert max_rate_reduction([7] * k, [r] * k, d, eps) == pytest.approx(expected, rel=1e-12)


@few
@given(problems(), precisions, seeds)
def test_the_optimal_representation_reaches_it(problem, eps, seed):
    sizes, ranks, d = problem
    Z, labels = optimal_representation(sizes, ranks, d, generator(seed))
    value = rate_reduction(Z, labels, eps).item()
    assert value == pytest.approx(max_rate_reduction(sizes, ranks, d, eps), rel=1e-9, abs=1e-11)


@few
@given(problems(), seeds)
def test_the_optimal_representation_is_orthogonal_and_isotropic(problem, seed):
    sizes, ranks, d = problem
    Z, labels = optimal_representation(sizes, ranks, d, generator(seed))
    assert Z.shape == (sum(sizes), d) and Z.dtype == torch.float64
    assert torch.bincount(labels).tolist() == sizes and (labels.diff() >= 0).all()
    across = labels[:, None] != labels
    assert (Z @ Z.T)[across].abs().sum() < 1e-10
    for k, (size, rank) in enumerate(zip(sizes, ranks, strict=True)):
        sigma = torch.linalg.svdvals(Z[labels == k])
        assert torch.allclose(sigma[:rank], torch.tensor((size / rank) ** 0.5).double(), rtol=1e-6)
        assert (sigma[rank:] < 1e-7).all()


def test_the_generator_decides_the_representation():
    state = torch.get_rng_state()
    first, again, other = (
        optimal_representation([3, 4], [1, 2], 5, generator(s))[0] for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    single = optimal_representation([3, 4], [1, 2], 5, generator(), torch.float32)[0]
    assert single.dtype == torch.float32


@few
@given(seeds, st.sampled_from([(2, 4), (3, 6), (2, 6)]), st.floats(0.05, 0.7))
def test_no_representation_of_this_energy_has_more(seed, shape, eps):
    k, d = shape
    labels = torch.arange(k).repeat_interleave(5)
    Z = on_shells(randn(5 * k, d, seed=seed), labels)
    limit = max_rate_reduction([5] * k, [d // k] * k, d, eps)
    assert rate_reduction(Z, labels, eps).item() <= limit


@pytest.mark.parametrize("seed", range(3))
def test_ascent_gets_there_and_no_further(seed):
    k, r, d, eps = 3, 2, 6, 0.5**0.5
    labels = torch.arange(k).repeat_interleave(4)
    Z = randn(4 * k, d, seed=seed).requires_grad_()
    optimizer = torch.optim.Adam([Z], lr=0.1)
    limit, values = max_rate_reduction([4] * k, [r] * k, d, eps), []
    for _ in range(200):
        optimizer.zero_grad()
        value = rate_reduction(on_shells(Z, labels), labels, eps)
        (-value).backward()
        optimizer.step()
        values.append(value.item())
    assert max(values) <= limit + 1e-12
    assert values[-1] == pytest.approx(limit, rel=1e-5)
    assert best_rank(k, d, eps) == r


@few
@given(problems(), precisions)
def test_the_gradient_at_the_optimum_is_radial(problem, eps):
    """Within its shell no class can gain anything to first order."""
    sizes, ranks, d = problem
    Z, labels = optimal_representation(sizes, ranks, d, generator())
    (gradient,) = torch.autograd.grad(rate_reduction(Z.requires_grad_(), labels, eps), Z)
    for k in range(len(sizes)):
        rows, slope = Z.detach()[labels == k], gradient[labels == k]
        radial = (rows * slope).sum() / rows.square().sum()
        assert torch.allclose(slope, radial * rows, atol=1e-9)


# Rank


@pytest.mark.parametrize("budget, rank", [(0.5, 4), (1, 4), (2, 2), (4, 1)])
def test_large_eps_collapses_the_rank(budget, rank):
    assert best_rank(4, 16, budget**0.5) == rank


@few
@given(st.integers(2, 6), st.integers(0, 20), st.floats(0.05, 8))
def test_best_rank_beats_all_others(k, more, eps):
    d = k + more
    best = best_rank(k, d, eps)
    assert 1 <= best <= d // k
    values = []
    for r in range(1, d // k + 1):
        Z, labels = optimal_representation([d] * k, [r] * k, d, generator())
        values.append(rate_reduction(Z, labels, eps).item())
    assert values[best - 1] == pytest.approx(max(values), rel=1e-9)
    assert best_rank(k, d, 2 * eps) <= best


# The regularized problem

SCALES = st.tuples(st.integers(1, 19), st.integers(1, 12), st.floats(0.1, 3))


def slope(s, size, n, d, eps):
    """Twice the derivative of the gain of a direction of energy s, without its price."""
    whole, apart = d / (n * eps**2), d / (size * eps**2)
    return whole / (1 + whole * s) - size / n * apart / (1 + apart * s)


def gain(s, size, n, d, eps, weight):
    whole, apart = d / (n * eps**2), d / (size * eps**2)
    return (math.log1p(whole * s) - size / n * math.log1p(apart * s) - weight * s) / 2


@few
@given(SCALES)
def test_the_largest_weight_is_the_largest_slope(scales):
    size, d, eps = scales
    center = -math.log(d / (20**0.5 * size**0.5 * eps**2))  # of the scales 1/α and 1/α_k
    steepest = minimize_scalar(
        lambda t: -slope(math.exp(t), size, 20, d, eps),
        bounds=(center - 9, center + 9),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert largest_weight(size, 20, d, eps) == pytest.approx(-steepest.fun, rel=1e-9)


@few
@given(SCALES, st.floats(0.01, 0.999))
def test_the_optimum_is_the_maximum_that_scipy_finds(scales, share):
    size, d, eps = scales
    weight = share * largest_weight(size, 20, d, eps)
    found = regularized_optimum(size, 20, d, eps, weight)
    turn = eps**2 * (20 * size) ** 0.5 / d  # where the slope is largest: 1/sqrt(α α_k)
    root = brentq(
        lambda s: slope(s, size, 20, d, eps) - weight, turn, 1e6 * turn / share, xtol=1e-14
    )
    assert found.energy == pytest.approx(root, rel=1e-6)
    assert found.gain == pytest.approx(gain(root, size, 20, d, eps, weight), abs=1e-12)
    for step in (0.99, 1.01):
        assert gain(step * root, size, 20, d, eps, weight) < found.gain


@few
@given(SCALES, st.floats(0.01, 0.999))
def test_the_energy_is_the_books_formula(scales, share):
    """(η + sqrt(η² - 4 λ² n/n_k)) / (2 λ α_k) with η = α_k - α - λ (n/n_k + 1)."""
    size, d, eps = scales
    weight = share * largest_weight(size, 20, d, eps)
    whole, apart = d / (20 * eps**2), d / (size * eps**2)
    eta = apart - whole - weight * (20 / size + 1)
    root = math.sqrt(eta**2 - 4 * weight**2 * 20 / size)
    energy = (eta + root) / (2 * weight * apart)
    assert regularized_optimum(size, 20, d, eps, weight).energy == pytest.approx(energy, rel=1e-9)


def test_at_the_largest_weight_the_two_roots_meet():
    size, n, d, eps = 6, 20, 5, 0.7
    limit = largest_weight(size, n, d, eps)
    whole, apart = d / (n * eps**2), d / (size * eps**2)
    discriminant = (whole * (apart - whole) - limit * (whole + apart)) ** 2
    discriminant -= 4 * limit**2 * whole * apart
    assert abs(discriminant) < 1e-12 * (whole * apart) ** 2
    energy = regularized_optimum(size, n, d, eps, limit).energy
    assert energy == pytest.approx(1 / math.sqrt(whole * apart), rel=1e-6)


@pytest.mark.parametrize(
    "k, share", [(2, 0.867), (3, 0.871), (5, 0.876), (10, 0.887), (100, 0.932)]
)
def test_from_some_weight_on_nothing_is_better(k, share):
    """At this share of the largest weight the local maximum falls below zero."""
    n, d, eps = 10 * k, 2 * k, 0.6
    limit = largest_weight(10, n, d, eps)
    zero = brentq(lambda x: regularized_optimum(10, n, d, eps, x * limit).gain, 0.5, 1)
    assert zero == pytest.approx(share, abs=6e-4)
    gains = [regularized_optimum(10, n, d, eps, x * zero * limit).gain for x in (0.99, 1.01)]
    assert gains[0] > 0 > gains[1]


@pytest.mark.parametrize(
    "sizes, ranks, d, share, value",
    [
        ([10, 10], [4, 4], 8, 0.5, 0.672),
        ([10, 10], [4, 4], 8, 0.88, -0.0133),
        ([10, 10], [4, 4], 8, 0.95, -0.0757),
        ([4, 4], [3, 3], 6, 0.5, 0.5040),
        ([4, 4], [2, 4], 6, 0.5, 0.5040),
        ([3, 9, 5], [2, 4, 1], 8, 0.3, None),
        ([12, 2], [3, 2], 7, 0.7, None),
    ],
)
def test_a_critical_point_of_the_whole_problem(sizes, ranks, d, share, value):
    eps = 0.5**0.5
    Z, labels, weight, total = stationary(sizes, ranks, d, eps, share)
    objective = regularized_rate_reduction(Z.requires_grad_(), labels, eps, weight)
    (gradient,) = torch.autograd.grad(objective, Z)
    assert gradient.abs().max() < 1e-12
    assert objective.item() == pytest.approx(total, abs=1e-12)
    if value is not None:
        assert total == pytest.approx(value, abs=6e-4)


@few
@given(seeds, st.sampled_from([1e-3, 1e-2, 1e-1]))
def test_full_classes_are_a_local_maximum_and_so_is_zero(seed, size):
    """Ranks of four in eight dimensions: there is no direction left to grow into."""
    eps = 0.5**0.5
    Z, labels, weight, total = stationary([10, 10], [4, 4], 8, eps, 0.5)
    step = size * randn(20, 8, seed=seed)
    assert regularized_rate_reduction(Z + step, labels, eps, weight).item() < total
    assert regularized_rate_reduction(step, labels, eps, weight).item() < 0


def test_the_price_is_half_the_weight_times_the_energy():
    Z, labels = randn(9, 4), torch.arange(9) % 3
    value = regularized_rate_reduction(Z, labels, 0.5, 0.3)
    expected = rate_reduction(Z, labels, 0.5).item() - 0.15 * Z.square().sum().item()
    assert value.shape == () and value.item() == pytest.approx(expected, rel=1e-12)
    free = regularized_rate_reduction(Z, labels, 0.5, 0)
    assert torch.equal(free, rate_reduction(Z, labels, 0.5))
    Z.requires_grad_()
    assert torch.autograd.gradcheck(lambda Z: regularized_rate_reduction(Z, labels, 0.5, 0.3), Z)


def test_half_precision_is_computed_in_float32():
    Z, labels = 30 * randn(100, 4).half(), torch.arange(100) % 3  # energy 360,000
    half, single = (regularized_rate_reduction(x, labels, 0.5, 0.3) for x in (Z, Z.float()))
    assert half.dtype == torch.float32 and torch.equal(half, single)


@pytest.mark.parametrize("eps", [1e-100, 1e-60, 1e60, 1e100])
@pytest.mark.parametrize("share", [1e-100, 0.3, 1])
def test_extreme_units(eps, share):
    """Energies are in units of ε², weights in units of 1/ε², gains in none."""
    limit, unit = largest_weight(4, 10, 6, eps), largest_weight(4, 10, 6, 1.0)
    assert limit * eps**2 == pytest.approx(unit, rel=1e-12)
    found = regularized_optimum(4, 10, 6, eps, share * limit)
    expected = regularized_optimum(4, 10, 6, 1.0, share * unit)
    assert found.energy / eps**2 == pytest.approx(expected.energy, rel=1e-5)
    assert found.gain == pytest.approx(expected.gain, rel=1e-5)


def test_rates_at_extreme_precisions():
    """Of log(1 + x) only log x is left, or x, whose sum is zero."""
    value = max_rate_reduction([4, 6], [2, 3], 8, 1e-100)
    expected = 0.0
    for rank, share in ((2, 0.4), (3, 0.6)):
        apart = math.log(8 / rank) + 200 * math.log(10)
        expected += rank / 2 * (math.log(share) + apart - share * apart)
    assert value == pytest.approx(expected, rel=1e-12)
    assert best_rank(2, 8, 1e-100) == 4
    assert max_rate_reduction([4, 6], [2, 3], 8, 1e100) == pytest.approx(0, abs=1e-210)


# Bad input

NAN, INF = float("nan"), float("inf")
BAD_CLASSES = [
    (([4, 4], [2], 8), ValueError, "class_sizes and ranks must be as many"),
    (([], [], 8), ValueError, "class_sizes and ranks must be as many"),
    (
        ([4, 4], [2, 5], 8),
        ValueError,
        "ranks must be between 1 and the size of its class = 4, got 5",
    ),
    (([4, 4], [0, 2], 8), ValueError, "ranks must be between 1 .*got 0"),
    (([4, 0], [2, 1], 8), ValueError, "class_sizes must be at least 1, got 0"),
    (([4, 4], [4, 4], 7), ValueError, "the sum of ranks must be between 1 and d = 7, got 8"),
    (([4, 4], [2, 2], 0), ValueError, "d must be at least 1, got 0"),
    (([4, 4], [2, 2], 8.0), TypeError, "d must be an integer, got 8.0"),
    (([4, 4.5], [2, 2], 8), TypeError, "class_sizes must be an integer, got 4.5"),
    (([4, 4], [2, 1.5], 8), TypeError, "ranks must be an integer, got 1.5"),
]


@pytest.mark.parametrize("arguments, error, message", BAD_CLASSES)
def test_bad_classes(arguments, error, message):
    with pytest.raises(error, match=message):
        max_rate_reduction(*arguments, 0.5)
    with pytest.raises(error, match=message):
        optimal_representation(*arguments)


@pytest.mark.parametrize("eps", [0.0, -1.0, NAN, INF])
def test_bad_precision(eps):
    for call in (
        lambda: max_rate_reduction([4, 4], [2, 2], 8, eps),
        lambda: best_rank(2, 8, eps),
        lambda: largest_weight(4, 8, 8, eps),
        lambda: regularized_optimum(4, 8, 8, eps, 0.1),
        lambda: regularized_rate_reduction(torch.ones(2, 2), torch.tensor([0, 1]), eps, 0.1),
    ):
        with pytest.raises(ValueError, match=f"eps must be positive and finite, got {eps}"):
            call()


@pytest.mark.parametrize("eps", [1e-170, 1e200])
def test_a_precision_whose_square_is_out_of_range(eps):
    for call in (
        lambda: max_rate_reduction([4, 4], [2, 2], 8, eps),
        lambda: best_rank(2, 8, eps),
        lambda: largest_weight(4, 8, 8, eps),
        lambda: regularized_optimum(4, 8, 8, eps, 0.1),
    ):
        with pytest.raises(ValueError, match=r"eps must be between 1e-100 and 1e\+100, got 1e"):
            call()


@pytest.mark.parametrize(
    "k, d, error, message",
    [
        (1, 8, ValueError, "k must be between 2 and d = 8, got 1"),
        (9, 8, ValueError, "k must be between 2 and d = 8, got 9"),
        (2.0, 8, TypeError, "k must be an integer, got 2.0"),
        (2, 8.5, TypeError, "d must be an integer, got 8.5"),
    ],
)
def test_bad_numbers_of_classes(k, d, error, message):
    with pytest.raises(error, match=message):
        best_rank(k, d, 0.5)


@pytest.mark.parametrize(
    "size, n, d, error, message",
    [
        (8, 8, 4, ValueError, "class_size must be between 1 and n - 1 = 7, got 8"),
        (0, 8, 4, ValueError, "class_size must be between 1 and n - 1 = 7, got 0"),
        (1, 1, 4, ValueError, "n must be at least 2, got 1"),
        (4, 8, 0, ValueError, "d must be at least 1, got 0"),
        (4.5, 8, 4, TypeError, "class_size must be an integer, got 4.5"),
        (4, 8.5, 4, TypeError, "n must be an integer, got 8.5"),
    ],
)
def test_bad_sizes(size, n, d, error, message):
    with pytest.raises(error, match=message):
        largest_weight(size, n, d, 0.5)
    with pytest.raises(error, match=message):
        regularized_optimum(size, n, d, 0.5, 0.1)


@pytest.mark.parametrize("weight", [0.0, -1.0, NAN, INF])
def test_bad_weight(weight):
    with pytest.raises(ValueError, match=f"weight must be positive and finite, got {weight}"):
        regularized_optimum(4, 8, 4, 0.5, weight)
    if weight != 0:
        with pytest.raises(ValueError, match=f"weight must be at least 0.*, got {weight}"):
            regularized_rate_reduction(torch.ones(2, 2), torch.tensor([0, 1]), 0.5, weight)


def test_a_weight_beyond_the_largest():
    limit = largest_weight(4, 8, 4, 0.5)
    for weight in (1.001 * limit, 1e-101 * limit):
        with pytest.raises(
            ValueError, match=f"weight must be between .*e-10. and largest_weight = {limit}"
        ):
            regularized_optimum(4, 8, 4, 0.5, weight)
