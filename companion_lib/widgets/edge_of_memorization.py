"""Samples beside their nearest training points, as capacity and training set grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
import traitlets
from torch import Tensor

from companion_lib import data
from companion_lib.denoising import (
    PartialMemorizer,
    Process,
    VariancePreserving,
    angle_grid,
    ddim,
    denoising_loss,
    memorization_ratio,
    uniform_angles,
)
from companion_lib.denoising.training import stratified
from companion_lib.subspaces import pca
from companion_lib.validation import (
    check_count,
    check_features,
    check_like,
    check_samples,
    draw_normal,
)
from companion_lib.widgets.base import Widget
from companion_lib.widgets.encoding import pack

SIZES = (50, 100, 200)
SHOWN = 12  # samples of each model on display
DRAWN = 400  # samples of each model that its ratio counts
NOISED = 3200  # at least as many noised points measure a loss
ROOM = 200_000  # pixels in the state, a byte each


class EdgeOfMemorization(Widget):
    """When models trained on N points start to replay them: at what capacity M/N.

    Each model is a ``PartialMemorizer``, whose capacity is its M means. The widget shows samples
    of the chosen one beside the two training points nearest to each, frames the memorized ones,
    and draws two curves over the capacity: the share of samples that are memorized, and the
    denoising loss on the training set and on new points.

    Parameters
    ----------
    models : mapping from int to sequence of PartialMemorizer, optional
        Trained models for each of at most four sizes N; those of N were trained on ``X[:N]``. Every
        N has the same capacities M/N, rising in equal steps. Not given: models are trained here,
        on scikit-learn's digits in 30 principal coordinates, in some ten seconds.
    X : Tensor, (n, d), optional
        The training points, as many as the largest N; with ``models``.
    held_out : Tensor, (h, d), optional
        Points that no model has seen; with ``models``.
    decode : callable, optional
        Pixels ``(k, p)`` in [0, 1] of a square image for each of points ``(k, d)``. Not given:
        points are pixels.
    size : int, optional
        The N that is shown; the middle one unless given.
    capacity : float, optional
        The M/N that is shown, or near it; 0.8 unless given.
    seed : int
        Seed of the noise that samples start from, and of the training done here.

    Attributes
    ----------
    size, capacity
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    TypeError
        If ``models``, ``X`` or ``held_out`` is of another type.
    ValueError
        If some of ``models``, ``X`` and ``held_out`` are given and not all, shapes do not fit, an N
        is larger than ``X``, capacities differ or are not evenly spaced, or images do not fit in
        the state.
    traitlets.TraitError
        If there are no models for ``size``, or ``capacity`` is not within theirs, at any time.

    Notes
    -----
    Every model's samples start from the same noise: moving the capacity moves the same samples.

    Book: section ``memorization-and-generalization``.
    """

    module = "edge_of_memorization.js"
    size = traitlets.Int().tag(sync=True)
    capacity = traitlets.Float().tag(sync=True)

    def __init__(
        self,
        models: Mapping[int, Sequence[PartialMemorizer]] | None = None,
        X: Tensor | None = None,
        held_out: Tensor | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
        size: int | None = None,
        capacity: float | None = None,
        seed: int = 0,
    ):
        given = [argument is not None for argument in (models, X, held_out)]
        if any(given) and not all(given):
            raise ValueError("give all of models, X and held_out, or none of them")
        stored = _stored(models, X, held_out, decode, seed) if all(given) else _digits(seed)
        sizes, capacities = stored["sizes"], stored["capacities"]
        super().__init__(
            data=stored,
            size=sizes[len(sizes) // 2] if size is None else size,
            capacity=_nearest(0.8, capacities) if capacity is None else capacity,
        )

    @traitlets.validate("size")
    def _trained(self, proposal):
        sizes = self.data.get("sizes", [proposal.value])
        if proposal.value not in sizes:
            raise traitlets.TraitError(f"size must be one of {sizes}, got {proposal.value}")
        return proposal.value

    @traitlets.validate("capacity")
    def _computed(self, proposal):
        capacities = self.data.get("capacities", [proposal.value])
        if not capacities[0] <= proposal.value <= capacities[-1]:
            raise traitlets.TraitError(
                f"capacity must be between {capacities[0]} and {capacities[-1]}, "
                f"got {proposal.value}"
            )
        return _nearest(proposal.value, capacities)

    def values(self) -> dict[str, float]:
        """Return the numbers on display.

        Of the chosen model: its ``means`` M, its ``ratio`` of memorized samples and how many are
        ``framed`` on display; in percent of the data's variance the denoising ``loss`` on its
        training points, on ``held_out`` ones, the ``gap`` between the two, and the variance
        ``within`` its balls. Of all models of its size: ``edge``, the capacity where the ratio
        passes 1/2 on straight lines between computed ones, infinite if none does; and ``best``,
        the capacity with the least loss on held-out points.
        """
        models = self.data["models"][self.data["sizes"].index(self.size)]
        capacities = self.data["capacities"]
        model = models[capacities.index(self.capacity)]
        near, far = torch.tensor(model["distances"], dtype=torch.float64).T
        unseen = [one["held_out"] for one in models]
        return {
            "means": model["means"],
            "ratio": model["ratio"],
            "framed": int((near <= far / 3).sum()),
            "loss": model["loss"],
            "held_out": model["held_out"],
            "gap": model["held_out"] - model["loss"],
            "within": model["within"],
            "edge": _crossing(capacities, [one["ratio"] for one in models]),
            "best": capacities[unseen.index(min(unseen))],
        }


def train_memorizers(
    X: Tensor,
    process: Process,
    counts: Sequence[int],
    steps: int = 400,
    generator: torch.Generator | None = None,
) -> list[PartialMemorizer]:
    """Train models of several capacities on the same noised batches.

    Each starts with its means on the first of the training points.

    Parameters
    ----------
    X : Tensor, (n, d)
        Training points, of mean square about one.
    process : Process
    counts : sequence of int
        Number of means of each model, at most n.
    steps : int
    generator : torch.Generator, optional

    Returns
    -------
    list of PartialMemorizer
        No longer trainable.

    Raises
    ------
    ValueError
        If a count is out of range.

    Notes
    -----
    ``steps`` batches of 128 at uniform angles; Adam, its rate falling from 0.03 to zero. Without
    the fall, means would keep jittering around the points that they copy.

    Book: section ``memorization-and-generalization``.
    """
    check_samples(X)
    for count in counts:
        check_count(count, "each of counts", len(X), "the number of training points")
    models = [PartialMemorizer(X[:count], process) for count in counts]
    optimizer = torch.optim.Adam(
        [weight for model in models for weight in model.parameters()], 0.03
    )
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, steps)
    for _ in range(steps):
        x = X[torch.randint(len(X), (128,), generator=generator).to(X.device)]
        t, noise = _noise(x, process, generator)
        x_t = process.add_noise(x, t, noise)
        losses = [(model(x_t, t) - x).square().sum(1).mean() for model in models]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # each model gets the gradient of its own loss
        optimizer.step()
        falling.step()
    return [model.requires_grad_(False) for model in models]


def _noise(x: Tensor, process: Process, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return times at stratified angles, and noise, one of each for every row of ``x``."""
    times = uniform_angles(process)(stratified(len(x), x, generator))
    return times, draw_normal(x.shape, x, generator)


