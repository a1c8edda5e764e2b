"""Samplers: closed forms, conversion, order of convergence, exact total variation, bad input."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.denoising.processes import (
    FlowMatching,
    VarianceExploding,
    VariancePreserving,
    angle_grid,
    convert,
    exponential_grid,
    log_snr_grid,
    noise_of,
    uniform_grid,
)
from companion_lib.denoising.samplers import ddim, multistep, total_variation_1d, transport_1d

VE, VP, FM, REVERSED = (
    VarianceExploding(20.0),
    VariancePreserving(),
    FlowMatching(),
    FlowMatching(data_at=1),
)
PROCESSES = {"VE": VE, "VP": VP, "FM": FM, "FM reversed": REVERSED}
GRIDS = {
    "uniform": uniform_grid,
    "exponential": exponential_grid,
    "angle": angle_grid,
    "log-SNR": log_snr_grid,
}
SAMPLERS = {"ddim": ddim, "multistep": multistep}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
samplers = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
few = settings(max_examples=25, deadline=None)

NAN = float("nan")
Z = torch.linspace(-8, 8, 4001, dtype=torch.float64)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Mixture:
    """A mixture of normals in one dimension."""

    def __init__(self, weights, means, variances):
        self.weights, self.means, self.variances = map(double, (weights, means, variances))

    def density(self, x):
        normals = torch.distributions.Normal(self.means, self.variances.sqrt())
        return (self.weights * normals.log_prob(x[:, None]).exp()).sum(1)

    def denoiser(self, process):
        def denoise(x_t, t):
            alpha, sigma = process.alpha(t), process.sigma(t)
            variances, rest = alpha**2 * self.variances + sigma**2, x_t - alpha * self.means
            logits = self.weights.log() - variances.log() / 2 - rest.square() / (2 * variances)
            clean = self.means + alpha * self.variances / variances * rest
            return (torch.softmax(logits, 1) * clean).sum(1, keepdim=True)

        return denoise


MIXTURE = Mixture([0.3, 0.7], [-1.5, 1.0], [0.05, 0.2])
GAUSSIAN = Mixture([1.0], [0.5], [2.0])


def point_mass(c):
    return lambda x_t, t: c.expand_as(x_t)


# One step


@pytest.mark.parametrize(
    "process, t, s, expected",
    [
        (VE, 4.0, 1.0, 0.25 * 8 + 0.75 * 3),
        (VP, 0.8, 0.6, 0.75 * 1.6 + (0.8 - 0.75 * 0.6) * 3),
        (FM, 0.5, 0.25, 0.5 * 1 + (0.75 - 0.5 * 0.5) * 3),
        (REVERSED, 0.5, 0.75, 0.5 * 1 + (0.75 - 0.5 * 0.5) * 3),
        (VP, 1.0, 0.6, 0.6 * 2 + 0.8 * 3),
        (VP, 0.6, 0.0, 3),
    ],
)
@samplers
def test_a_step_by_hand(sampler, process, t, s, expected):
    """With x̄ = 3 and g = 2."""
    path = sampler(point_mass(double(3)), process, double([[2.0]]), double([t, s]))
    assert path.flatten().tolist() == pytest.approx([process.sigma(t) * 2, expected], rel=1e-14)


@processes
@few
@given(st.floats(0.05, 0.95), st.floats(0.0, 1.0))
def test_a_step_keeps_the_noise(process, more, share):
    """x_s = α_s x̄ + σ_s ĝ with the noise ĝ that x̄ implies: the book's form."""
    t, s = (process.time(6 - 10 * more), process.time(6 - 10 * more * share))
    if process.log_snr(s) - process.log_snr(t) < 1e-6:
        return
    denoise = MIXTURE.denoiser(process)
    start, end = ddim(denoise, process, randn(9, 1), double([t, s]))
    implied = noise_of(denoise, process)(start, t)
    expected = process.alpha(s) * denoise(start, t) + process.sigma(s) * implied
    assert torch.allclose(end, expected, rtol=1e-11, atol=1e-13)


