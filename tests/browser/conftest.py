"""Debian's Chromium for the tests of this folder.

``browser`` lives for the session. ``new_page`` opens a page in its own context; everything the
page asks for is in ``page.requests`` and everything it complains about in ``page.errors``.
"""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.fail(
            "The browser tests need Chromium, and there is none: apt-get install chromium",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser):
    """Return a function that opens a page: ``new_page(390, 844, dark=True)``."""
    contexts = []

    def open_page(width: int = 1000, height: int = 900, dark: bool = False, **context) -> Page:
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, **context))
        page = contexts[-1].new_page()
        page.errors, page.requests = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: _record_error(page, message))
        page.on("request", lambda request: page.requests.append(request.url))
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page) -> Page:
    return new_page()


def _record_error(page: Page, message) -> None:
    if message.type in ("error", "warning"):
        page.errors.append(f"{message.type}: {message.text}")
