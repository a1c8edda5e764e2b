"""The built pages: complete, self-contained, linked, described."""

from __future__ import annotations

import importlib
import json
import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from companion_lib.verify import parse_claims

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
PAGE_BYTES = 2_000_000


@lru_cache
def read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def pages(site) -> dict[str, BeautifulSoup]:
    """Return the pages that were written, without Sphinx's own index pages and source listings."""
    folders = (site / "book", site / "notebooks")
    paths = [path for folder in folders for path in sorted(folder.glob("*.html"))]
    return {str(path.relative_to(site)): read(path) for path in paths}


def test_every_page_of_the_contents_is_there(site, pages, root):
    listed = re.findall(r"(?:root|file): (\S+)", (root / "_toc.yml").read_text())
    assert sorted(pages) == sorted(f"{name}.html" for name in listed)
    assert 'url=book/index.html"' in (site / "index.html").read_text()


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob("*.html"):
        for tag in read(path).find_all(list(LOADED)):
            address = tag.get(LOADED[tag.name]) or ""
            is_link = tag.name == "link" and tag.get("rel") in (["canonical"], ["license"])
            assert is_link or not urlsplit(address).netloc, f"{path.name}: {tag}"


def test_no_style_sheet_loads_from_another_host(site):
    for path in (site / "_static").rglob("*.css"):
        text = path.read_text(encoding="utf-8", errors="replace")
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']+)", text)
        assert not addresses, f"{path.name}: {addresses[:3]}"


def test_links_lead_somewhere(site, pages):
    for name, page in pages.items():
        for link in page.find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or link["href"] == "#":
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            assert target.exists(), f"{name}: {link['href']}"
            if parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                found = read(target.resolve()).find(id=anchor)
                assert found is not None, f"{name}: no such place: {link['href']}"


def test_every_picture_is_described(pages):
    pictures = [(name, img) for name, page in pages.items() for img in page.find_all("img")]
    figures = [(name, img) for name, img in pictures if "logo" not in (img.get("class") or [""])[0]]
    assert figures
    for name, img in figures:
        assert len(img.get("alt", "")) >= 20, f"{name}: {img}"


def test_pages_are_light(site, pages):
    for name, page in pages.items():
        images = {(site / name).parent / unquote(img["src"]) for img in page.find_all("img")}
        weight = sum(path.stat().st_size for path in {site / name, *images})
        assert weight < PAGE_BYTES, f"{name} and its pictures have {weight} bytes"


def test_claims_page_lists_what_the_notebooks_printed(pages, notebooks, root):
    listed = (root / "_toc.yml").read_text()
    printed = [
        claim.text
        for name, notebook in notebooks.items()
        if Path(name).stem in listed
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
        for claim in parse_claims(output.text)
        if claim.section
    ]
    rows = pages["book/claims.html"].select("table.claims tbody tr")
    # Typographic quotes differ; letters and digits do not.
    words = [re.findall(r"\w+", row.td.get_text()) for row in rows]
    assert words == [re.findall(r"\w+", text) for text in printed]
    assert all(row.select_one("a[href*='#']") for row in rows)
    assert f"{len(printed)} claims" in pages["book/claims.html"].get_text()


def test_search_knows_the_chapter(site):
    text = (site / "searchindex.js").read_text()
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    chapter = index["docnames"].index("notebooks/ch02_linear_and_independent_structures")
    # A word of a heading is listed under titleterms only.
    for word in ("dictionari", "digit", "nois"):
        found = [index[kind].get(word, []) for kind in ("terms", "titleterms")]
        places = [page for hits in found for page in (hits if isinstance(hits, list) else [hits])]
        assert chapter in places, word


def test_setup_cells_are_hidden(pages):
    for name, page in pages.items():
        for cell in page.select("div.cell"):
            if "# Setup:" in cell.get_text():
                assert cell.select_one("details.hide") is not None, name


def test_book_links_became_numbers(pages):
    for name, page in pages.items():
        assert not page.select("a[href^='book:']"), name
    hints = [mark["title"] for mark in pages["book/errata.html"].select(".book-link abbr")]
    assert any(hint.startswith("Section 2.2.2, Complete Dictionary Learning") for hint in hints)


def test_anchors_in_docstrings_became_numbers(pages):
    text = " ".join(pages["book/api.html"].get_text().split())
    cited = re.findall(r"Book: sections? (\S+)", text)
    assert cited
    assert all(re.fullmatch(r"(\d+|[A-Z])(\.\d+)*", number) for number in cited), cited
    assert re.search(r"Book: sections 2\.1\.1 \(Principal [^)]*\) and 2\.1\.4 \(", text)


def test_equations_carry_their_chapter(pages):
    chapter = pages["notebooks/ch02_linear_and_independent_structures.html"]
    numbers = [tag.contents[0] for tag in chapter.select("span.eqno")]
    assert numbers == [f"(2.{i + 1})" for i in range(len(numbers))]
    assert numbers


def test_public_functions_are_in_the_reference(pages):
    text = pages["book/api.html"]
    documented = {tag["id"] for tag in text.select("dt[id]")}
    packages = ("subspaces", "denoising", "compression", "kernels", "training")
    for package in (importlib.import_module(f"companion_lib.{name}") for name in packages):
        for name in package.__all__:
            assert f"{package.__name__}.{name}" in documented, name


def test_footer_has_version_and_date(pages):
    for name, page in pages.items():
        footer = page.select_one("footer.bd-footer-content, .bd-footer-content").get_text()
        assert re.search(r"Version \d+\.\d+\.\d+", footer), name
        assert re.search(r"Last updated on \w+ \d+, \d{4}", footer), name


def test_code_on_the_notation_page_runs(root):
    text = (root / "book" / "notation.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(block, names)
