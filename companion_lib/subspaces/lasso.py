"""Sparse codes over an overcomplete dictionary: the LASSO, ISTA and FISTA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from companion_lib.validation import check_like, check_range, check_samples, check_tensor, working


@dataclass(frozen=True, eq=False, repr=False)
class SparseCode:
    codes: Tensor
    history: Tensor

    def __repr__(self) -> str:
        n, m = self.codes.shape
        return f"SparseCode(n={n}, m={m})"


def step_limit(D: Tensor) -> float:
    """Return the largest step that is sure to descend: ``1 / (2 ||D||_2^2)``."""
    gram = D @ D.T if len(D) <= D.shape[1] else D.T @ D
    return 0.5 / torch.linalg.eigvalsh(gram)[-1].item()


def lasso_objective(X, Z, D, lam):
    return (X - Z @ D).square().sum(1) + lam * Z.abs().sum(1)


def lasso_residual(X, Z, D, lam):
    gradient = 2 * (Z @ D - X) @ D.T
    on, off = (gradient + lam * Z.sign()).abs(), (gradient.abs() - lam).clamp(min=0)
    return torch.where(Z == 0, off, on).amax(1)


def ista(X, D, lam, steps=100, step_size=None, start=None, tol=None, nonnegative=False, history=False):
    return _run(X, D, lam, steps, step_size, start, tol, nonnegative, history, False)


def fista(X, D, lam, steps=100, step_size=None, start=None, tol=None, nonnegative=False, history=False):
    return _run(X, D, lam, steps, step_size, start, tol, nonnegative, history, True)


def _run(X, D, lam, steps, step_size, start, tol, nonnegative, history, momentum):
    eta = step_limit(D) if step_size is None else step_size
    Z = X.new_zeros(len(X), len(D)) if start is None else start.clone()
    V, t = Z, 1.0
    values = [lasso_objective(X, Z, D, lam).sum()]
    for _ in range(steps):
        G = V - 2 * eta * (V @ D - X) @ D.T
        new = (G - eta * lam).clamp(min=0) if nonnegative else G - G.clamp(-eta * lam, eta * lam)
        if history:
            values.append(lasso_objective(X, new, D, lam).sum())
        if not momentum:
            V = Z = new
            continue
        if ((V - new) * (new - Z)).sum() > 0:
            t = 1.0
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        V = new + (t - 1) / t_new * (new - Z)
        Z, t = new, t_new
    return SparseCode(Z, torch.stack(values))
