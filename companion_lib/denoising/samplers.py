"""Samplers: from noise to data by denoising in small steps, and how far off they end up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from companion_lib.denoising.processes import Denoiser, Process
from companion_lib.validation import check_like, check_tensor, working


def ddim(denoise: Denoiser, process: Process, noise: Tensor, grid: Tensor) -> Tensor:
    """Sample by denoising in steps that keep the noise of each sample, as DDIM does.

    With ``x̄ = denoise(x_t, t)``, the step from ``t`` to ``s`` is

        x_s = σ_s/σ_t x_t + (α_s - σ_s/σ_t α_t) x̄,

    that is ``α_s x̄ + σ_s ĝ``, where ``ĝ = (x_t - α_t x̄) / σ_t`` is the noise that ``x̄`` implies.
    For ``VarianceExploding`` this is Euler's method in ``t`` for ``dx/dt = (x - x̄) / t``.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t) -> E[x | x_t]``; it gets ``t`` as a float.
    process : Process
    noise : Tensor, (n, ...)
        Standard normals. The path starts at ``σ(grid[0]) noise``.
    grid : Tensor, (L + 1,)
        Times of falling noise, as from ``uniform_grid``. α may be 0 at the first and σ at the last.

    Returns
    -------
    Tensor, (L + 1, n, ...)
        The whole path, start included. It has no gradient.

    Raises
    ------
    TypeError
        If ``noise`` or ``grid`` is not a floating-point tensor.
    ValueError
        If the grid has fewer than two times, leaves the range of the process or does not have
        falling noise, ``noise`` has NaN, or ``denoise`` returns another shape.

    Notes
    -----
    One call of ``denoise`` a step. The error falls like 1/L. Half precision is accumulated in
    float32.

    Book: section ``sampling-via-denoising``; Song, Meng and Ermon (2021).
    """
    return _path(denoise, process, noise, grid, order=1)


def multistep(denoise: Denoiser, process: Process, noise: Tensor, grid: Tensor) -> Tensor:
    """Sample by a second-order method that needs no more denoising than ``ddim``.

    ``ddim`` treats ``x̄`` as constant during a step. Here it is a line in the log-SNR, through its
    value now and that of the step before, taken at the middle of the step: ``x̄`` becomes

        x̄_t + (x̄_t - x̄_before) h / (2 h_before),        h = half the log-SNR gained in a step.

    Parameters
    ----------
    denoise, process, noise, grid
        As for ``ddim``.

    Returns
    -------
    Tensor, (L + 1, n, ...)
        The whole path, start included. It has no gradient.

    Raises
    ------
    TypeError, ValueError
        As ``ddim``.

    Notes
    -----
    The first step is as in ``ddim``, for want of a step before, and so are those beside α = 0 and
    σ = 0, where the log-SNR is infinite.

    Book: section ``sampling-via-denoising``; Lu et al. (2022), DPM-Solver++ (2M).
    """
    return _path(denoise, process, noise, grid, order=2)


def transport_1d(
    denoise: Denoiser, process: Process, grid: Tensor, z: Tensor, order: int = 1
) -> tuple[Tensor, Tensor]:
    """Return where a sampler takes noise in one dimension, ``F(z)``, and the derivative ``F'(z)``.

    Parameters
    ----------
    denoise : callable
        A denoiser of samples (n, 1) that treats rows on their own and has a gradient.
    process, grid
        As for ``ddim``.
    z : Tensor, (n,)
        Noise.
    order : 1 or 2
        ``ddim`` or ``multistep``.

    Returns
    -------
    F, dF : Tensor, (n,)

    Raises
    ------
    TypeError, ValueError
        As ``ddim``; also if ``z`` does not have one axis or ``order`` is not 1 or 2.

    Notes
    -----
    A step is linear in the sample and in what the denoiser returns. So derivatives take the same
    steps as samples, with ``x̄'(x) dx`` in place of ``x̄``; they travel as further rows, and memory
    does not grow with L.

    Book: section ``sampling-via-denoising``.
    """
    check_tensor(z, "z", ndim=1)
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")

    def with_derivative(rows: Tensor, t: float) -> Tensor:
        x, dx = rows.chunk(2)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = denoise(x, t)
            # Without a gradient the denoiser is constant, as that of a point mass.
            slope = (
                torch.autograd.grad(clean.sum(), x)[0]
                if clean.requires_grad
                else torch.zeros_like(x)
            )
        return torch.cat([clean.detach(), slope * dx])

    rows = torch.cat([z.detach(), torch.ones_like(z)])[:, None]
    with torch.no_grad():
        for end in _states(with_derivative, process, rows, grid, order):  # noqa: B007 (the last)
            pass
    F, dF = end.squeeze(1).to(z.dtype).chunk(2)
    return F, dF


def total_variation_1d(
    F: Tensor, dF: Tensor, z: Tensor, density: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the total variation between ``density`` and what a transport makes of noise.

    For an increasing map ``F`` with derivative ``F'`` it is, without sampling,

        TV = 1 - ∫ min(φ(z), p(F(z)) F'(z)) dz,        φ the standard normal density.

    Parameters
    ----------
    F, dF : Tensor, (n,)
        The map and its derivative at ``z``, as from ``transport_1d``.
    z : Tensor, (n,)
        Rising, equally spaced or not. From -6 to 6 there is all of the noise but 2e-9.
    density : callable
        ``p``, from points (n,) to densities (n,).

    Returns
    -------
    Tensor, ()
        Between 0 and 1, up to the error of the trapezoidal rule.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes do not fit, ``z`` does not rise, or ``dF`` is negative somewhere.

    Notes
    -----
    It is also ``½ ∫ |φ - p(F) F'| dz`` if the image of ``z`` holds all mass of ``p``. That of a bad
    sampler need not, and the overlap above counts what is left out.

    A map that falls somewhere, as ``multistep`` with few steps may make, is refused: the formula
    holds for maps that rise.

    Book: section ``sampling-via-denoising``.
    """
    check_tensor(z, "z", ndim=1)
    for value, name in ((F, "F"), (dF, "dF")):
        check_tensor(check_like(value, name, tuple(z.shape), z), name)
    if not (z.diff() > 0).all():
        raise ValueError("z must rise")
    if (dF < 0).any():
        raise ValueError(f"dF must be at least 0, as of a map that rises, got {dF.min().item():g}")
    normal = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return 1 - torch.trapezoid(torch.minimum(normal, density(F) * dF), z)


