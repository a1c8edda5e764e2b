"""Softmax means: scipy, the formula, limits, gradients, memory, precision, bad input."""

import math
import sys

import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from companion_lib import kernels
from companion_lib.kernels import softmax_mean
from companion_lib.kernels.softmax_mean import BLOCK

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)

# m, n, d, v. From 128 queries on and up to 64 features PyTorch's attention serves.
SHAPES = [(1, 1, 1, 1), (3, 7, 2, 5), (5, 1, 4, 3), (2, 9000, 3, 1), (130, 40, 6, 2)]
SHAPES += [(130, 40, 2, 6), (600, 2100, 70, 3), (40, 30, 784, 784)]
shapes = pytest.mark.parametrize("m, n, d, v", SHAPES)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(m, n, d, v, seed=0, dtype=torch.float64):
    """Queries, keys, values, bias and a scale for each query."""
    inputs = (randn(m, d, seed=seed), randn(n, d, seed=seed + 1), randn(n, v, seed=seed + 2))
    inputs += (randn(n, seed=seed + 3), randn(m, seed=seed + 4).exp() / math.sqrt(d))
    return tuple(x.to(dtype) for x in inputs)


def by_scipy(queries, keys, values, bias=0.0, scale=1.0):
    logits = torch.as_tensor(scale, dtype=torch.float64).reshape(-1, 1) * (queries @ keys.T + bias)
    weights = scipy.special.softmax(logits.double().numpy(), axis=1)
    return torch.from_numpy(weights) @ values.double()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 3 keys, and 4 of queries, so that a small problem has many."""
    monkeypatch.setitem(BLOCK, "cpu", (12, 3, 3))


@shapes
def test_agrees_with_scipy(m, n, d, v):
    inputs = problem(m, n, d, v)
    assert torch.allclose(softmax_mean(*inputs), by_scipy(*inputs), rtol=0, atol=1e-12)
    number = softmax_mean(*inputs[:3], scale=0.3)
    assert torch.allclose(number, by_scipy(*inputs[:3], scale=0.3), rtol=0, atol=1e-12)


@shapes
def test_gradients_agree_with_the_formula(m, n, d, v):
    inputs = [x.requires_grad_() for x in problem(m, n, d, v)]
    direction = randn(m, v, seed=9)
    ours = torch.autograd.grad((softmax_mean(*inputs) * direction).sum(), inputs)
    with kernels.use("reference"):
        theirs = torch.autograd.grad((softmax_mean(*inputs) * direction).sum(), inputs)
    for name, a, b in zip("queries keys values bias scale".split(), ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11 * (1 + b.abs().max())), name


@pytest.mark.parametrize("m", [3, 9], ids=["one block of queries", "three"])
def test_gradcheck(small_blocks, m):
    inputs = [x.requires_grad_() for x in problem(m, 7, 2, 3)]
    assert torch.autograd.gradcheck(softmax_mean, inputs)
    assert torch.autograd.gradcheck(lambda q, k: softmax_mean(q, k, k, scale=0.7), inputs[:2])


@pytest.mark.parametrize("wanted", range(5))
def test_each_gradient_alone(small_blocks, wanted):
    inputs = list(problem(6, 7, 2, 3))
    everything = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(softmax_mean(*everything).square().sum(), everything)[wanted]
    inputs[wanted].requires_grad_()
    (alone,) = torch.autograd.grad(softmax_mean(*inputs).square().sum(), [inputs[wanted]])
    assert torch.allclose(alone, expected, rtol=1e-12)


def test_attention_serves_many_queries_and_no_gradients(monkeypatch):
    module, served = sys.modules["companion_lib.kernels.softmax_mean"], []
    serve = module._attention
    monkeypatch.setattr(module, "_attention", lambda *x: served.append(len(x[0])) or serve(*x))
    for m, d, v in [(127, 5, 4), (128, 5, 4), (200, 64, 4), (200, 5, 65), (201, 63, 64)]:
        softmax_mean(*problem(m, 20, d, v))
    inputs = [x.requires_grad_() for x in problem(202, 20, 5, 4)]
    softmax_mean(*inputs)
    with torch.no_grad():
        softmax_mean(*inputs)
    assert served == [128, 201, 202]


@pytest.mark.parametrize("form", ["reference", "fast"])
@pytest.mark.parametrize("m", [3, 9])
def test_second_derivatives(small_blocks, form, m):
    """Also of keys that are the values, and of one tensor in all three places."""
    inputs = [x.requires_grad_() for x in problem(m, 7, 2, 2)]
    with kernels.use(form):
        assert torch.autograd.gradgradcheck(softmax_mean, inputs)
        assert torch.autograd.gradgradcheck(lambda q, k: softmax_mean(q, k, k), inputs[:2])
        assert torch.autograd.gradgradcheck(lambda x: softmax_mean(x, x, x), inputs[0])


def test_the_hessian_is_that_of_a_log_normalizer(small_blocks):
    """∇² log Σⱼ exp(q·kⱼ + bⱼ) is the covariance of the keys under the weights."""
    (query,), keys, _, bias, _ = problem(1, 9, 4, 1)

    def gap(query):
        """Half the squared length of the gradient: its Hessian at a zero of it is C²."""
        return (softmax_mean(query[None], keys, keys, bias) - target).square().sum() / 2

    target = softmax_mean(query[None], keys, keys, bias)
    weights = torch.softmax(keys @ query + bias, 0)
    covariance = (keys - target).T @ (weights[:, None] * (keys - target))
    hessian = torch.autograd.functional.hessian(gap, query)
    assert torch.allclose(hessian, covariance @ covariance, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", ["reference", "fast"])
@pytest.mark.parametrize("m", [4, 200])
def test_autocast_rounds_nothing(form, m):
    """Neither the mean nor its gradient, whether that is asked for inside or outside."""

    def gradients(inside):
        inputs = [x.requires_grad_() for x in problem(m, 300, 20, 5, dtype=torch.float32)]
        with kernels.use(form), torch.autocast("cpu", enabled=inside):
            mean = softmax_mean(*inputs)
            (again,) = torch.autograd.grad(mean.square().sum(), inputs[0], create_graph=True)
            return mean, again, *torch.autograd.grad(mean.square().sum(), inputs)

    for a, b in zip(gradients(True), gradients(False), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    plain = problem(m, 300, 20, 5, dtype=torch.float32)
    expected = softmax_mean(*plain)
    with torch.autocast("cpu"):
        assert torch.equal(softmax_mean(*plain), expected)


def test_blocks_make_no_difference(monkeypatch):
    inputs = problem(50, 300, 5, 4)
    whole = softmax_mean(*inputs)
    for block in [(1, 1, 1), (64, 7, 7), (300, 299, 299)]:
        monkeypatch.setitem(BLOCK, "cpu", block)
        assert torch.allclose(softmax_mean(*inputs), whole, rtol=0, atol=1e-13), block


def test_the_denoiser_of_two_points():
    """With x = ±1 and noise σ, the best denoiser is tanh(y / σ²)."""
    X = torch.tensor([[1.0], [-1.0]]).double()
    y = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
    sigma = torch.linspace(0.1, 2, 50, dtype=torch.float64)
    denoised = softmax_mean(y, X, X, bias=-X.square().sum(1) / 2, scale=sigma**-2)
    assert torch.allclose(denoised[:, 0], torch.tanh(y[:, 0] / sigma**2), rtol=0, atol=1e-14)


def test_the_denoiser_by_distances():
    X, Y = randn(200, 10), 2 * randn(30, 10, seed=1)
    sigma = 0.5 + randn(30, seed=2).abs()
    weights = torch.softmax(-torch.cdist(Y, X).square() / (2 * sigma[:, None] ** 2), 1)
    denoised = softmax_mean(Y, X, X, bias=-X.square().sum(1) / 2, scale=sigma**-2)
    assert torch.allclose(denoised, weights @ X, rtol=0, atol=1e-12)


def test_limits_of_the_scale():
    queries, keys, values, bias, _ = problem(20, 30, 3, 4)
    logits = queries @ keys.T + bias
    nearest = softmax_mean(queries, keys, values, bias, scale=1e9)
    assert torch.allclose(nearest, values[logits.argmax(1)])
    flat = softmax_mean(queries, keys, values, bias, scale=1e-12)
    assert torch.allclose(flat, values.mean(0).expand(20, 4), atol=1e-10)


@few
@given(seeds)
def test_invariances(seed):
    queries, keys, values, bias, scale = problem(6, 8, 3, 2, seed)
    mean = softmax_mean(queries, keys, values, bias, scale)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    rotation = torch.linalg.qr(randn(3, 3, seed=seed)).Q
    shift = randn(3, seed=seed + 7)
    for name, other in {
        "permuted keys": softmax_mean(queries, keys[order], values[order], bias[order], scale),
        "rotated": softmax_mean(queries @ rotation, keys @ rotation, values, bias, scale),
        "shifted keys": softmax_mean(queries, keys + shift, values, bias, scale),
        "shifted bias": softmax_mean(queries, keys, values, bias + 100, scale),
        "doubled keys": softmax_mean(
            queries, *(torch.cat([x, x]) for x in (keys, values, bias)), scale
        ),
    }.items():
        assert torch.allclose(other, mean, rtol=0, atol=1e-11), name
    assert (mean <= values.max(0).values + 1e-12).all()
    assert (mean >= values.min(0).values - 1e-12).all()


def exact_problem(m, size):
    """Logits up to 100 times ``size`` that float32 holds exactly, whatever their order of summing.

    Scales begin at one, where the largest logit takes all, and go down to where many keys share.
    """
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randint(-8, 9, shape, generator=draw) for shape in [(m, 6), (4000, 6), (4000,)]]
    queries, keys, bias = whole[0] * size, whole[1] / 16, whole[2] * size / 2
    scale = 2.0 ** -(torch.arange(m) % (math.log2(size) + 6))
    return queries, keys, randn(4000, 3, dtype=torch.float32), bias, scale


many = pytest.mark.parametrize("m", [40, 200], ids=["few queries", "many"])
sizes = pytest.mark.parametrize("size", [2.0**7, 2.0**14, 2.0**27])


@many
@sizes
def test_large_logits_do_not_overflow(m, size):
    inputs = exact_problem(m, size)
    exact = by_scipy(*(x.double() for x in inputs))
    assert (softmax_mean(*inputs) - exact).abs().max() <= 3e-6


@many
@sizes
def test_gradients_of_large_logits(m, size):
    """Each to the rounding of its own row: hard rows have scale 1, soft ones down to 2⁻³²."""
    inputs = [x.requires_grad_() for x in exact_problem(m, size)]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    ours = torch.autograd.grad(softmax_mean(*inputs).sum(), inputs)
    with kernels.use("reference"):
        exact = torch.autograd.grad(softmax_mean(*wide).sum(), wide)
    queries, keys, values, _, scale = (x.detach() for x in inputs)
    slope = values.sum(1).abs().max()  # of a weight
    limits = {
        "queries": slope * scale[:, None] * keys.abs().max(),
        "keys": slope * (scale * queries.abs().amax(1)).sum(),
        "values": torch.tensor(1.0 * m),
        "bias": slope * scale.sum(),
        "scale": slope / scale,
    }
    for (name, limit), a, b in zip(limits.items(), ours, exact, strict=True):
        assert ((a - b).abs() <= 1e-5 * limit).all(), name


def test_gradients_of_far_samples_keep_their_digits():
    """Logits of 1e4: the log of the normalizer alone would cost three digits of every weight."""
    inputs = problem(8, 50, 4, 3, dtype=torch.float32)[:3]
    # Products of multiples of 1/4 are multiples of 1/16, exact beside 2¹⁴.
    inputs = [((4 * x).round() / 4).requires_grad_() for x in inputs]
    inputs.append(torch.ones(8).requires_grad_())
    *plain, scale = inputs
    gradients = []
    for bias in (torch.zeros(50), torch.full((50,), 2.0**14)):
        mean = softmax_mean(*plain, bias, scale)
        gradients.append(torch.autograd.grad(mean.square().sum(), inputs))
    for near, far in zip(*gradients, strict=True):
        assert torch.allclose(far, near, rtol=0, atol=1e-6 * (1 + near.abs().max()))


@pytest.mark.parametrize("m", [4, 200], ids=["blocks", "attention"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(m, dtype):
    queries, keys, values, _, _ = problem(m, 3000, 20, 5, dtype=dtype)
    queries, values = 3 * queries, values + 100
    scale = torch.tensor(1e5 if m == 4 else 0.5)  # more than float16 can hold
    inputs = [x.requires_grad_() for x in (queries, keys, values)]
    mean = softmax_mean(*inputs, scale=scale)
    assert mean.dtype == dtype
    wide = [x.detach().double() for x in inputs]
    exact = by_scipy(*wide, scale=scale)
    assert (mean - exact).abs().max() <= torch.finfo(dtype).eps * 100
    gradients = torch.autograd.grad(mean.sum(), inputs)
    assert all(gradient.dtype == dtype for gradient in gradients)


def test_a_bias_may_be_more_precise_than_the_keys():
    queries, keys, values, _, _ = problem(4, 30, 5, 2, dtype=torch.bfloat16)
    bias = torch.linspace(0, 1, 30) / 7 + 300  # bfloat16 has steps of two up there
    exact = by_scipy(*(x.double() for x in (queries, keys, values, bias)))
    assert (softmax_mean(queries, keys, values, bias) - exact).abs().max() < 0.01


@pytest.mark.parametrize("d", [4, 100])
@pytest.mark.parametrize("differentiate", [False, True])
def test_the_logits_are_never_there(largest_tensor, d, differentiate):
    m, n = 2000, 3000
    inputs = problem(m, n, d, d, dtype=torch.float32)
    with largest_tensor:
        if differentiate:
            softmax_mean(*(x.requires_grad_() for x in inputs)).sum().backward()
        else:
            softmax_mean(*inputs)
    assert largest_tensor.entries <= max(BLOCK["cpu"][0], n * d)
    assert largest_tensor.entries < m * n / 10


def test_sixty_thousand_images_take_little_memory(growth_of_peak):
    """In MB; all the logits would be 61, the images are 188."""
    inputs = """
