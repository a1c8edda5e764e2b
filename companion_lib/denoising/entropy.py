"""Entropy: of a density, of noised data by its score or its denoising error, of one step back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.denoising.processes import Denoiser, Process
from companion_lib.validation import (
    check_count,
    check_finite,
    check_like,
    check_positive,
    check_range,
    check_samples,
    check_square,
    check_tensor,
    draw_normal,
    working,
)

MASS = 1e-3  # how far from one the mass of a density on a grid may be

# Densities on a grid


def midpoint_grid(low: float, high: float, cells: int, d: int = 1) -> tuple[Tensor, float]:
    """Return the centers ``(cells**d, d)`` of equal cells that fill a cube, and a cell's volume.

    Float64, the last coordinate running fastest; ``values.reshape(d * (cells,))`` is a picture.
    The sum of a function over the centers times the volume is its integral, and for smooth
    densities that vanish at the border it converges faster than any power of ``cells``.

    Raises
    ------
    ValueError
        If ``high`` is not above ``low``, or ``cells`` or ``d`` less than 1.
    """
    check_count(cells, "cells")
    check_count(d, "d")
    check_finite(low, "low")
    if not low < high < math.inf:
        raise ValueError(f"high must be finite and above low = {low}, got {high}")
    side = (high - low) / cells
    axis = low + side * (torch.arange(cells, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d), side**d


def differential_entropy(density: Tensor, volume: float | Tensor) -> Tensor:
    """Return ``h(p) = -∫ p log p`` in nats of a density known on a grid.

    Parameters
    ----------
    density : Tensor, (...)
        At the cells of a grid in any number of dimensions, in any order. Half precision is
        computed in float32.
    volume : float or Tensor, positive
        Of a cell; a tensor that broadcasts against ``density`` has one for each.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    TypeError
        If ``density`` is not a floating-point tensor.
    ValueError
        If it is negative somewhere or NaN, or does not integrate to one within 0.001: the grid is
        then too coarse or too small.

    Notes
    -----
    Book: section ``differential-entropy``.
    """
    p, volume = _check_density(density, "density", volume)
    return -(torch.xlogy(p, p) * volume).sum()


def discretized_entropy(density: Tensor, side: float) -> Tensor:
    """Return ``H(p^ε) = -Σ P log P`` in nats, ``P = p εᵈ``: what it takes to name a sample's cell.

    It is ``h - d log ε`` and a little more, where ``h`` is the differential entropy: without bound
    as cells shrink. The little more is of order ε², for a standard normal ε²/24.

    Parameters
    ----------
    density : Tensor, with an axis for each of d dimensions
        Mean density in each cell of a grid of cubes: the probability of the cell over its volume.
    side : float, positive
        ε, the side of a cell; its volume is ``side**d``.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    TypeError, ValueError
        As ``differential_entropy``.

    Notes
    -----
    The density at a cell's center instead of its mean in the cell gives ``h - d log ε`` without the
    little more, if the density is smooth.

    Book: section ``entropy-and-coding-rate``.
    """
    p, volume = _check_density(density, "density", check_positive(side, "side") ** density.ndim)
    masses = p * volume
    return -torch.xlogy(masses, masses).sum()


def kl_divergence(p: Tensor, q: Tensor, volume: float | Tensor) -> Tensor:
    """Return ``KL(p‖q) = ∫ p log(p/q)``: the nats lost by a code for ``q`` on samples of ``p``.

    Parameters
    ----------
    p, q : Tensor, (...)
        Densities on the same grid.
    volume : float or Tensor, positive
        As for ``differential_entropy``.

    Returns
    -------
    Tensor, ()
        Infinite if ``q`` is zero where ``p`` is not.

    Raises
    ------
    TypeError, ValueError
        As ``differential_entropy``; also if shapes, dtypes or devices differ.

    Notes
    -----
    Book: section ``differential-entropy``.
    """
    p, volume = _check_density(p, "p", volume)
    q, _ = _check_density(check_like(working(q), "q", p.shape, p), "q", volume)
    return ((torch.xlogy(p, p) - torch.xlogy(p, q)) * volume).sum()


def _check_density(density: Tensor, name: str, volume: float | Tensor) -> tuple[Tensor, Tensor]:
    p = working(check_tensor(density, name))
    volume = torch.as_tensor(volume, dtype=p.dtype, device=p.device)
    if not (volume > 0).all():
        raise ValueError(f"volume must be positive, got {volume.min().item():.4g}")
    if (p < 0).any():
        raise ValueError(f"{name} must be at least 0, got {p.min().item():.4g}")
    mass = (p * volume).sum().item()
    if not abs(mass - 1) <= MASS:
        raise ValueError(
            f"{name} must integrate to one, got {mass:.6g}; use a grid that is wider or finer"
        )
    return p, volume


# Laws and samples


def gaussian_entropy(covariance: Tensor) -> Tensor:
    """Return ``h(N(μ, Σ)) = d/2 (1 + log 2π) + ½ log det Σ`` in nats, the most that Σ allows.

    Parameters
    ----------
    covariance : Tensor, (d, d)
        Symmetric and positive semidefinite. Half precision is computed in float32.

    Returns
    -------
    Tensor, ()
        Minus infinity if an eigenvalue is zero, up to rounding below zero.

    Raises
    ------
    TypeError
        If ``covariance`` is not a floating-point tensor.
    ValueError
        If it is not square, not symmetric, not positive semidefinite, or has NaN.

    Notes
    -----
    One eigendecomposition, ``O(d³)``.

    Book: section ``differential-entropy``.
    """
    S = working(check_square(covariance, "covariance"))
    rounding = len(S) * torch.finfo(S.dtype).eps * S.abs().max()
    gap = (S - S.T).abs().max()
    if gap > rounding:
        raise ValueError(f"covariance must be symmetric, got entries that differ by {gap:.2g}")
    values = torch.linalg.eigvalsh(S)
    if values[0] < -rounding:
        raise ValueError(
            f"covariance must be positive semidefinite, got the eigenvalue {values[0]:.4g}"
        )
    return len(S) / 2 * math.log(2 * math.pi * math.e) + values.clamp(min=0).log().sum() / 2


def cross_entropy(log_q: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """Return ``-E log q(x)``: what the code for ``q`` takes for the samples, ``h(p) + KL(p‖q)``.

    Parameters
    ----------
    log_q : callable
        Maps samples ``(n, d)`` to log-densities ``(n,)`` in nats.
    X : Tensor, (n, d)
        Samples of ``p``. To judge a fitted ``q`` they must not be those that it was fitted to.

    Returns
    -------
    Tensor, ()
        Infinite if a sample has no density under ``q``.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not a finite floating-point ``(n, d)`` tensor, or ``log_q`` returns another
        shape, NaN or plus infinity.

    Notes
    -----
    Book: section ``differential-entropy``.
    """
    check_samples(X)
    logs = check_tensor(log_q(X), "log_q(X)", ndim=1, finite=False)
    if len(logs) != len(X):
        raise ValueError(f"log_q(X) must have shape ({len(X)},), got {tuple(logs.shape)}")
    if not (logs < math.inf).all():
        raise ValueError("log_q(X) must be below infinity, got NaN or plus infinity")
    return -logs.mean()


# Entropy of noised data: its growth, and what a denoiser's error says about it


def fisher_information(score: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``J = E‖∇log p‖²``, so that ``dh/dt = t J`` along ``x_t = x + t g`` (de Bruijn).

    Parameters
    ----------
    score : Tensor, (n, d)
        ``∇log p`` at samples of ``p``, or at the points of a grid.
    weights : Tensor, (n,), optional
        Probabilities of the points, such as ``p`` times the volume of a cell; all equal if not
        given.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    TypeError, ValueError
        If ``score`` or ``weights`` do not fit, hold NaN, or the weights do not sum to one within
        0.001.

    Notes
    -----
    ``t`` is a standard deviation. In the clock of the variance ``t²`` the growth is ``J / 2``.

    Book: sections ``diffusion-and-denoising`` and ``diffusion-increases-entropy``.
    """
    score = working(check_samples(score, "score"))
    return _expectation(score.square().sum(1), weights)


