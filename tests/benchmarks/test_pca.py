"""Speed of PCA on MNIST digits against a full decomposition and scikit-learn's default."""

import pytest
import sklearn.decomposition
import torch

from companion_lib import data
from companion_lib.subspaces.pca import pca

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


def digits(dtype):
    images, _ = data.mnist(5000)
    return images.to(dtype)


def residual(X, components):
    """Return the mean squared distance to the span, in float64 whatever the fit's dtype."""
    W = X.double() - X.double().mean(0)
    V = torch.linalg.qr(components.double().T).Q
    return (W - W @ V @ V.T).square().sum().item() / len(X)


@DTYPES
def test_pca_against_a_full_svd(race, dtype):
    X = digits(dtype)

    def full():
        W = X - X.mean(0)
        return torch.linalg.svd(W, full_matrices=False)

    exact = residual(X, full().Vh[:50])
    assert residual(X, pca(X, 50).components) <= exact * (1 + 1e-6)
    race(
        f"PCA, 50 components, {dtype}".replace("torch.", ""),
        lambda: pca(X, 50),
        full,
        at_least=3.0,
        baseline_name="torch.linalg.svd, thin",
        sizes="5000 x 784",
        note="Gram matrix of the smaller side, then only the leading eigenvectors",
    )


@DTYPES
def test_pca_against_scikit_learn(race, dtype):
    X = digits(dtype)
    array = X.numpy()

    def default():
        return sklearn.decomposition.PCA(n_components=50, random_state=0).fit(array)

    other = residual(X, torch.from_numpy(default().components_))
    assert residual(X, pca(X, 50).components) <= other * (1 + 1e-6)  # ours is at least as accurate
    race(
        f"PCA, 50 components, {dtype}, scikit-learn".replace("torch.", ""),
        lambda: pca(X, 50),
        default,
        at_least=1.0,
        baseline_name="sklearn PCA(n_components=50)",
        sizes="5000 x 784",
        note="scikit-learn picks its randomized solver here; ours is exact up to rounding",
    )
