"""Clustering by compression: merge the two groups that are cheapest to code together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from companion_lib.compression.coding_rate import check_one_eps
from companion_lib.validation import check_count, check_samples

NUMBERS = 2**20  # in the matrices of the pairs of groups that are looked at together


@dataclass(frozen=True, eq=False, repr=False)
class CodingLengthClustering:
    """The path of merges from ``cluster_by_coding_length``, and where it stopped being worth it.

    Attributes
    ----------
    labels : Tensor, (n,)
        Clusters 0, 1, ... at the stop, the largest first. On the device of the samples, as
        ``start`` and the result of ``labels_after``; ``merges`` and ``lengths`` are on the CPU.
    steps : int
        Merges up to the stop: the first at which no merge shortens the code.
    merges : Tensor, (g - 1, 2)
        All merges from ``g`` groups down to one: the second group joins the first. A group is
        named by the smallest of the starting groups that it contains.
    lengths : Tensor, (g,)
        Total coding length in nats before the first merge and after each, float64.
    start : Tensor, (n,)
        The groups at the beginning.
    """

    labels: Tensor
    steps: int
    merges: Tensor
    lengths: Tensor
    start: Tensor

    @property
    def length(self) -> float:
        """Total coding length at the stop, in nats."""
        return self.lengths[self.steps].item()

    def labels_after(self, steps: int) -> Tensor:
        """Return the clusters after that many merges, the largest first."""
        check_count(steps, "steps", len(self.merges), "number of merges", low=0)
        return _labels(self.start.cpu(), self.merges[:steps]).to(self.labels.device)

    def __repr__(self) -> str:
        clusters = len(self.lengths) - self.steps
        return f"CodingLengthClustering({clusters} clusters of {len(self.labels)} samples)"


def coding_length(X: Tensor, labels: Tensor, eps: float, overhead: bool = True) -> Tensor:
    """Return the nats that code all samples group by group, and who is in which group.

    ``Σ_k (n_k + d) R_ε(X_k) + n_k log(n / n_k)`` with ``R_ε(X) = ½ log det(I + d/(n ε²) XᵀX)``.
    The first term is ``n_k R_ε(X_k)`` where ``overhead`` is False: the ``d`` more pay for the
    group's basis.

    Parameters
    ----------
    X : Tensor, (n, d)
        Samples as rows of any floating dtype; subspaces go through the origin.
    labels : Tensor, (n,)
        Groups as integers.
    eps : float, positive
        ε, not ε².
    overhead : bool
        Whether the code pays for describing each group's subspace.

    Returns
    -------
    Tensor, (), float64
        In nats, for all samples together. Without a gradient.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or has NaN, the labels do not fit, ``eps`` is not positive, or an entry
        of ``X / eps`` exceeds 1e150.

    Notes
    -----
    Computed from triangular factors of the samples, in float64 on the CPU. Rounding is about 1e-16
    of the longest sample over ε in each ``R_ε``: 1e-8 nats for points of unit length and an ε of
    1e-8.

    Book: section ``clustering-gaussians``; Ma, Derksen, Hong and Wright (2007), "Segmentation of
    Multivariate Mixed Data via Lossy Data Coding and Compression".
    """
    samples = _in_units(X, eps)
    _check_groups(labels, "labels", X)
    groups, counts = np.unique(labels.cpu().numpy(), return_inverse=True, return_counts=True)[1:]
    lengths = _lengths(_factors(samples, groups, counts), counts, len(X), overhead)
    return torch.tensor(lengths.sum(), device=X.device)


def cluster_by_coding_length(
    X: Tensor, eps: float, overhead: bool = True, start: Tensor | None = None
) -> CodingLengthClustering:
    """Cluster samples by pairwise steepest descent on their coding length.

    Starts from single samples and always merges the pair of groups that shortens the code most,
    until no merge does. Neither the number of clusters nor their dimensions are given: they
    follow from the precision ε. Lengths are in nats, with the factor ½ of the coding rate.

    Parameters
    ----------
    X : Tensor, (n, d)
        Samples as rows of any floating dtype, computed in float64; subspaces go through the origin.
    eps : float, positive
        ε, not ε².
    overhead : bool
        Which length counts, see ``coding_length``. True is the form behind the published figures;
        False is the one in the book's algorithm, under which a merge saves membership only.
    start : Tensor, (n,), optional
        Groups to start from, such as superpixels, as integers; every sample by itself if not given.

    Returns
    -------
    CodingLengthClustering
        The whole path to one cluster, and the clusters at the stop. Without a gradient.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or has NaN, ``start`` does not fit, ``eps`` is not positive, or an entry
        of ``X / eps`` exceeds 1e150.

    Notes
    -----
    Greedy, so the stop may be far from the optimum. From ``g`` groups: ``g²/2`` log-dets at first
    and at most ``g`` for every merge, ``O(g² d³)`` operations in all, on the CPU. In memory: the
    samples, ``g²`` savings, ``g d²`` for the groups, and a few million numbers for the pairs at
    work.

    Exact as far as ``coding_length`` is: savings of less than its error are noise.

    Book: section ``clustering-gaussians``.
    """
    samples = _in_units(X, eps)
    if start is None:
        groups = torch.arange(len(X))
    else:
        _check_groups(start, "start", X)
        groups = start.cpu().unique(return_inverse=True)[1]
    counts = groups.bincount().numpy()
    search = _Search(_factors(samples, groups.numpy(), counts), counts, overhead)
    merges, saved = search.run()
    lengths = search.total - torch.tensor([0.0, *saved], dtype=torch.float64).cumsum(0)
    rises = [i for i, gain in enumerate(saved) if gain <= 0]
    steps = rises[0] if rises else len(saved)
    merges = torch.tensor(merges, dtype=torch.long).reshape(-1, 2)
    labels = _labels(groups, merges[:steps]).to(X.device)
    return CodingLengthClustering(labels, steps, merges, lengths, groups.to(X.device))


class _Search:
    """Groups, their lengths, and for each pair the nats that merging it would save.

    In numpy, on the CPU wherever the data live: thousands of steps, each on a few hundred small
    matrices, where what counts is the time that a call takes before it computes anything.
    """

    def __init__(self, factors: np.ndarray, counts: np.ndarray, overhead: bool):
        self.factors, self.counts = factors, counts
        self.code = (int(counts.sum()), overhead)
        self.lengths = _lengths(factors, counts, *self.code)
        self.total = self.lengths.sum()
        g = len(factors)
        self.alive = np.ones(g, dtype=bool)
        self.savings = np.full((g, g), -np.inf)
        i, j = np.triu_indices(g, 1)
        self.savings[i, j] = self._saving(i, j)

    def _saving(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        d = self.factors.shape[2]
        factors = self.factors[:, : self.counts.max()]  # rows further down are zero
        counts = self.counts[i] + self.counts[j]
        together = np.empty(len(i))
        pairs = max(1, NUMBERS // (2 * factors.shape[1] * d))
        for start in range(0, len(i), pairs):
            part = slice(start, start + pairs)
            merged = np.concatenate([factors[i[part]], factors[j[part]]], 1)
            together[part] = _lengths(merged, counts[part], *self.code)
        return self.lengths[i] + self.lengths[j] - together

    def run(self) -> tuple[list[tuple[int, int]], list[float]]:
        """Merge down to one group; return the pairs and what each merge saved."""
        merges, saved = [], []
        partner = self.savings.argmax(1)  # of each row, and what it saves: kept up to date
        best = self.savings.max(1)
        for _ in range(len(self.factors) - 1):
            i = int(best.argmax())
            j = int(partner[i])
            merges.append((i, j))
            saved.append(float(best[i]))
            self._merge(i, j)
            # Rows above i have a new value in column i; a row that had its best there or in
            # column j, or is row i or j, is searched again.
            better = self.savings[:, i] > best
            best[better], partner[better] = self.savings[better, i], i
            stale = ((partner == i) & ~better) | (partner == j)
            stale[[i, j]] = True
            rows = self.savings[stale]
            best[stale], partner[stale] = rows.max(1), rows.argmax(1)
        return merges, saved

    def _merge(self, i: int, j: int) -> None:
        self.factors[i] = _factor(self.factors[[i, j]].reshape(-1, self.factors.shape[2]))
        self.counts[i] += self.counts[j]
        self.lengths[[i]] = _lengths(self.factors[[i]], self.counts[[i]], *self.code)
        self.alive[j] = False
        self.savings[j] = self.savings[:, j] = -np.inf
        others = self.alive.nonzero()[0]
        others = others[others != i]
        savings = self._saving(others, np.full_like(others, i))
        self.savings[np.minimum(others, i), np.maximum(others, i)] = savings


def _lengths(factors: np.ndarray, counts: np.ndarray, n: int, overhead: bool) -> np.ndarray:
    d = factors.shape[-1]
    rates = _log_det(factors * np.sqrt(d / counts)[:, None, None]) / 2
    return (counts + d * overhead) * rates + counts * np.log(n / counts)


def _log_det(B: np.ndarray) -> np.ndarray:
    """Return ``log det(I + BᵀB)`` of many small matrices, by elimination across the whole batch.

    With ``b`` the first column and ``p² = 1 + ‖b‖²``, what is left to the others is
    ``I + Cᵀ(I - bbᵀ/p²)C``, and ``I - bbᵀ/(p² + p)`` is the root of the matrix in between. So
    products ``BᵀB`` are never formed, in which the one would drown. LAPACK takes matrices one by
    one, which for thousands of 3 × 3 is much slower.
    """
    B = np.ascontiguousarray(B.transpose(2, 1, 0))  # columns, rows, batch
    total = np.zeros(B.shape[2])
    while len(B):
        b, B = B[0], B[1:]
        energy = (b * b).sum(0)
        total += np.log1p(energy)
        pivot = np.sqrt(1 + energy)
        B = B - (B * b).sum(1, keepdims=True) / (pivot * (pivot + 1)) * b
    return total


def _factors(X: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return for each group a triangular ``R`` with ``RᵀR = XₖᵀXₖ``, ``(g, d, d)``."""
    parts = np.split(X[groups.argsort(kind="stable")], counts.cumsum()[:-1])
    return np.stack([_factor(part) for part in parts])


