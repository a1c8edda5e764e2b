"""Clustering by coding length: brute force, the book's example, invariances, bad input."""

import math
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from companion_lib import data
from companion_lib.compression import cluster_by_coding_length, coding_length, coding_rate

seeds = st.integers(0, 2**16)
few = settings(max_examples=10, deadline=None)
BITS = 358 * math.log(2)  # nats of a bit for each of the 358 vectors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def blobs(n, d, seed=0):
    """Samples near two random lines, alternately."""
    lines = randn(2, d, seed=seed)[torch.arange(n) % 2]
    return randn(n, 1, seed=seed + 1) * lines + 0.05 * randn(n, d, seed=seed + 2)


def cost(rows, n, eps, overhead):
    size, d = rows.shape
    S = torch.eye(d).double() + d / (size * eps**2) * rows.T @ rows
    return ((size + d * overhead) * torch.logdet(S) / 2).item() + size * math.log(n / size)


def steepest_descent(X, eps, overhead, start):
    """Try all pairs, always, each from its samples."""
    groups = {g: X[start == g] for g in start.unique().tolist()}
    lengths = [sum(cost(rows, len(X), eps, overhead) for rows in groups.values())]
    merges = []

    def saved(pair):
        parts = [groups[g] for g in pair]
        apart = sum(cost(part, len(X), eps, overhead) for part in parts)
        return apart - cost(torch.cat(parts), len(X), eps, overhead)

    while len(groups) > 1:
        i, j = best = max(combinations(sorted(groups), 2), key=saved)
        lengths.append(lengths[-1] - saved(best))
        groups[i] = torch.cat([groups[i], groups.pop(j)])
        merges.append([i, j])
    return merges, torch.tensor(lengths, dtype=torch.float64)


@pytest.fixture(scope="module")
def scene():
    return data.two_lines_and_a_plane(generator=generator())


# Coding length


@pytest.mark.parametrize("overhead", [True, False])
@pytest.mark.parametrize("eps", [0.1, 1.0, 30.0])
def test_length_by_hand(eps, overhead):
    X = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 2.0]]).double()
    # Group 0: 25 + 100 on one line; group 1: 4. d = 2.
    first = math.log(1 + 2 / (2 * eps**2) * 125) / 2
    second = math.log(1 + 2 / eps**2 * 4) / 2
    expected = (2 + 2 * overhead) * first + 2 * math.log(3 / 2)
    expected += (1 + 2 * overhead) * second + math.log(3)
    length = coding_length(X, torch.tensor([0, 0, 1]), eps, overhead)
    assert length.shape == () and length.dtype == torch.float64
    assert length.item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("overhead", [True, False])
@pytest.mark.parametrize("n, d", [(40, 3), (9, 12), (30, 1)])
def test_length_is_made_of_coding_rates(n, d, overhead):
    X, labels = randn(n, d), torch.arange(n) % 4
    expected = 0.0
    for group in range(4):
        rows = X[labels == group]
        expected += (len(rows) + d * overhead) * coding_rate(rows, 0.3).item()
        expected += len(rows) * math.log(n / len(rows))
    assert coding_length(X, labels, 0.3, overhead).item() == pytest.approx(expected, rel=1e-12)


