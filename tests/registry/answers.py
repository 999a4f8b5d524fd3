"""What the two servers answer."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import uuid
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from canonical.digests import digest_of
from tests.registry.faults import Fault, Where
from tests.registry.site import Served, Server, Site, Upload

_PIECE = 16 * 1024
_NAME = r"/v2/([^/]+/[^/]+)"


class Answers(BaseHTTPRequestHandler):
    """Plumbing: what was asked, answers whole and in pieces, and their faults."""

    protocol_version = "HTTP/1.1"
    server: Server
    site_name = ""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def site(self) -> Site:
        return self.server.site

    def answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(size)
        self.url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(self.url.query).items()}
        self.seen = Served(
            self.site_name,
            self.command,
            self.path,
            self.headers.get("authorization", ""),
            self.headers.get("user-agent", ""),
        )
        self.site.log.append(self.seen)
        self.route()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

    def route(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        self.begin(status, **{"Content_Length": len(body), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, **headers: str | int) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def json(self, value: object, **headers: str | int) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def troubled(self, where: Where) -> bool:
        """Whether a fault has answered."""
        kinds = ("status", "redirect", "endless", "header", "body", "gzip")
        fault = self.site.fault(where, *kinds) or (self.site.fault(where, "stall") if where != "data" else None)
        match fault:
            case None:
                return False
            case Fault(kind="status"):
                more = {"Retry_After": fault.text} if fault.text else {}
                self.reply(fault.value, b"{}", **more)
            case Fault(kind="redirect"):
                self.reply(307, Location=fault.text)
            case Fault(kind="header"):
                self.reply(200, X_Long="x" * fault.value)
            case Fault(kind="body"):
                self.reply(200, fault.text.encode())
            case Fault(kind="gzip"):
                self.reply(200, b"\x1f\x8b" + bytes(64), Content_Encoding="gzip")
            case Fault(kind="stall"):
                self.begin(200, Content_Length=100)
                self.fall_silent()
            case Fault(kind="endless"):
                self.begin(200, Transfer_Encoding="chunked")
                while not self.site.closing.is_set():
                    self.wfile.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        return True

    def fall_silent(self) -> None:
        self.wfile.flush()
        self.site.stalled.set()
        self.site.closing.wait()
        self.close_connection = True

    def hang_up(self) -> None:
        """As a crashed host does: what is on its way is lost."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def content(self, data: bytes, etag: str) -> None:
        """A file, whole or the range that was asked for."""
        site, seen = self.site, self.seen
        seen.digest = digest_of(data)
        if self.troubled("data"):
            return
        if fault := site.fault("data", "etag"):
            etag = fault.text
        size = len(data)
        said = fault.value if (fault := site.fault("data", "size")) else size
        if (fault := site.fault("data", "flip")) and fault.value < size:
            data = data[: fault.value] + bytes([data[fault.value] ^ 1]) + data[fault.value + 1 :]
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        start, end, status = 0, size, 200
        if found and not site.fault("data", "no ranges"):
            start, end, status = int(found[1]), min(int(found[2] or size - 1) + 1, size), 206
            if start >= size:
                self.reply(416, Content_Range=f"bytes */{said}")
                return
        if site.fault("data", "odd range"):
            start += 1
        if status == 206 and (fault := site.fault("data", "few")):
            end = min(end, start + fault.value)
        seen.start, seen.asked = start, end
        headers: dict[str, str | int] = {"ETag": etag, "Accept_Ranges": "bytes"}
        if status == 206:
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{said}"
        more = fault.value if (fault := site.fault("data", "short")) else 0
        length = said if status == 200 else end - start
        self.begin(status, Content_Length=length + more, **headers)
        if self.command != "HEAD":
            self.pour(data[start:end])
            if more:
                self.close_connection = True

    def pour(self, data: bytes) -> None:
        fault = self.site.fault("data", "drop", "stall", "drip")
        piece = fault.value if fault and fault.kind == "drip" else _PIECE
        stop = fault.value if fault and fault.kind != "drip" else len(data) + 1
        for at in range(0, len(data), piece):
            out = data[at : min(at + piece, stop)]
            self.wfile.write(out)
            self.seen.sent += len(out)
            self.site.went(len(out))
            if at + piece >= stop and fault is not None and fault.kind != "drip":
                return self.hang_up() if fault.kind == "drop" else self.fall_silent()
        return None


class Cdn(Answers):
    """Content at signed addresses; it knows no token, and says so if it is shown one."""

    site_name = "cdn"

    def route(self) -> None:
        digest = self.url.path.removeprefix("/data/")
        if self.seen.authorization:
            self.reply(400, b"Only one auth mechanism allowed")
        elif self.command == "PUT":
            self._keep()
        elif digest in self.site.blobs and self.query.get("signed") == "yes":
            self.content(self.site.blobs[digest], f'"{digest[7:39]}"')
        else:
            self.reply(403, b"signature expired")

    def _keep(self) -> None:
        if not self.troubled("upload"):
            _, _, id, start = self.url.path.split("/")
            self.site.uploads[id].direct[int(start)] = self.body
            self.reply(200)


