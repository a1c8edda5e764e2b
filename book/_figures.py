"""The five pictures of the landing page, each computed from data: ``make figures``."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle
from torch import Tensor

from companion_lib import data, plotting
from companion_lib.plotting import COLORS
from companion_lib.subspaces import ista, pca, probabilistic_pca

FOLDER = Path(__file__).parent / "_static"
KINDS = {0: "blue", 1: "orange", 4: "green", 6: "purple"}


def save(fig, name: str) -> None:
    """Write a figure with a transparent ground."""
    path = FOLDER / f"principle-{name}.png"
    options = {"bbox_inches": "tight", "pad_inches": 0.05, "metadata": {"Software": None}}
    fig.savefig(path, dpi=150, transparent=True, pil_kwargs={"optimize": True}, **options)


def structure() -> None:
    """Digits at their place on two principal directions."""
    images, labels = data.digits()
    kept = torch.isin(labels, torch.tensor(list(KINDS)))
    images, labels = images[kept], labels[kept]
    places = pca(images, k=2).encode(images)
    fig, ax = plotting.subplots(height=4.2)
    for kind, color in KINDS.items():
        x, y = places[labels == kind].T
        ax.scatter(x, y, s=48, color=COLORS[color], marker=f"${kind}$", linewidths=0)
    ax.set(xlabel="first principal direction", ylabel="second principal direction")
    save(fig, "structure")


def denoising() -> None:
    """Held-out digits: clean, noisy, and shrunk toward the subspace learned from noisy ones."""
    rng = torch.Generator().manual_seed(0)
    images, _ = data.mnist()
    noisy = images + 0.6 * torch.randn(images.shape, generator=rng)
    restored = probabilistic_pca(noisy[10:], k=60).denoise(noisy[:10])
    rows(["clean", "noisy", "denoised"], [images[:10], noisy[:10], restored], "denoising")


def consistency() -> None:
    """Held-out digits, and what is decoded from 4, 16 and 64 numbers."""
    images, _ = data.mnist()
    decoded = [pca(images[20:], k=k).denoise(images[10:20]) for k in (4, 16, 64)]
    names = ["original", "4 numbers", "16 numbers", "64 numbers"]
    rows(names, [images[10:20], *decoded], "consistency")


def rows(names: list[str], images: list[Tensor], name: str) -> None:
    """Draw rows of digits, each with its name at the left."""
    fig, axes = plotting.subplots(len(names), 1, height=0.62 * len(names))
    for ax, text, row in zip(axes, names, images, strict=True):
        plotting.image_grid(ax, row.clamp(0, 1), rows=1)
        ax.text(-0.02, 0.5, text, transform=ax.transAxes, ha="right", va="center")
    save(fig, name)


def code_words(points: Tensor, radius: float) -> Tensor:
    """Choose samples until every sample is within ``radius`` of a chosen one."""
    chosen: list[Tensor] = []
    left = points
    while len(left):
        # The sample that covers the most of what is left.
        best = (torch.cdist(left, left) <= radius).sum(1).argmax()
        chosen.append(left[best])
        left = left[torch.cdist(left, left[best, None])[:, 0] > radius]
    return torch.stack(chosen)


def coding() -> None:
    """Two thin clouds and a round one, covered by discs of one size."""
    rng = torch.Generator().manual_seed(1)
    along, across = torch.randn(2, 600, generator=rng)
    angle = torch.where(torch.arange(600) < 300, 0.6, -0.6)
    across = 0.05 * across
    x = along * torch.cos(angle) - across * torch.sin(angle)
    y = along * torch.sin(angle) + across * torch.cos(angle)
    lines = torch.stack([x, y], dim=1)
    # The same variance along each axis, and no structure beyond it.
    round_cloud = torch.randn(600, 2, generator=rng) * lines.std(0)
    fig, axes = plotting.subplots(1, 2, height=3.4, sharex=True, sharey=True)
    clouds = {"two lines": lines, "no structure": round_cloud}
    for ax, (name, points) in zip(axes, clouds.items(), strict=True):
        words = code_words(points, radius=0.25)
        for word in words:
            ax.add_patch(Circle(word.tolist(), 0.25, color=COLORS["orange"], alpha=0.25, lw=0))
        ax.scatter(*points.T, s=3, color=COLORS["blue"], linewidths=0)
        ax.set(title=f"{name}: {len(words)} code words", aspect="equal")
        ax.set_axis_off()
    save(fig, "coding")


def unrolling() -> None:
    """The code of a signal made of five of 64 atoms, layer by layer of ISTA."""
    rng = torch.Generator().manual_seed(1)
    atoms = torch.randn(64, 48, generator=rng)
    atoms = atoms / atoms.norm(dim=1, keepdim=True)
    truth = torch.zeros(1, 64)
    truth[0, [6, 20, 33, 47, 58]] = torch.tensor([2.0, -1.6, 1.3, 1.1, -0.9])
    layers = [ista(truth @ atoms, atoms, lam=0.3, steps=k).codes for k in range(1, 61)]
    fig, ax = plotting.subplots(height=3.2)
    # The square root shows small entries beside large ones.
    picture = ax.imshow(
        torch.cat(layers).abs().T, aspect="auto", extent=(0.5, 60.5, 64.5, 0.5), norm=PowerNorm(0.5)
    )
    ax.set(xlabel="layer", ylabel="entry of the code", yticks=[1, 16, 32, 48, 64])
    fig.colorbar(picture, label="size", ticks=[0, 0.1, 0.5, 1, 1.5])
    save(fig, "unrolling")


if __name__ == "__main__":
    plotting.use_style()
    for draw in (structure, denoising, coding, unrolling, consistency):
        draw()