@torch.no_grad()
def _path(denoise: Denoiser, process: Process, noise: Tensor, grid: Tensor, order: int) -> Tensor:
    check_tensor(noise, "noise")
    states = _states(denoise, process, noise, grid, order)
    first = next(states)
    path = noise.new_empty((len(grid), *noise.shape))
    path[0] = first
    for i, x in enumerate(states, 1):
        path[i] = x
    return path


def _states(
    denoise: Denoiser, process: Process, noise: Tensor, grid: Tensor, order: int
) -> Iterator[Tensor]:
    """Yield the samples at each time of the grid, in working precision."""
    times = check_tensor(grid, "grid", ndim=1).cpu().double()
    keep, gain, extrapolation = _coefficients(process, times, order)
    x = process.sigma(times[0].item()) * working(noise)
    yield x
    before = None
    for t, k, g, e in zip(times[:-1].tolist(), keep, gain, extrapolation, strict=True):
        clean = working(denoise(x.to(noise.dtype), t))
        if clean.shape != x.shape:
            raise ValueError(
                f"denoise must return shape {tuple(x.shape)}, got {tuple(clean.shape)}"
            )
        x = k * x + g * (clean + e * (clean - before) if e else clean)
        before = clean
        yield x


def _coefficients(process: Process, times: Tensor, order: int) -> Iterator[list[float]]:
    """Return, for each step, the factors of the sample, of ``x̄`` and of its last change."""
    alpha, sigma = process.alpha(times), process.sigma(times)
    h = process.log_snr(times).diff() / 2
    if len(times) < 2 or not (h > 0).all():
        raise ValueError("grid must have at least two times, of falling noise")
    extrapolation = torch.zeros_like(h)
    if order == 2:
        before, now = h[:-1], h[1:]
        extrapolation[1:] = torch.where(now.isfinite(), now / before / 2, 0)  # 0 after infinity
    # α_s - σ_s/σ_t α_t is α_s (1 - exp(-h)), which keeps its digits in short steps.
    factors = (sigma[1:] / sigma[:-1], -alpha[1:] * torch.expm1(-h), extrapolation)
    return map(Tensor.tolist, factors)
