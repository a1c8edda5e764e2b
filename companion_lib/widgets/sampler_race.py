"""Two samplers with a perfect denoiser in one dimension, raced from noise to data."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import traitlets
from torch import Tensor

from companion_lib.denoising.gaussian_mixture import GaussianMixture
from companion_lib.denoising.processes import (
    FlowMatching,
    Process,
    VarianceExploding,
    VariancePreserving,
    angle_grid,
    exponential_grid,
    log_snr_grid,
    uniform_grid,
)
from companion_lib.denoising.samplers import total_variation_1d, transport_1d
from companion_lib.widgets.base import Count, Widget

WEIGHTS, MEANS, VARIANCES = (0.3, 0.7), (-1.5, 1.0), (0.05, 0.2)
START, STOP = 20.0, 0.02  # the largest σ/α of VE, and the least one of log-SNR grids before 0
GROWTH = 6.0
POINTS, REACH = 4001, 8.0
SPLIT = -0.7
MOST_STEPS = 64
SIZES = (1, 2, 4, 8, 16, 32, 64)
FITTED = 8

PROCESSES = {
    "VE": VarianceExploding(t_max=START),
    "VP": VariancePreserving(),
    "FM": FlowMatching(),
}
GRIDS = ("uniform", "exponential", "angle", "log_snr")
ONLY = {"exponential": "VE", "angle": "VP"}


class SamplerRace(Widget):
    """Two samplers race from noise to data: what does a call of the denoiser buy?

    Samples of ``.3 N(-1.5, .05) + .7 N(1, .2)`` are made from noise by two samplers, ``a`` and
    ``b``, that know the best denoiser of every noise level in closed form. Each has a process, a
    grid of times, an order and a number of steps. The widget shows the paths of particles, the map
    from noise to data beside the exact one, the density of the samples over that of the data, and
    the total variation between the two, now and for 1, 2, 4, ..., 64 steps.

    Parameters
    ----------
    process_a, process_b : "VE", "VP" or "FM"
        Variance exploding (up to ``t = 20``), variance preserving, or flow matching.
    grid_a, grid_b : "uniform", "exponential", "angle" or "log_snr"
        Equal steps in ``t``; exponential ones, for VE only; equal steps in the angle θ with
        ``t = sin θ``, for VP only; or equal steps in the log-SNR, from ``σ/α = 20`` to 0.02, and a
        last one to 0.
    order_a, order_b : 1 or 2
        ``ddim`` or ``multistep``.
    steps_a, steps_b : int
        Calls of the denoiser, 1 to 64.

    Attributes
    ----------
    process_a, grid_a, order_a, steps_a, process_b, grid_b, order_b, steps_b
        Live: set them to move the widget; the reader's moves show up here. Setting a process that
        does not have the grid of now sets that grid to "uniform".

    Raises
    ------
    traitlets.TraitError
        If a setting is none of these, or a grid is not one of its process, at any time.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """

    module = "sampler_race.js"
    process_a = traitlets.Enum(tuple(PROCESSES)).tag(sync=True)
    grid_a = traitlets.Enum(GRIDS).tag(sync=True)
    order_a = Count(1, 2)
    steps_a = Count(1, MOST_STEPS)
    process_b = traitlets.Enum(tuple(PROCESSES)).tag(sync=True)
    grid_b = traitlets.Enum(GRIDS).tag(sync=True)
    order_b = Count(1, 2)
    steps_b = Count(1, MOST_STEPS)

    def __init__(
        self,
        process_a: str = "VE",
        grid_a: str = "uniform",
        order_a: int = 1,
        steps_a: int = 16,
        process_b: str = "VE",
        grid_b: str = "exponential",
        order_b: int = 1,
        steps_b: int = 16,
    ):
        super().__init__(
            process_a=process_a,
            grid_a=grid_a,
            order_a=order_a,
            steps_a=steps_a,
            process_b=process_b,
            grid_b=grid_b,
            order_b=order_b,
            steps_b=steps_b,
            data={
                "law": {"weights": WEIGHTS, "means": MEANS, "variances": VARIANCES},
                "grids": {"start": START, "stop": STOP, "exponent": GROWTH},
                "judge": {"points": POINTS, "reach": REACH, "split": SPLIT},
            },
        )

    @traitlets.validate("grid_a", "grid_b")
    def _grid_fits(self, proposal):
        grid, letter = proposal.value, proposal.trait.name[-1]
        process = getattr(self, f"process_{letter}")
        if not _fits(grid, process):
            raise traitlets.TraitError(
                f"grid_{letter} {grid!r} is only for process {ONLY[grid]!r}, got {process!r}"
            )
        return grid

    @traitlets.observe("process_a", "process_b")
    def _back_to_uniform(self, change):
        grid = f"grid_{change.name[-1]}"
        if getattr(self, grid) and not _fits(getattr(self, grid), change.new):
            setattr(self, grid, "uniform")

    def transport(self, sampler: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return noise ``z``, where a sampler takes it, that map's derivative, and the exact map.

        Each ``(4001,)``, float64. ``sampler`` is "a" or "b". The exact map takes the quantiles of
        noise to those of the data.
        """
        return _noise(), *_map(*self._choice(sampler)), _exact()

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        For ``a`` and ``b``: ``tv``, the total variation between samples and data; the ``slope`` of
        its logarithm against that of L, from 8 to 64 steps; ``gap``, the mean distance of a sample
        from where the exact map would put it; ``share``, the share of samples in the left bump.
        """
        found = {}
        for letter in "ab":
            choice = self._choice(letter)
            found |= {
                f"tv_{letter}": _total_variation(*choice),
                f"slope_{letter}": _slope(*choice[:3]),
                f"gap_{letter}": _gap(*choice),
                f"share_{letter}": _share(*choice),
            }
        return found

    def _choice(self, letter: str) -> tuple[str, str, int, int]:
        return tuple(getattr(self, f"{part}_{letter}") for part in _PARTS)


_PARTS = ("process", "grid", "order", "steps")


def _fits(grid: str, process: str) -> bool:
    return ONLY.get(grid, process) == process


def _times(process: Process, grid: str, steps: int) -> Tensor:
    """Return the times at which the denoiser is called, and that of the data."""
    if grid != "log_snr":
        if grid == "exponential":
            return exponential_grid(process, steps, growth=GROWTH)
        return {"uniform": uniform_grid, "angle": angle_grid}[grid](process, steps)
    start, stop = (process.time(-2 * math.log(ratio)) for ratio in (START, STOP))
    noisy = log_snr_grid(process, steps - 1, start, stop) if steps > 1 else torch.tensor([start])
    return torch.cat([noisy.double(), torch.tensor([process.t_data]).double()])


def _law() -> GaussianMixture:
    weights, means, variances = (
        torch.tensor(numbers, dtype=torch.float64) for numbers in (WEIGHTS, MEANS, VARIANCES)
    )
    return GaussianMixture.diagonal(weights, means[:, None], variances[:, None])


def _noise() -> Tensor:
    return torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)


@lru_cache(maxsize=64)
def _map(process: str, grid: str, order: int, steps: int) -> tuple[Tensor, Tensor]:
    """Return ``F(z)`` and ``F'(z)``."""
    chosen = PROCESSES[process]
    times = _times(chosen, grid, steps)
    F, dF = transport_1d(_law().denoiser(chosen), chosen, times, _noise(), order)
    # One step from pure noise puts every sample in one place: there F' is zero up to rounding.
    return F, dF.clamp(min=0)


