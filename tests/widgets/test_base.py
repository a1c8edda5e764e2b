"""What every widget promises on the Python side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from traitlets import TraitError

from companion_lib import plotting
from companion_lib.widgets import (
    BlurAndUnblur,
    ClusterByCost,
    CodingRatePlayground,
    EdgeOfMemorization,
    ISTAUnrolled,
    RankAgainstEpsilon,
    RankAndNoise,
    RateMeter,
    RotateAndWatch,
    SamplerRace,
    WatchMCR2,
)
from companion_lib.widgets.base import _CSS

WIDGETS = [
    BlurAndUnblur,
    ClusterByCost,
    CodingRatePlayground,
    EdgeOfMemorization,
    ISTAUnrolled,
    RankAgainstEpsilon,
    RankAndNoise,
    RateMeter,
    RotateAndWatch,
    SamplerRace,
    WatchMCR2,
]
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module", params=WIDGETS, ids=lambda kind: kind.__name__)
def widget(request):
    return request.param()


class Scripts(HTMLParser):
    """The text of every script element, by class or type."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.open = attributes.get("class", attributes.get("type")) if tag == "script" else None

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open:
            self.found[self.open] = self.found.get(self.open, "") + data


def test_bundle_has_the_live_view_the_static_page_and_a_text(widget):
    bundle, metadata = widget._repr_mimebundle_()
    assert bundle[VIEW]["model_id"] == widget.model_id
    assert bundle["text/plain"] == repr(widget)
    assert bundle["text/html"] == widget.static_html()
    assert isinstance(metadata, dict)


def test_is_shown_by_its_bundle_in_ipywidgets_7_too(widget):
    """ipywidgets 7 defines ``_ipython_display_``, which would win over the bundle."""
    assert not callable(widget._ipython_display_)


def test_html_carries_the_state_the_module_and_the_page_script(widget):
    scripts = Scripts(widget.static_html()).found
    assert json.loads(scripts["companion-state"]) == json.loads(json.dumps(widget.state()))
    assert scripts["companion-module"] == widget._esm
    assert "StaticModel" in scripts["module"]


def test_html_is_small_and_asks_for_nothing(widget):
    text = widget.static_html()
    assert len(text.encode()) < 400_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|//cdn|@import|url\(", text)


def test_html_keeps_hostile_text_inside_its_script(widget):
    widget.data, kept = {**widget.data, "note": "</script><!--"}, widget.data
    text = widget.static_html()
    widget.data = kept
    state = json.loads(Scripts(text).found["companion-state"])
    assert state["data"]["note"] == "</script><!--"
    assert "</script><!--" not in text


@pytest.mark.parametrize("kind", WIDGETS, ids=lambda kind: kind.__name__)
def test_equal_widgets_give_equal_pages(kind):
    # Nothing is random in these.
    name = {RankAgainstEpsilon: "d", SamplerRace: "steps_a"}.get(kind, "seed")
    assert kind(**{name: 5}).static_html() == kind(**{name: 5}).static_html()
    assert kind(**{name: 5}).static_html() != kind(**{name: 6}).static_html()


def test_pages_are_equal_in_another_process():
    """No hash order, address or model id leaks into the text that nbval compares."""
    show = "from companion_lib.widgets import RotateAndWatch as R; print(R(n=100).static_html())"
    result = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=True
    )
    assert result.stdout == RotateAndWatch(n=100).static_html() + "\n"


def test_fewer_components_than_the_usual_rank_keep_all():
    assert RankAndNoise(components=50).rank == 50
    assert RankAndNoise().rank == 100


@pytest.mark.parametrize("seed", range(60))
def test_strong_noise_fits_in_the_state(seed):
    widget = ISTAUnrolled(noise=1, sparsity=128, d=4, m=128, seed=seed)
    assert widget.signal.abs().max() < 32768 * widget.data["signal"]["scale"]


