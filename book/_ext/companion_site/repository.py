"""Buttons that lead to the repository, shown only when ``repository.url`` is set; the footer."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config

from companion_lib import __version__

COLAB = "https://colab.research.google.com"


def set_buttons(app: Sphinx, config: Config) -> None:
    """Turn on the Colab, edit and repository buttons if there is an address to lead to."""
    options = config.html_theme_options
    has_address = bool(options.get("repository_url"))
    options["use_repository_button"] = has_address
    options["use_edit_page_button"] = has_address
    options["use_issues_button"] = has_address
    if has_address:
        options["launch_buttons"] = {**options.get("launch_buttons", {}), "colab_url": COLAB}


def set_footer(app: Sphinx, config: Config) -> None:
    """Put the version and the licenses into the footer."""
    config.version = config.release = __version__
    config.html_theme_options["extra_footer"] = (
        f"<p>Version {config.version}. Text: CC BY 4.0. Code: Apache-2.0.</p>"
    )


def setup(app: Sphinx) -> None:
    app.connect("config-inited", set_buttons)
    app.connect("config-inited", set_footer)
