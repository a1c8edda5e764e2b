"""The mean of values under softmax weights, streamed: attention, and the best denoiser of data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention, threshold_

from companion_lib.kernels.autocast import without_autocast
from companion_lib.kernels.dispatch import pick

# Logits in a block, and the fewest and most keys. On a CPU 2 MB of float32 stay in the cache; a
# GPU wants work for all its parts, and its kernel holds a row of the block in registers.
BLOCK = {"cpu": (2**19, 1024, 8192), "gpu": (2**24, 4096, 4096)}


@without_autocast
def softmax_mean(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """Return ``Σⱼ wᵢⱼ vⱼ`` with ``wᵢⱼ ∝ exp(sᵢ (qᵢ·kⱼ + bⱼ))``, weights that sum to one over j.

    Attention has ``scale = 1/√d``. The mean of the clean samples given a noisy one, the best
    denoiser of a data set, has ``keys = values = X``, ``bias = -‖xⱼ‖²/2`` and ``scale = 1/σ²``:
    its exponents ``-‖q - xⱼ‖² / (2σ²)`` differ from these by a number that does not depend on j.

    Parameters
    ----------
    queries : Tensor, (m, d)
    keys : Tensor, (n, d)
    values : Tensor, (n, v)
        All of one floating-point dtype. Half precision is computed in float32.
    bias : Tensor, (n,), optional
        May be more precise than the keys.
    scale : Tensor or float, positive
        One number, or ``(m,)``: one for each query.

    Returns
    -------
    Tensor, (m, v)
        In the dtype of ``values``.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor (``scale`` may be a number).
    ValueError
        If shapes, dtypes or devices do not fit, something is empty, ``scale`` is not positive and
        finite (in float32, unless queries are float64), ``bias`` is not finite (leave out keys
        instead of masking them), or the result is NaN or infinite because an input is or because
        a logit overflows.

    Notes
    -----
    Operations: two matrix products, ``m n (d + v)`` multiply-adds, and ``m n`` exponentials. The
    gradient computes the logits again: five products, ``m n (3d + 2v)``. Memory: a block of half
    a million logits (on a GPU, 16 million) with a running maximum and sum for each query, never
    all ``m n``; for the gradient only these two vectors are kept, and two blocks are held.

    On a CPU, a weight below ``tiny / eps`` of its dtype (1e-31 in float32) of the largest so far
    becomes zero: it is lost in rounding anyway unless values span twenty orders of magnitude, and
    denormal numbers slow matrix products down several times.

    ``F.scaled_dot_product_attention`` serves where it was measured to be faster: on a CPU, from
    128 queries on and up to 64 features, where it takes 0.4 to 0.9 of the time (with few queries
    or more features up to ten times as long). It needs copies of keys and values. Not where a
    gradient is wanted: it keeps the logarithm of a normalizer, not a maximum and a sum, and in
    float32 logits of 1e4 then cost its gradient all digits but three. Not on a GPU: one head
    gives it a thread block for each 64 queries, so 256 occupy 4 of 40 processors.

    A second derivative (``create_graph=True``) is right and slow: the gradient is then computed
    by the formula, with all logits at once. Autocast is off inside, forward and backward: half
    precision is for those who pass it.

    *Triton*, and why not one kernel: flash attention keeps its accumulator on chip, queries by
    values, and for 64 queries with 784 values that is 200 kB, three times what a T4 has. It would
    have to work on slices of 128 values, and compute ``q·k`` again for each of them: 7 times
    ``m n d``, or 24 times at 3,072 values, to save the traffic of a logit, 16 bytes against
    ``2 (d + v) = 3,136`` operations. So products are left to cuBLAS, and what comes between them
    is one kernel that reads and writes a block once (bias, scale, maximum, exponentials, sums)
    instead of six passes in PyTorch; the gradient has another, instead of nine.

    Book: section ``diffusion-and-denoising``.
    """
    _check(queries, keys, values, bias)
    wide = torch.promote_types(queries.dtype, torch.float32)
    scale = _check_scale(scale, queries, wide).expand(len(queries)).contiguous()
    offsets = None if bias is None else bias.to(wide).contiguous()
    form = pick("softmax_mean", queries)
    inputs = (queries, keys, values, offsets, scale)
    if form == "reference":
        mean = _Formula.apply(*inputs)
    elif form == "fast" and _suits_attention(*inputs):
        mean = _attention(*inputs)
    else:
        mean = _SoftmaxMean.apply(*inputs, form == "triton")
    finite = mean.detach().isfinite().all()
    if bias is not None:  # an infinite bias may leave the mean finite, in some of the forms
        finite &= bias.detach().isfinite().all()
    if not finite:
        _explain(queries=queries, keys=keys, values=values, bias=bias)
    return mean


def _reference(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: Tensor
) -> Tensor:
    """The formula, with all logits at once."""
    dtype, wide = values.dtype, scale.dtype
    logits = queries.to(wide) @ keys.to(wide).T
    if bias is not None:
        logits = logits + bias
    return (torch.softmax(scale[:, None] * logits, dim=1) @ values.to(wide)).to(dtype)


def _suits_attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: Tensor
) -> bool:
    if torch.is_grad_enabled():
        inputs = (queries, keys, values, bias, scale)
        if any(x is not None and x.requires_grad for x in inputs):
            return False  # its gradient knows a weight by the log of its normalizer alone
    few = max(queries.shape[1] + 1, values.shape[1]) <= 64
    return few and len(queries) >= 128 and queries.device.type == "cpu"


def _attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: Tensor
) -> Tensor:
    """PyTorch's own streaming kernel: scales go into the queries, biases are one more feature.

    Padded to one width, because it falls back to all logits at once if widths differ.
    """
    dtype, wide = values.dtype, scale.dtype
    queries, keys, values = (x.to(wide) for x in (queries, keys, values))
    queries = queries * scale[:, None]
    if bias is not None:
        queries = torch.cat([queries, scale[:, None]], dim=1)
        keys = torch.cat([keys, bias[:, None]], dim=1)
    v = values.shape[1]
    width = max(v, queries.shape[1])
    padded = (pad(x, (0, width - x.shape[1]))[None, None] for x in (queries, keys, values))
    return scaled_dot_product_attention(*padded, scale=1.0)[0, 0, :, :v].to(dtype)


class _Formula(torch.autograd.Function):
    """``_reference`` with PyTorch's own gradient, which autocast cannot round either."""

    @staticmethod
    def forward(ctx, *inputs):
        pairs = zip(inputs, ctx.needs_input_grad, strict=True)
        ctx.inputs = [x if x is None else x.detach().requires_grad_(need) for x, need in pairs]
        with torch.enable_grad():
            ctx.mean = _reference(*ctx.inputs)
        ctx.save_for_backward(*inputs)
        return ctx.mean.detach()

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            return _differentiable_gradient(ctx.saved_tensors, ctx.needs_input_grad, grad)
        mean, inputs = ctx.mean, ctx.inputs
        return _gradient_of(mean, inputs, ctx.needs_input_grad, grad, retain_graph=True)


