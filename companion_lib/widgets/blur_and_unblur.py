"""Noise on a mixture of Gaussians, the steps back, and what both do to the entropy."""

from __future__ import annotations

import math
from numbers import Real

import torch
import traitlets
from torch import Tensor

from companion_lib.denoising.entropy import (
    differential_entropy,
    entropy_drop,
    fisher_information,
)
from companion_lib.denoising.gaussian_mixture import GaussianMixture
from companion_lib.denoising.processes import VarianceExploding, exponential_grid
from companion_lib.denoising.samplers import ddim
from companion_lib.validation import check_range
from companion_lib.widgets.base import Between, Count, Widget

MOST_PARTICLES = 60
_MEANS = [[-3.0, -3.0], [3.0, 3.0], [0.0, 3.0]]
_FACTORS = [[[2.0, 0.5], [0.5, 0.5]], [[0.5, 0.0], [0.0, 2.0]], [[1.0, -0.8], [-0.8, 1.0]]]


class BlurAndUnblur(Widget):
    """A mixture of three Gaussians in the plane under noise, and particles that find back.

    The widget shows the density of ``x_t = x + t g``; from each particle an arrow to
    ``E[x_s | x_t]``, one denoising step; and the entropy against the noise level, with what that
    step takes from it and what it must take at least. Played back, the particles go from ``t`` to
    0 by deterministic sampling (DDIM).

    Parameters
    ----------
    t : float
        The noise level, a standard deviation, 0.05 to 10.
    s : float
        The noise level after one step, 0.05 to ``t``.
    steps : int
        Number of steps of the way back to 0, 1 to 64.
    particles : int
        How many particles there are at first, 0 to 60.
    seed : int
        Seed of their places.

    Attributes
    ----------
    t, s, steps
        Live: set them to move the widget; the reader's moves show up here. Of ``t`` and ``s``, the
        one that is set takes the other one along when they would cross.
    particles : list of lists of float
        Places in the plane, at most 60. Live: set them, or see where the reader drops some.

    Raises
    ------
    ValueError
        If ``s`` is larger than ``t`` at the start, or the number of particles out of range.
    traitlets.TraitError
        If ``t``, ``s`` or ``steps`` is out of range, or ``particles`` are not at most 60 pairs of
        finite numbers, at any time.

    Notes
    -----
    Book: sections ``diffusion-and-denoising`` and ``sampling-via-denoising``.
    """

    module = "blur_and_unblur.js"
    t = Between(0.05, 10.0)
    s = Between(0.05, 10.0)
    steps = Count(1, 64)
    particles = traitlets.List().tag(sync=True)

    def __init__(
        self,
        t: float = 2.0,
        s: float = 1.0,
        steps: int = 20,
        particles: int = 14,
        seed: int = 0,
    ):
        check_range(particles, "particles", 0, MOST_PARTICLES)
        if s > t:
            raise ValueError(f"s must be at most t, got s = {s} and t = {t}")
        super().__init__(
            t=t,
            s=s,
            steps=steps,
            particles=_scattered(particles, seed),
            data={"means": _MEANS, "factors": _FACTORS, "most": MOST_PARTICLES},
        )

    @traitlets.observe("t", "s")
    def _take_along(self, change):
        if self.s > self.t:
            self.set_trait("s" if change.name == "t" else "t", change.new)

    @traitlets.validate("particles")
    def _are_points(self, proposal):
        rows = proposal.value
        if len(rows) > MOST_PARTICLES or not all(map(_is_pair, rows)):
            raise traitlets.TraitError(
                f"particles must be at most {MOST_PARTICLES} pairs of finite numbers"
            )
        return [[float(value) for value in row] for row in rows]

    @property
    def mixture(self) -> GaussianMixture:
        """The law of ``x``, without noise: three components of equal weight, float64."""
        factors = torch.tensor(_FACTORS, dtype=torch.float64)
        means = torch.tensor(_MEANS, dtype=torch.float64)
        weights = torch.full((3,), 1 / 3, dtype=torch.float64)
        return GaussianMixture.full(weights, means, factors @ factors.mT)

    @property
    def paths(self) -> Tensor:
        """The particles on their way from ``t`` to 0, ``(steps + 1, n, 2)``, float64."""
        if not self.particles:
            return torch.zeros(self.steps + 1, 0, 2, dtype=torch.float64)
        process = VarianceExploding()
        starts = torch.tensor(self.particles, dtype=torch.float64)
        denoise = self.mixture.denoiser(process)
        return ddim(denoise, process, starts / self.t, self._levels(process))

    def _levels(self, process: VarianceExploding) -> Tensor:
        return exponential_grid(process, self.steps, start=self.t, growth=4.0)

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        In bits: ``entropy``, ``h(x_t)``; ``clean_entropy``, ``h(x)``; ``step_entropy``,
        ``h(E[x_s | x_t])``; ``gain``, what the step to ``s`` takes; ``bound``, what it must take,
        ``(1 - s/t) t² J``; ``way_entropy``, what is left after all steps to 0. ``growth`` is
        ``dh/dt = t J``, in bits per unit of ``t``.

        Notes
        -----
        Sums over grids. Their errors are below 1e-6, of ``way_entropy`` about 0.01.
        """
        mixture, process = self.mixture, VarianceExploding()
        denoise = mixture.denoiser(process)
        points, weights, entropy = _quadrature(mixture, self.t, 0.4)
        fisher = fisher_information(mixture.score(points, 1.0, self.t), weights).item()
        gain = bound = 0.0
        if self.s < self.t:
            drop = entropy_drop(denoise, process, points, self.t, self.s, weights)
            gain, bound = drop.drop, drop.bound
        nats = {
            "entropy": entropy,
            "clean_entropy": _quadrature(mixture, 0.0, 0.4)[2],
            "step_entropy": entropy - gain,
            "gain": gain,
            "bound": bound,
            "way_entropy": self._way_entropy(),
            "growth": self.t * fisher,
        }
        return {name: value / math.log(2) for name, value in nats.items()}

    def _way_entropy(self) -> float:
        """Return the entropy, in nats, of what DDIM makes of the law of ``x_t``."""
        mixture, process = self.mixture, VarianceExploding()
        denoise, levels = mixture.denoiser(process), self._levels(process)
        spacing = min(max(0.35 / self.t, 0.2), 0.8)  # that of the browser, which has to be quick
        points, weights, entropy = _quadrature(mixture, self.t, spacing)
        points, weights = points[weights >= 1e-6], weights[weights >= 1e-6]
        weights = weights / weights.sum()
        path = ddim(denoise, process, points / self.t, levels)
        for x, t, s in zip(path, levels.tolist(), levels[1:].tolist(), strict=False):
            entropy -= entropy_drop(denoise, process, x, t, s, weights).drop
        return entropy


def _is_pair(row: object) -> bool:
    return (
        isinstance(row, list | tuple)
        and len(row) == 2
        and all(isinstance(value, Real) and math.isfinite(value) for value in row)
    )


def _scattered(n: int, seed: int) -> list[list[float]]:
    """Return ``n`` places around the middle of the mixture, far enough apart to be told apart."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.tensor([0.0, 1.0], dtype=torch.float64)
    candidates = middle + 12 * (torch.rand(600, 2, generator=generator, dtype=torch.float64) - 0.5)
    chosen = candidates[:1]
    while len(chosen) < n:
        gaps = torch.cdist(candidates, chosen).amin(1)
        chosen = torch.cat([chosen, candidates[gaps.argmax()][None]])
    return [[round(value, 2) for value in point] for point in chosen[:n].tolist()]


def _quadrature(
    mixture: GaussianMixture, sigma: float, spacing: float
) -> tuple[Tensor, Tensor, float]:
    """Return points ``(n, 2)`` of a grid, their probabilities under noise, and the entropy.

    The grid holds all but 1e-10 of the law. ``spacing`` is in units of the smallest standard
    deviation in any direction.
    """
    covariances = mixture.covariances() + sigma**2 * torch.eye(2, dtype=torch.float64)
    step = spacing * torch.linalg.eigvalsh(covariances).min().sqrt().item()
    reach = 6.5 * covariances.diagonal(dim1=1, dim2=2).sqrt()
    low, high = (mixture.means - reach).amin(0), (mixture.means + reach).amax(0)
    axes = [
        torch.arange(a, b + step, step, dtype=torch.float64)
        for a, b in zip(low.tolist(), high.tolist(), strict=True)
    ]
    points = torch.cartesian_prod(*axes)
    density = mixture.log_prob(points, sigma=sigma).exp()
    return points, density * step**2, differential_entropy(density, step**2).item()
