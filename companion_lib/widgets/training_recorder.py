"""Watch a network's features while it trains: rates, spectra, and who is close to whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from companion_lib.compression import class_coding_rates, coding_rate, max_rate_reduction
from companion_lib.validation import check_features, check_samples

# Training moves fast at first.
EPOCHS = (0, 1, 2, 3, 4, 6, 8, 10, 13, 17, 22, 28, 35, 43, 51, 60)
PER_CLASS = 10
LARGEST = 16


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """What ``TrainingRecorder`` saw, for ``s`` epochs, ``k`` classes and ``m`` test samples.

    Attributes
    ----------
    epochs : list of int
    rates : Tensor, (s, 2)
        ``R_ε(Z)`` and ``Σ (n_k / n) R_ε(Z_k)`` of the training features, in nats per sample.
    bound : float
        The largest difference of the two that any unit features can have, in nats.
    rank : float
        Mean rank of the classes that reaches the bound.
    spectra : Tensor, (s, k, 16)
        Largest singular values of each class over the root of its size: their squares sum to 1.
    cosines : Tensor, (s, m, m)
        Cosines of the features of ``m`` test samples, sorted by class.
    images, labels : Tensor, (m, pixels) and (m,)
        Those samples.
    """

    epochs: list[int]
    rates: Tensor
    bound: float
    rank: float
    spectra: Tensor
    cosines: Tensor
    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"Trajectory(epochs {self.epochs[0]} to {self.epochs[-1]})"


class TrainingRecorder:
    """Look at the features of a network at some epochs; pass it to ``train`` as ``record``.

    Parameters
    ----------
    encode : callable
        Features ``(n, d)`` of inputs ``(n, pixels)``; their rows are scaled to unit length here.
    X, y : Tensor, (n, pixels) and (n,)
        Training samples, for rates and spectra, and their labels 0, ..., k - 1.
    X_test, y_test : Tensor
        Test samples, at least 10 of each class; the first 10 are shown.
    eps : float
        Precision of the rates: ε, not ε².
    epochs : sequence of int
        Which epochs to look at. Each takes about 14 kB of a widget.

    Raises
    ------
    ValueError
        If a class has too few test samples.

    Notes
    -----
    Book: section ``supervised-image-representations``.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        X: Tensor,
        y: Tensor,
        X_test: Tensor,
        y_test: Tensor,
        eps: float,
        epochs: Sequence[int] = EPOCHS,
    ):
        check_samples(X)
        check_features(X_test, X[0], "X_test")
        self.encode, self.X, self.y, self.eps = encode, X, y, eps
        self.epochs = frozenset(epochs)
        chosen = _first_of_each_class(y_test, int(y.max()) + 1)
        self.images, self.labels = X_test[chosen], y_test[chosen]
        self._seen = []

    @torch.no_grad()
    def __call__(self, epoch: int) -> None:
        """Look at the features now, if ``epoch`` is one of those to look at."""
        if epoch not in self.epochs:
            return
        Z = normalize(self.encode(self.X), dim=1)
        weights = torch.bincount(self.y) / len(self.y)
        apart = (weights * class_coding_rates(Z, self.y, self.eps)).sum()
        classes = [Z[self.y == k] for k in range(len(weights))]
        shown = normalize(self.encode(self.images), dim=1)
        self.size = Z.shape[1]
        self._seen.append(
            (
                epoch,
                torch.stack([coding_rate(Z, self.eps), apart]),
                torch.stack([_spectrum(part) for part in classes]),
                shown @ shown.T,
            )
        )

    @property
    def trajectory(self) -> Trajectory:
        """What was seen up to now.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        if not self._seen:
            raise ValueError("nothing is recorded: pass the recorder to train as record")
        epochs, rates, spectra, cosines = zip(*self._seen, strict=True)
        sizes = torch.bincount(self.y).tolist()
        ranks = _best_ranks(sizes, self.size, self.eps)
        return Trajectory(
            epochs=list(epochs),
            rates=torch.stack(rates),
            bound=max_rate_reduction(sizes, ranks, self.size, self.eps),
            rank=sum(ranks) / len(ranks),
            spectra=torch.stack(spectra),
            cosines=torch.stack(cosines),
            images=self.images,
            labels=self.labels,
        )


def _first_of_each_class(labels: Tensor, k: int) -> Tensor:
    """Return where the first ``PER_CLASS`` samples of each class are, class by class."""
    chosen = []
    for label in range(k):
        found = (labels == label).nonzero()[:PER_CLASS, 0]
        if len(found) < PER_CLASS:
            raise ValueError(
                f"y_test must have at least {PER_CLASS} samples of each class, "
                f"got {len(found)} of class {label}"
            )
        chosen.append(found)
    return torch.cat(chosen)


def _spectrum(Z: Tensor) -> Tensor:
    """Return the 16 largest singular values over the root of the number of rows."""
    values = torch.linalg.svdvals(Z) / len(Z) ** 0.5
    return torch.nn.functional.pad(values, (0, LARGEST))[:LARGEST]


def _best_ranks(sizes: list[int], d: int, eps: float) -> list[int]:
    """Return the ranks that allow the largest ΔR.

    One direction after the other goes to the class where it helps most, while there is room and
    it helps. No other choice does better: a class's share of ΔR is concave in its rank up to the
    maximum, and falls from there.
    """
    ranks = [1] * len(sizes)
    reached = max_rate_reduction(sizes, ranks, d, eps)
    while sum(ranks) < d:
        options = [
            [rank + (i == k) for i, rank in enumerate(ranks)]
            for k in range(len(sizes))
            if ranks[k] < sizes[k]
        ]
        best = max(
            options, key=lambda ranks: max_rate_reduction(sizes, ranks, d, eps), default=ranks
        )
        value = max_rate_reduction(sizes, best, d, eps)
        if value <= reached:
            break
        ranks, reached = best, value
    return ranks
