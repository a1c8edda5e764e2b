"""Speed of sparse coding against scikit-learn's coordinate descent."""

import pytest
import torch
from sklearn.decomposition import sparse_encode

from companion_lib.subspaces import fista, lasso_gap, lasso_objective

N, D, ATOMS = 2000, 64, 256


def problem():
    """Return samples, atoms: codes with 5% nonzeros over unit Gaussian atoms, 5% noise."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    atoms = torch.nn.functional.normalize(randn(ATOMS, D))
    active = torch.rand(N, ATOMS, generator=generator) < 0.05
    return (active * randn(N, ATOMS)) @ atoms + 0.05 * randn(N, D), atoms


@pytest.mark.parametrize("lam", [0.2, 0.1])
def test_fista_against_coordinate_descent(race, lam):
    X, atoms = problem()
    # scikit-learn gets float64, in which it is faster: in float32 it runs into its rounding floor.
    samples, dictionary = X.double().numpy(), atoms.double().numpy()

    def ours():
        return fista(X, atoms, lam, steps=5000, tol=1e-4)

    def baseline():
        return sparse_encode(samples, dictionary, algorithm="lasso_cd", alpha=lam / 2)

    exact = X.double(), fista(X.double(), atoms.double(), lam, steps=5000, tol=1e-8).codes
    optimum = (lasso_objective(*exact, atoms.double(), lam)
               - lasso_gap(*exact, atoms.double(), lam))
    reached = lasso_objective(X.double(), ours().codes.double(), atoms.double(), lam)
    assert (reached <= optimum * (1 + 1e-4)).all()
    race(
        f"FISTA, every code within 1e-4 of its optimum, lam = {lam}",
        ours,
        baseline,
        at_least=1.0,
        baseline_name='sklearn sparse_encode(algorithm="lasso_cd"), float64',
        sizes=f"{N} codes, {ATOMS} x {D} dictionary",
        note="float32, stopped by the duality gap; both are more accurate than asked",
    )
