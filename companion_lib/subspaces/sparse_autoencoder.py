"""The sparse autoencoder, which is one step of nonnegative ISTA."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from companion_lib.validation import check_like, check_range, check_samples


class SparseAutoencoder(nn.Module):
    """A ReLU encoder and a linear decoder: ``z = relu(x W_enc^T + b)``, ``x' = z W_dec``.

    Parameters
    ----------
    d : int
        The dimension of the samples.
    m : int
        The number of atoms (latents).
    generator : torch.Generator, optional
        Draws the first decoder atoms: random unit vectors. The encoder starts as their transpose.
    dtype, device : optional
        Of the weights.

    Attributes
    ----------
    encoder_weight, decoder_weight : nn.Parameter, shape (m, d)
        Row ``j`` of the decoder is atom ``j``; row ``j`` of the encoder detects it.
    encoder_bias : nn.Parameter, shape (m,)

    Notes
    -----
    Book: section ``learned-sparse-coding``.
    """

    def __init__(
        self,
        d: int,
        m: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        check_range(d, "d", 1)
        check_range(m, "m", 1)
        atoms = F.normalize(torch.randn(m, d, generator=generator, dtype=dtype, device=device))
        self.encoder_weight = nn.Parameter(atoms.clone())
        self.encoder_bias = nn.Parameter(atoms.new_zeros(m))
        self.decoder_weight = nn.Parameter(atoms)

    @classmethod
    def from_dictionary(
        cls, D: Tensor, lam: float, step_size: float, start: Tensor | None = None
    ) -> SparseAutoencoder:
        """Return the autoencoder that takes one nonnegative ISTA step from ``start``.

        Parameters
        ----------
        D : Tensor, shape (m, d)
            The dictionary, atoms as rows. The weights take its dtype and device.
        lam : float
            The weight of the l1 norm, ``lam >= 0``.
        step_size : float
            The book's :math:`\\eta`.
        start : Tensor, shape (m,), optional
            The code every sample starts from, the book's :math:`z^1`; zero if not given.

        Returns
        -------
        SparseAutoencoder
            Its ``encode`` equals ``ista(X, D, lam, steps=1, step_size=step_size, start=...,
            nonnegative=True).codes``.

        Raises
        ------
        TypeError
            If ``D`` is not a floating-point tensor.
        ValueError
            If ``D`` is empty or not finite, ``lam`` or ``step_size`` is negative, or ``start``
            does not fit.
        """
        check_samples(D, "D")
        check_range(lam, "lam", 0)
        check_range(step_size, "step_size", 0)
        m, d = D.shape
        z = D.new_zeros(m) if start is None else check_like(start, "start", (m,), D)
        # Its own generator: weights that are overwritten must not move the global one.
        model = cls(d, m, torch.Generator(D.device), dtype=D.dtype, device=D.device)
        with torch.no_grad():
            model.encoder_weight.copy_(2 * step_size * D)
            model.encoder_bias.copy_(z - 2 * step_size * (z @ D) @ D.T - step_size * lam)
            model.decoder_weight.copy_(D)
        return model

    def encode(self, X: Tensor) -> Tensor:
        """Return the nonnegative codes (n, m) of samples ``X`` of shape (n, d)."""
        check_samples(X)
        check_like(X, "X", (len(X), self.encoder_weight.shape[1]), self.encoder_weight)
        return F.relu(F.linear(X, self.encoder_weight, self.encoder_bias))

    def decode(self, Z: Tensor) -> Tensor:
        """Return the samples (n, d) that codes ``Z`` of shape (n, m) stand for."""
        return Z @ self.decoder_weight

    def forward(self, X: Tensor) -> Tensor:
        """Return the reconstruction of samples ``X`` of shape (n, d)."""
        return self.decode(self.encode(X))
