"""Compare dictionaries that are known only up to the order and the signs of their atoms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from companion_lib.validation import check_tensor, working


@dataclass(frozen=True, eq=False, repr=False)
class SignedPermutation:
    """The signed permutation nearest to a matrix ``W`` of shape (m, k).

    Attributes
    ----------
    permutation : Tensor of int64, shape (m,)
        The column matched to each row; -1 for the rows that are left over when ``m > k``.
    signs : Tensor, shape (m,)
        The sign of each matched entry; 0 for a row that is left over.
    matrix : Tensor, shape (m, k)
        ``signs[i]`` at ``[i, permutation[i]]`` and 0 elsewhere.
    overlap : Tensor, shape (m,)
        ``|W[i, permutation[i]]|``; 0 for a row that is left over. For unit atoms it is the cosine
        between the two atoms, so ``(overlap > 0.99).sum()`` counts the atoms found.
    error : float
        ``||W - matrix||_F``, over all entries.
    """

    permutation: Tensor
    signs: Tensor
    matrix: Tensor
    overlap: Tensor
    error: float

    def __repr__(self) -> str:
        m, k = self.matrix.shape
        return f"SignedPermutation(shape=({m}, {k}), error={self.error:.3g})"


def match_signed_permutation(W: Tensor) -> SignedPermutation:
    """Match rows with columns so that the matched entries of ``|W|`` have the largest sum.

    A learned orthogonal dictionary ``A`` (``z = A x``) is right when ``W = A U`` is a signed
    permutation, where the columns of ``U`` are the true atoms. For overcomplete dictionaries with
    atoms as rows, pass the cosines ``W = D_learned @ D_true.T``; it need not be square.

    Parameters
    ----------
    W : Tensor, shape (m, k)
        Inner products between learned atoms (rows) and true atoms (columns).

    Returns
    -------
    SignedPermutation

    Raises
    ------
    TypeError
        If ``W`` is not a floating-point tensor.
    ValueError
        If ``W`` is empty, not finite, or not a matrix.

    Notes
    -----
    Book: section ``complete-dictionary-learning``. The matching is exact (scipy's
    ``linear_sum_assignment``), in time cubic in the size.

    Examples
    --------
    >>> match_signed_permutation(torch.tensor([[0.1, -0.9], [1.0, 0.0]])).permutation
    tensor([1, 0])
    """
    check_tensor(W, "W", ndim=2)
    cosines = working(W)
    rows, columns = linear_sum_assignment(cosines.abs().detach().cpu().numpy(), maximize=True)
    rows, columns = (torch.as_tensor(i, device=W.device) for i in (rows, columns))
    permutation = torch.full((len(W),), -1, dtype=torch.int64, device=W.device)
    permutation[rows] = columns
    # An entry that is exactly zero may be matched too; its sign is free.
    matched = cosines[rows, columns]
    signs, overlap = W.new_zeros(len(W)), W.new_zeros(len(W))
    signs[rows] = torch.where(matched < 0, -1.0, 1.0).to(W.dtype)
    overlap[rows] = matched.abs().to(W.dtype)
    matrix = torch.zeros_like(W)
    matrix[rows, columns] = signs[rows]
    error = torch.linalg.matrix_norm(cosines - working(matrix)).item()
    return SignedPermutation(permutation, signs, matrix, overlap, error)
