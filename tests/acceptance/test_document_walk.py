"""Deny by default: every operation of the document refuses who may not call it, and nothing answers that the document does not name."""

import http.client
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest

from homeport.contract.loading import each_operation
from homeport.contract.operations import Resolver
from homeport.http.error_bodies import PROBLEM_SURFACES
from tests.acceptance.servers import TIMEOUT_S, Admin, Server
from tests.document import CONTRACT, DOCUMENT

Json = dict[str, Any]

RESOLVE = Resolver(DOCUMENT)
OPERATIONS = [(method.upper(), path, operation) for path, method, operation in each_operation(DOCUMENT)]
SECURED = [each for each in OPERATIONS if each[2]["security"]]
PUBLIC = [each for each in OPERATIONS if not each[2]["security"]]
FOR_APPS = [each for each in SECURED if {"appId": []} in each[2]["security"]]
NOT_FOR_APPS = [each for each in SECURED if {"appId": []} not in each[2]["security"]]
WITH_PERMISSION = [each for each in SECURED if each[2]["x-permission"] != "none"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "PURGE")

# One path a surface, by which its error body is known.
SURFACES = {"admin": "/admin/v1/apps", "core": "/health", "local_apps": "/sdk/ping", "system": "/docs"}
UNKNOWN_PATHS = {
    "/": "local_apps",
    "/index.html": "local_apps",
    "/favicon.ico": "local_apps",
    "/metrics": "local_apps",
    "/redoc": "local_apps",
    "/ui": "local_apps",
    "/swagger.json": "local_apps",
    "/openapi.yml": "local_apps",
    "/graphql": "local_apps",
    "/api": "local_apps",
    "/api/v1/keys": "local_apps",
    "/sdk": "local_apps",
    "/sdk/llm": "local_apps",
    "/sdk/llm/chat/completions": "local_apps",
    "/v1/chat/completions": "local_apps",
    "/activities/a/b": "local_apps",
    "/Activities": "local_apps",
    "/workspaces/default": "local_apps",
    "/admin": "admin",
    "/admin/v1": "admin",
    "/admin/v2/apps": "admin",
    "/admin/v1/users": "admin",
    "/openapi": "system",
    "/openapi/local_apps.json/x": "system",
    "/docs/index.html": "system",
    "/docs/assets": "system",
    "/docs//": "system",
    "/swagger/ui": "system",
    "/health/live": "core",
}


def each(operations: list[tuple[str, str, Json]]) -> pytest.MarkDecorator:
    """Run a test for each of these operations."""
    return pytest.mark.parametrize(("method", "path", "operation"), operations, ids=[f"{method} {path}" for method, path, _ in operations])


