"""``{benchmarks}``: the table of ``book/benchmarks.json``, which ``make bench`` writes."""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from .tables import make_table

LOGGER = logging.getLogger(__name__)
HEADER = ["Operation", "Compared with", "Ratio", "Asked", "Ours, ms", "Theirs, ms"]


def significant(value: float, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits, never in exponent form."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def as_row(result: dict) -> list[str]:
    """Return one measurement as table cells; the ratio is their time over ours."""
    sizes = result["sizes"]
    if not isinstance(sizes, str):
        sizes = ", ".join(f"{key} {value}" for key, value in sizes.items())
    note = f". {result['note']}" if result.get("note") else ""
    asked = result.get("at_least")
    return [
        f"{result['name']}: {sizes}",
        result["baseline"] + note,
        f"{significant(result['ratio'], 2)} ×",
        "–" if asked is None else f"≥ {asked}",
        significant(result["ours_ms"]),
        significant(result["baseline_ms"]),
    ]


class Benchmarks(SphinxDirective):
    """Show the committed measurements and the machine that made them."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / "book" / "benchmarks.json"
        self.env.note_dependency(str(path))
        if not path.exists():
            LOGGER.warning("no book/benchmarks.json: run make bench", location=self.get_location())
            return []
        data = json.loads(path.read_text(encoding="utf-8"))
        machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
        rows = [as_row(result) for result in data["results"]]
        table = make_table(HEADER, rows, "benchmarks")
        return [nodes.paragraph("", f"Measured on: {machine}."), table]


def setup(app: Sphinx) -> None:
    app.add_directive("benchmarks", Benchmarks)
