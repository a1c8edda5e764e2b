"""The widgets' static form, on a bare page: numbers, hands, keys, colors, sizes, speed."""

from __future__ import annotations

import itertools

import pytest
import torch

from companion_lib.denoising import PartialMemorizer, VariancePreserving
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
from companion_lib.widgets.encoding import unpack

# Each list holds settings that a reader can reach, extremes among them.
SETTINGS = {
    BlurAndUnblur: [
        {},
        {"t": 0.05},
        {"t": 10, "s": 0.05, "steps": 1},
        {"t": 0.05 * 200**0.5, "s": 0.05 * 200**0.3, "steps": 64},
        {"s": 0.05 * 200**0.9, "steps": 7},
        {"t": 0.05 * 200**0.2, "s": 0.05, "steps": 40},
    ],
    RotateAndWatch: [
        {},
        {"angle": 0, "theta": 0.05},
        {"angle": 71.5, "theta": 0.6, "noise": 0.4},
        {"angle": 180, "theta": 1, "noise": 1},
        {"angle": 116, "theta": 0.3, "noise": 0},
    ],
    RankAndNoise: [
        {},
        {"rank": 1, "noise": 0},
        {"rank": 38, "noise": 0.5},
        {"rank": 120, "noise": 1, "shrink": True},
        {"rank": 17, "noise": 0.23, "shrink": True},
    ],
    ISTAUnrolled: [
        {},
        {"lam": 0.02, "layers": 200, "step": 1},
        {"lam": 1, "layers": 7, "step": 1.9},
        {"lam": 0.1, "layers": 200, "step": 3},
        {"lam": 0.1, "layers": 60, "step": 1, "momentum": True},
        {"lam": 0.2, "layers": 200, "step": 0.2, "momentum": True},
    ],
    ClusterByCost: [
        {},
        {"merges": 200},
        {"eps": 1e-8},
        {"eps": 1e-7, "merges": 357},
        {"eps": 10**-2.5, "overhead": False},
        {"eps": 1e-8, "overhead": False, "merges": 355},
        {"eps": 10**0.5, "merges": 0},
    ],
    WatchMCR2: [
        {},
        {"snapshot": 15},
        {"snapshot": 7, "collapse": True},
        {"snapshot": 15, "collapse": True},
    ],
    CodingRatePlayground: [
        {},
        {"eps": 0.05, "scale": 2},
        {"angle": 90, "eps": 1},
        {"angle": 0, "scale": 0.2},
        {"angle": 180, "eps": 0.05 * 20**0.5},
        {"d": 3},
        {"d": 3, "angle": 131, "scale": 0.5, "eps": 0.05 * 20**0.9},
        {"d": 3, "angle": 0, "eps": 0.05},
    ],
    EdgeOfMemorization: [
        {},
        {"size": 50, "capacity": 0.1},
        {"size": 200, "capacity": 1},
        {"capacity": 0.5},
        {"size": 50, "capacity": 0.9},
    ],
    RankAgainstEpsilon: [
        {},
        {"eps": 0.25, "d": 64, "k": 2},
        {"eps": 0.25 * 20**0.6, "d": 64, "k": 2},
        {"eps": 5, "k": 10},
        {"k": 4, "d": 4},
        {"eps": 0.25 * 20**0.5, "d": 23, "k": 7},
    ],
    RateMeter: [
        {},
        {"snr": 0.1},
        {"snr": 1e4, "size": 4096},
        {"snr": 0.1 * 1e5**0.7, "new": True},
        {"snr": 1e4, "size": 16, "new": True},
        {"snr": 0.1 * 1e5**0.3, "size": 1024, "new": True},
    ],
    SamplerRace: [
        {},
        {"steps_a": 64, "steps_b": 1},
        {"process_a": "VP", "grid_a": "angle", "order_a": 2, "process_b": "FM", "steps_b": 5},
        {"process_a": "VP", "steps_a": 1, "grid_b": "log_snr", "order_b": 2, "steps_b": 64},
        {"process_b": "VP", "order_b": 2, "process_a": "FM", "grid_a": "log_snr", "steps_a": 1},
        {
            "order_a": 2,
            "grid_a": "exponential",
            "steps_a": 33,
            "process_b": "VP",
            "grid_b": "angle",
        },
        {"process_b": "FM", "order_b": 2, "steps_b": 12, "grid_a": "log_snr", "steps_a": 2},
    ],
}
WIDGETS = list(SETTINGS)
FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module", params=WIDGETS, ids=lambda kind: kind.__name__)
def widget(request):
    return request.param()


def mount(page, tmp_path, *widgets, theme="light"):
    """Show the widgets' HTML on a page of its own, and wait until they are drawn."""
    ground = {"light": "#ffffff", "dark": "#121212"}[theme]
    body = "".join(widget.static_html() for widget in widgets)
    path = tmp_path / "page.html"
    path.write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"></head>'
        f'<body style="margin: 8px; background: {ground}">{body}</body></html>',
        encoding="utf-8",
    )
    page.goto(path.as_uri())
    for i in range(len(widgets)):
        page.locator(".companion-widget svg.plot").nth(i).wait_for()
    page.evaluate(FRAME)


def first(page):
    return page.locator(".companion-widget").first


def shown(root) -> dict[str, float]:
    """Return every number a widget exposes, unrounded."""
    pairs = root.locator("[data-name]").evaluate_all(
        "(nodes) => nodes.map((node) => [node.dataset.name, Number(node.dataset.value)])"
    )
    return dict(pairs)


def put(page, root, name, value):
    """Set a slider or choose an option, as the reader would, without the pointing."""
    slider = root.locator(f'label:has(output[data-name="{name}"]) input')
    choice = root.locator(f'[data-trait="{name}"]')
    if choice.count():
        choice.locator(f'[data-value="{value}"]').click()
    elif isinstance(value, bool):
        root.get_by_role("radio").nth(int(value)).click()
    elif slider.count() == 0:
        root.get_by_role("radio", name=str(value)).click()
    else:
        slider.evaluate(
            """(input, value) => {
              input.value = input.dataset.scale === "log" ? Math.log10(value) : value;
              input.dispatchEvent(new Event("input"));
            }""",
            value,
        )
    page.evaluate(FRAME)


