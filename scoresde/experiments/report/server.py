"""A server of one page for the browser on this machine: it listens on the loopback address and reads no path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["PageServer"]

_HOST = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Serves one page at ``/`` and nothing else.

    Requests under another host name are refused, so that a page of another site that resolves its name to this machine
    reads nothing.

    Args:
        page: Makes the page; called once per ``keep`` seconds at most, by one thread at a time.
        port: 0 takes a free one.
        keep: Seconds for which a page is served again.

    Raises:
        OSError: If the port is taken.
    """

    daemon_threads = True

    def __init__(self, page: Callable[[], str], port: int = 0, keep: float = 1.0) -> None:
        try:
            super().__init__((_HOST, port), _Handler)
        except OSError as error:
            raise OSError(
                error.errno, f"port {port} must be free, it is not ({error.strerror}); take another, or 0 for any."
            ) from error
        self._page, self._keep, self._lock = page, keep, threading.Lock()
        self._made, self._text = -keep, ""

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{_HOST}:{self.server_port}/"

    def hosts(self) -> set[str]:
        """Host names under which the page is served."""
        return {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    def text(self) -> str:
        """The page, made again if the last one is older than ``keep``."""
        with self._lock:
            if time.monotonic() - self._made >= self._keep or not self._text:
                self._text = self._page()
                self._made = time.monotonic()
            return self._text


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        """Answers with the page."""
        if self.headers.get("Host") not in self.server.hosts():
            self._answer(403, "this page is served to the browser on the same machine only")
        elif self.path.partition("?")[0] != "/":
            self._answer(404, "there is one page: /")
        else:
            self._answer(*self._made())

    def _made(self) -> tuple[int, str, str]:
        try:
            return 200, self.server.text(), "text/html"
        except (OSError, ValueError) as error:  # files that are being written: the browser asks again
            return 503, str(error), "text/plain"

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        with suppress(ConnectionError):  # the browser has left
            self.end_headers()
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Prints nothing."""
