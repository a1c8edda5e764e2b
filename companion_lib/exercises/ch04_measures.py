"""What the checks of chapter 4 share: a rate's units, and the work that an answer does."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from companion_lib.exercises.grading import need, need_equal

_FACTORIZATIONS = {
    "_linalg_det",
    "_linalg_eigh",
    "_linalg_slogdet",
    "_linalg_svd",
    "cholesky",
    "linalg_cholesky_ex",
    "linalg_eig",
    "linalg_ldl_factor_ex",
    "linalg_lu",
    "linalg_lu_factor_ex",
    "linalg_qr",
}


def need_rate(got: Tensor | float, want: Tensor | float, where: str, failure: str) -> None:
    """Refuse the answer unless it is the rate ``want`` in nats; name bits and a lost ½."""
    got = torch.as_tensor(got, dtype=torch.float64)
    want = torch.as_tensor(want, dtype=torch.float64)
    size = float(want.abs().max())
    for factor, words in ((1 / math.log(2), "in bits, not nats"), (2, "twice the right one")):
        off = float((got - factor * want).abs().max())
        need(off > 1e-8 * size or size < 1e-3, where, f"your rate is {words}")
    need_equal(got, want, where, failure)


class Work(TorchDispatchMode):
    """Count what torch does inside a ``with`` block.

    Attributes
    ----------
    largest : int
        Numbers held by the largest tensor that an operation returned.
    factored : int
        Matrices factored: determinants, eigenvalues, Cholesky factors and the like.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.factored = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                held = made.untyped_storage().nbytes() // made.element_size()
                self.largest = max(self.largest, held)
        if operation.overloadpacket.__name__ in _FACTORIZATIONS:
            self.factored += math.prod(args[0].shape[:-2])
        return result
