"""Classify by the nearest of the subspaces that the classes span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.compression.coding_rate import check_filled
from companion_lib.validation import check_count, check_features, check_samples, working


@dataclass(frozen=True, eq=False, repr=False)
class NearestSubspaceClassifier:
    """One subspace through the origin for each class; made by ``NearestSubspaceClassifier.fit``.

    Attributes
    ----------
    components : Tensor, (k, r, d)
        For each class an orthonormal basis as rows, leading directions first.
    singular_values : Tensor, (k, r)
        Of the training samples along them.
    """

    components: Tensor
    singular_values: Tensor

    @classmethod
    def fit(cls, Z: Tensor, labels: Tensor, rank: int) -> NearestSubspaceClassifier:
        """Fit to each class the ``rank`` leading right singular vectors of its samples.

        Parameters
        ----------
        Z : Tensor, (n, d)
            Samples as rows, not centered. Half precision is computed in float32.
        labels : Tensor, (n,)
            Integers 0, ..., k - 1.
        rank : int
            Dimension of the subspaces: at most ``d`` and the size of the smallest class.

        Raises
        ------
        TypeError
            If ``Z`` is not floating-point or the labels are not integers.
        ValueError
            If a class is empty, shapes do not fit, ``rank`` is out of range, or there are NaN.

        Notes
        -----
        Book: section ``supervised-image-representations``.
        """
        Z = working(check_samples(Z, "Z"))
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(f"labels must be a tensor of integers, got {kind}")
        labels, sizes = check_filled(labels, len(Z))
        most = min(int(sizes.min()), Z.shape[1])
        check_count(rank, "rank", most, "smaller of class size and dimension")
        fits = [torch.linalg.svd(Z[labels == c], full_matrices=False) for c in range(len(sizes))]
        return cls(
            torch.stack([fit.Vh[:rank] for fit in fits]),
            torch.stack([fit.S[:rank] for fit in fits]),
        )

    def residuals(self, Z: Tensor) -> Tensor:
        """Return the squared distances ``(n, k)`` of samples ``(n, d)`` to the subspaces.

        From what each projection leaves of a sample: a difference of squared norms would lose
        distances that are small against it.
        """
        check_samples(Z, "Z")
        Z = check_features(working(Z), self.components[0, 0], "Z")
        left = (Z - (Z @ basis.T) @ basis for basis in self.components)  # (n, d) at a time
        return torch.stack([rest.square().sum(1) for rest in left], 1)

    def predict(self, Z: Tensor) -> Tensor:
        """Return the class ``(n,)`` whose subspace is nearest to each sample of ``(n, d)``."""
        return self.residuals(Z).argmin(1)

    def __repr__(self) -> str:
        k, rank, d = self.components.shape
        return f"NearestSubspaceClassifier(classes={k}, rank={rank}, d={d})"
