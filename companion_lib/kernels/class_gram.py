"""Class-weighted Gram matrices Zᵀ Πₖ Z, all at once and never an n × n membership matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from companion_lib.kernels.autocast import without_autocast
from companion_lib.kernels.dispatch import pick


@without_autocast
def class_gram(Z: Tensor, classes: Tensor, k: int | None = None) -> Tensor:
    """Return ``Zᵀ diag(πₖ) Z`` for every class.

    Parameters
    ----------
    Z : Tensor, (n, d)
        Samples as rows. Half precision is computed in float32.
    classes : Tensor, (n,) or (n, k)
        Labels 0, ..., k - 1 as integers; or memberships as floating-point numbers, at least 0.
    k : int, optional
        Number of classes, for labels; the largest label plus one if not given.

    Returns
    -------
    Tensor, (k, d, d)
        Zero for a class without samples.

    Raises
    ------
    TypeError
        If ``Z`` is not floating-point, or ``classes`` is neither integer nor floating-point.
    ValueError
        If shapes do not fit, or a label is outside its range.

    Notes
    -----
    The book writes a class as a diagonal membership matrix ``Πₖ``, ``n × n``, and its Gram matrix
    as ``Z Πₖ Zᵀ`` with samples as columns: ``k (n² d + n d²)`` multiply-adds for dense ``Πₖ``.
    Labels: rows are sorted by class and each segment multiplied once, ``n d²`` together, one copy
    of ``Z`` and the result in memory. Memberships: ``k n d²``, the same memory. The gradient
    ``2 Σₖ πᵢₖ Sₖ' zᵢ`` costs as much again.

    *Triton*, for labels: one launch for all classes instead of k matrix products, ``n d² / 2``
    multiply-adds (tiles below the diagonal are mirrored), half precision on tensor cores from
    sm_80 on, rows gathered where they lie, so ``Z`` is not copied, and class sizes that never
    leave the GPU. One thing is waited for: the check of the labels brings the smallest and the
    largest back, together. The gradient is one more launch, ``n d²``, in float32 also for half
    precision, as its matrices are: no tensor cores.

    Book: section ``rate-reduction``; its samples are columns.
    """
    if not isinstance(Z, Tensor) or not Z.is_floating_point() or Z.ndim != 2 or Z.numel() == 0:
        given = f"{Z.dtype} {tuple(Z.shape)}" if isinstance(Z, Tensor) else type(Z).__name__
        error = ValueError if isinstance(Z, Tensor) and Z.is_floating_point() else TypeError
        raise error(f"Z must be a floating-point (n, d) tensor and not empty, got {given}")
    hard = is_hard(classes)
    check_device(classes, Z)
    if hard:
        k = check_labels(classes, len(Z), k)
    elif classes.ndim != 2 or len(classes) != len(Z):
        raise ValueError(
            f"classes must be labels (n,) or memberships (n, k) for n = {len(Z)}, "
            f"got shape {tuple(classes.shape)}"
        )
    double = "it takes float32 and half precision, got float64"
    form = pick("class_gram", Z, double if Z.dtype == torch.float64 else None, triton=hard)
    if form == "triton":
        from companion_lib.kernels.class_gram_triton import segment_grams

        return segment_grams(Z, classes, k)
    if Z.dtype in (torch.float16, torch.bfloat16):
        Z = Z.float()
    if form == "reference":
        weights = torch.nn.functional.one_hot(classes.long(), k) if hard else classes
        return _reference(Z, weights.to(Z.dtype))
    if hard:
        return grams_of_segments(Z, *segments(classes, k))
    return _SoftGram.apply(Z, classes.to(Z.dtype))


def is_hard(classes: Tensor) -> bool:
    """Tell labels (integers) from memberships (floating-point numbers)."""
    if not isinstance(classes, Tensor) or classes.is_complex():
        raise TypeError(f"classes must be a tensor of labels or memberships, got {classes!r:.60}")
    return not classes.is_floating_point()


def check_device(classes: Tensor, Z: Tensor) -> None:
    """Raise an error if labels or memberships are not where the samples are."""
    if classes.device != Z.device:
        raise ValueError(f"classes must be on {Z.device} like Z, got {classes.device}")


def check_labels(labels: Tensor, n: int, k: int | None) -> int:
    """Return the number of classes, if ``labels`` are ``n`` integers from 0 to ``k - 1``."""
    if labels.shape != (n,) or labels.dtype == torch.bool:
        raise ValueError(
            f"classes must be {n} integer labels, one for each row, or memberships ({n}, k), "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    low, high = torch.stack(torch.aminmax(labels.long())).tolist()  # on a GPU, one wait and not two
    k = high + 1 if k is None else k
    if low < 0 or high >= k:
        raise ValueError(f"labels must be from 0 to k - 1 = {k - 1}, got {low} to {high}")
    return k


def segments(labels: Tensor, k: int) -> tuple[Tensor, list[int]]:
    """Return the order that sorts the rows by class, and how many rows each class has."""
    labels = labels.long()
    return torch.argsort(labels, stable=True), torch.bincount(labels, minlength=k).tolist()


def inverse_permutation(order: Tensor) -> Tensor:
    """Return where each row came to lie in ``Z[order]``."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back


