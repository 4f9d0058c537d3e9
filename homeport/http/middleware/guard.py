"""Keeps web pages out. A page in a browser on this machine can reach a loopback port, by a plain request or by pointing its own name
at 127.0.0.1 (DNS rebinding); so the Host header must name this server and an Origin, when there is one, must be known.

A header that says who asks, or whom, must stand there once: a proxy could have looked at the first one, and Homeport reads the last.
"""

from collections.abc import Collection
from typing import Any

from homeport.errors import Forbidden, InvalidRequest, MisdirectedRequest
from homeport.http.exchange import exchange_of

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_ONCE = (b"host", b"origin", b"sec-fetch-site", b"authorization", b"x-api-key", b"x-app-id", b"content-type")


class Guard:
    """Checks Host (421), Origin or Sec-Fetch-Site (403), and that nothing of that is said twice (400)."""

    def __init__(self, app: Any, *, allowed_hosts: Collection[str], allowed_origins: Collection[str]) -> None:
        self.app = app
        self.hosts = frozenset(host.lower().encode() for host in (*LOOPBACK_HOSTS, *allowed_hosts))
        self.origins = frozenset(origin.lower() for origin in allowed_origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = exchange_of(scope).headers
            if len(headers) < len(scope["headers"]):
                self._check_once([name for name, _ in scope["headers"]])
            host = headers.get(b"host", b"").lower()
            if host not in self.hosts and host.rsplit(b":", 1)[0] not in self.hosts:
                raise MisdirectedRequest(
                    f"The Host header '{host.decode('latin-1')[:100]}' does not name this server. "
                    "Add it to HOMEPORT_ALLOWED_HOSTS if it should."
                )
            if b"origin" in headers or b"sec-fetch-site" in headers:
                self._check_origin(scope.get("method", "GET"), headers, host.decode("latin-1"))
        await self.app(scope, receive, send)

    def _check_once(self, names: list[bytes]) -> None:
        for name in _ONCE:
            if names.count(name) > 1:
                raise InvalidRequest(f"The header '{name.decode()}' is there {names.count(name)} times. Send it once.")

    def _check_origin(self, method: str, headers: dict[bytes, bytes], host: str) -> None:
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin:
            # The server's own pages (the API browser at /docs) send an Origin that is the Host just checked.
            if origin not in self.origins and origin.partition("://")[2] != host:
                raise Forbidden(
                    f"Pages of the origin '{origin[:100]}' may not call this server. Add it to HOMEPORT_ALLOWED_ORIGINS if they should.",
                    code="ORIGIN_NOT_ALLOWED",
                )
        elif method not in _SAFE_METHODS and headers.get(b"sec-fetch-site") == b"cross-site":
            raise Forbidden("Cross-site requests are not allowed.", code="ORIGIN_NOT_ALLOWED")
