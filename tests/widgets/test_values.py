"""The widgets show what the chapter says: the numbers behind the pictures."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from companion_lib.compression import best_rank, coding_rate
from companion_lib.denoising import (
    FlowMatching,
    PartialMemorizer,
    VarianceExploding,
    VariancePreserving,
    subspace_mixture,
    uniform_angles,
)
from companion_lib.widgets import (
    BlurAndUnblur,
    ClusterByCost,
    CodingRatePlayground,
    EdgeOfMemorization,
    ISTAUnrolled,
    RankAgainstEpsilon,
    RankAndNoise,
    RateMeter,
    RotateAndWatch,
    SamplerRace,
    WatchMCR2,
)
from companion_lib.widgets.edge_of_memorization import train_memorizers
from companion_lib.widgets.encoding import unpack

VP = VariancePreserving()


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


def log2_det_rate(Z: np.ndarray, eps: float) -> float:
    """The coding rate in bits by NumPy's determinant, for comparison."""
    n, d = Z.shape
    return 0.5 * np.linalg.slogdet(np.eye(d) + d / (n * eps**2) * Z.T @ Z)[1] / math.log(2)


@pytest.mark.parametrize("d", [2, 3])
def test_bars_add_up_to_the_rate_of_all_points(d):
    widget = CodingRatePlayground(d=d, eps=0.2)
    numbers, Z = widget.values(), widget.samples.numpy()
    apart = [log2_det_rate(Z[widget.classes == k], 0.2) / d for k in range(d)]
    assert [numbers[f"share_{k + 1}"] for k in range(d)] == pytest.approx(apart)
    assert numbers["rate"] == pytest.approx(log2_det_rate(Z, 0.2))
    assert numbers["reduction"] == pytest.approx(numbers["rate"] - sum(apart))


def test_reduction_peaks_at_a_right_angle_and_classes_cost_the_same_at_all():
    widget, reductions, apart = CodingRatePlayground(), [], []
    angles = range(10, 180, 10)
    for angle in angles:
        widget.angle = angle
        assert widget.angle == pytest.approx(angle)
        reductions.append(widget.values()["reduction"])
        apart.append(widget.values()["class_rate"])
    assert angles[int(np.argmax(reductions))] == 90
    assert apart == pytest.approx([apart[0]] * len(apart))


def test_reduction_grows_with_scale_and_only_scale_over_precision_counts():
    widget, reductions = CodingRatePlayground(d=3), []
    for scale in (0.3, 0.6, 1.2):
        widget.scale = scale
        assert widget.values()["scale"] == pytest.approx(scale)
        reductions.append(widget.values()["reduction"])
    assert reductions == sorted(reductions)
    widget.eps, widget.scale = widget.eps / 2, 0.6
    assert widget.values()["reduction"] == pytest.approx(reductions[-1])


@pytest.mark.parametrize("length", [0, -1, math.nan, math.inf])
def test_a_scale_that_is_no_length_is_refused(length):
    widget = CodingRatePlayground()
    before = widget.points
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        widget.scale = length
    assert widget.points == before


def test_points_at_zero_cost_nothing_and_cannot_be_stretched():
    widget = CodingRatePlayground()
    widget.points = [[0, 0]] * 24
    assert widget.values()["rate"] == widget.scale == 0
    with pytest.raises(ValueError, match="while all points are zero"):
        widget.scale = 1


@pytest.mark.parametrize("d", [2, 3])
def test_orthogonal_lines_of_unit_length_have_the_most_reduction(d):
    widget = CodingRatePlayground(d=d)
    lines = torch.eye(d, dtype=torch.float64)[widget.classes]
    widget.points = lines.tolist()
    assert widget.values()["reduction"] == pytest.approx(widget.values()["most"])
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(lines.shape, generator=generator, dtype=torch.float64)
    widget.points = torch.nn.functional.normalize(other).tolist()
    assert widget.values()["reduction"] < widget.values()["most"]


def test_classes_that_coincide_can_still_be_turned():
    for d in (2, 3):
        widget = CodingRatePlayground(d=d)
        line = widget.samples[:12]
        widget.points = line.repeat(d, 1).tolist()
        assert widget.angle == pytest.approx(0, abs=1e-6)
        widget.angle = 75
        assert widget.angle == pytest.approx(75)


