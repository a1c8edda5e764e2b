"""Diffusion processes: how much of the data and how much noise there is at each time.

A process noises a sample as ``x_t = α(t) x + σ(t) g`` with ``g`` standard normal. A *denoiser* is
any function ``denoise(x_t, t)`` that returns ``E[x | x_t]``: closed forms, averages over a training
set and networks are interchangeable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from companion_lib.validation import (
    check_count,
    check_like,
    check_positive,
    check_tensor,
    working,
)

Time = float | Tensor
Denoiser = Callable[[Tensor, Time], Tensor]


class Process:
    """What all processes share; ``VarianceExploding`` and the others say what α and σ are.

    ``alpha``, ``sigma``, ``log_snr`` and ``time`` take a float and return one, or take a tensor of
    any shape and return one with its shape, dtype and device.

    Attributes
    ----------
    t_min, t_max : float
        The range of times.
    t_data, t_noise : float
        The end without noise and the end with most of it; one is ``t_min``, the other ``t_max``.

    Notes
    -----
    Half precision is computed in float32.

    Book: section ``sampling-via-denoising``.
    """

    t_min: ClassVar[float] = 0.0
    t_max: float = 1.0

    @property
    def t_data(self) -> float:
        return self.t_min

    @property
    def t_noise(self) -> float:
        return self.t_max

    def alpha(self, t: Time) -> Time:
        """Return α(t), the factor of the data; ValueError if ``t`` is out of range."""
        return _apply(self._alpha, self._check(t))

    def sigma(self, t: Time) -> Time:
        """Return σ(t), the standard deviation of the noise; ValueError if ``t`` is out of range."""
        return _apply(self._sigma, self._check(t))

    def log_snr(self, t: Time) -> Time:
        """Return ``log(α²/σ²)``, the natural logarithm of the signal-to-noise ratio.

        It is infinite where σ = 0, and minus infinity where α = 0.
        """
        return _apply(lambda t: 2 * (self._alpha(t).log() - self._sigma(t).log()), self._check(t))

    def time(self, log_snr: Time) -> Time:
        """Return the time at which the log-SNR is ``log_snr``; ValueError if there is none."""
        t = _apply(self._time, _check_number(log_snr, "log_snr"))
        slack = 32 * (torch.finfo(t.dtype).eps if isinstance(t, Tensor) else 2**-52)
        if not _within(t, self.t_min, self.t_max * (1 + slack)):  # beyond what rounding explains
            low, high = self.log_snr(self.t_noise), self.log_snr(self.t_data)
            raise ValueError(f"log_snr must be in [{low:g}, {high:g}], got {_span(log_snr)}")
        return t.clamp(max=self.t_max) if isinstance(t, Tensor) else min(t, self.t_max)

    def add_noise(self, x: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Return ``α(t) x + σ(t) noise``.

        Parameters
        ----------
        x, noise : Tensor, (n, ...)
            Samples as rows, and standard normals.
        t : float or Tensor, () or (n,)
            One time for all rows, or one for each.

        Raises
        ------
        TypeError
            If ``x`` or ``noise`` is not a floating-point tensor.
        ValueError
            If shapes, dtypes or devices do not fit, or a time is out of range.
        """
        check_tensor(x, "x", finite=False)
        check_like(noise, "noise", tuple(x.shape), x)
        wide = working(x)
        alpha, sigma = (per_row(value, wide) for value in (self.alpha(t), self.sigma(t)))
        return (alpha * wide + sigma * working(noise)).to(x.dtype)

    def _alpha(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def _sigma(self, t: Tensor) -> Tensor:
        return t

    def _time(self, log_snr: Tensor) -> Tensor:
        raise NotImplementedError

    def _check(self, t: Time, name: str = "t") -> Time:
        if not _within(_check_number(t, name), self.t_min, self.t_max):
            raise ValueError(f"{name} must be in [{self.t_min:g}, {self.t_max:g}], got {_span(t)}")
        return t


@dataclass(frozen=True)
class VarianceExploding(Process):
    """``x_t = x + t g``: α = 1 and σ = t, for t from 0 to ``t_max``.

    Raises
    ------
    ValueError
        If ``t_max`` is not positive and finite.

    Notes
    -----
    ``x_T / T`` is close to noise only if ``T = t_max`` is large beside the data.

    Book: section ``diffusion-and-denoising``.

    Examples
    --------
    >>> VarianceExploding().log_snr(1.0)
    0.0
    """

    t_max: float = 80.0

    def __post_init__(self) -> None:
        check_positive(self.t_max, "t_max")

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2)


@dataclass(frozen=True)
class VariancePreserving(Process):
    """``x_t = √(1 - t²) x + t g``: data of unit variance keep it, for t from 0 to 1.

    Notes
    -----
    At t = 1 the sample is all noise, and α has an infinite slope.

    Book: section ``sampling-via-denoising``.
    """

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt((1 - t) * (1 + t))  # 1 - t² would lose digits near t = 1

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr).sqrt()


