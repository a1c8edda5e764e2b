"""What this book adds to Sphinx: claims, sections of the book, alt text, benchmarks.

Each file here adds one thing. None of them runs a notebook: they read committed outputs.
"""

from __future__ import annotations

from sphinx.application import Sphinx

from . import benchmarks, booklinks, claims, equations, figures, repository, theme


def setup(app: Sphinx) -> dict[str, object]:
    """Register every part; Sphinx calls this once."""
    for part in (benchmarks, booklinks, claims, equations, figures, repository, theme):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
