"""Whitening: make the second moments of the data the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.validation import check_features, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class Whitening:
    """A symmetric whitening map ``x -> (x - mean) @ matrix``.

    Attributes
    ----------
    matrix : Tensor, shape (d, d)
        The symmetric positive definite :math:`(XX^\\top/n)^{-1/2}` of the book.
    inverse : Tensor, shape (d, d)
        Its inverse, the symmetric square root of the second moments.
    mean : Tensor, shape (d,)
        What is subtracted first; zero if the data were not centered.
    """

    matrix: Tensor
    inverse: Tensor
    mean: Tensor

    def apply(self, X: Tensor) -> Tensor:
        """Whiten samples ``X`` of shape (n, d)."""
        check_features(X, self.mean)
        return ((working(X) - self.mean) @ working(self.matrix)).to(X.dtype)

    def restore(self, Xw: Tensor) -> Tensor:
        """Undo ``apply``: map white samples (n, d) back to where the data live."""
        check_features(Xw, self.mean, "Xw")
        return (working(Xw) @ working(self.inverse) + self.mean).to(Xw.dtype)

    def __repr__(self) -> str:
        return f"Whitening(d={len(self.mean)})"


def whiten(X: Tensor, center: bool = True) -> Whitening:
    """Find the symmetric map that turns the second moments of ``X`` into the identity.

    With ``S = X^T X / n`` (the book's :math:`XX^\\top/N`, its samples being columns), the map
    is ``S^(-1/2)``. Among all whitening maps it moves the data least; it is also called ZCA.
    Whitened data that come from an orthogonal dictionary and independent codes come again from
    an orthogonal dictionary, up to the sampling error of ``S``.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    center : bool
        Subtract the mean first, so that the covariance becomes the identity.

    Returns
    -------
    Whitening
        With ``apply``, ``restore``, ``matrix``, ``inverse`` and ``mean`` in the dtype of ``X``.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or not finite, has one row only when centering, or if its rank is below
        ``d``.

    Notes
    -----
    Book: section ``ica``. The factor is ``1/n``, for codes of unit variance. The rank comes from
    the triangular factor of ``X``, not from ``S``, which would lose half of the digits.
    """
    check_samples(X, min_rows=2 if center else 1)
    n, d = X.shape
    data = working(X)
    mean = data.mean(0) if center else data.new_zeros(d)
    # Only the gradient needs Q.
    mode = "reduced" if data.requires_grad else "r"
    R = torch.linalg.qr((data - mean) / n**0.5, mode=mode).R
    _, scales, Vh = torch.linalg.svd(R)
    rank = int((scales > scales[0] * max(n, d) * torch.finfo(data.dtype).eps).sum())
    if rank < d:
        advice = f"; keep its first {rank} principal components first, with pca(X, k).encode(X)"
        raise ValueError(
            f"X must have full rank d = {d} to be whitened, got rank {rank}"
            f"{' after centering' if center else ''}{advice if rank else ''}"
        )
    matrix, inverse = (Vh.T / scales) @ Vh, (Vh.T * scales) @ Vh
    return Whitening(matrix.to(X.dtype), inverse.to(X.dtype), mean.to(X.dtype))
