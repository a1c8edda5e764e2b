"""Whitening: exact second moments, symmetry, round trip, precision, rank, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces import polar, whiten


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def samples(n=300, d=6, seed=0):
    return randn(n, d, seed=seed) @ randn(d, d, seed=seed + 1) + 4


def test_two_axes():
    X = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    expected = torch.diag(torch.tensor([2**-0.5, 2**0.5])).double()
    assert torch.allclose(whiten(X).matrix, expected, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.booleans())
def test_second_moments_are_the_identity(seed, center):
    X = samples(seed=seed)
    white = whiten(X, center=center)
    Y = white.apply(X)
    assert torch.allclose(Y.T @ Y / len(Y), torch.eye(6).double(), atol=1e-10)
    if center:
        assert Y.mean(0).abs().max() < 1e-11
    assert torch.allclose(white.matrix, white.matrix.T, atol=1e-12 * white.matrix.abs().max())
    assert torch.linalg.eigvalsh(white.matrix)[0] > 0


def test_is_the_inverse_square_root_of_the_covariance():
    X = samples()
    values, vectors = torch.linalg.eigh(torch.cov(X.T, correction=0))
    assert torch.allclose(whiten(X).matrix, (vectors / values.sqrt()) @ vectors.T, rtol=1e-10)


def test_restore_undoes_apply():
    X = samples()
    white = whiten(X)
    assert torch.allclose(white.restore(white.apply(X)), X, rtol=1e-11)


def test_whitened_samples_are_a_rotation_of_the_whitened_codes():
    Z = randn(500, 4) ** 3
    Y = whiten(Z @ randn(4, 4, seed=5), center=False).apply(Z @ randn(4, 4, seed=5))
    codes = whiten(Z, center=False).apply(Z)
    rotation = codes.T @ Y / len(Z)
    assert torch.allclose(rotation, polar(rotation), atol=1e-10)
    assert torch.allclose(codes @ rotation, Y, atol=1e-10)


def test_keeps_the_digits_that_a_gram_matrix_would_lose():
    """Singular values 1 and 1e-9: their squares cannot be told apart from rounding."""
    left = torch.linalg.qr(randn(100, 2)).Q
    X = left * torch.tensor([1.0, 1e-9]).double() * 10
    Y = whiten(X, center=False).apply(X)
    assert torch.allclose(Y.T @ Y / 100, torch.eye(2).double(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_follows_the_dtype(dtype):
    X = samples(seed=3).to(dtype)
    white = whiten(X)
    assert {white.matrix.dtype, white.mean.dtype, white.apply(X).dtype} == {dtype}
    moments = torch.cov(white.apply(X).double().T, correction=0)
    assert (moments - torch.eye(6)).abs().max() < 20 * torch.finfo(dtype).eps * 10


@pytest.mark.parametrize(
    "X, center, rank",
    [
        (torch.cat([samples(), samples()[:, :2]], 1), True, 6),
        (randn(5, 8), False, 5),
        (randn(5, 8), True, 4),
        (randn(4, 4), True, 3),
    ],
)
def test_rank_deficient_data_are_refused_with_their_rank(X, center, rank):
    with pytest.raises(ValueError, match=rf"full rank d = {X.shape[1]}.*got rank {rank}\b.*pca"):
        whiten(X, center=center)


@pytest.mark.parametrize("X, center", [(torch.ones(9, 2), True), (torch.zeros(9, 2), False)])
def test_no_advice_where_nothing_is_left(X, center):
    with pytest.raises(ValueError, match=r"got rank 0( after centering)?$"):
        whiten(X, center=center)


@pytest.mark.parametrize(
    "X, error, message",
    [
        (torch.ones(1, 1), ValueError, r"X needs at least 2 samples \(rows\), got 1"),
        (torch.ones(3, 2, dtype=torch.int64), TypeError, "floating-point"),
        (torch.ones(3), ValueError, "X must have 2 axes"),
        (torch.zeros(0, 3), ValueError, "X is empty"),
        (torch.full((3, 2), float("inf")), ValueError, "X must be finite"),
    ],
)
def test_bad_input(X, error, message):
    with pytest.raises(error, match=message):
        whiten(X)


def test_gradients():
    X = samples(8, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: whiten(X).apply(X), X)


def test_results_check_their_samples():
    white = whiten(samples())
    for method, name in ((white.apply, "X"), (white.restore, "Xw")):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(2, 6\), got \(2, 1\)"):
            method(torch.ones(2, 1).double())
        with pytest.raises(ValueError, match=rf"{name} must be torch\.float64 on cpu"):
            method(torch.ones(2, 6))


def test_repr():
    assert repr(whiten(samples())) == "Whitening(d=6)"
