"""One house style for figures, and one way to show them.

A figure has no background and is drawn in colors that can be seen on a white page and on a
dark one. ``show`` puts it on the page with a text for readers who do not see it.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from torch import Tensor

from companion_lib.data import as_images

# Okabe and Ito's hues, darkened until each has a contrast of at least 3 with white and with the
# dark page, #121212. That leaves a narrow band of lightness; within it the colors are spread
# so that they stay apart for readers with red-green blindness.
COLORS = {
    "blue": "#035df1",
    "orange": "#ee640f",
    "green": "#00a562",
    "purple": "#a841a8",
    "sky": "#0a95e8",
    "ink": "#747a80",  # text and axes: contrast above 4 on both pages
}
SEQUENTIAL = "viridis"
# Negative dark blue, zero gray, positive light orange: the sign also shows in the lightness.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#00305e", COLORS["ink"], "#ffc27a"])

DPI = 200  # two pixels for each of a page's 100 to the inch
INK = COLORS["ink"]
STYLE = {
    "figure.figsize": (7.0, 3.6),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.0,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "patch.edgecolor": INK,
    "image.cmap": SEQUENTIAL,
    "axes.prop_cycle": cycler(color=[color for color in COLORS.values() if color != INK]),
}


def use_style() -> None:
    """Make the house style matplotlib's default; a notebook calls this once, at its top."""
    matplotlib.rcParams.update(STYLE)


def subplots(
    rows: int = 1, cols: int = 1, width: float = 7.0, height: float | None = None, **options
) -> tuple[Figure, Axes]:
    """Return a figure and its axes, like ``matplotlib.pyplot.subplots``.

    The figure is not registered with pyplot, so it is drawn by ``show`` and nothing else, and
    is freed with its last reference.

    Parameters
    ----------
    rows, cols : int
    width, height : float
        Inches, at 100 pixels of the page each; 7 fills the column. The height is 3.6 a row if
        not given.
    **options
        Passed to ``Figure.subplots``, such as ``sharey=True`` or ``width_ratios``.

    Returns
    -------
    fig : matplotlib.figure.Figure
    ax : Axes, or a numpy array of them if there are several

    Examples
    --------
    >>> fig, (left, right) = subplots(1, 2, height=3)
    """
    height = 3.6 * rows if height is None else height
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, cols, **options)


