import math

import pytest
import torch

from companion_lib.validation import (
    check_like,
    check_range,
    check_samples,
    check_square,
    check_tensor,
    working,
)

HALF = [torch.float16, torch.bfloat16]
FLOATS = [*HALF, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_good_tensor_is_returned_itself(dtype):
    X = torch.ones(3, 3, dtype=dtype)
    assert check_tensor(X, "X") is X
    assert check_samples(X) is X
    assert check_square(X) is X
    assert check_like(X, "X", (3, 3), X) is X


@pytest.mark.parametrize("check", [check_tensor, check_samples, check_square])
def test_a_non_tensor_is_a_type_error(check):
    with pytest.raises(TypeError, match=r"Y must be a torch.Tensor, got list"):
        check([[1.0]], "Y")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize("check", [check_tensor, check_samples, check_square])
def test_other_numbers_are_a_type_error_that_says_what_to_do(check, dtype):
    with pytest.raises(TypeError, match=rf"Y must hold floating-point.*{dtype}.*double\(\)"):
        check(torch.ones(2, 2, dtype=dtype), "Y")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("check", [check_tensor, check_samples, check_square])
def test_entries_that_are_not_finite_are_counted(check, bad):
    X = torch.ones(2, 2)
    X[0, 1] = X[1, 1] = bad
    with pytest.raises(ValueError, match="Y must be finite, got 2 NaN or infinite"):
        check(X, "Y")


def test_infinities_pass_where_they_are_allowed():
    X = torch.tensor([math.inf])
    assert check_tensor(X, "X", finite=False) is X


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_tensor_is_refused(shape):
    with pytest.raises(ValueError, match="X is empty"):
        check_tensor(torch.empty(shape), "X")


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), ()])
def test_samples_have_two_axes(shape):
    with pytest.raises(ValueError, match="X must have 2 axes, got shape"):
        check_samples(torch.ones(shape))


def test_a_minimum_of_samples():
    assert len(check_samples(torch.ones(2, 5), min_rows=2)) == 2
    with pytest.raises(ValueError, match=r"X needs at least 3 samples \(rows\), got 2"):
        check_samples(torch.ones(2, 5), min_rows=3)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_a_matrix_that_is_not_square_is_refused(shape):
    with pytest.raises(ValueError, match="M must be square, got shape"):
        check_square(torch.ones(shape))


def test_a_batch_of_square_matrices_passes():
    assert check_square(torch.ones(4, 3, 3)).shape == (4, 3, 3)


@pytest.mark.parametrize("value", [1, 3, 5, 1.0, 4.5])
def test_a_value_in_its_range_is_returned(value):
    assert check_range(value, "k", 1, 5) == value


@pytest.mark.parametrize("value", [0, 6, -1, 5.0001, math.nan, math.inf])
def test_a_value_out_of_its_range_names_both_ends(value):
    message = rf"k must be between 1 and min\(n, d\) = 5, got {value}"
    with pytest.raises(ValueError, match=message):
        check_range(value, "k", 1, 5, "min(n, d)")
    with pytest.raises(ValueError, match=f"k must be between 1 and 5, got {value}"):
        check_range(value, "k", 1, 5)


def test_a_range_without_an_upper_end():
    assert check_range(10**9, "n", 1) == 10**9
    for value in (0, math.nan):
        with pytest.raises(ValueError, match=f"n must be at least 1, got {value}"):
            check_range(value, "n", 1)


def test_like_compares_shape_and_dtype_and_device():
    other = torch.ones(1, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"start must be a torch\.Tensor, got list"):
        check_like([1.0], "start", (1,), other)
    with pytest.raises(ValueError, match=r"start must have shape \(2, 3\), got \(3, 2\)"):
        check_like(torch.ones(3, 2, dtype=torch.float64), "start", (2, 3), other)
    with pytest.raises(ValueError, match=r"start must be torch.float64 on cpu, got torch.float32"):
        check_like(torch.ones(2, 3), "start", (2, 3), other)
    with pytest.raises(ValueError, match=r"on cpu, got torch\.float64 on meta"):
        check_like(torch.ones(2, dtype=torch.float64, device="meta"), "start", (2,), other)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_works_in_float32(dtype):
    assert working(torch.ones(2, dtype=dtype)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_stay_without_a_copy(dtype):
    X = torch.ones(2, dtype=dtype)
    assert working(X) is X
