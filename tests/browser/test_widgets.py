"""The widgets' static form, on a bare page: numbers, hands, keys, colors, sizes, speed."""

from __future__ import annotations

import pytest

from companion_lib.widgets import ISTAUnrolled, RankAndNoise, RotateAndWatch

# Each list holds settings that a reader can reach, extremes among them.
SETTINGS = {
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
    if isinstance(value, bool):
        root.get_by_role("radio").nth(int(value)).click()
    else:
        slider = root.locator(f'label:has(output[data-name="{name}"]) input')
        slider.evaluate(
            "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }",
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
        (ISTAUnrolled, {"layers": 30, "momentum": True, "step": 1.5}),
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
              input.value = value;
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
    assert sliders.count() >= 2
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
    colors = page.locator("canvas").last.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colors > 20
    assert page.errors == []


def test_follows_the_page_from_light_to_dark(page, tmp_path, widget):
    mount(page, tmp_path, widget)
    picture = "(canvas) => canvas.toDataURL()"
    light = page.locator("canvas").last.evaluate(picture)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate(FRAME)
    dark = page.locator("canvas").last.evaluate(picture)
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
