"""Class-weighted Gram matrices: einsum, the formula, gradients, memory, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from companion_lib import kernels
from companion_lib.kernels import class_gram
from companion_lib.kernels.class_gram import check_labels

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
forms = pytest.mark.parametrize("form", ["reference", "fast"])

# Class sizes and d: one row, one feature, empty classes in front, between and behind, d > n.
SETS = [((1,), 1), ((3, 4), 1), ((0, 2, 0, 5, 0), 3), ((1, 1, 1), 7), ((40, 3, 200), 30)]
sets = pytest.mark.parametrize("sizes, d", SETS)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shuffled(sizes, seed=0):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def onehot(labels, k):
    return (labels[:, None] == torch.arange(k)).double()


def by_einsum(Z, memberships):
    return torch.einsum("ni,nk,nj->kij", Z, memberships, Z)


@forms
@sets
def test_labels(sizes, d, form):
    labels, k = shuffled(sizes), len(sizes)
    Z = randn(len(labels), d)
    with kernels.use(form):
        grams = class_gram(Z, labels, k)
        assert torch.allclose(grams, by_einsum(Z, onehot(labels, k)), rtol=0, atol=1e-12)
        for dtype in (torch.uint8, torch.uint16, torch.int32):
            assert torch.equal(class_gram(Z, labels.to(dtype), k), grams)
        assert len(class_gram(Z, labels)) == labels.max() + 1


@forms
@sets
def test_memberships(sizes, d, form):
    n, k = sum(sizes), len(sizes)
    Z, memberships = randn(n, d), 3 * torch.softmax(randn(n, k, seed=1), 1)
    with kernels.use(form):
        grams = class_gram(Z, memberships)
    assert torch.allclose(grams, by_einsum(Z, memberships), rtol=0, atol=1e-11)


@sets
def test_labels_are_memberships_of_zero_and_one(sizes, d):
    labels, k = shuffled(sizes), len(sizes)
    Z = randn(len(labels), d)
    assert torch.allclose(class_gram(Z, labels, k), class_gram(Z, onehot(labels, k)), atol=1e-12)


@sets
def test_gradcheck_of_labels(sizes, d):
    labels, k = shuffled(sizes), len(sizes)
    Z = randn(len(labels), d).requires_grad_()
    few_rows = Z[:20].detach().requires_grad_()  # all of d = 30 is enough of the largest
    assert torch.autograd.gradcheck(
        lambda Z: class_gram(Z, labels[:20], k), few_rows, fast_mode=d > 10
    )


def test_gradcheck_of_memberships():
    memberships = torch.softmax(randn(6, 3, seed=1), 1).requires_grad_()
    assert torch.autograd.gradcheck(class_gram, (randn(6, 4).requires_grad_(), memberships))


def test_second_derivatives():
    Z, memberships = randn(6, 4).requires_grad_(), torch.softmax(randn(6, 3, seed=1), 1)
    labels = shuffled((3, 0, 2, 1))
    assert torch.autograd.gradgradcheck(lambda Z: class_gram(Z, labels), Z)
    assert torch.autograd.gradgradcheck(class_gram, (Z, memberships.requires_grad_()))


@pytest.mark.parametrize("soft", [False, True])
def test_autocast_changes_nothing(soft):
    labels = shuffled((30, 20))
    Z = randn(50, 8, dtype=torch.float32).requires_grad_()
    classes = onehot(labels, 2).float() if soft else labels
    grams = class_gram(Z, classes)
    (slope,) = torch.autograd.grad(grams.square().sum(), Z)
    with torch.autocast("cpu", torch.bfloat16):
        same = class_gram(Z, classes)
        (same_slope,) = torch.autograd.grad(same.square().sum(), Z)
    assert torch.equal(same, grams) and torch.equal(same_slope, slope)


@sets
def test_gradient_of_a_direction_that_is_not_symmetric(sizes, d):
    labels, k = shuffled(sizes), len(sizes)
    Z, direction = randn(len(labels), d).requires_grad_(), randn(k, d, d, seed=1)
    (ours,) = torch.autograd.grad((class_gram(Z, labels, k) * direction).sum(), Z)
    expected = torch.einsum("ni,nij->nj", Z.detach(), (direction + direction.mT)[labels])
    assert torch.allclose(ours, expected, rtol=0, atol=1e-11)


@few
@given(seeds)
def test_invariances(seed):
    labels, Z = shuffled((4, 0, 3, 5), seed), randn(12, 5, seed=seed)
    grams = class_gram(Z, labels, 4)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    rotation = torch.linalg.qr(randn(5, 5, seed=seed)).Q
    signs = torch.sign(randn(12, 1, seed=seed))
    swapped = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(class_gram(Z[order], labels[order], 4), grams, atol=1e-12)
    assert torch.allclose(class_gram(signs * Z, labels, 4), grams, atol=1e-12)
    assert torch.allclose(class_gram(Z, swapped[labels], 4)[swapped], grams, atol=1e-12)
    turned = rotation.T @ grams @ rotation
    assert torch.allclose(class_gram(Z @ rotation, labels, 4), turned, atol=1e-11)
    assert torch.allclose(grams.sum(0), Z.T @ Z, atol=1e-12)
    assert (torch.linalg.eigvalsh(grams) > -1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_half_precision_is_computed_in_float32(dtype, soft):
    labels = shuffled((300, 200))
    Z = (300 + randn(500, 8)).to(dtype).requires_grad_()  # squares overflow float16
    classes = torch.softmax(randn(500, 2), 1).to(dtype) if soft else labels
    grams = class_gram(Z, classes, None if soft else 2)
    weights = classes.double() if soft else onehot(labels, 2)
    exact = by_einsum(Z.detach().double(), weights)
    assert grams.dtype == torch.float32
    assert torch.allclose(grams.double(), exact, rtol=1e-5)
    (gradient,) = torch.autograd.grad(grams.mean(), Z)
    assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_no_membership_matrix_is_made(largest_tensor, soft):
    n, d, k = 3000, 10, 4
    Z, labels = randn(n, d).requires_grad_(), shuffled((1000, 500, 1500, 0))
    classes = torch.softmax(randn(n, k), 1).requires_grad_() if soft else labels
    with largest_tensor:
        class_gram(Z, classes, None if soft else k).square().sum().backward()
    assert largest_tensor.entries == max(n * d, k * d * d)


GOOD = torch.ones(4, 3)
BAD = {
    "Z must be a floating-point .* got list": (TypeError, [[1.0]], torch.zeros(1).long()),
    "Z must be a floating-point .* got torch.int64": (
        TypeError,
        GOOD.long(),
        torch.zeros(4).long(),
    ),
    r"Z must be .* not empty, got torch.float32 \(0, 3\)": (
        ValueError,
        torch.ones(0, 3),
        torch.zeros(0).long(),
    ),
    r"Z must be .* got torch.float32 \(3,\)": (ValueError, torch.ones(3), torch.zeros(3).long()),
    "classes must be a tensor": (TypeError, GOOD, [0, 1, 0, 1]),
    "classes must be a tensor of labels": (TypeError, GOOD, torch.zeros(4, dtype=torch.cfloat)),
    "classes must be 4 integer labels.* torch.bool": (ValueError, GOOD, torch.ones(4).bool()),
    r"classes must be 4 integer labels.*\(5,\)": (ValueError, GOOD, torch.zeros(5).long()),
    r"classes must be labels \(n,\) or memberships .* \(5, 2\)": (
        ValueError,
        GOOD,
        torch.ones(5, 2),
    ),
    r"classes must be labels \(n,\) or memberships .* \(4,\)": (ValueError, GOOD, torch.ones(4)),
    "classes must be on cpu like Z, got meta": (ValueError, GOOD, torch.zeros(4).to("meta")),
    "labels must be from 0 to k - 1 = 2, got -1 to 2": (
        ValueError,
        GOOD,
        torch.tensor([0, -1, 2, 1]),
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    error, Z, classes = BAD[message]
    with pytest.raises(error, match=message):
        class_gram(Z, classes)


def test_a_label_beyond_k():
    with pytest.raises(ValueError, match="labels must be from 0 to k - 1 = 1, got 0 to 2"):
        class_gram(GOOD, torch.tensor([0, 1, 2, 0]), k=2)


def test_the_ends_of_the_labels_come_back_together():
    """``int`` of a tensor would wait for a GPU, for each of them."""
    operations = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    with Watch():
        assert check_labels(torch.tensor([0, 3, 1]), 3, None) == 4
    assert "aminmax" in operations
    assert "_local_scalar_dense" not in operations
