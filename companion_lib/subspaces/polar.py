"""The nearest orthogonal matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from companion_lib.validation import check_tensor, working


@torch.no_grad()
def polar(M: Tensor) -> Tensor:
    """Return the orthogonal polar factor of ``M``: the nearest matrix with orthonormal columns.

    If ``M = U S V^T`` is the thin singular value decomposition, the answer is ``U V^T``. It
    minimizes ``||Q - M||_F`` and maximizes ``trace(Q^T M)`` over all ``Q`` with ``Q^T Q = I``.
    The answer is unique exactly when ``M`` has full column rank. Otherwise several matrices are
    equally near, and one of them is returned.

    Parameters
    ----------
    M : Tensor, shape (..., d, k) with k <= d
        A square or tall matrix, or a batch of them. Half precision is computed in float32.

    Returns
    -------
    Tensor, shape (..., d, k)
        The polar factor, the book's :math:`P_O[M]`.

    Raises
    ------
    TypeError
        If ``M`` is not a floating-point tensor.
    ValueError
        If ``M`` is empty, not finite, not a matrix, or has more columns than rows.

    Notes
    -----
    Book: section ``complete-dictionary-learning``. Not for back-propagation: the gradient of the
    decomposition is undefined where singular values coincide, so the result is detached.

    Examples
    --------
    >>> polar(torch.tensor([[0.0, 2.0], [-3.0, 0.0]]))
    tensor([[ 0.,  1.],
            [-1.,  0.]])
    """
    check_tensor(M, "M")
    if M.ndim < 2 or M.shape[-2] < M.shape[-1]:
        raise ValueError(
            f"M must be square or tall (at least as many rows as columns), got {tuple(M.shape)}"
        )
    return _from_svd(working(M)).to(M.dtype)


def polar_factor(M: Tensor) -> Tensor:
    """Return the polar factor of one square matrix that needs no checks, in the fastest way.

    The eigenvectors of ``M^T M`` take half the time of a singular value decomposition. They lose
    as many digits as ``M^T M`` is ill-conditioned, so they serve only up to a condition of 100,
    and one Newton-Schulz step makes the columns orthonormal to rounding again.
    """
    squares, V = torch.linalg.eigh(M.T @ M)
    if squares[0] > 0.01 * squares[-1]:
        Q = M @ (V / squares.sqrt()) @ V.T
        return torch.addmm(Q, Q, Q.T @ Q, beta=1.5, alpha=-0.5)
    return _from_svd(M)


def _from_svd(M: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(M, full_matrices=False)
    return U @ Vh