def test_euler_in_t():
    """For dx/dt = (x - x̄) / t."""
    denoise, grid = MIXTURE.denoiser(VE), exponential_grid(VE, 12)
    path = ddim(denoise, VE, randn(7, 1), grid)
    x = path[0]
    for (t, s), state in zip(pairwise(grid.tolist()), path[1:], strict=True):
        x = x + (s - t) * (x - denoise(x, t)) / t
        assert torch.allclose(state, x, rtol=1e-12, atol=1e-12)


def test_uniform_grid_of_the_book():
    """Weights 1 - 1/ℓ of the sample and 1/ℓ of what denoising gives."""
    denoise, grid = MIXTURE.denoiser(VE), uniform_grid(VE, 9)
    path = ddim(denoise, VE, randn(7, 1), grid)
    for i, step in enumerate(range(9, 0, -1)):
        clean = denoise(path[i], grid[i].item())
        expected = (1 - 1 / step) * path[i] + clean / step
        assert torch.allclose(path[i + 1], expected, rtol=1e-12, atol=1e-12)


# Point masses, and the ends


@processes
@grids
@samplers
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_point_mass_is_exact(sampler, process, grid, steps):
    """In one step or many, on any grid: x_s = α_s c + (σ_s / σ_t) (x_t - α_t c)."""
    c, noise, times = randn(1, 3, seed=1), randn(5, 3), grid(process, steps)
    path = sampler(point_mass(c), process, noise, times)
    alpha, sigma = (value[:, None, None] for value in (process.alpha(times), process.sigma(times)))
    expected = alpha * c + sigma / sigma[0] * (sigma[0] * noise - alpha[0] * c)
    assert torch.allclose(path, expected, rtol=1e-11, atol=1e-11)
    if grid is not log_snr_grid:
        assert torch.allclose(path[-1], c.expand(5, 3), rtol=1e-13)


@processes
@grids
@samplers
def test_the_last_step_returns_what_denoising_gives(sampler, process, grid):
    """At σ = 0; and nothing is divided by α = 0 at the first."""
    times = grid(process, 7)
    times[-1] = process.t_data
    denoise = MIXTURE.denoiser(process)
    path = sampler(denoise, process, randn(50, 1), times)
    assert path.isfinite().all()
    assert torch.allclose(path[-1], denoise(path[-2], times[-2].item()), rtol=1e-14)


# The same law in all processes


@samplers
@pytest.mark.parametrize("target", [VP, FM, REVERSED], ids=["VP", "FM", "FM reversed"])
def test_processes_differ_by_scale_only(sampler, target):
    grid = exponential_grid(VE, 15)
    path = sampler(MIXTURE.denoiser(VE), VE, randn(20, 1), grid)
    times = target.time(VE.log_snr(grid))
    denoise = convert(MIXTURE.denoiser(VE), VE, target)
    other = sampler(denoise, target, randn(20, 1), times)
    assert torch.allclose(other, target.alpha(times)[:, None, None] * path, rtol=1e-9, atol=1e-9)


# One Gaussian


@pytest.mark.parametrize(
    "steps, expected", [(10, 0.68473), (100, 0.70484), (1000, 0.70688), (10000, 0.70708)]
)
def test_product_of_gains(steps, expected):
    """Π (1 - ℓT² / (λL² + ℓ²T²)) for T = λ = 1, whose limit is not zero but √½."""
    process, unit = VarianceExploding(1.0), Mixture([1.0], [0.0], [1.0])
    path = ddim(unit.denoiser(process), process, double([[1.0]]), uniform_grid(process, steps))
    count, gain = np.arange(1, steps + 1), path[-1].item()
    assert gain == pytest.approx(np.prod(1 - count / (steps**2 + count**2)), rel=1e-11)
    assert gain == pytest.approx(expected, abs=5.1e-6)
    assert (gain - math.sqrt(0.5)) * steps == pytest.approx(-0.2272, rel=0.3 / steps + 1e-3)


