"""Cluster lines and a plane by their coding length, at every precision."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import traitlets
from torch import Tensor

from companion_lib import data
from companion_lib.compression import cluster_by_coding_length, coding_length
from companion_lib.widgets.base import Between, Count, Widget
from companion_lib.widgets.encoding import fine_scale, pack, unpack

N = 358
NOISE = 0.05
LOWEST, HIGHEST, PER_DECADE = -8.0, 0.5, 4


class ClusterByCost(Widget):
    """Two lines and a plane in space, clustered by steepest descent on the coding length.

    Points are merged into clusters, always the two whose union saves most bits, all the way from
    every point alone to one cluster. The widget shows where the descent stops for each precision
    ε, what that costs, and what the true partition, one cluster, and every point alone cost: so
    the reader sees which clusterings are optima of the objective and where greedy merging is stuck.

    Parameters
    ----------
    eps : float
        Precision ε, 1e-8 to 10**0.5, rounded to quarters of a decade.
    overhead : bool
        True: a cluster pays for its model, ``(n_k + d) R``, as in the published figure.
        False: ``n_k R``, as the book prints the algorithm.
    merges : int, optional
        Merges shown, 0 to 357; where the descent stops, if not given.
    seed : int
        Seed of the points.

    Attributes
    ----------
    eps, overhead, merges
        Live: set them to move the widget; the reader's moves show up here. Setting one of the
        first two moves ``merges`` to the stop of the new path.

    Raises
    ------
    traitlets.TraitError
        If ``eps`` or ``merges`` is out of range, at any time.

    Notes
    -----
    The first widget of a seed computes 70 paths of merges; later ones find them done.

    Book: section ``clustering-gaussians``.
    """

    module = "cluster_by_cost.js"
    eps = Between(10**LOWEST, 10**HIGHEST)
    overhead = traitlets.Bool().tag(sync=True)
    merges = Count(0, N - 1)

    def __init__(
        self,
        eps: float = 1e-3,
        overhead: bool = True,
        merges: int | None = None,
        seed: int = 0,
    ):
        super().__init__(eps=eps, overhead=overhead, data=_paths(seed))
        self.merges = self._stop() if merges is None else merges

    @traitlets.validate("eps")
    def _on_the_grid(self, proposal):
        return 10 ** (round(math.log10(proposal.value) * PER_DECADE) / PER_DECADE)

    @traitlets.observe("eps", "overhead")
    def _to_the_stop(self, change):
        if self.data:
            self.merges = self._stop()

    @property
    def points(self) -> Tensor:
        """The points ``(358, 3)``, float64."""
        return unpack(self.data["points"])

    @property
    def truth(self) -> Tensor:
        """Where each point is from ``(358,)``: 0 and 1 for the lines, 2 for the plane."""
        return torch.tensor(self.data["truth"])

    @property
    def labels(self) -> Tensor:
        """The cluster of each point ``(358,)`` after the merges of now."""
        return self._labels_after(self.merges)

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        ``clusters``, their ``bits`` per vector and ``rand``, the adjusted Rand index against the
        truth; bits per vector where the descent stops (``greedy_bits``), and those of the true
        partition, one cluster, and every point alone (``true_bits``, ``one_bits``, ``alone_bits``).
        """
        from sklearn.metrics import adjusted_rand_score

        return {
            "clusters": N - self.merges,
            "bits": self._bits(self.labels),
            "rand": float(adjusted_rand_score(self.truth, self.labels)),
            "greedy_bits": self._bits(self._labels_after(self._stop())),
            "true_bits": self._bits(self.truth),
            "one_bits": self._bits(torch.zeros(N, dtype=torch.long)),
            "alone_bits": self._bits(torch.arange(N)),
        }

    def _path(self) -> tuple[int, int]:
        """Return where the path of now is stored: objective and place on the grid."""
        return int(self.overhead), round((math.log10(self.eps) - LOWEST) * PER_DECADE)

    def _stop(self) -> int:
        objective, place = self._path()
        return self.data["stops"][objective][place]

    def _labels_after(self, count: int) -> Tensor:
        labels = torch.arange(N)
        for kept, gone in unpack(self.data["merges"])[self._path()][:count].tolist():
            labels[labels == int(gone)] = int(kept)
        return labels

    def _bits(self, labels: Tensor) -> float:
        """Return the bits per vector of a partition."""
        nats = coding_length(self.points, labels, self.eps, self.overhead).item()
        return nats / N / math.log(2)


@lru_cache(maxsize=4)
def _paths(seed: int) -> dict:
    """Return the points and, for both objectives and every precision, the path of merges."""
    generator = torch.Generator().manual_seed(seed)
    X, truth = data.two_lines_and_a_plane(noise=NOISE, generator=generator)
    points = pack(X.double(), fine_scale(X))
    count = round((HIGHEST - LOWEST) * PER_DECADE) + 1
    grid = [LOWEST + step / PER_DECADE for step in range(count)]
    paths = [
        [cluster_by_coding_length(unpack(points), 10**power, overhead) for power in grid]
        for overhead in (False, True)
    ]
    return {
        "points": points,
        "truth": truth.tolist(),
        "lines": [_direction(unpack(points)[truth == line]) for line in (0, 1)],
        "noise": NOISE,
        "grid": grid,
        "ends": [10**LOWEST, 10**HIGHEST],
        "merges": pack(torch.stack([torch.stack([p.merges for p in row]) for row in paths]), 1.0),
        "stops": [[path.steps for path in row] for row in paths],
    }


def _direction(points: Tensor) -> list[float]:
    """Return the unit vector along points near a line."""
    return [round(x, 6) for x in torch.linalg.svd(points, full_matrices=False).Vh[0].tolist()]