@few
@given(seeds, st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_length_does_not_see_rotation_order_sign_names_or_units(seed, n, d, overhead):
    X, labels = randn(n, d, seed=seed), torch.randint(3, (n,), generator=generator(seed))
    order = torch.randperm(n, generator=generator(seed + 1))
    signs = randn(n, 1, seed=seed + 2).sign()
    moved = 7 * ((signs * X)[order] @ data.random_orthogonal(d, generator(seed)))
    names = torch.tensor([5, -3, 100])
    length = coding_length(X, labels, 0.4, overhead).item()
    other = coding_length(moved, names[labels[order]], 7 * 0.4, overhead).item()
    assert other == pytest.approx(length, rel=1e-10)


@few
@given(seeds, st.integers(1, 10), st.integers(1, 10))
def test_without_overhead_a_merge_saves_membership_only(seed, first, second):
    X = randn(first + second, 3, seed=seed)
    labels = torch.arange(first + second) >= first
    apart = coding_length(X, labels.long(), 0.2, overhead=False)
    together = coding_length(X, torch.zeros_like(labels).long(), 0.2, overhead=False)
    n = first + second
    membership = first * math.log(n / first) + second * math.log(n / second)
    assert apart - together <= membership + 1e-10


def test_nothing_to_code_but_the_groups():
    labels = torch.tensor([0, 0, 1, 2])
    length = coding_length(torch.zeros(4, 3), labels, 1e-3).item()
    assert length == pytest.approx(2 * math.log(2) + 2 * math.log(4), rel=1e-14)


def exact_cost(rows, n, eps, overhead):
    """``cost`` in rational numbers, up to the logarithm."""
    rows = [[Fraction(x) for x in row] for row in rows.tolist()]
    size, d = len(rows), len(rows[0])
    a = Fraction(d) / (size * Fraction(eps) ** 2)
    S = [[(i == j) + a * sum(r[i] * r[j] for r in rows) for j in range(d)] for i in range(d)]
    det = Fraction(1)
    for k in range(d):
        det *= S[k][k]
        for i in range(k + 1, d):
            S[i] = [x - S[i][k] / S[k][k] * y for x, y in zip(S[i], S[k], strict=True)]
    rate = (math.log(det.numerator) - math.log(det.denominator)) / 2
    return (size + d * overhead) * rate + size * math.log(n / size)


@few
@given(seeds, st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 1e-4, 1e-8]), st.booleans())
def test_lengths_are_exact_at_every_precision(seed, size, d, eps, overhead):
    """Where ``d`` exceeds the size, ones are left beside numbers of the size of 1/ε² = 1e16."""
    X, labels = randn(3 * size, d, seed=seed), torch.arange(3 * size) % 3
    exact = sum(exact_cost(X[labels == k], 3 * size, eps, overhead) for k in range(3))
    assert coding_length(X, labels, eps, overhead).item() == pytest.approx(exact, abs=1e-5)


def test_copies_cost_their_line_only_at_every_precision():
    """Each group a line, d/(n ε²) = 1e16: what leaves the line in rounding is not seen."""
    X, labels = randn(20, 3).repeat_interleave(4, 0), torch.arange(20).repeat_interleave(4)
    eps = 1e-8
    energies = 4 * X[::4].square().sum(1)
    expected = (7 / 2 * torch.log1p(3 / (4 * eps**2) * energies) + 4 * math.log(20)).sum()
    assert coding_length(X, labels, eps).item() == pytest.approx(expected.item(), abs=1e-5)


