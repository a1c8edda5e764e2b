"""Kernels keep their precision where autocast is on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor


def without_autocast(function: Callable) -> Callable:
    """Return ``function`` with autocast off on the device of its first tensor.

    ``torch.autocast`` computes every ``@`` in half precision, whatever the dtype of its arguments.
    """

    @wraps(function)
    def precise(*args, **kwargs):
        tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        device = next((x.device.type for x in tensors), "cpu")
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return precise
