"""What the checks of chapter 4 share: a rate and its units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from companion_lib.exercises.grading import need, need_equal


def need_rate(got: Tensor | float, want: Tensor | float, where: str, failure: str) -> None:
    """Refuse the answer unless it is the rate ``want`` in nats; name bits and a lost ½."""
    got = torch.as_tensor(got, dtype=torch.float64)
    want = torch.as_tensor(want, dtype=torch.float64)
    size = float(want.abs().max())
    for factor, words in ((1 / math.log(2), "in bits, not nats"), (2, "twice the right one")):
        off = float((got - factor * want).abs().max())
        need(off > 1e-8 * size or size < 1e-3, where, f"your rate is {words}")
    need_equal(got, want, where, failure)
