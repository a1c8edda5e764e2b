"""MSP: its formula, monotonicity, rates, bias, invariances, the kurtosis-corrected step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion_lib import data
from companion_lib.subspaces import fast_ica, match_signed_permutation, msp, msp_step, polar, whiten


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def problem(n, d, theta, seed=0):
    """Return samples of Bernoulli-Gaussian codes in a random basis ``U`` of orthonormal columns."""
    g = generator(seed)
    U = data.random_orthogonal(d, generator=g)
    return data.bernoulli_gaussian(n, d, theta, generator=g) @ U.T, U


def pairs(theta):
    """Return samples whose first, second and fourth moments are those of the population.

    For independent codes of unit variance and fourth moment 3 / theta, the mean of
    ``(a . z)^3 z`` is ``k a^3 + 3 a`` with ``k = 3 (1 - theta) / theta``. The weighted axes and
    diagonals below have these fourth moments exactly, in two dimensions.
    """
    fourth, mixed = 3 / theta, 1.0
    # Points a e_i (weight p each sign and axis) and b (+-1, +-1) (weight q each).
    # E z1^4 = 2 p a^4 + 4 q b^4, E z1^2 z2^2 = 4 q b^4, E z1^2 = 2 p a^2 + 4 q b^2 = 1.
    p = q = 0.125
    b = (mixed / (4 * q)) ** 0.25
    a = ((fourth - mixed) / (2 * p)) ** 0.25
    axes = torch.tensor([[a, 0.0], [-a, 0], [0, a], [0, -a]]).double()
    diagonals = torch.tensor([[b, b], [b, -b], [-b, b], [-b, -b]]).double()
    return torch.cat([axes, diagonals])


def rotation(angle):
    c, s = torch.cos(torch.tensor(angle).double()), torch.sin(torch.tensor(angle).double())
    return torch.stack([torch.stack([c, s]), torch.stack([-s, c])])


def angles_to_axes(A0, X, shift, steps):
    errors, A = [], A0
    for _ in range(steps):
        A = msp_step(A, X, shift)
        errors.append(match_signed_permutation(A).error)
    return torch.tensor(errors)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_step_is_the_books_formula(shift):
    X, A = randn(50, 4), polar(randn(4, 4, seed=1))
    columns = X.T
    expected = polar((A @ columns) ** 3 @ columns.T / 50 - shift * A)
    assert torch.allclose(msp_step(A, X, shift), expected, atol=1e-13)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_msp_repeats_the_step(shift):
    X, _ = problem(400, 5, 0.3)
    A = start = polar(randn(5, 5))
    objective = [(X @ A.T).pow(4).sum(1).mean()]
    for _ in range(4):
        A = msp_step(A, X, shift)
        objective.append((X @ A.T).pow(4).sum(1).mean())
    fit = msp(X, steps=4, tol=0, shift=shift, start=start)
    assert torch.allclose(fit.dictionary, A, atol=1e-12)
    assert torch.allclose(fit.objective, torch.stack(objective), rtol=1e-12)
    assert len(fit.moves) == 4
    assert torch.allclose(fit.decode(fit.encode(X)), X, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16))
def test_the_objective_never_decreases_on_any_data(seed):
    objective = msp(randn(60, 5, seed=seed), steps=30, tol=0, generator=generator(seed)).objective
    assert (objective.diff() >= -1e-12 * objective[-1]).all()
    assert objective[-1] > objective[0]


def test_a_signed_permutation_is_a_fixed_point_of_perfectly_balanced_codes():
    A = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    for shift in (0.0, 3.0):
        assert torch.allclose(msp_step(A, pairs(0.3), shift), A, atol=1e-14)


@pytest.mark.parametrize("theta", [0.1, 0.3, 0.5])
def test_the_error_shrinks_by_theta_a_step(theta):
    errors = angles_to_axes(rotation(0.3), pairs(theta), 0.0, 8)
    assert (errors[4:] / errors[3:-1]).allclose(torch.tensor(theta), rtol=1e-3)


@pytest.mark.parametrize("theta", [0.1, 0.3, 0.5])
def test_the_shifted_step_is_cubic(theta):
    """In two dimensions ``tan(angle)`` is cubed exactly, whatever theta."""
    angle = 0.6
    A = msp_step(rotation(angle), pairs(theta), shift=3.0)
    assert (A[0, 1] / A[0, 0]).item() == pytest.approx(torch.tensor(angle).tan().item() ** 3)


@pytest.mark.parametrize("n, d, theta", [(4000, 10, 0.3), (10_000, 20, 0.1), (10_000, 20, 0.5)])
def test_the_bias_at_finite_samples(n, d, theta):
    """``E ||A U - P||_F^2`` is about ``d (d - 1) / (3 n (1 - theta)^2)``.

    The mean over 4 runs of d (d - 1) / 2 angles each: 90 of them at least, so their mean square
    has a relative standard error below 0.11; the tolerance is 35% for heavy tails.
    """
    squares = []
    for seed in range(4):
        X, U = problem(n, d, theta, seed)
        fit = msp(X, generator=generator(seed + 10))
        squares.append(match_signed_permutation(fit.dictionary @ U).error ** 2)
    expected = d * (d - 1) / (3 * n * (1 - theta) ** 2)
    assert sum(squares) / 4 == pytest.approx(expected, rel=0.35)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([0.0, 3.0]))
def test_rotating_the_data_rotates_the_atoms(seed, shift):
    X, A, Q = randn(40, 4, seed=seed) ** 3, polar(randn(4, 4, seed=1)), polar(randn(4, 4, seed=2))
    assert torch.allclose(msp_step(A @ Q, X @ Q, shift), msp_step(A, X, shift) @ Q, atol=1e-8)


def test_permuting_or_flipping_the_atoms_does_the_same_to_the_next():
    X, A = randn(40, 3) ** 3, polar(randn(3, 3, seed=1))
    P = torch.tensor([[0.0, -1, 0], [0, 0, 1], [1, 0, 0]]).double()
    assert torch.allclose(msp_step(P @ A, X), P @ msp_step(A, X), atol=1e-12)


def test_the_shifted_iteration_is_faster_and_ends_nearby():
    X, _ = problem(20_000, 10, 0.5)
    X = whiten(X, center=False).apply(X)
    slow, fast = (msp(X, shift=shift, generator=generator(3)) for shift in (0.0, 3.0))
    assert slow.moves[-1] <= 1e-9 and fast.moves[-1] <= 1e-9
    assert len(fast.moves) < 0.6 * len(slow.moves)
    assert match_signed_permutation(fast.dictionary @ slow.dictionary.T).error < 0.05


def uniform(n, d, seed=0):
    """Return white samples of uniform sources, whose kurtosis is -1.2, and their basis."""
    U = data.random_orthogonal(d, generator=generator(seed))
    Z = (torch.rand(n, d, generator=generator(seed + 1), dtype=torch.float64) - 0.5) * 12**0.5
    return Z @ U.T, U


def test_negative_kurtosis_needs_the_shift():
    X, U = uniform(20_000, 6)
    white = whiten(X, center=False)
    fit = msp(white.apply(X), shift=3.0, generator=generator(2))
    assert fit.moves[-1] <= 1e-9  # although every row changes sign at every step
    assert match_signed_permutation(fit.dictionary @ U).overlap.min() > 0.99
    dense = msp(white.apply(X), steps=200, generator=generator(2))
    assert match_signed_permutation(dense.dictionary @ U).overlap.max() < 0.8


def test_is_symmetric_fast_ica():
    """Deflation and the symmetric iteration agree up to the sampling error, about 0.03 a row."""
    X, U = problem(20_000, 5, 0.2)
    white = whiten(X)
    together = msp(white.apply(X), shift=3.0, generator=generator(1)).dictionary @ white.matrix
    one_by_one = fast_ica(X, generator=generator(2)).unmixing
    for unmixing in (together, one_by_one):
        assert match_signed_permutation(unmixing @ U).error < 0.1


def test_steps_tolerance_and_history():
    X, _ = problem(500, 4, 0.2)
    fit = msp(X, tol=1e-6, generator=generator())
    assert fit.moves[-1] <= 1e-6 < fit.moves[-2]
    assert len(fit.objective) == len(fit.moves) + 1
    still = msp(X, steps=0, start=fit.dictionary)
    assert torch.equal(still.dictionary, fit.dictionary)
    assert still.moves.shape == (0,)
    assert repr(still) == "MSP(d=4, steps=0, converged=False)"
    assert fit.converged is True
    assert msp(X, steps=2, generator=generator()).converged is False


def test_the_same_seed_gives_the_same_dictionary():
    X, _ = problem(200, 4, 0.3)
    one, two, other = (msp(X, 3, generator=generator(seed)).dictionary for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_follows_the_dtype(dtype):
    X = problem(500, 4, 0.2)[0].to(dtype)
    A = msp(X, 20, tol=1e-3, generator=generator()).dictionary
    fit = msp(X, 2, generator=generator())
    assert {fit.objective.dtype, fit.moves.dtype, fit.encode(X).dtype} == {dtype}
    assert A.dtype == msp_step(A, X).dtype == dtype
    assert (A.double() @ A.double().T - torch.eye(4)).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"X": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "^X must hold floating-point"),
        ({"X": torch.zeros(0, 3)}, ValueError, "X is empty"),
        ({"X": torch.full((3, 2), float("nan"))}, ValueError, "X must be finite"),
        ({"X": torch.ones(3)}, ValueError, "X must have 2 axes"),
        ({"start": torch.eye(2)}, ValueError, r"start must have shape \(3, 3\), got \(2, 2\)"),
        ({"start": torch.eye(3).double()}, ValueError, "start must be torch.float32"),
        ({"start": torch.full((3, 3), 10.0)}, ValueError, "start must have orthonormal rows"),
        ({"start": torch.full((3, 3), torch.nan)}, ValueError, "start must be finite, got 9"),
        ({"X": torch.zeros(5, 3)}, ValueError, "X must not be all zeros"),
        ({"shift": float("nan")}, ValueError, "shift must be finite, got nan"),
        ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        ({"steps": True}, TypeError, "steps must be an integer, got True"),
        ({"tol": float("inf")}, ValueError, "tol must be at least 0 and finite, got inf"),
        ({"tol": -1.0}, ValueError, "tol must be at least 0"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        msp(**{"X": torch.ones(5, 3), **options})


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("factor", [1e-20, 1e-12, 1e-3, 1.0, 1e6, 1e20])
def test_any_scale_of_float32_data(factor, shift):
    """Without a shift scale changes nothing; with one it decides, as it does in float64."""
    X = problem(2000, 6, 0.2)[0].float()
    A = polar(randn(6, 6)).float()
    expected = msp_step(A.double(), X.double() * factor, shift)
    assert torch.allclose(msp_step(A, X * factor, shift).double(), expected, atol=1e-5)
    fits = [msp(X.to(t) * factor, 5, 0, shift, A.to(t)) for t in (torch.float32, torch.float64)]
    if shift and factor < 1:  # the shift is all that counts: nothing moves, up to signs
        assert max(fit.moves.max() for fit in fits) < 1e-5
        return
    # Five steps amplify rounding; what matters is that both arrive at the same place.
    assert torch.allclose(fits[0].dictionary.double(), fits[1].dictionary, atol=1e-3)
    if 1e-3 <= factor <= 1e6:  # its fourth power is in the range of float32
        assert torch.allclose(fits[0].objective.double(), fits[1].objective, rtol=1e-4)


def test_float32_settles_as_fast_as_float64():
    X = problem(5000, 10, 0.3)[0]
    for shift in (0.0, 3.0):
        single, double = (msp(x, shift=shift, start=torch.eye(10).to(x)) for x in (X.float(), X))
        assert single.converged and len(single.moves) <= len(double.moves)


def test_no_gradients_are_tracked():
    fit = msp(problem(100, 3, 0.3)[0].requires_grad_(), 3, generator=generator())
    assert not fit.dictionary.requires_grad and not fit.objective.requires_grad


def test_codes_need_samples_of_the_right_size_and_dtype():
    fit = msp(problem(100, 3, 0.3)[0], 3, generator=generator())
    for method, name in ((fit.encode, "X"), (fit.decode, "Z")):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(2, 3\), got \(2, 4\)"):
            method(randn(2, 4))
        with pytest.raises(ValueError, match=rf"{name} must be torch\.float64 on cpu"):
            method(torch.ones(2, 3))


def test_a_step_refuses_a_dictionary_that_does_not_fit():
    with pytest.raises(TypeError, match="A must hold floating-point numbers"):
        msp_step(torch.eye(3).int(), torch.ones(5, 3))
    with pytest.raises(ValueError, match="A must be finite"):
        msp_step(torch.full((3, 3), torch.inf), torch.ones(5, 3))
    with pytest.raises(ValueError, match="shift must be finite, got inf"):
        msp_step(torch.eye(3), torch.ones(5, 3), float("inf"))
    with pytest.raises(ValueError, match=r"A must have shape \(3, 3\), got \(2, 2\)"):
        msp_step(torch.eye(2), torch.ones(5, 3))
