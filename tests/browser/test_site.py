"""Every page of the built site in Chromium: light and dark, desktop and phone, no other host."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from serve import serving  # noqa: E402

PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
CHAPTER = "notebooks/ch02_linear_and_independent_structures"
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
TOO_WIDE = """() => document.documentElement.scrollWidth - document.documentElement.clientWidth"""
WIDEST = """() => [...document.querySelectorAll("main *")]
    .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .slice(0, 5).map((e) => e.outerHTML.slice(0, 120))"""

FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The widgets' classes that a style sheet of the page names too.
SHARED_CLASSES = """() => {
    const nodes = document.querySelectorAll(".companion-widget, .companion-widget *");
    const names = new Set([...nodes].flatMap((node) => [...node.classList]));
    const selectors = (rules) => [...rules].flatMap((rule) =>
        [rule.selectorText ?? "", ...selectors(rule.cssRules ?? [])]);
    const theirs = [...document.styleSheets].filter((sheet) => sheet.href)
        .flatMap((sheet) => selectors(sheet.cssRules).join(" ").match(/\\.[\\w-]+/g) ?? []);
    return [...names].filter((name) => theirs.includes(`.${name}`));
}"""
MIDDLES = """(node) => [...node.children].map((child) => {
    const { top, bottom } = child.getBoundingClientRect();
    return (top + bottom) / 2;
})"""


@pytest.fixture(scope="module")
def address(site):
    with serving(site) as url:
        yield url


def visit(page, address: str, name: str):
    """Open a page, wait until it is quiet, and return it."""
    page.goto(f"{address}{name}.html", wait_until="networkidle")
    return page


def picture(page) -> np.ndarray:
    """Return what the window shows as an array of gray values."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"), dtype=float)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_pages_are_whole(new_page, address, screen, dark):
    page = new_page(*SCREENS[screen], dark=dark)
    for name in PAGES:
        visit(page, address, name)
        away = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
        assert not away, f"{name} asks another host: {away}"
        assert not page.errors, f"{name}: {page.errors}"
        assert page.evaluate(TOO_WIDE) == 0, f"{name} is too wide: {page.evaluate(WIDEST)}"
        raw = page.locator(".math:not(:has(mjx-container))").all_text_contents()
        assert not raw, f"{name} shows formulas as text: {raw[:2]}"
        shown = picture(page)
        assert shown.std() > 8, f"{name} is blank"
        assert (np.median(shown) < 60) == dark, f"{name} ignores the color scheme"


def test_pages_without_network(new_page, address, site):
    """Once loaded, nothing needs the network: widgets mount and move offline."""
    page = visit(new_page(), address, CHAPTER)
    page.context.set_offline(True)
    widgets = page.locator(".companion-host")
    assert widgets.count() >= 3
    for i in range(widgets.count()):
        widget = widgets.nth(i)
        widget.scroll_into_view_if_needed()
        slider = widget.locator("input[type=range]").first
        slider.wait_for()
        before = widget.locator("svg.plot").first.inner_html()
        slider.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
        page.evaluate(FRAME)
        assert widget.locator("svg.plot").first.inner_html() != before, f"widget {i} does not move"
    # Pictures further down are fetched when scrolled to; offline they are the only thing missing.
    assert not [error for error in page.errors if "Failed to load resource" not in error]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_theme_leaves_the_widgets_alone(new_page, address, dark):
    """No class of theirs is the theme's too; buttons share a line, and the ground stays bare."""
    page = visit(new_page(1280, 900, dark=dark), address, CHAPTER)
    page.locator(".companion-widget .toolbar").nth(2).wait_for()
    assert page.evaluate(SHARED_CLASSES) == []
    for toolbar in page.locator(".companion-widget .toolbar").all():
        middles = toolbar.evaluate(MIDDLES)
        assert max(middles) - min(middles) < 4, toolbar.inner_text()
    for host in page.locator(".companion-host").all():
        ground = host.evaluate("(node) => getComputedStyle(node.parentNode).backgroundColor")
        assert ground == "rgba(0, 0, 0, 0)"


def test_figures_have_no_white_card_on_dark_pages(new_page, address):
    page = visit(new_page(dark=True), address, "book/index")
    style = page.locator("img.principle").first.evaluate(
        "(img) => [getComputedStyle(img).backgroundColor, getComputedStyle(img).filter]"
    )
    assert style == ["rgba(0, 0, 0, 0)", "none"]


def test_search_finds_the_chapter(new_page, address):
    page = new_page()
    page.goto(f"{address}search.html?q=dictionary", wait_until="networkidle")
    hits = page.locator("#search-results li a")
    hits.first.wait_for()
    assert any(CHAPTER in (hit.get_attribute("href") or "") for hit in hits.all())


def test_code_has_a_copy_button(new_page, address):
    page = visit(new_page(), address, CHAPTER)
    assert page.locator("button.copybtn").count() > 0


def test_a_chapter_draws_in_time(new_page, address):
    """Text is there within a second; twice that is allowed, for a machine that runs other tests."""
    page = new_page()
    visit(page, address, CHAPTER)
    visit(page, address, CHAPTER)  # the second visit has the scripts in its cache
    entry = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert page.evaluate(entry) < 2000
