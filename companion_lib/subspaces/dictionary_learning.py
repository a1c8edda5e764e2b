"""Learn an overcomplete dictionary and its sparse codes together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from companion_lib.subspaces.lasso import step_limit
from companion_lib.subspaces.soft_threshold import shrinkage
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

    Every 25 steps an atom that no sample uses is replaced by a badly coded sample's residual.
    That leaves the objective unchanged, because the codes of such an atom are zero.

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
        First atoms; longer ones are scaled to length one. Random unit vectors if not given.
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
    data = working(X)
    D = _project(_start(X, m, start, generator))
    Z = data.new_zeros(len(data), m)
    R = Z @ D - data
    history = [R.square().sum()]
    for step in tqdm(range(steps), disable=not progress, desc="dictionary learning"):
        for _ in range(code_steps):
            Z, R = _move_codes(Z, R, D, data, lam)
        for _ in range(atom_steps):
            D, R = _move_atoms(Z, R, D, data)
        history.append(R.square().sum() + lam * Z.abs().sum())
        if step % REVIVE_EVERY == REVIVE_EVERY - 1:
            D = _revive(Z, R, D)
    return DictionaryLearning(D.to(X.dtype), Z.to(X.dtype), torch.stack(history))


def _move_codes(Z, R, D, X, lam):
    eta = step_limit(D)
    Z = shrinkage(torch.addmm(Z, R, D.T, alpha=-2 * eta), eta * lam)
    return Z, Z @ D - X


def _move_atoms(Z, R, D, X):
    norm = torch.linalg.matrix_norm(Z.T @ Z, 2)
    D = _project(D - Z.T @ R / norm.clamp(min=torch.finfo(Z.dtype).tiny))
    return D, Z @ D - X


def _project(D: Tensor) -> Tensor:
    """Scale the atoms that are longer than one to length one."""
    return D / torch.linalg.vector_norm(D, dim=1, keepdim=True).clamp(min=1)


def _start(X, m, start, generator):
    if start is not None:
        return working(check_like(start, "start", (m, X.shape[1]), X))
    like = working(X)
    D = torch.randn(m, X.shape[1], generator=generator, dtype=like.dtype, device=X.device)
    return D / torch.linalg.vector_norm(D, dim=1, keepdim=True)


def _revive(Z: Tensor, R: Tensor, D: Tensor) -> Tensor:
    """Replace atoms with no nonzero code by the directions of the largest residuals."""
    dead = (~(Z != 0).any(0)).nonzero().squeeze(1)[: len(R)]
    lengths = torch.linalg.vector_norm(R, dim=1)
    length, worst = lengths.topk(len(dead))
    D = D.clone()
    D[dead] = -R[worst] / length.clamp(min=torch.finfo(R.dtype).tiny)[:, None]
    return D
