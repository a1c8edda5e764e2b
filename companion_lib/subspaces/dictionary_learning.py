"""Learn an overcomplete dictionary and its sparse codes together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn import functional as F
from tqdm.auto import tqdm

from companion_lib.subspaces.lasso import step_limit
from companion_lib.validation import check_like, check_range, check_samples, working

# How often unused atoms are replaced, in steps.
REVIVE_EVERY = 25


@dataclass(frozen=True, eq=False, repr=False)
class DictionaryLearning:
    """A dictionary learned by ``dictionary_learning``, with the codes of its training data.

    Attributes
    ----------
    atoms : Tensor, shape (m, d)
        The atoms as rows, each of length at most one.
    codes : Tensor, shape (n, m)
        The sparse codes: ``X`` is close to ``codes @ atoms``.
    history : Tensor, shape (steps + 1,)
        The objective ``||X - Z D||_F^2 + lam ||Z||_1`` at the start and after each step.
    """

    atoms: Tensor
    codes: Tensor
    history: Tensor

    def __repr__(self) -> str:
        (m, d), n = self.atoms.shape, len(self.codes)
        return f"DictionaryLearning(m={m}, d={d}, n={n}, steps={len(self.history) - 1})"


@torch.no_grad()
def dictionary_learning(
    X: Tensor,
    m: int,
    lam: float,
    steps: int = 500,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
    code_steps: int = 1,
    atom_steps: int = 1,
) -> DictionaryLearning:
    """Learn ``m`` atoms in which the samples have sparse codes, by alternating proximal steps.

    Lowers ``||X - Z D||_F^2 + lam ||Z||_1`` over codes ``Z`` (n, m) and atoms ``D`` (m, d) of
    length at most one (without that bound, large atoms and small codes would make the penalty
    vanish). Each step moves the codes by ``code_steps`` ISTA steps, then the atoms by
    ``atom_steps`` projected gradient steps, always from where they are. Both have step sizes that
    are sure to descend, so the objective never increases.

    Every 25 steps the atoms that no sample uses are replaced by the directions of the largest
    residuals ``x - z D``, as far as these exceed ``lam / 2`` in length (a smaller one would never
    be used). That leaves the objective unchanged, because the codes of such atoms are zero.

    Parameters
    ----------
    X : Tensor, shape (n, d)
        Samples as rows. Half precision is computed in float32.
    m : int
        The number of atoms; it may exceed ``d``.
    lam : float
        The weight of the l1 norm, ``lam >= 0``.
    steps : int
        The number of alternations.
    start : Tensor, shape (m, d), optional
        First atoms; longer ones are scaled to length one. If not given: random samples scaled
        to length one, plus 10% of Gaussian noise (and noise alone where there are fewer nonzero
        samples than atoms). On image patches this ends lower than random directions do.
    generator : torch.Generator, optional
        Draws the random start, on the device of ``X``.
    progress : bool
        Show a progress bar.
    code_steps, atom_steps : int
        The lengths of the two inner loops, at least 1.

    Returns
    -------
    DictionaryLearning
        With ``atoms``, ``codes`` and ``history``.

    Raises
    ------
    TypeError
        If ``X`` is not a floating-point tensor.
    ValueError
        If ``X`` is empty or not finite, ``start`` does not fit, ``lam`` is negative, or ``m``,
        ``code_steps`` or ``atom_steps`` is below 1.

    Notes
    -----
    Book: section ``overcomplete-dictionary-learning``; PALM of Bolte, Sabach and Teboulle (2014).
    Operations per step (inner loops of length 1): ``8 n m d``. Memory: three arrays (n, m).
    """
    check_samples(X)
    check_range(m, "m", 1)
    check_range(lam, "lam", 0)
    check_range(steps, "steps", 0)
    check_range(code_steps, "code_steps", 1)
    check_range(atom_steps, "atom_steps", 1)
    data, D = working(X), _project(_first_atoms(X, m, start, generator))
    Z, R = data.new_zeros(len(data), m), -data
    history, direction = [R.square().sum()], _generic_vector(Z)
    for step in tqdm(range(1, steps + 1), desc="dictionary learning", disable=not progress):
        for _ in range(code_steps):
            Z, R = _move_codes(Z, R, D, data, lam)
        for _ in range(atom_steps):
            D, R, direction = _move_atoms(Z, R, D, data, direction)
        history.append(R.square().sum() + lam * Z.abs().sum())
        if step % REVIVE_EVERY == 0:
            D = _revive(Z, R, D, lam)
    return DictionaryLearning(D.to(X.dtype), Z.to(X.dtype), torch.stack(history))


def _first_atoms(
    X: Tensor, m: int, start: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    if start is not None:
        check_like(start, "start", (m, X.shape[1]), X)
        return working(check_samples(start, "start"))
    data = working(X)
    noise = torch.randn(m, X.shape[1], generator=generator, dtype=data.dtype, device=data.device)
    D = F.normalize(noise)
    samples = F.normalize(data[(data != 0).any(1)])
    chosen = torch.randperm(len(samples), generator=generator, device=data.device)[:m]
    # Two equal samples would stay equal atoms forever; a little noise tells them apart.
    D[: len(chosen)] = F.normalize(samples[chosen] + 0.1 * D[: len(chosen)])
    return D


def _move_codes(Z: Tensor, R: Tensor, D: Tensor, X: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Take one ISTA step; return the codes and their residual ``Z D - X``."""
    eta = step_limit(D)
    Z = F.softshrink(torch.addmm(Z, R, D.T, alpha=-2 * eta), eta * lam)
    return Z, torch.addmm(X, Z, D, beta=-1)


def _move_atoms(
    Z: Tensor, R: Tensor, D: Tensor, X: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one projected gradient step; return atoms, residual and power iteration's vector.

    A step of length ``1 / (2 L)`` descends if ``||Z E||^2 <= L ||E||^2`` for the change ``E`` of
    the atoms. Power iteration gives an ``L`` that nearly always will do. The test needs only
    products that the next step needs anyway, and ``||Z||_F^2`` is a bound that always holds.
    """
    direction, bound = Z.T @ (Z @ F.normalize(direction, dim=0)), Z.square().sum()
    if bound == 0:
        return D, R, _generic_vector(Z)
    # Never zero, even if the vector happens to be orthogonal to all codes.
    L = (1.05 * vector_norm(direction)).clamp(min=torch.finfo(Z.dtype).eps * bound)
    gradient = Z.T @ R
    while True:
        moved = _project(D - gradient / L)
        residual = torch.addmm(X, Z, moved, beta=-1)
        if not L < bound or (residual - R).square().sum() <= L * (moved - D).square().sum():
            return moved, residual, direction
        L = torch.minimum(2 * L, bound)


def _generic_vector(Z: Tensor) -> Tensor:
    """Return a start for power iteration that no pattern in the codes is orthogonal to."""
    return torch.linspace(1, 2, Z.shape[1], dtype=Z.dtype, device=Z.device)


def _project(D: Tensor) -> Tensor:
    """Scale the atoms that are longer than one to length one."""
    return D / vector_norm(D, dim=1, keepdim=True).clamp(min=1)


def _revive(Z: Tensor, R: Tensor, D: Tensor, lam: float) -> Tensor:
    """Point atoms that no sample uses at the largest residuals, if a code can come of it."""
    lengths, worst = vector_norm(R, dim=1).sort(descending=True)
    unused = (Z == 0).all(0).nonzero()[:, 0][: (lengths > lam / 2).sum()]
    atoms = D.clone()
    atoms[unused] = -R[worst[: len(unused)]] / lengths[: len(unused), None]
    return atoms
