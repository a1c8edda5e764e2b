"""Small runs for a laptop, full runs for a GPU: one table of sizes per notebook."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

NAMES = ("small", "full")


@dataclass(frozen=True, repr=False)
class Scale:
    """The sizes a notebook runs at; ``S.images`` is the size in use of the column ``images``.

    ``name`` is ``"small"`` or ``"full"``, ``device`` where to put tensors, ``generator`` the
    seeded CPU generator to draw from. Printing it shows the whole table.
    """

    name: str
    seed: int
    device: torch.device
    generator: torch.Generator
    columns: MappingProxyType

    def __getattr__(self, column: str) -> Any:
        columns = self.__dict__.get("columns", {})
        if column in columns:
            return columns[column][NAMES.index(self.name)]
        raise AttributeError(f"no column {column!r} in this scale; it has {', '.join(columns)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.columns]

    def __repr__(self) -> str:
        head = ("", *(f"*{name}" if name == self.name else name for name in NAMES))
        rows = [head, *((column, *map(str, pair)) for column, pair in self.columns.items())]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = (
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )
        return "\n".join([*lines, f"* in use, on {self.device.type}, seed {self.seed}"])


def choose(seed: int = 0, **columns: tuple) -> Scale:
    """Choose this run's sizes and seed torch once.

    The environment variable ``COMPANION_SCALE`` (``small`` or ``full``) decides. Without it,
    full is used where CUDA is available and small elsewhere.

    Parameters
    ----------
    seed : int
        Seeds the returned CPU generator and torch's global one.
    **columns : tuple
        A ``(small, full)`` pair per size.

    Raises
    ------
    ValueError
        If ``COMPANION_SCALE`` is something else, or a column has a reserved name.
    TypeError
        If a column is not a pair.

    Examples
    --------
    >>> S = choose(seed=0, images=(5000, 70000), atoms=(128, 512))
    >>> S.images in (5000, 70000)
    True
    """
    for column, pair in columns.items():
        if column in Scale.__dataclass_fields__:
            raise ValueError(f"the column name {column!r} is taken: use another one")
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"{column} must be a (small, full) pair, got {pair!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = os.environ.get("COMPANION_SCALE") or ("full" if device.type == "cuda" else "small")
    if name not in NAMES:
        raise ValueError(f"COMPANION_SCALE must be 'small' or 'full', got {name!r}")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return Scale(name, seed, device, generator, MappingProxyType(columns))
