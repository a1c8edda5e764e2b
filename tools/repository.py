"""Write the project's address everywhere it is needed: ``make repository URL=https://…``.

``repository.url`` in ``_config.yml`` is the one source. The setup cell of each notebook,
``CITATION.cff`` and the links between the markers in ``README.md`` are made from it, and a test
keeps them equal. An empty URL takes the address out again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
COLAB = "https://colab.research.google.com/github"
README_BLOCK = re.compile(r"(<!-- links -->\n).*?(<!-- /links -->)", re.DOTALL)


def configured(root: Path = ROOT) -> str:
    """Return ``repository.url`` of ``_config.yml``; empty while it is unset."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def setup_cell(url: str, root: Path = ROOT) -> str:
    """Return the source of every notebook's setup cell for this address."""
    template = (root / "tools" / "setup_cell.txt").read_text(encoding="utf-8").rstrip("\n")
    return template.replace('REPOSITORY = ""', f'REPOSITORY = "{url}"')


def is_setup(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell is a notebook's setup cell."""
    return cell.cell_type == "code" and cell.source.startswith("# Setup:")


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the paths of all notebooks of the book."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def colab_link(url: str, name: str) -> str:
    """Return the address that opens a notebook of the repository in Colab."""
    return f"{COLAB}/{url.removeprefix('https://github.com/')}/blob/main/notebooks/{name}"


def readme_links(url: str, root: Path = ROOT) -> str:
    """Return the lines between the markers in the README: one Colab link for each notebook."""
    if not url:
        return ""
    lines = [f"The project lives at <{url}>. Open a chapter in Colab:\n"]
    for path in notebooks(root):
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({colab_link(url, path.name)})")
    return "\n".join(lines) + "\n"


def write_config(url: str, root: Path) -> None:
    """Put the address into ``_config.yml``, leaving the rest of the file as it is."""
    path = root / "_config.yml"
    text = path.read_text(encoding="utf-8")
    text, count = re.subn(r'(?m)^  url: ".*"$', f'  url: "{url}"', text)
    if count != 1:
        raise ValueError(f'_config.yml must have exactly one line  url: "…", found {count}')
    path.write_text(text, encoding="utf-8")


def write_citation(url: str, root: Path) -> None:
    """Set or remove ``repository-code`` in ``CITATION.cff``."""
    path = root / "CITATION.cff"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("repository-code:")]
    if url:
        lines.append(f'repository-code: "{url}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_readme(url: str, root: Path) -> None:
    """Write the links between the markers in the README."""
    path = root / "README.md"
    block = readme_links(url, root)
    text = README_BLOCK.sub(lambda m: m[1] + block + m[2], path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


def write_notebooks(url: str, root: Path) -> None:
    """Write the address into the setup cell of every notebook."""
    for path in notebooks(root):
        notebook = nbformat.read(path, as_version=4)
        for cell in filter(is_setup, notebook.cells):
            cell.source = setup_cell(url, root)
        nbformat.write(notebook, path)


def write_everywhere(url: str, root: Path = ROOT) -> None:
    """Make every file agree on the address.

    Raises
    ------
    ValueError
        If the URL is neither empty nor of the form ``https://github.com/OWNER/NAME``, to which a
        slash or ``.git`` may be appended.
    """
    url = url.rstrip("/").removesuffix(".git")
    if url and not ADDRESS.fullmatch(url):
        raise ValueError(f"URL must look like https://github.com/OWNER/NAME, got {url!r}")
    for write in (write_config, write_citation, write_readme, write_notebooks):
        write(url, root)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: tools/repository.py URL, where "" takes the address out')
    try:
        write_everywhere(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    print(f"repository.url is {configured() or 'unset'}")
