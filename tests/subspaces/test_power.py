"""Power and orthogonal iteration: rates, limits, other solvers, bad input."""

import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces.power import deflate, orthogonal_iteration, power_iteration

few = settings(max_examples=20, deadline=None)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_eigenvalues(*values, seed=0):
    """Return a symmetric matrix and its eigenvectors as columns."""
    values = torch.tensor(values, dtype=torch.float64)
    V = torch.linalg.qr(randn(len(values), len(values), seed=seed)).Q
    M = V * values @ V.T
    return (M + M.T) / 2, V


def tangent(vectors, w):
    along = vectors @ w
    return (vectors - along[..., None] * w).norm(dim=-1) / along.abs()


def span(vectors):
    return vectors @ vectors.mT


def test_rates():
    M, V = with_eigenvalues(1.0, 0.8, 0.5, *[0.1] * 47)
    run = power_iteration(M, steps=60, generator=torch.Generator().manual_seed(1), history=True)
    tangents, gaps = tangent(run.iterates, V[:, 0]), 1 - run.values
    ratios = tangents[1:] / tangents[:-1]
    assert (ratios < 0.8 + 1e-9).all()
    assert ratios[0] < 0.6  # the many small eigenvalues die at once
    assert torch.allclose(ratios[30:], torch.tensor(0.8).double(), rtol=1e-4)
    assert torch.allclose(gaps[31:] / gaps[30:-1], torch.tensor(0.64).double(), rtol=1e-3)
    assert run.converged is False and len(run.iterates) == len(run.values) == 61


def test_each_step_applies_the_matrix_and_normalizes():
    M, _ = with_eigenvalues(3.0, 2.0, 1.0)
    start = randn(3)
    run = power_iteration(M, steps=4, start=start, history=True)
    v = start / start.norm()
    for iterate, value in zip(run.iterates, run.values, strict=True):
        assert torch.allclose(iterate, v, atol=1e-14)
        assert value.item() == pytest.approx((v @ M @ v).item(), rel=1e-13)
        v = M @ v / (M @ v).norm()
    assert torch.equal(run.vector, run.iterates[-1])
    assert run.value == run.values[-1]


def test_agrees_with_scipy():
    X = randn(80, 12) * torch.linspace(3, 1, 12, dtype=torch.float64)
    M = X.T @ X / 80
    values, vectors = map(torch.from_numpy, scipy.sparse.linalg.eigsh(M.numpy(), k=3))
    one = power_iteration(M, generator=torch.Generator().manual_seed(0))
    assert one.converged
    assert one.value.item() == pytest.approx(values[-1].item(), rel=1e-12)
    assert abs(one.vector @ vectors[:, -1]) == pytest.approx(1, rel=1e-12)
    block = orthogonal_iteration(M, 3, generator=torch.Generator().manual_seed(0))
    assert block.converged
    assert torch.allclose(block.values, values.flip(0), rtol=1e-12)
    assert torch.allclose((block.vectors * vectors.flip(1)).sum(0).abs(), torch.ones(3).double())
    assert torch.allclose(M @ block.vectors, block.vectors * block.values, atol=1e-11)


@few
@given(st.integers(0, 2**16), st.integers(1, 8))
def test_rayleigh_quotients_rise_to_the_largest_eigenvalue(seed, d):
    A = randn(d, d, seed=seed)
    run = power_iteration(
        A @ A.T, steps=50, generator=torch.Generator().manual_seed(seed), history=True
    )
    largest = torch.linalg.eigvalsh(A @ A.T)[-1]
    assert (run.values <= largest * (1 + 1e-12)).all()
    assert (run.values.diff() >= -1e-12 * largest).all()
    assert torch.allclose(run.iterates.norm(dim=1), torch.ones(1).double(), rtol=1e-14)


@few
@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_rotating_and_scaling_the_matrix(seed, scale):
    M, _ = with_eigenvalues(3.0, 2.0, 1.0, 0.5, seed=seed)
    Q, start = torch.linalg.qr(randn(4, 4, seed=seed + 1)).Q, randn(4, seed=seed + 2)
    N = scale * Q @ M @ Q.T
    before = power_iteration(M, steps=30, tol=0, start=start, history=True)
    after = power_iteration((N + N.T) / 2, steps=30, tol=0, start=Q @ start, history=True)
    n = min(len(before.values), len(after.values))
    assert torch.allclose(after.iterates[:n], before.iterates[:n] @ Q.T, atol=1e-9)
    assert torch.allclose(after.values[:n], scale * before.values[:n], rtol=1e-9)


