"""Sparse coding: closed forms, scikit-learn, optimality, rates, certificates, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import Lasso
from torch.utils._python_dispatch import TorchDispatchMode

from companion_lib.subspaces import (
    fista,
    ista,
    lasso_gap,
    lasso_objective,
    lasso_residual,
    polar,
    soft_threshold,
)
from companion_lib.subspaces.lasso import step_limit

both = pytest.mark.parametrize("solve", [ista, fista])
few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**16)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(n=20, d=16, m=32, seed=0):
    """Return samples with three active atoms each, and the unit atoms."""
    atoms = torch.nn.functional.normalize(randn(m, d, seed=seed))
    order = torch.rand(n, m, generator=torch.Generator().manual_seed(seed + 1)).argsort(1)
    codes = (order < 3) * randn(n, m, seed=seed + 2)
    return codes @ atoms + 0.01 * randn(n, d, seed=seed + 3), atoms


def optimum(X, D, lam, nonnegative=False):
    Z = fista(X, D, lam, steps=20_000, tol=1e-13, nonnegative=nonnegative).codes
    return Z, lasso_objective(X, Z, D, lam)


# The objective, its optimality conditions and its dual


def test_the_objective_by_hand():
    X, Z, D = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, -2.0]]), torch.eye(2)
    assert lasso_objective(X, Z, D, 0.5).tolist() == [4 + 9 + 0.5 * 3]


def test_the_objective_is_differentiable():
    X, Z, D = randn(2, 3), randn(2, 4, seed=1), randn(4, 3, seed=2)
    Z.requires_grad_(), D.requires_grad_()
    assert torch.autograd.gradcheck(lambda Z, D: lasso_objective(X, Z, D, 0.3), (Z, D))


def test_the_residual_by_hand():
    """With D = I the optimum is soft_threshold(x, lam / 2); the conditions hold entry by entry."""
    X = torch.tensor([[3.0, 0.2]]).double()
    D = torch.eye(2).double()
    best = torch.tensor([[2.5, 0.0]]).double()
    assert lasso_residual(X, best, D, 1.0).item() == 0
    assert lasso_residual(X, best + torch.tensor([0.25, 0]), D, 1.0).item() == 0.5
    assert lasso_residual(X, torch.zeros(1, 2).double(), D, 1.0).item() == 5  # |g| - lam = 6 - 1
    assert lasso_residual(X, torch.tensor([[2.5, 0.2]]).double(), D, 1.0).item() == 1


@few
@given(seeds, st.floats(0.05, 2), st.booleans())
def test_the_gap_bounds_the_distance_from_the_optimum(seed, lam, nonnegative):
    X, D = problem(n=5, seed=seed)
    best = optimum(X, D, lam, nonnegative)[1]
    Z = randn(5, 32, seed=seed) * 0.1
    Z = Z.abs() if nonnegative else Z
    excess = lasso_objective(X, Z, D, lam) - best
    assert (excess >= -1e-9).all()
    assert (lasso_gap(X, Z, D, lam, nonnegative) >= excess - 1e-9).all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_gap_closes_at_the_optimum_and_when_zero_is_optimal(nonnegative):
    X, D = problem()
    Z, best = optimum(X, D, 0.2, nonnegative)
    assert (lasso_gap(X, Z, D, 0.2, nonnegative) <= 1e-12 * best + 1e-15).all()
    huge = 2 * (X @ D.T).abs().max().item()
    silent = torch.zeros_like(Z)
    assert lasso_gap(X, silent, D, huge, nonnegative).abs().max() < 1e-12
    assert lasso_residual(X, silent, D, huge).max() <= 0


# Solutions


@both
def test_identity_dictionary(solve):
    codes = solve(torch.tensor([[3.0, 0.1]]), torch.eye(2), lam=1.0).codes
    assert torch.allclose(codes, torch.tensor([[2.5, 0.0]]))


@both
def test_an_orthogonal_dictionary_takes_one_step(solve):
    D, X = polar(randn(8, 8)), randn(20, 8, seed=1)
    codes = solve(X, D, lam=0.7, steps=1).codes
    assert torch.allclose(codes, soft_threshold(X @ D.T, 0.35), atol=1e-14)


def test_one_step_of_ista_is_the_books_formula():
    X, D = problem()
    Z, eta, lam = randn(20, 32, seed=9), 0.03, 0.4
    columns = Z.T - 2 * eta * D @ (D.T @ Z.T - X.T)
    expected = soft_threshold(columns, eta * lam).T
    got = ista(X, D, lam, steps=1, step_size=eta, start=Z).codes
    assert torch.allclose(got, expected, atol=1e-14)
    nonnegative = ista(X, D, lam, steps=1, step_size=eta, start=Z, nonnegative=True).codes
    assert torch.allclose(nonnegative, (columns - eta * lam).clamp(min=0).T, atol=1e-14)


@both
@pytest.mark.parametrize("lam", [0.05, 0.5])
def test_agrees_with_scikit_learns_lasso(solve, lam):
    X, D = problem(n=4)
    codes = solve(X, D, lam, steps=20_000, tol=1e-13).codes
    assert lasso_residual(X, codes, D, lam).max() < 1e-5
    model = Lasso(alpha=lam / (2 * 16), fit_intercept=False, tol=1e-14, max_iter=100_000)
    expected = torch.from_numpy(model.fit(D.T.numpy(), X.T.numpy()).coef_)
    assert torch.allclose(codes, expected, atol=1e-5)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_agrees_with_scikit_learns_sparse_encode(nonnegative):
    X, D = problem()
    expected = torch.from_numpy(
        sparse_encode(X.numpy(), D.numpy(), algorithm="lasso_cd", alpha=0.1, positive=nonnegative)
    )
    codes, best = optimum(X, D, 0.2, nonnegative)
    assert torch.allclose(codes, expected, atol=2e-3)
    assert (best <= lasso_objective(X, expected, D, 0.2) + 1e-12).all()
    assert not nonnegative or (codes >= 0).all()


@both
def test_least_squares_without_a_penalty(solve):
    X, D = randn(6, 9), randn(4, 9, seed=1)
    expected = torch.linalg.lstsq(D.T, X.T).solution.T
    assert torch.allclose(solve(X, D, 0.0, steps=2000).codes, expected, atol=1e-8)


@both
@few
@given(seed=seeds)
def test_permuting_and_flipping_atoms_does_the_same_to_the_codes(solve, seed):
    X, D = problem(n=4, seed=seed)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
    signs = torch.where(randn(32, seed=seed) < 0, -1.0, 1.0).double()
    codes = solve(X, D, 0.2, steps=30).codes
    moved = solve(X, signs[:, None] * D[order], 0.2, steps=30).codes
    assert torch.allclose(moved, signs * codes[:, order], atol=1e-9)


@both
def test_each_sample_is_solved_by_itself(solve):
    X, D = problem()
    alone = torch.cat([solve(x[None], D, 0.2, steps=40).codes for x in X])
    assert torch.allclose(solve(X, D, 0.2, steps=40).codes, alone, atol=1e-12)


@both
def test_scaling_samples_and_penalty_scales_the_codes(solve):
    X, D = problem()
    codes = solve(X, D, 0.2, steps=30).codes
    assert torch.allclose(solve(8 * X, D, 1.6, steps=30).codes, 8 * codes, atol=1e-11)


# Convergence


def test_the_step_limit_is_the_curvature():
    D = randn(7, 3)
    expected = 0.5 / torch.linalg.matrix_norm(D, 2).item() ** 2
    assert step_limit(D) == pytest.approx(expected, rel=1e-12)
    assert step_limit(D.T) == pytest.approx(expected, rel=1e-12)


@few
@given(seeds, st.floats(0.0, 1.0), st.floats(0.1, 1.0))
def test_ista_never_raises_the_objective(seed, lam, fraction):
    X, D = problem(n=5, seed=seed)
    start = randn(5, 32, seed=seed)
    step_size = fraction * step_limit(D)
    values = ista(X, D, lam, 50, step_size=step_size, start=start, history=True).history
    assert (values.diff() <= 1e-12 * values[0]).all()


@both
def test_within_the_textbook_bound(solve):
    X, D = problem(n=50)
    Z, best = optimum(X, D, 0.2)
    fit = solve(X, D, 0.2, steps=60, history=True)
    t = torch.arange(1, 61).double()
    distance = Z.square().sum() / step_limit(D)  # from the start at zero
    bound = distance / (2 * t) if solve is ista else 2 * distance / (t + 1) ** 2
    assert (fit.history[1:] - best.sum() <= bound).all()


def test_momentum_pays():
    X, D = problem(n=50)
    best = optimum(X, D, 0.1)[1].sum()
    slow, fast = (solve(X, D, 0.1, 200, history=True).history for solve in (ista, fista))
    assert fast[-1] - best < 1e-2 * (slow[-1] - best)


def test_fista_is_beck_and_teboulles_until_the_first_restart():
    X, D = problem()
    eta = step_limit(D)
    Z = point = torch.zeros(20, 32).double()
    t = 1.0
    for _ in range(6):
        previous = Z
        Z = soft_threshold(point - 2 * eta * (point @ D - X) @ D.T, 0.2 * eta)
        assert ((point - Z) * (Z - previous)).sum(1).max() <= 0  # no sample restarts so early
        t, last = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        point = Z + (last - 1) / t * (Z - previous)
    assert torch.allclose(fista(X, D, 0.2, steps=6).codes, Z, atol=1e-13)


def test_restarts_follow_the_gradient_test_for_each_sample():
    X, D = problem(n=8)
    eta, restarts = step_limit(D), 0
    Z = point = torch.zeros(8, 32).double()
    t = torch.ones(8, 1).double()
    for _ in range(120):
        previous = Z
        Z = soft_threshold(point - 2 * eta * (point @ D - X) @ D.T, 0.2 * eta)
        uphill = ((point - Z) * (Z - previous)).sum(1, keepdim=True) > 0
        restarts += int(uphill.sum())
        last = torch.where(uphill, 1.0, t)
        t = (1 + (1 + 4 * last**2).sqrt()) / 2
        point = Z + (last - 1) / t * (Z - previous)
    assert restarts > 8
    assert torch.allclose(fista(X, D, 0.2, steps=120).codes, Z, atol=1e-10)


@both
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_tol_is_a_guarantee_for_every_code(solve, nonnegative, tol):
    X, D = problem(n=40)
    X[0] = 0  # its optimum is zero, exactly
    best = optimum(X, D, 0.2, nonnegative)[1]
    fit = solve(X, D, 0.2, steps=50_000, tol=tol, nonnegative=nonnegative, history=True)
    reached = lasso_objective(X, fit.codes, D, 0.2)
    assert (reached <= best * (1 + tol) + 1e-14).all()
    assert fit.steps < 50_000
    assert len(fit.history) == fit.steps + 1
    assert fit.history[-1].item() == pytest.approx(reached.sum().item(), rel=1e-9)
    assert repr(fit) == f"SparseCode(n=40, m=32, steps={fit.steps})"


def test_float32_reaches_the_benchmarks_accuracy():
    X, D = problem(n=40)
    best = optimum(X, D, 0.2)[1]
    fit = fista(X.float(), D.float(), 0.2, steps=5000, tol=1e-4)
    assert fit.steps < 1000
    assert (lasso_objective(X, fit.codes.double(), D, 0.2) <= best * (1 + 1.01e-4)).all()


@both
def test_history_and_warm_start(solve):
    X, D = problem()
    fit = solve(X, D, 0.2, steps=7, history=True)
    assert fit.history[0].item() == pytest.approx(X.square().sum().item())
    assert fit.history[-1] == lasso_objective(X, fit.codes, D, 0.2).sum()
    assert solve(X, D, 0.2, steps=7).history.shape == (0,)
    start = fit.codes.clone()
    again = solve(X, D, 0.2, steps=3, start=start, history=True)
    assert again.history[0] == fit.history[-1]
    assert torch.equal(start, fit.codes)  # not overwritten
    assert torch.equal(solve(X, D, 0.2, steps=0, start=start).codes, start)


def test_too_long_a_step_grows_and_then_overflows():
    X, D = problem()
    limit = step_limit(D)
    grown = ista(X, D, 0.2, steps=20, step_size=2.5 * limit, history=True).history
    assert grown[-1] > 100 * grown[0] and torch.isfinite(grown).all()
    steady = ista(X, D, 0.2, steps=200, step_size=1.9 * limit, history=True).history
    assert steady[-1] < steady[0]
    for tol in (None, 1e-3):
        with pytest.raises(FloatingPointError, match=r"step_size = .* is too long"):
            ista(X, D, 0.2, steps=5000, step_size=2.5 * limit, tol=tol)


def test_memory_is_linear_in_the_samples():
    n = 3000

    class Widest(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.largest = max(self.largest, out.numel())
            return out

    X, D = problem(n=n)
    with Widest() as watch:
        fista(X, D, 0.2, steps=20, tol=1e-2)
    assert watch.largest == n * 32


# Precision and bad input


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(solve, dtype):
    X, D = (t.to(dtype) for t in problem())
    codes = solve(X, D, 0.2).codes
    assert torch.equal(codes, solve(X.float(), D.float(), 0.2).codes.to(dtype))
    for measure in (lasso_objective, lasso_residual, lasso_gap):
        assert measure(X, codes, D, 0.2).dtype == dtype


BAD = [
    ({"X": torch.ones(2, 3, dtype=torch.int64)}, TypeError, "^X must hold floating-point"),
    ({"D": torch.ones(4, 3, dtype=torch.int64)}, TypeError, "^D must hold floating-point"),
    ({"X": [[1.0]]}, TypeError, "X must be a torch.Tensor, got list"),
    ({"X": torch.zeros(0, 3)}, ValueError, "X is empty"),
    ({"D": torch.zeros(0, 3)}, ValueError, "D is empty"),
    ({"X": torch.ones(3)}, ValueError, "X must have 2 axes"),
    ({"X": torch.full((2, 3), float("nan"))}, ValueError, "X must be finite"),
    ({"D": torch.full((4, 3), float("inf"))}, ValueError, "D must be finite"),
    ({"D": torch.ones(4, 5)}, ValueError, r"D must have shape \(4, 3\), got \(4, 5\)"),
    ({"D": torch.ones(4, 3).double()}, ValueError, "D must be torch.float32"),
    ({"lam": -0.1}, ValueError, "lam must be at least 0, got -0.1"),
    ({"lam": float("nan")}, ValueError, "lam must be at least 0, got nan"),
]
BAD_SOLVE = [
    *BAD,
    ({"D": torch.zeros(4, 3)}, ValueError, "D must have at least one nonzero atom"),
    ({"start": torch.ones(3, 4)}, ValueError, r"start must have shape \(2, 4\), got \(3, 4\)"),
    ({"start": torch.full((2, 4), float("nan"))}, ValueError, "start must be finite"),
    ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
    ({"step_size": -1.0}, ValueError, "step_size must be at least 0"),
    ({"tol": -1.0}, ValueError, "tol must be at least 0"),
    ({"tol": 1e-3, "lam": 0.0}, ValueError, "tol needs lam > 0"),
]


@both
@pytest.mark.parametrize("change, error, message", BAD_SOLVE)
def test_bad_input(solve, change, error, message):
    with pytest.raises(error, match=message):
        solve(**{"X": torch.ones(2, 3), "D": torch.ones(4, 3), "lam": 0.1, **change})


@pytest.mark.parametrize("measure", [lasso_objective, lasso_residual, lasso_gap])
@pytest.mark.parametrize(
    "change, error, message",
    [*BAD, ({"Z": torch.ones(2, 5)}, ValueError, r"Z must have shape \(2, 4\), got \(2, 5\)")],
)
def test_bad_input_of_the_measures(measure, change, error, message):
    good = {"X": torch.ones(2, 3), "Z": torch.ones(2, 4), "D": torch.ones(4, 3), "lam": 0.1}
    with pytest.raises(error, match=message):
        measure(**{**good, **change})
