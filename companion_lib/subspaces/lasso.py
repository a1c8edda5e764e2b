"""Sparse codes over an overcomplete dictionary: the LASSO, ISTA and FISTA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot, vector_norm

from companion_lib.validation import check_like, check_range, check_samples, check_tensor, working

# A duality gap costs as much as a step, so it is looked at once in this many steps.
CHECK_EVERY = 10


@dataclass(frozen=True, eq=False, repr=False)
class SparseCode:
    """Codes computed by ``ista`` or ``fista``.

    Attributes
    ----------
    codes : Tensor, shape (n, m)
        The sparse codes: ``X`` is close to ``codes @ D``.
    steps : int
        How many steps were taken.
    history : Tensor, shape (steps + 1,)
        The objective, summed over the samples, at the start and after each step. Empty unless
        asked for.
    """

    codes: Tensor
    steps: int
    history: Tensor

    def __repr__(self) -> str:
        n, m = self.codes.shape
        return f"SparseCode(n={n}, m={m}, steps={self.steps})"


def lasso_objective(X: Tensor, Z: Tensor, D: Tensor, lam: float) -> Tensor:
    """Return ``||x - z D||_2^2 + lam ||z||_1`` for each sample.

    This is the book's scale, with no factor 1/2 before the square. scikit-learn's ``sparse_encode``
    and ``DictionaryLearning`` halve the square: their ``alpha`` is ``lam / 2``. Its ``Lasso`` also
    divides by the number of entries: there ``alpha`` is ``lam / (2 d)``.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows.
    Z : Tensor, shape (n, m)
        Codes as rows.
    D : Tensor, shape (m, d)
        Atoms as rows; the book's :math:`A` is ``D.T``.
    lam : float
        The weight of the l1 norm, ``lam >= 0``.

    Returns
    -------
    Tensor, shape (n,)
        Half precision is computed in float32. Differentiable in ``X``, ``Z`` and ``D``.

    Raises
    ------
    TypeError
        If ``X``, ``Z`` or ``D`` is not a floating-point tensor.
    ValueError
        If one is empty or not finite, their shapes do not match, or ``lam`` is negative.

    Notes
    -----
    Book: section ``sparse-coding``.
    """
    _check(X, D, lam, Z)
    return _objective(working(X), working(Z), working(D), lam).to(X.dtype)


def lasso_residual(X: Tensor, Z: Tensor, D: Tensor, lam: float) -> Tensor:
    """Return how far each code is from satisfying the optimality conditions of the LASSO.

    With the gradient ``g = 2 (z D - x) D^T`` of the square, a code is optimal exactly when
    ``g_j = -lam sign(z_j)`` where ``z_j`` is not zero and ``|g_j| <= lam`` where it is. The answer
    is the largest violation over ``j``, so zero means optimal.

    Parameters
    ----------
    X, Z, D, lam
        As in ``lasso_objective``.

    Returns
    -------
    Tensor, shape (n,)
        Half precision is computed in float32.

    Raises
    ------
    TypeError, ValueError
        As in ``lasso_objective``.

    Notes
    -----
    Book: section ``sparse-coding``; the Karush-Kuhn-Tucker conditions.
    """
    _check(X, D, lam, Z)
    data, codes, atoms = working(X), working(Z), working(D)
    gradient = 2 * (codes @ atoms - data) @ atoms.T
    on_support = (gradient + lam * codes.sign()).abs()
    off_support = (gradient.abs() - lam).clamp(min=0)
    return torch.where(codes == 0, off_support, on_support).amax(1).to(X.dtype)


def lasso_gap(X: Tensor, Z: Tensor, D: Tensor, lam: float, nonnegative: bool = False) -> Tensor:
    """Return the duality gap of each code, an upper bound of its distance from the optimum.

    The dual of the LASSO maximizes ``2 <u, x> - ||u||^2`` over the ``u`` with
    ``2 |<u, d_j>| <= lam`` for every atom ``d_j`` (without the bars for nonnegative codes). Any
    such ``u`` gives a lower bound of the optimum; here ``u`` is the best multiple of the residual
    ``x - z D``. The gap is zero exactly at the optimum.

    Parameters
    ----------
    X, Z, D, lam
        As in ``lasso_objective``.
    nonnegative : bool
        Whether codes are restricted to ``z >= 0``.

    Returns
    -------
    Tensor, shape (n,)
        ``objective - dual value``. Half precision is computed in float32.

    Raises
    ------
    TypeError, ValueError
        As in ``lasso_objective``.

    Notes
    -----
    Book: section ``sparse-coding``. Two products of ``2 n m d`` operations.
    """
    _check(X, D, lam, Z)
    objective, dual = _bounds(working(X), working(Z), working(D), lam, nonnegative)
    return (objective - dual).to(X.dtype)


def step_limit(D: Tensor) -> float:
    """Return ``1 / (2 ||D||_2^2)``, the largest step size that is sure never to raise the LASSO.

    It is one over the Lipschitz constant of the gradient of ``||x - z D||^2``.
    """
    D = working(D)
    gram = D @ D.T if len(D) < D.shape[1] else D.T @ D
    largest = torch.linalg.eigvalsh(gram)[-1].item()
    if not largest > 0:
        raise ValueError("D must have at least one nonzero atom, got all zeros")
    return 0.5 / largest


@torch.no_grad()
def ista(
    X: Tensor,
    D: Tensor,
    lam: float,
    steps: int = 100,
    step_size: float | None = None,
    start: Tensor | None = None,
    tol: float | None = None,
    nonnegative: bool = False,
    history: bool = False,
) -> SparseCode:
    """Compute sparse codes by iterative soft-thresholding.

    Minimizes ``||x - z D||^2 + lam ||z||_1`` for each sample by repeating
    ``z <- soft_threshold(z - 2 eta (z D - x) D^T, eta lam)``: a gradient step on the square, then
    the proximal step of the penalty. The objective never increases if ``eta`` is at most
    ``1 / (2 ||D||_2^2)``, and after ``t`` steps it is within ``||z_0 - z*||^2 / (2 eta t)`` of the
    optimum.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    D : Tensor, shape (m, d)
        Atoms as rows; the book's :math:`A` is ``D.T``.
    lam : float
        The weight of the l1 norm, ``lam >= 0``; see ``lasso_objective`` for other libraries' scale.
    steps : int
        The largest number of steps.
    step_size : float, optional
        The book's :math:`\\eta`; ``1 / (2 ||D||_2^2)`` if not given. Steps may be longer than that;
        twice as long, and the iteration diverges.
    start : Tensor, shape (n, m), optional
        First codes; zero if not given.
    tol : float, optional
        Stop when **every** code's objective is within the relative distance ``tol`` of its
        optimum, as certified by the duality gap, and stop working on the samples that are
        there already. Looked at every 10 steps. Rounding sets a floor near 1e-6 in float32. If not
        given, take exactly ``steps`` steps.
    nonnegative : bool
        Restrict codes to ``z >= 0``; then the proximal step is ``max(z - eta lam, 0)``.
    history : bool
        Record the objective at every step, which costs one more product a step.

    Returns
    -------
    SparseCode
        With ``codes``, ``steps`` and ``history``.

    Raises
    ------
    TypeError
        If ``X`` or ``D`` is not a floating-point tensor.
    ValueError
        If they are empty or not finite, shapes do not match, ``lam``, ``steps``, ``tol`` or
        ``step_size`` is negative, or ``tol`` is given with ``lam = 0``.
    FloatingPointError
        If the codes overflow, because ``step_size`` is too long.

    Notes
    -----
    Book: section ``sparse-coding``; Beck and Teboulle (2009). ``4 n m d`` operations a step.
    Memory: a few arrays (n, m).

    Examples
    --------
    >>> ista(torch.tensor([[3.0, 0.1]]), torch.eye(2), lam=1.0).codes
    tensor([[2.5000, 0.0000]])
    """
    return _solve(X, D, lam, steps, step_size, start, tol, nonnegative, history, momentum=False)


@torch.no_grad()
def fista(
    X: Tensor,
    D: Tensor,
    lam: float,
    steps: int = 100,
    step_size: float | None = None,
    start: Tensor | None = None,
    tol: float | None = None,
    nonnegative: bool = False,
    history: bool = False,
) -> SparseCode:
    """Compute sparse codes by accelerated iterative soft-thresholding.

    Each step is an ISTA step from a point beyond the current code, in the direction of the last
    move. Each sample has its own momentum, which starts again from zero whenever it points
    uphill (the gradient test of O'Donoghue and Candès). The objective may rise for a few
    steps, but after ``t`` steps without a restart it is within
    ``2 ||z_0 - z*||^2 / (eta (t + 1)^2)`` of the optimum.

    Parameters
    ----------
    X, D, lam, steps, step_size, start, tol, nonnegative, history
        As in ``ista``. Momentum allows no step longer than ``1 / (2 ||D||_2^2)``.

    Returns
    -------
    SparseCode
        With ``codes``, ``steps`` and ``history``.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in ``ista``.

    Notes
    -----
    Book: section ``sparse-coding``; Beck and Teboulle (2009), O'Donoghue and Candès (2015). Its
    products serve many samples at once; for a few samples scikit-learn's coordinate descent is
    several times faster (see the page of benchmarks).
    """
    return _solve(X, D, lam, steps, step_size, start, tol, nonnegative, history, momentum=True)


class _Moving:
    """The samples that have not settled, and what they carry from step to step.

    Arrays of size (n, m) are allocated once: fresh memory would cost as much as the arithmetic.
    """

    def __init__(self, rows: Tensor, X: Tensor, Z: Tensor, move: Tensor, weight: Tensor, t: Tensor):
        self.rows, self.X, self.Z = rows, X, Z
        self.move, self.weight, self.t = move, weight, t
        self.point, self.spare = torch.empty_like(Z), torch.empty_like(Z)
        self.residual = torch.empty_like(X)

    @classmethod
    def at_rest(cls, X: Tensor, Z: Tensor) -> _Moving:
        rows, ones = torch.arange(len(X), device=X.device), X.new_ones(len(X), 1)
        return cls(rows, X, Z.clone(), torch.zeros_like(Z), torch.zeros_like(ones), ones)

    def select(self, mask: Tensor) -> _Moving:
        carried = (self.rows, self.X, self.Z, self.move, self.weight, self.t)
        return _Moving(*(values[mask] for values in carried))

    def step(self, D: Tensor, lam: float, eta: float, nonnegative: bool, momentum: bool) -> None:
        """Take one proximal gradient step from each code plus its momentum."""
        point = torch.addcmul(self.Z, self.weight, self.move, out=self.point)
        torch.addmm(self.X, point, D, beta=-1, out=self.residual)
        point.addmm_(self.residual, D.T, alpha=-2 * eta)
        if nonnegative:
            point.sub_(eta * lam).clamp_(min=0)
        else:
            point.sub_(torch.clamp(point, -eta * lam, eta * lam, out=self.spare))
        # The old code is overwritten by the move to the new one, the old move by the next point.
        move = torch.sub(point, self.Z, out=self.Z)
        if momentum:
            self._update_weight(move)
        self.Z, self.move, self.point = point, move, self.move

    def _update_weight(self, move: Tensor) -> None:
        # The gradient test <point - Z_new, move> > 0, with point = Z_old + weight * old move.
        along, length = vecdot(self.move, move), vector_norm(move, dim=1)
        uphill = self.weight * along[:, None] > length.square()[:, None]
        t = torch.where(uphill, 1.0, self.t)
        self.t = (1 + (1 + 4 * t * t).sqrt()) / 2
        self.weight = (t - 1) / self.t


def _solve(X, D, lam, steps, step_size, start, tol, nonnegative, history, momentum) -> SparseCode:
    _check(X, D, lam, start, "start")
    check_range(steps, "steps", 0)
    check_range(0.0 if tol is None else tol, "tol", 0)
    if tol is not None and lam == 0:
        raise ValueError("tol needs lam > 0, got lam = 0, whose optimum can be 0; leave tol out")
    data, atoms = working(X), working(D)
    eta = step_limit(atoms) if step_size is None else check_range(step_size, "step_size", 0)
    codes = data.new_zeros(len(X), len(D)) if start is None else working(start).clone()
    values = [_objective(data, codes, atoms, lam).sum()] if history else []
    moving, settled_objective, taken = _Moving.at_rest(data, codes), 0.0, 0
    while taken < steps and len(moving.rows):
        moving.step(atoms, lam, eta, nonnegative, momentum)
        taken += 1
        if history:
            objective = _objective(moving.X, moving.Z, atoms, lam)
            values.append(settled_objective + objective.sum())
        if tol is not None and taken % CHECK_EVERY == 0:
            objective, dual = _bounds(moving.X, moving.Z, atoms, lam, nonnegative)
            _refuse_overflow(objective, eta, atoms)
            settled = objective - dual <= tol * dual
            # Copying what is left costs a few passes: only when it saves much work.
            if settled.all() or settled.float().mean() > 0.25:
                codes[moving.rows[settled]] = moving.Z[settled]
                settled_objective += objective[settled].sum()
                moving = moving.select(~settled)
    codes[moving.rows] = moving.Z
    _refuse_overflow(codes, eta, atoms)
    return SparseCode(codes.to(X.dtype), taken, torch.stack(values) if history else X.new_zeros(0))


def _refuse_overflow(values: Tensor, eta: float, D: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            f"the codes overflowed: step_size = {eta:.4g} is too long; up to"
            f" 1 / (2 ||D||_2^2) = {step_limit(D):.4g} the objective is sure to fall"
        )


def _objective(X: Tensor, Z: Tensor, D: Tensor, lam: float) -> Tensor:
    return torch.addmm(X, Z, D, beta=-1).square().sum(1) + lam * Z.abs().sum(1)


def _bounds(
    X: Tensor, Z: Tensor, D: Tensor, lam: float, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Return each sample's objective and the dual value at the best multiple of its residual."""
    residual = torch.addmm(X, Z, D, alpha=-1)
    correlations = residual @ D.T
    largest = correlations.amax(1) if nonnegative else correlations.abs().amax(1)
    tiny = torch.finfo(X.dtype).tiny
    square, aligned = residual.square().sum(1), (residual * X).sum(1)
    best = (aligned / square.clamp(min=tiny)).clamp(min=0)
    scale = torch.minimum(best, lam / (2 * largest).clamp(min=tiny))
    dual = scale * (2 * aligned - scale * square)
    return square + lam * Z.abs().sum(1), dual


def _check(X: Tensor, D: Tensor, lam: float, Z: Tensor | None, name: str = "Z") -> None:
    check_samples(X)
    check_samples(D, "D")
    check_like(D, "D", (len(D), X.shape[1]), X)
    check_range(lam, "lam", 0)
    if Z is not None:
        check_like(Z, name, (len(X), len(D)), X)
        check_tensor(Z, name)