def test_a_map_needs_no_matrix():
    X = randn(30, 5)
    S, start = X.T @ X / 30, randn(5)
    by_map = power_iteration(lambda v: X.T @ (X @ v) / 30, start=start, steps=20, history=True)
    by_matrix = power_iteration(S, start=start, steps=20, history=True)
    assert torch.allclose(by_map.iterates, by_matrix.iterates, atol=1e-13)
    block = randn(5, 2)
    by_map = orthogonal_iteration(
        lambda V: X.T @ (X @ V) / 30, 2, start=block, steps=20, history=True
    )
    by_matrix = orthogonal_iteration(S, 2, start=block, steps=20, history=True)
    assert torch.allclose(by_map.iterates, by_matrix.iterates, atol=1e-13)
    assert torch.allclose(by_map.values, by_matrix.values, rtol=1e-13)


def test_a_tie_leaves_the_projection_of_the_start():
    M, V = with_eigenvalues(2.0, 2.0, 1.0, 0.5)
    start = randn(4)
    run = power_iteration(M, start=start)
    projection = V[:, :2] @ (V[:, :2].T @ start)
    assert torch.allclose(run.vector, projection / projection.norm(), atol=1e-11)
    assert run.converged and run.value.item() == pytest.approx(2, rel=1e-12)


def test_a_negative_leading_eigenvalue_flips_every_step():
    M, V = with_eigenvalues(-2.0, 1.0, 0.5)
    run = power_iteration(M, generator=torch.Generator().manual_seed(0), history=True)
    assert run.converged and run.value.item() == pytest.approx(-2, rel=1e-12)
    assert abs(run.vector @ V[:, 0]) == pytest.approx(1, rel=1e-12)
    assert torch.allclose(run.iterates[-1], -run.iterates[-2], atol=1e-10)
    both = orthogonal_iteration(M, 2, generator=torch.Generator().manual_seed(0))
    assert both.values.tolist() == pytest.approx([-2, 1], rel=1e-11)


def test_opposite_eigenvalues_never_settle():
    M, _ = with_eigenvalues(1.0, -1.0, 0.1)
    assert not power_iteration(M, steps=200, generator=torch.Generator().manual_seed(0)).converged


def test_special_starts_and_matrices():
    nothing = power_iteration(torch.zeros(3, 3), start=torch.tensor([0.0, 2.0, 0.0]))
    assert nothing.converged and nothing.value == 0 and nothing.vector.tolist() == [0, 1, 0]
    kept = power_iteration(torch.diag(torch.tensor([3.0, 1.0])), start=torch.tensor([0.0, 1.0]))
    assert kept.value == 1 and kept.steps == 0  # no part along the leading one
    single = power_iteration(torch.tensor([[5.0]]))
    assert single.value == 5 and single.converged
    whole = orthogonal_iteration(torch.diag(torch.tensor([1.0, 3.0])), 2)
    assert whole.values.tolist() == pytest.approx([3, 1], rel=1e-6) and whole.converged


def test_a_close_second_blurs_the_vector_but_not_the_plane():
    M, V = with_eigenvalues(1.0, 0.999, *[0.1] * 8)
    one = power_iteration(M, steps=200, generator=torch.Generator().manual_seed(0))
    assert tangent(one.vector, V[:, 0]) > 0.1
    off_plane = one.vector - V[:, :2] @ (V[:, :2].T @ one.vector)
    assert off_plane.norm() < 1e-13


def test_block_rate():
    M, V = with_eigenvalues(1.0, 0.95, 0.9, 0.3, 0.1, 0.1)
    run = orthogonal_iteration(
        M, 3, steps=25, generator=torch.Generator().manual_seed(0), history=True
    )
    errors = (span(run.iterates) - span(V[:, :3])).norm(dim=(1, 2))
    # Whatever the gaps inside the block, 0.3 outside against 0.9 to 1.0 inside sets the pace.
    ratios = errors[6:20] / errors[5:19]
    assert (ratios > 0.3).all() and (ratios < 0.3 / 0.9 + 1e-3).all()
    assert run.values.tolist() == pytest.approx([1, 0.95, 0.9], rel=1e-12)