def denoising_error(
    denoise: Denoiser,
    process: Process,
    X: Tensor,
    t: float | Tensor,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``E‖x - denoise(x_t, t)‖²`` over the samples and over noise.

    Parameters
    ----------
    denoise : callable
        ``denoise(x_t, t) -> E[x | x_t]``, with times of ``process``.
    process : Process
    X : Tensor, (n, ...)
        Clean samples.
    t : float or Tensor, () or (m,)
        Noise levels. All of them see the same noise, so that curves are smooth and differences
        between denoisers are those of the denoisers.
    draws : int
        Noise vectors for each sample.
    generator : torch.Generator, optional

    Returns
    -------
    Tensor, () or (m,)
        A sum over the coordinates, not a mean. Without a gradient.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not a finite floating-point tensor, ``draws`` less than 1, or ``t`` out of the
        process's range.

    Notes
    -----
    ``m draws`` calls of ``denoise`` with all of ``X``.

    Book: section ``diffusion-and-denoising``.
    """
    check_tensor(X, "X")
    check_count(draws, "draws")
    times = torch.as_tensor(t, dtype=working(X).dtype, device=X.device)
    errors = times.new_zeros(times.numel())
    with torch.no_grad():
        for _ in range(draws):
            noise = draw_normal(X.shape, X, generator)
            for i, time in enumerate(times.flatten()):
                gap = X - denoise(process.add_noise(X, time, noise), time)
                errors[i] += working(gap).square().sum() / (len(X) * draws)
    return errors.reshape(times.shape)


def fisher_from_denoiser(
    denoise: Denoiser,
    process: Process,
    X: Tensor,
    t: float | Tensor,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``J = d/σ² - α² E‖x - denoise(x_t, t)‖² / σ⁴``: information from denoising error.

    Parameters
    ----------
    denoise, process, X, t, draws, generator
        As for ``denoising_error``; ``σ(t)`` must be positive.

    Returns
    -------
    Tensor, () or (m,)
        Fisher information of the law of ``x_t``, if ``denoise`` is the conditional mean. A worse
        denoiser makes it too small.

    Raises
    ------
    TypeError, ValueError
        As ``denoising_error``; also if there is no noise at a time.

    Notes
    -----
    With variance exploding ``α = 1``, ``σ = t``: ``J = d/t² - mmse/t⁴``. Nothing is lost where
    noise is strong and ``mmse`` small against ``d t²``. Where noise is weak it is a difference of
    large numbers; ``fisher_information`` of the score is better there.

    Book: section ``diffusion-increases-entropy``.
    """
    errors = denoising_error(denoise, process, X, t, draws, generator)
    times = torch.as_tensor(t, dtype=errors.dtype, device=errors.device)
    alpha, sigma = process.alpha(times), process.sigma(times)
    if not (sigma > 0).all():
        raise ValueError(f"t must be a time with noise, got sigma = {sigma.min().item():.4g}")
    return X[0].numel() / sigma**2 - alpha**2 * errors / sigma**4


def entropy_by_de_bruijn(t: Tensor, fisher: Tensor, anchor: float | Tensor) -> Tensor:
    """Return the entropies ``h(x_t) = h(x_T) - ∫ₜᵀ s J(s) ds`` of ``x_t = x + t g``, in nats.

    Parameters
    ----------
    t : Tensor, (m,)
        Increasing, positive; evenly spaced logarithms are best.
    fisher : Tensor, (m,)
        ``J`` at these times.
    anchor : float or Tensor, ()
        The entropy at the last time ``T``. Where noise is far stronger than the data,
        ``gaussian_entropy(cov(x) + T² I)`` will do: its error falls like ``T⁻⁶``.

    Returns
    -------
    Tensor, (m,)

    Raises
    ------
    TypeError, ValueError
        If there are fewer than 3 times, they do not increase or are not positive, or shapes or
        dtypes do not fit.

    Notes
    -----
    The integral of ``s² J`` over ``log s``, by the trapezoidal rule with its first correction for
    curvature: for smooth ``J`` the error is of order ``h⁴`` for steps ``h`` of ``log s``.

    Book: section ``diffusion-increases-entropy``.
    """
    _check_curve(t, "t", fisher, "fisher")
    check_finite(anchor, "anchor")
    gained = _integrals(t.log(), t.square() * fisher)
    return anchor - (gained[-1] - gained)


def mutual_information_by_i_mmse(snr: Tensor, mmse: Tensor) -> Tensor:
    """Return ``I(x; √s x + g) = ½ ∫₀ˢ mmse(u) du`` in nats: all that denoising errors add up to.

    It ends at ``log n`` for the law of ``n`` stored points, and is ``½ log det(I + sΣ)`` for a
    Gaussian, the coding rate of chapter 4 with ``s = d/ε²``.

    Parameters
    ----------
    snr : Tensor, (m,)
        ``s = α²/σ²``: increasing, positive; evenly spaced logarithms are best, from where
        ``s`` times the largest variance is small.
    mmse : Tensor, (m,)
        ``E‖x - E[x|x_t]‖²`` there, a sum over coordinates.

    Returns
    -------
    Tensor, (m,)
        Up to each ``s``.

    Raises
    ------
    TypeError, ValueError
        As ``entropy_by_de_bruijn``.

    Notes
    -----
    Integrated over ``log s`` as there. Below the first ``s`` the error counts as constant, which
    adds an error of about ``s² tr Σ² / 4``.

    Book: section ``memorization-and-generalization``; Guo, Shamai and Verdú (2005), "Mutual
    Information and Minimum Mean-Square Error in Gaussian Channels".
    """
    _check_curve(snr, "snr", mmse, "mmse")
    areas = snr * mmse
    return (areas[0] + _integrals(snr.log(), areas)) / 2


def _check_curve(x: Tensor, x_name: str, y: Tensor, y_name: str) -> None:
    check_tensor(x, x_name, ndim=1)
    check_like(y, y_name, x.shape, x)
    check_tensor(y, y_name)
    if len(x) < 3:
        raise ValueError(f"{x_name} needs at least 3 values, got {len(x)}")
    check_positive(x.min().item(), x_name)
    if not (x.diff() > 0).all():
        raise ValueError(f"{x_name} must increase from each value to the next")


def _integrals(x: Tensor, y: Tensor) -> Tensor:
    """Return the integrals of ``y`` from the first ``x`` to each."""
    step = x.diff()
    (slope,) = torch.gradient(y, spacing=(x,), edge_order=2)
    pieces = step * (y[1:] + y[:-1]) / 2 - step**2 * slope.diff() / 12
    return torch.cat([x.new_zeros(1), pieces.cumsum(0)])


# One step back


@dataclass(frozen=True)
class EntropyDrop:
    """What one denoising step takes from the entropy, in nats; computed by ``entropy_drop``.

    Attributes
    ----------
    drop : float
        ``h(x_t) - h(x̂_s) = -E log det`` of the step's Jacobian.
    bound : float
        What it is at least: ``(1 - s/t) t² J`` for variance exploding.
    """

    drop: float
    bound: float


def entropy_drop(
    denoise: Denoiser,
    process: Process,
    x_t: Tensor,
    t: float,
    s: float,
    weights: Tensor | None = None,
) -> EntropyDrop:
    """Return what the step ``x̂_s = E[x_s | x_t]`` takes from the entropy, and its lower bound.

    The step is ``x̂_s = (σ_s/σ_t) x_t + (α_s - α_t σ_s/σ_t) denoise(x_t, t)``. Its Jacobian is
    symmetric and positive definite, so it maps the space one to one, and entropy changes by the
    mean of its log-determinant. As ``log det A <= tr A - d`` and
    ``-E Δ log p_t = J(p_t)``, with variance exploding

        h(x_t) - h(x̂_s) >= (1 - s/t) t² J(p_t) > 0    for all s < t.

    Parameters
    ----------
    denoise : callable
        The conditional mean ``E[x | x_t]``, differentiable in ``x_t``; rows must not depend on
        each other.
    process : Process
    x_t : Tensor, (n, d)
        Samples of the noised law, or the points of a grid.
    t, s : float
        Times with less noise at ``s``: ``σ_s/α_s < σ_t/α_t``, and some signal at ``t``.
    weights : Tensor, (n,), optional
        As for ``fisher_information``.

    Returns
    -------
    EntropyDrop
        ``drop`` is infinite if the step collapses a sample, as ``s = 0`` does for the law of
        finitely many points.

    Raises
    ------
    TypeError, ValueError
        If ``x_t``, ``weights`` or the times do not fit.

    Notes
    -----
    ``d`` gradients of ``denoise`` for all samples, ``n d²`` numbers in memory and ``O(n d³)``
    operations. For the other processes the scale ``a = α_s/α_t`` counts, too:
    ``(1 - σ_s/(a σ_t)) σ_t² J - d log a`` is then the bound. It is computed from traces, so it
    holds for every sample set, not on average only.

    Book: section ``denoising-reduces-entropy``, with a shorter proof.
    """
    check_samples(x_t, "x_t")
    scale, rest = _step(process, t, s)
    jacobian = rest * _jacobian(denoise, x_t, t)
    jacobian.diagonal(dim1=1, dim2=2).add_(scale)
    # By QR: right for learned denoisers, too, whose Jacobians are not quite symmetric.
    pivots = torch.linalg.qr(jacobian, mode="r").R.diagonal(dim1=1, dim2=2)
    a, d = float(process.alpha(s)) / float(process.alpha(t)), x_t.shape[1]
    traces = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    drop = -_expectation(pivots.abs().log().sum(1), weights)
    bound = d - d * math.log(a) - _expectation(traces, weights) / a
    return EntropyDrop(drop.item(), bound.item())


def posterior_covariance(denoise: Denoiser, process: Process, x_t: Tensor, t: float) -> Tensor:
    """Return ``Cov(x | x_t) = (σ²/α) ∂denoise/∂x_t``: Tweedie's formula, once more differentiated.

    So the Hessian ``∇² log p_t`` is ``(α² Cov / σ² - I) / σ²``, and where a point is nearly certain
    the log-density is as concave as it can be, ``-I/σ²``.

    Parameters
    ----------
    denoise : callable
        The conditional mean, differentiable in ``x_t``; rows must not depend on each other.
    process : Process
    x_t : Tensor, (n, d)
    t : float
        A time with signal: ``α(t) > 0``.

    Returns
    -------
    Tensor, (n, d, d)

    Raises
    ------
    TypeError, ValueError
        If ``x_t`` is not a finite floating-point ``(n, d)`` tensor, or there is no signal at ``t``.

    Notes
    -----
    ``d`` gradients of ``denoise`` for all samples.

    Book: section ``denoising-reduces-entropy``.
    """
    check_samples(x_t, "x_t")
    alpha = _signal(process, t)
    return float(process.sigma(t)) ** 2 / alpha * _jacobian(denoise, x_t, t)


def _step(process: Process, t: float, s: float) -> tuple[float, float]:
    """Return the factors of ``x_t`` and of the clean estimate in one step."""
    alpha, sigma = _signal(process, t), check_positive(float(process.sigma(t)), "sigma(t)")
    alpha_s, sigma_s = _signal(process, s), float(process.sigma(s))
    if not sigma_s * alpha < sigma * alpha_s:
        raise ValueError(f"s must be a time with less noise than t = {t}, got {s}")
    return sigma_s / sigma, alpha_s - alpha * sigma_s / sigma


def _signal(process: Process, t: float) -> float:
    return check_positive(float(process.alpha(t)), f"alpha({t})")


def _jacobian(denoise: Denoiser, x_t: Tensor, t: float) -> Tensor:
    """Return ``∂ denoise(x_t, t)_i / ∂x_j`` for each row: one gradient for every i."""
    with torch.enable_grad():
        x = working(x_t).detach().requires_grad_()
        clean = denoise(x, t).sum(0)
        if not clean.requires_grad:
            raise ValueError("denoise must be differentiable in x_t, got a result without gradient")
        rows = [torch.autograd.grad(c, x, retain_graph=True)[0] for c in clean]
    return torch.stack(rows, 1)


def _expectation(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values.mean()
    weights = check_like(working(weights), "weights", values.shape, values)
    check_tensor(weights, "weights")
    check_range(weights.min().item(), "weights", 0)
    if not abs(weights.sum().item() - 1) <= MASS:
        raise ValueError(f"weights must sum to one, got {weights.sum().item():.6g}")
    return (values * weights).sum()
