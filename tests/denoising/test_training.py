"""Training denoisers: losses, times, antithetic noise, averages, resuming, optima, bad input."""

import itertools
import math
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from companion_lib.denoising.networks import DenoisingMLP, DenoisingUNet
from companion_lib.denoising.processes import (
    FlowMatching,
    VarianceExploding,
    VariancePreserving,
    noise_of,
)
from companion_lib.denoising.training import (
    denoising_loss,
    stratified,
    train_denoiser,
    uniform_angles,
)
from companion_lib.training import CheckpointError

PROCESSES = [VarianceExploding(), VariancePreserving(), FlowMatching(), FlowMatching(data_at=1)]
processes = pytest.mark.parametrize("process", PROCESSES, ids=str)
VP = PROCESSES[1]
# Trains as ``run`` below does, and dies in the middle of step 13 of 20.
KILLED = """
import os, signal, sys
import torch
from companion_lib.denoising import training
from companion_lib.denoising.networks import DenoisingMLP
from companion_lib.denoising.processes import VariancePreserving

def count(*arguments):
    global steps
    steps += 1
    if steps == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    update(*arguments)

steps, update, training._update_average = 0, training._update_average, count
process = VariancePreserving()
model = DenoisingMLP(4, 16, 2, process, generator=torch.Generator().manual_seed(1))
X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
training.train_denoiser(
    model, X, process, 20, batch=8, every=5, checkpoint=sys.argv[1],
    generator=torch.Generator().manual_seed(2),
)
"""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def small(width=16, seed=1, process=VP):
    return DenoisingMLP(4, width, 2, process, generator=generator(seed))


