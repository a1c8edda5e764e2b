"""Processes: closed forms, inverses, conversion, Tweedie against autograd, grids, bad input."""

import math
from fractions import Fraction

import pytest
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
    per_row,
    score_of,
    uniform_grid,
)

VE, VP, FM, REVERSED = (
    VarianceExploding(),
    VariancePreserving(),
    FlowMatching(),
    FlowMatching(data_at=1),
)
PROCESSES = {
    "VE": VE,
    "VE to 5": VarianceExploding(5.0),
    "VP": VP,
    "FM": FM,
    "FM reversed": REVERSED,
}
BOUNDED = {"VP": VP, "FM": FM, "FM reversed": REVERSED}
GRIDS = {
    "uniform": uniform_grid,
    "exponential": exponential_grid,
    "angle": angle_grid,
    "log-SNR": log_snr_grid,
}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
targets = pytest.mark.parametrize("target", PROCESSES.values(), ids=PROCESSES)
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
few = settings(max_examples=40, deadline=None)
shares = st.floats(1e-3, 1 - 1e-3)

NAN, INF = float("nan"), float("inf")


def double(values):
    return torch.tensor(values, dtype=torch.float64)


MEAN, VARIANCE = double([1.0, -2.0, 0.5]), double([0.3, 2.0, 1.0])


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gaussian(process):
    """The denoiser of N(MEAN, diag VARIANCE), by the formula for a joint Gaussian."""

    def denoise(x_t, t):
        alpha, sigma = (per_row(value, x_t) for value in (process.alpha(t), process.sigma(t)))
        gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)

    return denoise


def log_density(process, x_t, t):
    alpha, sigma = process.alpha(t), process.sigma(t)
    variance = alpha**2 * VARIANCE + sigma**2
    return -((x_t - alpha * MEAN) ** 2 / variance).sum(1) / 2


# Coefficients


@pytest.mark.parametrize(
    "process, t, alpha, sigma",
    [
        (VE, 3.0, 1.0, 3.0),
        (VP, 0.6, 0.8, 0.6),
        (VP, 0.28, 0.96, 0.28),
        (FM, 0.25, 0.75, 0.25),
        (REVERSED, 0.25, 0.25, 0.75),
    ],
)
def test_coefficients_by_hand(process, t, alpha, sigma):
    assert process.alpha(t) == pytest.approx(alpha, rel=1e-15)
    assert process.sigma(t) == pytest.approx(sigma, rel=1e-15)
    assert process.log_snr(t) == pytest.approx(math.log(alpha**2 / sigma**2), rel=1e-14)


@few
@given(shares)
def test_variance_preserving_and_straight(t):
    assert VP.alpha(t) ** 2 + VP.sigma(t) ** 2 == pytest.approx(1, rel=1e-15)
    assert (FM.alpha(t), FM.sigma(t)) == (1 - t, t)
    assert (REVERSED.alpha(t), REVERSED.sigma(t)) == (t, 1 - t)


@processes
def test_ends(process):
    assert {process.t_data, process.t_noise} == {process.t_min, process.t_max}
    assert (process.alpha(process.t_data), process.sigma(process.t_data)) == (1, 0)
    assert process.log_snr(process.t_data) == INF
    assert process.sigma(process.t_noise) == pytest.approx(max(1, process.t_max))
    if process in BOUNDED.values():
        assert process.alpha(process.t_noise) == 0
        assert process.log_snr(process.t_noise) == -INF
        assert process.time(-INF) == process.t_noise
    assert process.time(INF) == process.t_data


@processes
@few
@given(shares)
def test_time_inverts_the_log_snr(process, share):
    t = share * process.t_max
    assert process.time(process.log_snr(t)) == pytest.approx(t, rel=1e-13)


@processes
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_time_inverts_the_log_snr_up_to_the_ends(process, dtype):
    """Where rounding would carry it out of range."""
    t = torch.tensor([0.0, 0.5, 1.0], dtype=dtype) * process.t_max
    back = process.time(process.log_snr(t))
    assert back.dtype == dtype
    assert torch.allclose(back, t, rtol=64 * torch.finfo(dtype).eps)
    assert (back <= process.t_max).all()


def test_the_noisy_end_is_reached_for_any_range():
    for t_max in torch.linspace(0.1, 100, 400).tolist():
        process = VarianceExploding(t_max)
        assert process.sigma(process.time(process.log_snr(t_max))) == pytest.approx(t_max)


@processes
def test_noise_rises_away_from_the_data(process):
    t = torch.linspace(process.t_data, process.t_noise, 101).double()
    assert (process.log_snr(t).diff() < 0).all()


