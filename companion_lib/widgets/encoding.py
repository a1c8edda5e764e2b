"""Arrays inside a widget's state: 16- or 8-bit integers as base64, one scale for all of them.

JavaScript and Python decode the same integers, so both compute from exactly the same numbers.
"""

from __future__ import annotations

import base64
import math

import numpy as np
import torch
from torch import Tensor

LARGEST = {16: 32767, 8: 127}


def pack(values: Tensor, scale: float, bits: int = 16) -> dict:
    """Round ``values`` to multiples of ``scale`` and return them as a JSON-ready dictionary.

    Parameters
    ----------
    values : Tensor
        Any shape. Every entry must be smaller than ``32767 * scale`` in size, with 8 bits than
        ``127 * scale``.
    scale : float
        Distance of neighboring representable numbers. A power of two makes decoding exact.
    bits : int
        16, or 8 for half the size.

    Raises
    ------
    ValueError
        If an entry does not fit.
    """
    steps = torch.round(values.detach().cpu().double() / scale)
    if steps.abs().max() > LARGEST[bits]:
        raise ValueError(
            f"values must stay below {LARGEST[bits] * scale:.4g} for scale {scale:.4g}, "
            f"got {values.abs().max().item():.4g}"
        )
    raw = steps.numpy().astype(f"<i{bits // 8}").tobytes()
    return {
        f"int{bits}": base64.b64encode(raw).decode("ascii"),
        "scale": scale,
        "shape": list(values.shape),
    }


def unpack(packed: dict) -> Tensor:
    """Return the float64 tensor that ``pack`` stored."""
    bits = 16 if "int16" in packed else 8
    raw = base64.b64decode(packed[f"int{bits}"])
    steps = np.frombuffer(raw, dtype=f"<i{bits // 8}").astype(np.float64)
    return torch.from_numpy(steps).mul(packed["scale"]).reshape(packed["shape"])


def fine_scale(values: Tensor) -> float:
    """Return the smallest power of two with which :func:`pack` holds ``values``."""
    return 2.0 ** math.ceil(math.log2(values.abs().max().item() / 32767))
