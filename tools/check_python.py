"""Stop with a clear message where Python is too old (this file runs on any Python 3)."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    message = (
        "This project needs Python 3.11 or newer; {} is Python {}.{}.\n"
        "Name a newer one: make PYTHON=python3.12 <command>"
    )
    sys.exit(message.format(sys.executable, *sys.version_info))
try:
    import ensurepip  # noqa: F401
except ImportError:
    sys.exit(
        "Python's venv module is incomplete here. On Debian or Ubuntu: apt-get install python3-venv"
    )
