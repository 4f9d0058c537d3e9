"""Errors as they leave the socket: whatever is wrong with a request, the answer is the surface's own body with the request's id.

Requests are written by hand, because a client library would refuse to send most of them.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import Any

import orjson
import pytest

from tests.acceptance.servers import TIMEOUT_S, Admin, Server

MAX_BODY_BYTES = 32 * 1024 * 1024
# One path of each surface, which nobody may call without a credential or which takes no POST.
SURFACES = {"local_apps": "/agents", "admin": "/admin/v1/apps", "core": "/health", "system": "/openapi.json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: HTTPMessage
    body: Any


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    """A connection to the server."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        yield connection


def ask(connection: socket.socket, start: bytes, *lines: str, body: bytes = b"", host: str = "localhost") -> Answer:
    """Send a request, ``start`` being its first line without the version, and read the answer."""
    head = [f"Host: {host}", *lines]
    connection.sendall(start + b" HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in head).encode() + b"\r\n" + body)
    return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Read an answer whose body is JSON."""
    response = HTTPResponse(connection)
    response.begin()
    return Answer(response.status, response.headers, orjson.loads(response.read()))


def assert_error(answer: Answer, surface: str, status: int, code: str) -> None:
    """The answer is an error in the surface's own body."""
    request_id = answer.headers["x-request-id"]
    assert answer.status == status, answer.body
    assert request_id
    assert answer.headers["cache-control"] == "no-store"
    body = answer.body
    match surface:
        case "local_apps":
            assert answer.headers["content-type"] == "application/json"
            assert body.keys() == {"success", "error", "code", "request_id"}
            assert (body["success"], body["code"], body["request_id"]) == (False, code, request_id)
            assert body["error"]
        case "core":
            assert answer.headers["content-type"] == "application/json"
            assert body.keys() == {"error"}
            assert body["error"]
        case _:
            assert answer.headers["content-type"] == "application/problem+json"
            assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "instance", "code", "request_id"}
            assert (body["status"], body["code"], body["request_id"]) == (status, code.lower().replace("_", "-"), request_id)
            assert request_id in body["instance"]


each_surface = pytest.mark.parametrize(("surface", "path"), SURFACES.items(), ids=SURFACES)


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("/nowhere", "local_apps"),
        ("/", "local_apps"),
        ("/sdk/nowhere", "local_apps"),
        ("/admin/v1/nowhere", "admin"),
        ("/docs/no/where", "system"),
    ],
)
def test_an_unknown_path_is_answered_by_the_surface_it_is_nearest_to(connection: socket.socket, path: str, surface: str) -> None:
    assert_error(ask(connection, f"GET {path}".encode()), surface, 404, "UNKNOWN_ROUTE")


