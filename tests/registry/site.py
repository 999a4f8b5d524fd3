"""The two servers, what they hold and what they remember."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

from canonical.digests import digest_of
from tests.registry.faults import Fault, Where

KINDS = "application/vnd.ollama.image."
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Served:
    """One request, and how much of its body went out."""

    site: str
    method: str
    path: str
    authorization: str
    agent: str
    digest: str = ""
    start: int = 0
    asked: int = 0
    """The end of the bytes that were asked for."""
    sent: int = 0
    status: int = 0


@dataclass
class Repo:
    """One at Hugging Face: path -> content."""

    files: dict[str, bytes]
    commit: str
    gated: bool = False


@dataclass
class Upload:
    repo: str
    content: bytearray = field(default_factory=bytearray)
    direct: dict[int, bytes] = field(default_factory=dict)


class Site:
    """Everything a test turns or looks at."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        """``acme/tiny:latest`` -> bytes."""
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, Upload] = {}
        self.faults: list[Fault] = []
        self.log: list[Served] = []
        self.token = ""
        """What the registry wants as a bearer token; empty: nothing."""
        self.realm = ""
        """Where it says that tokens are; empty: at itself."""
        self.login = ""
        """``user:password`` that the token's place wants."""
        self.redirects_uploads = False
        """Pieces go by PUT to the CDN, as Ollama's own registry has it."""
        self.direct = False
        """Content comes from the registry itself."""
        self.at: tuple[int, Callable[[], None]] | None = None
        """Called once as many bytes of content have gone out in all."""
        self.out = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.stalled = threading.Event()
        """Set by a server that fell silent."""
        self.host = self.cdn = ""
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def hosts(self) -> list[str]:
        return [self.host, self.cdn]

    # What is there.

    def publish(self, name: str, *layers: tuple[str, bytes], config: bytes = b"", **kinds: bytes) -> dict[str, Any]:
        """A model of these layers; ``kinds``: one of each. Gives its manifest."""
        content = config or json.dumps({"model_format": "gguf", "model_family": "llama"}).encode()
        every = [*layers, *kinds.items()]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._layer("application/vnd.docker.container.image.v1+json", content),
            "layers": [self._layer(KINDS + kind, data) for kind, data in every],
        }
        self.put(name, manifest)
        return manifest

    def put(self, name: str, manifest: object) -> None:
        self.manifests[name if ":" in name else f"{name}:latest"] = json.dumps(manifest).encode()

    def hub(self, repo: str, files: dict[str, bytes], *, gated: bool = False) -> Repo:
        """A repository at Hugging Face."""
        commit = hashlib.sha1("".join(map(digest_of, files.values())).encode(), usedforsecurity=False).hexdigest()
        self.repos[repo] = Repo(files, commit, gated)
        self.blobs.update({digest_of(content): content for content in files.values()})
        return self.repos[repo]

    def _layer(self, kind: str, content: bytes) -> dict[str, Any]:
        self.blobs[digest_of(content)] = content
        return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}

    # What happened.

    def served(self, digest: str) -> list[tuple[int, int]]:
        """The bytes of a blob that went out, in the order of the requests."""
        return [(one.start, one.start + one.sent) for one in self.log if one.digest == digest and one.sent]

    def requests(self, *, site: str = "", method: str = "", path: str = "") -> list[Served]:
        return [
            one for one in self.log if one.site.startswith(site) and one.method.startswith(method) and path in one.path
        ]

    # For the servers.

    def fault(self, where: Where, *kinds: str) -> Fault | None:
        """The first that applies, used up once."""
        with self.lock:
            for one in self.faults:
                if one.where == where and one.kind in kinds and one.times > 0:
                    if one.after:
                        one.after -= 1
                    else:
                        one.times -= 1
                        return one
        return None

    def went(self, size: int) -> None:
        with self.lock:
            self.out += size
            due = self.at is not None and self.out >= self.at[0]
            call, self.at = (self.at, None) if due else (None, self.at)
        if call is not None:
            call[1]()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, site: Site, handler: Any, tls: ssl.SSLContext | None) -> None:
        self.site = site
        self._tls = tls
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or was killed, is what this is for."""

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            # The handshake is the first read's, in the connection's own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


@contextlib.contextmanager
def registry(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A registry and its CDN, on free ports of this machine; with ``tls`` both speak it."""
    from tests.registry.answers import Cdn, Front

    site = Site()
    site.scheme = "http" if tls is None else "https"
    servers = [Server(site, Front, tls), Server(site, Cdn, tls)]
    site.host, site.cdn = (f"127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