def test_repr_is_short_and_stable():
    assert repr(RotateAndWatch(theta=0.5, angle=20, n=100)) == (
        "RotateAndWatch(angle=20.0, noise=0.0, theta=0.5)"
    )
    assert repr(ISTAUnrolled(layers=3)) == (
        "ISTAUnrolled(lam=0.1, layers=3, momentum=False, step=1.0)"
    )
    assert repr(CodingRatePlayground(d=3)) == "CodingRatePlayground(d=3, eps=0.3)"
    assert repr(BlurAndUnblur(steps=3)) == "BlurAndUnblur(s=1.0, steps=3, t=2.0)"
    assert repr(EdgeOfMemorization(capacity=0.62)) == "EdgeOfMemorization(capacity=0.6, size=100)"
    assert repr(RankAgainstEpsilon(k=3)) == "RankAgainstEpsilon(d=32, eps=0.7, k=3)"
    assert repr(SamplerRace(order_b=2)) == (
        "SamplerRace(grid_a='uniform', grid_b='exponential', order_a=1, order_b=2, "
        "process_a='VE', process_b='VE', steps_a=16, steps_b=16)"
    )
    assert repr(ClusterByCost(eps=0.0011)) == (
        "ClusterByCost(eps=0.001, merges=355, overhead=True)"
    )
    assert repr(WatchMCR2(snapshot=4)) == "WatchMCR2(collapse=False, snapshot=4)"
    assert repr(RateMeter(new=True)) == "RateMeter(new=True, size=256, snr=100.0)"
    assert repr(RankAndNoise(rank=5)) == "RankAndNoise(noise=0.5, rank=5, shrink=False)"


def test_the_reader_s_moves_reach_python():
    """The front end's messages end in ``set_state``."""
    widget, seen = RotateAndWatch(n=100), []
    widget.observe(lambda change: seen.append(change.new), "angle")
    widget.set_state({"angle": 12})
    assert widget.angle == 12.0
    assert seen == [12.0]
    before = widget.values()
    widget.theta = 0.9
    assert widget.values()["l1"] > before["l1"]


def test_another_precision_goes_to_the_stop_of_its_path():
    widget = ClusterByCost(merges=10)
    assert widget.merges == 10
    widget.eps = 1e-6
    assert widget.merges == 357
    widget.set_state({"overhead": False, "merges": 358 - len(widget.labels.unique())})
    assert widget.values()["bits"] == widget.values()["greedy_bits"]
    widget.set_state({"merges": 100})
    assert len(widget.labels.unique()) == 258


def test_dragged_points_reach_python():
    widget, seen = CodingRatePlayground(), []
    widget.observe(lambda change: seen.append(change.new), "points")
    moved = [[2 * value for value in point] for point in widget.points]
    before = widget.values()
    widget.set_state({"points": moved})
    assert seen == [moved]
    assert widget.values()["scale"] == pytest.approx(2 * before["scale"])


def test_noise_levels_that_would_cross_go_together():
    widget = BlurAndUnblur(t=2, s=1)
    widget.t = 0.5
    assert (widget.t, widget.s) == (0.5, 0.5)
    widget.s = 3
    assert (widget.t, widget.s) == (3.0, 3.0)
    widget.set_state({"t": 9, "s": 0.1})
    assert (widget.t, widget.s) == (9.0, 0.1)
    widget.set_state({"t": 0.2, "s": 0.1})
    assert (widget.t, widget.s) == (0.2, 0.1)


def test_dropped_particles_reach_python():
    widget, seen = BlurAndUnblur(particles=2), []
    assert len(widget.particles) == 2
    widget.observe(lambda change: seen.append(change.new), "particles")
    widget.set_state({"particles": [[1, 2.5]]})
    assert seen == [[[1.0, 2.5]]]
    assert widget.paths.shape == (21, 1, 2)
    widget.set_state({"particles": []})
    assert widget.paths.shape == (21, 0, 2)


