"""The book's sections by name, so that a renumbered edition changes one file.

Notebooks, docstrings and checks name a section by its anchor (``"pca"``). The registry
``book/sections.yml`` holds the number that anchor has in each edition of the book.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

HERE = Path(__file__).parent
# The source tree's registry comes first: an editable install must see its edits at once.
# A wheel has no source tree around it and carries its own copy.
PLACES = (HERE.parent / "book" / "sections.yml", HERE / "sections.yml")


@dataclass(frozen=True)
class Section:
    """One numbered chapter, section or subsection of the book.

    ``v2`` and ``v1`` are its numbers in versions 2 and 1, such as ``"2.1.1"``; ``v1`` is
    None where version 1 has no such section.
    """

    anchor: str
    v2: str
    v1: str | None
    title: str


class UnknownSection(KeyError):
    """An anchor that is not in the registry."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would print the message inside quotes


def read(path: Path) -> dict[str, Section]:
    """Read a registry file into ``{anchor: Section}``.

    Raises
    ------
    ValueError
        If an anchor or a number occurs twice, or a number lost its quotes: YAML reads an
        unquoted 8.10 as the number 8.1.
    """
    sections = [Section(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    for section in sections:
        if not isinstance(section.v2, str) or not isinstance(section.v1, str | None):
            raise ValueError(f"{path.name}: put quotes around the numbers of {section.anchor!r}")
    for field in ("anchor", "v2"):
        names = [getattr(section, field) for section in sections]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{path.name}: {field} {', '.join(twice)} occurs more than once")
    return {section.anchor: section for section in sections}


@lru_cache(maxsize=1)
def registry() -> dict[str, Section]:
    """Return every section of the book as ``{anchor: Section}``, in the book's order."""
    return read(next(path for path in PLACES if path.exists()))


def section(anchor: str) -> Section:
    """Look a section up by its anchor.

    Raises
    ------
    UnknownSection
        A KeyError that names the closest anchors.

    Examples
    --------
    >>> section("pca").v2
    '2.1.1'
    """
    known = registry()
    if anchor in known:
        return known[anchor]
    close = difflib.get_close_matches(str(anchor), known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see book/sections.yml"
    raise UnknownSection(f"no section of the book has the anchor {anchor!r}; {hint}")
