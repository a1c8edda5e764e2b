import math

import numpy as np
import pytest
import torch

from companion_lib.validation import (
    check_count,
    check_features,
    check_finite,
    check_like,
    check_orthonormal,
    check_range,
    check_samples,
    check_square,
    check_tensor,
    draw_normal,
    unit_scale,
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


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"M must be square, got shape \(2, 3\)"):
        check_square(torch.ones(2, 3))
    with pytest.raises(ValueError, match="M must have 2 axes"):
        check_square(torch.ones(4, 3, 3))


@pytest.mark.parametrize("dtype", FLOATS)
def test_orthonormal_rows(dtype):
    g = torch.Generator().manual_seed(0)
    W = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q[:4].to(dtype)
    assert check_orthonormal(W, "W") is W
    if dtype == torch.float32:
        check_orthonormal(W.double(), "W")  # a start that comes from a run in float32
    for bad in (2 * W, torch.cat([W, W[:1]]), torch.full_like(W, torch.finfo(dtype).max / 2)):
        with pytest.raises(ValueError, match="W must have orthonormal rows, got products off by"):
            check_orthonormal(bad, "W")


def test_features_follow_what_was_fitted():
    mean = torch.zeros(3)
    X = torch.ones(2, 3)
    assert check_features(X, mean) is X
    with pytest.raises(ValueError, match=r"Z must have shape \(2, 4\), got \(2, 3\)"):
        check_features(X, torch.zeros(4), "Z")
    with pytest.raises(ValueError, match=r"X must be torch\.float32 on cpu, got torch\.float64"):
        check_features(X.double(), mean)
    with pytest.raises(ValueError, match="X must be finite"):
        check_features(X / 0, mean)


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


def test_an_infinite_value_needs_an_upper_end_to_be_out_of():
    with pytest.raises(ValueError, match="ridge must be at least 0 and finite, got inf"):
        check_range(math.inf, "ridge", 0)


@pytest.mark.parametrize("value", [1, 3, np.int64(2)])
def test_a_count_in_its_range_is_returned(value):
    assert check_count(value, "k", 3) == value
    assert check_count(0, "steps", low=0) == 0


@pytest.mark.parametrize("value", [2.0, 1.5, True, "2", None, torch.tensor(2)])
def test_a_count_is_an_integer(value):
    with pytest.raises(TypeError, match="k must be an integer, got "):
        check_count(value, "k")


def test_a_count_out_of_its_range():
    with pytest.raises(ValueError, match="k must be between 1 and d = 3, got 4"):
        check_count(4, "k", 3, "d")
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        check_count(-1, "steps", low=0)


@pytest.mark.parametrize("value", [math.nan, -math.inf, torch.tensor(math.inf)])
def test_a_number_must_be_finite(value):
    assert check_finite(-2.0, "shift") == -2
    with pytest.raises(ValueError, match=r"shift must be finite, got (nan|-inf|inf)"):
        check_finite(value, "shift")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 3.0, 1e-30, 1e30])
def test_the_scale_is_a_power_of_two(factor, dtype):
    X = torch.tensor([0.3, -1.7], dtype=dtype) * factor
    scale = unit_scale(X)
    assert 1 <= (X / scale).abs().max() < 2
    assert torch.frexp(scale).mantissa == 0.5
    assert scale.dtype == dtype and torch.equal(X / scale * scale, X)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_at_the_ends(dtype):
    ends = torch.finfo(dtype)
    for largest in (ends.max, ends.tiny, ends.tiny / 1000):
        X = torch.tensor([largest, 0.0], dtype=dtype)
        assert 1 <= (X / unit_scale(X)).max() < 2
    assert unit_scale(torch.zeros(2)) == 1


def test_normals_are_drawn_where_the_generator_lives(monkeypatch):
    like, devices, draw = torch.empty(0, dtype=torch.float64), [], torch.randn

    def spy(*args, device, **options):
        devices.append(device)
        return draw(*args, device=device, **options)

    expected = draw(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", spy)
    given = draw_normal((2, 3), like, torch.Generator().manual_seed(0))
    assert torch.equal(given, expected)
    # A device that cannot share the generator's: the draw is still made, and then moved.
    moved = draw_normal((2, 3), like.to("meta"), torch.Generator().manual_seed(0))
    assert moved.device.type == "meta" and moved.shape == (2, 3)
    assert draw_normal((1,), like.to("meta"), None).device.type == "meta"
    assert [device.type for device in devices] == ["cpu", "cpu", "meta"]


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
