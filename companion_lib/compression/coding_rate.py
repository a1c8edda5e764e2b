"""Coding rates: how many nats a sample costs at precision ε, together and class by class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from companion_lib.compression.labelled_loss import labelled_loss, places_in_batch
from companion_lib.kernels import class_gram, log_det_gram
from companion_lib.kernels.class_gram import check_device, check_labels, is_hard
from companion_lib.kernels.dispatch import pick
from companion_lib.kernels.log_det_gram import (
    CHOLESKY,
    check_size,
    log_det_of_grams,
    log_det_of_rows,
    log_det_of_size,
)
from companion_lib.validation import check_positive, check_tensor, working


def coding_rate(Z: Tensor, eps: float | Tensor) -> Tensor:
    """Return the lossy coding rate ``R_ε(Z) = ½ log det(I + d/(n ε²) ZᵀZ)``, in nats per sample.

    It is the mutual information between a Gaussian with the samples' second moments and itself
    plus noise of total variance ε², ε²/d for each coordinate. It therefore bounds the
    rate-distortion function of every law with these second moments from above.

    Parameters
    ----------
    Z : Tensor, (..., n, d)
        Samples as rows, not centered here; leading axes are a batch of sample sets. Half
        precision is computed in float32.
    eps : float or Tensor, positive
        The precision ε itself, not ε²: the mean squared error of a *whole* sample is at most ε².
        A tensor broadcasts against the batch; several ε for one set share one factorization.

    Returns
    -------
    Tensor, the broadcast shape of the batch and ``eps``
        With the factor ½, natural logarithm; divide by ``math.log(2)`` for bits.

    Raises
    ------
    TypeError
        If ``Z`` is not a floating-point tensor.
    ValueError
        If ``Z`` is empty, has NaN or infinite entries, or ``eps`` is not positive.

    Notes
    -----
    Book: section ``gaussian-coding-rate``; its samples are columns.
    """
    _check_batch(Z)
    n, d = Z.shape[-2:]
    return log_det_gram(Z, _scale(d / n, check_eps(eps, _precise(Z)), Z)) / 2


def class_coding_rates(Z: Tensor, classes: Tensor, eps: float) -> Tensor:
    """Return ``R_ε(Z_k) = ½ log det(I + d/(n_k ε²) Zᵀ Πₖ Z)`` for every class, in nats per sample.

    Parameters
    ----------
    Z : Tensor, (n, d)
        Samples as rows. Half precision is computed in float32.
    classes : Tensor, (n,) or (n, k)
        Labels 0, ..., k - 1, or memberships: rows that are at least 0 and sum to one.
    eps : float, positive
        ε, not ε².

    Returns
    -------
    Tensor, (k,)
        Not weighted: the mean over samples is ``sum(n_k / n * rates)``.

    Raises
    ------
    TypeError
        If ``Z`` is not floating-point, or ``classes`` not a tensor of numbers.
    ValueError
        If a class is empty, a label out of range, memberships do not sum to one, ``eps`` is not
        positive, or there are NaN or infinite entries.

    Notes
    -----
    Book: section ``rate-reduction``, which writes ``R_ε(Z | Π)`` for the weighted mean. ``n_k`` is
    the sum of the memberships.
    """
    Z, classes, counts, eps = _checked(Z, classes, eps)
    return _rates(Z, classes, counts, _scale(Z.shape[1] / counts.double(), eps, Z))[0]


def rate_reduction(Z: Tensor, classes: Tensor, eps: float) -> Tensor:
    """Return ``ΔR_ε = R_ε(Z) - Σ (n_k / n) R_ε(Z_k)``, in nats per sample.

    What knowing the class saves. Never negative, because log det is concave; zero exactly if all
    classes have the same second moments. It grows with the scale of ``Z``, so compare
    representations of equal norm. It is not an estimate of ``I(z; y)``: it may exceed ``H(y)``.

    Parameters
    ----------
    Z : Tensor, (n, d)
    classes : Tensor, (n,) or (n, k)
        Labels or memberships; see ``class_coding_rates``, also for errors.
    eps : float, positive
        ε, not ε². (The published code of MCR² calls ε² ``eps``.)

    Returns
    -------
    Tensor, ()
        With the factor ½ of the coding rate. Half precision is computed in float32.

    Notes
    -----
    Labels cost ``n d²`` multiply-adds and ``k + 1`` Cholesky factors; the gradient as much again.
    Classes smaller than ``d`` are coded from their own, smaller Gram matrices. Extra memory:
    ``O(k d² + n d)``.

    Book: section ``rate-reduction``; Yu, Chan, You, Song and Ma (2020), "Learning Diverse and
    Discriminative Representations via the Principle of Maximal Coding Rate Reduction".
    """
    return -mcr2_loss(Z, classes, eps)


def mcr2_loss(
    Z: Tensor, classes: Tensor, eps: float, gamma1: float = 1.0, gamma2: float = 1.0
) -> Tensor:
    """Return ``Σ (n_k / n) R_ε(Z_k) - (1/γ₁) ½ log det(I + γ₂ d/(n ε²) ZᵀZ)``, to be minimized.

    With the defaults it is ``-rate_reduction(Z, classes, eps)``. Unsupervised learning, where the
    views of one image are a class, takes ``γ₁ = γ₂ = k``, the number of images.

    Parameters
    ----------
    Z : Tensor, (n, d)
    classes : Tensor, (n,) or (n, k)
        Labels or memberships; see ``class_coding_rates``, also for errors.
    eps : float, positive
        ε, not ε².
    gamma1, gamma2 : float, positive
        In the published code ``gam1`` is γ₂ and ``gam2`` is 1/γ₁.

    Returns
    -------
    Tensor, ()
        In nats per sample, with the factor ½. Half precision is computed in float32.

    Notes
    -----
    Book: sections ``rate-reduction`` and ``unsupervised-image-representations``.
    """
    check_positive(gamma1, "gamma1")
    check_positive(gamma2, "gamma2")
    Z, classes, counts, eps = _checked(Z, classes, eps)
    n, d = Z.shape
    scales, a = _scale(d / counts.double(), eps, Z), _scale(gamma2 * d / n, eps, Z)
    shares = counts.double() / n

    def loss(Z: Tensor) -> Tensor:
        rates, whole = _rates(Z, classes, counts, scales, a)
        return (shares.to(rates.dtype) * rates).sum() - whole / gamma1

    quick = None
    if is_hard(classes) and not eps.requires_grad and pick("mcr2_loss", Z, triton=False) == "fast":
        weights = torch.cat([shares, shares.new_tensor([-1 / gamma1])]) / 2
        quick = labelled_loss(Z, classes, torch.cat([scales, a[None]]), weights, again=loss)
    return loss(Z) if quick is None else quick


def _rates(
    Z: Tensor, classes: Tensor, counts: Tensor, scales: Tensor, a: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return ``½ log det(I + aₖ Zᵀ Πₖ Z)`` of every class, and, given ``a``, of all.

    Labels of small classes are padded with zero rows to one batch, which log det does not see;
    the Gram matrices are then those of the samples. Otherwise they are those of the features, and
    their sum that of all samples.
    """
    hard = is_hard(classes)
    size = _size(Z, classes, scales, a)
    low, high = CHOLESKY[Z.dtype]
    if Z.dtype == torch.float32 and not low <= size <= high:
        members = classes if hard else classes.double()
        results = _rates(Z.double(), members, counts, scales, a)
        return tuple(x if x is None else x.to(Z.dtype) for x in results)
    largest = int(counts.max()) if hard else len(Z)
    grams = None
    if hard and 20 * largest <= 19 * Z.shape[1]:  # measured: beyond, features cost less
        rates = log_det_of_size(_padded(Z, classes, counts), scales, size)
    else:
        grams = class_gram(Z, classes, len(counts) if hard else None)
        rates = (
            _drowned(Z, classes, grams, scales) if size > high else log_det_of_grams(grams, scales)
        )
    if a is None:
        return rates / 2, None
    shared = hard and grams is not None and size <= high
    whole = log_det_of_grams(grams.sum(0), a) if shared else log_det_of_size(Z, a, size)
    return rates / 2, whole / 2


