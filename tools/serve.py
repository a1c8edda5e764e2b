"""Serve a folder on this computer only: ``python tools/serve.py _build/html``."""

from __future__ import annotations

import argparse
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve files, say nothing about each request."""

    def log_message(self, format: str, *args) -> None:
        pass


def make_server(folder: Path, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """Return a server bound to the loopback address, and its URL; port 0 takes a free one."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    return server, f"http://127.0.0.1:{server.server_port}/"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve ``folder`` in the background while the block runs; yields the URL."""
    server, url = make_server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server, url = make_server(options.folder, options.port)
    print(f"The site is at {url}  (stop with Ctrl-C)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
