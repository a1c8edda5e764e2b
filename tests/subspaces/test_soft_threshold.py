"""Soft-thresholding: it is the proximal operator of the l1 norm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces import soft_threshold

numbers = st.floats(-1e3, 1e3)
thresholds = st.floats(0, 1e3)
some = settings(max_examples=50, deadline=None)


def at(z, t):
    return soft_threshold(torch.tensor([z], dtype=torch.float64), t).item()


def test_by_hand():
    z = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    assert soft_threshold(z, 1.0).tolist() == [-2, 0, 0, 0, 0, 0, 1]


@some
@given(numbers, thresholds)
def test_zero_is_a_subgradient_of_the_proximal_problem(z, t):
    u = at(z, t)
    if u == 0:
        assert abs(z) <= t
    else:
        sign = 1 if u > 0 else -1
        assert u - z + t * sign == pytest.approx(0, abs=1e-9)


@some
@given(numbers, numbers, thresholds)
def test_odd_and_nonexpansive(y, z, t):
    assert at(-z, t) == -at(z, t)
    assert abs(at(y, t) - at(z, t)) <= abs(y - z) + 1e-9


def test_a_threshold_for_each_column():
    z, t = torch.full((2, 3), -2.0), torch.tensor([0.0, 1.0, 3.0])
    assert soft_threshold(z, t).tolist() == [[-2, -1, 0]] * 2


def test_gradients():
    z = torch.tensor([-2.0, 0.3, 1.7]).double().requires_grad_()
    t = torch.tensor([0.5, 1.0, 0.2]).double().requires_grad_()
    assert torch.autograd.gradcheck(soft_threshold, (z, t))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_keeps_the_dtype(dtype):
    z = torch.tensor([-3.0, 0.5], dtype=dtype)
    assert soft_threshold(z, 1.0).dtype == dtype
    assert soft_threshold(z, 1.0).tolist() == [-2, 0]


def test_a_threshold_keeps_shape_and_dtype():
    z = torch.tensor([[-3.0, 0.5]])
    shrunk = soft_threshold(z, torch.tensor(1.0).double())
    assert shrunk.dtype == torch.float32 and shrunk.tolist() == [[-2, 0]]
    for shape in [(3, 2), (1, 1, 1), (3,)]:
        with pytest.raises(ValueError, match=r"broadcast to the shape \(1, 2\) of z, got \("):
            soft_threshold(z, torch.ones(shape))


@pytest.mark.parametrize("t", [-1.0, float("nan"), torch.tensor([0.1, -0.1])])
def test_negative_thresholds_are_refused(t):
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        soft_threshold(torch.ones(2), t)


@pytest.mark.parametrize(
    "z, error",
    [
        (torch.ones(2, dtype=torch.int64), TypeError),
        (1.0, TypeError),
        (torch.zeros(0), ValueError),
        (torch.tensor([float("nan")]), ValueError),
    ],
)
def test_bad_input(z, error):
    with pytest.raises(error, match=r"^z "):
        soft_threshold(z, 1.0)
