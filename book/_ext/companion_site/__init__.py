"""What this book adds to Sphinx: claims, book sections, figures with alt text, benchmarks.

Each file here adds one thing. None of them runs a notebook: they read committed outputs.
"""

from __future__ import annotations

from sphinx.application import Sphinx

from . import benchmarks, booklinks, claims, figures, repository


def setup(app: Sphinx) -> dict[str, object]:
    """Register every part; Sphinx calls this once."""
    for part in (benchmarks, booklinks, claims, figures, repository):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
