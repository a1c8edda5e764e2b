"""Run notebooks in place, and keep nothing in them that changes from run to run.

``python tools/run_notebooks.py notebooks/*.ipynb``. A notebook that fails is left as it was.
"""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

import nbformat
from nbclient import NotebookClient

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
KEPT_IN_CELLS = ("tags", "slideshow")
TIMEOUT = 600
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def run(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Execute every cell, from a fresh kernel, with ``folder`` as working directory."""
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name=KERNEL["name"],
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def clean(notebook: nbformat.NotebookNode) -> None:
    """Make metadata and cell ids depend on the text of the notebook only."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:03d}"
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT_IN_CELLS if key in cell.metadata}
        )
        for output in cell.get("outputs", ()):
            fix_model_id(output, cell.id)


def fix_model_id(output: nbformat.NotebookNode, cell_id: str) -> None:
    """Give a widget's live view an id that depends on its cell only: a kernel's is always new."""
    view = output.get("data", {}).get(WIDGET_VIEW)
    if view:
        view["model_id"] = uuid.uuid5(uuid.NAMESPACE_OID, cell_id).hex


def main(paths: list[Path]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        start = time.perf_counter()
        run(notebook, path.parent)
        clean(notebook)
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