def peak_megabytes(call):
    """Return what numpy holds at most in a call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def test_memory_of_long_samples_and_of_their_pairs(largest_tensor):
    """An outer product for each sample would be 240 MB, a matrix for each pair 82 MB."""
    X, labels, singles = randn(3000, 100), torch.arange(3000) % 2, randn(64, 72)
    with largest_tensor:
        coding_length(X, labels, 0.1)
    assert largest_tensor.entries <= X.numel()
    assert peak_megabytes(lambda: coding_length(X, labels, 0.1)) < 30
    assert peak_megabytes(lambda: cluster_by_coding_length(singles, 0.1)) < 60


# Steepest descent


@few
@given(seeds, st.integers(2, 8), st.integers(1, 4), st.sampled_from([0.03, 0.3, 2]), st.booleans())
def test_the_merges_are_those_of_brute_force(seed, n, d, eps, overhead):
    X = blobs(n, d, seed)
    fit = cluster_by_coding_length(X, eps, overhead)
    merges, lengths = steepest_descent(X, eps, overhead, torch.arange(n))
    assert fit.merges.tolist() == merges
    assert torch.allclose(fit.lengths, lengths, rtol=1e-9)
    assert fit.start.tolist() == list(range(n))


@few
@given(seeds, st.booleans())
def test_starting_from_groups(seed, overhead):
    X, start = blobs(14, 3, seed), torch.arange(14) % 5
    fit = cluster_by_coding_length(X, 0.1, overhead, start=start)
    merges, lengths = steepest_descent(X, 0.1, overhead, start)
    assert fit.merges.tolist() == merges
    assert torch.allclose(fit.lengths, lengths, rtol=1e-9)
    renamed = cluster_by_coding_length(X, 0.1, overhead, start=100 * start - 7)
    assert torch.equal(renamed.labels, fit.labels)
    assert torch.equal(renamed.start, start)


@pytest.mark.parametrize("numbers", [1, 40])
def test_pairs_in_several_parts(monkeypatch, numbers):
    X = randn(20, 3)
    whole = cluster_by_coding_length(X, 0.1)
    monkeypatch.setattr("companion_lib.compression.clustering.NUMBERS", numbers)
    parts = cluster_by_coding_length(X, 0.1)
    assert torch.equal(parts.merges, whole.merges) and torch.equal(parts.lengths, whole.lengths)


@few
@given(seeds, st.integers(1, 30), st.sampled_from([0.02, 0.2, 1.0]), st.booleans())
def test_the_path_is_what_it_says(seed, n, eps, overhead):
    X = blobs(n, 3, seed)
    fit = cluster_by_coding_length(X, eps, overhead)
    assert fit.merges.shape == (n - 1, 2) and fit.lengths.shape == (n,)
    for steps in range(n):
        labels = fit.labels_after(steps)
        sizes = torch.bincount(labels)
        assert len(sizes) == n - steps and (sizes.diff() <= 0).all() and sizes.all()
        length = coding_length(X, labels, eps, overhead).item()
        assert fit.lengths[steps].item() == pytest.approx(length, rel=1e-9, abs=1e-9)
    assert torch.equal(fit.labels, fit.labels_after(fit.steps))
    assert fit.length == fit.lengths[fit.steps].item()
    assert (fit.lengths[: fit.steps + 1].diff() < 0).all()
    assert fit.steps == n - 1 or fit.lengths[fit.steps + 1] >= fit.lengths[fit.steps]


@few
@given(seeds, st.floats(0.1, 10))
def test_clusters_follow_rotation_order_sign_and_units(seed, scale):
    X = blobs(24, 3, seed)
    order = torch.randperm(24, generator=generator(seed))
    signs = randn(24, 1, seed=seed + 5).sign()
    moved = scale * ((signs * X)[order] @ data.random_orthogonal(3, generator(seed)))
    before = cluster_by_coding_length(X, 0.15)
    after = cluster_by_coding_length(moved, scale * 0.15)
    assert adjusted_rand_score(before.labels[order], after.labels) == 1
    assert torch.allclose(after.lengths, before.lengths, rtol=1e-9)


# Log10 of ε, clusters, bits per vector: with the description of subspaces, and without.
WITH = [(-6, 1, 58.5), (-4, 3, 35.4), (-3, 3, 25.2), (-2, 3, 15.0), (-1.3, 3, 8.7), (-0.75, 3, 5.3)]
WITH += [(-0.5, 1, 3.7), (0, 1, 0.85)]
WITHOUT = [(-7, 358, 31.5), (-4.5, 358, 23.2), (-1.3, 3, 8.55), (-0.75, 2, 5.8), (0, 1, 0.82)]


@pytest.mark.parametrize(
    "overhead, exponent, clusters, bits",
    [(True, *row) for row in WITH] + [(False, *row) for row in WITHOUT],
)
def test_two_lines_and_a_plane(scene, overhead, exponent, clusters, bits):
    X, labels = scene
    fit = cluster_by_coding_length(X, 10**exponent, overhead)
    assert len(fit.labels.unique()) == clusters
    assert fit.length / BITS == pytest.approx(bits, abs=0.15)
    if clusters == 3:
        assert adjusted_rand_score(labels, fit.labels) > 0.83


def test_steepest_descent_may_end_far_from_the_shortest_code(scene):
    X, labels = scene
    greedy = cluster_by_coding_length(X, 1e-6).length / BITS
    truth = coding_length(X, labels, 1e-6).item() / BITS
    assert truth == pytest.approx(55.9, abs=0.1)
    assert greedy > truth + 2


def test_subspaces_without_noise_are_found_exactly():
    g, basis = generator(), data.random_orthogonal(6, generator())
    parts = [randn(30, r, seed=r) @ basis[:, :r].T for r in (1,)]
    parts += [randn(40, 2, seed=7) @ basis[:, 1:3].T, randn(50, 3, seed=8) @ basis[:, 3:].T]
    truth = torch.arange(3).repeat_interleave(torch.tensor([30, 40, 50]))
    order = torch.randperm(120, generator=g)
    fit = cluster_by_coding_length(torch.cat(parts)[order], 0.01)
    assert adjusted_rand_score(truth[order], fit.labels) == 1
    assert torch.bincount(fit.labels).tolist() == [50, 40, 30]


@pytest.mark.parametrize("overhead", [True, False])
def test_what_the_first_merge_saves_is_exact_where_ones_drown(scene, overhead):
    """Of the products of two points, rounding would leave nothing of the ones at ε = 1e-8."""
    X = scene[0].double()
    fit = cluster_by_coding_length(X, 1e-8, overhead)
    pair = fit.merges[0].tolist()
    apart = sum(exact_cost(X[[i]], len(X), 1e-8, overhead) for i in pair)
    saved = apart - exact_cost(X[pair], len(X), 1e-8, overhead)
    assert (fit.lengths[0] - fit.lengths[1]).item() == pytest.approx(saved, abs=1e-6)
    assert (fit.steps == 0) == (saved <= 0)


# Corners


def test_one_sample_one_group_no_merge():
    for start in (None, torch.tensor([3])):
        fit = cluster_by_coding_length(torch.tensor([[3.0, 4.0]]), 0.5, start=start)
        assert fit.labels.tolist() == [0] and fit.steps == 0 and fit.merges.shape == (0, 2)
        assert fit.length == pytest.approx(3 / 2 * math.log(201), rel=1e-12)
    together = cluster_by_coding_length(randn(5, 2), 0.5, start=torch.ones(5).long())
    assert together.labels.tolist() == [0] * 5 and len(together.lengths) == 1


def test_copies_of_a_sample_share_a_cluster():
    fit = cluster_by_coding_length(torch.tensor([[1.0, 2.0], [-3.0, 1.0]]).repeat(6, 1), 0.01)
    assert fit.labels.tolist() == [0, 1] * 6
    assert cluster_by_coding_length(torch.zeros(5, 3), 0.1).labels.tolist() == [0] * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_computed_in_float64(dtype):
    X = blobs(20, 3).to(dtype)
    fit, exact = (cluster_by_coding_length(x, 0.1) for x in (X, X.double()))
    assert torch.equal(fit.merges, exact.merges) and torch.equal(fit.lengths, exact.lengths)
    length = coding_length(X, fit.labels, 0.1)
    assert length.dtype == torch.float64
    assert length.item() == pytest.approx(fit.length, rel=1e-13)


def test_samples_with_gradients_and_precisions_as_tensors():
    X, labels = blobs(20, 3), torch.arange(20) % 3
    plain, fit = coding_length(X, labels, 0.1), cluster_by_coding_length(X, 0.1)
    for samples in (X, X.clone().requires_grad_()):
        for tracked in (False, True):
            eps = torch.tensor(0.1, dtype=torch.float64, requires_grad=tracked)
            length = coding_length(samples, labels, eps)
            assert torch.equal(length, plain) and not length.requires_grad
            assert torch.equal(cluster_by_coding_length(samples, eps).lengths, fit.lengths)


def test_clusters_are_where_the_samples_are():
    """Without a GPU at hand, with the one device that computes nothing."""
    fit = cluster_by_coding_length(blobs(20, 3), 0.1)
    elsewhere = replace(fit, labels=fit.labels.to("meta"))
    assert elsewhere.labels_after(3).device.type == "meta"
    assert fit.labels_after(3).device == fit.start.device == fit.labels.device


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_extreme_units(scale):
    X, labels = blobs(20, 3), torch.arange(20) % 3
    length = coding_length(scale * X, labels, scale * 0.1).item()
    assert length == pytest.approx(coding_length(X, labels, 0.1).item(), rel=1e-12)
    names = cluster_by_coding_length(X, 1e200).lengths  # only who is in which group
    assert names[0].item() == pytest.approx(20 * math.log(20)) and abs(names[-1].item()) < 1e-10


def test_input_is_untouched_and_result_repeats():
    X, start = blobs(20, 3), torch.arange(20) % 7
    copies = X.clone(), start.clone()
    first, second = (cluster_by_coding_length(X, 0.1, start=start) for _ in range(2))
    assert torch.equal(X, copies[0]) and torch.equal(start, copies[1])
    assert torch.equal(first.lengths, second.lengths)
    clusters = len(first.labels.unique())
    assert repr(first) == f"CodingLengthClustering({clusters} clusters of 20 samples)"


# Bad input

ONES = torch.ones(4, 3)
NAN, INF = float("nan"), float("inf")
BAD = [
    (([[1.0]], 1.0), TypeError, "X must be a torch.Tensor, got list"),
    ((ONES.long(), 1.0), TypeError, "X must hold floating-point numbers"),
    ((torch.ones(4), 1.0), ValueError, r"X must have 2 axes, got shape \(4,\)"),
    ((torch.ones(0, 3), 1.0), ValueError, "X is empty"),
    ((torch.full((4, 3), NAN), 1.0), ValueError, "X must be finite, got 12"),
    ((torch.full((4, 3), INF), 1.0), ValueError, "X must be finite, got 12"),
    ((ONES, 0.0), ValueError, "eps must be positive and finite, got 0.0"),
    ((ONES, -1.0), ValueError, "eps must be positive and finite, got -1.0"),
    ((ONES, NAN), ValueError, "eps must be positive and finite, got nan"),
    ((ONES, INF), ValueError, "eps must be positive and finite, got inf"),
    ((ONES, torch.ones(2)), ValueError, r"eps must be one number, got shape \(2,\)"),
    ((ONES, 1e-170), ValueError, "eps must be at least 1e-150 of the largest .*, got 1e-170"),
]
BAD_GROUPS = [torch.zeros(4), torch.zeros(3).long(), torch.zeros(4, 1).long(), [0, 0, 1, 1]]


@pytest.mark.parametrize("arguments, error, message", BAD)
def test_bad_input(arguments, error, message):
    X, eps = arguments
    with pytest.raises(error, match=message):
        cluster_by_coding_length(X, eps)
    with pytest.raises(error, match=message):
        coding_length(X, torch.zeros(4).long(), eps)


@pytest.mark.parametrize("groups", BAD_GROUPS, ids=["float", "short", "matrix", "list"])
def test_bad_groups(groups):
    with pytest.raises(ValueError, match=r"^start must be 4 integers, one for each row, got"):
        cluster_by_coding_length(ONES, 1.0, start=groups)
    with pytest.raises(ValueError, match=r"^labels must be 4 integers, one for each row, got"):
        coding_length(ONES, groups, 1.0)


@pytest.mark.parametrize(
    "steps, error, message",
    [
        (4, ValueError, "steps must be between 0 and number of merges = 3, got 4"),
        (-1, ValueError, "steps must be between 0 .*got -1"),
        (1.5, TypeError, "steps must be an integer, got 1.5"),
    ],
)
def test_no_such_step(steps, error, message):
    fit = cluster_by_coding_length(randn(4, 2), 1.0)
    with pytest.raises(error, match=message):
        fit.labels_after(steps)
