"""What the checks of chapter 3 share: a value compared with the right one and with common slips."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from companion_lib.exercises.grading import need, need_equal


def _equal(got: Tensor | float, want: Tensor | float, tol: float) -> bool:
    got = torch.as_tensor(got, dtype=torch.float64)
    want = torch.as_tensor(want, dtype=torch.float64)
    return bool((got - want).abs().max() <= tol * max(1.0, float(want.abs().max())))


def need_value(
    got: Tensor | float,
    want: Tensor | float,
    where: str,
    failure: str,
    mistakes: Mapping[str, Tensor | float] | None = None,
    tol: float = 1e-8,
) -> None:
    """Refuse the answer unless it is ``want``; a value of ``mistakes`` is named by its key."""
    if _equal(got, want, tol):
        return
    for words, slip in (mistakes or {}).items():
        need(not _equal(got, slip, tol), where, words)
    need_equal(got, want, where, failure, tol)
