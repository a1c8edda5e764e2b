"""A small network onto the unit sphere, and the loop that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from companion_lib.validation import check_count


class SphereEncoder(nn.Module):
    """A multilayer perceptron whose outputs have unit length.

    Parameters
    ----------
    sizes : int
        Input size, hidden sizes, feature size: ``SphereEncoder(64, 256, 256, 64)``.
    generator : torch.Generator, optional
        Draws the weights: Gaussian with variance 2 over the number of inputs. Biases are zero.

    Notes
    -----
    Book: section ``supervised-image-representations``, with a residual network in this place.
    """

    def __init__(self, *sizes: int, generator: torch.Generator | None = None):
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes must name an input and an output size at least, got {sizes}")
        for size in sizes:
            check_count(size, "sizes")
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws first, from the global generator
            self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        for layer in self.layers:
            with torch.no_grad():
                std = (2 / layer.in_features) ** 0.5
                layer.weight.normal_(0, std, generator=generator)
                layer.bias.zero_()

    def features(self, X: Tensor) -> Tensor:
        """Return features ``(n, d)`` before they are scaled to unit length."""
        *hidden, last = self.layers
        for layer in hidden:
            X = torch.relu(layer(X))
        return last(X)

    def forward(self, X: Tensor) -> Tensor:
        """Return features ``(n, d)`` of unit length for inputs ``(n, inputs)``."""
        return normalize(self.features(X), dim=1)


def train(
    objective: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    n: int,
    epochs: int,
    batch: int,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
    record: Callable[[int], None] | None = None,
    progress: bool = False,
) -> None:
    """Minimize an objective over random batches, by Adam.

    Parameters
    ----------
    objective : callable
        ``objective(rows)`` is the loss of a batch, given the numbers of its samples ``(b,)``.
    parameters : iterable of nn.Parameter
    n : int
        Number of samples. The last batch of an epoch is left out if it is not full: too few
        samples for all classes would make another objective of it.
    epochs, batch : int
    lr : float
    generator : torch.Generator, optional
        Orders the samples; on the CPU.
    record : callable, optional
        ``record(epoch)`` is called before the first epoch, with 0, and after each.
    progress : bool
        Show a progress bar.
    """
    check_count(n, "n")
    check_count(epochs, "epochs")
    check_count(batch, "batch", n, "n")
    optimizer = torch.optim.Adam(list(parameters), lr=lr)
    if record:
        record(0)
    for epoch in tqdm(range(1, epochs + 1), desc="epochs", disable=not progress):
        order = torch.randperm(n, generator=generator)
        for rows in order[: n - n % batch].split(batch):
            optimizer.zero_grad()
            objective(rows).backward()
            optimizer.step()
        if record:
            record(epoch)
