"""Dictionary learning: monotone, feasible, a critical point, recovery, revival, bad input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib.subspaces import (
    dictionary_learning,
    ista,
    lasso_objective,
    lasso_residual,
    match_signed_permutation,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def problem(n=1500, d=16, m=32, sparsity=2, seed=0):
    atoms = torch.nn.functional.normalize(randn(m, d, seed=seed))
    order = torch.rand(n, m, generator=generator(seed + 1)).argsort(1)
    return ((order < sparsity) * randn(n, m, seed=seed + 2)) @ atoms, atoms


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.floats(0, 1), st.integers(1, 3), st.integers(1, 3))
def test_the_objective_never_increases_and_atoms_stay_short(seed, lam, code_steps, atom_steps):
    X = randn(40, 6, seed=seed)
    fit = dictionary_learning(
        X, 9, lam, 60, generator=generator(seed), code_steps=code_steps, atom_steps=atom_steps
    )
    assert (fit.history.diff() <= 1e-12 * fit.history[0]).all()
    assert fit.atoms.norm(dim=1).max() <= 1 + 1e-12


def test_the_history_is_the_objective():
    X, _ = problem(n=100)
    fit = dictionary_learning(X, 32, 0.2, 10, generator=generator())
    assert len(fit.history) == 11
    assert fit.history[0].item() == pytest.approx(X.square().sum().item())
    last = lasso_objective(X, fit.codes, fit.atoms, 0.2).sum()
    assert fit.history[-1].item() == pytest.approx(last.item(), rel=1e-12)
    assert repr(fit) == "DictionaryLearning(m=32, d=16, n=100, steps=10)"


def test_the_first_codes_are_an_ista_step():
    X, atoms = problem(n=50)
    fit = dictionary_learning(X, 32, 0.2, 1, start=atoms, code_steps=5)
    assert torch.allclose(fit.codes, ista(X, atoms, 0.2, steps=5).codes, atol=1e-13)


def test_the_atoms_descend_along_their_gradient():
    """From codes fixed by the first half step, the change is -c times the gradient, projected."""
    X, atoms = problem(n=50)
    start = 0.2 * atoms  # inside the ball, where the projection does nothing at first
    fit = dictionary_learning(X, 32, 0.2, 1, start=start)
    codes = ista(X, start, 0.2, steps=1).codes
    gradient = codes.T @ (codes @ start - X)
    change = fit.atoms - start
    assert fit.atoms.norm(dim=1).max() < 1
    cosine = (change * -gradient).sum() / (change.norm() * gradient.norm())
    assert cosine.item() == pytest.approx(1, abs=1e-12)
    # No longer than one over the curvature, and no shorter than power iteration's slack allows.
    step = change.norm() / gradient.norm() * torch.linalg.matrix_norm(codes, 2) ** 2
    assert 0.05 < step <= 1.5


def test_recovers_most_atoms_of_an_overcomplete_dictionary():
    X, atoms = problem()
    fit = dictionary_learning(X, 32, 0.2, 750, generator=generator())
    found = match_signed_permutation(fit.atoms @ atoms.T).overlap > 0.99
    assert found.sum() >= 28
    truth = lasso_objective(X, ista(X, atoms, 0.2, 500).codes, atoms, 0.2).sum()
    assert fit.history[-1] < 1.05 * truth


def test_ends_at_a_critical_point():
    X, _ = problem(n=60, d=4, m=6)
    fit = dictionary_learning(X, 6, 0.5, 5000, generator=generator())
    assert lasso_residual(X, fit.codes, fit.atoms, 0.5).max() < 1e-4
    # Each atom is either free with a zero gradient, or on the sphere with the descent direction
    # pointing straight out.
    descent = -fit.codes.T @ (fit.codes @ fit.atoms - X)
    outward = (descent * fit.atoms).sum(1, keepdim=True).clamp(min=0) * fit.atoms
    assert (descent - outward).abs().max() < 1e-3


def test_unused_atoms_are_revived_without_changing_the_objective():
    X, atoms = problem(n=300)
    start = atoms.clone()
    start[:5] = 0  # an atom of length zero can neither be used nor learned
    common = {"start": start, "generator": generator()}
    before = dictionary_learning(X, 32, 0.2, 24, **common)
    assert (before.codes[:, :5] == 0).all()
    after = dictionary_learning(X, 32, 0.2, 50, **common)
    assert (after.codes != 0).any(0).all()
    assert (after.history.diff() <= 0).all()


def test_atoms_that_no_sample_needs_are_left_alone():
    X = torch.eye(3).double().repeat(5, 1)
    start = torch.cat([torch.eye(3), torch.tensor([[0.6, 0.8, 0.0]])]).double()
    fit = dictionary_learning(X, 4, 2.0, 30, start=start)  # lam so large that no atom is used
    assert torch.allclose(fit.atoms, start, atol=1e-6)


def test_too_long_first_atoms_are_scaled_to_the_ball():
    X, atoms = problem(n=20)
    fit = dictionary_learning(X, 32, 0.2, 0, start=3 * atoms)
    assert torch.allclose(fit.atoms, atoms, atol=1e-14)


def test_more_atoms_than_samples_and_zero_samples():
    X = torch.cat([randn(3, 5), torch.zeros(2, 5).double()])
    fit = dictionary_learning(X, 8, 0.1, 50, generator=generator())
    assert torch.isfinite(fit.atoms).all() and (fit.atoms.norm(dim=1) > 0.5).all()
    silent = dictionary_learning(torch.zeros(4, 5), 3, 0.1, 30, generator=generator())
    assert (silent.codes == 0).all() and (silent.history == 0).all()


def test_the_same_seed_gives_the_same_atoms():
    X, _ = problem(n=100)
    one, two, other = (
        dictionary_learning(X, 8, 0.2, 5, generator=generator(seed)).atoms for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


def test_progress_is_shown_only_on_request(capsys):
    X, _ = problem(n=20)
    dictionary_learning(X, 4, 0.2, 2, generator=generator())
    assert capsys.readouterr().err == ""
    dictionary_learning(X, 4, 0.2, 2, generator=generator(), progress=True)
    assert "dictionary learning" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_follows_the_dtype(dtype):
    fit = dictionary_learning(problem(n=50)[0].to(dtype), 8, 0.2, 5, generator=generator())
    assert fit.atoms.dtype == fit.codes.dtype == dtype


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"X": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "^X must hold floating-point"),
        ({"X": torch.zeros(0, 3)}, ValueError, "X is empty"),
        ({"X": torch.full((3, 2), float("nan"))}, ValueError, "X must be finite"),
        ({"m": 0}, ValueError, "m must be at least 1, got 0"),
        ({"lam": -1.0}, ValueError, "lam must be at least 0, got -1.0"),
        ({"steps": -1}, ValueError, "steps must be at least 0"),
        ({"code_steps": 0}, ValueError, "code_steps must be at least 1"),
        ({"atom_steps": 0}, ValueError, "atom_steps must be at least 1"),
        ({"start": torch.ones(3, 3)}, ValueError, r"start must have shape \(4, 3\), got \(3, 3\)"),
        ({"start": torch.full((4, 3), float("nan"))}, ValueError, "start must be finite"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        dictionary_learning(**{"X": torch.ones(5, 3), "m": 4, "lam": 0.1, **options})


def test_codes_that_cancel_and_huge_data_do_not_stall_it():
    """Codes (a, -a) are orthogonal to the vector of ones; float32 at 1e10 squares to 1e20."""
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    fit = dictionary_learning(torch.tensor([[1.0, 0.0]]), 2, 0.1, steps=3, start=opposite)
    assert fit.history[-1] < 0.1
    huge = 1e10 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert dictionary_learning(huge, 6, 0.1, steps=5).history.diff().max() <= 0
