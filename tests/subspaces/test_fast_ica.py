"""FastICA: recovery, scikit-learn, signs, whitening, convergence order, bad input."""

from itertools import pairwise

import pytest
import sklearn.decomposition
import torch

from companion_lib import data
from companion_lib.subspaces import fast_ica, match_signed_permutation, whiten


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def mixed(n=20_000, d=4, theta=0.2):
    """Return samples ``Z M + 3`` of sparse sources with a mixing matrix that is not orthogonal."""
    M = randn(d, d, seed=1) + 2 * torch.eye(d)
    Z = data.bernoulli_gaussian(n, d, theta, generator=generator())
    return Z @ M + 3, M, Z


def gain(fit, M):
    """Return what each component reads from each source; ideally a signed permutation."""
    return fit.unmixing @ M.T


def test_undoes_the_mixing():
    X, M, Z = mixed()
    fit = fast_ica(X, generator=generator(2))
    match = match_signed_permutation(gain(fit, M))
    # Statistical: sqrt(E z^6 / n) / k = 0.011 an entry, and 12 off the diagonal.
    assert match.error < 0.08
    aligned = fit.encode(X) * match.signs
    assert (aligned - (Z - Z.mean(0))[:, match.permutation]).square().mean() < 0.01


def test_the_sources_are_white():
    X = mixed()[0]
    codes = fast_ica(X, generator=generator()).encode(X)
    assert torch.allclose(codes.T @ codes / len(X), torch.eye(4).double(), atol=1e-10)
    assert codes.mean(0).abs().max() < 1e-12


def test_as_accurate_as_scikit_learn():
    X, M, _ = mixed()
    theirs = sklearn.decomposition.FastICA(
        algorithm="deflation", fun="cube", whiten="unit-variance", random_state=0, max_iter=500
    ).fit(X.numpy())
    other = match_signed_permutation(torch.from_numpy(theirs.components_) @ M.T).error
    ours = match_signed_permutation(gain(fast_ica(X, generator=generator()), M)).error
    assert ours < 1.5 * other + 0.01


def test_some_components():
    X, M, _ = mixed()
    fit = fast_ica(X, k=2, generator=generator())
    assert fit.unmixing.shape == (2, 4)
    assert match_signed_permutation(gain(fit, M)).overlap.min() > 0.98
    steps = [len(sizes) for sizes in fit.moves]
    assert repr(fit) == f"FastICA(k=2, d=4, steps={steps}, converged=True)"
    assert fast_ica(X, k=2, steps=1, generator=generator()).converged is False


def test_mixed_signs_of_kurtosis():
    """A uniform source (-1.2) changes sign at every step, and still counts as converged."""
    n = 20_000
    flat = (torch.rand(n, 2, generator=generator(), dtype=torch.float64) - 0.5) * 12**0.5
    sparse = data.bernoulli_gaussian(n, 2, 0.2, generator=generator(1))
    U = data.random_orthogonal(4, generator=generator(2))
    fit = fast_ica(torch.cat([flat, sparse], 1) @ U.T, generator=generator(3))
    assert match_signed_permutation(fit.unmixing @ U).overlap.min() > 0.98
    assert all(sizes[-1] <= 1e-9 and len(sizes) < 100 for sizes in fit.moves)


def test_the_direction_is_stationary():
    """At convergence ``X^T (X u)^3 / n`` is a multiple of ``u``, the fourth moment along it."""
    X = whiten(mixed(n=2000)[0]).apply(mixed(n=2000)[0])
    fit = fast_ica(X, k=1, tol=1e-13, generator=generator(), whiten=False)
    u = fit.unmixing[0]
    y = X @ u
    assert torch.allclose((y**3) @ X / len(X), y.pow(4).mean() * u, atol=1e-10)


def test_the_order_of_convergence_is_three():
    """On 8 points whose moments are exact, the tangent of the angle is cubed at each step."""
    a, b = 20**0.25, 2**0.25  # E z^4 = 6, E z1^2 z2^2 = 1 with weights 1/8
    axes = [[a, 0.0], [-a, 0], [0, a], [0, -a]]
    X = torch.tensor([*axes, [b, b], [b, -b], [-b, b], [-b, -b]], dtype=torch.float64)
    tangents = []
    for steps in range(4):
        u = fast_ica(X, 1, steps, generator=generator(1), whiten=False).unmixing[0].abs()
        tangents.append((u.min() / u.max()).item())
    for before, after in pairwise(tangents):
        assert after == pytest.approx(before**3, rel=1e-9, abs=1e-15)
    assert 0.1 < tangents[0] < 0.95