def _differentiable_gradient(inputs, needed, grad):
    """Return the gradient as a function with derivatives of its own: by the formula."""
    # Views tell apart the roles of a tensor that is given twice, as keys and as values.
    inputs = [x if x is None else x.view_as(x) for x in inputs]
    mean = _reference(*inputs)
    return _gradient_of(mean, inputs, needed, grad, create_graph=True)


def _gradient_of(mean, inputs, needed, grad, **options):
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(mean, wanted, grad, **options))
    return tuple(next(found) if need else None for need in needed)


class _SoftmaxMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, values, bias, scale, fused):
        update = _triton().update if fused else _update
        wide = scale.dtype
        top = scale.new_full(scale.shape, -torch.inf)
        total = torch.zeros_like(top)
        mean = scale.new_zeros(len(queries), values.shape[1])
        blocks = Blocks(queries, keys, wide)
        for rows in blocks.rows():
            q, weighted = queries[rows].to(wide), mean[rows]
            for cols in blocks.columns():
                logits = blocks.product(q, keys[cols].to(wide))
                offsets = None if bias is None else bias[cols]
                shrink = update(logits, offsets, scale[rows], top[rows], total[rows])
                weighted.mul_(shrink[:, None]).addmm_(logits, values[cols].to(wide))
        mean /= total[:, None]
        ctx.save_for_backward(queries, keys, values, bias, scale, top, total, mean)
        ctx.fused = fused
        return mean.to(values.dtype)

    @staticmethod
    @without_autocast
    def backward(ctx, grad):
        inputs, needed = ctx.saved_tensors[:5], ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():
            return *_differentiable_gradient(inputs, needed, grad), None
        return *_gradient_by_blocks(ctx.fused, needed, grad, *ctx.saved_tensors), None


