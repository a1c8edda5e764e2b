"""Watch features become orthogonal subspaces, or collapse, epoch after epoch."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import traitlets
from torch import Tensor, nn

from companion_lib import data
from companion_lib.compression import SphereEncoder, mcr2_loss, train
from companion_lib.validation import check_count
from companion_lib.widgets.base import Widget
from companion_lib.widgets.encoding import pack, unpack
from companion_lib.widgets.training_recorder import TrainingRecorder, Trajectory

EPS = 0.5**0.5


class WatchMCR2(Widget):
    """Two trainings of one network to scrub through: rate reduction, and cross entropy.

    At each recorded epoch: the cosines of test samples sorted by class, which rate reduction
    turns block-diagonal; the rates of the training features, which climb toward the largest
    difference that there is; and the singular values of each class, which cross entropy lets
    collapse to one or two while rate reduction keeps several equal.

    Parameters
    ----------
    mcr2, cross_entropy : Trajectory, optional
        What a ``TrainingRecorder`` saw of each training, at the same epochs and of the same
        samples, with the same ε. Not given: both are trained here on scikit-learn's digits, in a
        few seconds.
    snapshot : int
        Which of the recorded epochs is shown, from 0.
    collapse : bool
        Show cross entropy instead of rate reduction.
    seed : int
        Seed of the trainings made here.

    Attributes
    ----------
    snapshot, collapse
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    ValueError
        If one trajectory is given without the other, or they do not match: in epochs, test
        samples, their labels, or the bound and the rank that belong to it. The last two differ
        if ε, the size of features or that of a class does, and then so do the rates' scales.
    traitlets.TraitError
        If ``snapshot`` is out of range, at any time.

    Notes
    -----
    Book: sections ``rate-reduction`` and ``supervised-image-representations``.
    """

    module = "watch_mcr2.js"
    snapshot = traitlets.Int().tag(sync=True)
    collapse = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        mcr2: Trajectory | None = None,
        cross_entropy: Trajectory | None = None,
        snapshot: int = 0,
        collapse: bool = False,
        seed: int = 0,
    ):
        if (mcr2 is None) != (cross_entropy is None):
            raise ValueError("give both trajectories, mcr2 and cross_entropy, or neither")
        stored = _digits(seed) if mcr2 is None else _stored(mcr2, cross_entropy)
        super().__init__(data=stored, snapshot=snapshot, collapse=collapse)

    @traitlets.validate("snapshot")
    def _recorded(self, proposal):
        last = len(self.data.get("epochs", [])) - 1
        if self.data and not 0 <= proposal.value <= last:
            raise traitlets.TraitError(
                f"snapshot must be between 0 and {last}, got {proposal.value}"
            )
        return proposal.value

    @property
    def epoch(self) -> int:
        """The epoch that is shown."""
        return self.data["epochs"][self.snapshot]

    @property
    def cosines(self) -> Tensor:
        """Cosines ``(m, m)`` of the test samples at this epoch, as the widget stores them."""
        labels = self.data["labels"]
        m = len(labels)
        stored = unpack(self._training()["cosines"])[self.snapshot]
        upper = torch.eye(m, dtype=torch.float64) / 2
        upper[tuple(torch.triu_indices(m, m, 1))] = stored
        return upper + upper.T

    @property
    def spectra(self) -> Tensor:
        """Largest singular values ``(k, 16)`` of each class over the root of its size."""
        return unpack(self._training()["spectra"])[self.snapshot]

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        Bits per sample: ``rate`` of all training features, ``apart`` for class by class, the
        ``reduction`` from one to the other, and its upper ``bound``. Mean absolute cosine of test
        samples of the same class (``within``) and of different ones (``between``); ``rank``, the
        mean over the classes of ``(Σ σ²)² / Σ σ⁴``.
        """
        rate, apart = (nats / math.log(2) for nats in self._training()["rates"][self.snapshot])
        labels = torch.tensor(self.data["labels"])
        same = labels[:, None] == labels
        others = ~torch.eye(len(labels), dtype=torch.bool)
        sizes = self.cosines.abs()
        energies = self.spectra.square()
        return {
            "rate": rate,
            "apart": apart,
            "reduction": rate - apart,
            "bound": self.data["bound"] / math.log(2),
            "within": sizes[same & others].mean().item(),
            "between": sizes[~same].mean().item(),
            # The squares of a class's singular values sum to one, those not stored included.
            "rank": (1 / energies.square().sum(1)).mean().item(),
        }

    def _training(self) -> dict:
        return self.data["trainings"][int(self.collapse)]


def _stored(mcr2: Trajectory, cross_entropy: Trajectory) -> dict:
    """Return what the widget shows of two trainings."""
    if mcr2.epochs != cross_entropy.epochs:
        raise ValueError(
            "both trainings must be recorded at the same epochs, "
            f"got {mcr2.epochs} and {cross_entropy.epochs}"
        )
    if not torch.equal(mcr2.images, cross_entropy.images):
        raise ValueError("both trainings must be recorded with the same test samples")
    if not torch.equal(mcr2.labels, cross_entropy.labels):
        raise ValueError("both trainings must be recorded with the same labels of the test samples")
    limits = [(one.bound, one.rank) for one in (mcr2, cross_entropy)]
    if limits[0] != limits[1]:
        raise ValueError(
            "both trainings must be recorded with the same eps, feature size and class sizes, got "
            + " and ".join(
                f"a bound of {bound:.6g} nats at rank {rank:.6g}" for bound, rank in limits
            )
        )
    check_count(len(mcr2.epochs), "the number of recorded epochs", 20, low=2)
    m = len(mcr2.labels)
    rows, columns = torch.triu_indices(m, m, 1)
    return {
        "epochs": mcr2.epochs,
        "labels": mcr2.labels.tolist(),
        "images": pack(mcr2.images, 1 / 127, 8),
        "bound": round(mcr2.bound, 9),
        "rank": mcr2.rank,
        "trainings": [
            {
                "rates": [[round(nats, 9) for nats in pair] for pair in one.rates.tolist()],
                "spectra": pack(one.spectra, 2.0**-14),
                "cosines": pack(one.cosines[:, rows, columns].clamp(-1, 1), 1 / 127, 8),
            }
            for one in (mcr2, cross_entropy)
        ],
    }


@lru_cache(maxsize=4)
def _digits(seed: int) -> dict:
    """Train an encoder of digits twice from one start: by rate reduction and by cross entropy."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = data.digits()
    order = torch.randperm(len(images), generator=generator)
    X, y = images[order[:1300]], labels[order[:1300]]
    unseen = images[order[1300:]], labels[order[1300:]]

    def run(cross_entropy: bool) -> Trajectory:
        generator.manual_seed(seed)
        encoder = SphereEncoder(64, 256, 256, 64, generator=generator)
        head = nn.Parameter(torch.zeros(64, 10))
        recorder = TrainingRecorder(encoder, X, y, *unseen, EPS)

        def objective(rows: Tensor) -> Tensor:
            Z = encoder(X[rows])
            if cross_entropy:
                return nn.functional.cross_entropy(Z @ head, y[rows])
            return mcr2_loss(Z, y[rows], EPS)

        parameters = [*encoder.parameters(), *([head] if cross_entropy else [])]
        train(objective, parameters, len(X), 60, 650, generator=generator, record=recorder)
        return recorder.trajectory

    return _stored(run(False), run(True))
