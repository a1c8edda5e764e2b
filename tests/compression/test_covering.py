"""Covering: brute force, the square, the packing property, memory, bad input."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from companion_lib import data
from companion_lib.compression import covering_radius, greedy_cover

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def grid(*axes):
    return torch.cartesian_prod(*(axis.double() for axis in axes))


def least_number(points, radius):
    """Fewest of the points within ``radius`` of which all are, by trying all subsets."""
    near = torch.cdist(points, points) <= radius
    for m in range(1, len(points) + 1):
        for subset in combinations(range(len(points)), m):
            if near[list(subset)].any(0).all():
                return m


# Radius


def test_radius_by_hand():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 1.0]]).double()
    assert covering_radius(points, points[:1]).item() == pytest.approx(101**0.5, rel=1e-15)
    assert covering_radius(points, points[[0, 2]]).item() == 5
    assert covering_radius(points, points).item() == 0


@pytest.mark.parametrize("n, m, d", [(50, 7, 3), (1, 4, 2), (40, 1, 30), (3000, 2000, 2)])
def test_radius_agrees_with_a_tree(n, m, d):
    points, centers = randn(n, d), randn(m, d, seed=1)
    farthest = cKDTree(centers.numpy()).query(points.numpy())[0].max()
    radius = covering_radius(points, centers)
    assert radius.shape == ()
    assert radius.item() == pytest.approx(farthest, rel=1e-13)


@pytest.mark.parametrize("side, radius", [(4, 0.17678), (8, 0.08839), (16, 0.04419)])
def test_the_square_by_a_square_grid(side, radius):
    """Half the diagonal of a cell: less than the book's .1782 and .0886 for 16 and 64 discs."""
    middles = (torch.arange(side).double() + 0.5) / side
    ticks = torch.linspace(0, 1, 4 * side + 1)  # with the corners of the cells
    found = covering_radius(grid(ticks, ticks), grid(middles, middles)).item()
    assert found == pytest.approx(2**0.5 / (2 * side), rel=1e-12)
    assert found == pytest.approx(radius, abs=5e-6)


def test_points_that_nearly_coincide():
    """A matrix product would round these distances to zero, or to 1e-7."""
    points = randn(40, 30)
    shift = torch.zeros(30).double()
    shift[4] = 2.0**-40
    assert covering_radius(points, points + shift).item() == pytest.approx(2**-40, rel=1e-3)


@few
@given(seeds, st.floats(1e-3, 1e3), st.integers(1, 4))
def test_radius_follows_scale_and_sees_no_motion(seed, scale, d):
    points, centers = randn(20, d, seed=seed), randn(6, d, seed=seed + 1)
    Q, shift = data.random_orthogonal(d, generator(seed)), randn(d, seed=seed + 2)
    moved = covering_radius(scale * points @ Q + shift, scale * centers @ Q + shift)
    assert moved.item() == pytest.approx(scale * covering_radius(points, centers).item(), 1e-9)
    assert covering_radius(points, centers[:5]) >= covering_radius(points, centers)


def test_no_more_than_four_million_distances_at_a_time(largest_tensor):
    points, centers = randn(9000, 2), randn(1000, 2)
    with largest_tensor:
        covering_radius(points, centers)
    assert 2**21 < largest_tensor.entries <= 2**22


# Greedy cover


@few
@given(seeds, st.integers(1, 40), st.integers(1, 4), st.floats(0.05, 3))
def test_the_balls_cover_and_their_centers_are_apart(seed, n, d, eps):
    points = randn(n, d, seed=seed)
    cover = greedy_cover(points, eps)
    centers = points[cover.indices]
    assert cover.indices[0] == 0 and len(cover) == len(cover.indices) == len(cover.radii)
    assert cover.radius == cover.radii[-1].item() <= eps
    assert covering_radius(points, centers).item() == pytest.approx(cover.radius, abs=1e-14)
    apart = torch.pdist(centers)
    assert (apart > eps).all()
    assert (cover.radii[:-1] > eps).all()


@few
@given(seeds, st.integers(1, 25), st.integers(1, 3))
def test_each_center_is_the_point_farthest_from_those_before(seed, n, d):
    points = randn(n, d, seed=seed)
    cover = greedy_cover(points, 0.2)
    distances = torch.cdist(points, points)
    for m in range(1, len(cover) + 1):
        nearest = distances[cover.indices[:m]].amin(0)
        assert cover.radii[m - 1].item() == pytest.approx(nearest.max().item(), abs=1e-7)
        if m < len(cover):
            assert cover.indices[m] == nearest.argmax()


