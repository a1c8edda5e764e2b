"""The best denoiser of a finite data set: an average of its samples, and so a memory of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from companion_lib.denoising.gaussian_mixture import check_level
from companion_lib.kernels import softmax_mean
from companion_lib.validation import check_like, check_tensor, working

FAR = 100.0  # squared mean over variance, from which on rounding is worth a centered copy


def empirical_denoiser(X: Tensor, process) -> Callable[[Tensor, float | Tensor], Tensor]:
    """Return the denoiser with the least mean squared error on the samples ``X`` themselves.

    The samples are a mixture of Gaussians without covariance, so the conditional mean given
    ``x_t = α x + σ g`` is an average of all of them,

        E[x | x_t] = Σᵢ softmaxᵢ(-‖x_t - α xᵢ‖² / (2 σ²)) xᵢ,

    attention with the samples as keys and values. A sampler that follows it to ``σ → 0`` ends at
    a sample.

    Parameters
    ----------
    X : Tensor, (N, ...)
        One sample for each entry of the first axis. It is not copied: do not change it.
    process
        Has ``alpha(t)`` and ``sigma(t)``.

    Returns
    -------
    Callable
        ``denoise(x_t, t)`` for ``x_t`` ``(n, ...)`` and ``t`` a number or a tensor, ``()`` or
        ``(n,)``. With ``alpha = 0`` it returns the mean of the samples; however small sigma is,
        nothing overflows. Derivatives with respect to ``x_t`` go through it by
        ``torch.autograd``, as they do through ``softmax_mean`` (not by ``torch.func``).

    Raises
    ------
    TypeError
        If ``X`` or ``x_t`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or not finite, ``x_t`` has other axes or another dtype or NaN, or, when
        called, ``sigma`` is zero: then there is nothing to average.

    Notes
    -----
    Two matrix products, ``2 n N d`` multiply-adds, in blocks: of all ``n N`` weights only half a
    million at a time are there. Data whose mean is more than ten standard deviations from zero
    are copied and centered, for the digits that their products would lose; half precision is
    copied to float32.

    Book: section ``memorization-and-generalization``.
    """
    check_tensor(X, "X")
    if X.ndim < 2:
        raise ValueError(f"X must have samples along its first axis, got shape {tuple(X.shape)}")
    keys, shape = working(X).flatten(1), X.shape[1:]
    center = keys.mean(0)
    squares = _squares(keys)
    far = (len(keys) * center.square().sum() * (1 + FAR) > FAR * squares.sum()).item()
    if far:
        keys = keys - center
        squares = _squares(keys)
    else:
        center = torch.zeros_like(center)
    bias, radius, precision = -squares / 2, squares.max().sqrt(), torch.finfo(keys.dtype)

    def denoise(x_t: Tensor, t: float | Tensor) -> Tensor:
        check_tensor(x_t, "x_t")
        x = check_like(working(x_t), "x_t", (len(x_t), *shape), keys).flatten(1)
        alpha = check_level(process.alpha(t), "alpha", x)
        sigma = check_level(process.sigma(t), "sigma", x)
        if not (sigma.detach() > 0).all():
            raise ValueError("sigma must be positive for an average of samples, got 0")
        # At this floor the weights are equal up to rounding, as they are with alpha = 0.
        floor = alpha.clamp(min=precision.tiny**0.5)
        queries = (x - alpha[:, None] * center) / floor[:, None]
        # Where exponents are as large as numbers can be, the nearest sample has long won.
        length = queries.detach().abs().amax(1) * queries.shape[1] ** 0.5
        largest = radius * (length + radius)
        ceiling = 0.1 * precision.max / largest.clamp(min=1)
        scale = torch.minimum((floor / sigma).square().clamp(min=precision.tiny), ceiling)
        mean = softmax_mean(queries, keys, keys, bias, scale) + center
        return mean.unflatten(1, shape).to(x_t.dtype)

    return denoise


def _squares(keys: Tensor) -> Tensor:
    """Return the squared length of every sample, without a copy of them all."""
    return torch.linalg.vector_norm(keys, dim=1).square()
