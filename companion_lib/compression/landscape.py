"""Where rate reduction is largest: closed forms for its maximizers, free and regularized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.compression.coding_rate import rate_reduction
from companion_lib.data import random_orthogonal
from companion_lib.validation import check_count, check_positive, check_range, working

TINY = 1e-100  # the smallest eps, and the smallest share of the largest weight


def max_rate_reduction(
    class_sizes: Sequence[int], ranks: Sequence[int], d: int, eps: float
) -> float:
    """Return ΔR of orthogonal classes with equal singular values, in nats per sample.

    Class ``k`` spends its energy ``‖Z_k‖² = n_k`` evenly on ``r_k`` directions of its own. Each
    direction adds ``½ log(1 + d n_k/(n r_k ε²)) - (n_k/2n) log(1 + d/(r_k ε²))``.

    Parameters
    ----------
    class_sizes : sequence of int
        ``n_k``.
    ranks : sequence of int
        ``r_k``, from 1 to ``n_k``; their sum is at most ``d``.
    d : int
        Dimension of the features.
    eps : float, positive
        ε, not ε²; 1e-100 to 1e100, as in all of these closed forms.

    Raises
    ------
    ValueError
        If a number is out of range, or the subspaces do not fit into ``d`` dimensions.

    Notes
    -----
    The largest ΔR under these norms, over all representations whose classes have these ranks,
    if ε is small enough; see ``best_rank`` for what larger ε do.

    Book: section ``rate-reduction-landscape``.
    """
    _check_classes(class_sizes, ranks, d)
    _check_precision(eps)
    n = sum(class_sizes)
    total = 0.0
    for size, rank in zip(class_sizes, ranks, strict=True):
        whole = math.log1p(d * size / (n * rank * eps**2))
        apart = math.log1p(d / (rank * eps**2))
        total += rank / 2 * (whole - size / n * apart)
    return total


def best_rank(k: int, d: int, eps: float) -> int:
    """Return the rank per class that gives ``k`` equal classes the largest ΔR.

    Small ε asks for all the directions there are, ``d // k``; as ε grows, fewer and fewer. What
    they gain, in nats per sample with the factor ½, is ``max_rate_reduction``.

    Parameters
    ----------
    k : int
        Number of classes, at least 2: one class alone reduces nothing.
    d : int
        Dimension of the features, at least ``k``.
    eps : float, positive
        ε, not ε².

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """
    check_count(d, "d")
    check_count(k, "k", d, "d", low=2)
    ranks = range(1, d // k + 1)
    return max(ranks, key=lambda rank: max_rate_reduction([d] * k, [rank] * k, d, eps))


def optimal_representation(
    class_sizes: Sequence[int],
    ranks: Sequence[int],
    d: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return features that reach ``max_rate_reduction``: random ones of the many there are.

    Parameters
    ----------
    class_sizes, ranks, d
        As for ``max_rate_reduction``.
    generator : torch.Generator, optional
    dtype : torch.dtype

    Returns
    -------
    Z : Tensor, (n, d)
        Classes one after the other; class ``k`` has ``r_k`` singular values ``sqrt(n_k / r_k)``.
    labels : Tensor, (n,)

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """
    _check_classes(class_sizes, ranks, d)
    basis = random_orthogonal(d, generator, dtype)
    parts = []
    for size, rank, directions in zip(
        class_sizes, ranks, basis.split([*ranks, d - sum(ranks)]), strict=False
    ):
        codes = random_orthogonal(size, generator, dtype)[:, :rank]
        parts.append(math.sqrt(size / rank) * codes @ directions)
    labels = torch.arange(len(class_sizes), device=basis.device)
    return torch.cat(parts), labels.repeat_interleave(torch.tensor(class_sizes).to(labels.device))


