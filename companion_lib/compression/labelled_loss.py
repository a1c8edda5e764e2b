"""The loss of MCR² for labels: value and gradient in few and large steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from companion_lib.kernels.autocast import without_autocast
from companion_lib.kernels.class_gram import inverse_permutation, segments
from companion_lib.kernels.gram import gram
from companion_lib.kernels.inverse_root import invert_
from companion_lib.kernels.log_det_gram import CHOLESKY


@without_autocast
def labelled_loss(
    Z: Tensor,
    labels: Tensor,
    scales: Tensor,
    weights: Tensor,
    again: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """Return ``Σₖ wₖ log det(I + aₖ Zₖᵀ Zₖ) + w log det(I + a ZᵀZ)``, or ``None`` out of range.

    Out of range is where Cholesky factors would lose digits (``CHOLESKY``), or ``Z`` is not finite.

    Parameters
    ----------
    Z : Tensor, (n, d)
    labels : Tensor, (n,)
        From 0 to k - 1, each at least once.
    scales, weights : Tensor, (k + 1,)
        ``aₖ`` and ``wₖ``, then ``a`` and ``w``. They get no gradient.
    again : callable
        The same loss as a function of ``Z``, which can be differentiated twice; called for second
        derivatives only.

    Notes
    -----
    By features, the Gram matrix of all samples is the sum of those of the classes. By samples,
    small classes make small matrices, but that sum is not to be had. Measured with ten classes and
    d = 128, 256 and 512: samples take half the time where the largest class has .45 d samples, the
    same time at .56 d, and 1.1 to 1.5 times as long from .77 d on.
    """
    scales, weights = scales.to(Z.dtype), weights.to(Z.dtype)
    order, counts = segments(labels, len(scales) - 1)
    form = _BySamples if 3 * max(counts) <= 2 * Z.shape[1] else _ByFeatures
    rows, place, *grams = form.prepare(Z.detach(), labels, order, counts)
    traces = torch.cat([S.diagonal(dim1=-2, dim2=-1).sum(-1).reshape(-1) for S in grams])
    low, high = CHOLESKY[Z.dtype]
    if not low <= (scales * traces).max().item() <= high:
        return None
    return form.apply(Z, rows, place, again, scales, weights, *grams)


class _ByFeatures(torch.autograd.Function):
    @staticmethod
    def prepare(Z, labels, order, counts):
        """Return the classes, as one padded batch or as a list, their places and Gram matrices."""
        if 4 * len(counts) * max(counts) <= 5 * len(Z):
            X, place = _padded(Z, labels, order, counts)
            pieces = (X,)
        else:
            pieces, place = Z.index_select(0, order).split(counts), inverse_permutation(order)
        grams = Z.new_empty(len(counts) + 1, Z.shape[1], Z.shape[1])
        for piece, target in zip(pieces, _parts(grams, pieces), strict=True):
            torch.matmul(piece.mT, piece, out=target)
        torch.sum(grams[:-1], 0, out=grams[-1])
        return pieces, place, grams

    @staticmethod
    def forward(ctx, Z, pieces, place, again, scales, weights, grams):
        log_dets, slopes = _log_dets_and_slopes(grams, scales, weights)
        slopes[:-1] += slopes[-1]
        ctx.save_for_backward(Z, place, slopes, *pieces)
        ctx.again = again
        return log_dets.sum()

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        Z, place, slopes, *pieces = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx.again, Z, grad), *(None,) * 6
        slopes = _parts(slopes, pieces)
        products = [piece @ slope for piece, slope in zip(pieces, slopes, strict=True)]
        product = torch.cat(products) if len(products) > 1 else products[0].reshape(-1, Z.shape[1])
        return product.index_select(0, place).mul_(grad), *(None,) * 6


class _BySamples(torch.autograd.Function):
    @staticmethod
    def prepare(Z, labels, order, counts):
        X, place = _padded(Z, labels, order, counts)
        return X, place, X @ X.mT, gram(Z if _is_tall(Z) else Z.T)

    @staticmethod
    def forward(ctx, Z, X, place, again, scales, weights, grams, whole):
        log_dets, slopes = _log_dets_and_slopes(grams, scales[:-1], weights[:-1])
        log_det, slope = _log_dets_and_slopes(whole, scales[-1], weights[-1])
        ctx.save_for_backward(Z, X, place, slopes, slope)
        ctx.again = again
        return log_dets.sum() + log_det

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        Z, X, place, slopes, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx.again, Z, grad), *(None,) * 7
        to_Z = (slopes @ X).flatten(0, 1).index_select(0, place)
        factors = (Z, slope) if _is_tall(Z) else (slope, Z)
        g = grad.item()
        return torch.addmm(to_Z, *factors, beta=g, alpha=g, out=to_Z), *(None,) * 7


def _padded(Z: Tensor, labels: Tensor, order: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Return the classes in a batch, with rows of zeros that log det does not see, and places."""
    shape = len(counts), max(counts)
    place = places_in_batch(labels, order, counts)
    X = Z.new_zeros(math.prod(shape), Z.shape[1]).index_copy_(0, place, Z)
    return X.unflatten(0, shape), place


def places_in_batch(labels: Tensor, order: Tensor, counts: list[int]) -> Tensor:
    """Return where each sample goes if every class is padded to the size of the largest.

    ``order`` sorts the samples by class, ``counts`` are the sizes of the classes.
    """
    starts = torch.tensor([0, *counts[:-1]], device=labels.device).cumsum(0)
    first = torch.arange(len(counts), device=labels.device) * max(counts)
    return inverse_permutation(order) + (first - starts)[labels]


def _parts(stack: Tensor, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the matrices of the classes, without that of all, one for each piece."""
    return (stack[:-1],) if pieces[0].ndim == 3 else stack[:-1].unbind()


def _log_dets_and_slopes(S: Tensor, a: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``w log det(I + a S)`` and ``2wa (I + a S)⁻¹``, the latter in the place of ``S``.

    The gradient of the rows of ``S`` is the slope times the rows. New memory is slow.
    """
    S *= a[..., None, None]
    S.diagonal(dim1=-2, dim2=-1).add_(1)
    log_dets = invert_(S)
    S *= (2 * weights * a)[..., None, None]
    return weights * log_dets, S


def _differentiable(loss: Callable[[Tensor], Tensor], Z: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(loss(Z), Z, grad, create_graph=True)[0]


def _is_tall(Z: Tensor) -> bool:
    return Z.shape[0] >= Z.shape[1]
