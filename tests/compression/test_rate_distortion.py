"""Rate distortion: closed forms, scipy's optimizers, certificates, bounds, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import gammaln

from companion_lib.compression import (
    blahut_arimoto,
    coding_rate,
    rate_distortion,
    rate_distortion_gaussian,
    shannon_lower_bound,
)

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)
precisions = st.floats(1e-2, 30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def samples_of_spectrum(lam):
    """As many samples as dimensions, with second moments diag(lam)."""
    return torch.diag((len(lam) * lam).sqrt())


def entropy(*p):
    return -sum(q * math.log(q) for q in p)


# Gaussian vectors

SPECTRUM = tensor([0.25, 1.0, 0.125, 0.5])
# ε², the coding rate, the rate-distortion function.
TABLE = [
    (1e-4, 19.11402, 19.11383),
    (1e-2, 9.922, 9.903),
    (0.1, 5.474, 5.298),
    (0.5, 2.799, 2.079),
    (1.875, 1.266, 0.0),
]


@pytest.mark.parametrize("budget, coding, exact", TABLE)
def test_four_directions(budget, coding, exact):
    eps = budget**0.5
    digits = {"abs": 6e-6 if budget == 1e-4 else 6e-4}
    assert rate_distortion_gaussian(SPECTRUM, eps).rate.item() == pytest.approx(exact, **digits)
    rate = coding_rate(samples_of_spectrum(SPECTRUM), eps).item()
    assert rate == pytest.approx(coding, **digits)


@pytest.mark.parametrize("d, variance, eps", [(1, 1.0, 0.3), (5, 2.0, 0.1), (64, 0.01, 0.5)])
def test_equal_variances(d, variance, eps):
    fit = rate_distortion_gaussian(torch.full((d,), variance).double(), eps)
    assert fit.rate.item() == pytest.approx(d / 2 * math.log(d * variance / eps**2), rel=1e-7)
    assert fit.water_level.item() == pytest.approx(eps**2 / d, rel=1e-7)


@few
@given(spectra, precisions)
def test_the_water_level_is_the_root_that_scipy_finds(values, eps):
    lam = np.array(values)
    fit = rate_distortion_gaussian(tensor(values), eps)
    if eps**2 >= lam.sum():
        level = lam.max()
    else:
        level = brentq(lambda k: np.minimum(k, lam).sum() - eps**2, 0, lam.max(), xtol=1e-300)
    assert fit.water_level.item() == pytest.approx(level, rel=1e-9)
    assert np.allclose(fit.distortions.numpy(), np.minimum(level, lam), rtol=1e-9)
    rate = np.log(np.maximum(lam / level, 1)).sum() / 2
    assert fit.rate.item() == pytest.approx(rate, rel=1e-8, abs=1e-8)
    assert fit.distortions.sum().item() == pytest.approx(min(eps**2, lam.sum()), rel=1e-12)


@pytest.mark.parametrize("budget", [0.05, 0.4, 1.2])
def test_no_other_distribution_of_the_error_is_cheaper(budget):
    lam = SPECTRUM.numpy()
    found = minimize(
        lambda D: np.log(lam / D).sum() / 2,
        x0=lam * budget / lam.sum(),
        jac=lambda D: -1 / (2 * D),
        bounds=[(1e-6, top) for top in lam],
        constraints={"type": "eq", "fun": lambda D: D.sum() - budget, "jac": np.ones_like},
        options={"ftol": 1e-14},
    )
    fit = rate_distortion_gaussian(SPECTRUM, budget**0.5)
    assert fit.rate.item() == pytest.approx(found.fun, rel=1e-7)
    assert np.allclose(fit.distortions.numpy(), found.x, atol=1e-4)


@few
@given(spectra, precisions)
def test_the_coding_rate_is_an_upper_bound(values, eps):
    lam = tensor(values)
    exact = rate_distortion_gaussian(lam, eps).rate
    assert exact >= 0
    assert coding_rate(samples_of_spectrum(lam), eps) >= exact - 1e-10


@few
@given(spectra, precisions, st.floats(1e-3, 1e3))
def test_rate_follows_units_and_not_order(values, eps, scale):
    lam = tensor(values)
    rate = rate_distortion_gaussian(lam, eps).rate.item()
    other = rate_distortion_gaussian(scale**2 * lam.flip(0), scale * eps)
    assert other.rate.item() == pytest.approx(rate, rel=1e-9, abs=1e-9)


def test_many_precisions_at_once_fall_along_the_level():
    eps = torch.logspace(-2, 1, 50).double().reshape(5, 10)
    fit = rate_distortion_gaussian(SPECTRUM, eps)
    assert fit.rate.shape == fit.water_level.shape == (5, 10)
    assert fit.distortions.shape == (5, 10, 4)
    one = rate_distortion_gaussian(SPECTRUM, eps[2, 3].item())
    assert fit.rate[2, 3].item() == pytest.approx(one.rate.item(), rel=1e-14)
    rate, level = fit.rate.flatten(), fit.water_level.flatten()
    assert (rate.diff() <= 0).all() and (rate[eps.flatten() ** 2 >= SPECTRUM.sum()] == 0).all()
    assert (level.diff() >= 0).all()


def test_the_slope_is_minus_one_over_twice_the_level():
    budget = tensor([0.05, 0.4, 1.2]).requires_grad_()
    fit = rate_distortion_gaussian(SPECTRUM, budget.sqrt())
    (slope,) = torch.autograd.grad(fit.rate.sum(), budget)
    assert torch.allclose(slope, -1 / (2 * fit.water_level.detach()), rtol=1e-12)


@pytest.mark.parametrize("values", [[2.0, 0.0, 1.0], [0.0, 0.0]])
def test_directions_without_variance_are_free(values):
    fit = rate_distortion_gaussian(tensor(values), 0.1)
    others = [v for v in values if v] or [0.01]
    assert fit.rate.item() == rate_distortion_gaussian(tensor(others), 0.1).rate.item()
    assert fit.distortions.isfinite().all() and fit.water_level.isfinite()


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0], [2.0, 0.0, 0.0, 0.5], [1.0, 0.2]])
def test_gradients_of_eigenvalues_are_those_of_differences(values):
    """At zero from above: variance there takes error away from the directions that are coded."""
    lam, step = tensor(values).requires_grad_(), 1e-7
    rate = rate_distortion_gaussian(lam, 0.5).rate
    (gradient,) = torch.autograd.grad(rate, lam)
    for i in range(len(values)):
        moved = lam.detach().clone()
        moved[i] += step
        slope = (rate_distortion_gaussian(moved, 0.5).rate - rate) / step
        assert gradient[i].item() == pytest.approx(slope.item(), rel=1e-5)


def test_no_variance_has_no_gradient():
    lam = torch.zeros(3).requires_grad_()
    (gradient,) = torch.autograd.grad(rate_distortion_gaussian(lam, 0.5).rate, lam)
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("values", [[1e-9, 1.0], [1e-9, 1e-9, 1.0, 3.0]])
def test_small_variances_beside_large_ones_in_float32(values):
    """One in the sum of all eigenvalues would swallow them."""
    budget = 1.5e-9
    fit = rate_distortion_gaussian(torch.tensor(values), budget**0.5)
    exact = rate_distortion_gaussian(tensor(values), budget**0.5)
    assert fit.distortions.sum().item() == pytest.approx(budget, rel=1e-6)
    assert fit.water_level.item() == pytest.approx(budget / len(values), rel=1e-6)
    assert fit.rate.item() == pytest.approx(exact.rate.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gaussian_in_lower_precision(dtype):
    fit, exact = (rate_distortion_gaussian(lam, 0.1) for lam in (SPECTRUM.to(dtype), SPECTRUM))
    assert fit.rate.dtype == fit.distortions.dtype == fit.water_level.dtype == torch.float32
    assert fit.rate.item() == pytest.approx(exact.rate.item(), rel=1e-6)


# Shannon's lower bound


@pytest.mark.parametrize("eps", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("d", [1, 2, 9])
def test_the_bound_is_a_difference_of_entropies(d, eps):
    noise = scipy.stats.multivariate_normal.entropy(cov=eps**2 / d * np.eye(d))
    assert shannon_lower_bound(3.0, eps, d).item() == pytest.approx(3.0 - noise, rel=1e-12)


@pytest.mark.parametrize("d", [1, 3, 20])
def test_ball_and_gamma_function_cancel(d):
    """The volume of the ball of radius ε, and what a Gaussian of as much power has more."""
    eps = 0.6
    ball = d / 2 * math.log(math.pi) + d * math.log(eps) - gammaln(d / 2 + 1)
    more = d / 2 * math.log(2 * math.e / d) + gammaln(d / 2 + 1)
    assert shannon_lower_bound(1.5, eps, d).item() == pytest.approx(1.5 - ball - more, rel=1e-12)


@few
@given(spectra, precisions)
def test_the_bound_is_exact_for_a_gaussian_under_the_water(values, eps):
    lam = tensor(values)
    h = scipy.stats.multivariate_normal.entropy(cov=np.diag(values))
    bound = shannon_lower_bound(h, eps, len(lam)).item()
    exact = rate_distortion_gaussian(lam, eps).rate.item()
    assert exact >= bound - 1e-9
    small = (0.99 * len(lam) * lam.min().item()) ** 0.5
    tight = shannon_lower_bound(h, small, len(lam)).item()
    exact = rate_distortion_gaussian(lam, small).rate.item()
    assert tight == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_the_bound_broadcasts_and_follows_the_dtype():
    eps = torch.tensor([0.1, 1.0])
    assert shannon_lower_bound(2.0, eps, 3).shape == (2,)
    h = torch.tensor(2.0)
    assert shannon_lower_bound(h, 0.1, 3).dtype == torch.float32
    assert shannon_lower_bound(2.0, 0.1, 3).dtype == torch.float64


# Discrete sources

HALVES = tensor([0.5, 0.5])
HAMMING = 1 - torch.eye(2).double()


def grid_source(n=121, width=4.5):
    """A standard Gaussian on a grid, with squared distances."""
    x = torch.linspace(-width, width, n, dtype=torch.float64)
    p = torch.exp(-x.square() / 2)
    return p / p.sum(), (x[:, None] - x).square()


def random_source(seed, n=4, m=5):
    g = generator(seed)
    p = torch.rand(n, generator=g, dtype=torch.float64) + 0.05
    return p / p.sum(), torch.rand(n, m, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("D", [0.01, 0.1, 0.3, 0.45])
def test_a_fair_coin(D):
    """log 2 - H(D): the slope at D is log((1 - D)/D)."""
    exact = math.log(2) - entropy(D, 1 - D)
    point = blahut_arimoto(HALVES, HAMMING, math.log((1 - D) / D))
    assert point.distortion == pytest.approx(D, rel=1e-12)
    assert point.rate == pytest.approx(exact, rel=1e-12)
    found = rate_distortion(HALVES, HAMMING, D**0.5, tol=1e-7)
    assert found.distortion == pytest.approx(D, rel=1e-12)
    assert found.rate == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("p, D", [(0.1, 0.05), (0.3, 0.01), (0.3, 0.25), (0.2, 0.3)])
def test_a_biased_coin(p, D):
    exact = max(entropy(p, 1 - p) - entropy(D, 1 - D), 0) if D < p else 0
    found = rate_distortion(tensor([p, 1 - p]), HAMMING, D**0.5, tol=1e-6)
    assert exact - 1e-12 <= found.rate <= exact + 1e-6
    assert found.distortion == pytest.approx(min(p, D), rel=1e-9)


@pytest.mark.parametrize("m, D", [(3, 0.2), (8, 0.5)])
def test_a_fair_die(m, D):
    exact = math.log(m) - entropy(D, 1 - D) - D * math.log(m - 1)
    p, cost = torch.full((m,), 1 / m).double(), 1 - torch.eye(m).double()
    found = rate_distortion(p, cost, D**0.5, tol=1e-6)
    assert exact - 1e-7 <= found.rate <= exact + 1e-6


@pytest.mark.parametrize("D", [0.09, 0.25, 0.5, 0.81])
def test_a_straight_curve_is_shared_between_its_ends(D):
    """Say the bit, or say nothing at cost 1: (1 - D) log 2, all at one slope."""
    cost = tensor([[0, 1e6, 1], [1e6, 0, 1]])
    found = rate_distortion(HALVES, cost, D**0.5)
    assert found.distortion == pytest.approx(D, rel=1e-12)
    assert found.rate == pytest.approx((1 - D) * math.log(2), rel=1e-4)


@pytest.mark.parametrize("eps", [0.2, 0.5, 0.6000000238418579, 0.75, 0.9])
def test_a_gaussian_on_a_grid(eps):
    p, cost = grid_source()
    variance = (p @ cost[:, 60]).item()
    found = rate_distortion(p, cost, eps)
    assert found.distortion == pytest.approx(eps**2, rel=1e-9)
    # The grid costs far less than the certified 1e-4 here.
    assert found.rate == pytest.approx(math.log(variance / eps**2) / 2, abs=2e-4)


def test_a_uniform_source_needs_more_than_shannons_bound():
    x = (torch.arange(100).double() + 0.5) / 100
    p, cost = torch.full((100,), 1 / 100).double(), (x[:, None] - x).square()
    for eps in (0.05, 0.1, 0.2):
        rate, bound = rate_distortion(p, cost, eps).rate, shannon_lower_bound(0.0, eps, 1).item()
        gaussian = rate_distortion_gaussian(tensor([1 / 12]), eps).rate.item()
        assert max(bound, 0) - 1e-3 < rate < gaussian


EVEN = [i / 7 for i in range(8)]
CLUSTERED = [0, 0.02, 0.04, 0.5, 0.52, 0.98, 0.99, 1]


@pytest.mark.parametrize(
    "places, bits",
    [
        (EVEN, [3.00, 2.95, 2.70, 2.36, 1.51, 0.61]),
        (CLUSTERED, [3.00, 1.73, 1.53, 1.48, 1.29, 0.80]),
    ],
    ids=["even", "clustered"],
)
def test_eight_points_on_a_line(places, bits):
    places = tensor(places)
    reproductions = torch.cat([places, torch.linspace(0, 1, 201).double()])
    cost = (places[:, None] - reproductions).square()
    p = torch.full((8,), 1 / 8).double()
    for eps, wanted in zip((0.0002, 0.01, 0.03, 0.05, 0.1, 0.2), bits, strict=True):
        assert rate_distortion(p, cost, eps).rate / math.log(2) == pytest.approx(wanted, abs=0.015)


@few
@given(seeds, st.floats(0, 20))
def test_the_gap_bounds_what_scipy_can_gain(seed, beta):
    """Over reproduction probabilities q, -Σ p log Σ q exp(-β d) has the optimum rate + β D."""
    p, cost = random_source(seed)
    point = blahut_arimoto(p, cost, beta, tol=1e-6)
    weights, kernel = p.numpy(), np.exp(-beta * cost.numpy())
    best = minimize(
        lambda q: -weights @ np.log(kernel @ q),
        x0=np.full(5, 0.2),
        jac=lambda q: -(weights / (kernel @ q)) @ kernel,
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14},
    ).fun
    value = point.rate + beta * point.distortion
    assert 0 <= point.gap <= 1e-6
    assert best - 1e-9 <= value <= best + 1e-6


@few
@given(seeds, st.floats(0, 20))
def test_the_gap_of_the_first_step_is_the_notes_formula(seed, beta):
    p, cost = (x.numpy() for x in random_source(seed))
    kernel = np.exp(-beta * cost)
    c = (p / kernel.mean(1)) @ kernel  # from uniform q
    expected = np.log(c.max()) - (c * np.log(c)).mean()
    point = blahut_arimoto(*random_source(seed), beta, tol=0, max_steps=1)
    assert point.gap == pytest.approx(expected, rel=1e-9, abs=1e-12)


@few
@given(seeds, st.floats(0, 30))
def test_a_point_is_its_channel(seed, beta):
    p, cost = random_source(seed)
    point = blahut_arimoto(p, cost, beta)
    joint = p[:, None] * point.channel
    assert torch.allclose(point.channel.sum(1), torch.ones(4).double(), atol=1e-12)
    assert (joint >= 0).all()
    independent = p[:, None] * joint.sum(0)
    information = scipy.stats.entropy(joint.flatten().numpy(), independent.flatten().numpy())
    assert point.rate == pytest.approx(information, abs=1e-12)
    assert point.distortion == pytest.approx((joint * cost).sum().item(), rel=1e-12)
    assert point.beta == beta and point.steps >= 1


@few
@given(seeds, st.floats(0.1, 10))
def test_order_units_and_unavoidable_costs(seed, beta):
    p, cost = random_source(seed)
    rows, columns = (torch.randperm(k, generator=generator(seed)) for k in (4, 5))
    toll = torch.rand(4, generator=generator(seed)).double()
    first = blahut_arimoto(p, cost, beta, tol=1e-6)
    moved = 3 * (cost + toll[:, None])[rows][:, columns]
    second = blahut_arimoto(p[rows], moved, beta / 3, tol=1e-6)
    value = first.rate + beta * (first.distortion + p @ toll)
    assert second.rate + beta / 3 * second.distortion == pytest.approx(value.item(), abs=2e-6)


@few
@given(seeds)
def test_rate_falls_with_the_error_and_is_convex(seed):
    p, cost = random_source(seed)
    least, most = (p @ cost.amin(1)).item(), (p @ cost).min().item()
    assume(most > 1.01 * least)  # else one reproduction is best for all symbols
    budgets = torch.linspace(least, most, 7, dtype=torch.float64)[1:-1].tolist()
    points = [rate_distortion(p, cost, budget**0.5, tol=1e-6) for budget in budgets]
    rates = tensor([point.rate for point in points])
    assert [point.distortion for point in points] == pytest.approx(budgets, rel=1e-9)
    assert all(0 <= point.gap <= 1e-6 for point in points)
    assert (rates.diff() < 1e-6).all() and (rates.diff(n=2) > -4e-6).all()


def test_the_ends_of_the_curve():
    p, cost = random_source(3)
    most = (p @ cost).min().item()
    for eps in (most**0.5 * (1 + 1e-9), 100.0):
        silent = rate_distortion(p, cost, eps)
        assert abs(silent.rate) < 1e-15
        assert silent.distortion == pytest.approx(most, rel=1e-14)
        assert silent.gap == 0
    least = (p @ cost.amin(1)).item()
    nearest = cost.argmin(1).bincount(weights=p)
    finest = rate_distortion(p, cost, least**0.5 * (1 + 1e-12))
    assert finest.rate == pytest.approx(entropy(*nearest[nearest > 0].tolist()), abs=1e-4)
    with pytest.raises(ValueError, match=f"eps must be at least {least**0.5:.4g} here, got 0.001"):
        rate_distortion(p, cost, 0.001)


def test_no_weight_on_distortion_means_no_rate():
    point = blahut_arimoto(*random_source(1), 0.0)
    assert abs(point.rate) < 1e-4
    silent = blahut_arimoto(tensor([1.0]), tensor([[3.0, 2.0]]), 1e6)
    assert abs(silent.rate) < 1e-4 and silent.distortion == pytest.approx(2, rel=1e-9)


def test_symbols_that_never_come_do_not_count():
    found = rate_distortion(tensor([0.5, 0.5, 0]), torch.cat([HAMMING, HAMMING[:1] + 5]), 0.3)
    assert found.rate == pytest.approx(math.log(2) - entropy(0.09, 0.91), abs=1e-4)


def test_out_of_steps_is_told_by_the_gap():
    p, cost = grid_source()
    early, late = (blahut_arimoto(p, cost, 5.0, max_steps=steps) for steps in (3, 100_000))
    assert early.steps == 3 and early.gap > 1e-4 >= late.gap
    value = [point.rate + 5 * point.distortion for point in (early, late)]
    assert value[0] - early.gap <= value[1] < value[0]
    assert repr(late) == "DiscreteRateDistortion(121 to 121 symbols)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_discrete_sources_of_every_dtype(dtype):
    p, cost = HALVES.to(dtype), HAMMING.to(dtype)
    copies = p.clone(), cost.clone()
    found = rate_distortion(p, cost, 0.3)
    assert found.rate == pytest.approx(math.log(2) - entropy(0.09, 0.91), abs=1e-4)
    assert found.channel.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(p, copies[0]) and torch.equal(cost, copies[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_source_of_lower_precision_is_as_well_solved(dtype):
    p, cost = grid_source()
    p, cost = p.to(dtype), cost.to(dtype)
    total = p.double().sum()  # not one, in half precision
    point, exact = (
        blahut_arimoto(*x, 2.0) for x in ((p, cost), (p.double() / total, cost.double()))
    )
    assert point.gap <= 1e-4 and point.steps == exact.steps
    assert point.rate == pytest.approx(exact.rate, rel=1e-12)
    assert point.channel.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.allclose(point.channel.double(), exact.channel, atol=1e-6)
    found = rate_distortion(p, cost, 0.5)
    assert found.gap <= 1e-4 and found.distortion == pytest.approx(0.25, rel=1e-9)
    assert (
        found.channel.dtype == rate_distortion(p, cost, 50.0).channel.dtype == point.channel.dtype
    )


# Bad input

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "lam, error, message",
    [
        ([1.0], TypeError, "eigenvalues must be a torch.Tensor, got list"),
        (torch.ones(3).long(), TypeError, "eigenvalues must hold floating-point numbers"),
        (torch.ones(3, 3), ValueError, r"eigenvalues must have 1 axes, got shape \(3, 3\)"),
        (torch.ones(0), ValueError, "eigenvalues is empty"),
        (tensor([1.0, NAN]), ValueError, "eigenvalues must be finite"),
        (tensor([1.0, INF]), ValueError, "eigenvalues must be finite"),
        (tensor([1.0, -0.5]), ValueError, "eigenvalues must be at least 0, got -0.5"),
    ],
)
def test_bad_eigenvalues(lam, error, message):
    with pytest.raises(error, match=message):
        rate_distortion_gaussian(lam, 1.0)


@pytest.mark.parametrize("eps", [0.0, -1.0, NAN, INF, torch.tensor([1.0, 0.0]), torch.tensor([])])
def test_bad_precision(eps):
    for call in (
        lambda: rate_distortion_gaussian(SPECTRUM, eps),
        lambda: rate_distortion(HALVES, HAMMING, eps),
        lambda: shannon_lower_bound(1.0, eps, 2),
    ):
        with pytest.raises(ValueError, match="eps must be positive and finite, got"):
            call()


@pytest.mark.parametrize("d, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_bad_dimension(d, error):
    with pytest.raises(error, match=f"d must be .*got {d}"):
        shannon_lower_bound(1.0, 1.0, d)


BAD_SOURCES = [
    ([0.5, 0.5], HAMMING, TypeError, "probabilities must be a torch.Tensor, got list"),
    (HALVES, [[0.0]], TypeError, "distortions must be a torch.Tensor, got list"),
    (tensor([1, 0]).long(), HAMMING, TypeError, "probabilities must hold floating-point"),
    (HALVES, HAMMING.long(), TypeError, "distortions must hold floating-point"),
    (HALVES[None], HAMMING, ValueError, "probabilities must have 1 axes"),
    (HALVES, HALVES, ValueError, "distortions must have 2 axes"),
    (HALVES[:0], HAMMING, ValueError, "probabilities is empty"),
    (HALVES, HAMMING[:, :0], ValueError, "distortions is empty"),
    (tensor([0.5, 0.6]), HAMMING, ValueError, "probabilities must sum to one, got a sum of 1.1"),
    (tensor([1.5, -0.5]), HAMMING, ValueError, "probabilities must be at least 0, got -0.5"),
    (tensor([NAN, 1]), HAMMING, ValueError, "probabilities must be finite"),
    (HALVES, tensor([[0, INF], [1, 0]]), ValueError, "distortions must be finite"),
    (HALVES, torch.ones(3, 2), ValueError, r"distortions must have 2 rows, .*got \(3, 2\)"),
]


@pytest.mark.parametrize("p, cost, error, message", BAD_SOURCES)
def test_bad_sources(p, cost, error, message):
    with pytest.raises(error, match=message):
        blahut_arimoto(p, cost, 1.0)
    with pytest.raises(error, match=message):
        rate_distortion(p, cost, 0.5)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"beta": -1.0}, ValueError, "beta must be at least 0, got -1.0"),
        ({"beta": NAN}, ValueError, "beta must be at least 0, got nan"),
        ({"beta": INF}, ValueError, "beta must be at least 0 and finite, got inf"),
        ({"tol": -1e-3}, ValueError, "tol must be at least 0, got -0.001"),
        ({"tol": NAN}, ValueError, "tol must be at least 0, got nan"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1, got 0"),
        ({"max_steps": 2.5}, TypeError, "max_steps must be an integer, got 2.5"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        blahut_arimoto(HALVES, HAMMING, **{"beta": 1.0, **options})


def test_bad_tolerance_of_the_search():
    with pytest.raises(ValueError, match="tol must be at least 0, got -1"):
        rate_distortion(HALVES, HAMMING, 0.3, tol=-1)


def test_one_precision_for_a_discrete_source():
    with pytest.raises(ValueError, match=r"eps must be one number, got shape \(2,\)"):
        rate_distortion(HALVES, HAMMING, torch.tensor([0.1, 0.2]))
