import base64
import io
import itertools

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from companion_lib import data, plotting
from companion_lib.plotting import COLORS, SIGNED, image_grid, show, subplots

PAGES = {"white": "#ffffff", "dark": "#121212"}
# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
VISION = {
    "typical": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(color):
    c = np.array(matplotlib.colors.to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG's contrast ratio."""
    low, high = sorted(TO_XYZ[1] @ linear(c) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_contrast_is_measured_right():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", COLORS)
def test_every_color_is_seen_on_both_pages(name, page):
    assert contrast(COLORS[name], PAGES[page]) >= (4 if name == "ink" else 3)


@pytest.mark.parametrize("vision", VISION)
def test_colors_stay_apart_for_color_blind_readers(vision):
    for a, b in itertools.combinations(COLORS, 2):
        seen = [lab(VISION[vision] @ linear(COLORS[name])) for name in (a, b)]
        # 2.3 is just noticeable side by side; lines in a plot need several times that.
        assert np.linalg.norm(seen[0] - seen[1]) > 20, (a, b)


def test_the_signed_map_has_the_ink_in_the_middle_and_lightens_all_along():
    lightness = [lab(linear(SIGNED(x)))[0] for x in np.linspace(0, 1, 41)]
    assert all(np.diff(lightness) > 0)
    middle = 255 * np.array(SIGNED(0.5)[:3])
    assert middle == pytest.approx(255 * np.array(matplotlib.colors.to_rgb(COLORS["ink"])), abs=1)


# Style


@pytest.fixture
def style():
    with matplotlib.rc_context():
        plotting.use_style()
        yield


def settings():
    # The backend is chosen when it is first asked for, which is no one's change.
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def test_only_use_style_changes_matplotlibs_settings():
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = settings()
        subplots()
        assert settings() == before
        plotting.use_style()
        changed = {key for key, value in settings().items() if value != before[key]}
        assert {"text.color", "axes.facecolor", "font.size"} <= changed <= set(plotting.STYLE)


def test_lines_take_the_named_colors_in_turn(style):
    _, ax = subplots()
    lines = [ax.plot([0, 1])[0] for _ in range(5)]
    assert [line.get_color() for line in lines] == list(COLORS.values())[:5]


def test_text_is_legible_on_a_phone(style):
    # A 700-pixel figure is 360 pixels wide there: 12 points become 8.6 pixels.
    sizes = ["font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"]
    assert all(matplotlib.rcParams[size] >= 12 for size in sizes)


def test_subplots_is_700_pixels_wide_and_grows_with_its_rows(style):
    assert subplots()[0].get_size_inches().tolist() == [7.0, 3.6]
    fig, axes = subplots(2, 3, sharey=True)
    assert fig.get_size_inches().tolist() == [7.0, 7.2] and axes.shape == (2, 3)
    assert subplots(width=5, height=2)[0].get_size_inches().tolist() == [5.0, 2.0]


# Showing


@pytest.fixture
def shown(monkeypatch):
    """Everything displayed, as a notebook would store it: (formats, metadata)."""
    outputs = []
    formatter = DisplayFormatter()
    formatter.active_types = formatter.format_types
    monkeypatch.setattr(plotting, "display", lambda obj: outputs.append(formatter.format(obj)))
    return outputs


def decode(output):
    return Image.open(io.BytesIO(base64.b64decode(output[0]["image/png"])))


def line_plot():
    fig, ax = subplots(height=3)
    x = np.linspace(0, 10, 300)
    for k in range(5):
        ax.plot(x, np.sin(x + k), label=f"$k = {k}$")
    ax.set(xlabel="step", ylabel="objective", title="Five lines")
    ax.legend()
    return fig


def test_a_figure_is_shown_with_its_alternative_text(style, shown):
    show(line_plot(), alt="Five waves.", caption="The waves *differ* by $k$.")
    (formats, metadata), (caption, _) = shown
    assert formats["text/plain"] == "Figure: Five waves."
    assert metadata["image/png"]["alt"] == "Five waves."
    assert caption["text/plain"] == "The waves *differ* by $k$."
    assert caption["text/markdown"] == "*The waves *differ* by $k$.*"


def test_without_a_caption_there_is_one_output(style, shown):
    show(line_plot(), alt="Five waves.")
    assert len(shown) == 1


def test_the_width_on_the_page_is_half_of_the_pixels(style, shown):
    show(line_plot(), alt="Five waves.")
    width = shown[0][1]["image/png"]["width"]
    assert width == decode(shown[0]).width // 2
    assert 600 < width <= 720


def test_the_ground_is_transparent_and_the_colors_exact(style, shown):
    show(line_plot(), alt="Five waves.")
    pixels = np.asarray(decode(shown[0]).convert("RGBA")).reshape(-1, 4)
    assert (pixels[:, 3] == 0).mean() > 0.7
    solid = {tuple(p) for p in np.unique(pixels[pixels[:, 3] == 255], axis=0)[:, :3].tolist()}
    for color in COLORS.values():
        assert tuple(round(255 * c) for c in matplotlib.colors.to_rgb(color)) in solid


def test_figures_are_small(style, shown):
    show(line_plot(), alt="Lines.")
    fig, ax = subplots()
    image_grid(ax, data.mnist(60)[0], cols=12)
    show(fig, alt="Digits.")
    fig, ax = subplots()
    ax.imshow(torch.randn(40, 80, generator=torch.Generator().manual_seed(0)).numpy())
    show(fig, alt="A matrix.")
    assert [len(base64.b64decode(o[0]["image/png"])) < 60_000 for o in shown] == [True] * 3


def test_the_same_figure_is_the_same_bytes(style, shown):
    for _ in range(2):
        show(line_plot(), alt="Five waves.")
    assert shown[0] == shown[1]


@pytest.mark.parametrize("alt", ["", "  ", "two\nlines"])
def test_a_figure_needs_an_alternative_text(style, shown, alt):
    with pytest.raises(ValueError, match="alt must be one line of text"):
        show(line_plot(), alt=alt)
    assert shown == []


@pytest.mark.parametrize("caption", ["", "two\nlines"])
def test_a_caption_is_one_line(style, shown, caption):
    with pytest.raises(ValueError, match="caption must be one line of text"):
        show(line_plot(), alt="Lines.", caption=caption)
    assert shown == []


def test_outside_a_notebook_the_text_is_printed(style, capsys):
    show(line_plot(), alt="Five waves.", caption="Look.")
    assert capsys.readouterr().out == "Figure: Five waves.\nLook.\n"


# The palette


def flatten(pixels, ground):
    alpha = pixels[..., 3:] / 255.0
    return pixels[..., :3] * alpha + ground * (1 - alpha)


def test_few_colors_stay_exact():
    colors = np.random.default_rng(0).integers(0, 256, (256, 4), dtype=np.uint8)
    kept, nearest = plotting._palette(colors, np.arange(256))
    assert (colors[kept][nearest] == colors).all()


def test_frequent_colors_stay_exact_and_no_rare_one_is_lost():
    ramp = np.repeat(np.arange(250, dtype=np.uint8)[:, None], 3, 1)
    grays = np.concatenate([np.c_[ramp, np.full(250, a, np.uint8)] for a in (255, 254, 253, 252)])
    red = np.array([[255, 0, 0, 255]], np.uint8)
    colors = np.concatenate([grays, red])
    counts = np.r_[np.arange(1000) + 2, 1]
    kept, nearest = plotting._palette(colors, counts)
    drawn = colors[kept][nearest]
    assert len(kept) == 256
    assert (drawn[-1] == red).all()
    assert (drawn[872:1000] == colors[872:1000]).all()  # the 128 most frequent
    for ground in (255, 18):
        assert np.abs(flatten(drawn, ground) - flatten(colors, ground)).max() < 10


def test_a_figure_of_many_colors_is_close_to_its_full_color_form(style, shown):
    fig, ax = subplots()
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    ax.scatter(*x.numpy(), c=x[0].numpy(), alpha=0.5)
    fig.draw_without_rendering()  # the layout settles with the first drawing
    full = io.BytesIO()
    fig.savefig(full, dpi=200, transparent=True, bbox_inches="tight", pad_inches=0.05)
    show(fig, alt="A cloud.")
    exact, small = (np.asarray(i.convert("RGBA")) for i in (Image.open(full), decode(shown[0])))
    for ground in (255, 18):
        error = np.abs(flatten(exact, ground) - flatten(small, ground)).max(-1)
        assert error.mean() < 1 and error.max() < 40


# Grids of images


def tiles(mappable, rows, cols, h, w):
    """Cut a drawn grid back into images, and check that all else is empty."""
    drawn = np.ma.filled(mappable.get_array().astype(float), np.nan)
    gap = (drawn.shape[1] - cols * w) // max(cols - 1, 1)
    assert drawn.shape == (rows * (h + gap) - gap, cols * (w + gap) - gap)
    cut = [
        drawn[r * (h + gap) :, c * (w + gap) :][:h, :w] for r in range(rows) for c in range(cols)
    ]
    assert np.isfinite(drawn).sum() == sum(np.isfinite(tile).sum() for tile in cut)
    return cut


@pytest.mark.parametrize("flat", [False, True])
def test_images_are_placed_row_by_row(flat):
    images = torch.arange(6 * 25.0).reshape(6, 5, 5)
    drawn = image_grid(subplots()[1], images.flatten(1) if flat else images, rows=2, cols=3)
    for tile, image in zip(tiles(drawn, 2, 3, 5, 5), images, strict=True):
        assert (tile == image.numpy()).all()
    assert drawn.get_clim() == (0, 149)


def test_images_need_not_be_square_and_places_may_stay_empty():
    images = torch.rand(5, 4, 6)
    cut = tiles(image_grid(subplots()[1], images, cols=2), 3, 2, 4, 6)
    assert all((tile == image.numpy()).all() for tile, image in zip(cut, images, strict=False))
    assert np.isnan(cut[5]).all()


@pytest.mark.parametrize(
    ("k", "options", "grid"),
    [
        (6, {}, (2, 3)),
        (9, {}, (3, 3)),
        (10, {}, (3, 4)),
        (1, {}, (1, 1)),
        (2, {}, (1, 2)),
        (7, {"rows": 2}, (2, 4)),
        (7, {"cols": 2}, (4, 2)),
        (7, {"rows": 3, "cols": 5}, (3, 5)),
    ],
)
def test_the_missing_side_of_a_grid_follows(k, options, grid):
    drawn = image_grid(subplots()[1], torch.rand(k, 4, 4), **options)
    assert len(tiles(drawn, *grid, 4, 4)) == grid[0] * grid[1]


def test_too_many_images_are_an_error():
    with pytest.raises(ValueError, match="7 images do not fit in 2 rows of 3"):
        image_grid(subplots()[1], torch.rand(7, 4, 4), rows=2, cols=3)


@pytest.mark.parametrize("sides", [{"rows": 0}, {"cols": 0}, {"rows": -1, "cols": -7}])
def test_a_grid_has_rows_and_columns(sides):
    with pytest.raises(ValueError, match=r"(rows|cols) must be at least 1, got (0|-1)"):
        image_grid(subplots()[1], torch.rand(7, 4, 4), **sides)


def test_row_labels_stand_left_of_the_middle_of_their_rows():
    _, ax = subplots()
    drawn = image_grid(ax, torch.rand(6, 4, 4), rows=2, row_labels=["noisy", "clean"])
    assert [text.get_text() for text in ax.texts] == ["noisy", "clean"]
    height = len(drawn.get_array())
    for row, text in enumerate(ax.texts):
        x, y = text.get_position()
        assert x < 0 and text.get_ha() == "right"
        assert row * height / 2 < y < (row + 1) * height / 2


@pytest.mark.parametrize("labels", [["one"], ["one", "two", "three"]])
def test_row_labels_name_every_row(labels):
    with pytest.raises(ValueError, match=f"row_labels must name 2 rows, got {len(labels)}"):
        image_grid(subplots()[1], torch.rand(6, 4, 4), rows=2, row_labels=labels)


def test_signed_images_are_scaled_one_by_one_and_zero_stays_in_the_middle():
    images = torch.stack([torch.eye(4), -8 * torch.eye(4), torch.zeros(4, 4)])
    drawn = image_grid(subplots()[1], images, rows=1, signed=True)
    first, second, third = tiles(drawn, 1, 3, 4, 4)
    assert (first == np.eye(4)).all() and (second == -np.eye(4)).all() and (third == 0).all()
    assert drawn.get_clim() == (-1, 1) and drawn.get_cmap().name == "signed"


def test_the_gaps_are_transparent(style, shown):
    fig, ax = subplots(width=2, height=2)
    image_grid(ax, torch.ones(4, 8, 8), rows=2)
    show(fig, alt="Four squares.")
    alpha = np.asarray(decode(shown[0]).convert("RGBA"))[..., 3]
    h, w = alpha.shape
    assert alpha[h // 4, w // 4] == alpha[3 * h // 4, 3 * w // 4] == 255
    assert alpha[h // 2, w // 2] == 0


def test_a_color_map_may_be_chosen_and_the_axes_are_off():
    _, ax = subplots()
    assert image_grid(ax, torch.rand(1, 4, 4), cmap="viridis").get_cmap().name == "viridis"
    assert not ax.axison


def test_parameters_and_half_precision_are_drawn():
    image_grid(subplots()[1], torch.nn.Parameter(torch.rand(2, 16)))
    image_grid(subplots()[1], torch.rand(2, 16).half())


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (torch.ones(2, 10), ValueError),
        (torch.full((1, 4, 4), float("nan")), ValueError),
        (torch.ones(0, 4, 4), ValueError),
        (torch.ones(1, 4, 4, dtype=torch.int64), TypeError),
        (np.ones((1, 4, 4)), TypeError),
    ],
)
def test_images_of_another_form_are_an_error(images, error):
    with pytest.raises(error, match="images"):
        image_grid(subplots()[1], images)