@each_surface
def test_a_wrong_method_names_the_right_ones(connection: socket.socket, surface: str, path: str) -> None:
    answer = ask(connection, f"PUT {path}".encode())
    assert_error(answer, surface, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == ("GET, POST" if surface == "admin" else "GET")


@each_surface
def test_a_wrong_host_is_refused(connection: socket.socket, surface: str, path: str) -> None:
    for host in ("evil.example", "localhost.evil.example:3001", ""):
        assert_error(ask(connection, f"GET {path}".encode(), host=host), surface, 421, "MISDIRECTED_REQUEST")


@each_surface
def test_a_foreign_origin_is_refused(connection: socket.socket, surface: str, path: str) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        answer = ask(connection, f"GET {path}".encode(), f"Origin: {origin}")
        assert_error(answer, surface, 403, "ORIGIN_NOT_ALLOWED")
        assert "access-control-allow-origin" not in answer.headers
    assert_error(ask(connection, f"POST {path}".encode(), "Sec-Fetch-Site: cross-site"), surface, 403, "ORIGIN_NOT_ALLOWED")


def test_a_cross_origin_preflight_gets_no_permission(connection: socket.socket) -> None:
    answer = ask(connection, b"OPTIONS /agents", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
    assert_error(answer, "local_apps", 403, "ORIGIN_NOT_ALLOWED")


@each_surface
def test_a_declared_body_that_is_too_large_is_refused_before_it_is_sent(connection: socket.socket, surface: str, path: str) -> None:
    answer = ask(connection, f"POST {path}".encode(), f"Content-Length: {MAX_BODY_BYTES + 1}", "Expect: 100-continue")
    assert_error(answer, surface, 413, "PAYLOAD_TOO_LARGE")


def test_a_chunked_body_that_grows_too_large_is_refused(connection: socket.socket, admin: Admin) -> None:
    chunk = b"%x\r\n%b\r\n" % (1024 * 1024, b" " * 1024 * 1024)
    lines = (f"Authorization: Bearer {admin.key}", "Content-Type: application/json", "Transfer-Encoding: chunked")
    answer = ask(connection, b"POST /activities", *lines, body=chunk * (MAX_BODY_BYTES // (1024 * 1024) + 1))
    assert_error(answer, "local_apps", 413, "PAYLOAD_TOO_LARGE")


def test_a_chunked_body_within_the_limit_is_read(connection: socket.socket, admin: Admin) -> None:
    lines = (f"Authorization: Bearer {admin.key}", "Content-Type: application/json", "Transfer-Encoding: chunked")
    answer = ask(connection, b"POST /activities", *lines, body=b'8\r\n{"raw_da\r\n9\r\nta": {}}\n\r\n0\r\n\r\n')
    assert (answer.status, answer.body["data"]["raw_data"]) == (201, {})


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type_is_refused(connection: socket.socket, admin: Admin, content_type: str) -> None:
    lines = [f"Authorization: Bearer {admin.key}", "Content-Length: 2", f"Content-Type: {content_type}"]
    assert_error(ask(connection, b"POST /activities", *lines, body=b"{}"), "local_apps", 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_error(ask(connection, b"POST /admin/v1/apps", *lines, body=b"{}"), "admin", 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nonsense",
        b'{"raw_data": NaN}',
        b'{"raw_data": {"text": "\xff\xfe"}}',
        b'{"raw_data": {"text": "\xed\xa0\x80"}}',
        b'{"raw_data": {"text": "\\ud800"}}',
        b"[" * 100_000,
        b"null",
        b"[]",
        b'{"raw_data": "text"}',
    ],
    ids=["cut", "empty", "nonsense", "nan", "latin-1", "surrogate", "lone-escape", "deep", "null", "list", "wrong-type"],
)
def test_a_body_that_is_not_what_it_should_be_is_refused(connection: socket.socket, admin: Admin, body: bytes) -> None:
    lines = [f"Authorization: Bearer {admin.key}", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    assert_error(ask(connection, b"POST /activities", *lines, body=body), "local_apps", 400, "VALIDATION_ERROR")
    if b"raw_data" not in body:
        assert_error(ask(connection, b"POST /admin/v1/apps", *lines, body=body), "admin", 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("path", "surface"),
    [(b"/activities/%ff", "local_apps"), (b"/activities/%c3%28", "local_apps"), (b"/admin/v1/apps/%ff", "local_apps")],
)
def test_a_path_that_is_not_utf_8_is_refused(connection: socket.socket, path: bytes, surface: str) -> None:
    # What cannot be decoded belongs to no path, so to the default surface.
    assert_error(ask(connection, b"GET " + path), surface, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /activities/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /activities/\xc3\xbc HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"POST /activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /activities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /activities HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
    ids=["raw-byte", "raw-utf-8", "no-http", "no-colon", "length-text", "length-negative", "two-lengths", "bad-chunk"],
)
def test_what_is_not_http_is_refused_in_the_default_surfaces_body(connection: socket.socket, request_bytes: bytes) -> None:
    connection.sendall(request_bytes)
    answer = read_answer(connection)
    assert answer.status in {400, 401}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == answer.body["request_id"]
    assert answer.body["success"] is False


def test_what_is_not_http_behind_a_request_is_not_answered_in_the_middle_of_its_answer(connection: socket.socket, admin: Admin) -> None:
    body = orjson.dumps({"model": "endless", "messages": [{"role": "user", "content": "Hello"}]})
    head = f"Host: localhost\r\nAuthorization: Bearer {admin.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(b"POST /sdk/llm/chat/stream HTTP/1.1\r\n" + head.encode() + body)
    received = b""
    while b"data: " not in received:
        received += connection.recv(65536)
    connection.sendall(b"\x00nonsense\r\n\r\n")
    received += b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1") == 1


def test_a_query_that_is_not_what_it_should_be_is_refused(connection: socket.socket, admin: Admin) -> None:
    key = f"Authorization: Bearer {admin.key}"
    for query in (b"limit=0", b"limit=1001", b"limit=x", b"offset=-1", b"limit=%ff", b"status=%ff"):
        assert_error(ask(connection, b"GET /activities?" + query, key), "local_apps", 400, "VALIDATION_ERROR")
    answer = ask(connection, b"GET /admin/v1/apps?limit=x", key)
    assert_error(answer, "admin", 400, "VALIDATION_ERROR")
    assert answer.body["errors"][0]["location"] == "query"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([], "MISSING_APP_ID"),
        (["Authorization: Bearer "], "MISSING_APP_ID"),
        (["Authorization: Basic dXNlcjpwdw=="], "INVALID_API_KEY"),
        (["Authorization: Bearer somebody-elses-token"], "INVALID_API_KEY"),
        (["Authorization: Bearer hp_local_0"], "INVALID_API_KEY"),
        (["x-api-key: somebody-elses-key"], "INVALID_API_KEY"),
        (["X-App-Id: nobody"], "INVALID_APP_ID"),
        (["X-App-Id: \xff"], "INVALID_APP_ID"),
    ],
)
def test_a_missing_or_wrong_credential_is_told_with_the_way_to_authenticate(connection: socket.socket, lines: list[str], code: str) -> None:
    answer = ask(connection, b"GET /agents", *lines)
    assert_error(answer, "local_apps", 401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_admin_surface_needs_a_key_and_takes_no_app_id(connection: socket.socket, admin: Admin) -> None:
    app_id = admin.register("Curious", granted=("llm.chat",))
    for lines in ([], [f"X-App-Id: {app_id}"]):
        answer = ask(connection, b"GET /admin/v1/apps", *lines)
        assert_error(answer, "admin", 401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_credentials_are_looked_at_before_the_body(connection: socket.socket) -> None:
    lines = ("Content-Type: application/json", "Content-Length: 1")
    assert_error(ask(connection, b"POST /activities", *lines, body=b"{"), "local_apps", 401, "MISSING_APP_ID")


def test_an_upgrade_that_is_not_offered_is_answered_as_an_ordinary_request(connection: socket.socket) -> None:
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    answer = ask(connection, b"GET /health", *lines)
    assert (answer.status, answer.body) == (200, {"status": "ok"})


def test_a_client_may_name_its_request_and_a_wild_name_is_replaced(connection: socket.socket) -> None:
    assert ask(connection, b"GET /nowhere", "X-Request-Id: my-request-1").body["request_id"] == "my-request-1"
    for wild in ("short", "x" * 65, "with blank in it", "a;b=c$d(e)"):
        answer = ask(connection, b"GET /nowhere", f"X-Request-Id: {wild}")
        assert answer.body["request_id"] == answer.headers["x-request-id"] != wild


def test_several_errors_on_one_connection_do_not_end_it(connection: socket.socket) -> None:
    ids = {ask(connection, b"GET /nowhere").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
    assert ask(connection, b"GET /health").status == 200


@pytest.mark.parametrize(("levels", "status"), [(200, 201), (246, 201), (247, 400), (1000, 400), (5000, 400)])
def test_what_is_stored_can_be_read_again_however_deep_and_what_is_deeper_is_refused(
    connection: socket.socket, admin: Admin, levels: int, status: int
) -> None:
    nested = b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)
    body = b'{"raw_data":' + nested + b"}"
    lines = (f"Authorization: Bearer {admin.key}", "Content-Type: application/json")
    answer = ask(connection, b"POST /activities", *lines, f"Content-Length: {len(body)}", body=body)
    assert answer.status == status, answer.body
    if status == 201:
        listed = ask(connection, b"GET /activities?limit=1000", lines[0])
        assert answer.body["data"]["id"] in {each["id"] for each in listed.body["data"]}
    else:
        assert_error(answer, "local_apps", 400, "VALIDATION_ERROR")
