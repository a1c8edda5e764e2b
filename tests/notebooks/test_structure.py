"""Every notebook follows the conventions: see CONTRIBUTING.md."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat
import pytest
import repository

from companion_lib import sections
from companion_lib.verify import parse_claims

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
ALL = sorted(path.name for path in FOLDER.glob("*.ipynb"))
CHAPTERS = [name for name in ALL if re.match(r"ch\d\d_|appendix_", name)]

MOST_LINES = 25
MEDIAN_LINES = 8
LEAST_CLAIMS = 25
LEAST_WIDGETS = 3
LEAST_ALT = 20
MOST_BYTES = 2_000_000
ABSOLUTE_PATH = re.compile(r"(?<![\w:/.<])/(?:home|root|tmp|work|usr|opt|Users|content|mnt)/")

every_notebook = pytest.mark.parametrize("notebook", ALL, indirect=True)
every_chapter = pytest.mark.parametrize("notebook", CHAPTERS, indirect=True)


@pytest.fixture
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / request.param, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def words(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook) -> str:
    return "\n".join(cell.source for cell in code_cells(notebook))


def printed(notebook) -> str:
    return "".join(out.text for out in outputs(notebook) if out.output_type == "stream")


def bundles(notebook, mime: str) -> list[tuple[object, dict]]:
    """Return the content and the metadata of every output of a MIME type."""
    found = [out for out in outputs(notebook) if mime in out.get("data", {})]
    return [(out.data[mime], out.metadata.get(mime, {})) for out in found]


def test_there_are_chapters():
    assert CHAPTERS


@every_notebook
def test_setup_cell_comes_first_and_is_hidden(notebook):
    first = code_cells(notebook)[0]
    assert first.source == repository.setup_cell(repository.configured())
    assert {"remove-cell", "hide-cell"} & set(first.metadata.get("tags", ()))
    assert sum(map(repository.is_setup, notebook.cells)) == 1


@every_notebook
def test_was_run_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_shows_no_error_and_no_warning(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error", output
        assert output.get("name") != "stderr", output.text
    assert "Warning:" not in printed(notebook)


@every_notebook
def test_holds_nothing_that_changes_between_runs(notebook):
    assert "widgets" not in notebook.metadata
    for index, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{index:03d}", "run make notebooks"
        assert set(cell.metadata) <= {"tags", "slideshow"}, cell.metadata
    texts = [printed(notebook), *(text for text, _ in bundles(notebook, "text/plain"))]
    for text in texts:
        assert not re.search(r"\bat 0x[0-9a-f]+|np\.(?:True|False)_", text), text


@every_notebook
def test_names_no_absolute_path(notebook):
    everything = "\n".join([words(notebook), code(notebook), printed(notebook)])
    assert not ABSOLUTE_PATH.search(everything), ABSOLUTE_PATH.search(everything)


@every_notebook
def test_names_known_sections_only(notebook):
    cited = re.findall(r"source=\"([^\"]*)\"", code(notebook))
    linked = re.findall(r"\]\(book:([^)]*)\)", words(notebook))
    for anchor in [*cited, *linked]:
        sections.section(anchor)


@every_notebook
def test_is_small(notebook, request):
    assert (FOLDER / request.node.callspec.params["notebook"]).stat().st_size < MOST_BYTES


@every_notebook
def test_pictures_have_alt_text(notebook):
    for mime in ("image/png", "image/svg+xml", "image/jpeg"):
        for _, metadata in bundles(notebook, mime):
            assert len(metadata.get("alt", "")) >= LEAST_ALT, metadata


@every_chapter
def test_cells_are_short(notebook):
    lengths = [
        len(cell.source.splitlines())
        for cell in code_cells(notebook)
        if not repository.is_setup(cell)
    ]
    assert max(lengths) <= MOST_LINES
    assert statistics.median(lengths) <= MEDIAN_LINES


@every_chapter
def test_verifies_enough_claims_and_names_their_sections(notebook):
    lines = [claim for claim in parse_claims(printed(notebook)) if claim.section]
    assert len({claim.text for claim in lines}) >= LEAST_CLAIMS
    assert len({claim.text for claim in lines}) == len(lines), "two claims with the same words"
    calls = re.findall(r"(?m)^\s*verify(?:\.\w+)?\(", code(notebook))
    assert code(notebook).count("source=") >= len(calls), "a claim without source="


@every_chapter
def test_has_widgets_that_need_no_kernel(notebook):
    pages = [text for text, _ in bundles(notebook, "text/html")]
    alive = [text for text in pages if "companion-state" in text]
    assert len(alive) >= LEAST_WIDGETS
    for text in alive:
        assert '<script type="module">' in text
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), "a widget names another host"


@every_chapter
def test_has_figures_exercises_and_a_summary(notebook):
    assert bundles(notebook, "image/png")
    assert re.search(r"(?m)^## .*Exercises", words(notebook))
    assert re.search(r"(?m)^## .*Summary", words(notebook))
    assert re.search(r"\bcheck\(", code(notebook))
