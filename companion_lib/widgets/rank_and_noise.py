"""Denoise digits by projection or shrinkage, and find the best rank."""

from __future__ import annotations

import torch
import traitlets
from torch import Tensor

from companion_lib import data
from companion_lib.subspaces import PCA, pca, shrink
from companion_lib.validation import check_range
from companion_lib.widgets.base import Between, Count, Widget
from companion_lib.widgets.encoding import fine_scale, pack, unpack


class RankAndNoise(Widget):
    """Ten noisy digits, denoised by the principal components of others.

    The components come from half of the digits; the ten on display and the error curve come from
    the other half. Keeping more components loses less signal and keeps more noise, so the curve
    has a minimum, which moves to lower rank as the noise grows. Shrinkage by the Wiener factors
    does better than projection at every rank, and is hardly hurt by too many components.

    Parameters
    ----------
    rank : int
        Number of components kept, 1 to ``components``; not given, 100 or all if they are fewer.
    noise : float
        Standard deviation of the Gaussian noise on pixels in [0, 1], between 0 and 1.
    shrink : bool
        Multiply each kept component by ``lambda / (lambda + noise^2)``, instead of by 1.
    components : int
        Largest rank, 2 to 120.
    seed : int
        Seed of the split, of the choice of digits and of the noise.

    Attributes
    ----------
    rank, noise, shrink
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    ValueError
        If ``components`` is out of range.
    traitlets.TraitError
        If ``rank`` or ``noise`` is out of range, at any time.

    Notes
    -----
    Book: sections ``pca`` and ``ppca``.
    """

    module = "rank_and_noise.js"
    rank = Count(1, 120)
    noise = Between(0.0, 1.0)
    shrink = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        rank: int | None = None,
        noise: float = 0.5,
        shrink: bool = False,
        components: int = 120,
        seed: int = 0,
    ):
        check_range(components, "components", 2, 120)
        super().__init__(
            rank=min(100, components) if rank is None else rank,
            noise=noise,
            shrink=shrink,
            data=_digits_and_basis(components, seed),
        )

    @traitlets.validate("rank")
    def _within_basis(self, proposal):
        stored = self.data.get("eigenvalues")
        if stored and proposal.value > len(stored):
            raise traitlets.TraitError(
                f"rank must be between 1 and components = {len(stored)}, got {proposal.value}"
            )
        return proposal.value

    @property
    def clean(self) -> Tensor:
        """The ten digits ``(10, 784)`` without noise, float64 in [0, 1]."""
        return unpack(self.data["images"])

    @property
    def noisy(self) -> Tensor:
        """The ten digits ``(10, 784)`` with the noise of now."""
        return self.clean + self.noise * unpack(self.data["noises"])

    @property
    def denoised(self) -> Tensor:
        """The ten digits ``(10, 784)`` after projection or shrinkage."""
        model = self._model(self.rank)
        return model.decode(model.encode(self.noisy) * self._gains()[: self.rank])

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        Squared errors per pixel: ``error``, expected on unseen digits at this rank, the sum of
        ``lost`` signal and ``kept`` noise; ``best_error`` at ``best_rank``, the curve's minimum;
        ``noisy_error`` and ``measured``, of the ten digits before and after denoising.
        """
        gains = self._gains()
        energies = torch.tensor(self.data["energies"], dtype=torch.float64)
        start = energies.new_zeros(1)
        saved = torch.cat([start, ((1 - (1 - gains) ** 2) * energies).cumsum(0)])
        lost = (self.data["total_energy"] - saved) / self.clean.shape[1]
        kept = torch.cat([start, (gains * self.noise).square().cumsum(0)]) / self.clean.shape[1]
        curve = lost + kept
        return {
            "error": curve[self.rank].item(),
            "lost": lost[self.rank].item(),
            "kept": kept[self.rank].item(),
            "best_rank": int(curve.argmin()),
            "best_error": curve.min().item(),
            "noisy_error": (self.noisy - self.clean).square().mean().item(),
            "measured": (self.denoised - self.clean).square().mean().item(),
        }

    def _gains(self) -> Tensor:
        eigenvalues = torch.tensor(self.data["eigenvalues"], dtype=torch.float64)
        return shrink(eigenvalues, self.noise**2) if self.shrink else torch.ones_like(eigenvalues)

    def _model(self, rank: int) -> PCA:
        """Return the principal components as the widget stores them, rounded to 16 bits."""
        eigenvalues = torch.tensor(self.data["eigenvalues"][:rank], dtype=torch.float64)
        components, mean = unpack(self.data["basis"])[:rank], unpack(self.data["mean"])
        return PCA(components, eigenvalues, eigenvalues.sum(), mean)


def _digits_and_basis(components: int, seed: int) -> dict:
    """Return the components of one half of the digits, and what the other half says of them."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = data.mnist(5000)
    order = torch.randperm(len(images), generator=generator)
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    model = pca(images[train].double(), components)
    unseen = images[test].double() - model.mean
    shown = [test[labels[test] == digit][0] for digit in range(10)]
    energies = (unseen @ model.components.T).square().mean(0)
    noises = torch.randn(10, images.shape[1], generator=generator, dtype=torch.float64)
    return {
        "basis": pack(model.components, fine_scale(model.components)),
        "mean": pack(model.mean, 2.0**-15),
        "images": pack(images[torch.stack(shown)], 1 / 255),
        "noises": pack(noises, 2.0**-12),
        "eigenvalues": [round(value, 9) for value in model.eigenvalues.tolist()],
        "energies": [round(value, 9) for value in energies.tolist()],
        "total_energy": round(unseen.square().sum(1).mean().item(), 9),
    }