@pytest.mark.parametrize("variance, limit", [(0.1, 0.301511), (1.0, 0.707107), (4.0, 0.894427)])
@pytest.mark.parametrize("T", [1.0, 10.0, 80.0])
def test_limit_of_the_product(variance, limit, T):
    process, law = VarianceExploding(T), Mixture([1.0], [0.0], [variance])
    grid = exponential_grid(process, 1000)
    F, dF = transport_1d(law.denoiser(process), process, grid, double([1.0]), order=2)
    exact = T * math.sqrt(variance / (variance + T**2))
    assert F.item() == dF.item() == pytest.approx(exact, rel=1e-4)
    if T == 1:
        assert dF.item() == pytest.approx(limit, rel=2e-4)
    # The start is N(0, T²) and should be N(0, λ + T²).
    assert F.item() ** 2 / variance == pytest.approx(T**2 / (variance + T**2), rel=2e-4)


@processes
@pytest.mark.parametrize("order", [1, 2])
def test_order_of_convergence(process, order):
    """To the exact flow of one Gaussian between two finite log-SNRs."""
    start, stop = process.time(-4.0), process.time(5.0)
    z, errors = double([-1.0, 0.3, 2.0]), []
    alpha, sigma = ([f(t) for t in (start, stop)] for f in (process.alpha, process.sigma))
    spread = [math.sqrt(2.0 * a**2 + s**2) for a, s in zip(alpha, sigma, strict=True)]
    exact = alpha[1] * 0.5 + spread[1] / spread[0] * (sigma[0] * z - alpha[0] * 0.5)
    for steps in (40, 80, 160):
        grid = log_snr_grid(process, steps, start, stop)
        F, dF = transport_1d(GAUSSIAN.denoiser(process), process, grid, z, order)
        errors.append((F - exact).abs().max().item())
        assert torch.allclose(dF, dF[0].expand(3), rtol=1e-12)
        assert errors[-1] < 4 * steps**-order
    slopes = np.diff(np.log(errors)) / math.log(2)
    assert slopes == pytest.approx([-order, -order], abs=0.12)


def test_multistep_as_published():
    """DPM-Solver++ (2M) for variance exploding, as in k-diffusion: λ = -log σ."""
    denoise, grid = MIXTURE.denoiser(VE), exponential_grid(VE, 14, stop=0.01)
    path = multistep(denoise, VE, randn(11, 1), grid)
    x, before, h_before = path[0], None, None
    for (t, s), state in zip(pairwise(grid.tolist()), path[1:], strict=True):
        clean, h = denoise(x, t), math.log(t) - math.log(s)
        mixed = clean
        if before is not None:
            r = h_before / h
            mixed = (1 + 1 / (2 * r)) * clean - 1 / (2 * r) * before
        x = s / t * x - math.expm1(-h) * mixed
        before, h_before = clean, h
        assert torch.allclose(state, x, rtol=1e-11, atol=1e-11)


# The path


@samplers
@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 5, 5), (3,)])
def test_one_call_a_step_returns_the_whole_path(sampler, shape):
    calls = []

    def denoise(x_t, t):
        calls.append(t)
        assert x_t.shape == shape and isinstance(t, float)
        return 0.9 * x_t

    noise, grid = randn(*shape), uniform_grid(VP, 6)
    copy = noise.clone()
    path = sampler(denoise, VP, noise, grid)
    assert path.shape == (7, *shape)
    assert calls == grid[:-1].tolist()
    assert torch.equal(path[0], noise) and torch.equal(noise, copy)
    assert torch.equal(path, sampler(denoise, VP, noise, grid))


@samplers
def test_samples_do_not_see_each_other(sampler):
    noise, grid, denoise = randn(8, 1), angle_grid(VP, 10), MIXTURE.denoiser(VP)
    together = sampler(denoise, VP, noise, grid)
    alone = torch.cat([sampler(denoise, VP, row[None], grid) for row in noise], 1)
    assert torch.allclose(together, alone, rtol=1e-13)


@samplers
def test_no_gradient_is_kept(sampler):
    weight = double(0.5).requires_grad_()
    path = sampler(lambda x_t, t: weight * x_t, FM, randn(4, 2), uniform_grid(FM, 5))
    assert not path.requires_grad
    assert torch.is_grad_enabled()


