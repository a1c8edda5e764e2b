"""ISTA with learned weights: a network that computes sparse codes."""

from __future__ import annotations

from torch import Tensor, nn

from companion_lib.subspaces.lasso import step_limit
from companion_lib.subspaces.soft_threshold import shrinkage
from companion_lib.validation import check_like, check_range, check_samples


class LISTA(nn.Module):
    """``layers`` steps of ISTA, unrolled into a network whose weights can be trained.

    Layer ``l`` maps codes ``z`` (the first are zero) to
    ``soft_threshold(z - (z D_l - x) W_l, t_l)``. Before training it equals ISTA:
    ``D_l = D``, ``W_l = 2 eta D^T`` and ``t_l = eta lam``, with ``eta = 1 / (2 ||D||_2^2)``.

    Parameters
    ----------
    D : Tensor, shape (m, d)
        The dictionary to start from, atoms as rows. The module takes its dtype and device.
    lam : float
        The weight of the l1 norm that the thresholds start from, ``lam >= 0``.
    layers : int
        The number of layers, at least 1.
    thresholds : "learned" or "fixed"
        Whether each layer's step size and threshold are trained too. Fixed is the book's network;
        learned is much stronger.
    tied : bool
        True: ``W_l = 2 eta_l D_l^T``, one trained dictionary for each layer (the book's).
        False: ``W_l`` is trained by itself beside ``D_l`` (Gregor and LeCun's, in factors).

    Raises
    ------
    TypeError
        If ``D`` is not a floating-point tensor.
    ValueError
        If ``D`` is empty or not finite, ``lam`` is negative, ``layers`` is below 1, or
        ``thresholds`` is another word.

    Notes
    -----
    Book: section ``learned-sparse-coding``; Gregor and LeCun (2010). Thresholds that training
    drives below zero act as zero. Samples must have the dtype of the weights, in which the layers
    compute.
    """

    def __init__(
        self, D: Tensor, lam: float, layers: int, thresholds: str = "learned", tied: bool = True
    ):
        super().__init__()
        check_samples(D, "D")
        check_range(lam, "lam", 0)
        check_range(layers, "layers", 1)
        if thresholds not in ("learned", "fixed"):
            raise ValueError(f'thresholds must be "learned" or "fixed", got {thresholds!r}')
        D = D.detach()
        eta = step_limit(D)
        self.dictionaries = nn.Parameter(D.repeat(layers, 1, 1))
        learned = thresholds == "learned"
        self.thresholds = _scalars(eta * lam, layers, D, learned)
        if tied:
            self.step_sizes, self.encoders = _scalars(eta, layers, D, learned), None
        else:
            self.step_sizes, self.encoders = (
                None,
                nn.Parameter((2 * eta * D.T).repeat(layers, 1, 1)),
            )

    def forward(self, X: Tensor) -> Tensor:
        """Return the codes (n, m) of samples ``X`` of shape (n, d)."""
        check_samples(X)
        check_like(X, "X", (len(X), self.dictionaries.shape[2]), self.dictionaries)
        Z = X.new_zeros(len(X), self.dictionaries.shape[1])
        for layer, D in enumerate(self.dictionaries):
            tied = self.encoders is None
            W = 2 * self.step_sizes[layer] * D.T if tied else self.encoders[layer]
            Z = shrinkage(Z - (Z @ D - X) @ W, self.thresholds[layer].clamp(min=0))
        return Z


def _scalars(value: float, layers: int, like: Tensor, trained: bool) -> nn.Parameter:
    return nn.Parameter(like.new_full((layers,), value), requires_grad=trained)
