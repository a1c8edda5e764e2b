"""The claims page: ``{claims}`` lists every verified claim, ``{claim}`` links to one.

Claims are read from the outputs stored in the notebooks of ``_toc.yml``, so the list cannot say
more than the last run showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from companion_lib import sections
from companion_lib.verify import parse_claims

from .tables import make_table

LOGGER = logging.getLogger(__name__)


class ClaimsTable(nodes.General, nodes.Element):
    """Stands where the table goes until every page has been read."""


class ClaimLink(nodes.Inline, nodes.TextElement):
    """Stands for a link to the first claim that begins with ``start``."""


@dataclass(frozen=True)
class Claim:
    """One line that ``verify`` printed, and where it stands."""

    text: str
    section: str
    tolerance: str
    docname: str
    cell: int


@dataclass(frozen=True)
class Heading:
    """A heading of a page: the id to link to and its words."""

    anchor: str
    title: str


def printed_text(cell: nbformat.NotebookNode) -> str:
    """Return what a code cell printed to standard output."""
    streams = (out for out in cell.get("outputs", ()) if out.output_type == "stream")
    return "".join(out.text for out in streams if out.name == "stdout")


@lru_cache
def notebook_claims(path: Path, docname: str) -> list[Claim]:
    """Return the claims in one notebook's stored outputs, in order.

    A line without a section is not a claim of the book: exercises print a check mark too.
    """
    cells = nbformat.read(path, as_version=4).cells
    return [
        Claim(found.text, found.section, found.tolerance, docname, index)
        for index, cell in enumerate(cells)
        for found in parse_claims(printed_text(cell))
        if found.section
    ]


def all_claims(env: BuildEnvironment) -> list[Claim]:
    """Return the claims of every notebook in the book, in the book's order."""
    pages = [(Path(env.doc2path(name)), name) for name in env.app.config.external_site_map]
    notebooks = [notebook_claims(*page) for page in pages if page[0].suffix == ".ipynb"]
    return [claim for claims in notebooks for claim in claims]


@lru_cache
def cell_headings(env: BuildEnvironment, docname: str) -> dict[int, Heading]:
    """Map each code cell of a page to the nearest heading before it."""
    headings: dict[int, Heading] = {}
    current = Heading("", "")
    for node in env.get_doctree(docname).findall():
        if isinstance(node, nodes.section):
            current = Heading(node["ids"][0], node.next_node(nodes.title).astext())
        elif isinstance(node, nodes.container) and "cell_index" in node:
            headings[node["cell_index"]] = current
    return headings


def make_link(app: Sphinx, here: str, claim: Claim, text: str) -> nodes.reference:
    """Return a link from page ``here`` to the heading that ``claim`` stands under."""
    heading = cell_headings(app.env, claim.docname).get(claim.cell, Heading("", ""))
    uri = app.builder.get_relative_uri(here, claim.docname)
    if heading.anchor:
        uri += f"#{heading.anchor}"
    return nodes.reference("", text, refuri=uri, internal=True)


def section_name(number: str) -> str:
    """Return "2.1.1 Principal Components Analysis" for the number a claim line shows."""
    known = sections.registry().values()
    names = {section.v2: f"{section.v2} {section.title}" for section in known}
    return names.get(number, number)


def chapter_table(app: Sphinx, here: str, docname: str, claims: list[Claim]) -> nodes.section:
    """Return one chapter's claims as a section with a table."""
    title = app.env.titles[docname].astext()
    section = nodes.section("", nodes.title("", title), ids=[f"claims-{nodes.make_id(title)}"])
    rows = [
        [claim.text, make_link(app, here, claim, section_name(claim.section)), claim.tolerance]
        for claim in claims
    ]
    section += make_table(["Claim", "Where (section of the book)", "Tolerance"], rows, "claims")
    return section


def fill_table(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the stand-in for the table by one table for each chapter."""
    for stand_in in list(doctree.findall(ClaimsTable)):
        claims = all_claims(app.env)
        pages = list(dict.fromkeys(claim.docname for claim in claims))
        notebooks = "notebook" if len(pages) == 1 else "notebooks"
        count = nodes.strong("", f"{len(claims)} claims in {len(pages)} {notebooks}")
        content = [nodes.paragraph("", "", count, nodes.Text(", checked at every test run."))]
        for page in pages:
            mine = [claim for claim in claims if claim.docname == page]
            content.append(chapter_table(app, docname, page, mine))
        stand_in.replace_self(content)


def fill_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn each ``{claim}`` into a link to the first claim that begins so, or warn of none."""
    for stand_in in list(doctree.findall(ClaimLink)):
        start = stand_in["start"]
        matches = [claim for claim in all_claims(app.env) if claim.text.startswith(start)]
        if not matches:
            LOGGER.warning("no claim begins with %r", start, location=stand_in)
            stand_in.replace_self(nodes.Text(start))
            continue
        link = make_link(app, docname, matches[0], f"✓ {matches[0].text}")
        stand_in.replace_self(nodes.inline("", "", link, classes=["claim-link"]))


class ClaimsDirective(SphinxDirective):
    """List every claim of every notebook."""

    def run(self) -> list[nodes.Node]:
        return [ClaimsTable()]


class ClaimRole(SphinxRole):
    """Link to the claim that begins with the given words."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        stand_in = ClaimLink(start=self.text)
        self.set_source_info(stand_in)
        return [stand_in], []


def setup(app: Sphinx) -> None:
    app.add_node(ClaimsTable)
    app.add_node(ClaimLink)
    app.add_directive("claims", ClaimsDirective)
    app.add_role("claim", ClaimRole())
    app.connect("doctree-resolved", fill_table)
    app.connect("doctree-resolved", fill_links)
