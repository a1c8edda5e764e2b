"""How many dimensions the best representation gives each class, against the precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import traitlets

from companion_lib.compression import best_rank, max_rate_reduction
from companion_lib.widgets.base import Between, Count, Widget


class RankAgainstEpsilon(Widget):
    """The rank that makes rate reduction largest, as the precision ε changes.

    ``k`` classes of equal size, of unit mean square length, lie in orthogonal subspaces of rank
    ``r`` and use them evenly. The widget draws their ΔR against ``r``, the best ``r`` against ε,
    and what the best representation looks like: its singular values and the cosines between
    samples. Small ε asks for every dimension there is; large ε lets classes collapse to lines.

    Parameters
    ----------
    eps : float
        The precision ε, 0.25 to 5.
    k : int
        Number of classes, 2 to 10, and at most ``d``.
    d : int
        Dimension of the representation, 4 to 64.

    Attributes
    ----------
    eps, k, d
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    traitlets.TraitError
        If ``eps``, ``k`` or ``d`` is out of range, or ``k`` exceeds ``d``, at any time.

    Notes
    -----
    Book: section ``rate-reduction-landscape``.
    """

    module = "rank_against_epsilon.js"
    eps = Between(0.25, 5.0)
    k = Count(2, 10)
    d = Count(4, 64)

    def __init__(self, eps: float = 0.7, k: int = 4, d: int = 32):
        super().__init__(eps=eps, k=k, d=d)

    @traitlets.validate("k", "d")
    def _classes_fit(self, proposal):
        k, d = ({"k": self.k, "d": self.d} | {proposal.trait.name: proposal.value}).values()
        if k > d:
            raise traitlets.TraitError(f"k must be at most d, got k = {k} and d = {d}")
        return proposal.value

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        ``best_rank`` per class and its ``best`` ΔR; the ``full_rank`` that fits, its ΔR ``full``,
        and the largest precision at which it is best, ``full_rank_eps``; the ``singular_value`` of
        a class at the best rank, for samples of unit mean square length, times ``1/sqrt(n_k)``;
        ``free_rank``, the best one if it need not be whole nor fit. ΔR in bits per sample.
        """
        rank, full = best_rank(self.k, self.d, self.eps), self.d // self.k
        return {
            "best_rank": rank,
            "best": self._bits(rank, self.eps),
            "full_rank": full,
            "full": self._bits(full, self.eps),
            "full_rank_eps": self._full_rank_eps(),
            "singular_value": 1 / math.sqrt(rank),
            "free_rank": self.d / (_best_ratio(self.k) * self.eps**2),
        }

    def _bits(self, rank: int, eps: float) -> float:
        sizes, ranks = [self.d] * self.k, [rank] * self.k
        return max_rate_reduction(sizes, ranks, self.d, eps) / math.log(2)

    def _full_rank_eps(self) -> float:
        full = self.d // self.k
        if full == 1:
            return math.inf
        return _root(lambda eps: self._bits(full, eps) - self._bits(full - 1, eps), 0.1, 10)


def _best_ratio(k: int) -> float:
    """Return the ``x = d/(r ε²)`` at which ``(k log(1 + x/k) - log(1 + x))/x`` is largest.

    ΔR of rank ``r`` is ``d/(2 ε²)`` times that, so ``x`` does not depend on ``d`` or ε.
    """

    def slope(x: float) -> float:
        return x / (1 + x / k) - x / (1 + x) - k * math.log1p(x / k) + math.log1p(x)

    return _root(slope, 0.1, 100)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where ``falling`` changes from positive to negative, by halving in the logarithm."""
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low
