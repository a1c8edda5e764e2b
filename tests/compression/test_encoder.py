"""The encoder onto the sphere and its training: formulas, a loop of torch's own, bad input."""

import math

import numpy as np
import pytest
import torch

from companion_lib import data
from companion_lib.compression import SphereEncoder, mcr2_loss, rate_reduction, train


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


# The encoder


@pytest.mark.parametrize("sizes", [(4, 3), (4, 9, 3), (4, 8, 8, 2)])
def test_it_is_a_perceptron_scaled_to_unit_length(sizes):
    model, X = SphereEncoder(*sizes, generator=generator()).double(), randn(6, 4)
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias, generator=generator(1))
    hidden = X.numpy()
    for i, layer in enumerate(model.layers):
        hidden = np.maximum(hidden, 0) if i else hidden
        hidden = hidden @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    expected = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    assert np.allclose(model.features(X).detach().numpy(), hidden, atol=1e-12)
    assert np.allclose(model(X).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_have_unit_length_and_the_dtype_of_the_model(dtype):
    model = SphereEncoder(5, 16, 7, generator=generator()).to(dtype)
    Z = model(100 * randn(30, 5).to(dtype))
    assert Z.shape == (30, 7) and Z.dtype == dtype
    assert torch.allclose(Z.norm(dim=1), torch.ones(30, dtype=dtype), rtol=1e-6)


def test_weights_are_drawn_by_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (SphereEncoder(4, 6, 3, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_weights_keep_the_scale_of_a_relu_network():
    model = SphereEncoder(300, 200, 100, generator=generator())
    for layer, inputs in zip(model.layers, (300, 200), strict=True):
        weight = layer.weight
        # The standard error of a variance is sqrt(2/m) of it.
        error = 5 * (2 / weight.numel()) ** 0.5
        assert weight.square().mean().item() == pytest.approx(2 / inputs, rel=error)
        assert not layer.bias.any()


def test_gradients():
    model = SphereEncoder(3, 5, 4, generator=generator()).double()
    assert torch.autograd.gradcheck(model, (randn(4, 3).requires_grad_(),))


# Training


def test_training_is_adam_over_all_samples_if_the_batch_is_all():
    X = randn(12, 4, dtype=torch.float32)
    labels = torch.arange(12) % 2
    ours, other = (SphereEncoder(4, 8, 3, generator=generator()) for _ in range(2))
    train(
        lambda rows: mcr2_loss(ours(X[rows]), labels[rows], 0.5),
        ours.parameters(), n=12, epochs=5, batch=12, lr=3e-3, generator=generator(),
    )  # fmt: skip
    optimizer = torch.optim.Adam(other.parameters(), lr=3e-3)
    for _ in range(5):
        optimizer.zero_grad()
        mcr2_loss(other(X), labels, 0.5).backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_digits_are_pulled_apart():
    images, labels = data.digits()
    images, labels = images[:600], labels[:600]
    model, eps = SphereEncoder(64, 64, 32, generator=generator()), 0.5**0.5
    gains = []

    def record(epoch):
        with torch.no_grad():
            gains.append(rate_reduction(model(images), labels, eps).item())

    train(
        lambda rows: mcr2_loss(model(images[rows]), labels[rows], eps),
        model.parameters(), 600, epochs=8, batch=300, generator=generator(), record=record,
    )  # fmt: skip
    assert len(gains) == 9
    assert gains[-1] > 1.8 * gains[0]
    Z = model(images).detach()
    cosines = (Z @ Z.T).abs()
    same = labels[:, None] == labels
    assert cosines[~same].mean() < 0.6 * cosines[same].mean()


@pytest.mark.parametrize("n, batch, batches", [(10, 3, 3), (10, 10, 1), (10, 1, 10), (10, 6, 1)])
def test_an_epoch_takes_full_batches_of_different_samples(n, batch, batches):
    weight, seen = torch.nn.Parameter(torch.zeros(())), []

    def objective(rows):
        seen.append(rows)
        return weight**2

    train(objective, [weight], n, epochs=2, batch=batch, generator=generator())
    assert [len(rows) for rows in seen] == [batch] * (2 * batches)
    epochs = torch.cat(seen[:batches]), torch.cat(seen[batches:])
    for rows in epochs:
        assert len(rows.unique()) == batch * batches
        assert rows.min() >= 0 and rows.max() < n
    assert not torch.equal(*epochs)


def test_the_generator_orders_the_samples():
    def order(seed):
        weight, seen = torch.nn.Parameter(torch.zeros(())), []
        objective = lambda rows: seen.append(rows) or weight**2  # noqa: E731
        train(objective, [weight], 20, epochs=2, batch=5, generator=generator(seed))
        return torch.cat(seen)

    state = torch.get_rng_state()
    assert torch.equal(order(0), order(0)) and not torch.equal(order(0), order(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_record_begins_before_the_first_step():
    weight, record = torch.nn.Parameter(torch.tensor(1.0)), []
    train(
        lambda rows: weight, iter([weight]), 4, epochs=3, batch=2, lr=0.01,
        record=lambda epoch: record.append((epoch, weight.item())),
    )  # fmt: skip
    assert [epoch for epoch, _ in record] == [0, 1, 2, 3]
    # A slope of one: each of two steps an epoch goes down by the learning rate.
    assert [value for _, value in record] == pytest.approx([1, 0.98, 0.96, 0.94], rel=1e-5)


def test_progress_is_shown_when_asked_for(capsys):
    weight = torch.nn.Parameter(torch.tensor(1.0))
    train(lambda rows: weight, [weight], 4, epochs=3, batch=2)
    assert capsys.readouterr() == ("", "")
    train(lambda rows: weight, [weight], 4, epochs=3, batch=2, progress=True)
    assert "3/3" in capsys.readouterr().err


# Bad input


@pytest.mark.parametrize(
    "sizes, error, message",
    [
        ((), ValueError, "sizes must name an input and an output size at least, got"),
        ((64,), ValueError, r"sizes must name an input and an output size at least, got \(64,\)"),
        ((64, 0), ValueError, "sizes must be at least 1, got 0"),
        ((64, -3, 2), ValueError, "sizes must be at least 1, got -3"),
        ((64, 2.5), TypeError, "sizes must be an integer, got 2.5"),
        (([64, 32],), ValueError, "sizes must name an input and an output size at least"),
    ],
)
def test_bad_sizes(sizes, error, message):
    with pytest.raises(error, match=message):
        SphereEncoder(*sizes)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 4.5}, TypeError, "n must be an integer, got 4.5"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer, got 1.5"),
        ({"batch": 0}, ValueError, "batch must be between 1 and n = 4, got 0"),
        ({"batch": 5}, ValueError, "batch must be between 1 and n = 4, got 5"),
        ({"batch": 2.5}, TypeError, "batch must be an integer, got 2.5"),
        ({"lr": -1.0}, ValueError, "learning rate"),
        ({"lr": math.nan}, ValueError, "learning rate"),
    ],
)
def test_bad_options(options, error, message):
    weight = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(error, match=message):
        train(lambda rows: weight, [weight], **{"n": 4, "epochs": 1, "batch": 2, **options})
