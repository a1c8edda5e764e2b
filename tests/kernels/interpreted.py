"""The Triton forms in Triton's interpreter. Run by test_triton.py, which sets TRITON_INTERPRET=1.

By hand: ``TRITON_INTERPRET=1 pytest tests/kernels/interpreted.py``.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from companion_lib.kernels import class_gram, softmax_mean, use
from companion_lib.kernels.class_gram_triton import segment_grams
from companion_lib.kernels.softmax_mean import BLOCK


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours, exact, digits):
    """Whether they agree to ``digits`` of the largest entry."""
    return (ours.double() - exact).abs().max() <= digits * (1e-30 + exact.abs().max())


# Class sizes and d: one row, one feature, empty classes, tiles and blocks that are full or not.
SETS = [((1,), 1), ((1, 0, 3), 2), ((0, 70), 33), ((64, 65, 1), 32), ((5, 130, 0, 0), 65)]
SETS += [((40, 3), 129)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes, d", SETS)
def test_class_gram(sizes, d, dtype):
    n, k = sum(sizes), len(sizes)
    labels = torch.arange(k).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    Z = randn(n, d, dtype=dtype).requires_grad_()
    direction = randn(k, d, d, seed=1)
    with use("triton"):
        grams = class_gram(Z, labels, k)
    (gradient,) = torch.autograd.grad((grams * direction).sum(), Z)
    assert grams.dtype == torch.float32 and gradient.dtype == dtype
    assert torch.equal(grams, grams.mT)
    exact = Z.detach().double()
    grams_exact = torch.stack([exact[labels == c].T @ exact[labels == c] for c in range(k)])
    symmetric = (direction + direction.mT).double()
    gradient_exact = torch.einsum("ni,nij->nj", exact, symmetric[labels])
    assert close(grams.detach(), grams_exact, 1e-6)
    assert close(gradient, gradient_exact, max(1e-6, torch.finfo(dtype).eps))


def test_second_derivatives_of_class_gram():
    Z, labels = randn(7, 5).requires_grad_(), torch.tensor([2, 0, 2, 1, 0, 2, 2])

    def penalty():
        (slope,) = torch.autograd.grad(class_gram(Z, labels, 4).pow(3).sum(), Z, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), Z)[0]

    expected = penalty()
    with use("triton"):
        assert close(penalty(), expected, 1e-6)


def test_class_gram_of_strided_rows_and_int_labels():
    Z = randn(90, 40).T[:, ::2]  # neither rows nor columns are contiguous
    labels = torch.arange(40, dtype=torch.int32) % 3
    expected = class_gram(Z, labels)
    with use("triton"):
        assert torch.allclose(class_gram(Z, labels), expected, atol=1e-5)


def test_class_gram_of_columns_more_than_two_to_the_31_numbers_apart():
    """A transposed view: 4 GB of addresses, of which only the six rows' pages are ever used."""
    gap = 2**30 + 5
    Z = torch.empty(2 * gap + 6, dtype=torch.float16).as_strided((6, 3), (1, gap))
    Z.copy_(randn(6, 3))
    labels = torch.arange(6) % 2
    near, Z = Z.clone().requires_grad_(), Z.requires_grad_()
    grams = [_with("triton", class_gram, rows, labels) for rows in (near, Z)]
    assert torch.equal(*grams)
    gradients = [torch.autograd.grad(g.sum(), x)[0] for g, x in zip(grams, (near, Z), strict=True)]
    assert torch.equal(*gradients)


def test_class_gram_waits_for_no_size_of_a_class():
    """Neither ``int`` of a tensor nor ``bincount``, which looks at the labels first."""
    operations = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            operations.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    Z, labels = randn(12, 3).requires_grad_(), torch.arange(12) % 4
    with Watch():
        segment_grams(Z, labels, 5).sum().backward()
    assert "sort" in operations
    assert not operations & {"_local_scalar_dense", "bincount", "nonzero", "unique_consecutive"}


