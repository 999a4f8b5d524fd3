"""Debian's Chromium, headless: real pages of any origin that call a gateway. One browser serves all tests of a module."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.serving import ROOT

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name leads out of this machine; what ends in .test leads to it.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
_PAGE = b'<!doctype html><meta charset="utf-8"><title>page</title><script src="/page.js"></script>'


class Browser:
    """A browser, and a server of one page that it finds under any host name at ``port``."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port
        self.seen: list[tuple[str, str, int]] = []
        """Method, address and status of what was answered to the last page, also where it learnt nothing of it."""

    def run(self, origin: str, script: str, **given: Any) -> Any:
        """What the body of an async function returns on the page of ``origin``; ``page.js`` is there, and ``given``."""
        page = f"{origin}/" if origin.count(":") == 2 else f"{origin}:{self.port}/"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"page": page, "script": script, "given": given}) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert "error" not in told, told["error"]
        self.seen = [(method, address, status) for method, address, status in told["seen"]]
        return told.get("value")

    def call(self, origin: str, url: str, **init: Any) -> Any:
        """One ``fetch`` by the page of ``origin``, and what the page may know of the answer."""
        return self.run(origin, "return call(given.url, given.init)", url=url, init=init)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        script = self.path == "/page.js"
        body = (ROOT / "tests/js/page.js").read_bytes() if script else _PAGE
        self.send_response(200)
        self.send_header("content-type", "text/javascript" if script else "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A running browser. Where there is none the test is skipped; CI must have one."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    driver = ROOT / "tests/js/node_modules/playwright-core"
    if chromium is None or node is None or not driver.is_dir():
        missing = "Debian's chromium" if chromium is None else "Node" if node is None else "npm ci --prefix tests/js"
        if os.environ.get("EXAMPLES") == "ci":
            pytest.fail(f"the tests of real pages need {missing}, which CI must have")
        pytest.skip(f"the tests of real pages need {missing}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    command = [node, str(ROOT / "tests/js/browser.mjs"), chromium, *_FLAGS]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Browser(process, server.server_address[1])
    finally:
        process.communicate(timeout=30)
        server.shutdown()
        serving.join()
        server.server_close()
