"""log det(I + a ZᵀZ): the volume of noisy data, for one matrix, many matrices and many a."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from companion_lib.kernels.dispatch import pick

# Above these values of a·tr(ZᵀZ) the ones of I + a ZᵀZ drown in rounding. Float32 goes on in
# float64, and float64 by singular values, which keep what a Gram matrix has lost.
DROWNED = {torch.float32: 1e5, torch.float64: 1e10}


def log_det_gram(Z: Tensor, a: Tensor | float) -> Tensor:
    """Return ``log det(I + a ZᵀZ)``, in nats.

    Parameters
    ----------
    Z : Tensor, (..., n, d)
        Samples as rows; leading axes are a batch. Half precision is computed in float32.
    a : Tensor or float, at least 0
        Broadcasts against the batch: for ``Z`` of shape ``(b, n, d)``, an ``a`` of shape ``(b,)``
        has one value for each matrix, and one of shape ``(m, 1)`` gives all ``m`` values for all
        ``b`` matrices. Several values for one matrix share one factorization.

    Returns
    -------
    Tensor, the broadcast shape of the batch and ``a``

    Raises
    ------
    TypeError
        If ``Z`` is not a floating-point tensor.
    ValueError
        If ``Z`` has fewer than two axes, is empty, or holds NaN or infinity; if ``a`` is negative,
        NaN or infinite.

    Notes
    -----
    With ``r = min(n, d)`` and ``s = max(n, d)``: by Sylvester's identity the Gram matrix of the
    smaller side will do, ``s r²`` multiply-adds, then a Cholesky factor, ``r³ / 6``. The gradient
    ``2a Z (I + a ZᵀZ)⁻¹`` takes ``r³ / 3`` from the same factor and ``s r²``. Extra memory: two
    ``r × r`` matrices and one the size of ``Z``; bytes moved: a few times that.

    Where ``a`` is so large that the ones are lost in rounding (``a tr ZᵀZ > 1e5`` in float32), it
    is computed in float64; beyond ``1e10``, from singular values as ``Σ log1p(a σ²)``. Finding
    that out reads one number, so on CUDA it waits for the device.

    Book: section ``gaussian-coding-rate``.
    """
    Z = _check_matrices(Z, "Z")
    a = _check_scale(a, Z)
    if pick("log_det_gram", Z, triton=False) == "reference":
        return _reference(Z.mT @ Z, a)
    shape = torch.broadcast_shapes(Z.shape[:-2], a.shape)
    S = _small_gram(Z.detach())
    size = _size(S, a)
    if not size <= DROWNED[torch.float64]:
        return _by_singular_values(Z, a, size)
    if size > DROWNED[Z.dtype]:
        return log_det_gram(Z.double(), a.double()).to(Z.dtype)
    if shape.numel() > Z.shape[:-2].numel():
        return torch.log1p(a[..., None] * _Spectrum.apply(Z, S).clamp(min=0)).sum(-1)
    return _LogDetGram.apply(Z, a.expand(shape), S)


def log_det_psd(S: Tensor, a: Tensor | float) -> Tensor:
    """Return ``log det(I + a S)`` of positive semidefinite matrices, in nats.

    For Gram matrices that are already there, such as those of ``class_gram``; their symmetry is
    taken for granted. See ``log_det_gram`` for precision.

    Parameters
    ----------
    S : Tensor, (..., d, d)
    a : Tensor or float, at least 0
        Broadcasts against the batch.

    Returns
    -------
    Tensor, the broadcast shape of the batch and ``a``

    Raises
    ------
    ValueError
        As ``log_det_gram``; also if a matrix is not square, or so far from semidefinite that
        ``I + a S`` has no Cholesky factor.

    Notes
    -----
    A Cholesky factor, ``d³ / 6`` multiply-adds, and ``d³ / 3`` for the gradient ``a (I + aS)⁻¹``.
    Where the ones drown in rounding, eigenvalues; what ``S`` has lost below ``ε ‖S‖`` is lost.
    """
    S = _check_matrices(S, "S")
    if S.shape[-1] != S.shape[-2]:
        raise ValueError(f"S must hold square matrices, got shape {tuple(S.shape)}")
    a = _check_scale(a, S)
    if pick("log_det_psd", S, triton=False) == "reference":
        return _reference(S, a)
    size = _size(S.detach(), a)
    if not size <= DROWNED[torch.float64]:
        _check_finite(S, "S", size)
        spectrum = torch.linalg.eigvalsh(S.double()).clamp(min=0)
        return torch.log1p(a.double()[..., None] * spectrum).sum(-1).to(S.dtype)
    if size > DROWNED[S.dtype]:
        return log_det_psd(S.double(), a.double()).to(S.dtype)
    value = _LogDetPSD.apply(*_paired(S, a))
    if not value.detach().isfinite().all():
        _check_finite(S, "S", math.nan)
    return value


def _reference(S: Tensor, a: Tensor) -> Tensor:
    """The formula as the book writes it, one matrix at a time.

    One at a time, because batched LU on the CPU is silently wrong in PyTorch 2.13 with two
    threads or more.
    """
    S, a = _paired(S, a)
    eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
    matrices = (eye + a[..., None, None] * S).reshape(-1, *S.shape[-2:])
    return torch.stack([torch.logdet(M) for M in matrices]).reshape(a.shape)


def _paired(S: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(S.shape[:-2], a.shape)
    return S.expand(*shape, *S.shape[-2:]), a.expand(shape)


def _small_gram(Z: Tensor) -> Tensor:
    """Return the Gram matrix of the smaller side."""
    return Z.mT @ Z if Z.shape[-2] >= Z.shape[-1] else Z @ Z.mT


def _size(S: Tensor, a: Tensor) -> float:
    """Return the largest ``a tr S``, NaN or infinity if an entry is."""
    return (a.detach() * S.diagonal(dim1=-2, dim2=-1).sum(-1)).max().item()


def _factor(S: Tensor, a: Tensor) -> Tensor:
    """Return the Cholesky factor of ``I + a S``; it exists, for ``S`` is semidefinite."""
    M = S * a[..., None, None]
    M.diagonal(dim1=-2, dim2=-1).add_(1)
    return torch.linalg.cholesky_ex(M).L


def _inverse(L: Tensor) -> Tensor:
    """Return ``(L Lᵀ)⁻¹``: two thirds of the time of ``torch.cholesky_inverse``, or less."""
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device).expand_as(L)
    root = torch.linalg.solve_triangular(L, eye, upper=False)
    return root.mT @ root


def _log_det(L: Tensor) -> Tensor:
    return 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class _LogDetPSD(torch.autograd.Function):
    @staticmethod
    def forward(ctx, S, a):
        L = _factor(S, a)
        ctx.save_for_backward(S, a, L)
        return _log_det(L)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        S, a, L = ctx.saved_tensors
        inverse = _inverse(L)
        to_a = grad * (S * inverse).sum((-2, -1)) if ctx.needs_input_grad[1] else None
        return inverse.mul_((grad * a)[..., None, None]), to_a


class _LogDetGram(torch.autograd.Function):
    """``S`` is the Gram matrix of the smaller side of ``Z``; it takes no gradient of its own."""

    @staticmethod
    def forward(ctx, Z, a, S):
        L = _factor(S, a)
        ctx.save_for_backward(Z, a, L, S if ctx.needs_input_grad[1] else None)
        return _log_det(L)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        Z, a, L, S = ctx.saved_tensors
        inverse = _inverse(L)
        to_a = grad * (S * inverse).sum((-2, -1)) if ctx.needs_input_grad[1] else None
        inverse.mul_((2 * grad * a)[..., None, None])
        return _apply(Z, inverse), to_a, None


class _Spectrum(torch.autograd.Function):
    """Eigenvalues of the smaller Gram matrix, and the gradient of their symmetric functions.

    That gradient exists where eigenvalues coincide, too: it needs no differences of eigenvalues.
    """

    @staticmethod
    def forward(ctx, Z, S):
        if not ctx.needs_input_grad[0]:
            return torch.linalg.eigvalsh(S)
        spectrum, vectors = torch.linalg.eigh(S)
        ctx.save_for_backward(Z, vectors)
        return spectrum

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        Z, vectors = ctx.saved_tensors
        return _apply(Z, 2 * (vectors * grad[..., None, :]) @ vectors.mT), None


def _apply(Z: Tensor, M: Tensor) -> Tensor:
    """Multiply ``Z`` by ``M`` from the side on which it fits: that of the smaller Gram matrix."""
    return Z @ M if Z.shape[-2] >= Z.shape[-1] else M @ Z


def _by_singular_values(Z: Tensor, a: Tensor, size: float) -> Tensor:
    _check_finite(Z, "Z", size)
    sigma = torch.linalg.svdvals(Z.double())
    return torch.log1p(a.double()[..., None] * sigma.square()).sum(-1).to(Z.dtype)


def _check_matrices(value: Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    if value.ndim < 2 or value.numel() == 0:
        raise ValueError(f"{name} must be (..., n, d) and not empty, got {tuple(value.shape)}")
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _check_scale(a: Tensor | float, like: Tensor) -> Tensor:
    a = torch.as_tensor(a, dtype=like.dtype, device=like.device)
    if a.numel() == 0 or not (a.detach() >= 0).all() or not a.detach().isfinite().all():
        raise ValueError(f"a must be finite and at least 0, got {a.detach().tolist()}")
    return a


def _check_finite(value: Tensor, name: str, size: float) -> None:
    """Say what is wrong with an input whose size or log det came out as NaN or infinity."""
    if math.isfinite(size):
        return
    if not value.detach().isfinite().all():
        bad = int((~value.detach().isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
    if size == math.inf:
        raise ValueError(f"a tr({name}) overflows {value.dtype}: scale {name} down")
    raise ValueError(f"{name} must hold positive semidefinite matrices, got one that is not")
