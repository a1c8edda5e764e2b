"""The widgets show what the chapter says: the numbers behind the pictures."""

from __future__ import annotations

import pytest
import torch

from companion_lib.widgets import ISTAUnrolled, RankAndNoise, RotateAndWatch


def over_angles(name: str, **settings) -> torch.Tensor:
    widget = RotateAndWatch(n=5000, **settings)
    found = []
    for angle in range(0, 180, 5):
        widget.angle = angle
        found.append(widget.values()[name])
    return torch.tensor(found)


@pytest.mark.parametrize(("name", "sign"), [("l4", 1), ("l1", -1), ("kurtosis", 1)])
def test_sparsity_measures_peak_at_the_true_axes(name, sign):
    best = int((sign * over_angles(name)).argmax()) * 5
    assert best in (70, 160)


def test_variance_is_nearly_flat_where_the_fourth_power_is_not():
    variance, fourth = over_angles("variance"), over_angles("l4")
    assert (variance.max() - variance.min()) / variance.mean() < 0.15
    assert (fourth.max() - fourth.min()) / fourth.mean() > 0.3


def test_gaussian_codes_have_no_axes():
    fourth = over_angles("l4", theta=1.0)
    assert (fourth.max() - fourth.min()) / fourth.mean() < 0.1


def test_msp_contracts_near_the_axes_at_the_announced_rate():
    ratios = []
    for seed in range(8):
        widget = RotateAndWatch(theta=0.4, n=5000, angle=70, noise=0.2, seed=seed)
        for _ in range(40):
            widget.angle = widget.values()["msp_angle"]
        limit, widget.angle = widget.angle, widget.angle + 0.1
        ratios.append((widget.values()["msp_angle"] - limit) / 0.1)
    # Sample kurtosis scatters: one seed's ratio by about 0.04, the mean of eight by 0.015.
    assert sum(ratios) / 8 == pytest.approx(widget.values()["rate"], abs=0.06)


def test_best_rank_falls_as_the_noise_grows():
    widget, best = RankAndNoise(), []
    for noise in (0.3, 0.5, 0.8):
        widget.noise = noise
        best.append(widget.values()["best_rank"])
    assert best == sorted(best, reverse=True)
    assert len(set(best)) == 3


def test_shrinkage_beats_projection_at_every_rank():
    widget = RankAndNoise(noise=0.5)
    for rank in (5, 40, 120):
        widget.rank, widget.shrink = rank, False
        projected = widget.values()
        widget.shrink = True
        shrunk = widget.values()
        assert shrunk["error"] < projected["error"]
    assert shrunk["measured"] < projected["measured"]


def test_expected_error_is_near_the_measured_one():
    """Ten digits of 784 pixels: the average over them is within a quarter of the expectation."""
    for rank in (10, 40, 100):
        numbers = RankAndNoise(rank=rank).values()
        assert numbers["measured"] == pytest.approx(numbers["error"], rel=0.25)
        assert numbers["error"] == pytest.approx(numbers["lost"] + numbers["kept"])


def test_noiseless_full_rank_keeps_the_digits():
    widget = RankAndNoise(rank=120, noise=0)
    assert widget.values()["kept"] == 0
    assert widget.values()["measured"] < 0.008
    assert widget.values()["best_rank"] == 120


def test_ista_approaches_the_minimum_and_the_optimality_conditions():
    shallow, deep = ISTAUnrolled(layers=10).values(), ISTAUnrolled(layers=200).values()
    assert 0 < deep["gap"] < 1e-3 * shallow["gap"]
    assert deep["kkt"] < 0.1 * shallow["kkt"]
    assert deep["found"] == 5
    assert deep["nonzeros"] < shallow["nonzeros"]


def test_momentum_gets_further_in_as_many_layers():
    assert ISTAUnrolled(momentum=True).values()["gap"] < 0.1 * ISTAUnrolled().values()["gap"]


def test_long_steps_diverge():
    assert ISTAUnrolled(lam=0.02, step=2.5, layers=200).values()["gap"] > 1e6
    assert ISTAUnrolled(lam=0.02, step=1.9, layers=200).values()["gap"] < 1