def test_the_rank_of_the_chapter_s_example():
    """Four classes in 16 dimensions, ε² = ½: full rank, and 4.394449 nats."""
    numbers = RankAgainstEpsilon(eps=math.sqrt(0.5), k=4, d=16).values()
    assert numbers["best_rank"] == numbers["full_rank"] == 4
    assert numbers["best"] * math.log(2) == pytest.approx(4.394449, abs=1e-6)
    numbers = RankAgainstEpsilon(eps=math.sqrt(2), k=4, d=16).values()
    assert numbers["best_rank"] == 2
    assert numbers["best"] > numbers["full"]


@pytest.mark.parametrize(("k", "d"), [(2, 4), (2, 64), (5, 33), (10, 64)])
def test_full_rank_is_best_up_to_the_marked_precision_and_no_further(k, d):
    limit = RankAgainstEpsilon(k=k, d=d).values()["full_rank_eps"]
    assert best_rank(k, d, limit * (1 - 1e-9)) == d // k
    assert best_rank(k, d, limit * (1 + 1e-9)) == d // k - 1


def test_twice_the_epsilon_leaves_a_quarter_of_the_rank():
    widget, ranks = RankAgainstEpsilon(k=2, d=64, eps=1), []
    for eps in (1.0, 2.0, 4.0):
        widget.eps = eps
        numbers = widget.values()
        ranks.append(numbers["free_rank"])
        assert abs(numbers["best_rank"] - numbers["free_rank"]) < 1
    assert ranks == pytest.approx([ranks[0], ranks[0] / 4, ranks[0] / 16])


def test_lines_are_full_rank_at_every_precision_if_there_is_no_more_room():
    assert RankAgainstEpsilon(k=4, d=7, eps=5).values()["full_rank_eps"] == math.inf


@pytest.fixture(scope="module")
def by_cost():
    return ClusterByCost()


@pytest.mark.parametrize("power", [-8.0, -5.0, -3.0, -1.5, 0.25])
@pytest.mark.parametrize("overhead", [False, True])
def test_clusters_cost_what_their_coding_rates_say(by_cost, power, overhead):
    by_cost.eps, by_cost.overhead = 10**power, overhead
    for merges in (0, 200, 350, 357):
        by_cost.merges = merges
        nats = 0.0
        for label in by_cost.labels.unique():
            part = by_cost.points[by_cost.labels == label]
            rate = coding_rate(part, 10**power).item()
            nats += (len(part) + 3 * overhead) * rate + len(part) * math.log(358 / len(part))
        bits = nats / 358 / math.log(2)
        assert by_cost.values()["bits"] == pytest.approx(bits, rel=1e-9)


def test_the_three_regimes_of_the_figure_and_which_of_them_is_real(by_cost):
    by_cost.overhead, by_cost.eps = True, 1e-3
    numbers = by_cost.values()
    assert numbers["clusters"] == 3
    assert numbers["rand"] > 0.9
    cheapest = min(numbers["true_bits"], numbers["one_bits"], numbers["alone_bits"])
    assert numbers["greedy_bits"] <= cheapest
    by_cost.eps = 1e-6  # one cluster, at more bits than the truth
    numbers = by_cost.values()
    assert numbers["clusters"] == 1
    assert numbers["greedy_bits"] > numbers["true_bits"] + 2
    by_cost.eps = 1e-8  # every point alone, at more bits than either
    numbers = by_cost.values()
    assert numbers["clusters"] == 358
    assert numbers["greedy_bits"] > numbers["one_bits"] + 20 > numbers["true_bits"] + 20


def test_without_overhead_memorizing_is_cheapest_for_small_eps(by_cost):
    by_cost.overhead, by_cost.eps = False, 1e-6
    numbers = by_cost.values()
    assert numbers["clusters"] > 350
    assert numbers["alone_bits"] + 20 < min(numbers["true_bits"], numbers["one_bits"])