def _gradient_by_blocks(fused, needed, grad, queries, keys, values, bias, scale, top, total, mean):
    """Return the gradient, from logits that are computed again block by block."""
    gradient = _triton().gradient if fused else _gradient
    wide = scale.dtype
    grad = grad.to(wide)
    inputs = (queries, keys, values, bias, scale)
    sums = [
        scale.new_zeros(x.shape) if need else None for x, need in zip(inputs, needed, strict=True)
    ]
    to_queries, to_keys, to_values, to_bias, to_scale = sums
    pull = (grad * mean).sum(1)
    blocks, more = Blocks(queries, keys, wide), Blocks(queries, keys, wide)
    for rows in blocks.rows():
        q, g = queries[rows].to(wide), grad[rows]
        for cols in blocks.columns():
            k = keys[cols].to(wide)
            weights = blocks.product(q, k)
            slopes = more.product(g, values[cols].to(wide))
            row_wise = (scale[rows], top[rows], total[rows], pull[rows])
            offsets = None if bias is None else bias[cols]
            target = None if to_scale is None else to_scale[rows]
            gradient(weights, slopes, offsets, *row_wise, target)
            if to_queries is not None:
                to_queries[rows].addmm_(slopes, k)
            if to_keys is not None:
                to_keys[cols].addmm_(slopes.T, q)
            if to_values is not None:
                to_values[cols].addmm_(weights.T, g)
            if to_bias is not None:
                to_bias[cols] += slopes.sum(0)
    pairs = zip(sums, inputs, strict=True)
    return [s if s is None else s.to(x.dtype) for s, x in pairs]