@few
@given(st.integers(0, 2**16), st.integers(1, 4))
def test_block_iterates_are_orthonormal_and_settle(seed, k):
    M, V = with_eigenvalues(5.0, 4.0, 3.0, 2.0, 1.0, seed=seed)
    run = orthogonal_iteration(M, k, generator=torch.Generator().manual_seed(seed), history=True)
    identity = torch.eye(k, dtype=torch.float64)
    assert torch.allclose(run.iterates.mT @ run.iterates, identity, atol=1e-13)
    assert run.converged
    assert torch.allclose(span(run.vectors), span(V[:, :k]), atol=1e-10)
    assert torch.allclose(run.values, torch.arange(5.0, 5 - k, -1).double(), rtol=1e-10)
    assert ((run.iterates[-5:-1] * run.iterates[-4:]).sum(1) > 0).all()  # columns keep signs


def test_one_column_blocks_are_power_iteration():
    M, _ = with_eigenvalues(3.0, 2.0, 1.0)
    start = randn(3)
    block = orthogonal_iteration(M, 1, steps=10, start=start[:, None], history=True)
    single = power_iteration(M, steps=10, start=start, history=True)
    assert torch.allclose(block.iterates.squeeze(2), single.iterates, atol=1e-14)


def test_rank_deficient_matrix():
    M, _ = with_eigenvalues(2.0, 1.0, 0.0, 0.0)
    run = orthogonal_iteration(M, 3, generator=torch.Generator().manual_seed(0))
    assert run.converged
    assert run.values.tolist() == pytest.approx([2, 1, 0], abs=1e-12)
    assert torch.allclose(run.vectors.T @ run.vectors, torch.eye(3).double(), atol=1e-13)


def test_deflation():
    M, V = with_eigenvalues(4.0, 3.0, 1.0)
    left = deflate(M, V[:, 0], 4.0)
    assert torch.allclose(left @ V, V * torch.tensor([0.0, 3.0, 1.0]), atol=1e-13)
    first = power_iteration(M, generator=torch.Generator().manual_seed(0))
    second = power_iteration(deflate(M, first.vector, first.value), start=randn(3))
    assert second.value.item() == pytest.approx(3, rel=1e-11)
    assert abs(second.vector @ V[:, 1]) == pytest.approx(1, rel=1e-11)


@pytest.mark.parametrize(
    "dtype, atol", [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float32, 2e-6)]
)
def test_lower_precision_converges(dtype, atol):
    M = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.5]]).to(dtype)
    start = torch.tensor([1.0, 0.5, 0.2]).to(dtype)
    runs = [power_iteration(M, start=start), power_iteration(lambda v: M @ v, start=start)]
    for run in runs:
        assert run.vector.dtype == run.value.dtype == run.iterates.dtype == dtype
        assert run.value.item() == pytest.approx(3, abs=3 * atol)
        assert run.vector.tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0], abs=5 * atol)
    assert runs[0].converged and runs[0].steps < 60
    block = orthogonal_iteration(M, 2, generator=torch.Generator().manual_seed(0))
    assert block.converged and block.values.dtype == dtype
    assert block.values.tolist() == pytest.approx([3, 1.5], abs=3 * atol)


@pytest.mark.parametrize("factor", [1e-36, 1e-25, 1e20, 1e34])
def test_any_scale_of_float32(factor):
    """Sums of squares of these leave the range; the entries do not."""
    M, V = with_eigenvalues(3.0, 2.0, 1.0, 0.5)
    M, start = (M * factor).float(), randn(4).float()
    for run in (
        power_iteration(M, start=start),
        power_iteration(M, start=start * 1e-30),
        power_iteration(lambda v: M @ v, start=start * 1e30),
    ):
        assert run.converged and run.steps > 10
        assert run.value.item() == pytest.approx(3 * factor, rel=1e-5)
        assert abs(run.vector.double() @ V[:, 0]) == pytest.approx(1, abs=1e-6)
    block = orthogonal_iteration(M, 2, start=randn(4, 2).float() * factor)
    assert block.converged
    assert block.values.tolist() == pytest.approx([3 * factor, 2 * factor], rel=1e-5)


def test_a_product_beyond_the_dtype_is_refused():
    with pytest.raises(ValueError, match=r"M\(v\) must be finite"):
        power_iteration(torch.full((8, 8), 3e38), start=torch.ones(8))