def run(steps=20, model=None, X=None, process=VP, seed=2, **options):
    model = model or small(process=process)
    X = randn(30, 4, dtype=torch.float32) if X is None else X
    options = {"batch": 8, "every": 5, "generator": generator(seed), **options}
    return train_denoiser(model, X, process, steps, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def assert_same(first, second):
    assert torch.equal(weights(first.model), weights(second.model))
    assert torch.equal(weights(first.ema), weights(second.ema))
    assert torch.equal(first.losses, second.losses)


def gaussian(variances, process):
    """The conditional mean for independent Gaussian entries of these variances."""

    def denoise(x_t, t):
        alpha, sigma = (
            torch.as_tensor(f(t)).reshape(-1, 1) for f in (process.alpha, process.sigma)
        )
        return alpha * variances / (alpha**2 * variances + sigma**2) * x_t

    return denoise


# The loss


@processes
def test_losses_on_x_and_on_the_noise_differ_by_the_signal_to_noise_ratio(process):
    model = DenoisingMLP(6, 8, 1, process, generator=generator()).double()
    torch.nn.init.normal_(model.layers[-1].weight, generator=generator(3))
    X, g, t = randn(40, 6), randn(40, 6, seed=1), torch.linspace(0.05, 0.95, 40).double()
    on_x, on_noise = (denoising_loss(model, process, X, t, g, target) for target in ("x", "noise"))
    estimate = noise_of(model, process)(process.add_noise(X, t, g), t)
    assert torch.allclose((g - estimate).square().sum(1), on_noise, rtol=1e-12)
    ratio = (process.alpha(t) / process.sigma(t)) ** 2
    assert torch.allclose(on_noise, ratio * on_x, rtol=1e-12)
    # As it should be, and not alpha / sigma, which the book's text has in one place.
    assert not torch.allclose(on_noise, ratio.sqrt() * on_x, rtol=0.1)


def test_the_loss_is_a_sum_over_all_entries_of_a_sample():
    X, g = randn(3, 2, 4, 4), randn(3, 2, 4, 4, seed=1)
    loss = denoising_loss(lambda x_t, t: torch.zeros_like(x_t), VP, X, 0.5, g)
    assert torch.allclose(loss, X.square().sum((1, 2, 3)), rtol=1e-14)


def test_the_closed_form_denoiser_has_the_closed_form_loss():
    variances, n = torch.tensor([2.0, 0.5, 0.01]).double(), 200_000
    X, g = randn(n, 3) * variances.sqrt(), randn(n, 3, seed=1)
    for t in (0.2, 0.7):
        loss = denoising_loss(gaussian(variances, VP), VP, X, t, g).mean().item()
        mmse = (variances * t**2 / ((1 - t**2) * variances + t**2)).sum().item()
        assert loss == pytest.approx(mmse, rel=5 * (2 / n) ** 0.5)


def test_no_loss_on_the_noise_where_there_is_none():
    X = randn(3, 4)
    for t in (0.0, torch.tensor([0.5, 0.0, 0.5])):
        with pytest.raises(ValueError, match="t must be where sigma is positive"):
            denoising_loss(small(), VP, X, t, X, "noise")


# Times


@processes
def test_times_are_uniform_in_angle(process):
    times = uniform_angles(process)
    t = times(torch.linspace(0, 1, 101, dtype=torch.float64))
    angles = torch.atan2(process.sigma(t), process.alpha(t))
    steps = angles.diff()
    assert torch.allclose(steps, steps.mean().expand(100), rtol=1e-9)
    limit = math.atan(1e-3)
    assert angles[0].item() == pytest.approx(limit, rel=1e-6)
    furthest = math.atan(80) if isinstance(process, VarianceExploding) else math.pi / 2 - limit
    assert angles[-1].item() == pytest.approx(furthest, rel=1e-9)


@processes
def test_times_stay_in_range_in_float32(process):
    t = uniform_angles(process)(torch.tensor([0.0, 1e-9, 0.5, 1.0]))
    assert t.dtype == torch.float32
    assert torch.isfinite(process.log_snr(t)).all()  # which checks the range, too


def test_stratified_numbers_are_one_in_each_part():
    u = stratified(50, torch.zeros(1).double(), generator())
    assert torch.equal((50 * u).floor(), torch.arange(50.0).double())
    other = stratified(50, torch.zeros(1).double(), generator(1))
    assert u.dtype == torch.float64 and not torch.equal(u, other)
    # Uniform in each part: the standard error of a mean is 1 / sqrt(12 n).
    offsets = 1000 * stratified(1000, u, generator()) % 1
    assert offsets.mean().item() == pytest.approx(0.5, abs=5 / 12_000**0.5)


def test_stratified_times_make_losses_vary_less():
    def spread(draw):
        return torch.stack([VP.sigma(draw(seed)).square().mean() for seed in range(200)]).std()

    like = torch.zeros(1).double()
    strata = spread(lambda seed: stratified(32, like, generator(seed)))
    independent = spread(lambda seed: torch.rand(32, generator=generator(seed)).double())
    assert strata < 0.1 * independent


# What a step does


class Recorder(torch.nn.Module):
    """Remembers what it was asked, and has one weight."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.5))
        self.seen = []

    def forward(self, x_t, t):
        self.seen.append((x_t.detach().clone(), t.clone()))
        return self.gain * x_t


def test_antithetic_batches_hold_pairs():
    X, model = randn(10, 3), Recorder()
    run(3, model, X, antithetic=True)
    for x_t, t in model.seen:
        assert x_t.shape == (8, 3) and torch.equal(t[:4], t[4:])
        clean = (x_t[:4] + x_t[4:]) / (2 * VP.alpha(t[:4])[:, None])  # ±g cancels
        assert torch.cdist(clean, X).min(1).values.max() < 1e-6
        assert (x_t[:4] - x_t[4:]).abs().min() > 0


def test_other_batches_are_all_different():
    X, model = randn(10, 3), Recorder()
    run(3, model, X, antithetic=False, batch=7)
    for x_t, t in model.seen:
        assert x_t.shape == (7, 3) and len(t.unique()) == 7


def gradient_spread(target, antithetic):
    """Sum of the variances of the entries of a batch's gradient, and the mean gradient."""
    X, model = randn(200, 4), small().double()
    torch.nn.init.normal_(model.layers[-1].weight, std=0.3, generator=generator(5))
    found = []
    for seed in range(200):
        start = {name: p.clone() for name, p in model.state_dict().items()}
        run(1, model, X, seed=seed, batch=16, target=target, antithetic=antithetic)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        model.load_state_dict(start)
    found = torch.stack(found)
    return found.var(0).sum().item(), found.mean(0)


def test_antithetic_noise_lowers_the_variance_of_the_gradient():
    pairs, mean = gradient_spread("noise", antithetic=True)
    independent, other = gradient_spread("noise", antithetic=False)
    assert pairs < 0.85 * independent
    # And it is a gradient of the same loss: five standard errors apart at most.
    assert (mean - other).norm() < 5 * ((pairs + independent) / 200) ** 0.5


def test_adam_steps_down_the_mean_weighted_loss():
    X, t = randn(1, 4, dtype=torch.float32), 0.5
    model, other = small(), small()
    run(3, model, X, lr=1e-2, times=lambda u: torch.full_like(u, t), weight=lambda t: 3 + t)
    draws, optimizer = generator(2), torch.optim.Adam(other.parameters(), lr=1e-2)
    for _ in range(3):
        torch.randint(1, (4,), generator=draws)
        torch.rand(4, generator=draws)
        g = torch.randn(4, 4, generator=draws)
        g = torch.cat([g, -g])
        optimizer.zero_grad()
        x_t = 0.75**0.5 * X + 0.5 * g
        (3.5 * (other(x_t, t) - X).square().sum(1)).mean().backward()
        optimizer.step()
    assert torch.allclose(weights(model), weights(other), atol=1e-6)


def test_the_history_holds_the_loss_of_each_step():
    X, model = randn(10, 3), Recorder()
    result = run(4, model, X, lr=1e-30)
    for loss, (x_t, t) in zip(result.losses, model.seen, strict=True):
        clean = ((x_t[:4] + x_t[4:]) / (2 * VP.alpha(t[:4])[:, None])).repeat(2, 1)
        assert loss.item() == pytest.approx((clean - x_t / 2).square().sum(1).mean().item())
    assert repr(result) == "TrainedDenoiser(Recorder, steps=4)"


@pytest.mark.parametrize("ema", [0.0, 0.15, 0.999, 1.0])
def test_the_average_of_the_weights(ema):
    first = weights(small())
    after = [weights(run(k).model) for k in range(1, 7)]
    average = first
    for k, new in enumerate(after):
        decay = min(ema, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * new
    result = run(6, ema=ema)
    assert torch.allclose(weights(result.ema), average, atol=1e-7)
    assert torch.equal(weights(result.model), after[-1])
    assert not any(p.requires_grad for p in result.ema.parameters())


def test_the_average_takes_over_buffers():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    model.forward = lambda x_t, t: model[0](x_t)
    result = run(5, model)
    assert torch.equal(result.ema[0].running_mean, model[0].running_mean)
    assert result.ema[0].num_batches_tracked == 5


def test_the_generator_decides_everything():
    state = torch.get_rng_state()
    assert_same(run(), run())
    assert not torch.equal(run().losses, run(seed=3).losses)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_the_global_one_draws():
    torch.manual_seed(4)
    first = run(generator=None)
    torch.manual_seed(4)
    assert_same(first, run(generator=None))


# What comes out


@pytest.mark.parametrize("target", ["x", "noise"])
@pytest.mark.parametrize("skip", [True, False])
def test_the_loss_on_a_gaussian_comes_down_to_the_closed_form(target, skip):
    variances = torch.tensor([3.0, 0.5, 0.2, 0.01])
    X = randn(20_000, 4, dtype=torch.float32) * variances.sqrt()
    model = DenoisingMLP(4, 64, 2, VP, skip=skip, generator=generator())
    middle = lambda u: 0.2 + 0.7 * u  # noqa: E731
    ema = run(700, model, X, batch=256, lr=3e-3, target=target, times=middle, ema=0.99).ema
    fresh = randn(20_000, 4, seed=5, dtype=torch.float32) * variances.sqrt()
    g, t = randn(20_000, 4, seed=6, dtype=torch.float32), middle(torch.linspace(0, 1, 20_000))
    with torch.no_grad():
        found = denoising_loss(ema, VP, fresh, t, g, target).mean().item()
        best = denoising_loss(gaussian(variances, VP), VP, fresh, t, g, target).mean().item()
        # Without training, a denoiser that takes all variances for one.
        start = denoising_loss(gaussian(torch.ones(4), VP), VP, fresh, t, g, target).mean().item()
    assert best < found < 1.06 * best < start


def test_a_u_net_learns_images():
    X = randn(64, 1, 1, 1, dtype=torch.float32) * torch.ones(8, 8)  # flat: one number each
    model = DenoisingUNet(1, (8, 16), VP, generator=generator())
    result = run(150, model, X, batch=16, lr=3e-3, times=lambda u: 0.3 + 0.4 * u)
    assert result.losses[-20:].mean() < 0.5 * result.losses[:5].mean()


def test_progress_is_shown_when_asked_for(capsys):
    run(3)
    assert capsys.readouterr() == ("", "")
    run(3, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_samples_may_be_in_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        X = randn(30, 4).to(dtype)
        result = run(X=X)
        assert result.losses.dtype == torch.float32
        assert_same(result, run(X=X.float()))


# Resuming


@pytest.mark.parametrize("stop", [5, 7, 19])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, stop):
    path = tmp_path / "run.safetensors"
    whole = run(20)
    run(stop, checkpoint=path)
    assert_same(run(20, small(seed=8), seed=9, checkpoint=path), whole)
    assert_same(run(20, small(seed=7), seed=4, checkpoint=path), whole)  # it is all done


def test_a_killed_run_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    killed = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(load_file(path)["losses"]) == 10
    assert_same(run(20, checkpoint=path), run(20))


def test_the_global_generator_is_restored_too(tmp_path):
    torch.manual_seed(4)
    whole = run(12, generator=None)
    torch.manual_seed(4)
    run(6, generator=None, checkpoint=tmp_path / "run")
    torch.manual_seed(5)
    assert_same(run(12, generator=None, checkpoint=tmp_path / "run"), whole)


def test_checkpoints_do_not_change_a_run(tmp_path):
    assert_same(run(12, every=4, checkpoint=tmp_path / "run"), run(12))


@pytest.mark.parametrize(
    "change, difference",
    [
        ({"model": small(width=24)}, r"model was DenoisingMLP with 932 weights .* is now .* 1588"),
        ({"model": small(process=FlowMatching()), "process": FlowMatching()}, "process was"),
        ({"X": randn(30, 4, seed=1, dtype=torch.float32)}, r"data was \(30, 4\) torch.float32"),
        ({"batch": 10}, "batch was 8 and is now 10"),
        ({"lr": 2e-3}, "lr was 0.001 and is now 0.002"),
        ({"target": "noise"}, "target was x and is now noise"),
        ({"ema": 0.9}, "ema was 0.999 and is now 0.9"),
        ({"antithetic": False}, "antithetic was True and is now False"),
        ({"weight": lambda t: t}, r"weight was None and is now \[0"),
        ({"times": lambda u: u}, r"times was \[0.*and is now \[0"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change, difference):
    path = tmp_path / "run"
    run(5, checkpoint=path)
    old = path.read_bytes()
    model = change.pop("model", None) or small(seed=6)
    before = weights(model)
    with pytest.raises(CheckpointError, match=f"is the checkpoint of another run: .*{difference}"):
        run(20, model, checkpoint=path, **change)
    assert path.read_bytes() == old and torch.equal(weights(model), before)


def test_a_checkpoint_past_the_end_is_refused(tmp_path):
    path, model = tmp_path / "run", small(seed=6)
    run(10, checkpoint=path)
    old, before = path.read_bytes(), weights(model)
    with pytest.raises(CheckpointError, match="run is already 10 steps along, past the 5 asked"):
        run(5, model, checkpoint=path)
    assert path.read_bytes() == old and torch.equal(weights(model), before)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path, model = tmp_path / "run", small(seed=6)
    run(10, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-20])
    before = weights(model)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        run(20, model, checkpoint=path)
    assert torch.equal(weights(model), before)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path):
    path, X = tmp_path / "run", randn(10, 3)
    calls = itertools.count()  # the first one is for the record of the run

    def weight(t):
        return t * (math.nan if next(calls) > 7 else 1)

    with pytest.raises(FloatingPointError, match="loss is not finite from step 8 on; try a lower"):
        run(20, Recorder(), X, checkpoint=path, weight=weight)
    assert len(load_file(path)["losses"]) == 5


# Bad input


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"X": torch.zeros(0, 4)}, ValueError, "X is empty"),
        ({"X": torch.full((5, 4), math.nan)}, ValueError, "X must be finite, got 20 NaN"),
        ({"X": torch.zeros(4)}, ValueError, r"X must hold samples as rows, got shape \(4,\)"),
        ({"X": torch.zeros(5, 4).long()}, TypeError, "X must hold floating-point numbers"),
        ({"X": [[1.0, 2.0]]}, TypeError, "X must be a torch.Tensor, got list"),
        ({"X": torch.zeros(5, 3)}, ValueError, r"x_t must have shape \(n, 4\), got \(8, 3\)"),
        ({"model": lambda x_t, t: x_t}, TypeError, "model must be a module with weights to train"),
        ({"model": torch.nn.Identity()}, TypeError, "model must be a module with weights"),
        ({"process": FlowMatching(), "model": small()}, ValueError, "model was built for Variance"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be an integer, got 2.5"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"batch": 7}, ValueError, "batch must be even, for noise in pairs, got 7"),
        ({"lr": 0.0}, ValueError, "lr must be positive and finite, got 0.0"),
        ({"lr": math.nan}, ValueError, "lr must be positive and finite, got nan"),
        ({"target": "score"}, ValueError, "target must be one of .* got 'score'"),
        ({"ema": 1.5}, ValueError, "ema must be between 0 and 1, got 1.5"),
        ({"ema": math.nan}, ValueError, "ema must be between 0 and 1, got nan"),
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"times": lambda u: 2 + u}, ValueError, r"t must be in \[0, 1\]"),
        ({"lr": 1e30}, FloatingPointError, "the loss is not finite from step"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)