def test_class_gram_of_large_numbers_in_half_precision():
    Z = (3e4 * torch.sign(randn(200, 20))).half()
    with use("triton"):
        grams = class_gram(Z, torch.zeros(200, dtype=torch.long))
    exact = Z.double().T @ Z.double()
    assert close(grams[0], exact, 1e-6)


def test_class_gram_says_that_it_takes_no_float64():
    message = "class_gram cannot run in Triton here: it takes float32 and half precision"
    with use("triton"), pytest.raises(ValueError, match=message):
        class_gram(randn(4, 3).double(), torch.zeros(4, dtype=torch.long))


def test_memberships_have_no_triton_form():
    Z, memberships = randn(12, 3), torch.softmax(randn(12, 2), 1)
    with use("triton"):
        assert torch.equal(class_gram(Z, memberships), _with("fast", class_gram, Z, memberships))


def _with(form, function, *args):
    with use(form):
        return function(*args)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("m, n, d, v", [(1, 1, 1, 1), (3, 40, 5, 2), (9, 5, 1, 3), (5, 33, 70, 1)])
def test_softmax_mean(monkeypatch, m, n, d, v, dtype, biased):
    monkeypatch.setitem(BLOCK, "cpu", (4 * 17, 17, 17))
    inputs = [randn(m, d), randn(n, d, seed=1), randn(n, v, seed=2), randn(n, seed=3)]
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    scale = (randn(m, seed=4).exp() / math.sqrt(d)).requires_grad_()
    exact = [x.detach().double().requires_grad_() for x in (*inputs, scale)]
    if not biased:
        inputs[3] = exact[3] = None
    with use("triton"):
        mean = softmax_mean(*inputs, scale)
    with use("reference"):
        expected = softmax_mean(*exact)
    rounding = torch.finfo(dtype).eps
    assert mean.dtype == dtype
    assert close(mean.detach(), expected.detach(), 50 * rounding)
    given = [x for x in (*inputs, scale) if x is not None]
    ours = torch.autograd.grad(mean.square().sum(), given)
    theirs = torch.autograd.grad(expected.square().sum(), [x for x in exact if x is not None])
    for a, b in zip(ours, theirs, strict=True):
        assert (a.double() - b).abs().max() <= 30 * max(rounding, 1e-7) * (1 + b.abs().max())


def test_softmax_mean_of_strided_inputs(monkeypatch):
    monkeypatch.setitem(BLOCK, "cpu", (4 * 16, 16, 16))
    inputs = [randn(3, 9).T, randn(3, 40).T, randn(2, 40).T, randn(40, 2)[:, 1]]
    scale = 1 + randn(9, 2)[:, 0].abs()
    for given in (inputs, [*inputs, scale], [*inputs, scale[0]]):
        assert torch.allclose(
            _with("triton", softmax_mean, *given),
            _with("reference", softmax_mean, *given),
            atol=1e-5,
        )


def test_softmax_mean_of_large_logits(monkeypatch):
    monkeypatch.setitem(BLOCK, "cpu", (4 * 16, 16, 16))
    inputs = [1e6 * randn(6, 3), randn(50, 3, seed=1), randn(50, 2, seed=2), 1e6 * randn(50)]
    inputs = [x.requires_grad_() for x in inputs]
    ours = _with("triton", softmax_mean, *inputs)
    theirs = _with("reference", softmax_mean, *inputs)
    assert torch.allclose(ours, theirs, atol=1e-5)
    for gradient in torch.autograd.grad(ours.sum(), inputs):
        assert gradient.isfinite().all()


def test_gradcheck_of_softmax_mean(monkeypatch):
    monkeypatch.setitem(BLOCK, "cpu", (4, 2, 2))
    inputs = [randn(2, 1), randn(3, 1, seed=1), randn(3, 1, seed=2), randn(3, seed=3)]
    inputs = [x.double().requires_grad_() for x in (*inputs, randn(2).exp())]
    with use("triton"):
        assert torch.autograd.gradcheck(softmax_mean, inputs)
        assert torch.autograd.gradgradcheck(softmax_mean, inputs)
