"""What is recorded of a training, against features whose rates are known in closed form."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
import torch

from companion_lib.compression import max_rate_reduction, optimal_representation, train
from companion_lib.widgets import TrainingRecorder, WatchMCR2
from companion_lib.widgets.training_recorder import _best_ranks

EPS = 0.5**0.5


def optimum(d=16, k=4, size=32, seed=0):
    """Return unit features of ``k`` orthogonal classes that fill ``d`` dimensions evenly."""
    generator = torch.Generator().manual_seed(seed)
    rank = d // k
    Z, y = optimal_representation([size] * k, [rank] * k, d, generator)
    # Its rows need not have unit length: these have, each along an axis of its class, by turns.
    directions = [torch.linalg.svd(Z[y == c], full_matrices=False).Vh[:rank] for c in range(k)]
    rows = [directions[c][i % rank] for c in range(k) for i in range(size)]
    return torch.stack(rows), y


def record(encode, Z, y, epochs=(0, 1), eps=EPS):
    recorder = TrainingRecorder(encode, Z, y, Z, y, eps, epochs)
    for epoch in range(3):
        recorder(epoch)
    return recorder.trajectory


def test_the_optimum_reaches_the_bound():
    Z, y = optimum()
    seen = record(lambda X: 3 * X, Z, y)  # length does not count
    assert seen.epochs == [0, 1]
    whole, apart = seen.rates[-1].tolist()
    assert whole - apart == pytest.approx(seen.bound, rel=1e-12)
    assert seen.rank == 4
    torch.testing.assert_close(seen.spectra[0, :, :4], torch.full_like(Z[:4, :4], 0.5))
    assert seen.spectra[0, :, 4:].max() < 1e-7
    same = seen.labels[:, None] == seen.labels
    assert seen.cosines[0][~same].abs().max() < 1e-12
    torch.testing.assert_close(seen.cosines[0].diagonal(), torch.ones_like(Z[:40, 0]))


def test_other_features_stay_below_the_bound():
    _, y = optimum()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        Z = torch.randn(128, 16, generator=generator, dtype=torch.float64)
        whole, apart = record(lambda X: X, Z, y).rates[0].tolist()
        assert 0 < whole - apart < record(lambda X: X, Z, y).bound


@pytest.mark.parametrize(
    ("sizes", "d"), [([20, 20, 20], 11), ([30, 12, 5], 16), ([9, 8, 7], 6), ([3, 40, 40], 12)]
)
@pytest.mark.parametrize("eps", [0.3, 0.7, 1.5])
def test_no_other_ranks_allow_more(sizes, d, eps):
    """Against all allocations of ranks near an even one."""
    found = max_rate_reduction(sizes, _best_ranks(sizes, d, eps), d, eps)
    options = [range(1, min(size, d) + 1) for size in sizes]
    allowed = (ranks for ranks in itertools.product(*options) if sum(ranks) <= d)
    best = max(max_rate_reduction(sizes, list(ranks), d, eps) for ranks in allowed)
    assert found == pytest.approx(best, rel=1e-12)


def test_records_during_training_only_the_epochs_asked_for():
    Z, y = optimum()
    weight = torch.nn.Parameter(torch.eye(16, dtype=torch.float64))
    recorder = TrainingRecorder(lambda X: X @ weight, Z, y, Z, y, EPS, (0, 2, 5))
    train(
        lambda rows: (Z[rows] @ weight)[:, 0].square().sum(), [weight], 128, 3, 64, record=recorder
    )
    seen = recorder.trajectory
    assert repr(seen) == "Trajectory(epochs 0 to 2)"
    assert seen.epochs == [0, 2]
    assert not seen.cosines.requires_grad
    assert not torch.equal(seen.cosines[0], seen.cosines[1])
    assert seen.images.shape == (40, 16)


def test_a_widget_shows_the_trainings_it_is_given():
    Z, y = optimum()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    one = record(lambda X: X, Z, y)
    other = record(lambda X: X @ noise, Z, y)
    numbers = WatchMCR2(one, other).values()
    assert numbers["between"] == 0
    assert numbers["rank"] == pytest.approx(4, rel=1e-3)
    assert numbers["reduction"] == pytest.approx(numbers["bound"])
    numbers = WatchMCR2(one, other, collapse=True, snapshot=1).values()
    labels = other.labels
    apart = other.cosines[1][labels[:, None] != labels].abs()
    assert numbers["between"] == pytest.approx(apart.mean().item(), abs=0.002)
    assert numbers["rank"] < 4


def test_what_does_not_belong_together_is_refused():
    Z, y = optimum()
    one = record(lambda X: X, Z, y)
    with pytest.raises(ValueError, match="give both trajectories"):
        WatchMCR2(one)
    with pytest.raises(ValueError, match=re.escape("at the same epochs, got [0, 1] and [0, 2]")):
        WatchMCR2(one, record(lambda X: X, Z, y, (0, 2)))
    with pytest.raises(ValueError, match="with the same test samples"):
        WatchMCR2(one, record(lambda X: X, *optimum(seed=1)))
    with pytest.raises(ValueError, match="with the same labels"):
        WatchMCR2(one, replace(one, labels=one.labels.flip(0)))
    for other in (record(lambda X: X, Z, y, eps=0.3), record(lambda X: X[:, :8], Z, y)):
        with pytest.raises(ValueError, match=r"got a bound of .* at rank 4 and a bound of .* at"):
            WatchMCR2(one, other)


def test_too_few_test_samples_or_no_record_are_named():
    Z, y = optimum()
    with pytest.raises(ValueError, match="at least 10 samples of each class, got 8 of class 3"):
        TrainingRecorder(lambda X: X, Z, y, Z[:104], y[:104], EPS)
    recorder = TrainingRecorder(lambda X: X, Z, y, Z, y, EPS)
    with pytest.raises(ValueError, match="nothing is recorded"):
        _ = recorder.trajectory
