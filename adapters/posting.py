"""A message to an address that an app chose: sent to checked addresses only, no redirects, no proxies; of the answer only the status."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adapters.outbound import Outbound
from homeport.errors import InvalidRequest, UpstreamError, UpstreamTimeout

if TYPE_CHECKING:
    from ssl import SSLContext

    from httpx2 import URL, Response

MAX_URL_LENGTH = 2000
MAX_PORT = 65535


class UrlRefused(InvalidRequest):
    """This is no address that a message can be sent to."""

    code = "URL_REFUSED"


class Posting:
    """Sends messages by HTTP POST."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._tls: SSLContext | None = None

    async def check(self, url: str) -> None:
        """Raise UrlRefused, or what ``Outbound.resolve`` raises, when nothing could be sent to ``url`` as it resolves now."""
        await self._resolve(_parse(url))

    async def post(self, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """The status that the address answers with, within ``timeout_s`` in all.

        Raises what ``check`` raises, UpstreamError when nothing can be reached there, UpstreamTimeout.
        """
        import httpx2

        target = _parse(url)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(target, await self._resolve(target), content, headers)
        except TimeoutError as error:
            raise UpstreamTimeout(f"'{target.host}' did not answer within {timeout_s:g} s.") from error
        except httpx2.HTTPError as error:
            raise UpstreamError(f"'{target.host}' cannot be reached, or broke off.") from error

    async def _resolve(self, url: "URL") -> tuple[str, ...]:
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await self._outbound.resolve(url.host, port)
        if url.scheme == "http" and not self._outbound.is_listed(url.host, addresses):
            raise UrlRefused(
                "An address that begins with http:// can be read on the way: use https://. For a host that the operator of this server "
                "allows with HOMEPORT_PRIVATE_HOSTS, http:// will do."
            )
        return addresses

    async def _send(self, url: "URL", addresses: tuple[str, ...], content: bytes, headers: Mapping[str, str]) -> int:
        """Send to the first address that can be connected to. Nothing has been sent when connecting fails."""
        import httpx2

        if self._tls is None:
            # Reading the certificates takes a while.
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)
        # A connection belongs to a name, not only to an address: none is used again.
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            last = len(addresses) - 1
            for index, address in enumerate(addresses):
                request = httpx2.Request("POST", url, content=content, headers=headers, extensions={"sni_hostname": url.host})
                request.url = url.copy_with(host=address)
                try:
                    response: Response = await transport.handle_async_request(request)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if index == last:
                        raise
                    continue
                await response.aclose()
                return response.status_code
        raise UpstreamError(f"'{url.host}' has no address.")


def _parse(url: str) -> "URL":
    import httpx2

    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UrlRefused("This is no URL. Write it like https://app.example/callback.") from error
    if len(url) > MAX_URL_LENGTH or parsed.scheme not in ("http", "https") or not parsed.host:
        raise UrlRefused(f"A URL begins with https:// and a host, and has at most {MAX_URL_LENGTH} characters.")
    if parsed.userinfo:
        raise UrlRefused("A URL may not hold a user name or a password.")
    if parsed.port is not None and not 0 < parsed.port <= MAX_PORT:
        raise UrlRefused(f"The port {parsed.port} does not exist.")
    return parsed