@dataclass(frozen=True)
class FlowMatching(Process):
    """``x_t = (1 - t) x + t g``: straight lines from data to noise, for t from 0 to 1.

    Parameters
    ----------
    data_at : 0 or 1
        The time of the data. With 1 the clock runs the other way: ``x_t = t x + (1 - t) g``.

    Raises
    ------
    ValueError
        If ``data_at`` is neither.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """

    data_at: int = 0

    def __post_init__(self) -> None:
        if self.data_at not in (0, 1):
            raise ValueError(f"data_at must be 0 or 1, got {self.data_at!r}")

    @property
    def t_data(self) -> float:
        return float(self.data_at)

    @property
    def t_noise(self) -> float:
        return 1.0 - self.data_at

    def _alpha(self, t: Tensor) -> Tensor:
        return t if self.data_at else 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return 1 - t if self.data_at else t

    def _time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr / 2 if self.data_at else -log_snr / 2)


def convert(denoise: Denoiser, source: Process, target: Process) -> Denoiser:
    """Return the denoiser for ``target`` from one for ``source``.

    At equal log-SNR the noised samples of two processes differ by a factor only, so this is
    ``denoise(c y, s)``, with ``s`` the time of equal log-SNR and ``c = α_source / α_target``.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t) -> E[x | x_t]``, with times of ``source``.
    source, target : Process

    Returns
    -------
    callable
        It raises ValueError for a time whose log-SNR ``source`` never reaches, such as ``t = 1`` of
        ``VariancePreserving`` from ``VarianceExploding``.

    Notes
    -----
    Where (α, σ) of both point the same way, as at equal log-SNR, the factor is also the quotient of
    their lengths. That one is never 0/0, neither where α = 0 nor where σ = 0.

    Book: section ``sampling-via-denoising``.
    """

    def converted(x_t: Tensor, t: Time) -> Tensor:
        s = source.time(target.log_snr(t))
        return denoise(x_t * per_row(_length(source, s) / _length(target, t), x_t), s)

    return converted


def score_of(denoise: Denoiser, process: Process) -> Denoiser:
    """Return the score ``∇ log p_t(x_t) = (α E[x | x_t] - x_t) / σ²``: Tweedie's formula, inverted.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t) -> E[x | x_t]``, with times of ``process``.
    process : Process

    Returns
    -------
    callable
        ``score(x_t, t)``, in the shape of ``x_t``. It raises ValueError where σ(t) = 0.

    Notes
    -----
    The difference loses digits as σ falls: rounding is divided by σ².

    Book: section ``diffusion-and-denoising``.
    """

    def score(x_t: Tensor, t: Time) -> Tensor:
        return -_noise(denoise, process, x_t, t) / per_row(process.sigma(t), x_t)

    return score


def noise_of(denoise: Denoiser, process: Process) -> Denoiser:
    """Return the mean noise ``E[g | x_t] = (x_t - α E[x | x_t]) / σ``.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t) -> E[x | x_t]``, with times of ``process``.
    process : Process

    Returns
    -------
    callable
        ``noise(x_t, t)``, in the shape of ``x_t``. It raises ValueError where σ(t) = 0.

    Notes
    -----
    Its squared error is that of the denoiser times ``α²/σ²``, sample by sample.

    Book: section ``sampling-via-denoising``.
    """
    return lambda x_t, t: _noise(denoise, process, x_t, t)


def _noise(denoise: Denoiser, process: Process, x_t: Tensor, t: Time) -> Tensor:
    alpha, sigma = (per_row(value, x_t) for value in (process.alpha(t), process.sigma(t)))
    if not _within(sigma, math.ulp(0.0), math.inf):
        raise ValueError(f"t must be where sigma is positive, got {_span(t)}")
    return (x_t - alpha * denoise(x_t, t)) / sigma


def per_row(value: Time, x: Tensor) -> Time:
    """Return a number, or a tensor () or (n,), so shaped that it multiplies the rows of ``x``.

    Raises
    ------
    ValueError
        If a tensor has another shape.
    """
    if not isinstance(value, Tensor):
        return value
    if tuple(value.shape) not in ((), (len(x),)):
        raise ValueError(
            f"there must be one time for all or one for each of {len(x)} rows, "
            f"got shape {tuple(value.shape)}"
        )
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value.to(x)


# Grids of times, from noise to data


def uniform_grid(
    process: Process, steps: int, start: float | None = None, stop: float | None = None
) -> Tensor:
    """Return equally spaced times from ``start``, noisy, to ``stop``, clean.

    Parameters
    ----------
    process : Process
    steps : int
        Number of steps L.
    start, stop : float
        The ends; those of the process unless given.

    Returns
    -------
    Tensor, (steps + 1,), float64
        Falling, except on the clock of ``FlowMatching(data_at=1)``.

    Raises
    ------
    ValueError
        If ``steps`` is less than 1, a time is out of range, or ``start`` no noisier than ``stop``.

    Notes
    -----
    Book: section ``sampling-via-denoising``.

    Examples
    --------
    >>> uniform_grid(VariancePreserving(), 4)
    tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """
    return _grid(process, steps, start, stop, lambda t: t, lambda t: t)


