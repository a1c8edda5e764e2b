"""log det(I + a ZᵀZ): the volume of noisy data, for one matrix, many matrices and many a."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from companion_lib.kernels.autocast import without_autocast
from companion_lib.kernels.dispatch import pick
from companion_lib.kernels.gram import gram

# From which a·tr(ZᵀZ) to which one a Cholesky factor of I + a ZᵀZ will do. Below, log det is so
# small that the rounding of the ones shows; above, the ones drown. There float32 goes on in
# float64, and float64 by the spectrum, of Z itself where a Gram matrix would have lost it.
CHOLESKY = {torch.float32: (1.0, 1e4), torch.float64: (1e-3, 1e10)}
NOT_SEMIDEFINITE = "S must hold positive semidefinite matrices, got one that is not"


@without_autocast
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
    ``2a Z (I + a ZᵀZ)⁻¹`` takes the inverse of that factor and a product, ``3/2 r³``, and ``s r²``
    more. Extra memory: four ``r × r`` matrices and one the size of ``Z``, and a copy in float64
    where that is needed; bytes moved: a few times that.

    Where ``a tr ZᵀZ`` is below 1 or above 1e4 in float32, rounding would show, and it is computed
    in float64; there, below 1e-3 by eigenvalues and beyond 1e10 by singular values, as
    ``Σ log1p(a σ²)``. Finding that out reads a few numbers, for which CUDA waits.

    Book: section ``gaussian-coding-rate``.
    """
    Z = _check_matrices(Z, "Z")
    a = _check_scale(a, Z)
    traces = torch.linalg.vector_norm(Z.detach(), dim=(-2, -1)).square()
    return log_det_of_size(Z, a, check_size(a, traces, Z, "Z"))


@without_autocast
def log_det_of_size(Z: Tensor, a: Tensor, size: float) -> Tensor:
    """Return ``log_det_gram(Z, a)`` of checked arguments; ``size`` is the largest ``a tr ZᵀZ``."""
    a = a.to(Z.dtype)
    if pick("log_det_gram", Z, triton=False) == "reference":
        return _reference(Z.mT @ Z, a)
    direct = _suits_cholesky(Z, a, size)
    if not direct and Z.dtype != torch.float64:
        return log_det_gram(Z.double(), a.double()).to(Z.dtype)
    S = _SmallGram.apply(Z)
    if direct:
        return _ByCholesky.apply(S, a)
    drowned = size > CHOLESKY[torch.float64][1]
    rows = Z if _is_tall(Z) else Z.mT
    return _BySpectrum.apply(S, a, rows.detach() if drowned else None)


@without_autocast
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
    A Cholesky factor, ``d³ / 6`` multiply-adds, and ``3/2 d³`` for the gradient ``a (I + aS)⁻¹``.
    Several ``a`` for one matrix, or one that is tiny or huge: eigenvalues, in float64. What ``S``
    itself has lost in rounding stays lost. Reads two numbers, so on CUDA it waits twice.
    """
    S = _check_matrices(S, "S")
    if S.shape[-1] != S.shape[-2]:
        raise ValueError(f"S must hold square matrices, got shape {tuple(S.shape)}")
    _check_finite(S, "S")
    return log_det_of_grams(S, _check_scale(a, S))


def log_det_of_grams(S: Tensor, a: Tensor) -> Tensor:
    """Return ``log_det_psd(S, a)`` of matrices that are known to be finite."""
    a = a.to(S.dtype)
    if pick("log_det_psd", S, triton=False) == "reference":
        return _reference(S, a)
    size = check_size(a, S.detach().diagonal(dim1=-2, dim2=-1).sum(-1), S, "S")
    if _suits_cholesky(S, a, size):
        return _ByCholesky.apply(S, a)
    return _BySpectrum.apply(S.double(), a.double(), None).to(S.dtype)


def log_det_of_rows(S: Tensor, a: Tensor, rows: Tensor) -> Tensor:
    """Return ``log det(I + a S)`` of ``S = rowsᵀ rows``, with the digits that ``S`` has lost.

    Parameters
    ----------
    S : Tensor, (d, d)
        Carries the gradient.
    a : Tensor, ()
    rows : Tensor, (n, d)
        Carries the digits.
    """
    return _BySpectrum.apply(S, a, rows.detach())


def check_size(a: Tensor, traces: Tensor, value: Tensor, name: str) -> float:
    """Return the largest ``a tr S``; it is finite only if ``value`` is, too."""
    size = (a.detach() * traces).max().item()
    if math.isfinite(size):
        return size
    _check_finite(value, name)
    raise ValueError(f"a tr({name}) overflows {value.dtype}: scale {name} down")


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


def _suits_cholesky(X: Tensor, a: Tensor, size: float) -> bool:
    """Tell whether there is one ``a`` for each matrix, neither tiny nor huge."""
    batch = X.shape[:-2]
    low, high = CHOLESKY[X.dtype]
    few = torch.broadcast_shapes(batch, a.shape).numel() == batch.numel()
    return few and low <= size <= high


def _is_tall(Z: Tensor) -> bool:
    return Z.shape[-2] >= Z.shape[-1]


class _SmallGram(torch.autograd.Function):
    """The smaller of ``ZᵀZ`` and ``ZZᵀ``; the gradient takes one product, autograd's own two."""

    @staticmethod
    def forward(ctx, Z):
        ctx.save_for_backward(Z)
        return gram(Z if _is_tall(Z) else Z.mT)

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        (Z,) = ctx.saved_tensors
        both = grad + grad.mT
        return Z @ both if _is_tall(Z) else both @ Z


