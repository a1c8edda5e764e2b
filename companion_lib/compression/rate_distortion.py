"""Rate distortion: the fewest nats that describe a source to within a mean squared error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from companion_lib.compression.coding_rate import check_eps, check_one_eps
from companion_lib.validation import check_count, check_range, check_tensor, working


@dataclass(frozen=True, eq=False)
class GaussianRateDistortion:
    """The rate-distortion function of a Gaussian vector, at one ε or several.

    Attributes
    ----------
    rate : Tensor, (...)
        ``½ Σ log(λ_i / min(κ, λ_i))`` in nats.
    water_level : Tensor, (...)
        ``κ``. Directions with less variance are not coded at all.
    distortions : Tensor, (..., d)
        ``min(κ, λ_i)``, the error left in each direction; they sum to ``min(ε², Σ λ_i)``.
    """

    rate: Tensor
    water_level: Tensor
    distortions: Tensor


def rate_distortion_gaussian(eigenvalues: Tensor, eps: float | Tensor) -> GaussianRateDistortion:
    """Return the exact rate-distortion function of ``N(0, Σ)``, by reverse water-filling.

    Parameters
    ----------
    eigenvalues : Tensor, (d,), at least 0
        Of the covariance Σ, in any order. Half precision is computed in float32.
    eps : float or Tensor, (...), positive
        ε, not ε²: the mean squared error of the whole vector is at most ε².

    Returns
    -------
    GaussianRateDistortion
        Zero rate once ``ε² >= Σ λ_i``; then the water level is the largest eigenvalue.

    Raises
    ------
    TypeError
        If ``eigenvalues`` is not a floating-point tensor.
    ValueError
        If an eigenvalue is negative, NaN or infinite, or ``eps`` is not positive.

    Notes
    -----
    With ``j`` directions below the water the level would be ``(ε² - their sum) / (d - j)``. Sorted,
    these candidates come from one cumulative sum, and the right one is the largest: no bisection.

    Book: section ``rate-distortion``.
    """
    lam = working(check_tensor(eigenvalues, "eigenvalues", ndim=1))
    if (lam < 0).any():
        raise ValueError(f"eigenvalues must be at least 0, got {lam.min().item():.4g}")
    budget = check_eps(eps, lam).square()
    ascending = lam.sort().values
    below = ascending.cumsum(0)[:-1]
    drowned = torch.cat([lam.new_zeros(1), below])  # the sum of the j smallest, j = 0, ..., d - 1
    dry = torch.arange(len(lam), 0, -1, dtype=lam.dtype, device=lam.device)
    candidates = (budget[..., None] - drowned) / dry
    # Drowned or not, a direction holds at most its eigenvalue and at most the level. So the level
    # is no less than any candidate, and equal to the right one.
    level = candidates.amax(-1).clamp(max=ascending[-1])
    distortions = torch.minimum(level[..., None], lam)
    # A direction without variance has nothing to code: its ratio, and the gradient, would be 0/0.
    ratios = torch.where(lam > 0, lam, 1) / torch.where(lam > 0, distortions, 1)
    return GaussianRateDistortion(ratios.log().sum(-1) / 2, level, distortions)


def shannon_lower_bound(entropy: float | Tensor, eps: float | Tensor, d: int) -> Tensor:
    """Return ``h(x) - h(N(0, ε²/d I)) = h(x) - d/2 log(2πe ε²/d)``, in nats.

    No code of mean squared error ε² has a smaller rate. For a Gaussian whose smallest eigenvalue is
    at least ε²/d it is exact.

    Parameters
    ----------
    entropy : float or Tensor
        Differential entropy ``h(x)`` of the source, in nats.
    eps : float or Tensor, positive
        ε, not ε².
    d : int
        Dimension of the source.

    Raises
    ------
    ValueError
        If ``eps`` is not positive or ``d`` less than 1.

    Notes
    -----
    The book's form has a ball's volume and a Gamma function, which cancel.

    Book: section ``sphere-packing``.
    """
    check_count(d, "d")
    like = entropy if isinstance(entropy, Tensor) else torch.empty(0, dtype=torch.float64)
    eps = check_eps(eps, like)
    return entropy - d / 2 * torch.log(2 * math.pi * math.e * eps.square() / d)


@dataclass(frozen=True, eq=False, repr=False)
class DiscreteRateDistortion:
    """One point of a rate-distortion curve, computed by ``blahut_arimoto``.

    Attributes
    ----------
    rate : float
        Mutual information of the channel, in nats.
    distortion : float
        Its mean distortion.
    beta : float
        Minus the slope of the curve there.
    channel : Tensor, (n, m)
        The probabilities of the reproductions given each source symbol; rows sum to one.
    gap : float
        The rate exceeds the true curve at this distortion by at most this, in nats.
    steps : int
        Iterations taken.
    """

    rate: float
    distortion: float
    beta: float
    channel: Tensor
    gap: float
    steps: int

    def __repr__(self) -> str:
        return f"DiscreteRateDistortion({self.channel.shape[0]} to {self.channel.shape[1]} symbols)"


def blahut_arimoto(
    probabilities: Tensor,
    distortions: Tensor,
    beta: float,
    tol: float = 1e-4,
    max_steps: int = 100_000,
) -> DiscreteRateDistortion:
    """Return the point of the rate-distortion curve at which its slope is ``-beta``.

    Alternates between the best channel for given reproduction probabilities ``q`` and the best
    ``q`` for that channel. That multiplies ``q`` by ``c``, see below; we multiply by a power of it
    that grows while the objective falls and starts again at one when it does not.

    Parameters
    ----------
    probabilities : Tensor, (n,)
        Of the source symbols; at least 0, sum one. Any floating dtype: computed in float64, as
        many small steps and a certified gap need.
    distortions : Tensor, (n, m)
        ``distortions[i, j]`` is the cost of reproducing symbol ``i`` as ``j``, such as a squared
        distance.
    beta : float, at least 0
        Nats that a unit of distortion is worth.
    tol : float
        Stop when the rate is certified to be within ``tol`` nats of the curve.
    max_steps : int

    Returns
    -------
    DiscreteRateDistortion
        Its channel has the dtype of ``probabilities``, for half precision float32.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor where it must be.
    ValueError
        If the probabilities do not sum to one, shapes do not fit, a number is out of range, or
        there are NaN.

    Notes
    -----
    ``2 n m`` multiply-adds a step. The plain iteration converges like 1/steps where
    reproductions die out. With ``A_ij = exp(-β d_ij)`` and
    ``c_j = Σ_i p_i A_ij / (A q)_i``, the gap to the optimum is at most
    ``log max_j c_j - Σ_j q_j c_j log c_j``.

    Book: section ``rate-distortion``; Blahut (1972), Arimoto (1972).
    """
    p, cost = _check_source(probabilities, distortions)
    check_range(beta, "beta", 0)
    check_range(tol, "tol", 0)
    check_count(max_steps, "max_steps")
    # Only differences within a row matter; the smallest becomes 0, and nothing underflows.
    kernel = torch.exp(-beta * (cost - cost.amin(1, keepdim=True)))
    q = torch.full_like(cost[0], 1 / cost.shape[1])
    power, before, least = 1.0, q, math.inf
    for steps in range(1, max_steps + 1):  # noqa: B007 (its last value is reported)
        partition = kernel @ q
        objective = -(p @ partition.log()).item()
        if objective > least:  # the power was too much of a good thing
            q, power = before, 1.0
            partition, objective = kernel @ q, least
        c = (p / partition) @ kernel
        gap = (c.max().log() - torch.xlogy(q * c, c).sum()).item()
        if gap <= tol:
            break
        before, least = q, objective
        q = q * c.pow(power)
        q = q / q.sum()
        power *= 1.1
    channel = kernel * q / (kernel @ q)[:, None]
    return _like(probabilities, _point(p, cost, channel, beta, max(gap, 0.0), steps))


def rate_distortion(
    probabilities: Tensor, distortions: Tensor, eps: float, tol: float = 1e-4
) -> DiscreteRateDistortion:
    """Return the rate-distortion function of a discrete source at mean distortion ε², in nats.

    Parameters
    ----------
    probabilities, distortions, tol
        As for ``blahut_arimoto``.
    eps : float, positive
        ε, not ε².

    Returns
    -------
    DiscreteRateDistortion
        With ``distortion`` ε², or less where the curve has ended: at the zero rate of a large ε.
        Computed in float64, with a channel as from ``blahut_arimoto``.

    Raises
    ------
    ValueError
        As ``blahut_arimoto``; also if ε² is below the least possible distortion.

    Notes
    -----
    Keeps one channel on either side of ε², at first the one that says nothing and the one that
    reproduces best. Their mixture has distortion ε² and a rate that is at most on the chord between
    them. ``blahut_arimoto`` at the chord's slope replaces one of the two and bounds the curve from
    below by its tangent, until bound and mixture are within ``tol``. Where the curve is straight
    the mixture is on it, though no slope alone leads there.

    Book: section ``rate-distortion``.
    """
    p, cost = _check_source(probabilities, distortions)
    check_range(tol, "tol", 0)
    budget = check_one_eps(eps, cost).item() ** 2
    silent = (p @ cost).argmin().expand(len(cost))
    coarse, fine = (_point(p, cost, _deterministic(to, cost)) for to in (silent, cost.argmin(1)))
    if budget >= coarse.distortion:
        return _like(probabilities, coarse)
    if budget < fine.distortion:
        raise ValueError(f"eps must be at least {math.sqrt(fine.distortion):.4g} here, got {eps}")
    bound, steps = 0.0, 0
    for _ in range(100):  # a dozen will do
        span = coarse.distortion - fine.distortion
        share = (coarse.distortion - budget) / span
        slope = (fine.rate - coarse.rate) / span
        channel = share * fine.channel + (1 - share) * coarse.channel
        mixture = _point(p, cost, channel, slope, steps=steps)
        if mixture.rate - bound <= tol:
            break
        point = blahut_arimoto(p, cost, slope, tol / 2)
        steps += point.steps
        tangent = point.rate - point.gap + slope * (point.distortion - budget)
        bound = max(bound, tangent)
        coarse, fine = (point, fine) if point.distortion > budget else (coarse, point)
    return _like(probabilities, replace(mixture, gap=max(mixture.rate - bound, 0.0)))


def _check_source(probabilities: Tensor, distortions: Tensor) -> tuple[Tensor, Tensor]:
    p = check_tensor(probabilities, "probabilities", ndim=1).double()
    cost = check_tensor(distortions, "distortions", ndim=2).double()
    if (p < 0).any():
        raise ValueError(f"probabilities must be at least 0, got {p.min().item():.4g}")
    if abs(p.sum().item() - 1) > max(1e-5, torch.finfo(probabilities.dtype).eps):
        raise ValueError(f"probabilities must sum to one, got a sum of {p.sum().item():.6g}")
    if len(cost) != len(p):
        raise ValueError(
            f"distortions must have {len(p)} rows, one for each symbol, got {tuple(cost.shape)}"
        )
    return p / p.sum(), cost


def _like(probabilities: Tensor, point: DiscreteRateDistortion) -> DiscreteRateDistortion:
    return replace(point, channel=point.channel.to(working(probabilities).dtype))


def _deterministic(reproductions: Tensor, cost: Tensor) -> Tensor:
    """Return the channel that reproduces each symbol as the one given."""
    return torch.nn.functional.one_hot(reproductions, cost.shape[1]).to(cost)


def _point(
    p: Tensor, cost: Tensor, channel: Tensor, beta: float = 0.0, gap: float = 0.0, steps: int = 0
) -> DiscreteRateDistortion:
    joint = p[:, None] * channel
    output = joint.sum(0)
    rate = (torch.xlogy(joint, channel) - torch.xlogy(joint, output)).sum()
    return DiscreteRateDistortion(
        rate.item(), (joint * cost).sum().item(), beta, channel, gap, steps
    )