def test_without_whitening_the_data_are_taken_as_they_are():
    X, U = data.bernoulli_gaussian(20_000, 3, 0.2, generator=generator()), torch.eye(3)
    fit = fast_ica(X, generator=generator(1), whiten=False)
    assert torch.equal(fit.mean, torch.zeros(3).double())
    assert torch.allclose(fit.unmixing @ fit.unmixing.T, U.double(), atol=1e-12)
    assert match_signed_permutation(fit.unmixing).overlap.min() > 0.98


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_follows_the_dtype(dtype):
    fit = fast_ica(mixed(2000)[0].to(dtype), 2, tol=1e-3, generator=generator())
    assert fit.unmixing.dtype == fit.mean.dtype == fit.moves[0].dtype == dtype
    assert fit.encode(mixed(2000)[0].to(dtype)).dtype == dtype


def test_no_kurtosis_at_all_leaves_the_direction_alone():
    """E x^2 = 1 and E x^4 = 3 exactly: the step has nothing to go by."""
    X = torch.tensor([[2.0], [1.0], [1.0], [0.0], [0.0], [0.0]]).double()
    fit = fast_ica(X, whiten=False, generator=generator())
    assert fit.unmixing.abs().item() == 1
    assert fit.converged and fit.moves[0].tolist() == [0]


def test_float32_settles():
    fit = fast_ica(mixed()[0].float(), generator=generator(2))
    assert fit.converged and max(map(len, fit.moves)) < 30


@pytest.mark.parametrize("factor", [1e-20, 1e-3, 1e3, 1e12, 1e25])
def test_any_scale_of_float32_data(factor):
    X, M, _ = mixed(5000)
    fit = fast_ica((X * factor).float(), generator=generator())
    assert match_signed_permutation(fit.unmixing.double() * factor @ M.T).error < 0.2


@pytest.mark.parametrize("factor", [1e-20, 1e-3, 1.0, 1e3, 1e12, 1e25])
def test_unwhitened_data_weigh_as_much_as_they_do_in_float64(factor):
    X = mixed(2000)[0]
    X = whiten(X).apply(X).float()
    options = {"k": 1, "steps": 1, "whiten": False}
    start = torch.randn(4, generator=generator())
    u, wanted = (start / start.norm()).double(), X.double() * factor
    wanted = (wanted @ u) ** 3 @ wanted / len(X) - 3 * u
    got = fast_ica(X * factor, generator=generator(), **options).unmixing[0].double()
    assert torch.allclose(got, wanted / wanted.norm(), atol=1e-5)


def test_no_gradients_are_tracked():
    assert not fast_ica(mixed(200)[0].requires_grad_(), generator=generator()).mean.requires_grad


def test_codes_need_samples_of_the_right_size_and_dtype():
    fit = fast_ica(mixed(200)[0], generator=generator())
    with pytest.raises(ValueError, match=r"X must have shape \(2, 4\), got \(2, 5\)"):
        fit.encode(randn(2, 5))
    with pytest.raises(ValueError, match=r"X must be torch\.float64 on cpu"):
        fit.encode(torch.ones(2, 4))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"X": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "^X must hold floating-point"),
        ({"X": torch.zeros(0, 3)}, ValueError, "X is empty"),
        ({"X": torch.full((3, 2), float("nan"))}, ValueError, "X must be finite"),
        ({"X": torch.ones(9, 3)}, ValueError, "full rank d = 3"),
        ({"k": 4}, ValueError, "k must be between 1 and d = 3, got 4"),
        ({"k": 1.5}, TypeError, "k must be an integer, got 1.5"),
        ({"steps": 2.0}, TypeError, "steps must be an integer, got 2.0"),
        ({"X": torch.ones(1, 3)}, ValueError, r"X needs at least 2 samples \(rows\), got 1"),
        ({"X": torch.zeros(9, 3), "whiten": False}, ValueError, "X must not be all zeros"),
        ({"k": 0}, ValueError, "k must be between 1 and d = 3, got 0"),
        ({"steps": -1}, ValueError, "steps must be at least 0"),
        ({"tol": -1.0}, ValueError, "tol must be at least 0"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        fast_ica(**{"X": randn(9, 3), **options})
