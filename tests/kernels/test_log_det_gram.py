"""log det(I + a ZᵀZ): torch.logdet, exact values, gradients, extreme a, memory, bad input."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib import kernels
from companion_lib.kernels import log_det_gram, log_det_psd
from companion_lib.kernels.gram import HALVED, gram
from companion_lib.kernels.inverse_root import inverse_root, invert_

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
forms = pytest.mark.parametrize("form", ["reference", "fast"])
shapes = pytest.mark.parametrize("n, d", [(1, 1), (1, 5), (5, 1), (4, 4), (30, 7), (7, 30)])


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spectrum_of(values, n, d, seed=0):
    """A matrix with these singular values, in float64."""
    r = len(values)
    left, right = torch.linalg.qr(randn(n, r, seed=seed)).Q, torch.linalg.qr(randn(d, r)).Q
    return left * torch.as_tensor(values, dtype=torch.float64) @ right.T


def by_lu(Z, a):
    """One matrix at a time, on the side of the features."""
    return torch.logdet(torch.eye(Z.shape[-1], dtype=Z.dtype) + a * Z.T @ Z)


@forms
@shapes
@pytest.mark.parametrize("a", [0.0, 1e-3, 1.0, 100.0])
def test_agrees_with_lu(n, d, a, form):
    Z = randn(n, d)
    with kernels.use(form):
        assert torch.allclose(log_det_gram(Z, a), by_lu(Z, a), rtol=1e-12, atol=1e-14)
        assert torch.allclose(log_det_psd(Z.T @ Z, a), by_lu(Z, a), rtol=1e-12, atol=1e-14)


def test_the_volume_of_an_ellipsoid():
    Z = torch.diag(torch.tensor([1.0, 2.0, 3.0]).double())
    expected = math.log(1 + 0.5) + math.log(1 + 2) + math.log(1 + 4.5)
    assert log_det_gram(Z, 0.5).item() == pytest.approx(expected, abs=1e-14)


@shapes
def test_gradcheck(n, d):
    Z, a = randn(n, d).requires_grad_(), torch.tensor(0.7).double().requires_grad_()
    assert torch.autograd.gradcheck(log_det_gram, (Z, a))
    assert torch.autograd.gradcheck(lambda Z, a: log_det_psd(Z.T @ Z, a), (Z, a))


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (3, 65, 65), (200, 200), (2, 131, 131)])
def test_the_inverse_root_by_blocks(shape):
    A = randn(*shape)
    M = A @ A.mT / shape[-1] + torch.eye(shape[-1]).double()
    expected = torch.linalg.cholesky(M)
    root = inverse_root(M)
    assert torch.equal(root, root.tril())
    eye = torch.eye(shape[-1]).double().expand_as(M)
    assert torch.allclose(root @ expected, eye, rtol=0, atol=1e-13)
    inverse = M.clone()
    assert torch.allclose(invert_(inverse), torch.logdet(M), rtol=1e-13, atol=1e-13)
    assert torch.allclose(inverse @ M, eye, rtol=0, atol=1e-12)
    assert torch.equal(inverse, inverse.mT)


@pytest.mark.parametrize("shape", [(3, 5), (20, HALVED), (2, 7, HALVED + 1), (0, HALVED)])
def test_a_gram_matrix_by_halves(shape):
    Z = randn(*shape)
    out = torch.empty(*shape[:-2], shape[-1], shape[-1]).double()
    assert gram(Z, out=out) is out
    for S in (gram(Z), out):
        assert torch.allclose(S, Z.mT @ Z, rtol=0, atol=1e-13)
        assert torch.equal(S, S.mT) or shape[-1] < HALVED


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (4, 1), (5, 2, 1)])
def test_gradcheck_of_batches(shape):
    """As many a as matrices, and more: the two have different forms."""
    Z = randn(3, 4, 2).requires_grad_()
    a = randn(*shape, seed=1).exp().requires_grad_()
    assert torch.autograd.gradcheck(log_det_gram, (Z, a))
    assert torch.autograd.gradcheck(lambda Z, a: log_det_psd(Z.mT @ Z, a), (Z, a))


@pytest.mark.parametrize("shape", [(), (3,), (4, 1)], ids=["one a", "an a each", "many a"])
@pytest.mark.parametrize("n, d", [(4, 2), (2, 4)])
@pytest.mark.parametrize("size", [1e-5, 1.0], ids=["tiny", "plain"])
def test_second_derivatives(shape, n, d, size):
    Z = randn(3, n, d).requires_grad_()
    b = randn(*shape, seed=1).exp().requires_grad_()
    direction = randn(*torch.broadcast_shapes((3,), shape), seed=2)
    for function in (
        lambda Z, b: direction * log_det_gram(Z, size * b) / size,
        lambda Z, b: direction * log_det_psd(Z.mT @ Z, size * b) / size,
    ):
        assert torch.autograd.gradgradcheck(function, (Z, b))


def test_a_gradient_penalty_has_a_gradient():
    """The square of 2aZ(I + aZᵀZ)⁻¹, where a second derivative of zero would go unnoticed."""
    Z = randn(5, 3).requires_grad_()
    (slope,) = torch.autograd.grad(log_det_gram(Z, 0.7), Z, create_graph=True)
    (ours,) = torch.autograd.grad(slope.square().sum(), Z)
    plain = 1.4 * Z @ torch.linalg.inv(torch.eye(3).double() + 0.7 * Z.T @ Z)
    (expected,) = torch.autograd.grad(plain.square().sum(), Z)
    assert expected.norm() > 0.1
    assert torch.allclose(ours, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n, d", [(9, 4), (4, 9)])
@pytest.mark.parametrize("a", [1e8, 1e14])
def test_second_derivatives_where_the_ones_drown(n, d, a):
    """Of full rank, they tend to those of log det ZᵀZ, or of ZZᵀ."""
    Z = randn(n, d)

    def limit(Z):
        return torch.logdet(Z.T @ Z if n > d else Z @ Z.T)

    ours = torch.autograd.functional.hessian(lambda Z: log_det_gram(Z, a), Z)
    expected = torch.autograd.functional.hessian(limit, Z)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("a", [0.5, torch.tensor([0.5, 2.0])], ids=["one a", "many a"])
def test_autocast_changes_nothing(a):
    Z = randn(50, 8, dtype=torch.float32).requires_grad_()
    S = (Z.T @ Z).detach().requires_grad_()
    for kernel, X in ((log_det_gram, Z), (log_det_psd, S)):
        value = kernel(X, a).sum()
        (slope,) = torch.autograd.grad(value, X)
        with torch.autocast("cpu", torch.bfloat16):
            same = kernel(X, a).sum()
            (same_slope,) = torch.autograd.grad(same, X)
        assert torch.equal(same, value) and torch.equal(same_slope, slope)


@pytest.mark.parametrize("a", [1e8, 1e13], ids=["float64", "singular values"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, d", [(9, 4), (4, 9)])
def test_gradients_where_the_ones_drown(n, d, a, dtype):
    """Of full rank, the gradient tends to 2 Z (ZᵀZ)⁻¹, twice the transposed pseudo-inverse."""
    Z = randn(n, d).to(dtype).requires_grad_()
    scale = torch.tensor(a, dtype=dtype, requires_grad=True)
    to_Z, to_a = torch.autograd.grad(log_det_gram(Z, scale), (Z, scale))
    expected = 2 * torch.linalg.pinv(Z.detach().double()).T
    assert torch.allclose(
        to_Z.double(), expected, rtol=0, atol=1e-5 if dtype.itemsize < 8 else 1e-8
    )
    assert to_a.item() == pytest.approx(4 / a, rel=1e-5)


@forms
def test_a_broadcasts(form):
    Z = randn(3, 5, 4)
    values = torch.tensor([0.1, 1.0, 7.0]).double()
    table = torch.stack([torch.stack([by_lu(M, a) for M in Z]) for a in values])
    with kernels.use(form):
        for kernel, argument in ((log_det_gram, Z), (log_det_psd, Z.mT @ Z)):
            assert torch.allclose(kernel(argument, values), table.diagonal(), rtol=1e-12)
            assert torch.allclose(kernel(argument, values[:, None]), table, rtol=1e-12)
            assert torch.allclose(kernel(argument[0], values), table[:, 0], rtol=1e-12)
            assert kernel(argument, 1.0).shape == (3,)
            assert kernel(argument[:, None], values).shape == (3, 3)


@few
@given(seeds, st.floats(1e-6, 1e6))
def test_invariances(seed, a):
    Z = randn(6, 4, seed=seed)
    value = log_det_gram(Z, a)
    left, right = (torch.linalg.qr(randn(m, m, seed=seed)).Q for m in (6, 4))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    for other in (left @ Z, Z @ right, Z[order], -Z, Z.T.contiguous()):
        assert torch.allclose(log_det_gram(other, a), value, rtol=1e-9)
    assert torch.allclose(log_det_gram(3 * Z, a / 9), value, rtol=1e-9)
    padded = torch.cat([Z, torch.zeros(2, 4).double()])
    assert torch.allclose(log_det_gram(padded, a), value, rtol=1e-9)
    assert log_det_gram(Z, 2 * a) > value > 0
    assert log_det_gram(torch.cat([Z, Z]), a / 2) == pytest.approx(value.item(), rel=1e-9)


# Singular values from 1e-3 to 1e3, fewer than either side, and a where Gram matrices lose them.
@pytest.mark.parametrize("n, d", [(12, 9), (9, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("a", [1e-12, 1e-3, 1.0, 1e4, 1e9, 1e14])
def test_extreme_a_is_exact(n, d, a, dtype):
    sigma = torch.logspace(-3, 3, 7, dtype=torch.float64)
    Z = spectrum_of(sigma, n, d).to(dtype)
    if dtype == torch.float32:  # rounding changed the matrix, not the function
        sigma = torch.linalg.svdvals(Z.double())
    mpmath.mp.dps = 40
    expected = sum(mpmath.log1p(mpmath.mpf(a) * mpmath.mpf(s) ** 2) for s in sigma.tolist())
    for scale in (a, torch.tensor([a, a], dtype=torch.float64)):  # one factor, and many a
        value = log_det_gram(Z, scale).flatten()[0].item()
        rel = 1e-6 if dtype == torch.float32 else 1e-11
        assert value == pytest.approx(float(expected), rel=rel)


def test_tiny_a_keeps_all_digits_of_a_small_result():
    """log det(I + a S) = a tr S for tiny a; taking log of a rounded 1 + a would leave none."""
    Z = randn(6, 4)
    trace = Z.square().sum().item()
    many = torch.tensor([1e-13, 1e-20, 1e-30], dtype=torch.float64)
    for kernel, X in ((log_det_gram, Z), (log_det_psd, Z.T @ Z)):
        assert torch.allclose(kernel(X, many), many * trace, rtol=1e-11)
        for a in many:
            assert torch.allclose(kernel(X, a), a * trace, rtol=1e-11, atol=0)


@pytest.mark.parametrize("size", [1e-3, 1.0, 9e3, 9e4, 1e7])
def test_float32_has_five_digits(size):
    """Of low rank, where noise in the eigenvalues would add up; for one a and for many."""
    Z = spectrum_of(torch.linspace(0.1, 1, 20), 1000, 128).float()
    a = size / Z.square().sum().item()
    expected = torch.log1p(a * torch.linalg.svdvals(Z.double()).square()).sum().item()
    for scale in (a, torch.tensor([a, 2 * a])):
        assert log_det_gram(Z, scale).flatten()[0].item() == pytest.approx(expected, rel=5e-6)


def test_float32_gradients_of_low_rank():
    """The gradient of what Cholesky factors in float32 keep, up to where they give up."""
    Z = spectrum_of(torch.linspace(0.1, 1, 20), 300, 128).float().requires_grad_()
    for size in (1.0, 1e3, 9e3, 2e4, 1e6):
        a = size / Z.detach().square().sum().item()
        exact = Z.detach().double().requires_grad_()
        (expected,) = torch.autograd.grad(log_det_gram(exact, a), exact)
        (slope,) = torch.autograd.grad(log_det_gram(Z, a), Z)
        assert (slope - expected).norm() < 3e-4 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    Z = (30 * randn(50, 8)).to(dtype).requires_grad_()
    value = log_det_gram(Z, 3.0)
    assert value.dtype == torch.float32
    exact = by_lu(Z.detach().double(), 3.0)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, Z)
    assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("size", [1e-15, 1e8, 1e15])
def test_large_and_small_numbers_in_float32(size):
    Z = (size * randn(20, 6)).float()
    exact = torch.log1p(torch.linalg.svdvals(Z.double()).square()).sum().item()
    assert log_det_gram(Z, 1.0).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("n, d", [(200, 200), (400, 200), (520, 520)])
def test_batches_of_large_matrices_on_two_threads(n, d):
    """Batched LU factors are wrong from size 160 on in PyTorch 2.13 with two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Z = randn(10 if n < 500 else 3, n, d).requires_grad_()
        value = log_det_gram(Z, 0.1)
        (gradient,) = torch.autograd.grad(value.sum(), Z)
        for M, one, slope in zip(Z.detach(), value, gradient, strict=True):
            S = torch.eye(d).double() + 0.1 * M.T @ M
            assert torch.allclose(one, torch.logdet(S), rtol=1e-12)
            assert torch.allclose(slope, 0.2 * torch.linalg.solve(S, M.T).T, rtol=0, atol=1e-12)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("n, d", [(500, 6), (6, 500)])