import torch
from companion_lib.kernels import softmax_mean
X = torch.randn(60_000, 784)
bias, noisy = X.square_().sum(1), torch.randn(256, 784)
softmax_mean(noisy, X[:100], X[:100], bias[:100])
"""
    assert growth_of_peak(inputs, "softmax_mean(noisy, X, X, bias, scale=0.01)") < 30


BAD = {
    "queries must be a floating-point tensor, got list": (TypeError, {"queries": [[1.0]]}),
    "keys must be a floating-point tensor, got torch.int64": (
        TypeError,
        {"keys": torch.ones(4, 3, dtype=torch.long)},
    ),
    "bias must be a floating-point tensor, got float": (TypeError, {"bias": 1.0}),
    "scale must be a number or a floating-point tensor, got str": (TypeError, {"scale": "1"}),
    "scale must be a number or a floating-point tensor, got torch.int64": (
        TypeError,
        {"scale": torch.tensor(1)},
    ),
    "queries must have 2 axes": (ValueError, {"queries": torch.ones(3)}),
    r"keys must have 2 axes and not be empty, got shape \(0, 3\)": (
        ValueError,
        {"keys": torch.ones(0, 3)},
    ),
    "keys must have the 3 features of queries, got 2": (ValueError, {"keys": torch.ones(4, 2)}),
    "values must have a row for each of 4 keys, got 5": (ValueError, {"values": torch.ones(5, 2)}),
    "values must be torch.float32 on cpu as queries are, got torch.float64": (
        ValueError,
        {"values": torch.ones(4, 2).double()},
    ),
    "keys must be torch.float32 on cpu as queries are, got torch.float32 on meta": (
        ValueError,
        {"keys": torch.ones(4, 3, device="meta")},
    ),
    "bias must have an entry for each of 4 keys, got 3": (ValueError, {"bias": torch.ones(3)}),
    "scale must be one number or one for each of 2 queries": (
        ValueError,
        {"scale": torch.ones(4)},
    ),
    "scale must be on cpu, got meta": (ValueError, {"scale": torch.ones(2, device="meta")}),
    "scale must be positive and finite, got 0.0": (ValueError, {"scale": 0}),
    "scale must be positive and finite, got -1.0": (ValueError, {"scale": -1.0}),
    "scale must be positive and finite, got nan": (ValueError, {"scale": math.nan}),
    "scale must be positive and finite, got inf": (ValueError, {"scale": torch.tensor(math.inf)}),
    "queries must be finite, got 6 NaN or infinite entries": (
        ValueError,
        {"queries": torch.full((2, 3), math.nan)},
    ),
    "keys must be finite, got 3 NaN": (
        ValueError,
        {"keys": torch.ones(4, 3).index_fill(0, torch.tensor(2), math.nan)},
    ),
    "values must be finite, got 8": (ValueError, {"values": torch.full((4, 2), math.inf)}),
    "bias must be finite, got 4": (ValueError, {"bias": torch.full((4,), math.inf)}),
    "overflows": (
        ValueError,
        {"queries": torch.full((2, 3), 1e30), "keys": torch.full((4, 3), 1e30)},
    ),
}


@pytest.mark.parametrize("form", ["reference", "fast"])
@pytest.mark.parametrize("m", [5, 200])
@pytest.mark.parametrize("where", [slice(0, 3), slice(3, 9), slice(0, 9)])
def test_a_bias_of_minus_infinity_is_refused_wherever_it_is(small_blocks, form, m, where):
    queries, keys, values, bias, _ = problem(m, 9, 2, 2)
    bias[where] = -math.inf
    message = f"bias must be finite, got {where.stop - where.start} NaN or infinite entries"
    with kernels.use(form), pytest.raises(ValueError, match=message):
        softmax_mean(queries, keys, values, bias)


@pytest.mark.parametrize("scale", [1e-50, 1e50])
def test_a_scale_that_float32_does_not_hold_is_refused(scale):
    inputs = problem(3, 4, 2, 2)[:3]
    assert softmax_mean(*inputs, scale=scale).isfinite().all()
    message = r"scale must be positive and finite, got .* in torch.float32"
    for number in (scale, torch.tensor(scale, dtype=torch.float64)):
        with pytest.raises(ValueError, match=message):
            softmax_mean(*(x.float() for x in inputs), scale=number)


def test_a_scale_makes_no_float64_tensor():
    """There are devices that have none."""
    dtypes = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            dtypes.update(x.dtype for x in [result] if isinstance(x, torch.Tensor))
            return result

    inputs = problem(3, 4, 2, 2, dtype=torch.float32)[:4]
    with Watch():
        softmax_mean(*inputs, scale=0.5)
    assert torch.float32 in dtypes
    assert torch.float64 not in dtypes


@pytest.mark.parametrize("form", ["reference", "fast"])
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, form):
    error, change = BAD[message]
    good = {"queries": torch.ones(2, 3), "keys": torch.ones(4, 3), "values": torch.ones(4, 2)}
    with kernels.use(form), pytest.raises(error, match=message):
        softmax_mean(**good | change)