@pytest.mark.parametrize(
    ("t", "nats", "growth"),
    [(0.5, 4.0699, 1.2888), (1, 4.5842, 0.8214), (2, 5.2075, 0.4993), (10, 7.5281, 0.1840)],
)
def test_entropy_and_its_growth_under_noise(t, nats, growth):
    """Quadrature on another grid, of 1,501² points."""
    numbers = BlurAndUnblur(t=t, s=0.05).values()
    assert numbers["entropy"] * math.log(2) == pytest.approx(nats, abs=1e-4)
    assert numbers["growth"] * math.log(2) == pytest.approx(growth, abs=1e-4)
    assert numbers["clean_entropy"] * math.log(2) == pytest.approx(3.4607, abs=1e-4)


@pytest.mark.parametrize("t", [0.2, 1.0, 4.0])
def test_a_step_compresses_by_more_than_its_bound_and_a_short_one_retraces_the_noise(t):
    gains = []
    for share in (0.25, 0.5, 0.999):
        numbers = BlurAndUnblur(t=t, s=max(share * t, 0.05)).values()
        assert numbers["gain"] > numbers["bound"] > 0
        assert numbers["step_entropy"] == pytest.approx(numbers["entropy"] - numbers["gain"])
        gains.append(numbers["gain"])
    assert gains == sorted(gains, reverse=True)
    added = numbers["entropy"] - BlurAndUnblur(t=0.999 * t, s=0.05).values()["entropy"]
    assert numbers["gain"] == pytest.approx(added, rel=2e-3)
    assert BlurAndUnblur(t=t, s=t).values()["gain"] == 0


def test_many_small_steps_bring_the_entropy_of_the_data_back_and_one_long_one_does_not():
    found = [BlurAndUnblur(t=8, steps=steps).values() for steps in (1, 5, 20, 64)]
    ways = [numbers["way_entropy"] for numbers in found]
    assert ways == sorted(ways)
    assert ways[0] < found[0]["clean_entropy"] - 1.5
    assert ways[-1] == pytest.approx(found[-1]["clean_entropy"], abs=0.04)


def test_one_step_to_zero_ends_at_the_conditional_mean():
    """Of 200,000 samples of the data, weighted by how well they explain a particle."""
    widget = BlurAndUnblur(t=1.5, steps=1)
    X = widget.mixture.sample(200_000, torch.Generator().manual_seed(0))
    starts, ends = widget.paths
    for start, end in zip(starts, ends, strict=True):
        weights = torch.softmax((X - start).square().sum(1) / (-2 * 1.5**2), 0)
        mean, spread = weights @ X, (weights @ X.square() - (weights @ X).square()).sqrt()
        error = spread * weights.square().sum().sqrt()
        assert ((mean - end).abs() < 5 * error).all()


def test_rate_reduction_keeps_directions_and_cross_entropy_collapses():
    diverse, collapsed = (WatchMCR2(snapshot=15, collapse=c).values() for c in (False, True))
    assert diverse["rank"] > 5
    assert collapsed["rank"] < 1.5
    assert diverse["reduction"] > 2 * collapsed["reduction"]
    assert diverse["reduction"] < diverse["bound"]
    # Both separate the classes; only one lets each of them spread out.
    assert diverse["within"] < 0.4 < 0.8 < collapsed["within"]
    assert diverse["between"] < 0.1
    assert WatchMCR2(snapshot=0).values()["between"] > 0.5


def test_both_trainings_start_from_one_network():
    assert WatchMCR2().values() == WatchMCR2(collapse=True).values()


def race(process: str, grid: str, order: int, steps: int) -> dict[str, float]:
    """Return the numbers of one sampler."""
    widget = SamplerRace(process, grid, order, steps)
    return {name[:-2]: value for name, value in widget.values().items() if name.endswith("_a")}


@pytest.mark.parametrize(
    ("choice", "errors"),
    [
        (("VP", "uniform", 1), {8: 0.1425, 16: 0.0793, 32: 0.0436, 64: 0.0237}),
        (("VP", "angle", 1), {8: 0.1031, 16: 0.0517, 32: 0.0260, 64: 0.0130}),
        (("VP", "angle", 2), {8: 0.1274, 16: 0.0252, 32: 0.0034, 64: 0.0019}),
        (("FM", "uniform", 1), {8: 0.0976, 16: 0.0491, 32: 0.0247, 64: 0.0124}),
        (("VE", "uniform", 1), {8: 0.6104, 16: 0.3677, 32: 0.2454, 64: 0.1307}),
        (("VE", "exponential", 1), {8: 0.1286, 16: 0.0637, 32: 0.0320, 64: 0.0166}),
    ],
)
def test_the_errors_of_the_samplers_by_another_program(choice, errors):
    """NumPy, derivatives by hand, the positive part of q - p, and four times as many points.

    The steep part of the map between the bumps leaves 4,001 points an error of up to 3e-4.
    """
    for steps, error in errors.items():
        assert race(*choice, steps)["tv"] == pytest.approx(error, abs=3e-4)