@processes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_and_numbers_agree(process, dtype):
    t = torch.tensor([[0.125, 0.25], [0.5, 0.75]], dtype=dtype)
    for function in (process.alpha, process.sigma, process.log_snr):
        values = function(t)
        assert values.dtype == dtype and values.shape == (2, 2)
        each = torch.tensor([function(x) for x in t.flatten().tolist()], dtype=torch.float64)
        assert torch.allclose(values.flatten(), each.to(dtype), rtol=4 * torch.finfo(dtype).eps)
        if dtype.itemsize == 2:  # computed in float32
            assert torch.equal(values, function(t.float()).to(dtype))
        assert isinstance(function(0.5), float) and isinstance(function(1), float)


def test_digits_near_the_noisy_end():
    """1 - t² is 2 (1 - t) there, which the plain formula has only eight digits of."""
    t = 1 - 1e-8
    exact = 1 - Fraction(t) ** 2
    assert VP.alpha(t) == pytest.approx(math.sqrt(exact), rel=1e-15, abs=0)


# Noising


@processes
def test_one_time_for_all_or_one_for_each(process):
    x, noise, t = (
        randn(4, 2, 3),
        randn(4, 2, 3, seed=1),
        double([0.1, 0.4, 0.7, 0.9]),
    )
    together = process.add_noise(x, t, noise)
    for i, time in enumerate(t.tolist()):
        expected = process.alpha(time) * x[i] + process.sigma(time) * noise[i]
        assert torch.allclose(together[i], expected, rtol=1e-14)
        for single in (time, t[i]):
            assert torch.allclose(process.add_noise(x, single, noise)[i], expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.3, double(0.3), double([0.3] * 5)])