@pytest.mark.parametrize("a", [1.0, 1e13], ids=["cholesky", "singular values"])
def test_only_the_smaller_gram_matrix_is_made(largest_tensor, n, d, a):
    Z = randn(n, d).requires_grad_()
    with largest_tensor:
        log_det_gram(Z, a).backward()
    assert largest_tensor.entries == n * d


def test_many_a_share_the_eigenvalues_of_a_matrix(largest_tensor):
    Z = randn(30, 20)
    S = (Z.T @ Z).requires_grad_()
    with largest_tensor:
        log_det_psd(S, torch.logspace(-2, 2, 50)).sum().backward()
    assert largest_tensor.entries == 50 * 20


BAD = {
    "Z must be a floating-point tensor, got list": (TypeError, [[1.0]], 1.0),
    "Z must be a floating-point tensor, got torch.int64": (TypeError, torch.ones(2, 2).long(), 1.0),
    r"Z must be .* not empty, got \(3,\)": (ValueError, torch.ones(3), 1.0),
    r"Z must be .* not empty, got \(0, 3\)": (ValueError, torch.ones(0, 3), 1.0),
    "a must be finite and at least 0, got -1.0": (ValueError, torch.ones(2, 2), -1.0),
    "a must be finite and at least 0, got nan": (ValueError, torch.ones(2, 2), math.nan),
    "a must be finite and at least 0, got inf": (ValueError, torch.ones(2, 2), math.inf),
    "Z must be finite, got 4 NaN or infinite": (ValueError, torch.full((2, 2), math.nan), 1.0),
    "Z must be finite, got 4 NaN": (ValueError, torch.full((2, 2), math.inf), 1.0),
    "overflows torch.float32": (ValueError, torch.full((2, 2), 3e38), 1.0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    error, Z, a = BAD[message]
    with pytest.raises(error, match=message):
        log_det_gram(Z, a)
    with pytest.raises(error, match=message.replace("Z", "S")):
        log_det_psd(Z, a)


def test_matrices_that_are_not_square():
    with pytest.raises(ValueError, match=r"S must hold square matrices, got shape \(2, 3\)"):
        log_det_psd(torch.ones(2, 3), 1.0)


@pytest.mark.parametrize(
    ("S", "message"),
    [
        (torch.full((3, 3), -torch.inf), "S must be finite, got 9"),
        (-3 * torch.eye(3), "S must hold positive semidefinite"),
        (torch.tensor([[1.0, 9.0], [9.0, 1.0]]), "S must hold positive semidefinite"),
        (torch.eye(3) + torch.full((3, 3), torch.nan).triu(1), "S must be finite, got 3"),
        (torch.eye(3).index_fill(0, torch.tensor([2]), torch.nan), "S must be finite, got 3"),
    ],
    ids=["minus infinity", "negative", "indefinite", "NaN above the diagonal", "NaN in a row"],
)
def test_psd_refuses_what_has_no_log_det(S, message):
    with pytest.raises(ValueError, match=message):
        log_det_psd(S, 1.0)
