"""Reading web pages, over real HTTP from a server on loopback, which only those may reach who are allowed to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from adapters.fetch import MAX_BYTES, MAX_REDIRECTS, Fetcher
from adapters.outbound import Outbound
from homeport.errors import AppError, InvalidRequest, UpstreamError, UpstreamTimeout
from tests.integration.web_server import WebServer, web_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with web_server() as web:
        yield web


@pytest.fixture
def fetcher() -> Fetcher:
    """One that may reach 127.0.0.1, and nothing else that is private."""
    return Fetcher(Outbound(("127.0.0.1",)))


async def code_of(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(AppError) as caught:
        await fetcher.fetch(url)
    return caught.value.code


async def test_a_page_is_read_without_what_is_not_for_reading(web: WebServer, fetcher: Fetcher) -> None:
    url = web.page("/a", "<title>T</title><script>x()</script><p>Hé <a href=b>b</a>", "text/html; charset=utf-8")
    page = await fetcher.fetch(f"{url}#part")
    assert (page.url, page.status, page.media_type, page.title, page.is_cut) == (url, 200, "text/html", "T", False)
    assert page.text == f"Hé b ({web.url('/b')})"
    head = web.asked[0].lower()
    assert head.startswith("get /a http/1.1")
    assert f"host: 127.0.0.1:{web.port}" in head
    assert "accept-encoding: identity" in head
    assert "cookie" not in head


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ('{"a": 1}', "application/json", '{"a": 1}'),
        ("<a>1</a>", "application/atom+xml", "<a>1</a>"),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        ('<meta charset="windows-1252"><p>é'.encode("cp1252"), "text/html", "é"),
        ("\ufeffa", "text/plain", "a"),
        (b"\xff", "text/plain", "\ufffd"),
        ("é", "text/plain; charset=no-such", "é"),
        ("a-b", "text/plain; charset=punycode", "a-b"),
        ("61", "text/plain; charset=hex", "61"),
        ("plain", "", "plain"),
        ("<p>untold", "", "untold"),
    ],
)
async def test_texts_of_all_kinds_are_decoded(web: WebServer, fetcher: Fetcher, body: str | bytes, content_type: str, text: str) -> None:
    assert (await fetcher.fetch(web.page("/", body, content_type))).text == text


async def test_what_is_no_text_or_compressed_unasked_is_refused(web: WebServer, fetcher: Fetcher) -> None:
    assert await code_of(fetcher, web.page("/image", b"\x89PNG", "image/png")) == "NOT_TEXT"
    assert await code_of(fetcher, web.page("/untold", b"\0\1", "")) == "NOT_TEXT"
    assert await code_of(fetcher, web.page("/bomb", b"x", Content_Encoding="gzip")) == "FETCH_FAILED"


async def test_an_error_page_is_a_page_with_its_status(web: WebServer, fetcher: Fetcher) -> None:
    page = await fetcher.fetch(web.page("/", "Gone away", status="404 Not Found"))
    assert (page.status, page.text) == (404, "Gone away")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "http://user:pass@example.com/",
        "http://a/" + "x" * 2000,
        "http://[::1",
        "http://a b/",
    ],
)
async def test_what_is_no_address_is_refused(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await fetcher.fetch(url)
    assert caught.value.code in ("INVALID_URL", "HOST_UNKNOWN")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0", "LOCALHOST"])
async def test_private_addresses_are_refused_however_they_are_written(web: WebServer, host: str) -> None:
    assert await code_of(Fetcher(Outbound()), web.url("/", host)) == "PRIVATE_ADDRESS"
    assert web.asked == []


async def test_a_redirect_is_followed_and_where_it_ends_is_told(web: WebServer, fetcher: Fetcher) -> None:
    web.page("/end", "here")
    web.redirect("/two/b", "/end", "308 Permanent Redirect")
    page = await fetcher.fetch(web.redirect("/one", "two/b"))
    assert (page.url, page.text) == (web.url("/end"), "here")


@pytest.mark.parametrize("to", ["http://127.0.0.2:{port}/", "http://[::1]:{port}/", "http://169.254.169.254/latest"])
async def test_a_redirect_to_a_private_address_is_refused(web: WebServer, fetcher: Fetcher, to: str) -> None:
    web.page("/", "secret")
    assert await code_of(fetcher, web.redirect("/go", to.format(port=web.port))) == "PRIVATE_ADDRESS"
    assert len(web.asked) == 1


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://u:p@127.0.0.1/", "http://[bad"])
async def test_a_redirect_to_what_is_no_web_address_is_refused(web: WebServer, fetcher: Fetcher, to: str) -> None:
    assert await code_of(fetcher, web.redirect("/go", to)) in ("INVALID_URL", "FETCH_FAILED")


async def test_redirects_end(web: WebServer, fetcher: Fetcher) -> None:
    assert await code_of(fetcher, web.redirect("/loop", "/loop")) == "FETCH_FAILED"
    assert len(web.asked) == MAX_REDIRECTS + 1


async def test_a_name_that_leads_elsewhere_a_moment_later_changes_nothing(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver answers once with what may be reached; whoever asked a second time would be led to what may not."""
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])

    def resolve(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    web.page("/", "checked")
    page = await Fetcher(Outbound(("127.0.0.1",))).fetch(web.url("/", "rebinding.example"))
    assert page.text == "checked"
    assert f"host: rebinding.example:{web.port}" in web.asked[0].lower()
    assert next(answers) == "127.0.0.2", "nobody asked again"


async def test_a_large_page_is_read_in_part(web: WebServer, fetcher: Fetcher) -> None:
    page = await fetcher.fetch(web.page("/", "x" * (MAX_BYTES + 1)))
    assert (len(page.text), page.is_cut) == (MAX_BYTES, True)
    assert not (await fetcher.fetch(web.page("/", "x" * MAX_BYTES))).is_cut


async def test_a_page_without_end_is_left(web: WebServer, fetcher: Fetcher) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    web.answers["/"] = pour
    page = await fetcher.fetch(web.url("/"))
    assert (len(page.text), page.is_cut) == (MAX_BYTES, True)
    with anyio.fail_after(5):
        await web.is_left.wait()


async def test_a_page_that_trickles_is_given_up(web: WebServer) -> None:
    never = asyncio.Event()

    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nx")
        await writer.drain()
        await never.wait()

    web.answers["/"] = trickle
    with pytest.raises(UpstreamTimeout) as caught:
        await Fetcher(Outbound(("127.0.0.1",)), timeout_s=0.2).fetch(web.url("/"))
    assert caught.value.code == "FETCH_TIMEOUT"
    never.set()


async def test_what_breaks_off_or_is_not_there_says_so(web: WebServer, fetcher: Fetcher) -> None:
    web.answers["/short"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"
    web.answers["/noise"] = b"nonsense\r\n\r\n"
    for url in (web.url("/short"), web.url("/noise"), "http://127.0.0.1:1/"):
        with pytest.raises(UpstreamError) as caught:
            await fetcher.fetch(url)
        assert caught.value.code == "FETCH_FAILED"
