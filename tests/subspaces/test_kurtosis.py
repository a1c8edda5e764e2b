"""Kurtosis: exact finite distributions, additivity, homogeneity, known values, bad input."""

import pytest
import scipy.stats
import torch

from companion_lib import data
from companion_lib.subspaces import kurtosis


def test_a_fair_coin_has_minus_two():
    assert kurtosis(torch.tensor([1.0, -1.0])).item() == -2


def test_mostly_zero_is_positive():
    """Values -1, 0, 0, 0, 0, 0, 0, 1: E x^2 = E x^4 = 1/4, so 1/4 - 3/16."""
    x = torch.tensor([-1.0, 0, 0, 0, 0, 0, 0, 1])
    assert kurtosis(x).item() == pytest.approx(1 / 16)


def test_adds_up_over_independent_variables_and_scales_with_the_fourth_power():
    x = torch.tensor([-1.0, 0.0, 0.0, 1.0]).double()
    y = torch.tensor([-2.0, 2.0]).double()
    total = (3 * x[:, None] + y).flatten()  # every pair once: exactly independent
    assert kurtosis(total).item() == pytest.approx(81 * kurtosis(x).item() + kurtosis(y).item())


def test_agrees_with_scipy_on_white_samples():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    x = (x - x.mean()) / x.std(correction=0)
    assert kurtosis(x).item() == pytest.approx(scipy.stats.kurtosis(x.numpy()), abs=1e-12)


@pytest.mark.parametrize("theta", [0.1, 0.3])
def test_bernoulli_gaussian_codes(theta):
    """Within 5 standard errors; the variance of z^4 is at most E z^8 = 105 / theta^3."""
    n = 400_000
    Z = data.bernoulli_gaussian(n, 2, theta, generator=torch.Generator().manual_seed(0))
    error = 5 * (105 / theta**3 / n) ** 0.5
    assert (kurtosis(Z) - 3 * (1 - theta) / theta).abs().max() < error


def test_the_axis_and_half_precision():
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(kurtosis(x, dim=1), kurtosis(x.T))
    assert torch.equal(kurtosis(x.half()), kurtosis(x.half().float()).half())
    assert kurtosis(torch.tensor([20.0, -20.0]).half()).item() == -torch.inf  # 160,000 times -2


@pytest.mark.parametrize(
    "x, error",
    [
        (torch.ones(3, dtype=torch.int32), TypeError),
        ([1.0], TypeError),
        (torch.zeros(0), ValueError),
        (torch.tensor([1.0, float("nan")]), ValueError),
    ],
)
def test_bad_input(x, error):
    with pytest.raises(error, match=r"^x "):
        kurtosis(x)
