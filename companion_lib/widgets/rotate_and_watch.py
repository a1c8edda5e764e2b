"""Rotate a frame over sparse data and watch which objectives see the axes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from companion_lib.subspaces import kurtosis, msp_step
from companion_lib.validation import check_range
from companion_lib.widgets.base import Between, Widget
from companion_lib.widgets.encoding import pack, unpack

TRUE_ANGLE = 70.0


class RotateAndWatch(Widget):
    """Sparse data in a rotated basis, and a frame to lay over it.

    The data are ``x = U z`` plus noise, with ``z`` Bernoulli-Gaussian of unit variance and ``U``
    a fixed rotation. The variance along an axis, which PCA maximizes, is the same in every
    direction; the mean fourth power, minus the mean absolute value, and the kurtosis all peak
    where the frame meets the true axes. A button takes one matching-stretching-projection step.

    Parameters
    ----------
    theta : float
        Fraction of active codes, 0.05 to 1. At 1 the data are Gaussian and have no axes.
    n : int
        Number of samples, 100 to 5000.
    noise : float
        Standard deviation of Gaussian noise, 0 to 1.
    angle : float
        Angle of the frame's first axis in degrees, 0 to 180.
    seed : int
        Seed of the draws.

    Attributes
    ----------
    angle, theta, noise : float
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    ValueError
        If ``n`` is out of range.
    traitlets.TraitError
        If ``angle``, ``theta`` or ``noise`` is out of range, at any time.

    Notes
    -----
    Book: section ``complete-dictionary-learning``.
    """

    module = "rotate_and_watch.js"
    angle = Between(0.0, 180.0)
    theta = Between(0.05, 1.0)
    noise = Between(0.0, 1.0)

    def __init__(
        self,
        theta: float = 0.3,
        n: int = 2000,
        noise: float = 0.0,
        angle: float = 35.0,
        seed: int = 0,
    ):
        check_range(n, "n", 100, 5000)
        super().__init__(theta=theta, noise=noise, angle=angle, data=_draws(n, seed))

    @property
    def samples(self) -> Tensor:
        """The data ``(n, 2)`` as the widget shows them now, float64."""
        gaussians, uniforms, noises = (
            unpack(self.data[name]) for name in ("gaussians", "uniforms", "noises")
        )
        z = (uniforms < self.theta) * gaussians / math.sqrt(self.theta)
        return z @ _frame(self.data["true_angle"]) + self.noise * noises

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        ``variance`` along the first axis; ``l4``, ``l1`` (means of the responses' norms, fourth
        power and first) and ``kurtosis`` (sum of absolute values) of both axes; ``msp_angle``,
        where one MSP step leads (degrees); ``rate``, the factor by which such a step shrinks a
        small error, in theory.
        """
        X, A = self.samples, _frame(self.angle)
        responses = X @ A.T
        after = msp_step(A, X)[0]
        gaussian = 3 * (1 + self.noise**2) ** 2
        return {
            "variance": responses[:, 0].square().mean().item(),
            "l4": responses.pow(4).sum(1).mean().item(),
            "l1": responses.abs().sum(1).mean().item(),
            "kurtosis": kurtosis(responses).abs().sum().item(),
            "msp_angle": math.degrees(torch.atan2(after[1], after[0]).item()) % 180,
            "rate": gaussian / (gaussian + 3 * (1 - self.theta) / self.theta),
        }


def _frame(degrees: float) -> Tensor:
    """Return the orthonormal frame whose first row points at ``degrees``."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


def _draws(n: int, seed: int) -> dict:
    """Return everything random, so that theta and noise can change without new draws."""
    generator = torch.Generator().manual_seed(seed)
    gaussians, noises = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    uniforms = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return {
        "gaussians": pack(gaussians, 2.0**-12),
        "noises": pack(noises, 2.0**-12),
        # Floor, so that no draw reaches 1 and theta = 1 makes every code active.
        "uniforms": pack((uniforms * 2**14).floor() / 2**14, 2.0**-14),
        "true_angle": TRUE_ANGLE,
    }
