"""What a sample costs at each precision: stored samples, one Gaussian, or the planes themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import traitlets
from torch import Tensor

from companion_lib.denoising.empirical import empirical_denoiser
from companion_lib.denoising.entropy import mutual_information_by_i_mmse
from companion_lib.denoising.gaussian_mixture import subspace_mixture
from companion_lib.denoising.processes import Denoiser, VarianceExploding
from companion_lib.widgets.base import Between, Widget

PLANES, RANK, DIMENSION = 6, 2, 8
SIZES = (16, 64, 256, 1024, 4096)
LEAST, MOST = 0.1, 1e4  # signal-to-noise ratios on display
QUERIES = 1024  # samples that losses are averaged over
EVEN = 0.1  # bits between prices that count as equal
DIGITS = 7  # significant ones in the state


@dataclass(frozen=True, eq=False)
class RateCurves:
    """Losses of denoisers, and what they add up to, over signal-to-noise ratios ``s = 1/t²``.

    Attributes
    ----------
    snr : Tensor, (m,)
        Increasing, evenly spaced in the logarithm.
    losses : dict
        Of each code, the mean squared error ``(m,)``. Codes are ``"gaussian"``, ``"planes"``, and
        for each number ``N`` of stored samples ``"stored N"``, on these samples themselves, and
        ``"new N"``, on new ones.
    """

    snr: Tensor
    losses: dict[str, Tensor]

    def nats(self, code: str) -> Tensor:
        """Return the code length ``½ ∫ loss du`` up to each ``s``, ``(m,)``."""
        return mutual_information_by_i_mmse(self.snr, self.losses[code])


@lru_cache(maxsize=4)
def rate_curves(seed: int = 0) -> RateCurves:
    """Return the curves for six random planes in eight dimensions.

    Noises are evenly spread points (Sobol's) in place of random ones, which makes the curves
    smooth; they are averaged over several sets of stored samples where those are small.

    Notes
    -----
    About 3 seconds, most of them for 4,096 stored samples.
    """
    generator = torch.Generator().manual_seed(seed)
    bases = torch.randn(PLANES, DIMENSION, RANK, dtype=torch.float64, generator=generator)
    law = subspace_mixture(torch.linalg.qr(bases).Q)
    process = VarianceExploding()
    snr = torch.logspace(-2, math.log10(MOST), 43, dtype=torch.float64)
    even = torch.quasirandom.SobolEngine(DIMENSION, scramble=True, seed=seed).draw(4 * QUERIES)
    noise = torch.special.ndtri(even.double().clamp(1e-9, 1 - 1e-9))

    def losses(denoise: Denoiser, X: Tensor, g: Tensor) -> Tensor:
        gaps = [X - denoise(X + t * g, t) for t in snr.rsqrt().tolist()]
        return torch.stack([gap.square().sum(1).mean() for gap in gaps])

    variances = torch.linalg.eigvalsh(law.covariances().mean(0))
    fresh = law.sample(QUERIES, generator)
    curves = {
        "gaussian": (variances / (1 + snr[:, None] * variances)).sum(1),
        "planes": losses(law.denoiser(process), law.sample(4 * QUERIES, generator), noise),
    }
    for size in SIZES:
        sets = max(1, min(8, QUERIES // size))
        stored, new = [], []
        for X, g in zip(fresh.chunk(sets), noise[:QUERIES].chunk(sets), strict=True):
            kept = law.sample(size, generator)
            memory = empirical_denoiser(kept, process)
            stored.append(losses(memory, kept[torch.arange(len(g)) % size], g))
            new.append(losses(memory, X, g))
        curves[f"stored {size}"] = torch.stack(stored).mean(0)
        curves[f"new {size}"] = torch.stack(new).mean(0)
    return RateCurves(snr, curves)


class RateMeter(Widget):
    """Three codes for data on six planes, priced by denoising: which is cheapest at a precision?

    The data lie on six random planes in eight dimensions. The codes are the law itself, one
    Gaussian with its second moments, and a memory of ``N`` samples. Each has a best denoiser, and
    half of that denoiser's squared error, summed over signal-to-noise ratios up to ``s``, is what
    a sample costs at precision ``t = 1/sqrt(s)``. The widget draws the costs against ``s``, and
    below them the errors, whose shaded areas the costs are.

    Parameters
    ----------
    snr : float
        The signal-to-noise ratio ``s = 1/t²``, 0.1 to 10,000.
    size : 16, 64, 256, 1024 or 4096
        ``N``, how many samples the memory holds.
    new : bool
        What is coded by the memory: samples that it does not hold, or those that it does.
    seed : int
        Seed of planes, samples and noises.

    Attributes
    ----------
    snr, size, new
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    traitlets.TraitError
        If ``snr`` is out of range or ``size`` none of the five, at any time.

    Notes
    -----
    Book: section ``memorization-and-generalization``, which does not count it in bits.
    """

    module = "rate_meter.js"
    snr = Between(LEAST, MOST)
    size = traitlets.Enum(SIZES).tag(sync=True)
    new = traitlets.Bool().tag(sync=True)

    def __init__(self, snr: float = 100.0, size: int = 256, new: bool = False, seed: int = 0):
        super().__init__(snr=snr, size=size, new=new, data=_state(rate_curves(seed)))

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        In bits per sample: ``memory``, ``gaussian`` and ``planes``, the price at ``snr`` with each
        code; ``number``, ``log2 N``. ``t`` is the precision. ``turn`` is the ratio at which the
        planes cost ``log2 N``; ``crossing`` that from which on a new sample costs more with the
        memory than with one Gaussian, by a tenth of a bit.
        """
        memory = f"{'new' if self.new else 'stored'} {self.size}"
        codes = {"memory": memory, "gaussian": "gaussian", "planes": "planes"}
        number = math.log2(self.size)
        excess = [
            new - gaussian - EVEN
            for new, gaussian in zip(
                self._bits(f"new {self.size}"), self._bits("gaussian"), strict=True
            )
        ]
        return {
            **{name: self._at(self._bits(code)) for name, code in codes.items()},
            "number": number,
            "t": self.snr**-0.5,
            "turn": self._last_rise([bits - number for bits in self._bits("planes")]),
            "crossing": self._last_rise(excess),
        }

    def _bits(self, code: str) -> list[float]:
        return self.data["bits"][code]

    def _at(self, curve: list[float]) -> float:
        """Interpolate a curve at ``snr``, linearly in the logarithm."""
        return float(np.interp(math.log10(self.snr), self.data["decades"], curve))

    def _last_rise(self, curve: list[float]) -> float:
        """Return the ratio at which a curve last changes from negative to positive."""
        i = max(i for i, value in enumerate(curve) if value < 0)
        low, high = self.data["decades"][i : i + 2]
        return 10 ** (low + (high - low) * curve[i] / (curve[i] - curve[i + 1]))


def _state(curves: RateCurves) -> dict:
    """Return the curves in bits and the errors they are the areas of, rounded."""
    powers = {code: curves.snr * loss / 2 for code, loss in curves.losses.items()}
    return {
        "decades": _rounded(curves.snr.log10()),
        "bits": {code: _rounded(curves.nats(code) / math.log(2)) for code in powers},
        "powers": {code: _rounded(power) for code, power in powers.items()},
        "sizes": list(SIZES),
        "even": EVEN,
    }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
