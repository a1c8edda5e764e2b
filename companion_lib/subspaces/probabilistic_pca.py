"""Probabilistic PCA: a Gaussian on a subspace plus isotropic noise, by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.subspaces.pca import pca
from companion_lib.validation import (
    check_count,
    check_features,
    check_samples,
    check_tensor,
    draw_normal,
    working,
)


@dataclass(frozen=True, eq=False, repr=False)
class ProbabilisticPCA:
    """The Gaussian with variance ``eigenvalues`` along ``components`` and noise elsewhere.

    Attributes
    ----------
    components : Tensor, shape (k, d)
        Orthonormal rows that span the signal.
    eigenvalues : Tensor, shape (k,)
        *Observed* variance along each component: signal variance plus ``noise_variance``.
    noise_variance : Tensor, shape ()
        Variance of the noise per coordinate, the book's ``sigma^2``.
    mean : Tensor, shape (d,)
        Mean of the model.
    """

    components: Tensor
    eigenvalues: Tensor
    noise_variance: Tensor
    mean: Tensor

    @property
    def signal_variances(self) -> Tensor:
        """Variance ``(k,)`` of the signal along each component: observed minus noise."""
        return (self.eigenvalues - self.noise_variance).clamp(min=0)

    def denoise(self, X: Tensor) -> Tensor:
        """Return the posterior mean ``(n, d)`` of the signal given noisy samples ``X``.

        Each coordinate along a component shrinks toward the mean by the Wiener factor
        ``lambda_signal / (lambda_signal + sigma^2)``, which is ``(lambda - sigma^2) / lambda`` in
        terms of the observed variance ``lambda``. What lies off the subspace is dropped.
        """
        check_features(X, self.mean)
        components = working(self.components)
        Z = (working(X) - self.mean) @ components.T
        factors = shrink(working(self.signal_variances), working(self.noise_variance))
        return ((Z * factors) @ components + self.mean).to(X.dtype)

    def log_prob(self, X: Tensor) -> Tensor:
        """Return the log density ``(n,)`` of samples ``X`` ``(n, d)``, in nats.

        Raises ``ValueError`` if ``noise_variance`` is zero: then there is no density.
        """
        check_features(X, self.mean)
        k, d = self.components.shape
        noise, components = working(self.noise_variance), working(self.components)
        variances = working(self.eigenvalues)
        if noise <= 0:
            raise ValueError(
                "noise_variance must be positive for a density, got 0: as far as "
                f"{X.dtype} can tell, the samples fitted lie in a subspace of dimension k = {k}"
            )
        W = working(X) - self.mean
        Z = W @ components.T
        off = (W - Z @ components).square().sum(1)
        distance = (Z.square() / variances).sum(1) + off / noise
        logdet = variances.log().sum() + (d - k) * noise.log()
        return (-0.5 * (d * math.log(2 * math.pi) + logdet + distance)).to(X.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` samples ``(n, d)`` of the model: signal on the subspace plus noise."""
        check_count(n, "n")
        k, d = self.components.shape
        mean, components = working(self.mean), working(self.components)
        signal = draw_normal((n, k), mean, generator) * working(self.signal_variances).sqrt()
        noise = draw_normal((n, d), mean, generator) * working(self.noise_variance).sqrt()
        return (mean + signal @ components + noise).to(self.mean.dtype)

    def __repr__(self) -> str:
        k, d = self.components.shape
        return f"ProbabilisticPCA(k={k}, d={d})"


def probabilistic_pca(X: Tensor, k: int, center: bool = True) -> ProbabilisticPCA:
    """Fit ``x = mean + U z + noise`` with Gaussian ``z`` of dimension ``k`` and isotropic noise.

    The maximum of the likelihood is in closed form: the components and eigenvalues of PCA, and
    the mean of the ``d - k`` discarded eigenvalues as noise variance.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows (the book has them as columns).
    k : int
        Dimension of the signal, between 1 and ``min(n, d) - 1``.
    center : bool
        Fit the mean. With ``False`` it is zero, as in the book.

    Returns
    -------
    ProbabilisticPCA
        In the dtype of ``X``; half precision is computed in float32. If the samples lie in a
        subspace of dimension ``k`` up to rounding, ``noise_variance`` is 0; so it is where it
        underflows, below a variance of 6e-8 in float16.

    Raises
    ------
    TypeError, ValueError
        As for :func:`pca`, with ``k < min(n, d)``: the noise is seen only off the signal.

    Notes
    -----
    With fewer samples than coordinates, the zero eigenvalues count among the ``d - k`` discarded
    ones, as the likelihood demands. scikit-learn averages only the ``min(n, d) - k`` it computes,
    and divides by ``n - 1``.

    Book: section ``ppca``. Tipping and Bishop (1999).
    """
    check_samples(X, min_rows=2)
    n, d = X.shape
    check_count(k, "k", min(n, d) - 1, "min(n, d) - 1")
    W = working(X)
    fit = pca(W, k, center)
    # Summing the residual itself keeps digits that the difference total - kept would cancel.
    discarded = (W - fit.denoise(W)).square().sum() / n
    # What rounding alone leaves there grows with the errors of the components, and those with
    # the spread of the eigenvalues, up to where pca takes more precision.
    precision = torch.finfo(W.dtype).eps
    spread = (fit.eigenvalues[0] / fit.eigenvalues[-1]).clamp(max=precision ** (-1 / 3))
    rounding = fit.total_variance * spread * d * (8 * precision) ** 2
    noise = torch.where(discarded > rounding, discarded / (d - k), 0.0)
    parts = (fit.components, fit.eigenvalues, noise, fit.mean)
    return ProbabilisticPCA(*(part.to(X.dtype) for part in parts))


def shrink(eigenvalues: Tensor, noise_variance: float | Tensor) -> Tensor:
    """Return the Wiener factors ``lambda / (lambda + sigma^2)``: the best linear denoiser's gains.

    Parameters
    ----------
    eigenvalues : Tensor
        Variances of the *signal*, nonnegative, any shape. If you have the variances of noisy
        samples, subtract ``noise_variance`` first.
    noise_variance : float or Tensor
        Variance of the noise, nonnegative.

    Returns
    -------
    Tensor
        Factors between 0 and 1 in the shape of ``eigenvalues``; 0 where both variances are 0.

    Raises
    ------
    TypeError
        If ``eigenvalues`` is not a floating-point tensor.
    ValueError
        If a variance is negative or not finite.

    Notes
    -----
    Book: section ``ppca``. Wiener (1949).
    """
    check_tensor(eigenvalues, "eigenvalues")
    signal = working(eigenvalues)
    noise = torch.as_tensor(noise_variance, dtype=signal.dtype, device=signal.device)
    for name, value in (("eigenvalues", signal), ("noise_variance", noise)):
        if not (torch.isfinite(value) & (value >= 0)).all():
            raise ValueError(f"{name} must be nonnegative and finite, got {value.min().item()}")
    total = signal + noise
    return torch.where(total > 0, signal / total, 0.0).to(eigenvalues.dtype)
