"""Figures: the alt text a notebook stored with its picture, and loading when scrolled to."""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
plain_render = NbElementRenderer.render_image


def render_with_alt(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """Render a picture as MyST-NB does, and carry over the ``alt`` of its output metadata."""
    images = plain_render(self, data)
    alt = data.output_metadata.get(data.mime_type, {}).get("alt")
    for image in images:
        if alt is not None:
            image["alt"] = alt
    return images


class Figures(SphinxTransform):
    """Load pictures lazily; one without alt text is a warning."""

    default_priority = 880

    def apply(self, **kwargs: object) -> None:
        for image in self.document.findall(nodes.image):
            image["loading"] = "lazy"
            if not image.get("alt"):
                LOGGER.warning("this picture has no alt text", location=image)


def setup(app: Sphinx) -> None:
    NbElementRenderer.render_image = render_with_alt
    app.add_transform(Figures)
