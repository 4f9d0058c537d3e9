"""MCP servers over HTTP: both transports, addresses that are checked and kept to, redirects, sizes, and servers that go away."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapters.mcp import HttpTarget
from adapters.outbound import Outbound
from homeport.errors import Unavailable, UpstreamError, UpstreamTimeout
from tests.integration.mcp_parts import log_of, open_sessions, text_of, until, until_answer
from tests.mcp_servers import own_over, spec_of

pytestmark = pytest.mark.anyio

# The older one in the long form: nearly everything is the same code.
TRANSPORTS: list[Any] = ["http", pytest.param("sse", marks=pytest.mark.long)]


class PinnedNames(Outbound):
    """Takes every name for 127.0.0.1, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        self.asked.append((host, port))
        return ("127.0.0.1",)


class Answering(BaseHTTPRequestHandler):
    """Answers everything as the class attributes say, and notes the requests."""

    protocol_version = "HTTP/1.1"
    status = 200
    headers_out: dict[str, str]
    body: bytes
    seen: list[dict[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
        self.send_response(self.status)
        for name, value in self.headers_out.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_DELETE = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Sessions(BaseHTTPRequestHandler):
    """A server of 2025 with sessions, as a class: it forgets them when told to, and never answers a goodbye."""

    protocol_version = "HTTP/1.1"
    known: set[str]
    started: list[str]
    calls: list[str]
    goodbye: Event

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        session = self.headers.get("Mcp-Session-Id", "")
        method = message["method"]
        if method == "initialize":
            session = f"session-{len(self.started)}"
            self.started.append(session)
            self.known.add(session)
            info = {"name": "sessions", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": result}, {"Mcp-Session-Id": session})
        elif session not in self.known:
            error = {"code": -32001, "message": "Session not found"}
            self.reply(404 if session else 400, {"jsonrpc": "2.0", "id": None, "error": error})
        elif "id" not in message:
            self.reply(202)
        elif method == "tools/list":
            tool = {"name": "session", "inputSchema": {"type": "object"}}
            self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": {"tools": [tool]}})
        else:
            self.calls.append(session)
            content = [{"type": "text", "text": session}]
            self.reply(200, {"jsonrpc": "2.0", "id": message["id"], "result": {"content": content}})

    def do_GET(self) -> None:
        self.reply(405)

    def do_DELETE(self) -> None:
        self.goodbye.wait(30)
        self.reply(200)

    def reply(self, status: int, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode() if body else b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve with this handler on loopback while the block lasts: the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextmanager
def answering(
    status: int, headers: dict[str, str] | None = None, body: bytes = b"", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A server on loopback that always gives this answer: its port and the requests that it got."""
    seen: list[dict[str, str]] = []
    handler = type("Handler", (Answering,), {"status": status, "headers_out": headers or {}, "body": body, "seen": seen})
    with serving(handler, tls) as port:
        yield port, seen


@contextmanager
def serving_sessions() -> Iterator[tuple[str, type[Sessions]]]:
    """A server with sessions: its URL, and what it knows."""
    handler = type("Handler", (Sessions,), {"known": set(), "started": [], "calls": [], "goodbye": Event()})
    with serving(handler) as port:
        yield f"http://127.0.0.1:{port}/mcp", handler
        handler.goodbye.set()


@contextmanager
def own_by(kind: str, own_url: str) -> Iterator[str]:
    """The URL of our server: of the one that all share, or of one over ``sse``."""
    if kind == "http":
        yield own_url
        return
    with own_over(kind) as (url, _):
        yield url


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_server_is_used_over_http(tmp_path: Path, own_url: str, kind: Any) -> None:
    with own_by(kind, own_url) as url:
        spec = spec_of(HttpTarget(url, transport=kind))
        async with open_sessions(tmp_path) as sessions:
            assert "echo" in [tool.name for tool in await sessions.list_tools(spec)]
            assert (sessions.status(spec.id).state, sessions.status(spec.id).pid) == ("running", None)
            outputs = await asyncio.gather(*(sessions.call(spec, "add", {"a": number, "b": 1}) for number in range(100)))
            assert [output.structured for output in outputs] == [{"result": number + 1} for number in range(100)]
            assert len(text_of(await sessions.call(spec, "environment", {}))) > 0
            await sessions.stop(spec.id)
            assert sessions.status(spec.id).error is None


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_progress_limits_and_cancellation_hold_over_http(tmp_path: Path, own_url: str, kind: Any) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    with own_by(kind, own_url) as url:
        spec = spec_of(HttpTarget(url, transport=kind))
        async with open_sessions(tmp_path) as sessions:
            await sessions.list_tools(spec)
            await sessions.call(spec, "progress", {"steps": 4, "step_s": 0.3}, timeout_s=0.8, on_progress=note)
            assert seen == [1.0, 2.0, 3.0, 4.0]
            with pytest.raises(UpstreamTimeout):
                await sessions.call(spec, "slow", {"seconds": 60, "name": "late"}, timeout_s=0.3)
            await until_answer(lambda: sessions.call(spec, "cancelled", {}), lambda output: "late" in str(output.structured))


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_server_that_goes_away_during_a_call_fails_it_and_is_found_again_when_it_is_back(tmp_path: Path, kind: Any) -> None:
    with own_over(kind) as (url, process):
        spec = spec_of(HttpTarget(url, transport=kind), timeout_s=10)
        port = int(url.split(":")[2].split("/")[0])
        async with open_sessions(tmp_path) as sessions:
            await sessions.list_tools(spec)
            call = asyncio.create_task(sessions.call(spec, "slow", {"seconds": 60}))
            await asyncio.sleep(0.3)
            killed_at = monotonic()
            process.kill()
            with pytest.raises(UpstreamError) as caught:
                await call
            assert monotonic() - killed_at < 5
            assert caught.value.code == "MCP_SERVER_FAILED"
            await asyncio.to_thread(process.wait, 10)
            with pytest.raises(Unavailable, match="nothing can be reached at its address"):
                await sessions.call(spec, "echo", {"text": "gone"})
            with own_over(kind, port):
                await sessions.stop(spec.id)
                assert text_of(await sessions.call(spec, "echo", {"text": "back"})) == "back"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_server_that_was_replaced_while_idle_serves_the_next_call(tmp_path: Path, kind: Any) -> None:
    with own_over(kind) as (url, process):
        spec = spec_of(HttpTarget(url, transport=kind))
        port = int(url.split(":")[2].split("/")[0])
        async with open_sessions(tmp_path) as sessions:
            await sessions.list_tools(spec)
            process.kill()
            process.wait(10)
            if kind == "sse":  # its one open connection tells
                await until(lambda: sessions.status(spec.id).state == "stopped")
            with own_over(kind, port):
                assert text_of(await sessions.call(spec, "echo", {"text": "new"})) == "new"


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_nothing_at_an_address_makes_the_server_unavailable(tmp_path: Path, kind: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        spec = spec_of(HttpTarget(f"http://127.0.0.1:{unused.getsockname()[1]}/mcp", transport=kind))
        async with open_sessions(tmp_path) as sessions:
            with pytest.raises(Unavailable, match="nothing can be reached at its address"):
                await sessions.list_tools(spec)


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_server_that_accepts_and_never_answers_is_given_up(tmp_path: Path, kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spec = spec_of(HttpTarget(f"http://127.0.0.1:{silent.getsockname()[1]}/mcp", transport=kind))
        async with open_sessions(tmp_path, start_timeout_s=0.5) as sessions:
            started = monotonic()
            with pytest.raises(Unavailable, match="it did not answer within 0.5 s"):
                await sessions.list_tools(spec)
            assert monotonic() - started < 3


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_server_that_refuses_says_with_which_status(tmp_path: Path, kind: Any, status: int) -> None:
    with answering(status, {"Content-Type": "text/html"}, b"<p>secret words</p>") as (port, seen):
        spec = spec_of(HttpTarget(f"http://127.0.0.1:{port}/mcp", {"Authorization": "Bearer abc"}, kind))
        async with open_sessions(tmp_path) as sessions:
            with pytest.raises(Unavailable, match=f"it answered with HTTP status {status}") as caught:
                await sessions.list_tools(spec)
        assert seen[0]["authorization"] == "Bearer abc"
        assert "secret" not in caught.value.message
        assert "abc" not in log_of(tmp_path, spec)


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("status", [302, 307, 308])
async def test_redirects_are_not_followed(tmp_path: Path, kind: Any, status: int) -> None:
    with answering(200) as (elsewhere, reached):
        location = f"http://127.0.0.1:{elsewhere}/other"
        with answering(status, {"Location": location}) as (port, _):
            for target in (f"http://127.0.0.1:{port}/mcp", f"http://localhost:{port}/mcp"):
                spec = spec_of(HttpTarget(target, transport=kind))
                async with open_sessions(tmp_path) as sessions:
                    with pytest.raises(Unavailable, match=f"it answered with HTTP status {status}"):
                        await sessions.list_tools(spec)
        with answering(status, {"Location": "/same-origin"}) as (port, seen):
            spec = spec_of(HttpTarget(f"http://127.0.0.1:{port}/mcp", transport=kind))
            async with open_sessions(tmp_path) as sessions:
                with pytest.raises(Unavailable):
                    await sessions.list_tools(spec)
            assert {request["path"] for request in seen} == {"/mcp"}
        assert reached == []


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_proxies_of_the_environment_are_not_used(tmp_path: Path, own_url: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as (proxy, reached), own_by(kind, own_url) as url:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        spec = spec_of(HttpTarget(url, transport=kind))
        async with open_sessions(tmp_path) as sessions:
            assert text_of(await sessions.call(spec, "echo", {"text": "direct"})) == "direct"
        assert reached == []


async def test_localhost_and_addresses_that_an_operator_wrote_are_taken_as_they_stand(tmp_path: Path, own_url: str) -> None:
    for host in ("127.0.0.1", "localhost"):
        spec = spec_of(HttpTarget(own_url.replace("127.0.0.1", host)))
        async with open_sessions(tmp_path, outbound=Outbound()) as sessions:
            assert text_of(await sessions.call(spec, "echo", {"text": host})) == host


async def test_a_name_that_leads_into_a_private_network_is_refused_unless_the_operator_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.outbound._addresses", lambda host, port: ["127.0.0.1"])
    with answering(418) as (port, seen):
        spec = spec_of(HttpTarget(f"http://tools.example:{port}/mcp"))
        async with open_sessions(tmp_path, outbound=Outbound()) as sessions:
            with pytest.raises(Unavailable, match="private network, which the operator can allow with HOMEPORT_PRIVATE_HOSTS"):
                await sessions.list_tools(spec)
        assert seen == []
        async with open_sessions(tmp_path, outbound=Outbound(["tools.example"])) as sessions:
            with pytest.raises(Unavailable, match="HTTP status 418"):
                await sessions.list_tools(spec)
        assert seen != []


async def test_a_name_that_cannot_be_resolved_makes_the_server_unavailable(tmp_path: Path) -> None:
    spec = spec_of(HttpTarget("http://no-such-name.invalid/mcp"))
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(Unavailable, match="the name in its address cannot be resolved"):
            await sessions.list_tools(spec)


async def test_the_checked_address_is_connected_to_under_the_name_in_the_url(tmp_path: Path) -> None:
    outbound = PinnedNames()
    with answering(401) as (port, seen):
        spec = spec_of(HttpTarget(f"http://tools.example:{port}/mcp?key=1"))
        async with open_sessions(tmp_path, outbound=outbound) as sessions:
            with pytest.raises(Unavailable, match="HTTP status 401"):
                await sessions.list_tools(spec)
    assert {request["host"] for request in seen} == {f"tools.example:{port}"}
    assert {request["path"] for request in seen} == {"/mcp?key=1"}
    assert outbound.asked == [("tools.example", port)]  # once a session: what the name says later changes nothing


async def test_tls_is_spoken_with_the_name_in_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, context = make_certificate(tmp_path, "tools.example")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "hello from TLS"}}).encode()
    with answering(400, {"Content-Type": "application/json"}, body, context) as (port, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        for host, words in (("tools.example", "it answered with HTTP status 400"), ("other.example", "nothing can be reached")):
            spec = spec_of(HttpTarget(f"https://{host}:{port}/mcp"))
            async with open_sessions(tmp_path / "logs", outbound=PinnedNames()) as sessions:
                with pytest.raises(Unavailable, match=words):
                    await sessions.list_tools(spec)
    assert set(names) == {"tools.example", "other.example"}


async def test_a_call_in_a_session_that_the_server_has_forgotten_is_made_in_a_new_one(tmp_path: Path) -> None:
    with serving_sessions() as (url, server):
        spec = spec_of(HttpTarget(url))
        async with open_sessions(tmp_path) as sessions:
            assert text_of(await sessions.call(spec, "session", {})) == "session-0"
            server.known.clear()
            assert text_of(await sessions.call(spec, "session", {})) == "session-1"
            server.known.clear()
            texts = await asyncio.gather(*(sessions.call(spec, "session", {}) for _ in range(10)))
            assert {text_of(output) for output in texts} == {"session-2"}
            server.goodbye.set()
        assert server.calls == ["session-0", "session-1"] + ["session-2"] * 10  # each once


async def test_a_server_that_does_not_answer_a_goodbye_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with serving_sessions() as (url, _):
        spec = spec_of(HttpTarget(url))
        async with open_sessions(tmp_path) as sessions:
            await sessions.list_tools(spec)
            started = monotonic()
            await sessions.stop(spec.id)
            assert monotonic() - started < 5


async def test_what_is_too_large_for_one_event_ends_the_session_over_sse_and_the_next_call_works(tmp_path: Path) -> None:
    with own_over("sse") as (url, _):
        spec = spec_of(HttpTarget(url, transport="sse"))
        async with open_sessions(tmp_path) as sessions:
            with pytest.raises(UpstreamError, match="it sent more than the 1 MB that one event may have") as caught:
                await sessions.call(spec, "huge", {"megabytes": 2})
            assert caught.value.code == "MCP_SERVER_FAILED"
            assert text_of(await sessions.call(spec, "echo", {"text": "on"})) == "on"


async def test_a_result_that_is_too_large_is_refused_over_http(tmp_path: Path, own_url: str) -> None:
    spec = spec_of(HttpTarget(own_url))
    async with open_sessions(tmp_path) as sessions:
        assert len(text_of(await sessions.call(spec, "huge", {"megabytes": 5}))) == 5 * 1024 * 1024
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, "huge", {"megabytes": 9})
        assert caught.value.code == "MCP_RESULT_TOO_LARGE"
        assert text_of(await sessions.call(spec, "echo", {"text": "on"})) == "on"


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
async def test_an_endless_or_senseless_answer_ends_the_attempt(tmp_path: Path, media_type: str) -> None:
    with answering(200, {"Content-Type": media_type}, b" " * (9 * 1024 * 1024)) as (port, _):
        spec = spec_of(HttpTarget(f"http://127.0.0.1:{port}/mcp"))
        async with open_sessions(tmp_path) as sessions:
            with pytest.raises(Unavailable):
                await sessions.list_tools(spec)


def make_certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for a name that vouches for itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context