def grams_of_segments(Z: Tensor, order: Tensor, counts: list[int]) -> Tensor:
    """Return the Gram matrix of each segment of the rows ``Z[order]``."""
    return _HardGram.apply(_Sorted.apply(Z, order), counts)


def _reference(Z: Tensor, memberships: Tensor) -> Tensor:
    """The formula as the book writes it, with a dense diagonal matrix for each class."""
    return torch.stack([Z.T @ torch.diag(column) @ Z for column in memberships.T])


class _Sorted(torch.autograd.Function):
    """Rows in another order; the gradient goes back (autograd's own would add it to zeros)."""

    @staticmethod
    def forward(ctx, Z, order):
        ctx.save_for_backward(order)
        return Z.index_select(0, order)

    @staticmethod
    def backward(ctx, grad):
        (order,) = ctx.saved_tensors
        return grad.index_select(0, inverse_permutation(order)), None


class _HardGram(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, counts):
        ctx.save_for_backward(rows)
        ctx.counts = counts
        grams = rows.new_empty(len(counts), rows.shape[1], rows.shape[1])
        for segment, gram in zip(rows.split(counts), grams, strict=True):
            torch.mm(segment.T, segment, out=gram)
        return grams

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        pairs = list(zip(rows.split(ctx.counts), grad + grad.mT, strict=True))
        if torch.is_grad_enabled():  # autograd knows no out=
            return torch.cat([segment @ weight for segment, weight in pairs]), None
        product = torch.empty_like(rows)
        for (segment, weight), target in zip(pairs, product.split(ctx.counts), strict=True):
            torch.mm(segment, weight, out=target)
        return product, None


class _SoftGram(torch.autograd.Function):
    @staticmethod
    def forward(ctx, Z, memberships):
        grams = Z.new_empty(memberships.shape[1], Z.shape[1], Z.shape[1])
        weighted = torch.empty_like(Z)
        for column, gram in zip(memberships.T, grams, strict=True):
            torch.mul(Z, column[:, None], out=weighted)
            torch.mm(Z.T, weighted, out=gram)
        ctx.save_for_backward(Z, memberships)
        return grams

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        Z, memberships = ctx.saved_tensors
        to_Z, columns = torch.zeros_like(Z), []
        for column, weight in zip(memberships.T, grad, strict=True):
            product = Z @ (weight + weight.mT)
            to_Z = torch.addcmul(to_Z, product, column[:, None])
            if ctx.needs_input_grad[1]:
                columns.append((product * Z).sum(1) / 2)
        return to_Z, torch.stack(columns, 1) if columns else None