def _size(Z: Tensor, classes: Tensor, scales: Tensor, a: Tensor | None) -> float:
    """Return the largest ``a tr ZᵀΠZ``, before any Gram matrix is made that might lose digits."""
    energies = torch.linalg.vector_norm(Z.detach(), dim=1).square()
    if is_hard(classes):
        traces = energies.new_zeros(len(scales)).index_add_(0, classes, energies)
    else:
        traces = (classes.detach() * energies[:, None]).sum(0)
    if a is not None:
        traces, scales = torch.cat([traces, energies.sum()[None]]), torch.cat([scales, a[None]])
    return check_size(scales, traces, Z, "Z")


def _drowned(Z: Tensor, classes: Tensor, grams: Tensor, scales: Tensor) -> Tensor:
    """Return log det of every class from its rows, whose Gram matrix has lost too much."""
    members = one_hot(classes) if is_hard(classes) else classes.detach()
    rows = [(Z.detach() * column.sqrt()[:, None])[column > 0] for column in members.T]
    return torch.stack(list(map(log_det_of_rows, grams, scales, rows)))


def _padded(Z: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the classes as one batch (k, largest, d), with zero rows below the shorter ones."""
    sizes = counts.tolist()
    place = places_in_batch(labels, torch.argsort(labels, stable=True), sizes)
    shape = len(sizes), max(sizes)
    return _Scatter.apply(Z, place, math.prod(shape)).unflatten(0, shape)


class _Scatter(torch.autograd.Function):
    """Rows to distinct places among zeros; back, a gather (autograd's own would accumulate)."""

    @staticmethod
    def forward(ctx, Z, place, rows):
        ctx.save_for_backward(place)
        return Z.new_zeros(rows, Z.shape[1]).index_copy_(0, place, Z)

    @staticmethod
    def backward(ctx, grad):
        (place,) = ctx.saved_tensors
        return grad.index_select(0, place), None, None


def check_eps(eps: float | Tensor, like: Tensor) -> Tensor:
    """Return ``eps`` as a tensor like ``like``, if it is positive and finite."""
    eps = torch.as_tensor(eps, dtype=like.dtype, device=like.device)
    low, high = (end.item() for end in torch.aminmax(eps.detach())) if eps.numel() else (0, 0)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"eps must be positive and finite, got {eps.tolist()}")
    return eps


def check_one_eps(eps: float | Tensor, like: Tensor) -> Tensor:
    """Return ``eps`` as ``check_eps`` does, if it is a single number."""
    eps = check_eps(eps, like)
    if eps.ndim:
        raise ValueError(f"eps must be one number, got shape {tuple(eps.shape)}")
    return eps


def check_filled(labels: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return ``n`` labels and the sizes of their classes, if none from 0 to the last is empty."""
    check_labels(labels, n, None)
    counts = torch.bincount(labels.long())
    if not counts.all():
        empty = int((counts == 0).nonzero()[0])
        raise ValueError(f"every class needs a sample, but there is none with label {empty}")
    return labels.long(), counts


def _check_batch(Z: Tensor) -> None:
    check_tensor(Z, "Z", finite=False)  # whether it is finite, the kernel sees from its result
    if Z.ndim < 2:
        raise ValueError(f"Z must be (n, d) or a batch of those, got shape {tuple(Z.shape)}")


def _checked(Z: Tensor, classes: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return samples, classes, the sizes of the classes and ε, all fit to compute with."""
    Z = working(check_tensor(Z, "Z", ndim=2, finite=False))  # the kernels see that in a trace
    hard = is_hard(classes)
    check_device(classes, Z)
    if hard:
        classes, counts = check_filled(classes, len(Z))
    else:
        _check_memberships(classes, len(Z))
        classes = classes.to(Z.dtype)
        counts = classes.sum(0)
    return Z, classes, counts, check_one_eps(eps, _precise(Z))


def _precise(like: Tensor) -> Tensor:
    """Return an example of the dtype for ε, whose square may not be a number in float32."""
    return like.new_empty(0, dtype=torch.float64)


def _scale(ratio: Tensor | float, eps: Tensor, like: Tensor) -> Tensor:
    """Return ``ratio / ε²`` if the dtype that ``like`` is computed in has such a number."""
    a, dtype = ratio / eps.square(), working(like).dtype
    if not (a.detach() <= torch.finfo(dtype).max).all():
        raise ValueError(f"eps is too small: d / (n eps²) overflows {dtype}, got {eps.tolist()}")
    return a


def _check_memberships(memberships: Tensor, n: int) -> None:
    check_tensor(memberships, "memberships", ndim=2)
    if len(memberships) != n:
        raise ValueError(
            f"memberships must have {n} rows, one for each sample, "
            f"got shape {tuple(memberships.shape)}"
        )
    if (memberships.detach() < 0).any():
        low = memberships.detach().min().item()
        raise ValueError(f"memberships must be at least 0, got {low:.4g}")
    sums = working(memberships.detach()).sum(1)
    off = (sums - 1).abs().max().item()
    if off > max(4 * torch.finfo(memberships.dtype).eps, 1e-5):  # rounded once, or summed
        row = int((sums - 1).abs().argmax())
        raise ValueError(
            f"memberships must sum to one in each row, got {sums[row]:.6g} in row {row}"
        )
    totals = working(memberships.detach()).sum(0)
    if not (totals > 0).all():
        raise ValueError(f"every class needs a sample, but class {int(totals.argmin())} has none")
