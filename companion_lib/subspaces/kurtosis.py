"""The fourth cumulant, which tells sparse from Gaussian."""

from __future__ import annotations

from torch import Tensor

from companion_lib.validation import check_tensor, working


def kurtosis(x: Tensor, dim: int = 0) -> Tensor:
    """Return the fourth cumulant ``E x^4 - 3 (E x^2)^2`` of zero-mean samples along ``dim``.

    This is the book's kurtosis. It is **not** divided by the squared variance (for unit variance
    both agree) and **no** mean is subtracted. It is zero for a Gaussian, ``3 (1 - theta) / theta``
    for a unit-variance Bernoulli-Gaussian code, and -1.2 for a unit-variance uniform one. It adds
    up over independent variables, and ``kurtosis(a * x) = a^4 kurtosis(x)``.

    Parameters
    ----------
    x : Tensor, any shape
        Samples along ``dim``; for ``(n, d)`` the answer has one number for each coordinate. Half
        precision is computed in float32; beyond the range of float16, from samples of about 16
        on, the answer comes out infinite.
    dim : int
        The axis of the samples.

    Returns
    -------
    Tensor
        The shape of ``x`` without ``dim``.

    Raises
    ------
    TypeError
        If ``x`` is not a floating-point tensor.
    ValueError
        If ``x`` is empty or not finite.

    Notes
    -----
    Book: section ``ica``.
    """
    check_tensor(x, "x")
    square = working(x).square()
    return (square.square().mean(dim) - 3 * square.mean(dim).square()).to(x.dtype)