def show(fig: Figure, alt: str, caption: str | None = None) -> None:
    """Display a figure with its alternative text and, below it, a caption.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    alt : str
        What the figure shows, for a reader who does not see it. Also its printed form, so a
        notebook's text is the same on every run: leave measured digits out.
    caption : str, optional
        What to notice, in Markdown, on one line.

    Raises
    ------
    ValueError
        If ``alt`` is empty or not one line, or ``caption`` is not one line.
    """
    alt = _one_line(alt, "alt")
    if caption is not None:
        caption = _one_line(caption, "caption")
    png = _png(fig)
    width, _ = struct.unpack(">II", png[16:24])  # PNG's header holds its size in pixels
    picture = {"image/png": base64.b64encode(png).decode(), "text/plain": f"Figure: {alt}"}
    display(Output(picture, {"image/png": {"alt": alt, "width": width // 2}}))
    if caption is not None:
        display(Output({"text/markdown": f"*{caption}*", "text/plain": caption}, {}))


@dataclass(frozen=True, repr=False)
class Output:
    """What a cell shows: one thing in several formats, and the formats' metadata."""

    formats: dict
    metadata: dict

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return self.formats, self.metadata

    def __repr__(self) -> str:
        return self.formats["text/plain"]


def _one_line(text: str, name: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError(f"{name} must be one line of text, got {text!r}")
    return text.strip()


def _png(fig: Figure) -> bytes:
    """Draw the figure as a PNG with at most 256 colors: a third of the size in full color."""
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=DPI, transparent=True, bbox_inches="tight", pad_inches=0.05)
    image = Image.open(drawn).convert("RGBA")
    # One integer a pixel: numpy sorts those far faster than rows of four.
    pixels = np.frombuffer(image.tobytes(), np.uint32)
    colors, index, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    colors = colors.view(np.uint8).reshape(-1, 4)
    kept, nearest = _palette(colors, counts)
    image = Image.frombytes("P", image.size, nearest[index].tobytes())
    image.putpalette(colors[kept].tobytes(), "RGBA")
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def _palette(colors: np.ndarray, counts: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Choose up to 256 of the ``(m, 4)`` colors, and for each of the ``m`` the nearest chosen.

    Half are the most frequent ones, which stay exact. The rest are picked one by one, each the
    farthest from those before, so that no rare color is lost.
    """
    # How a color looks on white and on black: premultiplied by its alpha.
    seen = colors.astype(np.float32)
    seen[:, :3] *= seen[:, 3:] / 255
    kept = list(np.argsort(-counts, kind="stable")[:128])
    gap, nearest = np.full(len(colors), np.inf), np.zeros(len(colors), np.uint8)
    for place in range(256):
        if place == len(kept):
            kept.append(int(gap.argmax()))
        distance = ((seen - seen[kept[place]]) ** 2).sum(1)
        closer = distance < gap
        gap[closer], nearest[closer] = distance[closer], place
        if place + 1 >= len(kept) and gap.max() == 0:
            break
    return kept, nearest


def image_grid(
    ax: Axes,
    images: Tensor,
    rows: int | None = None,
    cols: int | None = None,
    signed: bool = False,
    cmap: str | Colormap | None = None,
    row_labels: Sequence[str] = (),
) -> AxesImage:
    """Draw images side by side in one axes, row by row, with gaps between them.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    images : Tensor, (k, h, w), or (k, h * h) for square ones
    rows, cols : int, optional
        With one of them the other follows; with neither the grid is near square. Places
        beyond the ``k``-th stay empty; images beyond the last place are an error.
    signed : bool
        False: one gray scale for all, from their least to their largest value. True, for
        dictionary atoms: each image is divided by its largest absolute value, and zero is the
        middle of a two-sided color map.
    cmap : str or Colormap, optional
        In place of the gray or two-sided map.
    row_labels : sequence of str, optional
        What each row shows, written to its left.

    Returns
    -------
    matplotlib.image.AxesImage
        For a color bar.

    Raises
    ------
    ValueError
        If the images have another shape, hold NaN, or do not fit the grid, or ``row_labels``
        does not name every row.
    TypeError
        If ``images`` is not a tensor of floating-point numbers.
    """
    images = as_images(images).detach().cpu().float()
    rows, cols = _grid(len(images), rows, cols)
    if signed:
        peak = images.abs().amax((1, 2), keepdim=True)
        images = images / peak.where(peak > 0, torch.ones_like(peak))
    limits = (-1.0, 1.0) if signed else (images.min().item(), images.max().item())
    ax.set_axis_off()
    if len(row_labels) not in (0, rows):
        raise ValueError(f"row_labels must name {rows} rows, got {len(row_labels)}")
    mosaic = _mosaic(images, rows, cols)
    for row, label in enumerate(row_labels):
        middle = (row + 0.5) * len(mosaic) / rows
        ax.text(-0.01 * mosaic.shape[1], middle, label, ha="right", va="center")
    return ax.imshow(
        mosaic.numpy(),
        cmap=cmap or (SIGNED if signed else "gray"),
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )


def _grid(k: int, rows: int | None, cols: int | None) -> tuple[int, int]:
    """Choose the missing sides of a grid for ``k`` images."""
    for name, given in (("rows", rows), ("cols", cols)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1, got {given}")
    if cols is None:
        cols = -(-k // rows) if rows is not None else -int(-(k**0.5) // 1)
    if rows is None:
        rows = -(-k // cols)
    if rows * cols < k:
        raise ValueError(f"{k} images do not fit in {rows} rows of {cols}")
    return rows, cols


def _mosaic(images: Tensor, rows: int, cols: int) -> Tensor:
    """Paste ``(k, h, w)`` images into one; the gaps are NaN, which is drawn transparent."""
    k, h, w = images.shape
    gap = max(1, round(min(h, w) / 14))
    tiles = images.new_full((rows * cols, h + gap, w + gap), float("nan"))
    tiles[:k, :h, :w] = images
    tiles = tiles.unflatten(0, (rows, cols)).transpose(1, 2)
    return tiles.reshape(rows * (h + gap), cols * (w + gap))[:-gap, :-gap]