def _total_variation(process: str, grid: str, order: int, steps: int) -> float:
    F, dF = _map(process, grid, order, steps)
    law = _law()
    density = lambda x: law.log_prob(x[:, None]).exp()  # noqa: E731
    return total_variation_1d(F, dF, _noise(), density).item()


def _slope(process: str, grid: str, order: int) -> float:
    sizes = [size for size in SIZES if size >= FITTED]
    errors = [_total_variation(process, grid, order, size) for size in sizes]
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, errors))
    x = x - x.mean()
    return (x @ y / (x @ x)).item()


def _gap(*choice) -> float:
    z = _noise()
    gaps = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (_map(*choice)[0] - _exact()).abs()
    return torch.trapezoid(gaps, z).item()


def _share(*choice) -> float:
    """Return the share of samples below the split, with the map linear between its points."""
    F, z = _map(*choice)[0], _noise()
    after = int((F > SPLIT).int().argmax())
    if after == 0:  # all are above: the map rises
        return 0.0
    part = (SPLIT - F[after - 1]) / (F[after] - F[after - 1])
    return _below(z[after - 1] + part * (z[after] - z[after - 1])).item()


@lru_cache(maxsize=1)
def _exact() -> Tensor:
    """Return the quantiles of the data at the levels of ``z``, by halving."""
    z = _noise()
    side = torch.where(z > 0, -1.0, 1.0)  # measure the smaller tail, which keeps its digits
    goal = _below(side * z)
    low, high = torch.full_like(z, -6.0), torch.full_like(z, 6.0)
    for _ in range(52):
        middle = (low + high) / 2
        tail = sum(
            weight * _below(side * (middle - mean) / math.sqrt(variance))
            for weight, mean, variance in zip(WEIGHTS, MEANS, VARIANCES, strict=True)
        )
        left = (tail > goal) == (side > 0)  # the quantile is to the left of the middle
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
    return (low + high) / 2


def _below(z: Tensor) -> Tensor:
    """Return the standard normal distribution function; ``ndtr`` loses digits far below zero."""
    return torch.special.erfc(-z / math.sqrt(2)) / 2
