"""Signed permutations: exact recovery, invariance, rectangles, bad input."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces import match_signed_permutation


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signed_permutation(d, seed):
    generator = torch.Generator().manual_seed(seed)
    signs = torch.where(torch.rand(d, generator=generator) < 0.5, -1.0, 1.0).double()
    return torch.diag(signs)[torch.randperm(d, generator=generator)]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**16))
def test_a_signed_permutation_is_found_exactly(d, seed):
    P = signed_permutation(d, seed)
    match = match_signed_permutation(P)
    assert torch.equal(match.matrix, P)
    assert match.error == 0
    assert torch.equal(match.matrix[torch.arange(d), match.permutation], match.signs)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_the_error_does_not_see_order_or_signs(seed):
    W = randn(5, 5, seed=seed)
    P, Q = signed_permutation(5, seed + 1), signed_permutation(5, seed + 2)
    assert match_signed_permutation(P @ W @ Q).error == pytest.approx(
        match_signed_permutation(W).error
    )


def test_the_matching_is_the_best_of_all():
    W = randn(4, 4)
    best = max(
        sum(W[i, j].abs().item() for i, j in enumerate(order))
        for order in itertools.permutations(range(4))
    )
    assert match_signed_permutation(W).overlap.sum().item() == pytest.approx(best)


def test_the_greedy_choice_is_not_taken():
    W = torch.tensor([[1.0, 0.9], [0.9, 0.0]])
    assert match_signed_permutation(W).permutation.tolist() == [1, 0]


@pytest.mark.parametrize("m, k", [(5, 3), (3, 5)])
def test_rectangles_match_as_many_as_there_are(m, k):
    W = torch.zeros(m, k)
    W[0, 2], W[2, 0] = -0.9, 0.8
    match = match_signed_permutation(W)
    assert match.permutation[0] == 2 and match.permutation[2] == 0
    assert (match.permutation >= 0).sum() == min(m, k)
    assert (match.signs[match.permutation < 0] == 0).all()
    assert match.signs[0] == -1
    assert torch.allclose(match.overlap[[0, 2]], torch.tensor([0.9, 0.8]))
    assert match.matrix.abs().sum() == min(m, k)
    assert match.error == pytest.approx(torch.linalg.matrix_norm(W - match.matrix).item())


def test_dtype_and_repr():
    match = match_signed_permutation(torch.eye(3, 2).half())
    assert {match.matrix.dtype, match.signs.dtype, match.overlap.dtype} == {torch.float16}
    assert repr(match) == "SignedPermutation(shape=(3, 2), error=0)"


@pytest.mark.parametrize(
    "W, error",
    [
        (torch.eye(2, dtype=torch.int64), TypeError),
        (torch.ones(3), ValueError),
        (torch.zeros(0, 2), ValueError),
        (torch.full((2, 2), float("nan")), ValueError),
    ],
)
def test_bad_input(W, error):
    with pytest.raises(error, match=r"^W "):
        match_signed_permutation(W)
