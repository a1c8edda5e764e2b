"""One helper: a docutils table from rows of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from docutils import nodes

Cell = str | nodes.Node


def paragraph(cell: Cell) -> nodes.paragraph:
    """Return a cell's content as a paragraph."""
    return nodes.paragraph("", "", nodes.Text(cell) if isinstance(cell, str) else cell)


def make_row(cells: Sequence[Cell]) -> nodes.row:
    """Return one table row."""
    return nodes.row("", *(nodes.entry("", paragraph(cell)) for cell in cells))


def make_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], *classes: str) -> nodes.Node:
    """Return a table in a container that scrolls sideways where the page is too narrow."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    group += nodes.thead("", make_row(header))
    group += nodes.tbody("", *(make_row(row) for row in rows))
    table = nodes.table("", group, classes=["colwidths-auto", *classes])
    return nodes.container("", table, classes=["wide-table"])
