"""Principal component analysis: the best linear encoder and decoder of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.linalg
import torch
from torch import Tensor

from companion_lib.validation import check_count, check_features, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class PCA:
    """Principal components of a data set, and the projection onto them.

    Attributes
    ----------
    components : Tensor, shape (k, d)
        Orthonormal rows, by falling variance (the transpose of the book's ``U``).
    eigenvalues : Tensor, shape (k,)
        Variance along each component.
    total_variance : Tensor, shape ()
        Sum of all eigenvalues, kept and discarded.
    mean : Tensor, shape (d,)
        What was subtracted from the samples; zeros if they were not centered.
    """

    components: Tensor
    eigenvalues: Tensor
    total_variance: Tensor
    mean: Tensor

    def encode(self, X: Tensor) -> Tensor:
        """Return the coordinates ``(n, k)`` of samples ``X`` ``(n, d)``: the book's ``U^T x``."""
        check_features(X, self.mean)
        Z = (working(X) - self.mean) @ working(self.components).T
        return Z.to(X.dtype)

    def decode(self, Z: Tensor) -> Tensor:
        """Return the points ``(n, d)`` with coordinates ``Z`` ``(n, k)``: the book's ``U z``."""
        check_features(Z, self.eigenvalues, "Z")
        return (working(Z) @ working(self.components) + self.mean).to(Z.dtype)

    def denoise(self, X: Tensor) -> Tensor:
        """Return the projection of ``X`` onto the principal subspace: encode, then decode."""
        return self.decode(self.encode(X))

    def __repr__(self) -> str:
        k, d = self.components.shape
        return f"PCA(k={k}, d={d})"


def pca(X: Tensor, k: int, center: bool = True) -> PCA:
    """Return the ``k`` directions of largest variance of the samples ``X``.

    Among all subspaces of dimension ``k``, theirs has the least mean squared distance to the
    samples, and that distance is the sum of the discarded eigenvalues of

        S = (X - mean)^T (X - mean) / n        (the book's X X^T / N).

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows (the book has them as columns).
    k : int
        Number of components, between 1 and ``min(n, d)``.
    center : bool
        Subtract the mean first. With ``False``, ``S`` is the second-moment matrix, as in the book.

    Returns
    -------
    PCA
        In the dtype of ``X``. Each component's entry of largest magnitude is positive.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor or ``k`` not an integer.
    ValueError
        If ``X`` is not a finite matrix, has too few rows (one, or two when centering), or ``k``
        is out of range.

    Notes
    -----
    The eigenvectors come from the Gram matrix of the smaller side of ``X``, so nothing of size
    ``n x n`` is formed when ``n > d``. Squaring the data costs digits: the Gram matrix knows an
    eigenvalue only to about ``eps`` times the largest, so singular values below ``sqrt(eps)``
    times the largest (1e-8 in float64, 3e-4 in float32) drown. When the last eigenvalue asked for
    is below ``eps**(1/3)`` of the first, float32 data get a Gram matrix in float64, which knows
    more digits than they have, and float64 data the slower singular value decomposition. Either
    way its relative error is of order ``eps**(2/3)`` or less as long as the data determine it.
    Rank-deficient data give eigenvalues near zero and orthonormal components.

    Half precision is computed in float32; variances beyond the range of float16 come out infinite.

    Book: section ``pca``.

    Examples
    --------
    >>> X = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> pca(X, 1).eigenvalues
    tensor([4.5000])
    """
    check_samples(X, min_rows=2 if center else 1)
    n, d = X.shape
    check_count(k, "k", min(n, d), "min(n, d)")
    W = working(X)
    mean = W.mean(0) if center else W.new_zeros(d)
    W = W - mean
    components, squares = _leading(W, k)
    total = W.square().sum() / n
    parts = (_fix_signs(components), squares / n, total, mean)
    return PCA(*(part.to(X.dtype) for part in parts))


def _leading(W: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` leading right singular vectors (rows) and squared singular values."""
    gram = _gram(W if _tall(W) else W.T)
    if torch.isfinite(gram).all():
        values, vectors = _top_eigenpairs(gram, k)
        precision = torch.finfo(W.dtype)
        if values[-1] > max(precision.eps ** (1 / 3) * values[0], precision.tiny / precision.eps):
            return _rows(W, vectors), values
    if W.dtype == torch.float32 and not W.is_mps:  # MPS has no float64
        precise = W.double()
        values, vectors = _top_eigenpairs(_gram(precise if _tall(W) else precise.T), k)
        return _rows(precise, vectors).float(), values.clamp(min=0).float()
    _, singular, rows = torch.linalg.svd(W, full_matrices=False)
    return rows[:k], singular[:k].square()


def _tall(W: Tensor) -> bool:
    return W.shape[0] >= W.shape[1]


def _rows(W: Tensor, vectors: Tensor) -> Tensor:
    """Return right singular vectors as rows, from the eigenvectors of the smaller Gram matrix."""
    if _tall(W):
        return vectors.T
    # Dividing by the singular values would leave the rows orthogonal only to rounding times the
    # condition number; QR restores them.
    return torch.linalg.qr(W.T @ vectors).Q.T


def _gram(W: Tensor, block: int = 256) -> Tensor:
    """Return ``W^T W``, computing each pair of column blocks once: half the work of ``W.T @ W``."""
    d = W.shape[1]
    if d <= block:
        return W.T @ W
    left, right = W[:, : d // 2], W[:, d // 2 :]
    corner = left.T @ right
    top = torch.cat([_gram(left, block), corner], 1)
    return torch.cat([top, torch.cat([corner.T, _gram(right, block)], 1)])


def _top_eigenpairs(S: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest eigenvalues, falling, and their eigenvectors as columns."""
    d = len(S)
    if S.is_cpu and not S.requires_grad and 4 * k < d:
        # LAPACK can stop after the wanted vectors, about twice as fast; torch does not expose it.
        found = scipy.linalg.eigh(S.numpy(), subset_by_index=[d - k, d - 1], check_finite=False)
        values, vectors = map(torch.from_numpy, found)
    else:
        values, vectors = (part[..., -k:] for part in torch.linalg.eigh(S))
    return values.flip(0), vectors.flip(1)


def _fix_signs(rows: Tensor) -> Tensor:
    """Flip rows so that the entry of largest magnitude in each is positive."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