@few
@given(seeds, st.integers(1, 8), st.floats(0.1, 3))
def test_between_the_covering_numbers_of_eps_and_half_of_it(seed, n, eps):
    points = randn(n, 2, seed=seed)
    assert least_number(points, eps) <= len(greedy_cover(points, eps))
    assert len(greedy_cover(points, eps)) <= least_number(points, eps / 2)


@few
@given(seeds, st.integers(1, 4))
def test_never_more_than_twice_the_best_radius(seed, m):
    """Gonzalez: of all sets of m of the points, none has less than half the radius."""
    points = randn(8, 2, seed=seed)
    radii = greedy_cover(points, 0.0).radii
    best = min(covering_radius(points, points[list(c)]) for c in combinations(range(8), m))
    assert best <= radii[m - 1] <= 2 * best + 1e-12


@pytest.mark.parametrize("power", [0, 1, 2, 3])
def test_a_circle_is_halved_and_halved(power):
    angles = torch.arange(64).double() * 2 * math.pi / 64
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    m = 2**power
    chord = 2 * math.sin(math.pi / (2 * m))  # from a center halfway to the next
    assert len(greedy_cover(circle, chord + 1e-9)) == m
    assert greedy_cover(circle, chord + 1e-9).radius == pytest.approx(2 * math.sin(math.pi / 2 / m))


def test_precision_zero_takes_every_point_once():
    points = torch.tensor([[0.0], [5.0], [0.0], [1.0], [5.0]])
    cover = greedy_cover(points, 0)
    assert cover.indices.tolist() == [0, 1, 3]
    assert cover.radii.tolist() == [5, 1, 0]
    assert repr(cover) == "GreedyCover(3 centers)"


def test_one_point_is_its_own_cover():
    cover = greedy_cover(torch.tensor([[2.0, 3.0]]), 0.1)
    assert cover.indices.tolist() == [0] and cover.radius == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    points, centers = randn(30, 3).to(dtype), randn(5, 3, seed=1).to(dtype)
    radius = covering_radius(points, centers)
    assert radius.dtype == torch.float32
    assert torch.equal(radius, covering_radius(points.float(), centers.float()))
    half, single = greedy_cover(points, 0.5), greedy_cover(points.float(), 0.5)
    assert torch.equal(half.indices, single.indices) and torch.equal(half.radii, single.radii)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_and_input_is_untouched(dtype):
    points = randn(30, 3, dtype=dtype)
    copy = points.clone()
    assert greedy_cover(points, 0.5).radii.dtype == dtype
    assert covering_radius(points, points[:2]).dtype == dtype
    assert torch.equal(points, copy)


# Bad input

ONES = torch.ones(4, 3)
NAN, INF = float("nan"), float("inf")
BAD_POINTS = [
    ([[1.0]], TypeError, "points must be a torch.Tensor, got list"),
    (ONES.long(), TypeError, "points must hold floating-point numbers"),
    (torch.ones(4), ValueError, r"points must have 2 axes, got shape \(4,\)"),
    (torch.ones(0, 3), ValueError, "points is empty"),
    (torch.full((4, 3), NAN), ValueError, "points must be finite, got 12"),
    (torch.full((4, 3), INF), ValueError, "points must be finite, got 12"),
]
BAD_CENTERS = [
    ([[1.0]], TypeError, "centers must be a torch.Tensor, got list"),
    (torch.ones(2, 2), ValueError, r"centers must have shape \(2, 3\), got \(2, 2\)"),
    (torch.ones(2, 3).double(), ValueError, "centers must be torch.float32 on cpu, got torch.fl"),
    (torch.ones(3), ValueError, "centers must have 2 axes"),
    (torch.ones(0, 3), ValueError, "centers is empty"),
    (torch.full((4, 3), NAN), ValueError, "centers must be finite"),
]


@pytest.mark.parametrize("points, error, message", BAD_POINTS)
def test_bad_points(points, error, message):
    with pytest.raises(error, match=message):
        covering_radius(points, ONES)
    with pytest.raises(error, match=message):
        greedy_cover(points, 1.0)


@pytest.mark.parametrize("centers, error, message", BAD_CENTERS)
def test_bad_centers(centers, error, message):
    with pytest.raises(error, match=message):
        covering_radius(ONES, centers)


@pytest.mark.parametrize("eps", [-0.1, NAN, INF])
def test_bad_precision(eps):
    with pytest.raises(ValueError, match=f"eps must be at least 0.*, got {eps}"):
        greedy_cover(ONES, eps)