@samplers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_follows_the_noise(sampler, dtype):
    noise, seen = randn(50, 3).to(dtype), []

    def denoise(x_t, t):
        seen.append(x_t.dtype)
        return x_t * (1 - t)

    grid = uniform_grid(VP, 400)
    path = sampler(denoise, VP, noise, grid)
    assert path.dtype == dtype and set(seen) == {dtype}
    exact = sampler(denoise, VP, noise.double(), grid)
    # Accumulated in half precision, 400 steps would be off by 100 times as much.
    error = (path.double() - exact).abs().max() / exact.abs().max()
    assert error < max(2 * torch.finfo(dtype).eps, 1e-5)


def test_the_mean_step_shrinks_variance():
    """By O(1/L): iterates are not those of the reverse diffusion."""
    law, noise = Mixture([1.0], [0.0], [1.0]), randn(2000, 1)
    ratios = [
        (ddim(law.denoiser(VP), VP, noise, uniform_grid(VP, L))[-1].var() / noise.var()).item()
        for L in (20, 40, 80)
    ]
    losses = 1 - np.array(ratios)
    assert (losses > 0).all()
    assert losses[:-1] / losses[1:] == pytest.approx([2, 2], rel=0.25)


# Transport and total variation


@processes
@pytest.mark.parametrize("order, sampler", [(1, ddim), (2, multistep)])
def test_transport_is_the_sampler_and_its_slope(process, order, sampler):
    grid, denoise = exponential_grid(process, 30, growth=3.0), MIXTURE.denoiser(process)
    z, step = torch.linspace(-3, 3, 61, dtype=torch.float64), 1e-5
    F, dF = transport_1d(denoise, process, grid, z, order)
    assert F.shape == dF.shape == z.shape
    low, middle, high = (
        sampler(denoise, process, (z + shift)[:, None], grid)[-1, :, 0]
        for shift in (-step, 0.0, step)
    )
    assert torch.allclose(F, middle, rtol=1e-14)
    assert torch.allclose(dF, (high - low) / (2 * step), rtol=1e-5, atol=1e-7)


