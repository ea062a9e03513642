"""A server on this machine that speaks as much of the Hub's protocol as its client needs, and can misbehave.

Files of models live at ``/OWNER/NAME/resolve/REVISION/PATH``. Large ones are redirected to ``/cdn/SHA256`` under
another host name (as the Hub does), with the digest in ``X-Linked-Etag``. Plain files live at ``/plain/NAME``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".pth", ".bin")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted((k, sha256(v)) for k, v in files.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str
    authorised: bool


@dataclass
class Repository:
    files: dict[str, bytes]
    gated: bool = False
    refused: bool = False


@dataclass
class HubServer:
    """What it serves and how it misbehaves; change it at any time.

    Attributes:
        repositories: by ``owner/name``.
        plain: files at ``/plain/NAME``.
        drops: by digest or plain name: how many bytes to send before the connection is cut, one entry a request.
        altered: digests whose content arrives with one byte flipped.
        no_ranges: send whole files, whatever range is asked for.
        status: answer every request with that status instead.
        requests: all that was asked, in order.
    """

    port: int = 0
    repositories: dict[str, Repository] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    drops: dict[str, list[int]] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    no_ranges: bool = False
    status: int = 0
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        self.repositories.setdefault(repo, Repository({})).files.update(files)

    def asked(self, method: str, part: str) -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def content(self, key: str, body: bytes, etag: str) -> None:
        """A file's bytes, or the range of them that was asked for; cut off where the test wants it."""
        start, status, headers = 0, 200, {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not self.hub.no_ranges and self.headers.get("If-Range", f'"{etag}"') == f'"{etag}"':
            start, end = int(wanted[1]), int(wanted[2] or len(body) - 1)
            if start >= len(body):
                return self.answer(416, Content_Range=f"bytes */{len(body)}")
            status, headers["Content-Range"] = 206, f"bytes {start}-{end}/{len(body)}"
            body = body[start : end + 1]
        if key in self.hub.altered:
            body = bytes([body[0] ^ 1]) + body[1:]
        cuts = self.hub.drops.get(key, [])
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if cuts:
            self.wfile.write(body[: cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return None
        self.wfile.write(body)
        return None

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        authorised = "Authorization" in self.headers
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range", ""), authorised))
        body = self.body()
        if self.hub.status:
            return self.answer(self.hub.status)
        for pattern, method in (
            (r"/cdn/(\w+)", self.cdn),
            (r"/plain/(.+)", self.plain),
            (r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", self.resolve),
            (r"/api/models/([\w.-]+/[\w.-]+)/tree/([\w.-]+)", self.tree),
        ):
            if match := re.fullmatch(pattern, path):
                return method(*match.groups())
        for pattern, upload in (
            (r"/api/repos/(create)", self.create),
            (r"/api/(validate-yaml)", lambda *_: self.answer_json({"errors": [], "warnings": []})),
            (r"/api/models/([\w.-]+/[\w.-]+)/preupload/[\w.-]+", self.preupload),
            (r"/([\w.-]+/[\w.-]+?)\.git/info/lfs/objects/batch", self.batch),
            (r"/lfs/(\w+)", self.store),
            (r"/api/models/([\w.-]+/[\w.-]+)/commit/[\w.-]+", self.commit),
        ):
            if match := re.fullmatch(pattern, path):
                return upload(match[1], body)
        return self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def repository(self, name: str) -> Repository | None:
        """The repository if this client may see it; else it has been answered."""
        found = self.hub.repositories.get(name)
        if found is None:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif found.gated:
            self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to this model is restricted.")
        elif found.refused:
            self.answer(401)
        else:
            return found
        return None

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        commit = commit_of(repository.files)
        if revision not in ("main", commit):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if path not in repository.files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = repository.files[path]
        if path.endswith(LARGE):
            digest = sha256(content)
            self.hub.blobs[digest] = content
            return self.answer(
                302,
                Location=f"http://localhost:{self.hub.port}/cdn/{digest}",
                X_Linked_Etag=f'"{digest}"',
                X_Linked_Size=str(len(content)),
                X_Repo_Commit=commit,
                ETag=f'"{hashlib.sha1(digest.encode()).hexdigest()}"',
            )
        etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit)

    def cdn(self, digest: str) -> None:
        self.content(digest, self.hub.blobs[digest], digest)

    def plain(self, name: str) -> None:
        if name not in self.hub.plain:
            return self.answer(404)
        return self.content(name, self.hub.plain[name], sha256(self.hub.plain[name])[:16])

    def tree(self, name: str, _: str) -> None:
        repository = self.repository(name)
        if repository is None:
            return None
        entries = []
        for path, content in repository.files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return self.answer_json(entries)

    def create(self, _: str, body: bytes) -> None:
        if "Authorization" not in self.headers:
            return self.answer(401)
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        self.hub.repositories.setdefault(name, Repository({}))
        return self.answer_json({"url": f"{self.hub.url}/{name}", "name": name})

    def preupload(self, name: str, body: bytes) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer_json({"files": files})

    def batch(self, name: str, body: bytes) -> None:
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self.answer(
            200,
            json.dumps({"transfer": "basic", "objects": objects}).encode(),
            Content_Type="application/vnd.git-lfs+json",
        )

    def store(self, oid: str, body: bytes) -> None:
        self.hub.blobs[oid] = body
        self.answer(200)

    def commit(self, name: str, body: bytes) -> None:
        files = self.hub.repositories[name].files
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
        oid = commit_of(files)
        self.answer_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up; anything else is a fault of the test."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serve() -> Iterator[HubServer]:
    """A running server; it ends with the block."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def configure_client(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Set constants of the Hub's client, which reads its environment once, when it is imported."""
    from huggingface_hub import constants, file_download

    for name, value in values.items():
        # Some releases copied them into the module that downloads.
        for module in (constants, file_download):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def direct_client(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make the Hub's client ask the server at that address."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    configure_client(monkeypatch, ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=template)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running server that the Hub's client asks instead of the real one, with empty caches."""
    with serve() as server:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SELFHVD_TTA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("NO_PROXY", "*")
        direct_client(monkeypatch, server.url)
        configure_client(
            monkeypatch,
            HF_HUB_CACHE=str(tmp_path / "hub"),
            HF_TOKEN_PATH=str(tmp_path / "token"),
            HF_HUB_OFFLINE=False,
            HF_HUB_DISABLE_XET=True,
        )
        yield server
