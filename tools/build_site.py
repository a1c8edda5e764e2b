"""Build the site from clean, with every warning an error: ``python tools/build_site.py _build``.

A second build over an old one forgives warnings, because unchanged pages are not read again;
so the old one is removed first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Its script in .venv/bin names a Python by path, which is gone once the checkout has moved.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


class BuildError(RuntimeError):
    """The site has a warning or an error."""


def commit_date(root: Path) -> str | None:
    """Return the last commit's time in seconds, which the pages show as their date."""
    command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() or None


def build(output: Path, root: Path = ROOT) -> Path:
    """Build the book at ``root`` into ``output/html`` and return that folder.

    Raises
    ------
    BuildError
        If Sphinx warns about anything or fails; the message is what it printed.
    """
    target = output / "_build" if output.name != "_build" else output
    shutil.rmtree(target, ignore_errors=True)
    env = dict(os.environ)
    date = commit_date(root)
    if date is not None:
        env.setdefault("SOURCE_DATE_EPOCH", date)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root)]
    command += ["--path-output", str(target.parent), "--warningiserror", "--keep-going", "--quiet"]
    result = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        raise BuildError(result.stdout)
    return target / "html"


if __name__ == "__main__":
    try:
        print(f"Built {build(Path(sys.argv[1]).resolve())}")
    except BuildError as error:
        sys.exit(f"{error}\nThe site was not built: the warnings above are errors here.")
