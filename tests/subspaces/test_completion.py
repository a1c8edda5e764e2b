"""Matrix completion: exact cases, least squares, the phase transition, bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces.completion import complete_matrix

few = settings(max_examples=10, deadline=None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def low_rank(n, d, r, seed=0):
    draw = generator(seed)
    left, right = (torch.randn(m, r, generator=draw, dtype=torch.float64) for m in (n, d))
    return left @ right.T


def random_mask(n, d, share, seed=0):
    """Return a mask with about ``share`` of the entries and four at least in rows and columns."""
    draw = generator(seed + 1000)
    order = torch.rand(n, d, generator=draw)
    few_per_row = order.argsort(1).argsort(1) < 4
    few_per_column = order.argsort(0).argsort(0) < 4
    return few_per_row | few_per_column | (torch.rand(n, d, generator=draw) < share)


def relative_error(got, want):
    return ((got - want).norm() / want.norm()).item()


def test_rank_one_from_a_row_and_a_column():
    Y = low_rank(6, 8, 1)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[:, 0] = mask[-1] = True
    # n + d - 1 entries, as many as the degrees of freedom, and the answer in closed form.
    expected = torch.outer(Y[:, 0], Y[-1]) / Y[-1, 0]
    fit = complete_matrix(Y, mask, 1, generator=generator())
    assert relative_error(fit.matrix, expected) < 1e-9
    assert relative_error(fit.matrix, Y) < 1e-9


@pytest.mark.parametrize("n, d", [(30, 20), (20, 30), (12, 12)])
def test_all_entries_seen_gives_the_truncated_svd(n, d):
    Y = low_rank(n, d, 3) + 0.1 * low_rank(n, d, 12, seed=1)
    U, s, Vh = np.linalg.svd(Y.numpy())
    expected = torch.from_numpy((U[:, :3] * s[:3]) @ Vh[:3])
    fit = complete_matrix(Y, torch.ones(n, d, dtype=torch.bool), 3, generator=generator())
    assert relative_error(fit.matrix, expected) < 1e-5
    tail = np.sqrt((s[3:] ** 2).sum() / Y.numel())
    assert fit.history[-1].item() == pytest.approx(tail, rel=1e-9)


def test_succeeds_with_entries_to_spare_and_fails_without():
    n = 50
    outcomes = {}
    for rank, share in ((2, 0.35), (8, 0.26)):
        errors = []
        for seed in range(5):
            Y, mask = low_rank(n, n, rank, seed), random_mask(n, n, share, seed)
            fit = complete_matrix(Y, mask, rank, steps=100, generator=generator(seed))
            errors.append(relative_error(fit.matrix, Y))
        outcomes[rank] = errors
    # Degrees of freedom to entries: 0.22 for rank 2; 1.1 for rank 8, too few for any method.
    assert max(outcomes[2]) < 1e-8
    assert min(outcomes[8]) > 0.1


def test_left_factor_solves_each_row_by_least_squares():
    Y, mask = low_rank(25, 15, 2) + 0.1 * low_rank(25, 15, 9, seed=1), random_mask(25, 15, 0.6)
    fit = complete_matrix(Y, mask, 2, steps=3, generator=generator())
    for i in range(25):
        seen = mask[i].numpy()
        solution, *_ = np.linalg.lstsq(fit.right[seen].numpy(), Y[i, seen].numpy(), rcond=None)
        assert torch.allclose(fit.left[i], torch.from_numpy(solution), atol=1e-9)
    assert torch.allclose(fit.matrix, fit.left @ fit.right.T, atol=1e-14)
    assert torch.allclose(fit.right.T @ fit.right, torch.eye(2).double(), atol=1e-13)


def test_history_is_the_observed_error_and_falls():
    Y, mask = low_rank(30, 20, 2) + 0.3 * low_rank(30, 20, 9, seed=1), random_mask(30, 20, 0.5)
    fit = complete_matrix(Y, mask, 2, generator=generator())
    assert len(fit.history) > 5
    assert (fit.history.diff() <= 1e-12).all()
    error = (fit.matrix - Y)[mask].square().mean().sqrt()
    assert fit.history[-1].item() == pytest.approx(error.item(), rel=1e-12)
    capped = complete_matrix(Y, mask, 2, steps=3, generator=generator())
    assert torch.equal(capped.history, fit.history[:3])


def test_at_a_minimum_the_observed_residual_is_orthogonal_to_both_factors():
    Y, mask = low_rank(30, 20, 2) + 0.1 * low_rank(30, 20, 9, seed=1), random_mask(30, 20, 0.6)
    fit = complete_matrix(Y, mask, 2, steps=1000, tol=0, generator=generator())
    residual = (fit.matrix - Y) * mask
    assert (residual @ fit.right).abs().max() < 1e-8
    assert (residual.T @ fit.left).abs().max() < 1e-5


def test_hidden_entries_are_never_read():
    Y, mask = low_rank(20, 16, 2), random_mask(20, 16, 0.5)
    fits = [
        complete_matrix(torch.where(mask, Y, hidden), mask, 2, generator=generator())
        for hidden in (0.0, torch.nan, torch.inf)
    ]
    assert torch.equal(fits[0].matrix, fits[1].matrix)
    assert torch.equal(fits[0].matrix, fits[2].matrix)


@few
@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_scale_order_and_transpose(seed, scale):
    Y, mask = low_rank(16, 14, 1, seed), random_mask(16, 14, 0.6, seed)
    rows, columns = (torch.randperm(m, generator=generator(seed)) for m in (16, 14))
    for data, seen in (
        (scale * Y, mask),
        (-Y, mask),
        (Y[rows][:, columns], mask[rows][:, columns]),
        (Y.T, mask.T),
    ):
        fit = complete_matrix(data, seen, 1, generator=generator(seed))
        assert relative_error(fit.matrix, data) < 1e-8


def test_data_of_lower_rank_than_asked_for():
    Y, mask = low_rank(20, 15, 1), random_mask(20, 15, 0.6)
    fit = complete_matrix(Y, mask, 2, generator=generator())
    assert fit.history[-1] < 1e-8
    zero = complete_matrix(torch.zeros_like(Y), mask, 2, generator=generator())
    assert zero.matrix.abs().max() == 0


def test_rows_with_fewer_entries_than_the_rank_stay_finite():
    Y = low_rank(20, 15, 3)
    mask = torch.ones(20, 15, dtype=torch.bool)
    mask[4, 1:] = False
    fit = complete_matrix(Y, mask, 3, generator=generator())
    assert torch.isfinite(fit.matrix).all()
    others = torch.arange(20) != 4
    assert relative_error(fit.matrix[others], Y[others]) < 1e-8
    assert fit.matrix[4, 0].item() == pytest.approx(Y[4, 0].item(), rel=1e-6)


def test_ridge_shrinks_every_row_alike():
    Y, mask = low_rank(20, 15, 1), random_mask(20, 15, 0.4)
    fit = complete_matrix(Y, mask, 1, ridge=0.25, generator=generator())
    right = fit.right.squeeze(1)
    # For rank one the normal matrix is a number, so the least-squares fit is divided by 1.25.
    solution = (Y * mask) @ right / (mask * right.square()).sum(1)
    assert torch.allclose(fit.left.squeeze(1), solution / 1.25, rtol=1e-12)


def test_start_leads_to_the_solution():
    """From a start drawn blindly, one run in five or so diverges at this size."""
    for seed in range(20):
        Y, mask = low_rank(40, 40, 1, seed), random_mask(40, 40, 0.25, seed)
        fit = complete_matrix(Y, mask, 1, generator=generator(seed))
        assert relative_error(fit.matrix, Y) < 1e-8


@pytest.mark.parametrize(
    "dtype, tol", [(torch.float16, 4e-3), (torch.bfloat16, 3e-2), (torch.float32, 2e-4)]
)
def test_lower_precision(dtype, tol):
    Y, mask = low_rank(30, 24, 2).to(dtype), random_mask(30, 24, 0.6)
    fit = complete_matrix(Y, mask, 2, generator=generator())
    assert fit.matrix.dtype == fit.left.dtype == fit.right.dtype == fit.history.dtype == dtype
    assert relative_error(fit.matrix.double(), low_rank(30, 24, 2)) < tol
    assert len(fit.history) < 200  # it stops at the precision of the dtype


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_any_scale_of_float32(factor):
    Y, mask = low_rank(30, 24, 2).float(), random_mask(30, 24, 0.6)
    fit = complete_matrix(Y * factor, mask, 2, generator=generator())
    assert relative_error(fit.matrix.double() / factor, low_rank(30, 24, 2)) < 2e-4
    plain = complete_matrix(Y, mask, 2, generator=generator()).history
    n = min(3, len(plain))  # later ones are down at rounding
    assert torch.allclose(fit.history[:n] / factor, plain[:n], rtol=1e-3)


def test_no_gradients_are_tracked():
    Y, mask = low_rank(12, 10, 1).requires_grad_(), random_mask(12, 10, 0.6)
    assert not complete_matrix(Y, mask, 1, generator=generator()).matrix.requires_grad


def test_memory_is_the_data_and_the_normal_equations(largest_tensor):
    n, d, r = 400, 300, 5
    Y, mask = low_rank(n, d, r), random_mask(n, d, 0.5)
    with largest_tensor:
        complete_matrix(Y, mask, r, steps=2, generator=generator())
    assert largest_tensor.entries <= max(n * d, max(n, d) * r * r)


def test_reproducible():
    Y, mask = low_rank(20, 15, 2), random_mask(20, 15, 0.5)
    first, second = (complete_matrix(Y, mask, 2, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.matrix, second.matrix)
    assert repr(first) == f"Completion(n=20, d=15, rank=2, steps={len(first.history)})"


ONES, ALL = torch.ones(4, 3), torch.ones(4, 3, dtype=torch.bool)
NO_ROW, NO_COLUMN = ALL.clone(), ALL.clone()
NO_ROW[[1, 3]] = False
NO_COLUMN[:, 2] = False
HOLE = torch.where(torch.eye(4, 3).bool(), torch.nan, ONES)


@pytest.mark.parametrize(
    "Y, mask, options, error, message",
    [
        (ONES, NO_ROW, {}, ValueError, "got no entry in rows 1, 3"),
        (ONES, NO_COLUMN, {}, ValueError, "got no entry in columns 2"),
        (torch.ones(9, 3), torch.zeros(9, 3).bool(), {}, ValueError, r"rows 0, 1, 2, 3, 4, \.\.\."),
        (ONES, ALL.T, {}, ValueError, r"mask must have shape \(4, 3\), got \(3, 4\)"),
        (ONES, ONES, {}, TypeError, "mask must be a torch.Tensor of bool, got torch.float32"),
        (ONES, ALL.to("meta"), {}, ValueError, "mask must be on cpu, got meta"),
        (ONES, ALL, {"ridge": float("inf")}, ValueError, "ridge must be at least 0 and finite"),
        (ONES, None, {}, TypeError, "mask must be a torch.Tensor of bool, got NoneType"),
        (ONES.int(), ALL, {}, TypeError, "Y must hold floating-point"),
        (ONES.numpy(), ALL, {}, TypeError, "Y must be a torch.Tensor, got ndarray"),
        (ONES[0], ALL[0], {}, ValueError, "Y must have 2 axes"),
        (ONES[:0], ALL[:0], {}, ValueError, "Y is empty"),
        (HOLE, ALL, {}, ValueError, r"Y \(where observed\) must be finite, got 3"),
        (ONES, ALL, {"rank": 4}, ValueError, r"rank must be between 1 and min\(n, d\) = 3, got 4"),
        (ONES, ALL, {"rank": 0}, ValueError, "got 0"),
        (ONES, ALL, {"rank": 1.0}, TypeError, "rank must be an integer, got 1.0"),
        (ONES, ALL, {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        (ONES, ALL, {"tol": -1}, ValueError, "tol must be at least 0, got -1"),
        (ONES, ALL, {"ridge": -1}, ValueError, "ridge must be at least 0, got -1"),
    ],
)
def test_bad_input(Y, mask, options, error, message):
    with pytest.raises(error, match=message):
        complete_matrix(Y, mask, **{"rank": 1, **options})
