"""Covering a set of points with balls: each center is a code word, ε is the precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.validation import check_features, check_range, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class GreedyCover:
    """Centers that cover a set of points, chosen one by one.

    Attributes
    ----------
    indices : Tensor, (m,)
        Which points are the centers, in the order in which they were chosen.
    radii : Tensor, (m,)
        The covering radius after each choice; not increasing.
    """

    indices: Tensor
    radii: Tensor

    @property
    def radius(self) -> float:
        """Largest distance from a point to its nearest center."""
        return self.radii[-1].item()

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"GreedyCover({len(self)} centers)"


def covering_radius(points: Tensor, centers: Tensor) -> Tensor:
    """Return the largest distance from a point to its nearest center.

    Parameters
    ----------
    points : Tensor, (n, d)
        Half precision is computed in float32.
    centers : Tensor, (m, d)

    Returns
    -------
    Tensor, ()

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit, or there are NaN.

    Notes
    -----
    In blocks of points, so that no more than about four million distances exist at a time.

    Book: section ``rate-distortion``.
    """
    check_samples(points, "points")
    check_features(centers, points[0], "centers")
    points, centers = working(points), working(centers)
    rows = max(1, 2**22 // len(centers))
    nearest = [_distances(block, centers).amin(1).max() for block in points.split(rows)]
    return torch.stack(nearest).max()


def greedy_cover(points: Tensor, eps: float) -> GreedyCover:
    """Cover points by balls of radius ε around some of them, farthest point first.

    The centers lie more than ε apart, so their number is also the size of an ε-packing: it is at
    most the least number of balls of radius ε/2 that cover the points, and at least that for ε.

    Parameters
    ----------
    points : Tensor, (n, d)
        The first one is the first center. Half precision is computed in float32.
    eps : float, at least 0
        ε, not ε²: the radius, a distance that no point exceeds. So the mean squared error of
        coding points by their nearest centers is at most ε².

    Returns
    -------
    GreedyCover

    Raises
    ------
    ValueError
        If ``points`` is empty or has NaN, or ``eps`` is negative.

    Notes
    -----
    ``n d`` operations for each center.

    Book: section ``rate-distortion``; Gonzalez (1985).
    """
    points = working(check_samples(points, "points"))
    check_range(eps, "eps", 0)
    chosen, radii = [0], []
    nearest = (points - points[0]).norm(dim=1)
    while True:
        radius, farthest = nearest.max(0)
        radii.append(radius)
        if radius <= eps:
            return GreedyCover(torch.tensor(chosen, device=points.device), torch.stack(radii))
        chosen.append(int(farthest))
        nearest = torch.minimum(nearest, (points - points[farthest]).norm(dim=1))


def _distances(points: Tensor, centers: Tensor) -> Tensor:
    # Without matrix products, which lose the distances of points that nearly coincide.
    return torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist")
