"""The widget base: live in Jupyter, and alive on a page without a kernel."""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template

import anywidget
import traitlets

_HERE = Path(__file__).parent
_CSS = (_HERE / "widget.css").read_text(encoding="utf-8")
_UI = (_HERE / "ui.js").read_text(encoding="utf-8")
_MOUNT = (_HERE / "mount.js").read_text(encoding="utf-8")
_STATIC = Template("""\
<div class="companion-host" data-companion-widget="$name">
<style>$css</style>
<noscript><p>This figure is interactive: run this cell, or switch JavaScript on.</p></noscript>
<script type="application/json" class="companion-state">$state</script>
<script type="text/plain" class="companion-module">$module</script>
<script type="module">$mount</script>
</div>""")


class _Ends:
    """A synced trait with two ends, and an error that says which."""

    def __init__(self, low, high, **kwargs):
        super().__init__(low, **kwargs)
        self.low, self.high = low, high
        self.tag(sync=True)

    def validate(self, obj, value):
        value = super().validate(obj, value)
        if not self.low <= value <= self.high:
            raise traitlets.TraitError(
                f"{self.name} must be between {self.low} and {self.high}, got {value}"
            )
        return value


class Between(_Ends, traitlets.Float):
    """A number between two ends."""


class Count(_Ends, traitlets.Int):
    """A whole number between two ends."""


class Widget(anywidget.AnyWidget):
    """A figure the reader can move, with one JavaScript module for every place it is shown.

    A subclass names its module, ``module = "rotate_and_watch.js"``, and declares its synced
    traits. The module reads and writes those traits; ``data`` carries what does not change.
    Displayed in a notebook, the widget is live: ``w.angle = 30`` moves it, and moving it changes
    ``w.angle``. The saved output also holds :meth:`static_html`, so the widget works on a page
    with no kernel and no network.
    """

    module: str
    data = traitlets.Dict().tag(sync=True)

    # ipywidgets 7 shows widgets through this hook, which would skip the bundle below.
    _ipython_display_ = None

    def __init_subclass__(cls, **kwargs):
        # anywidget derives a class for every instance; those have their sources already.
        if "module" in cls.__dict__:
            source = (_HERE / cls.module).read_text(encoding="utf-8")
            cls._esm = f"{_UI}\n{source}"
            cls._css = _CSS
        super().__init_subclass__(**kwargs)

    def state(self) -> dict:
        """Return what the JavaScript needs: the widget's own synced traits by name."""
        own = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names())
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")}

    def static_html(self) -> str:
        """Return the widget as one piece of HTML that needs no kernel and no network.

        Equal states give equal text. Any number of these may stand on one page.
        """
        return _STATIC.substitute(
            name=html.escape(type(self).__name__),
            css=_CSS,
            state=json.dumps(self.state(), sort_keys=True).replace("<", "\\u003c"),
            module=_inline(self._esm),
            mount=_inline(_MOUNT),
        )

    def __repr__(self) -> str:
        """Return the settings; what is long, lists and ``data``, is left out."""
        values = (
            f"{name}={value!r}"
            for name, value in self.state().items()
            if not isinstance(value, (dict, list))
        )
        return f"{type(self).__name__}({', '.join(values)})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/html": self.static_html()}, metadata


def _inline(source: str) -> str:
    """Keep the text of a script from closing the script element it stands in."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")
