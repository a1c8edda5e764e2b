"""The nearest subspace: exact recovery, explicit projections, digits, invariances, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib import data
from companion_lib.compression import NearestSubspaceClassifier, optimal_representation

seeds = st.integers(0, 2**16)
few = settings(max_examples=20, deadline=None)
fit = NearestSubspaceClassifier.fit


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def problem(seed=0, n=40, d=6, k=3):
    """Samples near random planes, in random order."""
    labels = torch.arange(n) % k
    labels = labels[torch.randperm(n, generator=generator(seed))]
    planes = randn(k, 2, d, seed=seed + 1)[labels]
    codes = randn(n, 1, 2, seed=seed + 2)
    return (codes @ planes)[:, 0] + 0.2 * randn(n, d, seed=seed + 3), labels


@pytest.mark.parametrize("sizes, ranks", [([20, 30, 25], [3, 3, 3]), ([5, 9], [2, 2])])
def test_orthogonal_subspaces_are_recovered(sizes, ranks):
    Z, labels = optimal_representation(sizes, ranks, 10, generator())
    model = fit(Z, labels, ranks[0])
    assert torch.equal(model.predict(Z), labels)
    residuals = model.residuals(Z)
    own = torch.nn.functional.one_hot(labels).bool()
    assert residuals[own].max() < 1e-13
    # From the others' subspaces a sample is as far as from zero.
    energies = Z.square().sum(1, keepdim=True).expand_as(residuals)
    assert torch.allclose(residuals[~own], energies[~own], rtol=1e-12)


@pytest.mark.parametrize("n, d, rank", [(40, 6, 2), (40, 6, 6), (12, 30, 3)])
def test_residuals_are_those_of_explicit_projections(n, d, rank):
    Z, labels = problem(n=n, d=d)
    new = randn(15, d, seed=9)
    model = fit(Z, labels, rank)
    residuals = model.residuals(new)
    assert residuals.shape == (15, 3)
    for k in range(3):
        _, sigma, Vt = np.linalg.svd(Z[labels == k].numpy(), full_matrices=False)
        basis = Vt[:rank].T
        codes, *_ = np.linalg.lstsq(basis, new.T.numpy(), rcond=None)
        distances = np.square(new.T.numpy() - basis @ codes).sum(0)
        assert np.allclose(residuals[:, k].numpy(), distances, atol=1e-11)
        assert np.allclose(model.singular_values[k].numpy(), sigma[:rank], rtol=1e-12)
    assert torch.equal(model.predict(new), residuals.argmin(1))
    assert (residuals >= 0).all()


@few
@given(seeds, st.integers(1, 4))
def test_bases_are_orthonormal_and_best(seed, rank):
    Z, labels = problem(seed)
    model = fit(Z, labels, rank)
    assert model.components.shape == (3, rank, 6)
    gram = model.components @ model.components.mT
    assert torch.allclose(gram, torch.eye(rank).double().expand_as(gram), atol=1e-12)
    for k in range(3):
        rows = Z[labels == k]
        other = torch.linalg.qr(randn(6, rank, seed=seed + k + 7)).Q
        assert model.residuals(rows)[:, k].sum() <= (rows - rows @ other @ other.T).square().sum()


@few
@given(seeds, st.floats(1e-2, 1e2))
def test_rotation_order_names_and_lengths(seed, scale):
    Z, labels = problem(seed)
    new = randn(20, 6, seed=seed + 8)
    Q, names = data.random_orthogonal(6, generator(seed)), torch.tensor([2, 0, 1])
    order = torch.randperm(len(Z), generator=generator(seed))
    before, after = fit(Z, labels, 2), fit((Z @ Q)[order], names[labels[order]], 2)
    assert torch.equal(after.predict(scale * new @ Q), names[before.predict(new)])
    residuals = after.residuals(scale * new @ Q)[:, names]
    assert torch.allclose(residuals, scale**2 * before.residuals(new), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lines_that_nearly_coincide(dtype):
    """Squared distances of 4e-8, or 4e-16, of squared norms: less than these are rounded to."""
    angle = 2e-4 if dtype == torch.float32 else 2e-8
    lines = torch.tensor([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]]).double()
    lines = (lines @ data.random_orthogonal(3, generator())).to(dtype)
    labels = torch.arange(200) % 2
    model = NearestSubspaceClassifier(lines[:, None], torch.ones(2, 1, dtype=dtype))
    Z = randn(200, 1, dtype=dtype) * lines[labels]
    assert torch.equal(model.predict(Z), labels)
    other = model.residuals(Z)[torch.arange(200), 1 - labels]
    assert torch.allclose(other, angle**2 * Z.square().sum(1), rtol=2e-2, atol=0)


def test_memory_of_residuals(largest_tensor):
    Z, labels = problem(n=600, d=30, k=20)
    model = fit(Z, labels, 25)
    with largest_tensor:
        model.residuals(Z)
    assert largest_tensor.entries <= Z.numel()


def test_digits():
    images, labels = data.digits()
    images = images.double()
    model = fit(images[:1300], labels[:1300], 12)
    accuracy = (model.predict(images[1300:]) == labels[1300:]).double().mean().item()
    assert accuracy > 0.93
    assert repr(model) == "NearestSubspaceClassifier(classes=10, rank=12, d=64)"


def test_one_class_one_sample():
    model = fit(torch.tensor([[3.0, 4.0]]), torch.tensor([0]), 1)
    assert model.singular_values.item() == 5
    assert model.predict(torch.randn(4, 2, generator=generator())).tolist() == [0] * 4
    away = model.residuals(torch.tensor([[-4.0, 3.0], [6.0, 8.0]]))
    assert away.flatten().tolist() == pytest.approx([25, 0], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    Z, labels = problem()
    Z = Z.to(dtype)
    half, single = fit(Z, labels, 2), fit(Z.float(), labels, 2)
    assert half.components.dtype == torch.float32
    assert torch.equal(half.components, single.components)
    assert torch.equal(half.residuals(Z), single.residuals(Z.float()))
    assert torch.equal(half.predict(Z), single.predict(Z.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_and_input_is_untouched(dtype):
    Z, labels = problem()
    Z = Z.to(dtype)
    copies = Z.clone(), labels.clone()
    model = fit(Z, labels, 2)
    assert model.components.dtype == model.residuals(Z).dtype == dtype
    assert torch.equal(Z, copies[0]) and torch.equal(labels, copies[1])
    assert torch.equal(fit(Z, labels.to(torch.int32), 2).components, model.components)


# Bad input

Z, Y = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
NAN = float("nan")
BAD = [
    ([[1.0]], Y, 1, TypeError, "Z must be a torch.Tensor, got list"),
    (Z.long(), Y, 1, TypeError, "Z must hold floating-point numbers"),
    (torch.ones(4), Y, 1, ValueError, r"Z must have 2 axes, got shape \(4,\)"),
    (torch.ones(0, 3), Y[:0], 1, ValueError, "Z is empty"),
    (torch.full((4, 3), NAN), Y, 1, ValueError, "Z must be finite, got 12 NaN"),
    (Z, Y[:3], 1, ValueError, r"4 integer labels.*got torch.int64 of shape \(3,\)"),
    (Z, Y - 1, 1, ValueError, "labels must be from 0 .*got -1 to 0"),
    (Z, Y.float(), 1, TypeError, "labels must be a tensor of integers, got torch.float32"),
    (Z, [0, 1, 0, 1], 1, TypeError, "labels must be a tensor of integers, got list"),
    (Z, 2 * Y, 1, ValueError, "every class needs a sample, but there is none with label 1"),
    (Z, Y, 0, ValueError, "rank must be between 1 .* = 2, got 0"),
    (Z, Y, 3, ValueError, "rank must be between 1 and smaller of class size .* = 2, got 3"),
    (Z, Y, 1.5, TypeError, "rank must be an integer, got 1.5"),
]


@pytest.mark.parametrize("samples, labels, rank, error, message", BAD)
def test_bad_input(samples, labels, rank, error, message):
    with pytest.raises(error, match=message):
        fit(samples, labels, rank)


@pytest.mark.parametrize(
    "new, error, message",
    [
        (torch.ones(2, 4), ValueError, r"Z must have shape \(2, 3\), got \(2, 4\)"),
        (
            torch.ones(2, 3).double(),
            ValueError,
            "Z must be torch.float32 on cpu, got torch.float64",
        ),
        (torch.full((2, 3), NAN), ValueError, "Z must be finite"),
        (torch.ones(3), ValueError, "Z must have 2 axes"),
        (torch.ones(2, 3).long(), TypeError, "Z must hold floating-point numbers"),
    ],
)
def test_bad_samples_to_classify(new, error, message):
    model = fit(Z, Y, 1)
    with pytest.raises(error, match=message):
        model.predict(new)
    with pytest.raises(error, match=message):
        model.residuals(new)