class _ByCholesky(torch.autograd.Function):
    @staticmethod
    def forward(ctx, S, a):
        M = S * a[..., None, None]
        M.diagonal(dim1=-2, dim2=-1).add_(1)
        L, info = torch.linalg.cholesky_ex(M)
        if info.any():
            raise ValueError(NOT_SEMIDEFINITE)
        ctx.save_for_backward(S, a, L)
        return 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        S, a, L = ctx.saved_tensors
        return _slopes(S, a, _inverse(L), grad, ctx.needs_input_grad[1])


class _BySpectrum(torch.autograd.Function):
    """Several ``a`` share one decomposition, of ``rows`` instead of ``S = rowsᵀ rows`` if given.

    The gradient exists where eigenvalues coincide, too: it needs no differences of eigenvalues.
    """

    @staticmethod
    def forward(ctx, S, a, rows):
        if rows is not None:
            square = pad(rows, (0, 0, 0, max(0, rows.shape[-1] - rows.shape[-2])))
            _, sigma, Vh = torch.linalg.svd(square, full_matrices=False)
            spectrum, vectors = sigma.square(), Vh.mT
        elif any(ctx.needs_input_grad):
            spectrum, vectors = torch.linalg.eigh(S)
        else:
            spectrum, vectors = torch.linalg.eigvalsh(S), None
        if (spectrum < -1e-3 * spectrum.amax(-1, keepdim=True)).any():
            raise ValueError(NOT_SEMIDEFINITE)
        spectrum = spectrum.clamp(min=0)
        ctx.save_for_backward(S, a, spectrum, vectors)
        return torch.log1p(a[..., None] * spectrum).sum(-1)

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        S, a, spectrum, vectors = ctx.saved_tensors
        shrunk = 1 / (1 + a.detach()[..., None] * spectrum)
        if torch.is_grad_enabled():
            inverse = _compose(shrunk, vectors)
            return *_slopes(S, a, inverse, grad, ctx.needs_input_grad[1]), None
        weights = (grad * a)[..., None] * shrunk
        to_a = (grad * (spectrum * shrunk).sum(-1)).sum_to_size(a.shape)
        return _compose(weights.sum_to_size(spectrum.shape), vectors), to_a, None


def _compose(spectrum: Tensor, vectors: Tensor) -> Tensor:
    return (vectors * spectrum[..., None, :]) @ vectors.mT


def _slopes(
    S: Tensor, a: Tensor, inverse: Tensor, grad: Tensor, to_a: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of log det, given ``(I + aS)⁻¹``; they have gradients in turn."""
    again = torch.is_grad_enabled()
    if again:
        inverse = _Inverse.apply(S, a, inverse)
    slope_a = (grad * (S * inverse).sum((-2, -1))).sum_to_size(a.shape) if to_a else None
    weight = (grad * a)[..., None, None]
    slope_S = inverse * weight if again else inverse.mul_(weight)  # new memory is slow
    return slope_S.sum_to_size(S.shape), slope_a


class _Inverse(torch.autograd.Function):
    """``M = (I + aS)⁻¹``, known already; ``dM = -M (a dS + S da) M``, as often as one likes."""

    @staticmethod
    def forward(ctx, S, a, inverse):
        ctx.save_for_backward(S, a, inverse)
        return inverse.clone()

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        S, a, inverse = ctx.saved_tensors
        M = _Inverse.apply(S, a, inverse)
        slope = -(M @ grad @ M)
        to_S = (slope * a[..., None, None]).sum_to_size(S.shape)
        return to_S, (slope * S).sum((-2, -1)).sum_to_size(a.shape), None


def _inverse(L: Tensor) -> Tensor:
    """Return ``(L Lᵀ)⁻¹``.

    Measured from 128 to 512 rows, single and ten at once: on two threads a triangular inverse and
    a product take 0.5 to 0.7 of the time of LAPACK's routine up to 256 rows, and 1.2 at 512; on
    one thread 1.1 to 1.9, and 2.5 to 3.3 at 512.
    """
    if L.is_cpu and L.shape[-1] >= 512:
        return torch.cholesky_inverse(L)
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device).expand_as(L)
    root = torch.linalg.solve_triangular(L, eye, upper=False)
    return root.mT @ root


def _check_matrices(value: Tensor, name: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
    if value.ndim < 2 or value.numel() == 0:
        raise ValueError(f"{name} must be (..., n, d) and not empty, got {tuple(value.shape)}")
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _check_scale(a: Tensor | float, like: Tensor) -> Tensor:
    a = torch.as_tensor(a, dtype=like.dtype, device=like.device)
    low, high = (end.item() for end in torch.aminmax(a.detach())) if a.numel() else (-1, -1)
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"a must be finite and at least 0, got {a.detach().tolist()}")
    return a


def _check_finite(value: Tensor, name: str) -> None:
    # A finite sum says that every entry is, in one pass; finite entries may still overflow it.
    if not value.detach().sum().isfinite() and not value.detach().isfinite().all():
        bad = int((~value.detach().isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
