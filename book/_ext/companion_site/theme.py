"""Small corrections to the theme's pages."""

from __future__ import annotations

from sphinx.application import Sphinx


def drop_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Take out the scripts of sphinx-thebe, which is loaded but not used.

    They name a script on another host, and twice on a page they are an error in the console.
    """
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(script.filename).lower()
        and "thebe" not in script.attributes.get("body", "").lower()
    ]


def setup(app: Sphinx) -> None:
    # After every extension has added its scripts.
    app.connect("html-page-context", drop_thebe, priority=900)