class Front(Answers):
    """The registry, and the hub."""

    site_name = "registry"

    def route(self) -> None:
        for pattern, answer in (
            (r"/token", self._token),
            (_NAME + r"/manifests/([^/]+)", self._manifest),
            (_NAME + r"/blobs/uploads/", self._begin_upload),
            (_NAME + r"/blobs/(sha256:[0-9a-f]{64})", self._blob),
            (r"/uploads/([^/]+)", self._upload),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        ):
            if found := re.fullmatch(pattern, self.url.path):
                answer(*found.groups())
                return
        self.reply(404, b"404 page not found")

    # Ollama's protocol.

    def _allowed(self) -> bool:
        site = self.site
        if not site.token or self.seen.authorization == f"Bearer {site.token}":
            return True
        realm = site.realm or f"{site.url}/token"
        challenge = f'Bearer realm="{realm}",service="{site.host}",scope="repository:x:pull,push"'
        self.reply(401, b'{"errors":[]}', WWW_Authenticate=challenge)
        return False

    def _token(self) -> None:
        site = self.site
        if self.troubled("token"):
            return
        login = base64.b64encode(site.login.encode()).decode()
        if site.login and self.seen.authorization != f"Basic {login}":
            self.reply(401, b"who are you?")
        else:
            self.json({"token": site.token})

    def _manifest(self, repo: str, tag: str) -> None:
        if not self._allowed() or self.troubled("manifest"):
            return
        if self.command == "PUT":
            missing = [one for one in json.loads(self.body)["layers"] if one["digest"] not in self.site.blobs]
            if missing:
                self.reply(400, b"MANIFEST_BLOB_UNKNOWN")
            else:
                self.site.manifests[f"{repo}:{tag}"] = self.body
                self.reply(201)
            return
        content = self.site.manifests.get(f"{repo}:{tag}")
        if content is None:
            self.reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        else:
            self.reply(200, content, Content_Type="application/vnd.docker.distribution.manifest.v2+json")

    def _blob(self, _repo: str, digest: str) -> None:
        if not self._allowed() or self.troubled("blob"):
            return
        data = self.site.blobs.get(digest)
        if data is None:
            self.reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        elif self.command == "HEAD":
            self.begin(200, Content_Length=len(data))
        elif self.site.direct:
            self.content(data, f'"{digest[7:39]}"')
        else:
            self.reply(307, Location=f"{self.site.scheme}://{self.site.cdn}/data/{digest}?signed=yes")

    def _begin_upload(self, repo: str) -> None:
        if not self._allowed() or self.troubled("upload"):
            return
        if self.query.get("mount") in self.site.blobs:
            self.reply(201)
            return
        id = uuid.uuid4().hex
        self.site.uploads[id] = Upload(repo)
        self.reply(202, Location=f"/uploads/{id}?state=0")

    def _upload(self, id: str) -> None:
        upload = self.site.uploads.get(id)
        if not self._allowed():
            return
        if upload is None:
            self.reply(404, b"BLOB_UPLOAD_UNKNOWN")
        elif self.command == "GET":
            self.reply(204, Location=f"/uploads/{id}?state=1", Range=f"0-{len(upload.content) - 1}")
        elif self.command == "PATCH":
            self._piece(id, upload)
        elif not self.troubled("upload"):
            content = bytes(upload.content) or b"".join(upload.direct[at] for at in sorted(upload.direct))
            if digest_of(content) != self.query.get("digest"):
                self.reply(400, b"DIGEST_INVALID")
            else:
                self.site.blobs[digest_of(content)] = content
                self.reply(201)

    def _piece(self, id: str, upload: Upload) -> None:
        start, end = map(int, self.headers["content-range"].split("-"))
        assert end - start + 1 == len(self.body)
        if self.site.redirects_uploads and self.headers.get("x-redirect-uploads"):
            there = f"{self.site.scheme}://{self.site.cdn}/keep/{id}/{start}"
            self.reply(307, Location=there, Docker_Upload_Location=f"/uploads/{id}?state={end}")
            return
        if start != len(upload.content):
            self.reply(416)
            return
        if fault := self.site.fault("upload", "drop"):
            upload.content += self.body[: fault.value]
            self.hang_up()
        elif not self.troubled("upload"):
            upload.content += self.body
            self.reply(202, Location=f"/uploads/{id}?state={end}", Range=f"0-{end}")

    # Hugging Face's.

    def _repo(self, repo: str) -> bool:
        found = self.site.repos.get(repo)
        if found is None:
            self.reply(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif found.gated and self.seen.authorization != "Bearer hf_good":
            self.reply(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        else:
            return True
        return False

    def _info(self, repo: str) -> None:
        if not self.troubled("api") and self._repo(repo):
            found = self.site.repos[repo]
            siblings = [{"rfilename": path} for path in found.files]
            self.json({"id": repo, "modelId": repo, "sha": found.commit, "siblings": siblings, "tags": ["gguf"]})

    def _tree(self, repo: str, _revision: str) -> None:
        if self.troubled("api") or not self._repo(repo):
            return
        rows = []
        for path, content in self.site.repos[repo].files.items():
            oid = digest_of(content)[7:]
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid[:40]}
            if path.endswith(".gguf"):
                row["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
            rows.append(row)
        # In pages of two, as the hub has pages of a thousand.
        at = int(self.query.get("cursor", "0"))
        more: dict[str, str | int] = {}
        if at + 2 < len(rows):
            more["Link"] = f'<{self.site.url}{self.url.path}?recursive=True&cursor={at + 2}>; rel="next"'
        self.json(rows[at : at + 2], **more)

    def _resolve(self, repo: str, _revision: str, path: str) -> None:
        if self.troubled("resolve") or not self._repo(repo):
            return
        found = self.site.repos[repo]
        content = found.files.get(path)
        if content is None:
            self.reply(404, b"", X_Error_Code="EntryNotFound")
            return
        digest = digest_of(content)
        headers: dict[str, str | int] = {"X_Repo_Commit": found.commit, "ETag": f'"{digest[7:]}"'}
        if path.endswith(".gguf"):
            headers |= {"X_Linked_Size": len(content), "X_Linked_ETag": f'"{digest[7:]}"'}
            self.reply(302, Location=f"{self.site.scheme}://{self.site.cdn}/data/{digest}?signed=yes", **headers)
        else:
            self.reply(200, content, **headers)
