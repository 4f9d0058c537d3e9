"""A stand-in for the hub that publishes models: real HTTP on loopback, with the addresses and headers of the real one.

Small files are answered at once. Large ones (``model.bin``) are redirected to another address, from where they can be fetched in ranges.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = "model.bin"


@dataclass
class Hub:
    """Models by the name of their repository, what was asked for, and what goes wrong."""

    url: str = ""
    models: dict[str, Path] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    # How many bytes of each of the next answers with a large file are sent before the connection breaks.
    breaks: list[int] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    damages: bool = False
    # While it is set, nothing of a large file is sent after the first half.
    holds: threading.Event = field(default_factory=threading.Event)
    has_begun: threading.Event = field(default_factory=threading.Event)
    is_silent: bool = False
    ends: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[tuple[str, str | None]]:
        """The files that were fetched, and which part of each."""
        return [(path.rpartition("/")[2], part) for method, path, part in self.requests if method == "GET" and "/api/" not in path]


@contextmanager
def run_hub(**models: Path) -> Iterator[Hub]:
    """Serve these models, as ``Systran/faster-whisper-<name>``, for as long as the block lasts."""
    hub = Hub(models={f"Systran/faster-whisper-{name}": folder for name, folder in models.items()})

    class Handler(_Handler):
        def __init__(self, *arguments: Any) -> None:
            self.hub = hub
            super().__init__(*arguments)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.ends.set()
        hub.holds.clear()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

    def _answer(self, *, with_content: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.is_silent:
            self.hub.ends.wait(60)
            self.close_connection = True
            return
        parts = path.strip("/").split("/")
        match parts:
            case ["api", "models", owner, name] if folder := self.hub.models.get(f"{owner}/{name}"):
                self._send(json.dumps(_describe(f"{owner}/{name}", folder)).encode(), "application/json", with_content=with_content)
            case [owner, name, "resolve", _, file] if (folder := self.hub.models.get(f"{owner}/{name}")) and (folder / file).is_file():
                if file in self.hub.fails:
                    return self._fail(403)
                self._resolve(folder / file, f"/cdn/{owner}/{name}/{file}", with_content=with_content)
            case ["cdn", owner, name, file] if folder := self.hub.models.get(f"{owner}/{name}"):
                self._send_large((folder / file).read_bytes(), with_content=with_content)
            case _:
                self._fail(404)

    def _resolve(self, file: Path, place: str, *, with_content: bool) -> None:
        content = file.read_bytes()
        if file.name != LARGE:
            etag = hashlib.sha1(content).hexdigest()
            return self._send(content, "text/plain", with_content=with_content, **{"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
        self.send_response(302)
        # Another host, as in reality: the headers of this answer are read before it is followed.
        self.send_header("Location", self.hub.url.replace("127.0.0.1", "localhost") + place)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_large(self, content: bytes, *, with_content: bool) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        total = len(content)
        if self.hub.damages:
            content = bytes(total)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(total - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if not with_content:
            return
        half = (start + total) // 2
        stop = start + self.hub.breaks.pop(0) if self.hub.breaks else total
        self.wfile.write(content[start : min(half, stop)])
        self.hub.has_begun.set()
        while self.hub.holds.is_set() and not self.hub.ends.wait(0.01):
            pass
        self.wfile.write(content[min(half, stop) : stop])
        self.close_connection = stop < total

    def _send(self, content: bytes, media_type: str, *, with_content: bool, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": media_type, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _describe(repository: str, folder: Path) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 4, "blobId": "0" * 40}]
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        described: dict[str, Any] = {"rfilename": file.name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if file.name == LARGE:
            described["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
        siblings.append(described)
    return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "downloads": 0}
