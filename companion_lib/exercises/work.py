"""What an answer to an exercise does: the tensors it makes and the matrices it factors."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
