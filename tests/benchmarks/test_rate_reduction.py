"""Speed of rate reduction, forward and backward, against the formula with membership matrices."""

import numpy as np
import pytest
import torch

from companion_lib.compression import class_coding_rates, coding_rate, mcr2_loss

EPS = 0.5
SIZES = pytest.mark.parametrize(
    "n, d, from_labels, given, products",
    [(1000, 128, 20.0, 5.0, 0.03), (2000, 512, 25.0, 10.0, 0.15)],
    ids=["1000x128", "2000x512"],
)
K = 10


def problem(n, d):
    """Points on the sphere in ten overlapping classes, in float32, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (n,), generator=generator)
    centers = torch.randn(K, d, generator=generator)
    Z = torch.randn(n, d, generator=generator) + centers[labels]
    return torch.nn.functional.normalize(Z, dim=1).requires_grad_(), labels


def dense_memberships(labels, dtype=torch.float32):
    """Diagonal matrices (k, n, n) of zeros and ones, filled one entry at a time in float64."""
    memberships = np.zeros((K, len(labels), len(labels)))
    for i, label in enumerate(labels.tolist()):
        memberships[label, i, i] = 1.0
    return torch.from_numpy(memberships).to(dtype)


def by_the_formula(Z, memberships):
    """MCR² as it is written, with samples as columns and an LU factor for each class."""
    W = Z.T
    d, n = W.shape
    eye = torch.eye(d, dtype=Z.dtype)
    whole = torch.logdet(eye + d / (n * EPS**2) * W @ W.T) / 2
    parts = 0.0
    for membership in memberships:
        size = membership.trace()
        gram = W @ membership @ W.T
        parts = parts + size / (2 * n) * torch.logdet(eye + d / (size * EPS**2) * gram)
    return parts - whole


def with_gradient(loss, Z):
    value = loss(Z)
    return value.detach(), torch.autograd.grad(value, Z)[0]


def check(ours, theirs, Z):
    """Both are the same function; in float64, because the formula is rough in float32."""
    Z = Z.detach().double().requires_grad_()
    for a, b in zip(with_gradient(ours, Z), with_gradient(theirs, Z), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * b.abs().max())


@SIZES
def test_from_labels(race, n, d, from_labels, given, products):
    Z, labels = problem(n, d)

    def ours(Z):
        return mcr2_loss(Z, labels, EPS)

    def theirs(Z):
        return by_the_formula(Z, dense_memberships(labels, Z.dtype))

    check(ours, theirs, Z)
    race(
        f"rate reduction from labels, d = {d}",
        lambda: with_gradient(ours, Z),
        lambda: with_gradient(theirs, Z),
        at_least=from_labels,
        baseline_name="dense memberships built from the labels, logdet",
        sizes=f"{n} x {d}, 10 classes",
        note="forward and backward; the baseline builds ten n x n matrices at each step",
    )


@SIZES
def test_from_memberships(race, n, d, from_labels, given, products):
    Z, labels = problem(n, d)
    memberships = dense_memberships(labels)

    def ours(Z):
        return mcr2_loss(Z, labels, EPS)

    def theirs(Z):
        return by_the_formula(Z, memberships.to(Z.dtype))

    check(ours, theirs, Z)
    race(
        f"rate reduction, memberships ready-made, d = {d}",
        lambda: with_gradient(ours, Z),
        lambda: with_gradient(theirs, Z),
        at_least=given,
        baseline_name="dense memberships, logdet",
        sizes=f"{n} x {d}, 10 classes",
        note="as above, with ten n x n matrices given to the baseline for free",
    )


@SIZES
def test_against_its_products(race, n, d, from_labels, given, products):
    """Gram matrices, and the gradients of the rows: what no form can do without.

    Half the ratios that a quiet machine has: twice the time would be noticed.
    """
    Z, labels = problem(n, d)
    rows, square = Z.detach(), torch.eye(d)
    race(
        f"rate reduction and its bare products, d = {d}",
        lambda: with_gradient(lambda Z: mcr2_loss(Z, labels, EPS), Z),
        lambda: (rows.T @ rows, rows @ square),
        at_least=products,
        baseline_name="ZᵀZ, and Z times a d x d matrix",
        sizes=f"{n} x {d}, 10 classes",
        note="below 1 by what eleven Cholesky factors and inverses of d x d matrices take",
    )


def test_many_groups_of_two_views(race):
    groups, d = 256, 128
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(2 * groups, d, generator=generator)
    Z = torch.nn.functional.normalize(Z, dim=1).requires_grad_()
    labels = torch.arange(groups).repeat_interleave(2)

    def ours(Z):
        return coding_rate(Z.unflatten(0, (groups, 2)), EPS).sum()

    def from_labels(Z):
        return class_coding_rates(Z, labels, EPS).sum()

    def one_at_a_time(Z):
        eye = torch.eye(d, dtype=Z.dtype)
        views = Z.unflatten(0, (groups, 2))
        return sum(torch.logdet(eye + d / (2 * EPS**2) * view.T @ view) for view in views) / 2

    def by_cholesky(Z):
        views = Z.unflatten(0, (groups, 2))
        L = torch.linalg.cholesky(torch.eye(d).to(Z) + d / (2 * EPS**2) * views.mT @ views)
        return L.diagonal(dim1=1, dim2=2).log().sum()

    for name, form, baseline, at_least, note in (
        (
            "torch.logdet of one d x d matrix at a time",
            ours,
            one_at_a_time,
            100.0,
            "forward and backward; a group of two needs a 2 x 2 matrix, not d x d",
        ),
        (
            "Cholesky factors of all d x d matrices at once",
            ours,
            by_cholesky,
            50.0,
            "as above, with d x d matrices at their best, batched and without LU",
        ),
        (
            "labels; torch.logdet of one d x d matrix at a time",
            from_labels,
            one_at_a_time,
            20.0,
            "as the first, with the pairs given by labels: they are checked, sorted and padded",
        ),
    ):
        check(form, baseline, Z)
        race(
            f"coding rates of 256 pairs of views, {name.split()[0]}",
            lambda form=form: with_gradient(form, Z),
            lambda baseline=baseline: with_gradient(baseline, Z),
            at_least=at_least,
            baseline_name=name,
            sizes=f"256 groups of 2 x {d}",
            note=note,
        )
