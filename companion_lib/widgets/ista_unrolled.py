"""ISTA as a network: one layer per iteration, on one signal."""

from __future__ import annotations

import torch
import traitlets
from torch import Tensor

from companion_lib.subspaces import fista, ista, lasso_objective, lasso_residual
from companion_lib.validation import check_range
from companion_lib.widgets.base import Between, Count, Widget
from companion_lib.widgets.encoding import fine_scale, pack, unpack


class ISTAUnrolled(Widget):
    """The sparse code of one signal, layer after layer of ISTA or FISTA.

    The signal is ``x = z D`` plus a little noise, with a sparse ``z``. Each layer takes one
    proximal gradient step on ``||x - z D||^2 + lam ||z||_1``. Up to ``step = 1`` the objective
    falls at every layer. From ``step = 2`` on the steepest direction overshoots by more than it
    came, and plain ISTA diverges unless the shrinkage wins that back, which a small ``lam`` cannot.

    Parameters
    ----------
    lam : float
        Weight of the l1 norm, 0.02 to 1.
    step : float
        Step size as a multiple of its limit ``1 / (2 ||D||_2^2)``, 0.2 to 3.
    layers : int
        Number of layers, 1 to 200.
    momentum : bool
        FISTA instead of ISTA.
    d, m : int
        Length of the signal, and number of atoms; 4 to 128.
    sparsity : int
        Number of nonzero entries of the true code, 1 to ``m``.
    noise : float
        Standard deviation of the noise on the signal, 0 to 1.
    seed : int
        Seed of dictionary, code and noise.

    Attributes
    ----------
    lam, step, layers, momentum
        Live: set them to move the widget; the reader's moves show up here.

    Raises
    ------
    ValueError
        If ``d``, ``m``, ``sparsity`` or ``noise`` is out of range.
    traitlets.TraitError
        If ``lam``, ``step`` or ``layers`` is out of range, at any time.

    Notes
    -----
    Book: sections ``sparse-coding`` and ``learned-sparse-coding``.
    """

    module = "ista_unrolled.js"
    lam = Between(0.02, 1.0)
    step = Between(0.2, 3.0)
    layers = Count(1, 200)
    momentum = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        lam: float = 0.1,
        step: float = 1.0,
        layers: int = 50,
        momentum: bool = False,
        d: int = 32,
        m: int = 64,
        sparsity: int = 5,
        noise: float = 0.02,
        seed: int = 0,
    ):
        check_range(d, "d", 4, 128)
        check_range(m, "m", 4, 128)
        check_range(sparsity, "sparsity", 1, m, "m")
        check_range(noise, "noise", 0, 1)
        super().__init__(
            lam=lam,
            step=step,
            layers=layers,
            momentum=momentum,
            data=_sparse_signal(d, m, sparsity, noise, seed),
        )

    @property
    def dictionary(self) -> Tensor:
        """The atoms, the rows of ``D`` ``(m, d)``, float64."""
        return unpack(self.data["dictionary"])

    @property
    def signal(self) -> Tensor:
        """The signal ``x`` ``(d,)``, float64."""
        return unpack(self.data["signal"])

    @property
    def true_code(self) -> Tensor:
        """The sparse code ``(m,)`` that made the signal."""
        return unpack(self.data["code"])

    @property
    def code(self) -> Tensor:
        """The code ``(m,)`` after the layers of now."""
        solve = fista if self.momentum else ista
        step_size = self.step / self.data["lipschitz"]
        X = self.signal[None]
        return solve(X, self.dictionary, self.lam, steps=self.layers, step_size=step_size).codes[0]

    def values(self) -> dict[str, float]:
        """Return the numbers on display, computed here instead of in the browser.

        ``objective``, its ``optimum`` and the ``gap`` between; ``kkt``, the violation of the
        optimality conditions; ``nonzeros`` of the code, and how many true atoms are among them
        (``found``).
        """
        X, D, Z = self.signal[None], self.dictionary, self.code[None]
        best = fista(X, D, self.lam, steps=2000).codes
        objective = lasso_objective(X, Z, D, self.lam).item()
        optimum = lasso_objective(X, best, D, self.lam).item()
        return {
            "objective": objective,
            "optimum": optimum,
            "gap": objective - optimum,
            "kkt": lasso_residual(X, Z, D, self.lam).item(),
            "nonzeros": int((Z != 0).sum()),
            "found": int(((Z[0] != 0) & (self.true_code != 0)).sum()),
        }


def _sparse_signal(d: int, m: int, sparsity: int, noise: float, seed: int) -> dict:
    """Return a random dictionary of unit atoms, a sparse code and the signal they make."""
    generator = torch.Generator().manual_seed(seed)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dictionary = pack(torch.nn.functional.normalize(gaussian(m, d)), 2.0**-15)
    code = torch.zeros(m, dtype=torch.float64)
    support = torch.randperm(m, generator=generator)[:sparsity]
    # Sizes between 0.5 and 1.5, so that every true entry can be told from the noise.
    sizes = 0.5 + torch.rand(sparsity, generator=generator, dtype=torch.float64)
    code[support] = sizes * gaussian(sparsity).sign()
    signal = code @ unpack(dictionary) + noise * gaussian(d)
    norm = torch.linalg.matrix_norm(unpack(dictionary), 2).item()
    return {
        "dictionary": dictionary,
        "code": pack(code, 2.0**-14),
        "signal": pack(signal, fine_scale(signal)),
        "lipschitz": round(2 * norm**2, 9),
    }
