"""Links into the textbook, ``[power iteration](book:power-iteration)``, and in docstrings.

The page shows "power iteration (book §2.1.2)", with the number taken from ``book/sections.yml``.
The textbook has no address of its own to link to, so the result is text, with the section's title
and its number in version 1 on hover. In a docstring, the anchors after "Book: section" or "Book:
sections" are replaced by numbers and titles.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from companion_lib import sections

LOGGER = logging.getLogger(__name__)
SCHEME = "book:"
ANCHOR = re.compile(r"``([\w-]+)``")
IN_DOCSTRING = re.compile(r"Book: sections? ``[\w-]+``(?:(?:,| and|, and) ``[\w-]+``)*")


def describe(anchor: str) -> tuple[str, str]:
    """Return the short form ``book §2.1.1`` and the long form with title and version-1 number."""
    section = sections.section(anchor)
    older = f" (version 1: {section.v1})" if section.v1 else " (new in version 2)"
    return f"book §{section.v2}", f"Section {section.v2}, {section.title}{older}"


class BookLinks(SphinxTransform):
    """Replace each ``book:`` link by its text and the section's number."""

    default_priority = 210

    def apply(self, **kwargs: object) -> None:
        for link in list(self.document.findall(nodes.reference)):
            if not link.get("refuri", "").startswith(SCHEME):
                continue
            anchor = link["refuri"].removeprefix(SCHEME)
            try:
                short, long = describe(anchor)
            except sections.UnknownSection as error:
                LOGGER.warning("%s", error, location=link)
                continue
            number = nodes.abbreviation("", short, explanation=long)
            text = nodes.inline("", "", *link.children, classes=["book-link"])
            text += [nodes.Text(" ("), number, nodes.Text(")")]
            link.replace_self(text)


def name_sections(match: re.Match) -> str:
    """Return ``Book: sections 2.1.1 (Principal …) and 2.1.4 (…)`` for the anchors that matched."""
    return ANCHOR.sub(name_section, match[0])


def name_section(match: re.Match) -> str:
    """Return ``2.1.1 (Principal Components Analysis)`` for the anchor that matched."""
    section = sections.section(match[1])
    return f"{section.v2} ({section.title})"


def number_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Replace the anchors in a docstring by numbers and titles."""
    try:
        lines[:] = [IN_DOCSTRING.sub(name_sections, line) for line in lines]
    except sections.UnknownSection as error:
        LOGGER.warning("docstring of %s: %s", name, error)


def setup(app: Sphinx) -> None:
    app.add_transform(BookLinks)
    app.connect("autodoc-process-docstring", number_docstring)
