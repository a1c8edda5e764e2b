"""Equation numbers that carry the chapter, ``(2.7)``, so that other pages can refer to them."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.math import MathDomain

CHAPTER = re.compile(r"notebooks/(?:ch0*(\d+)|appendix_([a-z]))_")


def chapter_prefix(docname: str) -> str:
    """Return ``2.`` for chapter 2, ``A.`` for appendix A, and nothing for other pages."""
    match = CHAPTER.match(docname)
    return f"{match[1] or match[2].upper()}." if match else ""


class ChapterEquations(MathDomain):
    """Number equations by chapter and by their order on its page."""

    def note_equation(self, docname: str, labelid: str, location: Any = None) -> None:
        super().note_equation(docname, labelid, location)
        name, number = self.equations[labelid]
        self.equations[labelid] = (name, f"{chapter_prefix(docname)}{number}")


def setup(app: Sphinx) -> None:
    app.add_domain(ChapterEquations, override=True)