def assert_error(answer: httpx.Response, surface: str, status: int, code: str, permission: str | None = None) -> None:
    """The answer is an error in the surface's own body. ``code`` is written as the error tree writes it."""
    assert answer.status_code == status, answer.text
    body, request_id = answer.json(), answer.headers["x-request-id"]
    assert answer.headers["content-type"] == ("application/problem+json" if surface in PROBLEM_SURFACES else "application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("allow" in answer.headers) == (status == 405)
    if surface == "core":
        assert body.keys() == {"error"}
        assert body["error"]
        return
    assert body["request_id"] == request_id
    assert body.get("permission") == permission
    if surface == "local_apps":
        assert (body["success"], body["code"]) == (False, code)
        assert body["error"]
        assert body.keys() - {"permission", "message"} == {"success", "error", "code", "request_id"}
        if permission:
            assert body["error"] == code
            assert permission in body["message"]
        return
    assert (body["status"], body["code"]) == (status, code.lower().replace("_", "-"))
    assert body.keys() - {"permission", "errors"} == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert body["title"]
    assert body["detail"]


def path_of(path: str, operation: Json) -> str:
    """The path with the examples that the document gives."""
    for parameter in map(RESOLVE, operation.get("parameters", [])):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    return path


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the running server, without credentials."""
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(admin: Admin) -> str:
    """The id of a registered app that holds nothing."""
    return admin.register("Stranger", permissions=["activities.read", "llm.chat"])


@pytest.fixture(scope="module")
def revoked_key(admin: Admin) -> str:
    """A key that did work."""
    created = admin.create_key()
    admin.call("DELETE", f"/api-keys/{created['id']}")
    return str(created["key"])


@pytest.fixture(scope="module")
def powerless_key(admin: Admin) -> str:
    """A valid key that gives none of the permissions that operations need."""
    return str(admin.create_key("something.else")["key"])


def send_garbage(client: httpx.Client, method: str, path: str, operation: Json, **headers: str) -> httpx.Response:
    """Send what no operation accepts: who may not call must not learn that."""
    return client.request(
        method, path_of(path, operation), params={"limit": "many"}, content=b"{not json", headers={"content-type": "text/plain"} | headers
    )


def get_as_written(server: Server, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """GET a path as it stands, which other clients would tidy up, with headers that they would not send."""
    connection = http.client.HTTPConnection("localhost", server.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    finally:
        connection.close()


@each([each for each in SECURED if {} not in each[2]["security"]])
def test_nobody_gets_in_without_a_credential(client: httpx.Client, method: str, path: str, operation: Json) -> None:
    code = "MISSING_APP_ID" if {"appId": []} in operation["security"] else "UNAUTHORIZED"
    for headers in ({}, {"authorization": "", "x-api-key": "", "x-app-id": ""}, {"authorization": "Bearer"}, {"cookie": "session=1"}):
        assert_error(send_garbage(client, method, path, operation, **headers), operation["x-surface"], 401, code)
    basic = send_garbage(client, method, path, operation, authorization="Basic YTpi")
    assert_error(basic, operation["x-surface"], 401, "INVALID_API_KEY")


@each(SECURED)
def test_nobody_gets_in_with_a_wrong_key(
    client: httpx.Client, stranger: str, revoked_key: str, method: str, path: str, operation: Json
) -> None:
    mistyped = revoked_key[:-1] + ("a" if revoked_key[-1] != "a" else "b")
    for key in (revoked_key, mistyped, "hp_local_4f9KdQ2mX7pZ_0aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789aBcDeFgHiJkLmN", "sk-something"):
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert_error(send_garbage(client, method, path, operation, **headers), operation["x-surface"], 401, "INVALID_API_KEY")
    beside = send_garbage(client, method, path, operation, **{"x-api-key": revoked_key, "x-app-id": stranger})
    assert_error(beside, operation["x-surface"], 401, "INVALID_API_KEY")


@each(SECURED)
def test_nobody_gets_in_with_the_id_of_an_unknown_app(client: httpx.Client, method: str, path: str, operation: Json) -> None:
    code = "INVALID_APP_ID" if {"appId": []} in operation["security"] else "UNAUTHORIZED"
    for app_id in (str(uuid4()), "not-an-id", "*"):
        answer = send_garbage(client, method, path, operation, **{"x-app-id": app_id})
        assert_error(answer, operation["x-surface"], 401, code)


@each([each for each in FOR_APPS if each[2]["x-permission"] != "none"])
def test_an_app_that_holds_nothing_is_refused_before_its_request_is_read(
    client: httpx.Client, stranger: str, method: str, path: str, operation: Json
) -> None:
    answer = send_garbage(client, method, path, operation, **{"x-app-id": stranger})
    assert_error(answer, operation["x-surface"], 403, "PERMISSION_REQUIRED", operation["x-permission"])


@each([each for each in FOR_APPS if each[2]["x-permission"] != "none"])
def test_an_app_that_was_denied_is_told_so(client: httpx.Client, admin: Admin, method: str, path: str, operation: Json) -> None:
    app_id = admin.register("Denied")
    admin.grant(app_id, operation["x-permission"], "denied")
    answer = send_garbage(client, method, path, operation, **{"x-app-id": app_id})
    assert_error(answer, operation["x-surface"], 403, "PERMISSION_DENIED", operation["x-permission"])


@each([each for each in FOR_APPS if each[2]["x-permission"] == "none"])
def test_an_operation_without_a_permission_reads_the_request_of_any_app(
    client: httpx.Client, stranger: str, method: str, path: str, operation: Json
) -> None:
    answer = send_garbage(client, method, path, operation, **{"x-app-id": stranger})
    assert answer.status_code in (200, 400, 404, 415)
    assert str(answer.status_code) in operation["responses"]


@each(NOT_FOR_APPS)
def test_no_app_administers_the_server(client: httpx.Client, stranger: str, method: str, path: str, operation: Json) -> None:
    answer = send_garbage(client, method, path, operation, **{"x-app-id": stranger})
    assert_error(answer, operation["x-surface"], 401, "UNAUTHORIZED")


@each(WITH_PERMISSION)
def test_a_key_gives_no_more_than_its_scopes(client: httpx.Client, powerless_key: str, method: str, path: str, operation: Json) -> None:
    answer = send_garbage(client, method, path, operation, authorization=f"Bearer {powerless_key}")
    assert_error(answer, operation["x-surface"], 403, "PERMISSION_DENIED", operation["x-permission"])


@each(PUBLIC)
def test_a_public_operation_answers_whoever_asks(client: httpx.Client, revoked_key: str, method: str, path: str, operation: Json) -> None:
    for headers in ({}, {"authorization": f"Bearer {revoked_key}"}, {"x-app-id": "not-an-id"}):
        if "requestBody" in operation:
            answer = send_garbage(client, method, path, operation, **headers)
            assert_error(answer, operation["x-surface"], 415, "UNSUPPORTED_MEDIA_TYPE")
        else:
            assert client.request(method, path_of(path, operation), headers=headers).status_code == 200


def test_the_router_knows_exactly_the_operations_of_the_published_document(client: httpx.Client) -> None:
    published = {(method.upper(), path) for path, method, _ in each_operation(client.get("/openapi.json").json())}
    assert published == {(method, path) for method, path, _ in OPERATIONS}
    assert _routes(CONTRACT.routes._root) == published


def _routes(node: Any) -> set[tuple[str, str]]:
    below = [*node.literals.values(), *([node.template] if node.template else [])]
    return {(method, node.path) for method in node.methods}.union(*map(_routes, below))


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_documented_path_answers_no_other_method(server: Server, path: str) -> None:
    documented = {method: operation for method, each, operation in OPERATIONS if each == path}
    surface = next(iter(documented.values()))["x-surface"]
    # Asked of the process itself: nginx refuses TRACE in its own words.
    with httpx.Client(base_url=server.own_url, headers={"x-api-key": "wrong"}, timeout=TIMEOUT_S, trust_env=False) as client:
        for method in METHODS:
            if method not in documented:
                answer = client.request(method, path_of(path, next(iter(documented.values()))))
                assert (answer.status_code, answer.headers["allow"]) == (405, ", ".join(sorted(documented)))
                if method != "HEAD":
                    assert_error(answer, surface, 405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(("path", "surface"), UNKNOWN_PATHS.items())
def test_a_path_that_is_not_documented_does_not_exist(client: httpx.Client, admin: Admin, path: str, surface: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        for headers in ({}, {"authorization": f"Bearer {admin.key}"}):
            assert_error(client.request(method, path, headers=headers), surface, 404, "UNKNOWN_ROUTE")


@pytest.mark.parametrize("name", ["..", "..%2f..%2fopenapi.yaml", "%2e%2e%2fopenapi.yaml", "index.html", "swagger-ui.css.map", "%00"])
def test_nothing_but_the_page_s_own_files_is_served(server: Server, name: str) -> None:
    for folder in ("/docs/assets", "/openapi"):
        answer = get_as_written(server, f"{folder}/{name}")
        assert answer.status_code in (400, 404)
        assert_error(answer, "system", answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "{" not in path])
def test_a_slash_too_many_means_the_same_operation_and_never_redirects(server: Server, path: str) -> None:
    plain = get_as_written(server, path)
    for variant in (f"{path}/", f"/{path}"):
        answer = get_as_written(server, variant)
        assert (answer.status_code, answer.headers["content-type"]) == (plain.status_code, plain.headers["content-type"])


@pytest.mark.parametrize(("surface", "path"), SURFACES.items())
def test_what_is_refused_at_the_edge_has_the_surface_s_own_body(server: Server, client: httpx.Client, surface: str, path: str) -> None:
    assert_error(client.get(path, headers={"host": "rebound.example"}), surface, 421, "MISDIRECTED_REQUEST")
    assert_error(client.get(path, headers={"origin": "https://page.example"}), surface, 403, "ORIGIN_NOT_ALLOWED")
    assert_error(client.post(path, headers={"sec-fetch-site": "cross-site"}), surface, 403, "ORIGIN_NOT_ALLOWED")
    assert_error(get_as_written(server, path, {"content-length": str(10**12)}), surface, 413, "PAYLOAD_TOO_LARGE")


def test_what_cannot_be_read_is_refused_with_the_surface_s_own_body(client: httpx.Client, admin: Admin) -> None:
    known = {"authorization": f"Bearer {admin.key}"}
    for surface, path in {"local_apps": "/activities", "admin": "/admin/v1/apps"}.items():
        assert_error(client.post(path, headers=known, content=b""), surface, 400, "VALIDATION_ERROR")
        assert_error(client.post(path, headers=known, content=b"name=x"), surface, 415, "UNSUPPORTED_MEDIA_TYPE")
        for content in (b"{", b"\xff", b'{"name": NaN}', b"[" * 2000, b"[]", b'"x"'):
            answer = client.post(path, headers=known | {"content-type": "application/json"}, content=content)
            assert_error(answer, surface, 400, "VALIDATION_ERROR")
        assert_error(client.get(f"{path}?limit=many", headers=known), surface, 400, "VALIDATION_ERROR")
        assert_error(client.get(f"{path}?limit=%ff", headers=known), surface, 400, "VALIDATION_ERROR")
    assert_error(client.get("/%ff"), "local_apps", 400, "VALIDATION_ERROR")


def test_what_is_not_there_is_refused_with_the_surface_s_own_body(client: httpx.Client, admin: Admin) -> None:
    known = {"authorization": f"Bearer {admin.key}"}
    for surface, path, code in (
        ("local_apps", f"/activities/{uuid4()}", "NOT_FOUND"),
        ("admin", f"/admin/v1/apps/{uuid4()}", "APP_NOT_FOUND"),
        ("system", "/docs/assets/nothing.js", "NOT_FOUND"),
    ):
        assert_error(client.get(path, headers=known), surface, 404, code)