def regularized_rate_reduction(Z: Tensor, classes: Tensor, eps: float, weight: float) -> Tensor:
    """Return ``ΔR_ε(Z) - λ/2 ‖Z‖²``: the norm is paid for instead of constrained.

    Parameters
    ----------
    Z, classes, eps
        As for ``rate_reduction``.
    weight : float, at least 0
        λ.

    Returns
    -------
    Tensor, ()
        In nats.

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """
    check_range(weight, "weight", 0)
    return rate_reduction(Z, classes, eps) - weight / 2 * working(Z).square().sum()


@dataclass(frozen=True)
class RegularizedOptimum:
    """The best direction of a class in the regularized problem.

    Attributes
    ----------
    energy : float
        ``s* = σ²``, the squared singular value at the local maximum.
    gain : float
        What such a direction adds to the objective, in nats. Where it is negative, no direction
        at all is better: ``Z = 0`` beats the local maximum.
    """

    energy: float
    gain: float


def largest_weight(class_size: int, n: int, d: int, eps: float) -> float:
    """Return the λ up to which the regularized problem has a maximizer other than zero.

    ``α (√α_k - √α) / (√α_k + √α)`` with ``α = d/(n ε²)`` and ``α_k = d/(n_k ε²)``.

    Parameters
    ----------
    class_size, n : int
        ``n_k`` and ``n > n_k``.
    d : int
    eps : float, positive
        ε, not ε².

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """
    whole, apart = _scales(class_size, n, d, eps)
    root, root_k = math.sqrt(whole), math.sqrt(apart)
    return whole * (root_k - root) / (root_k + root)


def regularized_optimum(
    class_size: int, n: int, d: int, eps: float, weight: float
) -> RegularizedOptimum:
    """Return the local maximum of ``½ log(1+αs) - (n_k/2n) log(1+α_k s) - λs/2`` over ``s > 0``.

    Setting the derivative to zero gives a quadratic; the maximum is its larger root.

    Parameters
    ----------
    class_size, n, d, eps
        As for ``largest_weight``.
    weight : float
        λ, from 1e-100 of ``largest_weight(class_size, n, d, eps)`` to all of it.

    Raises
    ------
    ValueError
        If a number is out of range, such as a λ so large that zero is the only maximum.

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """
    limit = largest_weight(class_size, n, d, eps)
    check_positive(weight, "weight")
    check_range(weight, "weight", TINY * limit, limit, "largest_weight")
    # In units in which α is one, where nothing overflows: s α, λ/α, and α_k/α = n/n_k.
    whole, apart = _scales(class_size, n, d, eps)
    weight, ratio = weight / whole, apart / whole
    linear = ratio - 1 - weight * (1 + ratio)
    root = math.sqrt(max(linear**2 - 4 * weight**2 * ratio, 0.0))
    s = (linear + root) / (2 * weight * ratio)
    gain = math.log1p(s) - class_size / n * math.log1p(ratio * s) - weight * s
    return RegularizedOptimum(s / whole, gain / 2)


def _scales(class_size: int, n: int, d: int, eps: float) -> tuple[float, float]:
    check_count(d, "d")
    check_count(n, "n", low=2)
    check_count(class_size, "class_size", n - 1, "n - 1")
    _check_precision(eps)
    return d / (n * eps**2), d / (class_size * eps**2)


def _check_precision(eps: float) -> None:
    check_positive(eps, "eps")
    check_range(eps, "eps", TINY, 1 / TINY)  # 1/ε² has to stay in range


def _check_classes(class_sizes: Sequence[int], ranks: Sequence[int], d: int) -> None:
    check_count(d, "d")
    if len(class_sizes) != len(ranks) or not len(ranks):
        raise ValueError(f"class_sizes and ranks must be as many, got {class_sizes} and {ranks}")
    for size, rank in zip(class_sizes, ranks, strict=True):
        check_count(size, "class_sizes")
        check_count(rank, "ranks", size, "the size of its class")
    check_range(sum(ranks), "the sum of ranks", 1, d, "d")