def exponential_grid(
    process: Process,
    steps: int,
    start: float | None = None,
    stop: float | None = None,
    growth: float = 6.0,
) -> Tensor:
    """Return times whose distances to ``stop`` are ``C₁ (exp(C₂ ℓ) - 1)``, ℓ steps from the end.

    Parameters
    ----------
    growth : float, positive
        ``C₂ L``: the first step is about ``exp(growth)`` times as long as the last.
    process, steps, start, stop
        As for ``uniform_grid``.

    Returns
    -------
    Tensor, (steps + 1,), float64

    Raises
    ------
    ValueError
        As ``uniform_grid``, or if ``growth`` is not positive.

    Notes
    -----
    Meant for ``VarianceExploding``, whose times span several orders of magnitude.

    Book: section ``sampling-via-denoising``.
    """
    check_positive(growth, "growth")
    start, stop = _ends(process, start, stop, process.t_noise, process.t_data)
    unit = (start - stop) / math.expm1(growth)
    return _grid(
        process,
        steps,
        start,
        stop,
        lambda t: torch.log1p((t - stop) / unit),
        lambda u: stop + unit * torch.expm1(u),
    )


def angle_grid(
    process: Process, steps: int, start: float | None = None, stop: float | None = None
) -> Tensor:
    """Return times at which the angle of (α, σ) falls in equal steps.

    For ``VariancePreserving`` these are ``t = sin θ``, and θ is equally spaced.

    Parameters
    ----------
    process, steps, start, stop
        As for ``uniform_grid``.

    Returns
    -------
    Tensor, (steps + 1,), float64

    Raises
    ------
    ValueError
        As ``uniform_grid``.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """
    return _grid(
        process,
        steps,
        start,
        stop,
        lambda t: torch.atan2(process.sigma(t), process.alpha(t)),
        lambda angle: process.time(-2 * angle.tan().log()),
    )


def log_snr_grid(
    process: Process, steps: int, start: float | None = None, stop: float | None = None
) -> Tensor:
    """Return times at which the log-SNR rises in equal steps.

    Parameters
    ----------
    process, steps
        As for ``uniform_grid``.
    start, stop : float
        The ends, of finite log-SNR. Unless given, the signal is a thousandth of the noise at the
        start, or what there is of it at ``t_noise``, and the noise is a thousandth of the signal at
        the end.

    Returns
    -------
    Tensor, (steps + 1,), float64

    Raises
    ------
    ValueError
        As ``uniform_grid``, or if the log-SNR is infinite at an end.

    Notes
    -----
    Book: section ``sampling-via-denoising``.
    """
    limit = 2 * math.log(1000)
    reached = process.log_snr(process.t_noise) >= -limit
    noisiest = process.t_noise if reached else process.time(-limit)
    start, stop = _ends(process, start, stop, noisiest, process.time(limit))
    for name, t in (("start", start), ("stop", stop)):
        if not math.isfinite(process.log_snr(t)):
            raise ValueError(f"{name} must have a finite log-SNR, got {t:g}")
    return _grid(process, steps, start, stop, process.log_snr, process.time)


def _grid(
    process: Process,
    steps: int,
    start: float | None,
    stop: float | None,
    to_clock: Callable[[Tensor], Tensor],
    from_clock: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return times from start to stop, equally spaced on another clock."""
    check_count(steps, "steps")
    ends = _ends(process, start, stop, process.t_noise, process.t_data)
    first, last = to_clock(torch.tensor(ends, dtype=torch.float64))
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    times = from_clock(torch.lerp(first, last, share))
    times[0], times[-1] = ends  # without the rounding of two clocks
    return times


def _ends(
    process: Process, start: float | None, stop: float | None, noisy: float, clean: float
) -> tuple[float, float]:
    start = noisy if start is None else process._check(start, "start")
    stop = clean if stop is None else process._check(stop, "stop")
    if not process.log_snr(start) < process.log_snr(stop):
        raise ValueError(f"start must be noisier than stop, got {start:g} and {stop:g}")
    return start, stop


# Numbers and tensors alike


def _check_number(value: Time, name: str) -> Time:
    if isinstance(value, Tensor):
        return check_tensor(value, name, finite=False)
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number or a torch.Tensor, got {type(value).__name__}")
    return value


def _apply(function: Callable[[Tensor], Tensor], value: Time) -> Time:
    """Apply a function of tensors to a number or a tensor."""
    if isinstance(value, Tensor):
        return function(working(value)).to(value.dtype)
    return function(torch.tensor(value, dtype=torch.float64)).item()


def _within(value: Time, low: float, high: float) -> bool:
    """Tell whether all of ``value`` is between ``low`` and ``high``; NaN is not."""
    if isinstance(value, Tensor):
        return bool(((value >= low) & (value <= high)).all())
    return low <= value <= high


def _span(value: Time) -> str:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return f"{float(value):g}"
    return f"{value.min().item():g} to {value.max().item():g}"


def _length(process: Process, t: Time) -> Time:
    return (process.alpha(t) ** 2 + process.sigma(t) ** 2) ** 0.5