def _factor(X: np.ndarray) -> np.ndarray:
    R = np.zeros((X.shape[1], X.shape[1]))
    R[: len(X)] = np.linalg.qr(X, mode="r")
    return R


def _labels(start: Tensor, merges: Tensor) -> Tensor:
    """Return the clusters after some merges, numbered from the largest to the smallest."""
    parent = list(range(int(start.max()) + 1))
    for i, j in merges.tolist():
        parent[j] = i
    for j in range(len(parent)):
        while parent[j] != parent[parent[j]]:
            parent[j] = parent[parent[j]]
    roots, labels = torch.tensor(parent)[start].unique(return_inverse=True)
    order = torch.bincount(labels, minlength=len(roots)).argsort(descending=True, stable=True)
    return torch.argsort(order)[labels]


def _in_units(X: Tensor, eps: float) -> np.ndarray:
    """Return ``X / eps`` in float64 on the CPU, if both are in order."""
    check_samples(X)
    eps = check_one_eps(eps, torch.empty(0, dtype=torch.float64)).item()
    X = X.detach().cpu().double().numpy()
    largest = np.abs(X).max()
    if largest / 1e150 > eps:  # squares have to stay in range
        raise ValueError(f"eps must be at least 1e-150 of the largest entry of X, got {eps}")
    return X / eps


def _check_groups(labels: Tensor, name: str, X: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.shape != (len(X),) or labels.is_floating_point():
        given = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else labels
        raise ValueError(f"{name} must be {len(X)} integers, one for each row, got {given!r:.60}")
