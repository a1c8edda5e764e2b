"""Mixtures of Gaussians under noise: density, score and best denoiser in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from companion_lib.validation import (
    check_count,
    check_like,
    check_tensor,
    draw_normal,
    working,
)


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixture:
    """The law ``Σₖ πₖ N(μₖ, Σₖ)``, and what noise ``x_t = α x + σ g`` makes of it.

    Make one with :meth:`full`, :meth:`diagonal` or :meth:`low_rank`. Every covariance is kept by
    its eigenvectors and eigenvalues. Noise leaves the former alone and turns an eigenvalue λ into
    ``α² λ + σ²``, so one factorization serves all noise levels.

    Attributes
    ----------
    weights : Tensor, (K,)
        The book's ``π``.
    means : Tensor, (K, d)
    axes : Tensor, (K, r, d), or None
        Orthonormal eigenvectors of each covariance as rows. None: the coordinate axes.
    eigenvalues : Tensor, (K, r)
        Variance along each of them.
    off_variance : Tensor, (K,)
        Variance in every direction orthogonal to them; of no meaning if there is none.

    Notes
    -----
    ``alpha`` and ``sigma`` are numbers or tensors ``()`` or ``(n,)``, one for each row of ``x``.
    ``x`` has the dtype of the mixture. In half precision it is computed in float32.

    Cost for n queries: ``2 n K d r`` multiply-adds, in two matrix products with all axes stacked,
    and memory ``n (d + K r)``. Full covariances have ``r = d``. Diagonal ones take ``n K d``.

    Derivatives with respect to ``x`` go through every method, by ``torch.autograd`` as well as
    ``torch.func``, inside of whose ``vmap`` NaN in ``x`` is not looked for.

    Book: section ``diffusion-and-denoising``.
    """

    weights: Tensor
    means: Tensor
    axes: Tensor | None
    eigenvalues: Tensor
    off_variance: Tensor

    @classmethod
    def full(cls, weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
        """Return the mixture with any covariances ``(K, d, d)``.

        Eigenvalues that rounding alone accounts for, below ``2 √d eps`` of the largest, become
        zero.

        Raises
        ------
        TypeError
            If an argument is not a floating-point tensor.
        ValueError
            If shapes, dtypes or devices do not fit, there are NaN or infinite entries, weights are
            negative or do not sum to one, or a covariance is not symmetric and positive
            semidefinite.
        """
        weights, means = _check_weights_and_means(weights, means)
        K, d = means.shape
        covariances = working(check_tensor(covariances, "covariances", ndim=3))
        check_like(covariances, "covariances", (K, d, d), means)
        rounding = 2 * math.sqrt(d) * torch.finfo(means.dtype).eps
        largest = covariances.abs().amax((1, 2))
        gaps = (covariances - covariances.mT).abs().amax((1, 2))
        if not (gaps <= 8 * rounding * largest).all():
            k = int(gaps.argmax())
            raise ValueError(
                f"covariances must be symmetric, got entries {gaps[k]:.2g} apart in {k}"
            )
        eigenvalues, vectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
        top = eigenvalues.abs().amax(1, keepdim=True)
        if not (eigenvalues >= -8 * rounding * top).all():
            k = int(eigenvalues[:, 0].argmin())
            raise ValueError(
                "covariances must be positive semidefinite, "
                f"got an eigenvalue {eigenvalues[k, 0]:.4g} in {k}"
            )
        eigenvalues = torch.where(eigenvalues > rounding * top, eigenvalues, 0.0)
        return cls(weights, means, vectors.mT.contiguous(), eigenvalues, means.new_zeros(K))

    @classmethod
    def diagonal(cls, weights: Tensor, means: Tensor, variances: Tensor) -> GaussianMixture:
        """Return the mixture with independent coordinates of ``variances`` ``(K, d)``.

        Raises as :meth:`full` does, and ``ValueError`` if a variance is negative.
        """
        weights, means = _check_weights_and_means(weights, means)
        variances = working(check_tensor(variances, "variances", ndim=2))
        check_like(variances, "variances", means.shape, means)
        _check_not_negative(variances, "variances")
        return cls(weights, means, None, variances, means.new_zeros(len(means)))

    @classmethod
    def low_rank(
        cls, weights: Tensor, means: Tensor, factors: Tensor, variance: float | Tensor = 0.0
    ) -> GaussianMixture:
        """Return the mixture with covariances ``Fₖ Fₖᵀ + vₖ I``.

        Parameters
        ----------
        weights : Tensor, (K,)
        means : Tensor, (K, d)
        factors : Tensor, (K, d, r)
            The columns of ``Fₖ`` need not be orthogonal. Zero columns make smaller ranks.
        variance : float or Tensor, () or (K,)
            ``v``, not negative.

        Raises
        ------
        TypeError, ValueError
            As :meth:`full` does, and if ``variance`` is negative.
        """
        weights, means = _check_weights_and_means(weights, means)
        K, d = means.shape
        factors = working(check_tensor(factors, "factors", ndim=3))
        check_like(factors, "factors", (K, d, factors.shape[2]), means)
        off = torch.as_tensor(variance, dtype=means.dtype, device=means.device)
        if off.shape not in ((), (K,)):
            raise ValueError(
                f"variance must be one number or {K}, one for each component, "
                f"got shape {tuple(off.shape)}"
            )
        _check_not_negative(off, "variance")
        left, singular, _ = torch.linalg.svd(factors, full_matrices=False)
        rounding = d * torch.finfo(means.dtype).eps * singular[:, :1]
        signal = torch.where(singular > rounding, singular, 0.0).square()
        off = off.expand(K).contiguous()
        return cls(weights, means, left.mT.contiguous(), signal + off[:, None], off)

    def log_prob(self, x: Tensor, alpha: float | Tensor = 1.0, sigma: float | Tensor = 0.0):
        """Return ``log p_t(x)``, the log density of ``α x₀ + σ g``, for ``x`` ``(n, d)``: ``(n,)``.

        In nats. Without ``alpha`` and ``sigma``, that of the mixture itself.

        Raises
        ------
        TypeError
            If ``x`` is not a floating-point tensor.
        ValueError
            If ``x`` has another number of features, another dtype or NaN, ``alpha`` or ``sigma``
            is negative or not finite, or there is no density: a covariance is singular and
            ``sigma`` zero.
        """
        x, noisy = self._at(x, alpha, sigma)
        d = self.means.shape[1]
        log_prob = torch.logsumexp(noisy.logits(), 1) - d / 2 * math.log(2 * math.pi)
        return log_prob.to(x.dtype)

    def posterior(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """Return the probability ``(n, K)`` of each component, given ``x_t = x``.

        Raises as :meth:`log_prob` does.
        """
        x, noisy = self._at(x, alpha, sigma)
        return noisy.posterior.to(x.dtype)

    def score(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``∇ log p_t(x) = -Σₖ wₖ (α² Σₖ + σ² I)⁻¹ (x - α μₖ)``, ``(n, d)``.

        ``wₖ`` is the posterior. Raises as :meth:`log_prob` does.
        """
        x, noisy = self._at(x, alpha, sigma)
        return noisy.mean_of(-1 / noisy.along, -1 / noisy.off).to(x.dtype)

    def denoise(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``E[x₀ | x_t = x]``, ``(n, d)``: the posterior mean of the components' answers.

        Each is a Wiener filter, ``μₖ + α Σₖ (α² Σₖ + σ² I)⁻¹ (x - α μₖ)``. With ``alpha = 0`` it
        is the mean of the mixture. Raises as :meth:`log_prob` does.
        """
        x, noisy = self._at(x, alpha, sigma)
        gains = noisy.alpha * self.eigenvalues / noisy.along
        filtered = noisy.mean_of(gains, noisy.alpha[..., 0] * self.off_variance / noisy.off)
        return (noisy.posterior @ self.means + filtered).to(x.dtype)

    def denoiser(self, process) -> Callable[[Tensor, float | Tensor], Tensor]:
        """Return ``denoise(x_t, t)`` with the ``process.alpha(t)`` and ``process.sigma(t)``."""

        def denoise(x_t: Tensor, t: float | Tensor) -> Tensor:
            return self.denoise(x_t, process.alpha(t), process.sigma(t))

        return denoise

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` samples ``(n, d)``: means plus ``Σₖ^½ g``."""
        check_count(n, "n")
        place = self.weights if generator is None else self.weights.to(generator.device)
        chosen = torch.multinomial(place, n, replacement=True, generator=generator)
        chosen = chosen.to(self.means.device)
        noise = draw_normal((n, self.means.shape[1]), self.means, generator)
        x, along, off = self.means[chosen], self.eigenvalues.sqrt(), self.off_variance.sqrt()
        if self.axes is None:
            return x + along[chosen] * noise
        for k, axes in enumerate(self.axes):
            rows = chosen == k
            g = noise[rows]
            x[rows] += off[k] * g + (g @ axes.T * (along[k] - off[k])) @ axes
        return x

    def covariances(self) -> Tensor:
        """Return the covariances of all components, ``(K, d, d)``."""
        if self.axes is None:
            return torch.diag_embed(self.eigenvalues)
        excess = self.eigenvalues - self.off_variance[:, None]
        eye = torch.eye(self.means.shape[1]).to(self.means)
        return (self.axes.mT * excess[:, None]) @ self.axes + self.off_variance[:, None, None] * eye

    def __repr__(self) -> str:
        (K, d), r = self.means.shape, self.eigenvalues.shape[1]
        kind = "diagonal" if self.axes is None else f"rank={r}"
        return f"GaussianMixture(K={K}, d={d}, {kind})"

    def _at(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> tuple[Tensor, _Noisy]:
        """Return ``x`` and all there is to say about it at one noise level, after checks."""
        try:
            check_tensor(x, "x", ndim=2)
        except RuntimeError:  # inside of vmap, values may not be looked at
            check_tensor(x, "x", ndim=2, finite=False)
        check_like(working(x), "x", (len(x), self.means.shape[1]), self.means)
        alpha, sigma = (
            check_level(value, name, working(x))[:, None, None]
            for value, name in ((alpha, "alpha"), (sigma, "sigma"))
        )
        return x, _Noisy(self, working(x), alpha, sigma)


class _Noisy:
    """Queries ``x`` ``(n, d)`` beside the components at their noise levels, ``(n or 1, 1, 1)``.

    ``along`` ``(n or 1, K, r)`` are the variances along the axes, ``off`` ``(n or 1, K)`` those
    orthogonal to them, and ``z`` ``(n, K, r)`` the coordinates of ``x - α μₖ``. Queries and means
    are taken relative to the mean of the mixture, which keeps the digits of what is far from zero.
    """

    def __init__(self, mixture: GaussianMixture, x: Tensor, alpha: Tensor, sigma: Tensor):
        self.mixture, self.alpha = mixture, alpha
        center = mixture.weights @ mixture.means
        self.means = mixture.means - center
        self.x = x - alpha[..., 0] * center
        self.along = alpha**2 * mixture.eigenvalues + sigma**2
        self.codimension = x.shape[1] - mixture.eigenvalues.shape[1]
        self.off = alpha[..., 0] ** 2 * mixture.off_variance + sigma[..., 0] ** 2
        if not self.codimension:  # nothing is orthogonal to the axes: 1 / off must be zero
            self.off = torch.full_like(self.off, math.inf)
        if not (self.along.detach() > 0).all() or not (self.off.detach() > 0).all():
            raise ValueError(
                "sigma must be positive where a covariance is singular or alpha is zero, got "
                f"{sigma.min().item():.4g}, whose square is too small for a variance in {x.dtype}"
            )
        self.z = self._coordinates()

    def logits(self) -> Tensor:
        """Return ``log πₖ N(x; α μₖ, α² Σₖ + σ² I)`` without the powers of 2π, (n, K)."""
        distance = (self.z.square() / self.along).sum(2)
        volume = self.along.log().sum(2)
        if self.codimension:
            distance = distance + self._off_squares() / self.off
            volume = volume + self.codimension * self.off.log()
        return self.mixture.weights.log() - (distance + volume) / 2

    @cached_property
    def posterior(self) -> Tensor:
        """The probability of each component given the query, (n, K)."""
        return torch.softmax(self.logits(), 1)

    def mean_of(self, along: Tensor, off: Tensor) -> Tensor:
        """Return ``Σₖ wₖ Mₖ (x - α μₖ)``, (n, d), w the posterior and ``Mₖ`` a function of ``Σₖ``.

        It is given by its eigenvalues ``along`` (n or 1, K, r) the axes and ``off`` (n or 1, K).
        """
        weights, axes = self.posterior, self.mixture.axes
        # Denormal numbers slow matrix products down several times, and count for nothing here.
        precision = torch.finfo(weights.dtype)
        weights = torch.where(weights > precision.tiny / precision.eps, weights, 0.0)
        if axes is None:
            return (weights[..., None] * along * self.z).sum(1)
        pull = weights * off
        straight = pull.sum(1, keepdim=True) * self.x - self.alpha[..., 0] * (pull @ self.means)
        coefficients = weights[..., None] * (along - off[..., None]) * self.z
        return straight + coefficients.flatten(1) @ axes.flatten(0, 1)

    def _coordinates(self) -> Tensor:
        axes = self.mixture.axes
        if axes is None:
            return self.x[:, None] - self.alpha * self.means
        z = (self.x @ axes.flatten(0, 1).T).unflatten(1, axes.shape[:2])
        return z - self.alpha * (axes @ self.means[..., None])[..., 0]

    def _off_squares(self) -> Tensor:
        """Return the squared distance of ``x - α μₖ`` to the span of the axes, (n, K).

        As a difference of squares, where enough digits of a typical one survive; otherwise from
        the residuals themselves, component by component.
        """
        lengths = self.means.square().sum(1)
        energy = (lengths + self.mixture.eigenvalues.sum(1)).max() * self.alpha[..., 0] ** 2
        if (energy < self.off * torch.finfo(self.x.dtype).eps ** -0.5).all():
            alpha = self.alpha[..., 0]
            squares = self.x.square().sum(1, keepdim=True) + alpha**2 * lengths
            return squares - 2 * alpha * (self.x @ self.means.T) - self.z.square().sum(2)
        parts = zip(self.means, self.mixture.axes, self.z.unbind(1), strict=True)
        squares = [
            (self.x - self.alpha[..., 0] * mean - z @ axes).square().sum(1)
            for mean, axes, z in parts
        ]
        return torch.stack(squares, 1)


def subspace_mixture(bases: Tensor, weights: Tensor | None = None) -> GaussianMixture:
    """Return the mixture ``Σₖ πₖ N(0, Uₖ Uₖᵀ)`` of standard Gaussians on subspaces.

    With equal weights its best denoiser is attention without values or scale:

        E[x₀ | x_t] = α/(α²+σ²) Σₖ softmaxₖ(α² ‖Uₖᵀ x_t‖² / (2 σ² (α²+σ²))) Uₖ Uₖᵀ x_t

    Parameters
    ----------
    bases : Tensor, (K, d, r)
        Orthonormal columns for each subspace.
    weights : Tensor, (K,), optional
        Equal if not given.

    Raises
    ------
    TypeError, ValueError
        As :meth:`GaussianMixture.low_rank` does, and if columns are not orthonormal.

    Notes
    -----
    Book: section ``diffusion-and-denoising``.
    """
    check_tensor(bases, "bases", ndim=3)
    K, d, r = bases.shape
    W = working(bases)
    gap = (W.mT @ W - torch.eye(r).to(W)).abs().max().item()
    if not gap <= max(torch.finfo(dtype).eps for dtype in (bases.dtype, torch.float32)) ** 0.5:
        raise ValueError(f"bases must have orthonormal columns, got products off by {gap:.2g}")
    weights = W.new_full((K,), 1 / K) if weights is None else weights
    return GaussianMixture.low_rank(weights, W.new_zeros(K, d), W)


def check_level(value: float | Tensor, name: str, x: Tensor) -> Tensor:
    """Return ``alpha`` or ``sigma`` as a tensor (1,) or (n,) like ``x`` (n, d).

    Raises
    ------
    ValueError
        If it is negative or not finite, or neither one number nor one for each row of ``x``.
    """
    level = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if level.shape not in ((), (len(x),)):
        raise ValueError(
            f"{name} must be one number or one for each of {len(x)} rows of x, "
            f"got shape {tuple(level.shape)}"
        )
    level = level.reshape(-1)
    _check_not_negative(level, name)
    return level


def _check_not_negative(value: Tensor, name: str) -> None:
    low, high = (end.item() for end in torch.aminmax(value.detach()))
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {low if low < 0 else high}")


def _check_weights_and_means(weights: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the precision to compute with, if they are a law and its components' means."""
    means = working(check_tensor(means, "means", ndim=2))
    given = check_tensor(weights, "weights", ndim=1)
    weights = check_like(working(given), "weights", (len(means),), means)
    _check_not_negative(weights, "weights")
    total = weights.detach().double().sum().item() if not weights.is_mps else weights.sum().item()
    if abs(total - 1) > max(4 * torch.finfo(given.dtype).eps, 1e-6):
        raise ValueError(f"weights must sum to one, got {total:.6g}")
    return weights, means
