"""The project's address: one source, the same everywhere, and no dead link while it is unset."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
import repository
from bs4 import BeautifulSoup
from build_site import build

URL = "https://github.com/example-owner/deep-companion"
CHAPTER = "notebooks/ch02_linear_and_independent_structures"
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", "_build", "__pycache__", "*_cache", "dist")


@pytest.fixture(scope="module")
def copy(root, tmp_path_factory) -> Path:
    """Return a copy of the project with its address set."""
    target = tmp_path_factory.mktemp("fork") / "project"
    shutil.copytree(root, target, ignore=LEFT_OUT)
    repository.write_everywhere(URL, target)
    return target


def assert_same_everywhere(root: Path) -> None:
    url = repository.configured(root)
    citation = (root / "CITATION.cff").read_text()
    assert citation.count("repository-code:") == bool(url)
    assert not url or f'repository-code: "{url}"' in citation
    start, end = "<!-- links -->\n", "<!-- /links -->"
    assert start + repository.readme_links(url, root) + end in (root / "README.md").read_text()
    for path in repository.notebooks(root):
        cells = nbformat.read(path, as_version=4).cells
        setups = [cell.source for cell in cells if repository.is_setup(cell)]
        assert setups == [repository.setup_cell(url, root)], path.name


def test_address_is_the_same_everywhere(root):
    assert_same_everywhere(root)


def test_setting_the_address_reaches_everything(copy):
    assert repository.configured(copy) == URL
    assert_same_everywhere(copy)
    link = f"/github/example-owner/deep-companion/blob/main/{CHAPTER}.ipynb"
    assert link in (copy / "README.md").read_text()


def test_taking_the_address_out_restores_every_file(root, copy, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(copy, again)
    repository.write_everywhere(repository.configured(root), again)
    for name in ("_config.yml", "CITATION.cff", "README.md"):
        assert (again / name).read_text() == (root / name).read_text()
    for path in repository.notebooks(root):
        restored = nbformat.read(again / "notebooks" / path.name, as_version=4)
        assert restored == nbformat.read(path, as_version=4)


@pytest.mark.parametrize("end", ["/", ".git", ".git/"])
def test_what_a_browser_or_git_appends_is_dropped(copy, end):
    repository.write_everywhere(URL + end, copy)
    assert repository.configured(copy) == URL


@pytest.mark.parametrize("url", ["github.com/a/b", "https://example.org/a/b", f"{URL}/tree/main"])
def test_other_addresses_are_refused(copy, url):
    with pytest.raises(ValueError, match="OWNER/NAME, got"):
        repository.write_everywhere(url, copy)


def links(html: Path) -> list[str]:
    page = BeautifulSoup(html.read_text(encoding="utf-8"), "html.parser")
    return [link["href"] for link in page.find_all("a", href=True)]


def test_buttons_follow_the_address(copy, tmp_path):
    html = build(tmp_path / "site", copy)
    chapters = sorted((html / "notebooks").glob("*.html"))
    assert chapters
    for page in chapters:
        file = f"notebooks/{page.stem}.ipynb"
        colab = "https://colab.research.google.com/github/example-owner/deep-companion/blob/main/"
        found = links(page)
        assert f"{colab}{file}" in found
        assert f"{URL}/edit/main/{file}" in found
        assert (copy / file).exists()
    assert f"{URL}/edit/main/book/errata.md" in links(html / "book" / "errata.html")


def test_no_buttons_without_an_address(site, root):
    if repository.configured(root):
        pytest.skip("the address is set")
    for page in [*(site / "book").glob("*.html"), *(site / "notebooks").glob("*.html")]:
        wrong = [link for link in links(page) if "colab" in link or "github.com" in link]
        assert not wrong, page.name