def test_another_dimension_brings_its_points():
    widget = CodingRatePlayground()
    widget.d = 3
    assert widget.samples.shape == (36, 3)
    assert widget.points == CodingRatePlayground(d=3).points
    ours = torch.randn(24, 2, generator=torch.Generator().manual_seed(0)).tolist()
    widget.set_state({"d": 2, "points": ours})  # both in one message
    assert widget.points == ours


def test_room_for_classes_may_change_with_their_number():
    widget = RankAgainstEpsilon(k=4, d=8)
    widget.set_state({"k": 10, "d": 10})
    assert (widget.k, widget.d) == (10, 10)
    with pytest.raises(TraitError, match="k must be at most d, got k = 10 and d = 5"):
        widget.d = 5
    assert widget.d == 10


def test_a_process_takes_an_unknown_grid_back_to_uniform():
    widget = SamplerRace()
    widget.process_b = "VP"
    assert widget.grid_b == "uniform"
    widget.grid_b = "angle"
    widget.set_state({"process_b": "VE", "grid_b": "exponential"})  # both in one message
    assert (widget.process_b, widget.grid_b) == ("VE", "exponential")
    with pytest.raises(TraitError, match="only for process 'VP'"):
        widget.grid_b = "angle"
    assert widget.grid_b == "exponential"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotateAndWatch(theta=2), "theta must be between 0.05 and 1.0, got 2"),
        (lambda: RotateAndWatch(noise=-0.1), "noise must be between 0.0 and 1.0, got -0.1"),
        (
            lambda: RotateAndWatch(angle=float("nan")),
            "angle must be between 0.0 and 180.0, got nan",
        ),
        (lambda: RankAndNoise(rank=0), "rank must be between 1 and 120, got 0"),
        (
            lambda: RankAndNoise(rank=30, components=20),
            "rank must be between 1 and components = 20, got 30",
        ),
        (lambda: ISTAUnrolled(layers=500), "layers must be between 1 and 200, got 500"),
        (lambda: ISTAUnrolled(lam=-1), "lam must be between 0.02 and 1.0, got -1"),
        (lambda: ISTAUnrolled(step="long"), "'step'"),
        (lambda: ClusterByCost(eps=0), "eps must be between 1e-08 and 3.16"),
        (lambda: ClusterByCost(merges=358), "merges must be between 0 and 357, got 358"),
        (lambda: WatchMCR2(snapshot=16), "snapshot must be between 0 and 15, got 16"),
        (lambda: WatchMCR2(snapshot=-1), "snapshot must be between 0 and 15, got -1"),
        (lambda: CodingRatePlayground(d=4), "d must be between 2 and 3, got 4"),
        (lambda: CodingRatePlayground(eps=0), "eps must be between 0.05 and 1.0, got 0"),
        (
            lambda: CodingRatePlayground().set_trait("points", [[1.0, 2.0, 3.0]] * 24),
            "points must be 24 rows of 2 finite numbers",
        ),
        (
            lambda: CodingRatePlayground().set_trait("points", [[float("nan"), 0.0]] * 24),
            "points must be 24 rows of 2 finite numbers",
        ),
        (
            lambda: CodingRatePlayground().set_trait("points", [[0.0, 1.0], [2.0]] * 12),
            "points must be 24 rows of 2 finite numbers",
        ),
        *(
            (
                lambda points=points: CodingRatePlayground().set_trait("points", points),
                "points must be 24 rows of 2 finite numbers",
            )
            for points in ([["0", "1"]] * 24, ["01"] * 24, [[None, 1.0]] * 24, [1.0] * 24, [None])
        ),
        (lambda: BlurAndUnblur(t=11), "t must be between 0.05 and 10.0, got 11"),
        (lambda: BlurAndUnblur(s=0), "s must be between 0.05 and 10.0, got 0"),
        (lambda: BlurAndUnblur(steps=65), "steps must be between 1 and 64, got 65"),
        *(
            (
                lambda rows=rows: BlurAndUnblur().set_trait("particles", rows),
                "particles must be at most 60 pairs of finite numbers",
            )
            for rows in ([[0.0, 1.0]] * 61, [[0.0]], [[0.0, float("nan")]], ["01"], [None], [1.0])
        ),
        (lambda: EdgeOfMemorization(size=60), "size must be one of [50, 100, 200], got 60"),
        (lambda: EdgeOfMemorization(capacity=0), "capacity must be between 0.1 and 1.0, got 0"),
        (lambda: RankAgainstEpsilon(eps=6), "eps must be between 0.25 and 5.0, got 6"),
        (lambda: RankAgainstEpsilon(k=9, d=8), "k must be at most d, got k = 9 and d = 8"),
        (lambda: RateMeter(snr=2e4), "snr must be between 0.1 and 10000.0, got 20000.0"),
        (lambda: RateMeter(size=100), "expected any of [16, 64, 256, 1024, 4096]"),
        (lambda: RateMeter(new="yes"), "a boolean"),
        (lambda: SamplerRace(steps_a=65), "steps_a must be between 1 and 64, got 65"),
        (lambda: SamplerRace(order_b=3), "order_b must be between 1 and 2, got 3"),
        (lambda: SamplerRace(process_a="DDPM"), "expected any of ['VE', 'VP', 'FM']"),
        (
            lambda: SamplerRace(grid_a="angle"),
            "grid_a 'angle' is only for process 'VP', got 'VE'",
        ),
        (
            lambda: SamplerRace(process_b="FM"),
            "grid_b 'exponential' is only for process 'VE', got 'FM'",
        ),
    ],
)
def test_traits_out_of_range_are_refused(make, message):
    with pytest.raises(TraitError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotateAndWatch(n=3), "n must be between 100 and 5000, got 3"),
        (lambda: BlurAndUnblur(t=1, s=2), "s must be at most t, got s = 2 and t = 1"),
        (lambda: BlurAndUnblur(particles=61), "particles must be between 0 and 60, got 61"),
        (lambda: RankAndNoise(components=500), "components must be between 2 and 120, got 500"),
        (lambda: CodingRatePlayground(per_class=1), "per_class must be between 2 and 50, got 1"),
        (lambda: ISTAUnrolled(sparsity=99), "sparsity must be between 1 and m = 64, got 99"),
    ],
)
def test_sizes_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_refused_value_leaves_the_widget_as_it_was():
    widget = RotateAndWatch(n=100)
    with pytest.raises(TraitError):
        widget.theta = 3
    assert widget.theta == 0.3


def test_colors_are_those_of_the_figures():
    widget_colors = dict(re.findall(r"--cw-(\w+): (#\w+);", _CSS.split("color-scheme")[0]))
    shared = set(widget_colors) & set(plotting.COLORS) - {"ink"}
    assert shared >= {"blue", "orange", "green", "purple"}
    for name in shared:
        assert widget_colors[name] == plotting.COLORS[name], name


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_the_system_s_dark_and_the_page_s_dark_are_the_same():
    _, by_system, by_page = re.findall(r"\.companion-widget \{([^}]*--cw-paper:[^}]*)\}", _CSS)
    assert by_system.split() == by_page.split()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text_and_lines(theme):
    """4.5 for text and 3 for lines and areas, the levels of WCAG AA."""
    blocks = re.findall(r"\.companion-widget \{([^}]*)\}", _CSS)
    light, dark = (dict(re.findall(r"--cw-(\w+): (#\w+);", block)) for block in blocks[:2])
    colors = light if theme == "light" else {**light, **dark}
    for name in ("ink", "muted"):
        for ground in ("paper", "raised"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
    for name in ("blue", "orange", "green", "purple", "sky"):
        assert contrast(colors[name], colors["paper"]) >= 3, name