def assert_same_numbers(root, widget):
    page_numbers, expected = shown(root), widget.values()
    assert len(expected) >= 6
    for name, value in expected.items():
        assert page_numbers[name] == pytest.approx(value, rel=1e-6, abs=1e-10), name


@pytest.mark.parametrize(
    ("kind", "setting"),
    [(kind, setting) for kind, settings in SETTINGS.items() for setting in settings],
    ids=lambda part: part.__name__ if isinstance(part, type) else str(part),
)
def test_numbers_equal_the_library(page, tmp_path, kind, setting):
    widget = kind()
    mount(page, tmp_path, widget)
    for name, value in setting.items():
        put(page, first(page), name, value)
        setattr(widget, name, value)
    assert_same_numbers(first(page), widget)
    assert page.errors == []


@pytest.mark.parametrize(
    ("kind", "moves"),
    [
        (ISTAUnrolled, {"layers": 10, "lam": 0.5}),
        (ClusterByCost, {"eps": 1e-5, "overhead": False, "merges": 300}),
        (WatchMCR2, {"snapshot": 9, "collapse": True}),
        (ISTAUnrolled, {"layers": 30, "momentum": True, "step": 1.5}),
        (BlurAndUnblur, {"t": 0.05 * 200**0.4, "s": 0.05 * 200**0.1, "steps": 3}),
        (BlurAndUnblur, {"s": 10, "t": 0.05 * 200**0.8}),
        (CodingRatePlayground, {"eps": 0.05 * 20**0.7, "angle": 120, "scale": 1.5}),
        (EdgeOfMemorization, {"capacity": 0.3}),
        (RankAgainstEpsilon, {"eps": 0.25 * 20**0.4, "k": 3, "d": 50}),
        (SamplerRace, {"steps_a": 7, "steps_b": 40}),
        (RankAndNoise, {"rank": 30, "noise": 0.2}),
        (RankAndNoise, {"rank": 30, "shrink": True}),
        (RotateAndWatch, {"angle": 71.5, "theta": 0.6, "noise": 0.4}),
    ],
)
def test_changes_in_one_frame_leave_no_stale_number(page, tmp_path, kind, moves):
    widget = kind()
    mount(page, tmp_path, widget)
    first(page).evaluate(
        """(root, moves) => {
          for (const [name, value] of Object.entries(moves)) {
            const input = root.querySelector(`label:has(output[data-name="${name}"]) input`);
            if (!input) root.querySelectorAll("[role=radio]")[Number(value)].click();
            else {
              input.value = input.dataset.scale === "log" ? Math.log10(value) : value;
              input.dispatchEvent(new Event("input"));
            }
          }
        }""",
        moves,
    )
    page.evaluate(FRAME)
    for name, value in moves.items():
        setattr(widget, name, value)
    assert_same_numbers(first(page), widget)


def test_a_removed_view_draws_no_more(page, tmp_path):
    """Jupyter removes a view while one of its frames may be pending."""
    mount(page, tmp_path, RotateAndWatch(n=100))
    drawn = page.evaluate(
        """async () => {
          const text = document.querySelector("script.companion-module").textContent;
          const state = JSON.parse(document.querySelector("script.companion-state").textContent);
          const blob = new Blob([text], { type: "text/javascript" });
          const module = await import(URL.createObjectURL(blob));
          const listeners = [];
          const model = {
            get: (name) => state[name],
            set: () => {},
            save_changes: () => {},
            on: (event, listener) => listeners.push([event, listener]),
            off: () => {},
          };
          const el = document.body.appendChild(document.createElement("div"));
          const destroy = module.default.render({ model, el });
          state.angle = 123.5;
          for (const [event, listener] of listeners) if (event === "change:angle") listener();
          destroy();
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          return el.querySelector("output[data-name=angle]").dataset.value;
        }"""
    )
    assert float(drawn) == RotateAndWatch(n=100).angle


def test_a_widget_that_cannot_start_says_so(page, tmp_path):
    path = tmp_path / "page.html"
    html = RotateAndWatch(n=100).static_html()
    path.write_text(html.replace("export default", "export wrong"), encoding="utf-8")
    page.goto(path.as_uri())
    page.get_by_text("This figure could not be started.").wait_for()
    assert any("SyntaxError" in error for error in page.errors)


def test_nothing_is_requested_from_anywhere(page, tmp_path, widget):
    mount(page, tmp_path, widget)
    assert {url.split(":")[0] for url in page.requests} <= {"file", "blob"}
    assert [url for url in page.requests if url.startswith("file")] == [
        (tmp_path / "page.html").as_uri()
    ]
    assert page.errors == []


def test_two_of_a_kind_and_others_live_side_by_side(page, tmp_path):
    widgets = [RotateAndWatch(angle=20), RotateAndWatch(angle=110, seed=5), ISTAUnrolled()]
    mount(page, tmp_path, *widgets)
    roots = [page.locator(".companion-widget").nth(i) for i in range(3)]
    put(page, roots[1], "angle", 45.5)
    put(page, roots[2], "layers", 30)
    widgets[1].angle, widgets[2].layers = 45.5, 30
    for root, widget in zip(roots, widgets, strict=True):
        assert_same_numbers(root, widget)


def test_every_control_works_from_the_keyboard(page, tmp_path, widget):
    mount(page, tmp_path, widget)
    root = first(page)
    sliders = root.locator("input[type=range]")
    assert sliders.count() >= 1
    for i in range(sliders.count()):
        name = root.locator("label:has(input[type=range]) output").nth(i).get_attribute("data-name")
        before = shown(root)[name]
        sliders.nth(i).focus()
        page.keyboard.press("ArrowLeft" if before > 0.05 else "ArrowRight")
        page.evaluate(FRAME)
        assert shown(root)[name] != before, name
        # Without this JupyterLab keeps the arrow keys for itself.
        assert sliders.nth(i).get_attribute("data-lm-suppress-shortcuts") == "true"
    for control in root.locator("button, input").all():
        assert control.evaluate(
            "(node) => Boolean(node.ariaLabel || node.textContent || node.labels?.[0]?.textContent)"
        )


