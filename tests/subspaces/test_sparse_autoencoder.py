"""The sparse autoencoder: one nonnegative ISTA step, training, copies, bad input."""

import io

import pytest
import torch

from companion_lib.subspaces import SparseAutoencoder, ista


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("start", [None, randn(7, seed=5)])
def test_the_encoder_is_one_nonnegative_ista_step(start):
    D, X = randn(7, 4), randn(20, 4, seed=1)
    model = SparseAutoencoder.from_dictionary(D, lam=0.3, step_size=0.02, start=start)
    first = None if start is None else start.expand(20, 7).clone()
    step = ista(X, D, 0.3, steps=1, step_size=0.02, start=first, nonnegative=True).codes
    assert torch.allclose(model.encode(X), step, atol=1e-14)
    assert (step > 0).any() and (step == 0).any()
    assert torch.allclose(model.decode(step), step @ D, atol=1e-14)
    assert torch.allclose(model(X), step @ D, atol=1e-14)


def test_the_first_weights_are_tied_unit_atoms():
    model = SparseAutoencoder(5, 9, generator=generator())
    assert model.decoder_weight.shape == (9, 5)
    assert torch.allclose(model.decoder_weight.norm(dim=1), torch.ones(9))
    assert torch.equal(model.encoder_weight, model.decoder_weight)
    assert model.encoder_weight.data_ptr() != model.decoder_weight.data_ptr()
    again = SparseAutoencoder(5, 9, generator=generator())
    assert torch.equal(again.encoder_weight, model.encoder_weight)


def test_gradients():
    model = SparseAutoencoder(3, 4, generator=generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(model, (randn(2, 3).requires_grad_(),))


def test_training_lowers_its_loss():
    X = (randn(500, 6) ** 3).float()
    model = SparseAutoencoder(6, 12, generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        codes = model.encode(X)
        loss = (model.decode(codes) - X).square().sum(1).mean() + 0.1 * codes.sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_saved_and_loaded():
    X, file = randn(5, 4), io.BytesIO()
    model = SparseAutoencoder.from_dictionary(randn(7, 4), 0.3, 0.02)
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = SparseAutoencoder(4, 7, dtype=torch.float64)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(X), model(X))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_follows_the_dtype(dtype):
    model = SparseAutoencoder.from_dictionary(randn(7, 4).to(dtype), 0.3, 0.02)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model(randn(3, 4).to(dtype)).dtype == dtype


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"D": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "^D must hold floating-point"),
        ({"D": torch.ones(3)}, ValueError, "D must have 2 axes"),
        ({"lam": -0.1}, ValueError, "lam must be at least 0"),
        ({"step_size": -0.1}, ValueError, "step_size must be at least 0"),
        ({"start": torch.ones(2)}, ValueError, r"start must have shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_dictionaries(options, error, message):
    with pytest.raises(error, match=message):
        SparseAutoencoder.from_dictionary(
            **{"D": torch.ones(3, 2), "lam": 0.1, "step_size": 0.1, **options}
        )


@pytest.mark.parametrize("d, m, name", [(0, 3, "d"), (3, 0, "m")])
def test_bad_sizes(d, m, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        SparseAutoencoder(d, m)


@pytest.mark.parametrize(
    "X, error, message",
    [
        (torch.ones(2, 4, dtype=torch.int64), TypeError, "^X must hold floating-point"),
        (torch.ones(2, 5), ValueError, r"X must have shape \(2, 4\), got \(2, 5\)"),
        (torch.full((2, 4), float("nan")), ValueError, "X must be finite"),
    ],
)
def test_bad_samples(X, error, message):
    with pytest.raises(error, match=message):
        SparseAutoencoder(4, 7).encode(X)


def test_from_dictionary_leaves_the_global_random_numbers_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SparseAutoencoder.from_dictionary(torch.eye(3), 0.1, 0.2)
    assert torch.equal(torch.get_rng_state(), before)
