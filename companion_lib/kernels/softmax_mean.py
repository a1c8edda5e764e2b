"""The mean of values under softmax weights, streamed: attention, and the empirical denoiser."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import threshold_

from companion_lib.kernels.dispatch import pick

# Logits held at a time: 2 MB of float32 stay in a core's cache; a GPU wants work for all of it.
QUERIES = {"cpu": 512, "cuda": 4096}
KEYS = {"cpu": 1024, "cuda": 4096}


def softmax_mean(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """Return ``Σⱼ wᵢⱼ vⱼ`` with weights ``wᵢⱼ ∝ exp(sᵢ (qᵢ·kⱼ + bⱼ))`` that sum to one over j.

    Attention has ``scale = 1/√d``. The mean of clean samples given a noisy one, the best denoiser
    of a data set, has ``keys = values = X``, ``bias = -‖xⱼ‖²/2`` and ``scale = 1/σ²``, because
    ``-‖q - x‖² / (2σ²)`` differs from that by a number that all weights of a query share.

    Parameters
    ----------
    queries : Tensor, (m, d)
    keys : Tensor, (n, d)
    values : Tensor, (n, v)
        Floating-point and of one dtype. Half precision is computed in float32.
    bias : Tensor, (n,), optional
    scale : Tensor or float, positive
        One number, or one for each query, ``(m,)``.

    Returns
    -------
    Tensor, (m, v)
        In the dtype of ``values``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor (``scale`` may be a number).
    ValueError
        If shapes, dtypes or devices do not fit, something is empty, ``scale`` is not positive, or
        the result is NaN or infinite because an input is or a logit overflows.

    Notes
    -----
    Operations: two matrix products, ``m n (d + v)`` multiply-adds, and ``m n`` exponentials; the
    gradient, which computes the logits again, ``m n (3d + 2v)`` at most. Memory: the ``m × n``
    logits are never there, only blocks of 512 × 1,024 (on a GPU 4,096 × 4,096), with a running
    maximum and sum for each query; the gradient needs just those two vectors.

    A weight below ``tiny / eps`` of its dtype (1e-31 in float32), relative to the largest so far,
    is set to zero. It could not change the result, and denormal numbers slow a matrix product on a
    CPU down severalfold.

    *Triton*: a flash-attention kernel keeps the logits of a tile in registers, and pays for it
    where the values are wide: 64 queries × 784 values are 200 kB of accumulator, more than a
    block has, so it must work on slices of 128 values and compute ``q·k`` for each of them again:
    7 times ``m n d`` instead of one at 784 features, 24 times at 3,072. Written out, a logit costs
    about 16 bytes of traffic against ``2 (d + v)`` operations, 3,136 at 784 features, far beyond
    what a GPU does while it moves them. So the products are cuBLAS's, and all that comes between
    them is one kernel that reads and writes a block once: bias, scale, maximum, exponential, sum.
    In PyTorch these are six passes. The gradient has its own.

    ``F.scaled_dot_product_attention`` is not used.

    Book: section ``denoising``.
    """
    _check(queries, keys, values, bias)
    scale = _check_scale(scale, queries)
    wide = torch.promote_types(values.dtype, torch.float32)
    rates = scale.to(wide).expand(len(queries))
    offsets = None if bias is None else bias.to(wide)
    form = pick("softmax_mean", queries)
    if form == "reference":
        result = _reference(queries.to(wide), keys.to(wide), values.to(wide), offsets, rates)
        result = result.to(values.dtype)
    else:
        result = _SoftmaxMean.apply(queries, keys, values, offsets, rates, form == "triton")
    if not result.detach().isfinite().all():
        _explain(queries=queries, keys=keys, values=values, bias=bias)
    return result


def _reference(queries, keys, values, bias, scale):
    """The formula, with all logits at once."""
    logits = queries @ keys.T
    if bias is not None:
        logits = logits + bias
    return torch.softmax(scale[:, None] * logits, dim=1) @ values


class _SoftmaxMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, values, bias, scale, fused):
        m, wide = len(queries), scale.dtype
        top = scale.new_full((m,), -torch.inf)
        total = scale.new_zeros(m)
        mean = scale.new_zeros(m, values.shape[1])
        update = _triton().update if fused else _update
        block = _block(queries, keys, wide)
        for rows in _chunks(m, QUERIES, queries):
            q, acc = queries[rows].to(wide), mean[rows]
            for cols in _chunks(len(keys), KEYS, keys):
                logits = block(len(q), keys[cols])
                torch.mm(q, keys[cols].to(wide).T, out=logits)
                at = None if bias is None else bias[cols]
                shrink = update(logits, at, scale[rows], top[rows], total[rows])
                acc.mul_(shrink[:, None]).addmm_(logits, values[cols].to(wide))
        mean /= total[:, None]
        ctx.save_for_backward(queries, keys, values, bias, scale, mean, top, total)
        ctx.fused = fused
        return mean.to(values.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        queries, keys, values, bias, scale, mean, top, total = ctx.saved_tensors
        wide = scale.dtype
        grad = grad.to(wide)
        needs = ctx.needs_input_grad
        inputs = (queries, keys, values, bias, scale)
        to_queries, to_keys, to_values, to_bias, to_scale = (
            torch.zeros_like(x, dtype=wide) if need else None
            for x, need in zip(inputs, needs, strict=False)
        )
        ...
