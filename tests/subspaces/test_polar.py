"""The polar factor: closed forms, scipy, optimality, invariances, degenerate and bad input."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces import polar
from companion_lib.subspaces.polar import polar_factor

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_stretched_rotation():
    M = torch.tensor([[0.0, 2.0], [-3.0, 0.0]]).double()
    assert torch.allclose(polar(M), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), atol=1e-15)


@pytest.mark.parametrize("shape", [(5, 5), (9, 4), (6, 1)])
def test_agrees_with_scipy(shape):
    M = randn(*shape)
    expected = torch.from_numpy(scipy.linalg.polar(M.numpy())[0])
    assert torch.allclose(polar(M), expected, atol=1e-13)


def test_a_batch_is_its_members():
    M = randn(3, 2, 6, 4)
    Q = polar(M)
    assert Q.shape == M.shape
    assert torch.allclose(Q[2, 1], polar(M[2, 1]), atol=1e-14)


@pytest.mark.parametrize("smallest", [1.0, 0.2, 0.09, 1e-6, 1e-12])
def test_the_fast_way_of_msp_is_as_accurate(smallest):
    values = torch.linspace(1, smallest, 8, dtype=torch.float64)
    M = polar(randn(8, 8)) * values @ polar(randn(8, 8, seed=1))
    expected = polar(randn(8, 8)) @ polar(randn(8, 8, seed=1))
    assert torch.allclose(polar_factor(M), expected, atol=1e-15 / smallest + 1e-13)


@few
@given(seeds)
def test_no_other_rotation_is_nearer(seed):
    M = randn(4, 4, seed=seed)
    others = polar(randn(50, 4, 4, seed=seed + 1))
    best = torch.linalg.matrix_norm(polar(M) - M)
    assert (torch.linalg.matrix_norm(others - M) >= best - 1e-12).all()


@few
@given(seeds)
def test_rotates_with_its_argument_and_ignores_scale(seed):
    M, A, B = randn(5, 5, seed=seed), polar(randn(5, 5, seed=seed + 1)), polar(randn(5, 5, seed=9))
    assert torch.allclose(polar(A @ M @ B), A @ polar(M) @ B, atol=1e-8)
    assert torch.allclose(polar(3 * M), polar(M), atol=1e-8)


@pytest.mark.parametrize("M", [torch.zeros(3, 3), torch.ones(3, 3), torch.ones(4, 2)])
def test_rank_deficient_matrices_get_one_of_their_nearest(M):
    Q = polar(M.double())
    identity = torch.eye(M.shape[1]).double()
    assert torch.allclose(Q.T @ Q, identity, atol=1e-14)
    nuclear = torch.linalg.svdvals(M.double()).sum()
    assert torch.allclose((Q * M).sum(), nuclear, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    M = randn(6, 6).to(dtype)
    assert torch.equal(polar(M), polar(M.float()).to(dtype))


@pytest.mark.parametrize(
    "M, error, message",
    [
        ([[1.0]], TypeError, "M must be a torch.Tensor"),
        (torch.eye(3, dtype=torch.int64), TypeError, "floating-point"),
        (torch.ones(2, 3), ValueError, r"square or tall.*\(2, 3\)"),
        (torch.ones(3), ValueError, "square or tall"),
        (torch.zeros(0, 0), ValueError, "M is empty"),
        (torch.full((2, 2), float("nan")), ValueError, "M must be finite"),
    ],
)
def test_bad_input(M, error, message):
    with pytest.raises(error, match=message):
        polar(M)
