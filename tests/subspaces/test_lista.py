"""LISTA: equal to ISTA before training, better after it, saved and loaded, bad input."""

import io

import pytest
import torch

from companion_lib.subspaces import LISTA, ista
from companion_lib.subspaces.lasso import step_limit

every = pytest.mark.parametrize("thresholds", ["learned", "fixed"])
tying = pytest.mark.parametrize("tied", [True, False])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def atoms(m=32, d=16):
    return torch.nn.functional.normalize(randn(m, d))


@every
@tying
def test_untrained_it_is_ista(thresholds, tied):
    D, X = atoms(), randn(20, 16, seed=1)
    network = LISTA(D, 0.2, 7, thresholds=thresholds, tied=tied)
    assert torch.allclose(network(X), ista(X, D, 0.2, steps=7).codes, atol=1e-12)


@pytest.mark.parametrize(
    "thresholds, tied, numbers",
    [
        ("fixed", True, 3 * 32 * 16),
        ("learned", True, 3 * (32 * 16 + 2)),
        ("fixed", False, 3 * 2 * 32 * 16),
        ("learned", False, 3 * (2 * 32 * 16 + 1)),
    ],
)
def test_what_is_trained(thresholds, tied, numbers):
    network = LISTA(atoms(), 0.2, 3, thresholds=thresholds, tied=tied)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == numbers
    network(randn(9, 16, seed=1)).square().sum().backward()
    # The first layer starts from zero codes, so its decoder has nothing to learn from.
    assert all(p.grad is not None and (p.grad != 0).any() for p in trained)


def test_gradients():
    network = LISTA(atoms(4, 3), 0.2, 2)
    assert torch.autograd.gradcheck(network, (randn(2, 3, seed=1).requires_grad_(),))


def test_negative_thresholds_act_as_zero():
    D, X = atoms(), randn(5, 16, seed=1)
    network = LISTA(D, 0.2, 4)
    with torch.no_grad():
        network.thresholds.fill_(-1.0)
    assert torch.allclose(network(X), ista(X, D, 0.0, steps=4).codes, atol=1e-12)


def decibels(Z, truth):
    return 10 * ((Z - truth).square().sum() / truth.square().sum()).log10().item()


def test_training_beats_ista_and_learned_thresholds_beat_fixed_ones():
    generator = torch.Generator().manual_seed(0)
    D = atoms(24, 12).float()

    def draw(n):
        active = torch.rand(n, 24, generator=generator) < 0.08
        Z = active * torch.randn(n, 24, generator=generator)
        return Z @ D, Z

    X, Z = draw(1000)
    errors = {"ista": decibels(ista(X, D, 0.1, steps=5).codes, Z)}
    for thresholds in ("fixed", "learned"):
        network = LISTA(D, 0.1, 5, thresholds=thresholds)
        weights = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=5e-3)
        for _ in range(200):
            samples, codes = draw(128)
            loss = (network(samples) - codes).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors[thresholds] = decibels(network(X), Z)
    assert errors["fixed"] < errors["ista"]
    assert errors["learned"] < errors["fixed"] - 3


@tying
def test_saved_and_loaded(tied):
    X, file = randn(5, 16, seed=1), io.BytesIO()
    network = LISTA(atoms(), 0.3, 3, tied=tied)
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = LISTA(torch.ones_like(atoms()), 0.9, 3, tied=tied)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(X), network(X))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_follows_the_dtype(dtype):
    D = atoms().to(dtype)
    network = LISTA(D, 0.2, 2)
    assert {p.dtype for p in network.parameters()} == {dtype}
    assert network(randn(3, 16).to(dtype)).dtype == dtype


def test_the_dictionary_is_copied():
    D = atoms()
    network = LISTA(D, 0.2, 2)
    D.zero_()
    assert network.dictionaries.abs().sum() > 0


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"D": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "^D must hold floating-point"),
        ({"D": torch.ones(3)}, ValueError, "D must have 2 axes"),
        ({"D": torch.zeros(3, 2)}, ValueError, "D must have at least one nonzero atom"),
        ({"lam": -0.1}, ValueError, "lam must be at least 0"),
        ({"layers": 0}, ValueError, "layers must be at least 1, got 0"),
        ({"thresholds": "free"}, ValueError, "thresholds must be .* got 'free'"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        LISTA(**{"D": torch.ones(3, 2), "lam": 0.1, "layers": 2, **options})


@pytest.mark.parametrize(
    "X, error, message",
    [
        (torch.ones(2, 16, dtype=torch.int64), TypeError, "^X must hold floating-point"),
        (torch.ones(2, 5).double(), ValueError, r"X must have shape \(2, 16\), got \(2, 5\)"),
        (torch.ones(2, 16), ValueError, "X must be torch.float64"),
        (torch.full((2, 16), float("nan")).double(), ValueError, "X must be finite"),
    ],
)
def test_bad_samples(X, error, message):
    with pytest.raises(error, match=message):
        LISTA(atoms(), 0.1, 2)(X)


def test_step_sizes_start_at_the_limit():
    network = LISTA(atoms(), 0.2, 3)
    assert torch.allclose(network.step_sizes, torch.tensor(step_limit(atoms())).double())
