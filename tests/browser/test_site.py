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
        page.wait_for_timeout(200)
        assert widget.locator("svg.plot").first.inner_html() != before, f"widget {i} does not move"
    # Pictures further down are fetched when scrolled to; offline they are the only thing missing.
    assert not [error for error in page.errors if "Failed to load resource" not in error]


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
