"""What comes between the matrix products of ``softmax_mean``, each in one pass over a block."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def update(
    logits: Tensor, bias: Tensor | None, scale: Tensor, top: Tensor, total: Tensor
) -> Tensor:
    """Do what ``softmax_mean._update`` does, in one launch: a program for each row."""
    rows, columns = logits.shape
    shrink = torch.empty_like(top)
    with torch.cuda.device_of(logits):
        softmax_update[(rows,)](
            logits, bias, scale, top, total, shrink, columns, **_options(bias, columns)
        )
    return shrink


def gradient(
    logits: Tensor,
    slopes: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    top: Tensor,
    total: Tensor,
    pull: Tensor,
    to_scale: Tensor | None,
) -> None:
    """Do what ``softmax_mean._gradient`` does, in one launch: a program for each row."""
    rows, columns = logits.shape
    if to_scale is None:
        to_scale = torch.empty_like(top)
    with torch.cuda.device_of(logits):
        softmax_gradient[(rows,)](
            logits, slopes, bias, scale, top, total, pull, to_scale, columns,
            **_options(bias, columns),
        )  # fmt: skip


def _options(bias: Tensor | None, columns: int) -> dict:
    width = triton.next_power_of_2(columns)
    return {"BIASED": bias is not None, "WIDTH": width, "num_warps": 4 if width <= 1024 else 8}


@triton.jit
def softmax_update(
    logits, bias, scale, top, total, shrink, columns, BIASED: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0)
    at = tl.arange(0, WIDTH)
    inside = at < columns
    place = logits + row.to(tl.int64) * columns + at
    exponents = tl.load(place, mask=inside, other=-float("inf"))
    if BIASED:
        exponents += tl.load(bias + at, mask=inside, other=0.0)
    exponents *= tl.load(scale + row)
    before = tl.load(top + row)
    highest = tl.maximum(before, tl.max(exponents, 0))
    weights = tl.exp(exponents - highest)
    factor = tl.exp(before - highest)
    tl.store(place, weights, mask=inside)
    tl.store(shrink + row, factor)
    tl.store(total + row, tl.load(total + row) * factor + tl.sum(weights, 0))
    tl.store(top + row, highest)


@triton.jit
def softmax_gradient(
    logits, slopes, bias, scale, top, total, pull, to_scale, columns,
    BIASED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.arange(0, WIDTH)
    inside = at < columns
    offset = row.to(tl.int64) * columns + at
    exponents = tl.load(logits + offset, mask=inside, other=0.0)
    if BIASED:
        exponents += tl.load(bias + at, mask=inside, other=0.0)
    rate = tl.load(scale + row)
    exponents = exponents * rate - tl.load(top + row)
    weights = tl.where(inside, tl.exp(exponents) / tl.load(total + row), 0.0)
    slope = tl.load(slopes + offset, mask=inside, other=0.0) - tl.load(pull + row)
    slope *= weights
    tl.store(logits + offset, weights, mask=inside)
    tl.store(slopes + offset, slope * rate, mask=inside)
    tl.store(to_scale + row, tl.load(to_scale + row) + tl.sum(slope * exponents, 0) / rate)
