"""Reading a page of the web on behalf of somebody: only where the server may connect to, within bounds, and only text.

Every address is resolved, checked and then connected to as checked (``adapters/outbound.py``), each redirect like the first one. Proxies
and cookies of this machine are not used.
"""

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from adapters.html_text import to_text
from adapters.outbound import Outbound
from homeport.errors import InvalidRequest, UpstreamError, UpstreamTimeout

if TYPE_CHECKING:
    import httpx2

MAX_BYTES = 2 * 1024 * 1024
MAX_URL_LENGTH = 2000
MAX_REDIRECTS = 5
CONNECT_S = 10.0
TIMEOUT_S = 30.0

_HEADERS = {"User-Agent": "homeport", "Accept": "text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXT = re.compile(r"text/.*|application/(?:json|xml|yaml|toml|javascript|ecmascript|x-ndjson|.*\+(?:json|xml|yaml))")
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
# Their decoders take quadratic time, or decode no text.
_REFUSED_CODECS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """What stood at ``url``, which is where the redirects ended. ``is_cut``: there was more than MAX_BYTES. All of it is a stranger's."""

    url: str
    status: int
    media_type: str
    title: str = field(repr=False)
    text: str = field(repr=False)
    is_cut: bool


class Fetcher:
    """Fetches pages. ``outbound`` says where it may connect to, ``timeout_s`` bounds one page with all its redirects."""

    def __init__(self, outbound: Outbound, *, timeout_s: float = TIMEOUT_S) -> None:
        self._outbound = outbound
        self._timeout_s = timeout_s

    async def fetch(self, url: str) -> FetchedPage:
        """The text at an http or https address; that of HTML is what there is to read.

        Raises InvalidRequest for an address that cannot be one (INVALID_URL), a private one (PRIVATE_ADDRESS) and one that is not known
        (HOST_UNKNOWN), UpstreamTimeout (FETCH_TIMEOUT) and UpstreamError (FETCH_FAILED, NOT_TEXT).
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                url, status, content_type, body = await self._follow(url)
        except TimeoutError as error:
            raise UpstreamTimeout(f"'{url[:200]}' did not answer completely within {self._timeout_s:g} s.", code="FETCH_TIMEOUT") from error
        return await asyncio.to_thread(_read, url, status, content_type, body)

    async def _follow(self, url: str) -> tuple[str, int, str, bytes]:
        """The address where the redirects end, its status, its content type, and the beginning of what stands there."""
        import httpx2

        for _ in range(MAX_REDIRECTS + 1):
            target = _parse(url)
            addresses = await self._outbound.resolve(target.host, target.port or (443 if target.scheme == "https" else 80))
            try:
                async with _request(target, addresses) as response:
                    location = response.headers.get("location")
                    if response.status_code not in _REDIRECTS or location is None:
                        return str(target), response.status_code, _content_type(response), await _read_body(response)
            except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
                raise _failed(url, "it cannot be reached, or broke off") from error
            try:
                url = urljoin(str(target), location)
            except ValueError as error:
                raise _failed(url, "it leads on to what is no address") from error
        raise _failed(url, f"it was redirected more than {MAX_REDIRECTS} times")


def _parse(url: str) -> "httpx2.URL":
    import httpx2

    try:
        parsed = httpx2.URL(url) if len(url) <= MAX_URL_LENGTH else None
    except (httpx2.InvalidURL, ValueError):
        parsed = None
    if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest(f"'{url[:200]}' is no http or https address.", code="INVALID_URL")
    if parsed.userinfo:
        raise InvalidRequest("An address must not hold a user name or password.", code="INVALID_URL")
    return parsed.copy_with(fragment=None)


@asynccontextmanager
async def _request(target: "httpx2.URL", addresses: Sequence[str]) -> "AsyncIterator[httpx2.Response]":
    """The answer of the first of the checked addresses that can be connected to, asked under the name in the URL."""
    import httpx2

    is_tls = target.scheme == "https"
    transport = httpx2.AsyncHTTPTransport(verify=is_tls, trust_env=is_tls)
    timeout = {"connect": CONNECT_S, "read": None, "write": CONNECT_S, "pool": None}
    headers = {"Host": target.netloc.decode("ascii"), **_HEADERS}
    async with transport:
        for number, address in enumerate(addresses, 1):
            url = target.copy_with(host=address)
            request = httpx2.Request("GET", url, headers=headers, extensions={"timeout": timeout, "sni_hostname": target.host})
            try:
                response = await transport.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if number == len(addresses):
                    raise
                continue
            try:
                yield response
            finally:
                await response.aclose()
            return


async def _read_body(response: "httpx2.Response") -> bytes:
    """What the answer holds, up to one byte more than MAX_BYTES."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UpstreamError("The page is compressed, which was not asked for.", code="FETCH_FAILED")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_BYTES:
            break
    return bytes(body[: MAX_BYTES + 1])


def _content_type(response: "httpx2.Response") -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type[:200]


def _read(url: str, status: int, content_type: str, body: bytes) -> FetchedPage:
    media_type = content_type.partition(";")[0].strip().lower()
    if not _TEXT.fullmatch(media_type) and (media_type or b"\0" in body[:1000]):
        shown = media_type if media_type.isprintable() and media_type else "of no type that is told"
        raise UpstreamError(f"What stands at '{url[:200]}' is {shown}, which is no text.", code="NOT_TEXT")
    is_html = media_type in _HTML or (not media_type and body[:200].lstrip()[:1] == b"<")
    text, title = _decode(body[:MAX_BYTES], content_type, is_html=is_html), ""
    if is_html:
        title, text = to_text(text, url)
    return FetchedPage(url, status, media_type or "text/plain", title, text, len(body) > MAX_BYTES)


def _decode(body: bytes, content_type: str, *, is_html: bool) -> str:
    named = re.search(r"charset\s*=\s*\"?([A-Za-z0-9_:.-]{1,40})", content_type, re.IGNORECASE)
    name = named[1] if named else None
    if name is None and is_html and (meta := _META_CHARSET.search(body[:2048])) is not None:
        name = meta[1].decode("ascii")
    if body.startswith(codecs.BOM_UTF8):
        name = "utf-8-sig"
    try:
        codec = codecs.lookup(name or "utf-8").name
        return body.decode("utf-8" if codec in _REFUSED_CODECS else codec, "replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "replace")


def _failed(url: str, reason: str) -> UpstreamError:
    return UpstreamError(f"'{url[:200]}' cannot be read: {reason}.", code="FETCH_FAILED")