def test_transport_by_default_is_of_first_order():
    denoise, grid, z = MIXTURE.denoiser(VP), angle_grid(VP, 9), double([0.1, 1.0])
    for found, wanted in zip(
        transport_1d(denoise, VP, grid, z), transport_1d(denoise, VP, grid, z, 1), strict=True
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("order", [1, 2])
def test_transport_to_a_point(order):
    """A denoiser without gradient: all noise ends in one place."""
    denoise = point_mass(double(2.0))
    F, dF = transport_1d(denoise, FM, uniform_grid(FM, 4), double([-1.0, 1.0]), order)
    assert F.tolist() == pytest.approx([2, 2], rel=1e-14) and dF.tolist() == [0, 0]


@pytest.mark.parametrize("order", [1, 2])
def test_transport_keeps_no_graph_from_step_to_step(order):
    denoise, seen = MIXTURE.denoiser(VP), []

    def watched(x_t, t):
        seen.append(x_t.is_leaf)
        return denoise(x_t, t)

    z = double([-1.0, 2.0]).requires_grad_()
    F, dF = transport_1d(watched, VP, uniform_grid(VP, 5), z, order)
    assert seen == [True] * 5
    assert not F.requires_grad and not dF.requires_grad and z.grad is None


def normal(mean, deviation):
    return Mixture([1.0], [mean], [deviation**2]).density


def test_total_variation_by_hand():
    """Of N(0, 1) and N(δ, 1) it is 2 Φ(δ/2) - 1; of a map that fits, nothing."""
    for shift in (0.1, 1.0, 3.0, 20.0):
        expected = 2 * scipy.stats.norm.cdf(shift / 2) - 1
        got = total_variation_1d(Z, torch.ones_like(Z), Z, normal(shift, 1.0))
        assert got.shape == ()
        assert got.item() == pytest.approx(expected, abs=2e-6)
    exact = total_variation_1d(2.5 * Z - 1, torch.full_like(Z, 2.5), Z, normal(-1.0, 2.5))
    assert abs(exact.item()) < 1e-12


def test_total_variation_between_normals_of_unlike_width():
    got = total_variation_1d(Z, torch.ones_like(Z), Z, normal(0.0, 3.0))
    crossing = math.sqrt(2 * math.log(3) / (1 - 1 / 9))
    cdf = scipy.stats.norm.cdf
    assert got.item() == pytest.approx(2 * (cdf(crossing) - cdf(crossing / 3)), abs=1e-5)


def test_mass_out_of_reach_counts():
    """½ ∫ |φ - p(F) F'| dz would miss what lies beyond the image of z: .41 of 1 here."""
    F, dF = 0.1 * Z, torch.full_like(Z, 0.1)
    got = total_variation_1d(F, dF, Z, normal(0.0, 1.0)).item()
    crossing = math.sqrt(2 * math.log(10) / 99) * 10  # in z, where φ(z) = 0.1 φ(z/10)
    cdf = scipy.stats.norm.cdf
    assert got == pytest.approx(2 * (cdf(crossing) - cdf(crossing / 10)), abs=1e-4)
    phi = normal(0.0, 1.0)
    half = torch.trapezoid((phi(Z) - phi(F) * dF).abs(), Z).item() / 2
    assert half < got - 0.1


TABLE = [
    (VP, uniform_grid, 1, [0.1425, 0.0793, 0.0436, 0.0238, 0.0129, 0.0069]),
    (VP, angle_grid, 1, [0.1031, 0.0517, 0.0260, 0.0130, 0.0065, 0.0033]),
    (FM, uniform_grid, 1, [0.0976, 0.0491, 0.0247, 0.0124, 0.0062, 0.0031]),
    (REVERSED, uniform_grid, 1, [0.0976, 0.0491, 0.0247, 0.0124, 0.0062, 0.0031]),
    (VE, uniform_grid, 1, [0.610, 0.368, 0.245, 0.131, 0.066, 0.034]),
    (VE, exponential_grid, 1, [0.1286, 0.0637, 0.0320, 0.0166, 0.0095, 0.0066]),
    (VP, exponential_grid, 1, [0.5242, 0.3052, 0.1728, 0.0969, 0.0540, 0.0298]),
    (VP, angle_grid, 2, [0.1274, 0.0252, 0.0033, 0.0019, 0.0009, 0.0003]),
]
NAMES = ["VP", "VP angle", "FM", "FM reversed", "VE", "VE exp", "VP exp", "VP angle, order 2"]


def variation(process, grid, steps, order, z=Z):
    denoise = MIXTURE.denoiser(process)
    F, dF = transport_1d(denoise, process, grid(process, steps), z, order)
    assert (dF >= 0).all()
    return total_variation_1d(F, dF, z, MIXTURE.density).item()


@pytest.mark.parametrize("process, grid, order, expected", TABLE, ids=NAMES)
def test_total_variation_of_samplers(process, grid, order, expected):
    """At L = 8, 16, ..., 256."""
    found = [variation(process, grid, 2 ** (3 + i), order) for i in range(len(expected))]
    assert found == pytest.approx(expected, rel=0.02, abs=1.1e-4)


@pytest.mark.parametrize(
    "process, grid, low, high",
    [
        (VP, angle_grid, -1.03, -0.97),
        (FM, uniform_grid, -1.03, -0.97),
        (VP, uniform_grid, -0.92, -0.84),  # the infinite slope of α at t = 1
    ],
    ids=["VP angle", "FM", "VP uniform"],
)
def test_total_variation_falls_like_one_over_steps(process, grid, low, high):
    z = torch.linspace(-8, 8, 16001, dtype=torch.float64)  # the maps are steep between the modes
    steps = [16, 32, 64, 128]
    found = [variation(process, grid, L, 1, z) for L in steps]
    slope = np.polyfit(np.log(steps), np.log(found), 1)[0]
    assert low < slope < high


def test_noise_at_the_start_is_an_error_of_its_own():
    """Variance exploding to T = 20 starts from N(0, T²): no number of steps makes up for it."""
    few_steps, many = (variation(VE, exponential_grid, L, 2) for L in (64, 512))
    mean, variance = 0.25, 0.155 + 0.3 * 0.7 * 2.5**2
    start = scipy.stats.norm(mean / 20, math.sqrt(1 + variance / 400))
    z = np.linspace(-8, 8, 4001)
    bias = np.trapezoid(np.abs(start.pdf(z) - scipy.stats.norm.pdf(z)), z) / 2
    assert bias == pytest.approx(0.0053, abs=3e-4)
    assert many == pytest.approx(bias, rel=0.1)
    assert few_steps < 2 * bias


# Bad input

ONES = torch.ones(4, 3)


@samplers
@pytest.mark.parametrize(
    "noise, error, message",
    [
        ([[1.0]], TypeError, "noise must be a torch.Tensor, got list"),
        (ONES.long(), TypeError, "noise must hold floating-point"),
        (torch.ones(0, 3), ValueError, "noise is empty"),
        (ONES * NAN, ValueError, "noise must be finite, got 12 NaN"),
    ],
)
def test_bad_noise(sampler, noise, error, message):
    with pytest.raises(error, match=message):
        sampler(point_mass(torch.ones(())), VP, noise, uniform_grid(VP, 3))


BAD_GRIDS = [
    ([1.0, 0.0], TypeError, "grid must be a torch.Tensor, got list"),
    (torch.tensor([1, 0]), TypeError, "grid must hold floating-point"),
    (torch.ones(2, 2), ValueError, r"grid must have 1 axes, got shape \(2, 2\)"),
    (torch.tensor([1.0]), ValueError, "grid must have at least two times, of falling noise"),
    (torch.tensor([0.0, 0.5, 1.0]), ValueError, "grid must have .* falling noise"),
    (torch.tensor([1.0, 0.5, 0.5]), ValueError, "grid must have .* falling noise"),
    (torch.tensor([1.0, 0.0, 0.0]), ValueError, "grid must have .* falling noise"),
    (torch.tensor([1.5, 0.5]), ValueError, r"t must be in \[0, 1\], got 0.5 to 1.5"),
    (torch.tensor([1.0, NAN]), ValueError, "grid must be finite"),
]


@samplers
@pytest.mark.parametrize("grid, error, message", BAD_GRIDS)
def test_bad_grid(sampler, grid, error, message):
    with pytest.raises(error, match=message):
        sampler(point_mass(torch.ones(())), VP, ONES, grid)
    with pytest.raises(error, match=message):
        transport_1d(point_mass(torch.ones(())), VP, grid, torch.ones(2))


@samplers
def test_a_grid_for_the_other_clock(sampler):
    with pytest.raises(ValueError, match="falling noise"):
        sampler(point_mass(torch.ones(())), REVERSED, ONES, uniform_grid(FM, 3))


@samplers
def test_denoisers_of_another_shape(sampler):
    with pytest.raises(ValueError, match=r"denoise must return shape \(4, 3\), got \(3,\)"):
        sampler(lambda x_t, t: x_t.mean(0), VP, ONES, uniform_grid(VP, 3))


def test_bad_transport():
    with pytest.raises(ValueError, match=r"z must have 1 axes, got shape \(4, 3\)"):
        transport_1d(point_mass(torch.ones(())), VP, uniform_grid(VP, 3), ONES)
    for order in (0, 3, "2"):
        with pytest.raises(ValueError, match="order must be 1 or 2, got"):
            transport_1d(point_mass(torch.ones(())), VP, uniform_grid(VP, 3), ONES[0], order)


def test_bad_total_variation():
    one, phi = torch.ones_like(Z), normal(0.0, 1.0)
    for F, dF, z, message in [
        (Z, one, Z.flip(0), "z must rise"),
        (Z, one[:-1], Z, r"dF must have shape \(4001,\), got \(4000,\)"),
        (Z.float(), one, Z, "F must be torch.float64"),
        (Z * NAN, one, Z, "F must be finite"),
        (-Z, -one, Z, "dF must be at least 0, as of a map that rises, got -1"),
        (Z[None], one, Z, r"F must have shape \(4001,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            total_variation_1d(F, dF, z, phi)


def test_a_map_that_folds_is_refused():
    """Extrapolation over few steps may overshoot between narrow modes."""
    narrow = Mixture([0.3, 0.7], [-1.5, 1.0], [0.05**2, 0.2**2])
    F, dF = transport_1d(narrow.denoiser(VP), VP, angle_grid(VP, 16), Z, order=2)
    with pytest.raises(ValueError, match="dF must be at least 0"):
        total_variation_1d(F, dF, Z, narrow.density)
