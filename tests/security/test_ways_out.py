"""Where the server can be made to connect, and what it takes with it."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.fetch import Fetcher
from adapters.mcp import HttpTarget, McpSessions, ServerSpec, StdioTarget
from adapters.outbound import Outbound
from adapters.posting import Posting
from homeport.errors import AppError
from homeport.ids import uuid7
from tests.integration.web_server import WebServer, web_server

pytestmark = pytest.mark.anyio

# Ways to write this machine and what is no address, as seen in reports about other servers. {port} is where a server really listens.
SPELLINGS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0x7f000001:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://foo.localhost:{port}/",
    "http://[::]:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/",  # full width
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://lo\u00adcalhost:{port}/",
    "http://localhost%2eexample:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http:\\\\127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "http://[",
    "http://[::1",
    "http://a:99999999/",
    "http://\ud800/",
    "http://a\r\nHost: b/",
    "http://%00/",
    "http://xn--/",
    "http://a..b/",
]


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with web_server() as server:
        server.page("/", "what only this machine may see")
        yield server


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_this_machine_is_connected_to_and_none_is_a_crash(web: WebServer, spelling: str) -> None:
    url = spelling.format(port=web.port)
    for attempt in (Fetcher(Outbound()).fetch(url), Posting(Outbound()).post(url, b"{}", {}, 5.0)):
        with pytest.raises(AppError) as caught:
            await attempt
        assert caught.value.status == 400
    assert web.asked == []


async def test_what_is_posted_follows_no_redirect_and_takes_nothing_along(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", os.devnull)
    web.redirect("/hook", web.url("/"))
    assert await Posting(Outbound(("localhost",))).post(web.url("/hook", "localhost"), b"{}", {"X-Mine": "1"}, 5.0) == 302
    [head] = web.asked
    names = {line.partition(":")[0].lower() for line in head.strip().split("\r\n")[1:]}
    assert names == {"host", "x-mine", "content-length"}


async def test_an_mcp_server_elsewhere_gets_its_own_headers_and_no_others(web: WebServer, tmp_path: Path) -> None:
    web.page("/mcp", b"{}", "application/json", status="400 Bad Request")
    sessions = McpSessions(tmp_path, Outbound(("localhost",)))
    spec = ServerSpec(uuid7(), "far", "1", HttpTarget(web.url("/mcp"), {"Authorization": "Bearer its-own"}), timeout_s=30.0)
    try:
        with pytest.raises(AppError):
            await sessions.call(spec, "x", {})
    finally:
        await sessions.close()
    assert web.asked
    for head in web.asked:
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.strip().split("\r\n")[1:]}
        assert headers["authorization"] == "Bearer its-own"
        assert headers.keys().isdisjoint({"cookie", "x-api-key", "x-app-id", "proxy-authorization", "x-forwarded-for"})


async def test_an_mcp_program_is_started_with_its_arguments_as_they_are_and_no_shell(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = f"import os, sys; open({str(told)!r}, 'w').write(repr((sys.argv[1:], sorted(os.environ), os.getcwd())))"
    arguments = ("$(touch owned)", "`touch owned`", "; touch owned", "| touch owned", "a b", "*", "~", "", "--")
    os.environ["PLANTED_SECRET_KEY"] = "must not be handed on"
    sessions = McpSessions(tmp_path / "mcp", Outbound())
    spec = ServerSpec(uuid7(), "near", "1", StdioTarget(sys.executable, ("-c", program, *arguments), {"GIVEN": "1"}), timeout_s=30.0)
    try:
        with pytest.raises(AppError):  # it speaks no MCP
            await sessions.call(spec, "x", {})
    finally:
        await sessions.close()
        del os.environ["PLANTED_SECRET_KEY"]
    said, names, folder = eval(told.read_text(encoding="utf-8"))
    assert tuple(said) == arguments
    assert set(names) <= {"GIVEN", "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE"}
    assert Path(folder).is_relative_to(tmp_path / "mcp")
    assert not (Path(folder) / "owned").exists()