def test_noised_samples_keep_their_dtype(dtype, t):
    x, noise = randn(5, 3).to(dtype), randn(5, 3, seed=1).to(dtype)
    noised = VP.add_noise(x, t, noise)
    expected = math.sqrt(0.91) * x.double() + 0.3 * noise.double()
    assert noised.dtype == dtype
    assert torch.allclose(noised.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    if dtype.itemsize == 2:  # computed in float32
        assert torch.equal(noised, VP.add_noise(x.float(), t, noise.float()).to(dtype))


def test_square_batches_are_scaled_by_row():
    """A tensor of n times would broadcast along the columns, and no one would know."""
    noised = FM.add_noise(torch.ones(2, 2), torch.tensor([0.0, 1.0]), torch.zeros(2, 2))
    assert noised.tolist() == [[1, 1], [0, 0]]


# Denoiser, score and noise


@processes
@targets
@few
@given(shares)
def test_converted_denoisers_are_those_of_the_target(process, target, share):
    t = target.time(8 - 11 * share)  # which all of them reach
    x_t = 3 * randn(6, 3)
    denoise = convert(gaussian(process), process, target)
    for time in (t, double(t), double([t] * 6)):
        assert torch.allclose(denoise(x_t, time), gaussian(target)(x_t, t), rtol=1e-11, atol=1e-11)
    back = convert(denoise, target, process)
    s = process.time(target.log_snr(t))
    assert torch.allclose(back(x_t, s), gaussian(process)(x_t, s), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("source", BOUNDED.values(), ids=BOUNDED)
@pytest.mark.parametrize("target", BOUNDED.values(), ids=BOUNDED)
def test_conversion_at_the_ends(source, target):
    """Of noise alone the best guess is the mean; without noise it is the sample: no 0/0."""
    x_t = randn(4, 3)
    denoise = convert(gaussian(source), source, target)
    assert torch.allclose(denoise(x_t, target.t_noise), MEAN.expand(4, 3), rtol=1e-14)
    assert torch.allclose(denoise(x_t, target.t_data), x_t, rtol=1e-14)


def test_each_row_has_its_time_in_conversion():
    x_t, t = randn(3, 3), double([0.2, 0.5, 0.9])
    denoise = convert(gaussian(VE), VE, VP)
    rows = [denoise(x_t[i : i + 1], t[i].item()) for i in range(3)]
    assert torch.allclose(denoise(x_t, t), torch.cat(rows), rtol=1e-13)


def test_no_conversion_to_noise_never_reached():
    denoise = convert(gaussian(VE), VE, VP)
    with pytest.raises(ValueError, match=r"log_snr must be in \[-8.76405, inf\], got -inf"):
        denoise(randn(2, 3), 1.0)


@processes
@pytest.mark.parametrize("t", [0.05, 0.3, 0.8])
def test_tweedie_against_autograd(process, t):
    x_t = (2 * randn(64, 3)).requires_grad_()
    (expected,) = torch.autograd.grad(log_density(process, x_t, t).sum(), x_t)
    score = score_of(gaussian(process), process)
    for time in (t, double([t] * 64)):
        assert torch.allclose(score(x_t, time), expected, rtol=1e-11, atol=1e-11)


@processes
@few
@given(shares, st.integers(0, 2**16))
def test_losses_of_noise_and_data_differ_by_the_snr(process, share, seed):
    """α²/σ², sample by sample: not α/σ."""
    t = share * process.t_max
    x, noise = MEAN + VARIANCE.sqrt() * randn(8, 3, seed=seed), randn(8, 3, seed=seed + 1)
    x_t = process.add_noise(x, t, noise)
    clean = gaussian(process)(x_t, t)
    of_noise = (noise_of(gaussian(process), process)(x_t, t) - noise).square().sum(1)
    snr = math.exp(process.log_snr(t))
    # Rounding in x_t and x is divided by σ.
    tol = 1e-14 / process.sigma(t)
    assert torch.allclose(of_noise, snr * (clean - x).square().sum(1), rtol=1e-10, atol=tol)


@processes
def test_mean_noise_completes_the_sample(process):
    x_t, t = randn(5, 3), double([0.1, 0.2, 0.5, 0.8, 0.9])
    clean, noise = gaussian(process)(x_t, t), noise_of(gaussian(process), process)(x_t, t)
    assert torch.allclose(process.add_noise(clean, t, noise), x_t, rtol=1e-13)
    score = score_of(gaussian(process), process)(x_t, t)
    assert torch.allclose(score, -noise / process.sigma(t)[:, None], rtol=1e-13)


@pytest.mark.parametrize("sigma", [1e-5, 1e-8])
def test_score_with_hardly_any_noise(sigma):
    """Rounding of the sample, divided by σ², is all that is lost."""
    x_t = randn(5, 3)
    score = score_of(gaussian(VE), VE)(x_t, sigma)
    expected = -(x_t - MEAN) / (VARIANCE + sigma**2)
    assert torch.allclose(score, expected, rtol=0, atol=1e-15 / sigma**2)


@pytest.mark.parametrize("transform", [score_of, noise_of])
@pytest.mark.parametrize("t", [0.0, double([0.5, 0.0])])
def test_no_score_without_noise(transform, t):
    with pytest.raises(ValueError, match="t must be where sigma is positive, got 0"):
        transform(gaussian(VP), VP)(randn(2, 3), t)


# Grids


@processes
@grids
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_grids_go_from_noise_to_data(process, grid, steps):
    times = grid(process, steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert (process.log_snr(times).diff() > 0).all()
    if grid is not log_snr_grid:
        assert (times[0].item(), times[-1].item()) == (process.t_noise, process.t_data)
    start, stop = process.time(-1.0), process.time(3.0)
    times = grid(process, steps, start, stop)
    assert (times[0].item(), times[-1].item()) == (start, stop)


@grids
def test_both_clocks_of_flow_matching_have_the_same_grids(grid):
    assert torch.allclose(grid(REVERSED, 9), 1 - grid(FM, 9), atol=1e-15)


def test_uniform_grid():
    assert uniform_grid(VE, 4).tolist() == [80, 60, 40, 20, 0]
    assert uniform_grid(REVERSED, 4).tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_exponential_grid_of_the_book():
    """t_ℓ = C₁ (exp(C₂ ℓ) - 1), counted from the data."""
    times = exponential_grid(VarianceExploding(20.0), 8, growth=6.0).flip(0)
    C2 = 6 / 8
    C1 = 20 / (math.exp(6) - 1)
    expected = [C1 * (math.exp(C2 * step) - 1) for step in range(9)]
    assert times.tolist() == pytest.approx(expected, rel=1e-12)
    nearly_uniform = exponential_grid(VE, 8, growth=1e-9)
    assert torch.allclose(nearly_uniform, uniform_grid(VE, 8), rtol=1e-6)


def test_angle_grid():
    angles = torch.linspace(math.pi / 2, 0, 10, dtype=torch.float64)
    assert torch.allclose(angle_grid(VP, 9), angles.sin(), rtol=1e-14)
    angles = torch.linspace(math.atan(80), 0, 10, dtype=torch.float64)
    assert torch.allclose(angle_grid(VE, 9), angles.tan(), rtol=1e-13, atol=1e-12)
    times = angle_grid(FM, 9)
    halves = torch.atan2(times, 1 - times).diff()
    assert torch.allclose(halves, double([-math.pi / 18] * 9), rtol=1e-12)


@processes
def test_log_snr_grid(process):
    times = log_snr_grid(process, 6, stop=process.time(4.0))
    steps = process.log_snr(times).diff()
    assert torch.allclose(steps, steps.mean().expand(6), rtol=1e-8)
    times = log_snr_grid(process, 6)
    ratio = process.sigma(times) / process.alpha(times)
    assert ratio[-1].item() == pytest.approx(1e-3, rel=1e-12)
    assert ratio[0].item() == pytest.approx(process.t_max if process.t_max > 1 else 1e3, rel=1e-9)


# Bad input


def with_time(call):
    return lambda process, t: call(gaussian(process), process)(torch.ones(2, 3), t)


CALLS = {
    "alpha": lambda process, t: process.alpha(t),
    "sigma": lambda process, t: process.sigma(t),
    "log_snr": lambda process, t: process.log_snr(t),
    "add_noise": lambda process, t: process.add_noise(torch.ones(2, 3), t, torch.ones(2, 3)),
    "score_of": with_time(score_of),
    "noise_of": with_time(noise_of),
    "convert": with_time(lambda denoise, process: convert(denoise, process, process)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "t, error, message",
    [
        (1.5, ValueError, r"t must be in \[0, 1\], got 1.5"),
        (-0.1, ValueError, r"t must be in \[0, 1\], got -0.1"),
        (NAN, ValueError, r"t must be in \[0, 1\], got nan"),
        (torch.tensor([0.5, 1.5]), ValueError, r"t must be in \[0, 1\], got 0.5 to 1.5"),
        (torch.tensor([1.5]), ValueError, r"t must be in \[0, 1\], got 1.5$"),
        (torch.tensor(NAN), ValueError, r"t must be in \[0, 1\], got nan"),
        (torch.tensor([1, 0]), TypeError, "t must hold floating-point numbers"),
        ([0.5, 0.5], TypeError, "t must be a number or a torch.Tensor, got list"),
        ("noon", TypeError, "t must be a number or a torch.Tensor, got str"),
    ],
)
def test_bad_times(call, t, error, message):
    with pytest.raises(error, match=message):
        call(VP, t)


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), (2, 3)])
def test_times_must_fit_the_rows(shape):
    t = torch.full(shape, 0.5)
    message = r"one time for all or one for each of 2 rows, got shape \(" + str(shape[0])
    for name in ("add_noise", "score_of", "noise_of", "convert"):
        with pytest.raises(ValueError, match=message):
            CALLS[name](VP, t)


def test_bad_log_snr():
    with pytest.raises(ValueError, match=r"log_snr must be in \[-3.21888, inf\], got -4"):
        VarianceExploding(5.0).time(-4.0)
    with pytest.raises(ValueError, match="log_snr must be in"):  # beyond what rounding explains
        VarianceExploding(5.0).time(-2 * math.log(5) - 1e-11)
    with pytest.raises(ValueError, match=r"log_snr must be in \[-inf, inf\], got nan"):
        VP.time(NAN)
    with pytest.raises(TypeError, match=r"log_snr must be a number .* got list"):
        VP.time([1.0])


@pytest.mark.parametrize(
    "x, noise, error, message",
    [
        ([[1.0]], torch.ones(1, 1), TypeError, "x must be a torch.Tensor, got list"),
        (torch.ones(2, 3).long(), torch.ones(2, 3), TypeError, "x must hold floating-point"),
        (torch.ones(2, 3), torch.ones(3), ValueError, r"noise must have shape \(2, 3\)"),
        (torch.ones(2, 3), torch.ones(2, 3).double(), ValueError, "noise must be torch.float32"),
    ],
)
def test_bad_samples(x, noise, error, message):
    with pytest.raises(error, match=message):
        VP.add_noise(x, 0.5, noise)


@pytest.mark.parametrize("t_max", [0.0, -1.0, NAN, INF])
def test_bad_range(t_max):
    with pytest.raises(ValueError, match="t_max must be positive and finite"):
        VarianceExploding(t_max)


@pytest.mark.parametrize("data_at", [2, 0.5, "0"])
def test_bad_clock(data_at):
    with pytest.raises(ValueError, match="data_at must be 0 or 1, got"):
        FlowMatching(data_at)


@grids
def test_bad_grids(grid):
    for steps, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="steps must be"):
            grid(VP, steps)
    for start, stop in ((0.2, 0.4), (0.4, 0.4)):
        with pytest.raises(ValueError, match=f"start must be noisier than stop, got {start}"):
            grid(VP, 4, start, stop)
        with pytest.raises(ValueError, match="start must be noisier than stop"):
            grid(REVERSED, 4, stop, start)
    with pytest.raises(ValueError, match=r"start must be in \[0, 1\], got 2"):
        grid(VP, 4, 2.0)
    with pytest.raises(ValueError, match=r"stop must be in \[0, 1\], got -1"):
        grid(VP, 4, 0.5, -1.0)


def test_bad_ends_and_growth():
    with pytest.raises(ValueError, match="start must have a finite log-SNR, got 1"):
        log_snr_grid(VP, 4, start=1.0)
    with pytest.raises(ValueError, match="stop must have a finite log-SNR, got 0"):
        log_snr_grid(VE, 4, stop=0.0)
    for growth in (0.0, -1.0, NAN, INF):
        with pytest.raises(ValueError, match="growth must be positive and finite"):
            exponential_grid(VE, 4, growth=growth)