def test_spoken_names_begin_with_the_visible_words(page, tmp_path, widget):
    mount(page, tmp_path, widget)
    for label in first(page).locator("label.slider").all():
        visible = label.locator("span").first.inner_text()
        assert label.locator("input").get_attribute("aria-label").startswith(visible)


def test_choice_moves_with_arrow_keys(page, tmp_path):
    mount(page, tmp_path, ISTAUnrolled())
    plain = shown(first(page))["objective"]
    page.get_by_role("radio", name="ISTA", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.evaluate(FRAME)
    assert page.get_by_role("radio", name="FISTA").get_attribute("aria-checked") == "true"
    assert shown(first(page))["objective"] < plain


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_dragging_an_axis_turns_the_frame(page, tmp_path):
    mount(page, tmp_path, RotateAndWatch(angle=35))
    x, y = middle(page.locator("svg.cloud circle.rim"))
    knob = middle(page.locator("svg.cloud circle.grab").first)
    page.mouse.move(*knob)
    page.mouse.down()
    page.mouse.move(x + 20, y - 120)
    page.mouse.move(x, y - 150)
    page.mouse.up()
    page.evaluate(FRAME)
    assert shown(first(page))["angle"] == pytest.approx(90, abs=0.5)
    widget = RotateAndWatch(angle=shown(first(page))["angle"])
    assert_same_numbers(first(page), widget)


@pytest.mark.parametrize(
    ("widget_type", "name", "expected"),
    [(RankAndNoise, "rank", 60), (ISTAUnrolled, "layers", 100)],
)
def test_dragging_across_a_curve_scrubs(page, tmp_path, widget_type, name, expected):
    mount(page, tmp_path, widget_type())
    box = page.locator("svg.scrub").last.bounding_box()
    line = page.locator("svg.scrub").last.locator(".base").bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(line["x"] + 20, height)
    page.mouse.down()
    page.mouse.move(line["x"] + line["width"] / 2, height)
    page.mouse.up()
    page.evaluate(FRAME)
    assert abs(shown(first(page))[name] - expected) <= 1


def test_touch_scrubs_and_leaves_scrolling_to_the_page(new_page, tmp_path):
    page = new_page(390, 844, has_touch=True)
    mount(page, tmp_path, RankAndNoise(), RotateAndWatch())
    plot = page.locator("svg.scrub").first
    plot.scroll_into_view_if_needed()
    line = plot.locator(".base").bounding_box()
    page.touchscreen.tap(line["x"] + line["width"] / 4, line["y"] - 40)
    page.evaluate(FRAME)
    assert abs(shown(first(page))["rank"] - 30) <= 1
    touch = "(node) => getComputedStyle(node).touchAction"
    assert plot.evaluate(touch) == "pan-y"
    assert page.locator("circle.grab").first.evaluate(touch) == "none"
    assert page.locator("svg.cloud").evaluate(touch) == "auto"


def test_one_msp_step_goes_where_it_says(page, tmp_path):
    widget = RotateAndWatch(angle=35)
    mount(page, tmp_path, widget)
    announced = widget.values()["msp_angle"]
    page.get_by_role("button", name="One MSP step").click()
    page.evaluate(FRAME)
    assert shown(first(page))["angle"] == pytest.approx(announced, abs=1e-6)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_running_msp_ends_at_a_fixed_point_near_the_true_axes(new_page, tmp_path, motion):
    page = new_page(reduced_motion=motion)
    mount(page, tmp_path, RotateAndWatch(angle=35))
    page.get_by_role("button", name="Run MSP").click()
    page.wait_for_function(
        """() => {
          const value = (name) => document.querySelector(`[data-name=${name}]`).dataset.value;
          return Math.abs(value("angle") - value("msp_angle")) < 0.01;
        }""",
        timeout=20000,
    )
    # The sampling error of the angle is about 1 degree for 2,000 samples at theta = 0.3.
    assert shown(first(page))["angle"] == pytest.approx(70, abs=4)


def test_best_rank_button(page, tmp_path):
    widget = RankAndNoise(rank=100, noise=0.5)
    mount(page, tmp_path, widget)
    page.get_by_role("button", name="Go to the best rank").click()
    page.evaluate(FRAME)
    numbers = shown(first(page))
    assert numbers["rank"] == widget.values()["best_rank"]
    assert numbers["error"] == numbers["best_error"]


def test_divergence_is_announced(page, tmp_path):
    mount(page, tmp_path, ISTAUnrolled(lam=0.02))
    status = page.locator("p.verdict[role=status]")
    assert status.get_attribute("data-state") == "falls"
    put(page, first(page), "step", 2.5)
    assert status.get_attribute("data-state") == "diverges"


@pytest.mark.parametrize("width", [340, 390, 800])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_fits_its_page_and_shows_pictures(new_page, tmp_path, widget, width, theme):
    page = new_page(width, 844, dark=theme == "dark")
    mount(page, tmp_path, widget, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = first(page).evaluate("(node) => getComputedStyle(node).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 19, 21)"}[theme]
    colors = page.locator("canvas").evaluate_all(
        """(canvases) => canvases.map((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        })"""
    )
    if not isinstance(widget, RateMeter):  # it is drawn in SVG only
        assert max(colors) > 20
    assert page.errors == []


def test_follows_the_page_from_light_to_dark(page, tmp_path, widget):
    mount(page, tmp_path, widget)
    kind, picture = "canvas", "(canvas) => canvas.toDataURL()"
    if isinstance(widget, RateMeter):  # SVG only, which follows the style sheet
        kind, picture = "svg text", "(text) => getComputedStyle(text).fill"
    light = page.locator(kind).last.evaluate(picture)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate(FRAME)
    dark = page.locator(kind).last.evaluate(picture)
    if isinstance(widget, ISTAUnrolled):  # its picture is drawn in the shared colors, on no ground
        assert light == dark
    else:
        assert light != dark


def test_keeps_thirty_frames_a_second(page, tmp_path, widget):
    """The median frame of a drag over a slider, drawing included, takes under 33 ms."""
    mount(page, tmp_path, widget)
    frames = first(page).evaluate(
        """async (root) => {
          const frame = () => new Promise(requestAnimationFrame);
          const times = [];
          for (const input of root.querySelectorAll("input[type=range]")) {
            for (let k = 0; k < 20; k++) {
              const share = (k + 0.5) / 20;
              input.value = Number(input.min) + share * (input.max - input.min);
              const begun = performance.now();
              input.dispatchEvent(new Event("input"));
              await frame();
              await frame();
              times.push((performance.now() - begun) / 2);
            }
          }
          return times.sort((a, b) => a - b);
        }"""
    )
    assert frames[len(frames) // 2] < 33


def test_says_what_is_missing_without_javascript(new_page, tmp_path):
    page = new_page(java_script_enabled=False)
    path = tmp_path / "page.html"
    path.write_text(RotateAndWatch(n=100).static_html(), encoding="utf-8")
    page.goto(path.as_uri())
    assert "switch JavaScript on" in page.inner_text("body")


def nudged(points: list[list[float]], i: int, *shift: float) -> list[list[float]]:
    """Return the points with point ``i`` moved."""
    moved = [a + b for a, b in zip(points[i], shift, strict=True)]
    return [*points[:i], moved, *points[i + 1 :]]


def pixels(page) -> float:
    """Return the length of one unit on the playground's stage."""
    return float(page.locator(".globe").get_attribute("r"))


def pull(page, start: tuple[float, float], dx: float, dy: float):
    """Press at ``start``, move in two steps and let go."""
    x, y = start
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx / 2, y + dy / 2)
    page.mouse.move(x + dx, y + dy)
    page.mouse.up()
    page.evaluate(FRAME)


def test_a_dragged_point_changes_the_rates(page, tmp_path):
    widget = CodingRatePlayground()
    mount(page, tmp_path, widget)
    before, unit = shown(first(page)), pixels(page)
    pull(page, middle(page.locator(".grip").nth(15)), 40, -30)
    after = shown(first(page))
    widget.points = nudged(widget.points, 15, 40 / unit, 30 / unit)
    assert_same_numbers(first(page), widget)
    assert after["share_1"] == before["share_1"]
    assert abs(after["share_2"] - before["share_2"]) > 0.01


def test_a_knob_turns_and_stretches_its_class(page, tmp_path):
    mount(page, tmp_path, CodingRatePlayground())
    before = shown(first(page))
    x, y = middle(page.locator("svg.hands"))
    knob = middle(page.locator(".knob-handle").first)
    pull(page, knob, 0, y - knob[1])  # to the height of the middle, away from class 2
    after = shown(first(page))
    assert after["angle"] > before["angle"] + 15
    assert after["share_2"] == pytest.approx(before["share_2"], rel=1e-9)
    knob = middle(page.locator(".knob-handle").first)
    pull(page, knob, 0.4 * (x - knob[0]), 0.4 * (y - knob[1]))
    shrunk = shown(first(page))
    assert shrunk["share_1"] < after["share_1"] - 0.1
    assert shrunk["angle"] == pytest.approx(after["angle"], abs=1)


def test_points_and_classes_move_by_keys(page, tmp_path):
    widget = CodingRatePlayground()
    mount(page, tmp_path, widget)
    page.locator('.grip[tabindex="0"]').focus()
    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.evaluate(FRAME)
    widget.points = nudged(widget.points, 1, 0.05, 0.05)
    assert_same_numbers(first(page), widget)
    assert page.locator(".grip:focus").get_attribute("data-lm-suppress-shortcuts") == "true"
    before = shown(first(page))
    page.locator(".knob-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    page.evaluate(FRAME)
    turned = shown(first(page))
    assert abs(turned["angle"] - before["angle"]) == pytest.approx(3)
    assert turned["class_rate"] == pytest.approx(before["class_rate"])
    page.keyboard.press("ArrowUp")
    page.evaluate(FRAME)
    assert shown(first(page))["share_1"] > turned["share_1"] + 0.01


def test_looking_from_another_side_changes_no_number(page, tmp_path):
    widget = CodingRatePlayground(d=3)
    mount(page, tmp_path, widget)
    picture = "(canvas) => canvas.toDataURL()"
    before = page.locator("canvas").evaluate(picture)
    x, y = middle(page.locator(".globe"))
    unit = pixels(page)
    pull(page, (x, y - 0.9 * unit), 60, 10)
    turned = page.locator("canvas").evaluate(picture)
    page.locator(".globe").focus()
    page.keyboard.press("ArrowDown")
    page.evaluate(FRAME)
    assert len({before, turned, page.locator("canvas").evaluate(picture)}) == 3
    assert_same_numbers(first(page), widget)


def test_touch_takes_points_and_leaves_the_rest_of_the_stage_to_scrolling(new_page, tmp_path):
    page = new_page(390, 844, has_touch=True)
    mount(page, tmp_path, CodingRatePlayground())
    touch = "(node) => getComputedStyle(node).touchAction"
    assert page.locator(".grip").first.evaluate(touch) == "none"
    assert page.locator(".knob-handle").first.evaluate(touch) == "none"
    assert page.locator("svg.hands").evaluate(touch) == "auto"
    spark = page.locator("svg.spark").nth(1)
    spark.scroll_into_view_if_needed()
    page.touchscreen.tap(*middle(spark))
    page.evaluate(FRAME)
    assert shown(first(page))["angle"] == pytest.approx(90, abs=0.5)


@pytest.mark.parametrize("d", [2, 3])
def test_a_step_uphill_raises_the_reduction(page, tmp_path, d):
    mount(page, tmp_path, CodingRatePlayground(d=d))
    root = first(page)
    page.get_by_role("button", name="Normalize").click()
    page.evaluate(FRAME)
    found = [shown(root)["reduction"]]
    assert shown(root)["scale"] == pytest.approx(1, abs=1e-12)
    for _ in range(4):
        page.get_by_role("button", name="Step uphill").click()
        page.evaluate(FRAME)
        found.append(shown(root)["reduction"])
    assert all(b > a + 1e-3 for a, b in itertools.pairwise(found))
    assert found[-1] < shown(root)["most"]
    assert shown(root)["scale"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("start", ["near lines", "at random"])
@pytest.mark.parametrize(("motion", "d"), [("reduce", 2), ("reduce", 3), ("no-preference", 3)])
def test_running_uphill_ends_at_orthogonal_lines(new_page, tmp_path, motion, d, start):
    """The theorem's maximum is reached, from starts that differ from run to run."""
    page = new_page(reduced_motion=motion)
    mount(page, tmp_path, CodingRatePlayground(d=d))
    page.get_by_role("button", name=start).click()
    page.get_by_role("button", name="Run").click()
    page.wait_for_function(
        """() => {
          const value = (name) => document.querySelector(`[data-name=${name}]`).dataset.value;
          return value("most") - value("reduction") < 1e-4;
        }""",
        timeout=30000,
    )
    numbers = shown(first(page))
    assert numbers["reduction"] <= numbers["most"] + 1e-9
    assert numbers["angle"] == pytest.approx(90, abs=1.5)


def test_running_stops_at_a_touch(page, tmp_path):
    mount(page, tmp_path, CodingRatePlayground())
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Stop").wait_for()
    put(page, first(page), "eps", 0.05 * 20**0.8)
    page.get_by_role("button", name="Run").wait_for()
    before = shown(first(page))
    page.evaluate(FRAME)
    assert shown(first(page)) == before


def test_dragging_across_the_staircase_sets_epsilon(page, tmp_path):
    widget = RankAgainstEpsilon()
    mount(page, tmp_path, widget)
    line = page.locator("svg.scrub .base").bounding_box()
    pull(page, (line["x"] + 5, line["y"] - 60), line["width"] / 2 - 5, 0)
    widget.eps = shown(first(page))["eps"]
    assert widget.eps == pytest.approx((0.25 * 5) ** 0.5, rel=0.01)
    assert_same_numbers(first(page), widget)


def test_classes_and_dimension_make_room_for_each_other(page, tmp_path):
    mount(page, tmp_path, RankAgainstEpsilon(k=4, d=8))
    put(page, first(page), "k", 10)
    assert shown(first(page))["d"] == 10
    put(page, first(page), "d", 5)
    assert shown(first(page))["k"] == 5
    assert_same_numbers(first(page), RankAgainstEpsilon(k=5, d=5))


def track(page, plot):
    """Return the left end, the width and the height on the page of a plot's axis."""
    box = plot.locator(".base").first.bounding_box()
    return box["x"], box["width"], box["y"] - 30


def test_scrubbing_the_path_moves_the_merges(page, tmp_path):
    widget = ClusterByCost()
    mount(page, tmp_path, widget)
    left, width, height = track(page, page.locator("svg.scrub").nth(0))
    pull(page, (left + 5, height), width / 2 - 5, 0)
    assert shown(first(page))["clusters"] == pytest.approx(358**0.5, abs=1)
    widget.merges = int(shown(first(page))["merges"])
    assert_same_numbers(first(page), widget)


def test_scrubbing_the_precision_goes_to_the_stop_of_its_path(page, tmp_path):
    widget = ClusterByCost()
    mount(page, tmp_path, widget)
    for plot, share in ((1, 2 / 8.5), (2, 6 / 8.5)):
        left, width, _ = track(page, page.locator("svg.scrub").nth(2))
        box = page.locator("svg.scrub").nth(plot).bounding_box()
        pull(page, (left + 3, box["y"] + 60), share * width - 3, 0)
        widget.eps = 10 ** (8.5 * share - 8)
        assert shown(first(page))["eps"] == pytest.approx(widget.eps)
        assert_same_numbers(first(page), widget)


def test_the_keys_reach_both_ends_of_the_precision(page, tmp_path):
    mount(page, tmp_path, ClusterByCost())
    page.locator('label:has(output[data-name="eps"]) input').focus()
    for key, end in (("End", 10**0.5), ("Home", 1e-8)):
        page.keyboard.press(key)
        page.evaluate(FRAME)
        assert shown(first(page))["eps"] == pytest.approx(end, rel=1e-12)


def test_greedy_is_judged_by_what_is_cheaper(page, tmp_path):
    mount(page, tmp_path, ClusterByCost())
    verdict = page.locator("p.verdict")
    assert verdict.get_attribute("data-state") == "falls"
    put(page, first(page), "eps", 1e-6)
    assert verdict.get_attribute("data-state") == "diverges"
    assert "the true partition costs" in verdict.inner_text()
    put(page, first(page), "overhead", False)
    assert verdict.get_attribute("data-state") == "falls"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_playing_the_merges_ends_where_greedy_stops(new_page, tmp_path, motion):
    page = new_page(reduced_motion=motion)
    mount(page, tmp_path, ClusterByCost(merges=300))
    page.get_by_role("button", name="Play the merges").click()
    page.wait_for_function(
        "() => document.querySelector('[data-name=clusters]').dataset.value === '3'", timeout=20000
    )
    page.get_by_role("button", name="Play the merges").wait_for()


def test_the_points_turn_under_the_hand_and_the_arrow_keys(page, tmp_path):
    mount(page, tmp_path, ClusterByCost())
    canvas = page.locator("canvas.turn")
    pictures = [canvas.evaluate("(canvas) => canvas.toDataURL()")]
    pull(page, middle(canvas), 60, 20)
    pictures.append(canvas.evaluate("(canvas) => canvas.toDataURL()"))
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.evaluate(FRAME)
    pictures.append(canvas.evaluate("(canvas) => canvas.toDataURL()"))
    assert len(set(pictures)) == 3


def test_pointing_at_a_cosine_shows_it(page, tmp_path):
    widget = WatchMCR2(snapshot=6)
    mount(page, tmp_path, widget)
    heat, text = page.locator("svg.pick"), page.locator(".pair-panel p")
    box = heat.locator("rect.frame").bounding_box()
    for row, column in ((12, 57), (80, 3)):
        page.mouse.move(
            box["x"] + (column + 0.5) * box["width"] / 100,
            box["y"] + (row + 0.5) * box["height"] / 100,
        )
        page.evaluate(FRAME)
        names = f"{'an' if row == 80 else 'a'} {row // 10} and a {column // 10}"
        cosine = f"{widget.cosines[row, column].item():.2f}".replace("-", "\N{MINUS SIGN}")
        assert text.inner_text() == f"{names}\ncosine {cosine}"
    heat.focus()
    page.keyboard.press("ArrowUp")
    page.evaluate(FRAME)
    assert text.inner_text().startswith("a 7 and a 0")


def test_the_heat_map_holds_the_cosines(new_page, tmp_path):
    """At rest, a pixel is as far from white to blue as its |cosine| is from 0 to 1."""
    page = new_page(reduced_motion="reduce")
    widget = WatchMCR2(snapshot=3)
    mount(page, tmp_path, widget)
    reds = page.locator("canvas.net").evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, 100, 100);
          return Array.from({ length: 10000 }, (_, p) => data[4 * p]);
        }"""
    )
    expected = 255 + widget.cosines.abs().flatten() * (3 - 255)
    assert max(abs(a - b) for a, b in zip(reds, expected.tolist(), strict=True)) <= 1


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_playing_the_training_ends_at_its_last_epoch(new_page, tmp_path, motion):
    page = new_page(reduced_motion=motion)
    widget = WatchMCR2(snapshot=12)
    mount(page, tmp_path, widget)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "() => document.querySelector('[data-name=snapshot]').dataset.value === '15'", timeout=20000
    )
    page.evaluate(FRAME)
    widget.snapshot = 15
    assert_same_numbers(first(page), widget)


def test_scrubbing_the_rates_moves_the_epoch(page, tmp_path):
    widget = WatchMCR2()
    mount(page, tmp_path, widget)
    left, width, height = track(page, page.locator("svg.scrub"))
    pull(page, (left + 5, height), width - 5, 0)
    assert shown(first(page))["snapshot"] == 15


def test_a_grid_that_is_not_for_its_process_is_closed_and_says_why(page, tmp_path):
    widget = SamplerRace()
    mount(page, tmp_path, widget)
    sampler = page.get_by_role("group", name="sampler A")
    angle = sampler.get_by_role("radio", name="angle")
    assert angle.get_attribute("aria-disabled") == "true"
    why = page.locator(f"[id='{angle.get_attribute('aria-describedby')}']")
    assert why.inner_text() == "angle is for VP, where t = sin θ."
    angle.click(force=True)
    page.evaluate(FRAME)
    assert_same_numbers(first(page), widget)
    put(page, first(page), "process_a", "VP")
    assert angle.get_attribute("aria-disabled") == "false"
    assert why.inner_text() == "exponential is for VE, whose time runs over decades."
    sampler.get_by_role("radio", name="uniform").focus()
    page.keyboard.press("ArrowRight")  # past the exponential grid
    page.evaluate(FRAME)
    assert angle.get_attribute("aria-checked") == "true"
    widget.process_a, widget.grid_a = "VP", "angle"
    assert_same_numbers(first(page), widget)


def test_dragging_across_the_errors_sets_both_numbers_of_calls(page, tmp_path):
    widget = SamplerRace(steps_a=3, steps_b=50)
    mount(page, tmp_path, widget)
    left, width, height = track(page, page.locator("svg.scrub"))
    pull(page, (left + 5, height), (3.25 / 6.5) * width - 5, 0)
    widget.steps_a = widget.steps_b = 8
    assert_same_numbers(first(page), widget)


def test_the_verdict_compares_errors_and_sees_equal_samplers(page, tmp_path):
    mount(page, tmp_path, SamplerRace("VP", "angle", 1, 8, "FM", "uniform", 2, 12))
    verdict = page.locator("p.verdict")
    assert verdict.get_attribute("data-winner") == "b"
    assert verdict.inner_text() == (
        "With 8 against 12 calls, A has 4.1 times the error of B. "
        "To end as close, A needs about 33 calls."
    )
    error = SamplerRace("VP", "angle", 1, 33).values()["tv_a"]
    assert error == pytest.approx(shown(first(page))["tv_b"], rel=0.02)
    put(page, first(page), "grid_a", "log_snr")
    put(page, first(page), "grid_b", "log_snr")
    put(page, first(page), "order_b", 1)
    put(page, first(page), "steps_b", 8)
    assert verdict.get_attribute("data-winner") == "none"
    assert "the process makes no difference" in verdict.inner_text()


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_racing_ends_with_the_picture_at_rest(new_page, tmp_path, motion):
    page = new_page(reduced_motion=motion)
    mount(page, tmp_path, SamplerRace(steps_a=4, steps_b=9))
    pictures = "(canvases) => canvases.map((canvas) => canvas.toDataURL())"
    before = page.locator("canvas").evaluate_all(pictures)
    page.get_by_role("button", name="Race").click()
    if motion == "no-preference":
        page.get_by_role("button", name="Stop").wait_for()
        assert page.locator("canvas").evaluate_all(pictures) != before
    page.get_by_role("button", name="Race").wait_for()
    assert page.locator("canvas").evaluate_all(pictures) == before


def dots(page) -> list[list[float]]:
    """Return where the particles are, in the plane."""
    return page.locator(".blur-dots circle").evaluate_all(
        "(nodes) => nodes.map((node) => [Number(node.dataset.x), Number(node.dataset.y)])"
    )


def pixels_of(page) -> list[list[float]]:
    return page.locator(".blur-dots circle").evaluate_all(
        "(nodes) => nodes.map((node) => [node.cx.baseVal.value, node.cy.baseVal.value])"
    )


def close(found, expected, tolerance=1e-6) -> bool:
    pairs = itertools.chain.from_iterable(
        zip(a, b, strict=True) for a, b in zip(found, expected, strict=True)
    )
    return all(abs(a - b) <= tolerance for a, b in pairs)


def test_a_click_drops_a_particle_and_a_click_on_it_takes_it_away(page, tmp_path):
    widget = BlurAndUnblur(particles=3)
    mount(page, tmp_path, widget)
    plane = page.locator(".blur-plane").bounding_box()
    for x, y in ((60, 80), (200, 210)):
        page.mouse.click(plane["x"] + x, plane["y"] + y)
        page.evaluate(FRAME)
        # It is drawn where the reader pointed, up to the border and the rounding of places.
        assert close(pixels_of(page)[-1:], [[x, y]], 1.5)
    assert close(dots(page)[:3], widget.particles)
    assert page.locator(".blur-status").inner_text() == "5 particles"
    page.mouse.click(plane["x"] + 61, plane["y"] + 82)
    page.evaluate(FRAME)
    assert len(dots(page)) == 4
    page.get_by_role("button", name="Clear").click()
    page.evaluate(FRAME)
    assert dots(page) == []
    page.get_by_role("button", name="Play back").click()
    page.evaluate(FRAME)
    assert page.errors == []


def test_keys_drop_particles_and_take_them_away(page, tmp_path):
    mount(page, tmp_path, BlurAndUnblur(particles=0))
    plane = page.locator(".blur-plane")
    plane.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.evaluate(FRAME)
    (x, y), (right, up) = dots(page)
    assert close([[x, y]], [[0, 1]])  # the middle of the mixture
    assert right - x == pytest.approx(up - y)
    assert right > x + 0.1
    assert plane.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.keyboard.press("Delete")
    page.evaluate(FRAME)
    assert close(dots(page), [[0, 1]])


def test_touch_drops_a_particle_and_still_scrolls_the_page(new_page, tmp_path):
    page = new_page(390, 844, has_touch=True)
    mount(page, tmp_path, BlurAndUnblur(particles=0))
    page.touchscreen.tap(*middle(page.locator(".blur-plane")))
    page.evaluate(FRAME)
    assert close(dots(page), [[0, 1]], 0.1)
    touch = "(node) => getComputedStyle(node).touchAction"
    assert page.locator(".blur-plane").evaluate(touch) == "pan-y"


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
@pytest.mark.parametrize(("t", "steps"), [(2.0, 20), (10.0, 1), (0.05, 3)])
def test_played_back_particles_land_where_ddim_leads(new_page, tmp_path, motion, t, steps):
    page = new_page(reduced_motion=motion)
    widget = BlurAndUnblur(t=t, s=0.05, steps=steps)
    mount(page, tmp_path, widget)
    assert close(dots(page), widget.particles)
    page.get_by_role("button", name="Play back").click()
    page.get_by_text("14 particles back at level 0").wait_for(timeout=20000)
    assert close(dots(page), widget.paths[-1].tolist())
    widget.steps = 5  # the landing of another number of steps is shown at once
    put(page, first(page), "steps", 5)
    assert close(dots(page), widget.paths[-1].tolist())
    page.get_by_role("button", name="Rewind").click()
    page.evaluate(FRAME)
    assert close(dots(page), widget.particles)
    assert page.errors == []


def test_playing_stops_at_a_touch(page, tmp_path):
    widget = BlurAndUnblur(steps=64)
    mount(page, tmp_path, widget)
    page.get_by_role("button", name="Play back").click()
    page.get_by_role("button", name="Stop").wait_for()
    put(page, first(page), "t", 0.05 * 200**0.5)
    page.get_by_role("button", name="Play back").wait_for()
    assert close(dots(page), widget.particles)


def test_arrows_end_at_the_denoised_places(page, tmp_path):
    """The small rings are E[x | x_t], and the arrows go 1 - s/t of the way there."""
    widget = BlurAndUnblur(t=2, s=0.5, steps=1)
    mount(page, tmp_path, widget)
    starts, ends = (widget.paths[i].tolist() for i in (0, 1))
    at = pixels_of(page)
    unit = (at[1][0] - at[0][0]) / (starts[1][0] - starts[0][0])
    drawn = page.locator(".blur-arrows").get_attribute("d").split("M")[1:]
    for (x, y), start, end, line in zip(at, starts, ends, drawn, strict=True):
        tip = [float(part) for part in line.split("L")[1].split(",")]
        share = 1 - 0.5 / 2
        expected = [x + share * unit * (end[0] - start[0]), y - share * unit * (end[1] - start[1])]
        assert close([tip], [expected], 0.2)


def test_samples_are_dropped_at_the_noise_level(page, tmp_path):
    mount(page, tmp_path, BlurAndUnblur(t=0.05, s=0.05))
    page.get_by_role("button", name="Drop 24 samples").click()
    page.evaluate(FRAME)
    found = BlurAndUnblur(particles=0)
    found.particles = dots(page)
    assert len(found.particles) == 24
    logs = found.mixture.log_prob(found.paths[0], sigma=0.05)
    assert logs.min() > -15  # with high probability: 1 - 24 exp(-15 + 3)


def test_scrubbing_the_entropy_sets_the_noise_level(page, tmp_path):
    widget = BlurAndUnblur(s=0.05)
    mount(page, tmp_path, widget)
    left, width, height = track(page, page.locator("svg.scrub"))
    pull(page, (left + 5, height), width / 2 - 5, 0)
    widget.t = shown(first(page))["t"]
    assert widget.t == pytest.approx(0.5**0.5, rel=0.02)
    assert_same_numbers(first(page), widget)


PICTURES = """(canvas, rows) => {
  const context = canvas.getContext("2d");
  const ratio = canvas.width / parseFloat(canvas.style.width);
  const frames = [...document.querySelectorAll(".edge-frames rect")].map((rect) => rect.getBBox());
  return frames.map(({ x, y, width, height }) => {
    const size = width - 6;
    const tops = { sample: y + 3, nearest: y + height - 3 - size };
    return Array.from({ length: 64 }, (_, p) => {
      const across = x + 3 + ((p % 8) + 0.5) * (size / 8);
      const down = tops[rows] + (Math.floor(p / 8) + 0.5) * (size / 8);
      return context.getImageData(ratio * across, ratio * down, 1, 1).data[0];
    });
  });
}"""


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("size", [50, 200])
def test_samples_stand_above_the_nearest_training_images(new_page, tmp_path, size, width):
    """At full capacity all are framed; every pixel is looked at."""
    page = new_page(width, 900)
    widget = EdgeOfMemorization(size=size, capacity=1)
    mount(page, tmp_path, widget)
    pictures = unpack(widget.data["images"])
    at = widget.data["sizes"].index(size)
    rows = {
        "sample": pictures[200 + 12 * (10 * at + 9) :][:12],
        "nearest": pictures[[one for one, _ in widget.data["models"][at][9]["nearest"]]],
    }
    for name, expected in rows.items():
        found = page.locator(".edge-sheet canvas").evaluate(PICTURES, name)
        assert len(found) == widget.values()["framed"] == 12
        for one, other in zip(found, (255 + expected * (31 - 255)).tolist(), strict=True):
            assert one == pytest.approx(other, abs=1)


def test_framed_samples_are_those_at_a_third_of_the_distance(page, tmp_path):
    widget = EdgeOfMemorization(size=50, capacity=0.9)
    mount(page, tmp_path, widget)
    texts = page.locator(".edge-sheet text[text-anchor=middle]")
    pairs = widget.data["models"][0][8]["distances"]
    assert texts.all_text_contents() == [f"{near / far:.2f}" for near, far in pairs]
    strong = page.locator(".edge-sheet text.strong").all_text_contents()
    assert strong == [f"{near / far:.2f}" for near, far in pairs if near <= far / 3]
    assert page.locator(".edge-frames rect").count() == len(strong) == widget.values()["framed"]
    sheet = page.get_by_role("img", name="12 samples")
    assert f"{len(strong)} are copies" in sheet.get_attribute("aria-label")


def test_the_verdict_tells_inventing_from_replaying(page, tmp_path):
    mount(page, tmp_path, EdgeOfMemorization(capacity=0.1))
    verdict = page.locator("p.verdict")
    for capacity, state, words in (
        (0.1, "falls", "With 10 means for 100 images, hardly any sample is a copy"),
        (0.8, "wavers", "With 80 means for 100 images, some samples are copies"),
        (1, "diverges", "With 100 means for 100 images, most samples are copies"),
    ):
        put(page, first(page), "capacity", capacity)
        assert verdict.get_attribute("data-state") == state
        assert verdict.inner_text().startswith(words)


def test_dragging_across_either_curve_goes_to_the_nearest_capacity(page, tmp_path):
    widget = EdgeOfMemorization()
    mount(page, tmp_path, widget)
    for i, capacity in ((0, 0.3), (1, 0.6)):
        left, width, height = track(page, page.locator("svg.scrub").nth(i))
        pull(page, (left + 5, height), (capacity + 0.03) / 1.04 * width - 5, 0)
        widget.capacity = capacity
        assert_same_numbers(first(page), widget)


def test_a_widget_of_other_models_is_drawn_as_well(page, tmp_path):
    """Two sizes, three capacities, no edge among them."""
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(40, 16, generator=generator)
    models = {
        N: [PartialMemorizer(X[: N * k // 4], VariancePreserving(), 0.5) for k in (1, 2, 3)]
        for N in (20, 40)
    }
    widget = EdgeOfMemorization(models, X, X + 0.1, size=20, capacity=0.25)
    mount(page, tmp_path, widget)
    assert_same_numbers(first(page), widget)
    assert "N = 40, never half" in page.locator("svg.scrub").first.text_content()
    page.get_by_role("radio", name="20").focus()
    page.keyboard.press("ArrowRight")
    put(page, first(page), "capacity", 0.75)
    widget.size, widget.capacity = 40, 0.75
    assert_same_numbers(first(page), widget)
    assert page.errors == []


def test_scrubbing_the_prices_sets_the_precision(page, tmp_path):
    widget = RateMeter(size=64)
    mount(page, tmp_path, widget)
    for plot in (0, 1):
        left, width, height = track(page, page.locator("svg.scrub").nth(plot))
        pull(page, (left + 5, height), (0.3 + 0.3 * plot) * width - 5, 0)
        widget.snr = shown(first(page))["snr"]
        assert widget.snr == pytest.approx(0.1 * 1e5 ** (0.3 + 0.3 * plot), rel=0.05)
        assert_same_numbers(first(page), widget)


def test_the_meter_names_the_cheapest_code(page, tmp_path):
    mount(page, tmp_path, RateMeter(snr=1e3, size=256))
    verdict = page.locator("p.verdict")
    assert verdict.get_attribute("data-state") == "memory"
    put(page, first(page), "new", True)
    assert verdict.get_attribute("data-state") == "planes"
    assert "worst code for a new sample" in verdict.inner_text()
    put(page, first(page), "snr", 0.1)
    assert verdict.get_attribute("data-state") == "three"
    crossing = page.locator(".rate-mark").last
    assert crossing.get_attribute("visibility") == "visible"
    put(page, first(page), "size", 4096)  # now it is above the picture
    assert crossing.get_attribute("visibility") == "hidden"
