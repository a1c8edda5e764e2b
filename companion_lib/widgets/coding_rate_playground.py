"""Drag points, and watch what they cost together, class by class, and the difference."""

from __future__ import annotations

import math
from numbers import Real

import torch
import traitlets
from torch import Tensor

from companion_lib.compression import class_coding_rates, coding_rate, max_rate_reduction
from companion_lib.validation import check_count, check_positive
from companion_lib.widgets.base import Between, Count, Widget

START_ANGLE = 40.0


class CodingRatePlayground(Widget):
    """Points in two classes of the plane, or three of space, and their coding rates.

    Bars show ``R = R_c + ΔR``: the bits a point costs at precision ε if all are coded together,
    the mean over classes coded apart, and what knowing the class saves. Points can be dragged one
    by one, classes can be turned and stretched, and a projected gradient ascent on ΔR turns the
    classes into orthogonal lines.

    Parameters
    ----------
    d : int
        2, for two classes in the plane, or 3, for three in space.
    eps : float
        The precision ε, 0.05 to 1: the mean squared error of a whole point is at most ε².
    per_class : int
        Number of points in each class, 2 to 50.
    seed : int
        Seed of the first points.

    Attributes
    ----------
    points : list of lists of float
        The coordinates, one class after the other. Live: the reader's drags show up here.
    d, eps
        Live. A change of ``d`` brings the first points of that dimension.
    camera : list of two floats
        Azimuth and elevation from which space is seen, in degrees. Live.

    Raises
    ------
    ValueError
        If ``per_class`` is out of range.
    traitlets.TraitError
        If ``d`` or ``eps`` is out of range, or ``points`` are not finite numbers of that shape, at
        any time.

    Notes
    -----
    Book: sections ``gaussian-coding-rate`` and ``rate-reduction``.
    """

    module = "coding_rate_playground.js"
    points = traitlets.List().tag(sync=True)
    eps = Between(0.05, 1.0)
    d = Count(2, 3)
    camera = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)

    def __init__(self, d: int = 2, eps: float = 0.3, per_class: int = 12, seed: int = 0):
        check_count(per_class, "per_class", 50, low=2)
        generator = torch.Generator().manual_seed(seed)
        starts = {str(k): _near_lines(k, per_class, generator) for k in (2, 3)}
        super().__init__(
            d=d,
            eps=eps,
            camera=[310.0, 25.0],
            points=starts.get(str(d), []),
            data={"starts": starts, "per_class": per_class},
        )

    @traitlets.observe("d")
    def _take_first_points(self, change):
        if self.points and len(self.points[0]) != self.d:
            self.points = self.data["starts"][str(self.d)]

    @traitlets.validate("points")
    def _well_shaped(self, proposal):
        n = self.d * self.data.get("per_class", 0)
        try:
            rows = [list(row) for row in proposal.value]
        except TypeError:  # a row that is a number, or None
            rows = None
        if rows is None or len(rows) != n or not all(_is_point(row, self.d) for row in rows):
            raise traitlets.TraitError(f"points must be {n} rows of {self.d} finite numbers")
        return [[float(value) for value in row] for row in rows]

    @property
    def samples(self) -> Tensor:
        """The points ``(n, d)`` as they are now, float64."""
        return torch.tensor(self.points, dtype=torch.float64)

    @property
    def classes(self) -> Tensor:
        """The label of each point ``(n,)``: 0, 1, and in space 2."""
        return torch.arange(len(self.points)) // self.data["per_class"]

    @property
    def angle(self) -> float:
        """The angle between the main directions of classes 1 and 2, in degrees, 0 to 180.

        A direction points to the side of its class's first point. Setting the angle turns class 1
        as a rigid body.
        """
        _, towards, cosine = self._directions()
        return math.degrees(math.atan2(towards.norm().item(), cosine))

    @angle.setter
    def angle(self, degrees: float):
        u, towards, _ = self._directions()
        turn = math.radians(self.angle - degrees)
        length = towards.norm()
        w = towards / length if length > 1e-9 else _some_perpendicular(u)
        Z, m = self.samples, self.data["per_class"]
        along, across = Z[:m] @ u, Z[:m] @ w
        Z[:m] += torch.outer((math.cos(turn) - 1) * along - math.sin(turn) * across, u)
        Z[:m] += torch.outer(math.sin(turn) * along + (math.cos(turn) - 1) * across, w)
        self.points = Z.tolist()

    @property
    def scale(self) -> float:
        """The root mean square length of the points. Setting it stretches them all.

        Raises
        ------
        ValueError
            If it is set to what is not positive and finite, or while all points are zero.
        """
        return self.samples.square().sum(1).mean().sqrt().item()

    @scale.setter
    def scale(self, length: float):
        check_positive(length, "scale")
        now = self.scale
        if now == 0:
            raise ValueError("scale cannot be set while all points are zero: there is no direction")
        self.points = (self.samples * (length / now)).tolist()

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        In bits per point: ``rate``, all together; ``share_1``, ``share_2``, …, the classes' rates
        times their share of the points; ``class_rate``, the sum of those; ``reduction``, the
        difference; ``most``, the largest difference for points of unit length. Then ``angle`` and
        ``scale``.
        """
        Z, labels = self.samples, self.classes
        rate = coding_rate(Z, self.eps).item() / math.log(2)
        shares = class_coding_rates(Z, labels, self.eps) / (self.d * math.log(2))
        sizes, lines = [self.data["per_class"]] * self.d, [1] * self.d
        return {
            "rate": rate,
            **{f"share_{k}": share for k, share in enumerate(shares.tolist(), 1)},
            "class_rate": shares.sum().item(),
            "reduction": rate - shares.sum().item(),
            "most": max_rate_reduction(sizes, lines, self.d, self.eps) / math.log(2),
            "angle": self.angle,
            "scale": self.scale,
        }

    def _directions(self) -> tuple[Tensor, Tensor, float]:
        """Return class 1's direction, the part of class 2's across it, and their cosine."""
        m = self.data["per_class"]
        u, v = (_main_direction(Z) for Z in self.samples[: 2 * m].split(m))
        cosine = (u @ v).item()
        return u, v - cosine * u, cosine


def _is_point(row: list, d: int) -> bool:
    return len(row) == d and all(isinstance(x, Real) and math.isfinite(x) for x in row)


def _main_direction(Z: Tensor) -> Tensor:
    """Return the unit direction in which the rows of ``Z`` are longest, towards the first row."""
    direction = torch.linalg.eigh(Z.T @ Z).eigenvectors[:, -1]
    return -direction if Z[0] @ direction < 0 else direction


def _some_perpendicular(u: Tensor) -> Tensor:
    if len(u) == 2:
        return torch.stack([-u[1], u[0]])
    axis = torch.nn.functional.one_hot(u.abs().argmin(), 3).to(u)
    return torch.nn.functional.normalize(torch.linalg.cross(u, axis), dim=0)


def _near_lines(d: int, per_class: int, generator: torch.Generator) -> list[list[float]]:
    """Return points near ``d`` lines, each two of them at the same sharp angle."""
    # The square root of this matrix of cosines has unit rows with exactly those products.
    cosines = torch.full((d, d), math.cos(math.radians(START_ANGLE)), dtype=torch.float64)
    eigenvalues, vectors = torch.linalg.eigh(cosines.fill_diagonal_(1))
    lines = (vectors * eigenvalues.sqrt()) @ vectors.T
    sides = torch.arange(per_class) % 2 * 2 - 1.0
    sizes = 0.45 + 0.85 * torch.rand(d, per_class, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(d, per_class, d, generator=generator, dtype=torch.float64)
    points = sides[:, None] * sizes * lines[:, None] + 0.07 * noise
    return [[round(value, 4) for value in point] for point in points.flatten(0, 1).tolist()]