def test_first_order_samplers_halve_their_error_with_twice_the_calls():
    for choice in (("VP", "angle"), ("FM", "uniform")):
        assert race(*choice, 1, 8)["slope"] == pytest.approx(-1, abs=0.03)
    assert race("VP", "uniform", 1, 8)["slope"] == pytest.approx(-0.86, abs=0.02)
    assert race("FM", "uniform", 2, 8)["slope"] < -1.7


def test_the_process_makes_no_difference_at_the_same_log_snrs():
    for order in (1, 2):
        numbers = [race(process, "log_snr", order, 12) for process in ("VE", "VP", "FM")]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-9)
        assert numbers[2] == pytest.approx(numbers[0], rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_every_choice_of_the_race_gives_a_map_that_rises(order):
    """The formula of total variation is for such maps."""
    pairs = [("VE", "exponential"), ("VP", "angle")]
    pairs += [(process, grid) for process in ("VE", "VP", "FM") for grid in ("uniform", "log_snr")]
    for process, grid in pairs:
        for steps in (2, 3, 4, 5, 6, 7, 10, 64):
            _, F, dF, _ = SamplerRace(process, grid, order, steps).transport("a")
            assert dF.min() > 0
            assert F.diff().min() > 0


def test_the_exact_map_takes_quantiles_to_quantiles():
    z, _, _, exact = SamplerRace().transport("b")
    normal = torch.distributions.Normal(torch.zeros(()), 1.0)
    levels = 0.3 * normal.cdf((exact + 1.5) / 0.05**0.5) + 0.7 * normal.cdf((exact - 1) / 0.2**0.5)
    assert (levels - normal.cdf(z)).abs().max() < 1e-6
    assert exact.diff().min() > 0
    upper = 0.3 * torch.erfc((exact + 1.5) / 0.1**0.5) + 0.7 * torch.erfc((exact - 1) / 0.4**0.5)
    tail = z > 3
    assert (upper / torch.erfc(z / 2**0.5))[tail].log().abs().max() < 1e-9


def test_one_call_from_pure_noise_gives_the_mean():
    widget = SamplerRace("VP", "uniform", 1, 1)
    assert (widget.transport("a")[1] - (0.7 - 0.45)).abs().max() < 1e-12
    numbers = widget.values()
    assert numbers["tv_a"] == pytest.approx(1, abs=1e-9)
    assert numbers["share_a"] == 0


def test_many_calls_put_the_samples_where_the_exact_map_does():
    numbers = race("FM", "uniform", 2, 64)
    assert numbers["tv"] < 0.002
    assert numbers["gap"] < 0.002
    assert numbers["share"] == pytest.approx(0.3, abs=1e-3)


def test_digits_are_memorized_at_the_edge_and_the_gap_opens_before():
    widget = EdgeOfMemorization()
    for size, several in zip((50, 100, 200), widget.data["models"], strict=True):
        assert size / 2 < max(max(pair) for one in several for pair in one["nearest"]) < size
        widget.size, found = size, []
        for tenths in range(1, 11):
            widget.capacity = tenths / 10
            found.append(widget.values())
            assert found[-1]["means"] == size * tenths // 10
        ratios, gaps, losses = ([one[name] for one in found] for name in ("ratio", "gap", "loss"))
        assert ratios[4] < 0.1 and ratios[9] > 0.8
        assert 0.7 < found[0]["edge"] < 0.95
        assert gaps == sorted(gaps) and losses == sorted(losses, reverse=True)
        # Where hardly anything is copied yet, the gap has doubled, and new images lose already.
        assert gaps[4] > 2 * gaps[0]
        assert found[0]["best"] <= 0.4 and found[4]["held_out"] > found[0]["held_out"]


@pytest.fixture(scope="module")
def points():
    """Training and held-out images of 3 x 3 pixels."""
    return torch.rand(640, 9, generator=torch.Generator().manual_seed(3)).split(40)[:2]


def balls(X, counts, variance):
    return [PartialMemorizer(X[:count], VP, variance).requires_grad_(False) for count in counts]


def test_models_that_hold_training_points_copy_them(points):
    X, held_out = points
    models = {20: balls(X, (10, 20), 1e-8), 40: balls(X, (20, 40), 0.5)}
    widget = EdgeOfMemorization(models, X, held_out, size=20)
    assert (widget.capacity, repr(widget)) == (1.0, "EdgeOfMemorization(capacity=1.0, size=20)")
    numbers = widget.values()
    assert (numbers["ratio"], numbers["framed"], numbers["means"]) == (1, 12, 20)
    assert numbers["edge"] == 0.25  # on the line from no means and no copies to half the points
    widget.capacity = 0.5
    assert (widget.values()["ratio"], widget.values()["means"]) == (1, 10)
    assert all(near < 10 for near, _ in widget.data["models"][0][0]["nearest"])
    widget.size = 40
    assert widget.values()["ratio"] < 0.1
    assert widget.values()["edge"] == math.inf


@pytest.mark.parametrize("process", [VP, VarianceExploding(), FlowMatching()], ids=repr)
def test_losses_are_the_means_over_angles(points, process):
    """One ball at zero denoises linearly: its loss is an integral over the angle."""
    X, held_out = (part - 0.5 for part in points)
    held_out = held_out * torch.linspace(0.1, 2, 40)[:, None]  # each has to meet all angles
    model = PartialMemorizer(torch.zeros(1, 9), process, 0.07).requires_grad_(False)
    several = [model, PartialMemorizer(torch.zeros(2, 9), process, 0.07).requires_grad_(False)]
    widget = EdgeOfMemorization({2: several}, X, held_out, capacity=0.5)
    t = uniform_angles(process)((torch.arange(4000) + 0.5) / 4000)
    alpha, sigma = process.alpha(t), process.sigma(t)
    shrink = alpha * 0.07 / (alpha**2 * 0.07 + sigma**2)
    total = X.var(0, correction=0).sum()
    for name, part in (("loss", X[:2]), ("held_out", held_out)):
        square = part.square().sum(1).mean()
        loss = (square * (1 - shrink * alpha) ** 2 + 9 * (shrink * sigma) ** 2).mean()
        # 3,200 noised points, whose errors vary by their own size
        assert widget.values()[name] == pytest.approx(100 * (loss / total).item(), rel=0.05)
    assert widget.values()["within"] == pytest.approx(9 * 7 / total.item(), rel=1e-3)


def test_pictures_are_the_points_and_distances_those_of_the_pictures(points):
    X, held_out = points
    model = {40: balls(X, (20, 40), 1e-3)}
    widget = EdgeOfMemorization(model, (X - 0.5) * 2, held_out, lambda x: x / 2 + 0.5)
    pictures = unpack(widget.data["images"])
    assert torch.allclose(pictures[:40], X.double(), atol=0.5 / 127)
    for k, one in enumerate(widget.data["models"][0]):
        samples = pictures[40 + 12 * k :][:12]
        for sample, nearest, distances in zip(
            samples, one["nearest"], one["distances"], strict=True
        ):
            apart = 2 * (sample - pictures[nearest]).norm(dim=1)
            inside = (sample > 0).all() and (sample < 1).all()  # else clipped
            assert not inside or apart.tolist() == pytest.approx(distances, abs=0.03)


def test_training_moves_every_model_on_its_own(points):
    X, _ = points
    generator = torch.Generator()
    alone, pair = (
        train_memorizers(X, VP, counts, 20, generator.manual_seed(1))[-1]
        for counts in ([30], [10, 30])
    )
    assert torch.allclose(alone.means, pair.means, rtol=1e-5)
    assert alone.log_variance < math.log(0.1)
    assert not torch.equal(alone.means, X[:30]) and not alone.means.requires_grad


def refused_models(points):
    X, held_out = points
    two = balls(X, (20, 40), 0.1)
    wide = torch.rand(4000, 64)
    return [
        ({"models": {40: two}}, ValueError, "give all of models, X and held_out, or none"),
        ({"X": X, "held_out": X}, ValueError, "give all of models, X and held_out, or none"),
        (({}, X, X), ValueError, "the number of sizes in models must be between 1 and 4, got 0"),
        (({41: two}, X, X), ValueError, "between 2 and the number of rows of X = 40, got 41"),
        (({40: [*two, X]}, X, X), TypeError, "must hold PartialMemorizers, got Tensor for N = 40"),
        (({40: two}, X[:, :4], X[:, :4]), ValueError, "the means of models must have shape"),
        (({40: two}, X, held_out[:, :4]), ValueError, "held_out must have"),
        (({40: two}, X, held_out * math.nan), ValueError, "held_out must be finite"),
        (({40: two[:1]}, X, X), ValueError, "the number of models of each size must be between 2"),
        (({40: two[::-1]}, X, X), ValueError, "must rise in equal steps, got [1.0, 0.5]"),
        (({40: [*two, two[1]]}, X, X), ValueError, "must rise in equal steps"),
        (({40: two, 20: two}, X, X), ValueError, "the same capacities M/N for every N, got"),
        (({40: two}, X, X, lambda x: x[:, :8]), ValueError, "a square number of pixels for each"),
        (({40: two}, X, X, lambda x: x[:-1]), ValueError, "a square number of pixels for each"),
        (({4000: balls(wide, (2000, 4000), 0.1)}, wide, wide), ValueError, "at most 200000 pixels"),
    ]


def test_models_that_do_not_fit_are_refused(points):
    for given, error, message in refused_models(points):
        with pytest.raises(error, match=re.escape(message)):
            EdgeOfMemorization(**given) if isinstance(given, dict) else EdgeOfMemorization(*given)
    with pytest.raises(ValueError, match="each of counts must be between 1 and"):
        train_memorizers(points[0], VP, [41])


def test_prices_of_a_gaussian_and_of_planes_are_those_of_the_formulas():
    """½ log2 det(I + s Σ); which plane, but for doubt, and half a bit a dimension and doubling."""
    widget = RateMeter()
    generator = torch.Generator().manual_seed(0)
    planes = torch.linalg.qr(torch.randn(6, 8, 2, dtype=torch.float64, generator=generator)).Q
    samples = planes.permute(0, 2, 1).reshape(12, 8) * 2**0.5  # of the same second moments
    law = subspace_mixture(planes)
    x = law.sample(20_000, torch.Generator().manual_seed(1))
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    for snr in (0.1, 3.0, 77.0, 1e4):
        widget.snr = snr
        numbers = widget.values()
        rate = coding_rate(samples, (8 / snr) ** 0.5).item() / math.log(2)
        assert numbers["gaussian"] == pytest.approx(rate, rel=0.005)
        weights = law.posterior(x + noise / snr**0.5, 1.0, snr**-0.5)
        doubt = torch.special.entr(weights).sum(1).mean().item() / math.log(2)
        exact = math.log2(6) - doubt + math.log2(1 + snr)
        assert numbers["planes"] == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("size", [16, 64, 256, 1024, 4096])
def test_a_memory_pays_the_logarithm_of_its_size_and_new_samples_pay_more_and_more(size):
    widget = RateMeter(snr=1e4, size=size)
    assert widget.values()["memory"] == pytest.approx(math.log2(size), abs=0.5)
    fresh = RateMeter(snr=1e4, size=size, new=True).values()
    assert fresh["memory"] > 2 * fresh["gaussian"]
    assert 0.3 < fresh["crossing"] < 1e4
    assert size / 6 < fresh["turn"] < 2.5 * size / 6
    for new in (False, True):  # coarse noise: nobody can tell a memory from the law
        widget.snr, widget.new = 0.3, new
        numbers = widget.values()
        assert numbers["memory"] == pytest.approx(numbers["planes"], abs=0.08)


def test_crossings_are_where_prices_are_equal():
    for size in (16, 1024):
        widget = RateMeter(size=size, new=True)
        numbers = widget.values()
        widget.snr = numbers["turn"]
        assert widget.values()["planes"] == pytest.approx(math.log2(size), rel=1e-6)
        widget.snr = numbers["crossing"]
        at = widget.values()
        assert at["memory"] == pytest.approx(at["gaussian"] + 0.1, rel=1e-6)
        widget.snr *= 1.5
        assert widget.values()["memory"] > 1.1 * widget.values()["gaussian"]
