"""What every answer carries, and who is turned away before anything is looked at: foreign pages, foreign names, forged origins."""

import httpx
import pytest

from tests.acceptance.servers import Admin, Server, Servers
from tests.security.wire import OPERATIONS, Json, path_of, send_raw

each = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS.values(), ids=OPERATIONS)
# One of each kind of answer: a page, JSON, a stream of events, the tools of MCP clients.
KINDS = {"page": ("GET", "/docs"), "json": ("GET", "/sdk/ping"), "events": ("POST", "/sdk/llm/chat/stream"), "mcp": ("POST", "/mcp")}
each_kind = pytest.mark.parametrize(("method", "path"), KINDS.values(), ids=KINDS)


@each
def test_every_answer_carries_the_headers_that_keep_browsers_and_caches_from_mischief(
    server: Server, method: str, path: str, operation: Json
) -> None:
    answer = send_raw(server.port, f"{method} {path_of(path, operation)} HTTP/1.1", "Host: localhost", "Content-Length: 0")
    assert answer.headers["x-content-type-options"] == "nosniff"
    is_document = not operation["security"] and operation["operationId"].startswith("system.") and answer.status == 200
    assert answer.headers["cache-control"] in (("no-cache", "no-store") if is_document else ("no-store",))
    assert answer.headers.keys().isdisjoint({"server", "x-powered-by", "set-cookie", "access-control-allow-origin"})


def test_the_one_page_runs_only_its_own_scripts_and_stands_in_no_frame(server: Server) -> None:
    page = send_raw(server.port, "GET /docs HTTP/1.1", "Host: localhost")
    policy = dict(each.strip().partition(" ")[::2] for each in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert b"<script>" not in page.body


@each_kind
@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "localhost.rebound.example",
        "localhost@rebound.example",
        "127.0.0.1.nip.example:3001",
        "0.0.0.0",
        "[::]",
        "localhost:3001:3001",
        "2130706433",
        "",
    ],
)
def test_a_name_that_is_not_this_server_s_is_turned_away(server: Server, admin: Admin, method: str, path: str, host: str) -> None:
    answer = send_raw(server.port, f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {admin.key}", "Content-Length: 0")
    assert answer.status == 421


def test_a_request_without_any_name_is_turned_away(server: Server) -> None:
    assert send_raw(server.port, "GET /health HTTP/1.0").status == 421


@each_kind
@pytest.mark.parametrize(
    "origin",
    [
        "https://page.example",
        "http://localhost",
        "http://localhost:1",
        "http://localhost.page.example",
        "null",
        "file://",
        "chrome-extension://abcdefghijklmnop",
        "http://[",
        "http://[::1",
        "http://localhost:{port}@page.example",
        "localhost:{port}",
    ],
)
def test_a_page_of_another_origin_is_turned_away_whatever_it_holds(
    server: Server, admin: Admin, method: str, path: str, origin: str
) -> None:
    headers = (f"Host: localhost:{server.port}", f"Origin: {origin.format(port=server.port)}", f"Authorization: Bearer {admin.key}")
    answer = send_raw(server.port, f"{method} {path} HTTP/1.1", *headers, "Content-Length: 0")
    assert (answer.status, b"ORIGIN_NOT_ALLOWED" in answer.body.upper().replace(b"-", b"_")) == (403, True)
    assert "access-control-allow-origin" not in answer.headers


@each_kind
def test_the_server_s_own_page_is_let_through(server: Server, admin: Admin, method: str, path: str) -> None:
    headers = (f"Host: localhost:{server.port}", f"Origin: http://localhost:{server.port}", f"Authorization: Bearer {admin.key}")
    answer = send_raw(server.port, f"{method} {path} HTTP/1.1", *headers, "Content-Length: 0")
    assert answer.status in (200, 400)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_cross_site_request_that_could_change_something_is_turned_away(server: Server, method: str) -> None:
    headers = ("Host: localhost", "Sec-Fetch-Site: cross-site", "Content-Length: 0")
    assert send_raw(server.port, f"{method} /activities HTTP/1.1", *headers).status == 403
    assert send_raw(server.port, f"{method} /activities HTTP/1.1", *headers[::2]).status != 403


@each_kind
def test_whoever_says_that_it_was_forwarded_is_believed_nothing(server: Server, method: str, path: str) -> None:
    lies = (
        "X-Forwarded-Host: localhost",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 127.0.0.1",
        "Forwarded: for=127.0.0.1;host=localhost;proto=https",
    )
    answer = send_raw(server.port, f"{method} {path} HTTP/1.1", "Host: rebound.example", *lies, "Content-Length: 0")
    assert answer.status == 421
    assert b"https://" not in send_raw(server.port, "GET /docs HTTP/1.1", "Host: localhost", *lies).body


def test_what_a_proxy_and_this_server_could_read_differently_is_no_request(server: Server) -> None:
    head = ("POST /activities HTTP/1.1", "Host: localhost")
    smuggled = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = send_raw(server.port, *head, f"Content-Length: {len(smuggled)}", "Transfer-Encoding: chunked", body=smuggled)
    two_lengths = send_raw(server.port, *head, "Content-Length: 1", "Content-Length: 2", body=b"ab")
    folded = send_raw(server.port, *head, "Content-Length : 2", body=b"ab")
    assert [both.status, two_lengths.status, folded.status] == [400, 400, 400]


@pytest.mark.parametrize(
    "header", ["Host: localhost", "Origin: http://localhost", "Authorization: Bearer one", "X-Api-Key: one", "X-App-Id: one"]
)
def test_whatever_says_who_asks_must_be_said_once(server: Server, header: str) -> None:
    others = () if header.startswith("Host") else ("Host: localhost",)
    name = header.partition(":")[0]
    twice = send_raw(server.port, "GET /sdk/ping HTTP/1.1", *others, header, f"{name}: another")
    assert (twice.status, f"'{name.lower()}' is there 2 times" in twice.body.decode()) == (400, True)
    harmless = send_raw(server.port, "GET /health HTTP/1.1", "Host: localhost", "Accept: text/html", "Accept: application/json")
    assert harmless.status == 200


def test_an_origin_that_an_operator_allows_gets_exactly_that(servers: Servers) -> None:
    page, other = "https://app.example", "https://other.example"
    server = servers.start("origins", HOMEPORT_ALLOWED_ORIGINS=page)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        asked = client.options("/activities", headers={"Origin": page, **wanted})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, page)
        told = client.get("/health", headers={"Origin": page})
        assert (told.status_code, told.headers["access-control-allow-origin"], told.headers["vary"]) == (200, page, "Origin")
        assert "access-control-allow-credentials" not in told.headers
        for origin in (other, f"{page}.other.example", "null", page.replace("https", "http")):
            refused = client.get("/health", headers={"Origin": origin})
            assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (403, None)
            assert "access-control-allow-origin" not in client.options("/activities", headers={"Origin": origin, **wanted}).headers