def test_iterates_are_kept_only_on_request():
    M, _ = with_eigenvalues(3.0, 2.0, 1.0)
    for run, shape in (
        (power_iteration(M, start=randn(3)), (0, 3)),
        (orthogonal_iteration(M, 2, start=randn(3, 2)), (0, 3, 2)),
    ):
        assert run.iterates.shape == shape
    kept = power_iteration(M, start=randn(3), history=True)
    assert len(kept.iterates) == len(kept.values) == kept.steps + 1
    assert torch.equal(kept.vector, power_iteration(M, start=randn(3)).vector)


def test_no_gradients_are_tracked():
    M = with_eigenvalues(3.0, 2.0, 1.0)[0].requires_grad_()
    assert not power_iteration(M, start=randn(3)).value.requires_grad
    assert not orthogonal_iteration(M, 2, start=randn(3, 2)).values.requires_grad


def test_same_generator_same_path():
    M, _ = with_eigenvalues(3.0, 2.0, 1.0)
    first, second, other = (
        orthogonal_iteration(M, 2, generator=torch.Generator().manual_seed(seed), history=True)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.iterates, second.iterates)
    assert not torch.equal(first.iterates[0], other.iterates[0])


def test_short_reprs():
    M = torch.diag(torch.tensor([2.0, 1.0]))
    start = torch.tensor([1.0, 0.0])
    assert repr(power_iteration(M, start=start)) == "PowerIteration(d=2, steps=0, converged=True)"
    run = orthogonal_iteration(M, 2, start=torch.eye(2))
    assert repr(run) == "OrthogonalIteration(d=2, k=2, steps=0, converged=True)"


EYE = torch.eye(3)


@pytest.mark.parametrize(
    "M, options, error, message",
    [
        (torch.ones(2, 3), {}, ValueError, r"M must be square, got shape \(2, 3\)"),
        (torch.ones(2, 3, 3), {}, ValueError, "M must have 2 axes"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), {}, ValueError, "M must be symmetric.*up to 2"),
        (torch.full((2, 2), torch.nan), {}, ValueError, "M must be finite"),
        (torch.ones(2, 2).int(), {}, TypeError, "M must hold floating-point"),
        ([[1.0]], {}, TypeError, "M must be a torch.Tensor or a callable, got list"),
        (lambda v: v, {}, ValueError, "start must be given when M is a callable"),
        (lambda v: v[:2], {"start": torch.ones(3)}, ValueError, r"M\(v\) must have shape \(3,\)"),
        (lambda v: v / 0, {"start": torch.ones(3)}, ValueError, r"M\(v\) must be finite"),
        (EYE, {"start": torch.zeros(3)}, ValueError, "start must have rank 1, got 0"),
        (EYE, {"start": torch.ones(4)}, ValueError, r"start must have shape \(3,\), got \(4,\)"),
        (EYE, {"start": torch.ones(3).double()}, ValueError, "start must be torch.float32"),
        (EYE, {"start": [1.0, 0, 0]}, TypeError, "start must be a torch.Tensor, got list"),
        (EYE, {"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        (EYE, {"steps": 2.5}, TypeError, "steps must be an integer, got 2.5"),
        (EYE, {"tol": -1.0}, ValueError, "tol must be at least 0, got -1.0"),
    ],
)
def test_bad_input(M, options, error, message):
    with pytest.raises(error, match=message):
        power_iteration(M, **options)


@pytest.mark.parametrize(
    "k, options, message",
    [
        (4, {}, "k must be between 1 and d = 3, got 4"),
        (0, {}, "got 0"),
        (2, {"start": torch.ones(3, 2)}, "start must have rank 2, got 1"),
        (2, {"start": torch.ones(3)}, r"start must have shape \(3, 2\), got \(3,\)"),
    ],
)
def test_bad_blocks(k, options, message):
    with pytest.raises(ValueError, match=message):
        orthogonal_iteration(EYE, k, **options)


@pytest.mark.parametrize(
    "vector, message",
    [
        (torch.ones(3), "vector must have length 1, got 1.7"),
        (torch.ones(2), r"vector must have shape \(3,\), got \(2,\)"),
        (torch.ones(3).double(), "vector must be torch.float32"),
    ],
)
def test_bad_deflation(vector, message):
    with pytest.raises(ValueError, match=message):
        deflate(EYE, vector, 1.0)


def test_a_deflated_value_is_finite():
    with pytest.raises(ValueError, match="value must be finite, got nan"):
        deflate(EYE, EYE[0], torch.tensor(torch.nan))
