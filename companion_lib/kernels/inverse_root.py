"""Inverse Cholesky factors and inverses of positive definite matrices, by blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from companion_lib.kernels.gram import gram

# Measured on the CPU, ten matrices of 121 rows and one of 512: blocks of 64 take .78 of the time
# of one factor of the whole matrix and its triangular inverse. Most of it moves into products.
BLOCK = 64


def inverse_root(M: Tensor) -> Tensor:
    """Return lower triangular ``W`` with ``W M Wᵀ = I``, the inverse of the Cholesky factor of M.

    Parameters
    ----------
    M : Tensor, (r, r) or (b, r, r)
        Symmetric and positive definite, which is not checked.

    Returns
    -------
    Tensor, (r, r) or (b, r, r)

    Notes
    -----
    ``r³ / 3`` multiply-adds. With ``M = [[A, Bᵀ], [B, C]]`` and the root ``P`` of ``A``, the
    factor's lower block is ``F = B Pᵀ``; with the root ``Q`` of ``C - F Fᵀ``,
    ``W = [[P, 0], [-Q F P, Q]]``. On a GPU, where a small block costs a launch, in one piece.
    """
    if _is_one_block(M):
        L, _ = torch.linalg.cholesky_ex(M)
        eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device).expand_as(L)
        return torch.linalg.solve_triangular(L, eye, upper=False)
    P, V, Q = _blocks(M)
    half, W = P.shape[-1], torch.zeros_like(M)
    W[..., :half, :half] = P
    W[..., half:, half:] = Q
    W[..., half:, :half] = V.neg_()
    return W


def invert_(M: Tensor) -> Tensor:
    """Put ``M⁻¹`` in the place of ``M`` and return ``log det M``, one or (b,).

    Parameters and cost of the factor as in ``inverse_root``; the inverse is ``WᵀW``, ``r³ / 2``.
    """
    if _is_one_block(M):
        W = inverse_root(M)
        gram(W, out=M)
        return _log_det(W)
    P, V, Q = _blocks(M)
    half = P.shape[-1]
    multiply = torch.addmm if M.ndim == 2 else torch.baddbmm
    corner, cross = M[..., :half, :half], M[..., half:, :half]
    multiply(gram(P, out=corner), V.mT, V, out=corner)
    torch.matmul(Q.mT, V, out=cross).neg_()
    M[..., :half, half:] = cross.mT
    gram(Q, out=M[..., half:, half:])
    return _log_det(P) + _log_det(Q)


def _blocks(M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blocks of the inverse root: ``P``, ``Q F P`` (where it has a minus) and ``Q``."""
    half = 16 * -(-M.shape[-1] // 32)  # an even cut, at a multiple of the width of registers
    left, lower = M[..., :half], M[..., half:, half:]
    P = inverse_root(left[..., :half, :])
    F = left[..., half:, :] @ P.mT
    multiply = torch.addmm if M.ndim == 2 else torch.baddbmm
    Q = inverse_root(multiply(lower, F, F.mT, alpha=-1))
    return P, Q @ (F @ P), Q


def _is_one_block(M: Tensor) -> bool:
    return M.shape[-1] <= BLOCK or not M.is_cpu


def _log_det(root: Tensor) -> Tensor:
    return -2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