class Blocks:
    """Where the blocks of ``queries × keys`` begin and end, and the room for one of them."""

    def __init__(self, queries: Tensor, keys: Tensor, dtype: torch.dtype):
        self.m, self.n = len(queries), len(keys)
        size, narrowest, widest = BLOCK["cpu" if queries.device.type == "cpu" else "gpu"]
        self.width = min(self.n, widest, max(narrowest, size // self.m))
        self.height = min(self.m, size // self.width)
        self.room = queries.new_empty(self.height * self.width, dtype=dtype)

    def rows(self) -> Iterator[slice]:
        return (slice(i, i + self.height) for i in range(0, self.m, self.height))

    def columns(self) -> Iterator[slice]:
        return (slice(j, j + self.width) for j in range(0, self.n, self.width))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Return ``left @ right.T``, written into the room."""
        out = self.room[: len(left) * len(right)].view(len(left), len(right))
        return torch.mm(left, right.T, out=out)


def _update(logits: Tensor, bias: Tensor | None, scale: Tensor, top: Tensor, total: Tensor):
    """Take in a block: exponentials in place of its logits, new maxima and sums.

    Returns what has come before must be multiplied with, (rows,).
    """
    if bias is not None:
        logits += bias
    logits *= scale[:, None]
    highest = torch.maximum(top, logits.amax(1))
    shrink = torch.exp(top - highest)
    _exponentials(logits, highest)
    total.mul_(shrink).add_(logits.sum(1))
    top.copy_(highest)
    return shrink


def _gradient(logits, slopes, bias, scale, top, total, pull, to_scale):
    """Turn logits into weights and the slopes of the weights into those of the products q·k.

    With respect to the exponents ``t``, softmax has ``wᵢⱼ (slopeᵢⱼ - Σⱼ wᵢⱼ slopeᵢⱼ)``. They sum
    to zero over j, so ``to_scale`` may take exponents relative to the largest.
    """
    if bias is not None:
        logits += bias
    logits *= scale[:, None]
    exponents = None if to_scale is None else logits - top[:, None]
    _exponentials(logits, top)
    logits /= total[:, None]
    slopes.sub_(pull[:, None]).mul_(logits)
    if to_scale is not None:
        to_scale += exponents.mul_(slopes).sum(1) / scale
    slopes *= scale[:, None]


def _exponentials(logits: Tensor, top: Tensor) -> None:
    """Replace logits by ``exp(logits - top)``, and by zero where that is negligible.

    Underflow costs a CPU dearly: the exponential itself takes up to 200 times as long, and matrix
    products with denormal numbers several times. So exponents are cut off before, weights after.
    """
    dtype = torch.finfo(logits.dtype)
    least = dtype.tiny / dtype.eps
    logits.sub_(top[:, None]).clamp_(min=math.log(least) - 1).exp_()
    threshold_(logits, least, 0.0)


def _triton():
    from companion_lib.kernels import softmax_mean_triton

    return softmax_mean_triton


def _check(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> None:
    table = [("queries", queries, 2), ("keys", keys, 2), ("values", values, 2), ("bias", bias, 1)]
    for name, x, ndim in table if bias is not None else table[:3]:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
        if x.ndim != ndim or x.numel() == 0:
            raise ValueError(
                f"{name} must have {ndim} axes and not be empty, got shape {tuple(x.shape)}"
            )
        if x.device != queries.device or (x.dtype != queries.dtype and name != "bias"):
            raise ValueError(
                f"{name} must be {queries.dtype} on {queries.device} as queries are, "
                f"got {x.dtype} on {x.device}"
            )
    n, d = len(keys), queries.shape[1]
    if keys.shape[1] != d:
        raise ValueError(f"keys must have the {d} features of queries, got {keys.shape[1]}")
    if len(values) != n:
        raise ValueError(f"values must have a row for each of {n} keys, got {len(values)}")
    if bias is not None and len(bias) != n:
        raise ValueError(f"bias must have an entry for each of {n} keys, got {len(bias)}")


def _check_scale(scale: Tensor | float, queries: Tensor, wide: torch.dtype) -> Tensor:
    """Return ``scale`` in the dtype of the logits, where it has to be positive and finite too."""
    if isinstance(scale, Real):
        scale = torch.tensor(float(scale), dtype=wide, device=queries.device)
    if not isinstance(scale, Tensor) or not scale.is_floating_point():
        kind = scale.dtype if isinstance(scale, Tensor) else type(scale).__name__
        raise TypeError(f"scale must be a number or a floating-point tensor, got {kind}")
    if scale.shape not in ((), (len(queries),)):
        raise ValueError(
            f"scale must be one number or one for each of {len(queries)} queries, "
            f"got shape {tuple(scale.shape)}"
        )
    if scale.device != queries.device:
        raise ValueError(f"scale must be on {queries.device}, got {scale.device}")
    scale = scale.to(wide)
    if not ((scale > 0) & scale.isfinite()).all():
        raise ValueError(f"scale must be positive and finite, got {scale.tolist()} in {wide}")
    return scale


def _explain(**inputs: Tensor | None) -> None:
    """Say which input made the result NaN or infinite."""
    for name, x in inputs.items():
        if x is not None and not x.detach().isfinite().all():
            bad = int((~x.detach().isfinite()).sum())
            raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
    raise ValueError("scale (queries·keys + bias) or a mean overflows: scale the inputs down")