@lru_cache(maxsize=4)
def _digits(seed: int) -> dict:
    """Train models of digits in principal coordinates scaled to mean square one."""
    generator = torch.Generator().manual_seed(seed)
    images, _ = data.digits()
    images = images[torch.randperm(len(images), generator=generator)]
    basis = pca(images, 30)
    Z = basis.encode(images)
    unit = Z.square().mean().sqrt()
    X, held_out = Z[: max(SIZES)] / unit, Z[1000:] / unit
    models = {
        N: train_memorizers(
            X[:N],
            VariancePreserving(),
            [N * tenths // 10 for tenths in range(1, 11)],
            generator=generator,
        )
        for N in SIZES
    }
    return _stored(models, X, held_out, lambda x: basis.decode(x * unit), seed)


@torch.no_grad()
def _stored(models, X, held_out, decode, seed: int) -> dict:
    """Return what the widget shows of the models."""
    check_samples(X)
    check_features(held_out, X[0], "held_out")
    capacities = _capacities(models, X)
    generator = torch.Generator().manual_seed(seed)
    start = draw_normal((DRAWN, X.shape[1]), X, generator)
    variance = X.var(0, correction=0).sum().item()
    percent = 100 / variance
    results, pictures = [], []
    for N, several in models.items():
        results.append([])
        for model in several:
            samples = ddim(model, model.process, start, angle_grid(model.process, 40))[-1]
            found = memorization_ratio(samples, X[:N])
            pictures.append(samples[:SHOWN])
            within = model.log_variance.exp().item() * X.shape[1]
            results[-1].append(
                {
                    "means": len(model.means),
                    "ratio": found.ratio,
                    "loss": round(percent * _loss(model, X[:N], seed), 3),
                    "held_out": round(percent * _loss(model, held_out, seed), 3),
                    "within": round(percent * within, 3),
                    "nearest": found.indices[:SHOWN].tolist(),
                    "distances": [
                        [round(distance, 4) for distance in pair]
                        for pair in found.distances[:SHOWN].tolist()
                    ],
                }
            )
    points = torch.cat([X[: max(models)], *pictures])
    return {
        "sizes": list(models),
        "capacities": capacities,
        "models": results,
        "images": pack(_pixels(points, decode), 1 / 127, 8),  # training points, then samples
    }


def _capacities(models: Mapping[int, Sequence[PartialMemorizer]], X: Tensor) -> list[float]:
    """Return the capacities that models of every size have."""
    check_count(len(models), "the number of sizes in models", 4)
    for N, several in models.items():
        check_count(N, "each size in models", len(X), "the number of rows of X", low=2)
        for model in several:
            if not isinstance(model, PartialMemorizer):
                raise TypeError(
                    f"models must hold PartialMemorizers, got {type(model).__name__} for N = {N}"
                )
            check_like(model.means, "the means of models", (len(model.means), X.shape[1]), X)
    found = [[round(len(m.means) / N, 2) for m in several] for N, several in models.items()]
    for other in found[1:]:
        if other != found[0]:
            raise ValueError(
                f"models must have the same capacities M/N for every N, got {found[0]} and {other}"
            )
    check_count(len(found[0]), "the number of models of each size", 20, low=2)
    steps = torch.tensor(found[0], dtype=torch.float64).diff()
    if steps.min() <= 0 or steps.max() - steps.min() > 0.001:
        raise ValueError(f"capacities M/N must rise in equal steps, got {found[0]}")
    return found[0]


def _loss(model: PartialMemorizer, X: Tensor, seed: int) -> float:
    """Return the denoising loss on every point at many angles, the same for every model."""
    generator = torch.Generator().manual_seed(seed)
    # Times rise along the rows: repeated as a whole, each point meets all angles.
    x = X.repeat(math.ceil(NOISED / len(X)), 1)
    t, noise = _noise(x, model.process, generator)
    return denoising_loss(model, model.process, x, t, noise).mean().item()


def _pixels(points: Tensor, decode: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Return points as images whose values are in [0, 1]."""
    images = points if decode is None else decode(points)
    check_samples(images, "decode(x)")
    if len(images) != len(points) or math.isqrt(images.shape[1]) ** 2 != images.shape[1]:
        raise ValueError(
            f"decode must return a square number of pixels for each of {len(points)} points, "
            f"got shape {tuple(images.shape)}"
        )
    if images.numel() > ROOM:
        raise ValueError(
            f"training images and {SHOWN} samples of each model must have at most {ROOM} pixels "
            f"in all, got {images.numel()}: give fewer models or smaller images"
        )
    return images.clamp(0, 1)


def _nearest(value: float, capacities: list[float]) -> float:
    return min(capacities, key=lambda capacity: abs(capacity - value))


def _crossing(capacities: list[float], ratios: list[float]) -> float:
    """Return the first capacity where straight lines between the ratios reach 1/2."""
    low, before = 0.0, 0.0
    for high, after in zip(capacities, ratios, strict=True):
        if after >= 0.5:
            return low + (0.5 - before) / (after - before) * (high - low)
        low, before = high, after
    return math.inf
