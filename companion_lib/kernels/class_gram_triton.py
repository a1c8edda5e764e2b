"""Gram matrices of all classes in one launch, from rows that are gathered and never copied."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from companion_lib.kernels.class_gram import grams_of_segments

ROWS, DEPTH = 64, 32


def segment_grams(Z: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return ``Z_kᵀ Z_k`` of the rows with each label, in float32 also for half precision.

    Chips before sm_80 cannot multiply bfloat16, and Triton's interpreter does it wrongly; float32
    holds the same numbers.
    """
    if Z.dtype == torch.bfloat16:
        if Z.device.type != "cuda" or torch.cuda.get_device_capability(Z.device) < (8, 0):
            Z = Z.float()
    return _SegmentGrams.apply(Z, labels.long().to(Z.device), k)


class _SegmentGrams(torch.autograd.Function):
    """No size of a class comes back from the device, so nothing waits for one here.

    Hence no ``torch.bincount`` either: on a GPU it waits for the smallest and largest label.
    """

    @staticmethod
    def forward(ctx, Z: Tensor, labels: Tensor, k: int) -> Tensor:
        ordered, order = torch.sort(labels)
        starts = torch.searchsorted(ordered, torch.arange(k + 1, device=Z.device))
        ctx.save_for_backward(Z, order, starts)
        return gram(Z, order, starts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        Z, order, starts = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to have one: PyTorch's form does, and waits
            grams = grams_of_segments(Z.to(grad.dtype), order, starts.diff().tolist())
            return *torch.autograd.grad(grams, Z, grad, create_graph=True), None, None
        return product(Z, order, starts, grad + grad.mT), None, None


def gram(Z: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the Gram matrices (k, d, d) of segments of the rows ``Z[order]``."""
    k, d = len(starts) - 1, Z.shape[1]
    grams = torch.empty(k, d, d, dtype=torch.float32, device=Z.device)
    tile = 32 if d <= 128 else 64  # smaller tiles make more programs
    tiles = triton.cdiv(d, tile)
    with torch.cuda.device_of(Z):
        segment_gram[(k * tiles * tiles,)](
            Z, order, starts, grams, d, *Z.stride(), tiles, TILE=tile, DEPTH=DEPTH
        )
    return grams


def product(Z: Tensor, order: Tensor, starts: Tensor, matrices: Tensor) -> Tensor:
    """Return row i of ``Z`` times the matrix of its segment, in the dtype of ``Z``.

    Blocks of rows do not cross from one segment to the next. How many blocks there are is known
    on the device; here only that ``n / ROWS`` and one for each segment are enough.
    """
    (n, d), k = Z.shape, len(starts) - 1
    blocks = (starts.diff() + ROWS - 1) // ROWS
    ends = blocks.cumsum(0)
    block = torch.arange(n // ROWS + min(n, k), device=Z.device)
    owner = torch.searchsorted(ends, block, right=True).clamp_(max=k - 1)
    begin = starts[owner] + (block - (ends - blocks)[owner]) * ROWS  # at its end if not needed
    out = torch.empty(n, d, dtype=Z.dtype, device=Z.device)
    tile = 64
    with torch.cuda.device_of(Z):
        segment_product[(len(block), triton.cdiv(d, tile))](
            Z, order, starts, owner, begin, matrices.contiguous(), out, d, *Z.stride(),
            ROWS=ROWS, TILE=tile, DEPTH=DEPTH,
        )  # fmt: skip
    return out


@triton.jit
def segment_gram(
    Z, order, starts, grams, d, row_stride, column_stride, tiles,
    TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile of one matrix, on or above the diagonal, and its mirror image."""
    segment = tl.program_id(0) // (tiles * tiles)
    high = (tl.program_id(0) // tiles) % tiles
    wide = tl.program_id(0) % tiles
    if high <= wide:
        i = high * TILE + tl.arange(0, TILE)
        j = wide * TILE + tl.arange(0, TILE)
        left_columns = i.to(tl.int64)[None, :] * column_stride  # of Zᵀ, these are far apart
        right_columns = j.to(tl.int64)[None, :] * column_stride
        begin = tl.load(starts + segment)
        end = tl.load(starts + segment + 1)
        total = tl.zeros((TILE, TILE), dtype=tl.float32)
        for first in range(begin, end, DEPTH):
            at = first + tl.arange(0, DEPTH)
            rows = tl.load(order + at, mask=at < end, other=0)[:, None] * row_stride
            inside = (at < end)[:, None]
            left = tl.load(Z + rows + left_columns, mask=inside & (i < d)[None, :], other=0.0)
            right = tl.load(Z + rows + right_columns, mask=inside & (j < d)[None, :], other=0.0)
            total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
        target = grams + segment.to(tl.int64) * d * d
        keep = (i < d)[:, None] & (j < d)[None, :]
        tl.store(target + i[:, None] * d + j[None, :], total, mask=keep)
        if high < wide:
            mirror = target + j[:, None] * d + i[None, :]
            tl.store(mirror, tl.trans(total), mask=(j < d)[:, None] & (i < d)[None, :])


@triton.jit
def segment_product(
    Z, order, starts, owner, begin, matrices, out, d, row_stride, column_stride,
    ROWS: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A block of rows of one segment times a block of columns of its matrix."""
    segment = tl.load(owner + tl.program_id(0))
    end = tl.load(starts + segment + 1)
    at = tl.load(begin + tl.program_id(0)) + tl.arange(0, ROWS)
    rows = tl.load(order + at, mask=at < end, other=0)[:, None]
    inside = (at < end)[:, None]
    j = tl.program_id(1) * TILE + tl.arange(0, TILE)
    matrix = matrices + segment * d * d
    total = tl.zeros((ROWS, TILE), dtype=tl.float32)
    for first in range(0, d, DEPTH):
        i = first + tl.arange(0, DEPTH)
        left = tl.load(
            Z + rows * row_stride + i.to(tl.int64)[None, :] * column_stride,
            mask=inside & (i < d)[None, :],
            other=0.0,
        )
        right = tl.load(
            matrix + i[:, None] * d + j[None, :],
            mask=(i < d)[:, None] & (j < d)[None, :],
            other=0.0,
        )
        total = tl.dot(left.to(tl.float32), right, total, input_precision="ieee")
    place = out + rows * d + j[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside & (j < d)[None, :])
