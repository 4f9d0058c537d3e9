"""A server that is reached over HTTP: connected to at checked addresses only, no redirects, no proxies, bounded answers.

Whatever goes wrong with a request is handed to the library as an answer to that request: raised, it would end the whole session and
cancel the task that holds it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import httpx2
import orjson
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import INTERNAL_ERROR

from adapters.mcp.failures import LOST, MAX_MESSAGE_BYTES, NOT_SENT, TOO_LARGE, StartFailed
from adapters.mcp.spec import HttpTarget
from adapters.outbound import AddressRefused, HostUnknown, Outbound
from adapters.processes import ProcessLog

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

CONNECT_S = 10.0
WRITE_S = 30.0
GOODBYE_S = 2.0
MAX_CONNECTIONS = 256
# What the library reads at most as one event where there are only events.
MAX_EVENT_BYTES = 1024 * 1024
SESSION_HEADER = "mcp-session-id"
LOOPBACK = ("127.0.0.1", "::1")


class Remote:
    """The connection to one server. ``on_lost`` is called when the session is of no more use. ``problem``: the last failure."""

    pid = None

    def __init__(self, target: HttpTarget, log: ProcessLog, outbound: Outbound, on_lost: Callable[[], None]) -> None:
        self._target = target
        self._log = log
        self._outbound = outbound
        self._on_lost = on_lost
        self.is_sse = target.transport == "sse"  # answers to all requests come over one stream
        self.problem: str | None = None
        self.is_lost = False

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[TransportStreams]":
        """The library's streams to the server. Raises StartFailed when its address may not be connected to."""
        self._log.note(f"connecting over {'server-sent events' if self.is_sse else 'HTTP'}")
        url = httpx2.URL(self._target.url)
        transport = _Transport(self, url.scheme == "https", await self._resolve(url))
        client = httpx2.AsyncClient(
            transport=transport,
            headers={**self._target.headers, "Accept-Encoding": "identity", "User-Agent": "homeport"},
            timeout=httpx2.Timeout(None, connect=CONNECT_S, write=WRITE_S),
            trust_env=False,
        )
        if self.is_sse:
            async with sse_client(self._target.url, httpx_client_factory=lambda *_, **__: client) as streams:
                yield streams
        else:
            async with (
                client,
                streamable_http_client(self._target.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
            ):
                yield streams

    async def explain(self) -> str | None:
        """What went wrong last; None: nothing."""
        return self.problem

    def note(self, problem: str) -> None:
        """Note what went wrong with a request."""
        self.problem = problem
        self._log.note(problem)

    def lose(self) -> None:
        """Note that the session is of no more use."""
        if not self.is_lost:
            self.is_lost = True
            self._on_lost()

    async def _resolve(self, url: httpx2.URL) -> tuple[str, ...]:
        """The addresses to connect to. What an operator writes as an address or ``localhost`` is taken as it stands."""
        if url.host == "localhost":
            return LOOPBACK
        try:
            return (str(ip_address(url.host)),)
        except ValueError:
            pass  # a name
        try:
            return await self._outbound.resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
        except HostUnknown as error:
            raise StartFailed("the name in its address cannot be resolved") from error
        except AddressRefused as error:
            raise StartFailed("its address lies in a private network, which the operator can allow with HOMEPORT_PRIVATE_HOSTS") from error


class _Transport(httpx2.AsyncBaseTransport):
    """Sends requests to the checked addresses, under the name in the URL; looks at what comes back before the library does."""

    def __init__(self, remote: Remote, is_tls: bool, addresses: tuple[str, ...]) -> None:
        self._remote = remote
        self._addresses = addresses
        # SSL_CERT_FILE and SSL_CERT_DIR are an operator's; the rest of the environment (proxies) is the client's to ignore.
        self._inner = httpx2.AsyncHTTPTransport(verify=is_tls, trust_env=is_tls, limits=httpx2.Limits(max_connections=MAX_CONNECTIONS))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._send(request)
        except httpx2.TransportError as error:
            is_sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            self._remote.note("the connection to it broke" if is_sent else "nothing can be reached at its address")
            if request.method != "POST":
                raise
            self._remote.lose()
            if self._remote.is_sse:
                raise
            return _answer(LOST if is_sent else NOT_SENT, "not sent")
        return await self._admit(request, response)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send to the first address that can be connected to. Nothing has been sent when connecting fails."""
        extensions = {**request.extensions, "sni_hostname": request.url.host}
        if request.method == "DELETE":  # goodbye, for which nobody waits long
            extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), GOODBYE_S)
        last = len(self._addresses) - 1
        for index, address in enumerate(self._addresses):
            url = request.url.copy_with(host=address)
            pinned = httpx2.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if index == last:
                    raise
        raise httpx2.ConnectError("no address")

    async def _admit(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = media_type == "application/json"
        if request.method == "POST" and response.status_code == 404 and SESSION_HEADER in request.headers:
            await response.aclose()
            self._remote.note("it has ended the session")
            self._remote.lose()
            return _answer(NOT_SENT, "not sent")
        if response.status_code >= 300:
            self._remote.note(f"it answered with HTTP status {response.status_code}")
            if response.status_code < 400 or not is_json:
                await response.aclose()
                return _answer(INTERNAL_ERROR, f"HTTP status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _answer(INTERNAL_ERROR, "a compressed answer, which was not asked for")
        source = cast(httpx2.AsyncByteStream, response.stream)
        if media_type != "text/event-stream":
            source = _Answer(source)
        elif self._remote.is_sse:
            source = _Events(source, self._remote)
        return httpx2.Response(response.status_code, headers=response.headers, stream=source, extensions=response.extensions)


class _Answer(httpx2.AsyncByteStream):
    """The body of one answer, cut off when it is too large. What it raises the library hands to the call that asked."""

    def __init__(self, source: httpx2.AsyncByteStream) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size_bytes = 0
        try:
            async for piece in self._source:
                size_bytes += len(piece)
                if size_bytes > MAX_MESSAGE_BYTES:
                    raise httpx2.StreamError(str(TOO_LARGE))
                yield piece
        except httpx2.TransportError as error:
            raise httpx2.StreamError(str(LOST)) from error

    async def aclose(self) -> None:
        await self._source.aclose()


class _Events(httpx2.AsyncByteStream):
    """The one stream of events for everything: when it ends, so does the session."""

    def __init__(self, source: httpx2.AsyncByteStream, remote: Remote) -> None:
        self._source = source
        self._remote = remote

    async def __aiter__(self) -> AsyncIterator[bytes]:
        event_bytes = 0
        try:
            async for piece in self._source:
                end = max(piece.rfind(b"\n\n"), piece.rfind(b"\n\r\n"))
                event_bytes = event_bytes + len(piece) if end < 0 else len(piece) - end
                if event_bytes > MAX_EVENT_BYTES:  # the library gives up on it
                    self._remote.problem = "it sent more than the 1 MB that one event may have"
                yield piece
        finally:
            self._remote.note(self._remote.problem or "it closed the connection")
            self._remote.lose()

    async def aclose(self) -> None:
        await self._source.aclose()


def _answer(code: int, message: str) -> httpx2.Response:
    """An answer that the library hands to the call that asked."""
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(502, headers={"Content-Type": "application/json"}, content=orjson.dumps(body))
