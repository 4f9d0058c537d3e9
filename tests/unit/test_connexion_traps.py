"""Seventeen ways in which Connexion 3.3 as it comes would surprise a user or harm the server, and what happens here instead."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from homeport.contract import ContractError, load_contract
from homeport.errors import Forbidden, InvalidRequest
from homeport.http.error_bodies import ERROR_BODIES
from homeport.replies import EventStream
from tests.unit.contract_app import OK, KnownCallers, build, client, handlers, operation, write_contract

pytestmark = pytest.mark.anyio


async def echo(body: Any = None) -> dict[str, Any]:
    return {"body": body}


async def answer() -> dict[str, Any]:
    return {}


def json_body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def echo_app(folder: Path, schema: dict[str, Any], components: dict[str, Any] | None = None, **options: Any) -> Any:
    return build(folder, {"/echo": {"post": operation("echo", requestBody=json_body(schema))}}, {"echo": echo}, components, **options)


def caller(*granted: str) -> Any:
    return SimpleNamespace(id="caller", decide=lambda permission: "granted" if permission in granted else "undecided")


async def test_01_operations_never_share_an_id(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/open": {"get": operation("answer")}, "/closed": {"get": operation("answer", security=[{"apiKey": []}])}})
    with handlers({"answer": answer}), pytest.raises(ContractError, match="already used by GET /open"):
        load_contract(tmp_path, surfaces=ERROR_BODIES)


async def test_01b_a_public_and_a_protected_path_with_one_handler_keep_their_own_security(tmp_path: Path) -> None:
    paths = {"/open": {"get": operation("answer")}, "/closed": {"get": operation("other", security=[{"apiKey": []}])}}
    async with client(build(tmp_path, paths, {"answer": answer, "other": answer})) as http:
        assert [(await http.get(path)).status_code for path in ("/open", "/closed")] == [200, 401]


async def test_02_a_3_1_document_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer")}}, version="3.1.0")
    with handlers({"answer": answer}), pytest.raises(ContractError, match="is needed, this is"):
        load_contract(tmp_path, surfaces=ERROR_BODIES)


async def test_03_a_large_body_does_not_hold_the_event_loop(tmp_path: Path) -> None:
    vector = {"type": "array", "items": {"type": "number"}}
    schema = {"type": "object", "properties": {"vectors": {"type": "array", "items": vector}}}
    app = echo_app(tmp_path, schema, max_bytes=10_000_000)
    body = orjson.dumps({"vectors": [[0.5] * 1536] * 100})
    async with client(app) as http:
        started = time.process_time()
        response = await http.post("/echo", content=body, headers={"content-type": "application/json"})
        used_s = time.process_time() - started
    assert response.status_code == 200
    # As it comes Connexion takes about 0.7 s for this, all of it on the event loop; the bound is there to notice that, not to measure.
    assert used_s < 0.35


async def test_04_a_recursive_schema_validates_and_is_published_as_a_reference(tmp_path: Path) -> None:
    tree = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    }
    components = {"schemas": {"Tree": tree}}
    async with client(echo_app(tmp_path, {"$ref": "#/components/schemas/Tree"}, components)) as http:
        good = await http.post("/echo", json={"name": "a", "children": [{"name": "b", "children": []}]})
        bad = await http.post("/echo", json={"name": "a", "children": [{"children": []}]})
    assert (good.status_code, bad.status_code) == (200, 400)
    assert "body/children/0" in bad.json()["error"]
    with handlers({"echo": echo}):
        published = load_contract(tmp_path, surfaces=ERROR_BODIES).published
    assert orjson.loads(published.content)["components"]["schemas"]["Tree"]["properties"]["children"]["items"] == {
        "$ref": "#/components/schemas/Tree"
    }


async def test_05_nullable_is_honoured(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "nullable": True},
            "e": {"type": "string", "nullable": True, "enum": ["x"]},
            "b": {"type": "string"},
        },
    }
    async with client(echo_app(tmp_path, schema)) as http:
        statuses = [(await http.post("/echo", json=body)).status_code for body in ({"a": None, "e": None}, {"b": None})]
    assert statuses == [200, 400]


@pytest.mark.parametrize(
    ("format_", "good", "bad"),
    [
        ("date-time", "2024-01-15T10:00:00Z", "yesterday"),
        ("uuid", "0193b5c6-0000-7000-8000-000000000000", "1-2-3"),
        ("uri", "https://a.example/b", "no uri"),
    ],
)
async def test_06_formats_are_checked(tmp_path: Path, format_: str, good: str, bad: str) -> None:
    async with client(echo_app(tmp_path, {"type": "object", "properties": {"v": {"type": "string", "format": format_}}})) as http:
        assert [(await http.post("/echo", json={"v": value})).status_code for value in (good, bad)] == [200, 400]


@pytest.mark.parametrize(
    "content",
    [b'{"v": NaN}', b'{"v": Infinity}', b'{"v": "\xff"}', b"[" * 200_000, b'{"v": "\\ud800"}', b"{", b""],
    ids=["NaN", "Infinity", "not UTF-8", "deep", "lone surrogate", "cut off", "empty"],
)
async def test_07_a_body_that_is_not_strict_json_is_a_400(tmp_path: Path, content: bytes) -> None:
    async with client(echo_app(tmp_path, {"type": "object"}, max_bytes=1_000_000)) as http:
        response = await http.post("/echo", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["code"] == "VALIDATION_ERROR"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_08_a_chunked_body_is_read(tmp_path: Path) -> None:
    async with client(echo_app(tmp_path, {"type": "object"})) as http:
        response = await http.post("/echo", content=chunks(b'{"a"', b": 1}"), headers={"content-type": "application/json"})
    assert response.json() == {"body": {"a": 1}}


async def test_09_a_body_is_bounded_whether_its_length_is_declared_or_not(tmp_path: Path) -> None:
    large = b'"' + b"x" * 5000 + b'"'
    json_type = {"content-type": "application/json"}
    async with client(echo_app(tmp_path, {"type": "string"}, max_bytes=2000)) as http:
        declared = await http.post("/echo", content=large, headers=json_type)
        chunked = await http.post("/echo", content=chunks(large[:1500], large[1500:]), headers=json_type)
    assert [response.status_code for response in (declared, chunked)] == [413, 413]
    assert declared.json()["code"] == "PAYLOAD_TOO_LARGE"


async def test_10_a_401_says_how_to_authenticate_and_a_405_what_is_allowed(tmp_path: Path) -> None:
    paths = {"/a": {"get": operation("answer", security=[{"apiKey": []}]), "put": operation("other")}}
    async with client(build(tmp_path, paths, {"answer": answer, "other": answer})) as http:
        unauthorized, not_allowed, unknown = await http.get("/a"), await http.delete("/a"), await http.get("/nowhere")
    assert unauthorized.headers["www-authenticate"].startswith("Bearer")
    assert (not_allowed.status_code, not_allowed.headers["allow"]) == (405, "GET, PUT")
    assert unknown.status_code == 404
    assert all(response.json()["success"] is False for response in (unauthorized, not_allowed, unknown))


async def test_11_a_scheme_that_nobody_checks_stops_the_start(tmp_path: Path) -> None:
    write_contract(
        tmp_path,
        {"/a": {"get": operation("answer", security=[{"open": []}])}},
        {"securitySchemes": {"open": {"type": "http", "scheme": "bearer", "x-bearerInfoFunc": "homeport.http.credentials.nothing"}}},
    )
    with handlers({"answer": answer}), pytest.raises(ContractError, match="does not resolve"):
        load_contract(tmp_path, surfaces=ERROR_BODIES)


@pytest.mark.parametrize(("given", "status"), [("12", 200), ("abc", 400), ("+1", 400), ("1.5", 400), ("012", 400)])
async def test_12_an_integer_in_a_path_is_validated_and_never_guessed(tmp_path: Path, given: str, status: int) -> None:
    async def show(number: int) -> dict[str, Any]:
        return {"number": number}

    parameter = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
    app = build(tmp_path, {"/n/{number}": {"get": operation("show", parameters=[parameter])}}, {"show": show})
    async with client(app) as http:
        response = await http.get(f"/n/{given}")
    assert response.status_code == status
    assert response.json() == {"number": 12} if status == 200 else "path/number" in response.json()["error"]


async def test_13_a_problem_has_code_pointers_and_request_id_and_no_schema_dump(tmp_path: Path) -> None:
    body = json_body(
        {
            "type": "object",
            "properties": {"messages": {"type": "array", "items": {"type": "object", "properties": {"role": {"enum": ["user"]}}}}},
        }
    )
    app = build(tmp_path, {"/echo": {"post": operation("echo", requestBody=body, **{"x-surface": "admin"})}}, {"echo": echo})
    async with client(app) as http:
        response = await http.post("/echo", json={"messages": [{"role": "pirate"}]}, headers={"x-request-id": "my-request-1"})
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"], problem["request_id"]) == (400, "validation-error", "my-request-1")
    assert [(each["location"], each["pointer"]) for each in problem["errors"]] == [("body", "/messages/0/role")]
    assert "properties" not in response.text
    assert "pirate" not in response.text


async def test_14_an_error_after_the_first_event_is_told_in_the_stream(tmp_path: Path) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise RuntimeError("a secret of the database")

    async def stream() -> EventStream:
        return EventStream(frames())

    responses = {"200": {"description": "ok", "content": {"text/event-stream": {"schema": {"type": "object"}}}}}
    async with client(build(tmp_path, {"/s": {"get": operation("stream", responses=responses)}}, {"stream": stream})) as http:
        response = await http.get("/s")
    assert response.text.startswith("data: {}\n\nevent: error\ndata: {")
    assert "INTERNAL_ERROR" in response.text
    assert "secret" not in response.text


async def test_15_braces_in_a_description_are_text(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer", description="{{ 1/0 }} {% x %}")}})
    with handlers({"answer": answer}):
        published = load_contract(tmp_path, surfaces=ERROR_BODIES).published
    assert orjson.loads(published.content)["paths"]["/a"]["get"]["description"] == "{{ 1/0 }} {% x %}"


async def test_16_a_trailing_slash_is_answered_not_redirected_and_security_still_holds(tmp_path: Path) -> None:
    paths = {"/a": {"get": operation("answer", security=[{"apiKey": []}])}, "/b": {"get": operation("other")}}
    async with client(build(tmp_path, paths, {"answer": answer, "other": answer})) as http:
        assert [(await http.get(path)).status_code for path in ("/a/", "http://localhost//a", "/b/", "http://localhost//b")] == [
            401,
            401,
            200,
            200,
        ]


async def test_17_connexion_is_used_through_one_module_whose_seams_still_exist() -> None:
    from connexion.apps.asynchronous import AsyncApi, AsyncASGIApp
    from connexion.middleware import ConnexionMiddleware
    from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware

    assert callable(RoutedAPI.make_operation)
    assert callable(AsyncApi.make_operation)
    assert AsyncASGIApp.api_cls is AsyncApi
    assert callable(ConnexionMiddleware._build_middleware_stack)
    assert callable(RoutedMiddleware.add_api)


async def test_permission_is_asked_before_the_request_is_looked_at(tmp_path: Path) -> None:
    protected = operation("echo", requestBody=json_body({"type": "object"}), security=[{"apiKey": []}], **{"x-permission": "things.write"})
    identity = KnownCallers(hp_local_may=caller("things.write"), hp_local_may_not=caller())
    app = build(tmp_path, {"/echo": {"post": protected}}, {"echo": echo}, identity=identity)
    async with client(app) as http:
        answers = [
            await http.post("/echo", content=b"{broken", headers={"authorization": f"Bearer {key}", "content-type": "application/json"})
            for key in ("hp_local_may_not", "hp_local_may")
        ]
    assert [response.status_code for response in answers] == [403, 400]
    refused = answers[0].json()
    assert (refused["error"], refused["code"], refused["permission"]) == ("PERMISSION_REQUIRED", "PERMISSION_REQUIRED", "things.write")


@pytest.mark.parametrize(
    ("headers", "status", "known"),
    [
        ({}, 200, None),
        ({"x-app-id": " ", "authorization": "Bearer "}, 200, None),
        ({"x-app-id": "known"}, 200, "caller"),
        ({"authorization": "Bearer hp_local_known"}, 200, "caller"),
        ({"x-app-id": "unknown"}, 401, None),
        ({"x-api-key": "hp_local_unknown"}, 401, None),
        ({"authorization": "Bearer hp_local_unknown"}, 401, None),
        ({"authorization": "Bearer somebody-elses"}, 401, None),
        ({"authorization": "Basic eDp5"}, 401, None),
        ({"x-app-id": "known", "authorization": "Bearer somebody-elses"}, 200, "caller"),
    ],
)
async def test_where_nobody_need_be_known_a_wrong_credential_is_refused_all_the_same(
    tmp_path: Path, headers: dict[str, str], status: int, known: str | None
) -> None:
    async def tell(principal: Any) -> dict[str, Any]:
        return {"known": principal and principal.id}

    anybody = operation("tell", security=[{}, {"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}])
    identity = KnownCallers(known=caller(), hp_local_known=caller())
    async with client(build(tmp_path, {"/a": {"get": anybody}}, {"tell": tell}, identity=identity)) as http:
        answer = await http.get("/a", headers=headers)
    assert (answer.status_code, answer.json().get("known")) == (status, known)


async def test_a_crash_says_its_request_id_and_nothing_else(tmp_path: Path) -> None:
    async def crash() -> None:
        raise RuntimeError("password=hunter2")

    async with client(build(tmp_path, {"/a": {"get": operation("crash")}}, {"crash": crash})) as http:
        response = await http.get("/a")
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "hunter2" not in response.text


async def test_a_wrong_media_type_says_which_one_is_right(tmp_path: Path) -> None:
    async with client(echo_app(tmp_path, {"type": "object"})) as http:
        response = await http.post("/echo", content=b"a=1", headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "localhost:3001"}, 200),
        ({"host": "[::1]:3001"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "box.lan:3001"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://app.example"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
async def test_only_requests_that_name_this_server_and_come_from_known_origins_pass(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    app = echo_app(tmp_path, {"type": "object"}, allowed_hosts=("box.lan",), allowed_origins=("https://app.example",))
    async with client(app) as http:
        response = await http.post("/echo", json={}, headers=headers)
    assert response.status_code == status
    assert response.headers["x-request-id"]


async def test_an_answer_that_the_contract_does_not_allow_is_caught_when_answers_are_checked(tmp_path: Path) -> None:
    async def lie() -> dict[str, Any]:
        return {"count": "many"}

    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    responses = {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}
    app = build(tmp_path, {"/a": {"get": operation("lie", responses=responses)}}, {"lie": lie}, is_checked=True)
    async with client(app) as http:
        response = await http.get("/a")
    assert response.status_code == 500
    assert "/count" in response.json()["error"]


async def test_the_status_of_an_answer_is_the_contracts_first_success(tmp_path: Path) -> None:
    responses = {"201": OK["200"], "400": OK["200"]}
    async with client(build(tmp_path, {"/a": {"post": operation("answer", responses=responses)}}, {"answer": answer})) as http:
        assert (await http.post("/a")).status_code == 201


async def test_a_long_handler_is_cancelled_when_its_client_leaves(tmp_path: Path) -> None:
    cancelled = asyncio.Event()

    async def wait() -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return {}

    app = build(tmp_path, {"/a": {"get": operation("wait")}}, {"wait": wait})
    messages = iter([{"type": "http.request", "body": b""}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there to be answered")

    scope = {"type": "http", "method": "GET", "path": "/a", "raw_path": b"/a", "query_string": b"", "headers": [(b"host", b"localhost")]}
    await asyncio.wait_for(app(scope, receive, send), 5)
    assert cancelled.is_set()


async def test_a_stream_is_closed_when_its_client_leaves(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: {}\n\n"
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def stream() -> EventStream:
        return EventStream(frames())

    responses = {"200": {"description": "ok", "content": {"text/event-stream": {"schema": {"type": "object"}}}}}
    app = build(tmp_path, {"/s": {"get": operation("stream", responses=responses)}}, {"stream": stream})
    sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.set()

    scope = {"type": "http", "method": "GET", "path": "/s", "raw_path": b"/s", "query_string": b"", "headers": [(b"host", b"localhost")]}
    await asyncio.wait_for(app(scope, receive, send), 5)
    assert closed.is_set()


async def test_a_handler_that_asks_for_what_the_operation_has_not_stops_the_start(tmp_path: Path) -> None:
    async def wrong(page: int) -> dict[str, Any]:
        return {"page": page}

    with pytest.raises(ContractError, match="has no parameter 'page'"):
        build(tmp_path, {"/a": {"get": operation("wrong")}}, {"wrong": wrong})


async def test_an_error_of_the_domain_keeps_its_code_and_sentence(tmp_path: Path) -> None:
    async def refuse() -> None:
        raise InvalidRequest("Do it like this.", code="INVALID_MODEL")

    async with client(build(tmp_path, {"/a": {"get": operation("refuse")}}, {"refuse": refuse})) as http:
        body = (await http.get("/a")).json()
    assert (body["error"], body["code"]) == ("Do it like this.", "INVALID_MODEL")


async def test_an_event_that_the_contract_does_not_allow_ends_the_stream_when_answers_are_checked(tmp_path: Path) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b'data: {"text": "a"}\n\n'
        yield b"data: [DONE]\n\n"
        yield b'data: {"text": 1}\n\n'
        yield b'data: {"text": "never sent"}\n\n'

    async def stream() -> EventStream:
        return EventStream(frames())

    event = {"anyOf": [{"type": "object", "properties": {"text": {"type": "string"}}}, {"type": "string", "enum": ["[DONE]"]}]}
    responses = {"200": {"description": "ok", "content": {"text/event-stream": {"schema": {"type": "object"}}}}}
    streaming = operation("stream", responses=responses, **{"x-stream-event": event})
    async with client(build(tmp_path, {"/s": {"get": streaming}}, {"stream": stream}, is_checked=True)) as http:
        text = (await http.get("/s")).text
    assert text.startswith('data: {"text": "a"}\n\ndata: [DONE]\n\nevent: error\n')
    assert "never sent" not in text


async def test_an_error_that_its_operation_does_not_declare_is_caught_when_answers_are_checked(tmp_path: Path) -> None:
    async def refuse() -> dict[str, Any]:
        raise Forbidden("Not today.")

    declared = OK | {"403": {"description": "no", "content": {"application/json": {"schema": {"type": "object"}}}}}
    for responses, status in ((OK, 500), (declared, 403)):
        app = build(tmp_path, {"/a": {"get": operation("refuse", responses=responses)}}, {"refuse": refuse}, is_checked=True)
        async with client(app) as http:
            response = await http.get("/a")
        assert response.status_code == status
    app = build(tmp_path, {"/a": {"get": operation("refuse", responses=OK)}}, {"refuse": refuse})
    async with client(app) as http:
        assert (await http.get("/a")).status_code == 403


async def test_an_error_in_a_stream_that_the_contract_does_not_allow_cuts_it_when_answers_are_checked(tmp_path: Path) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: [DONE]\n\n"
        raise Forbidden("Not today.")

    async def stream() -> EventStream:
        return EventStream(frames())

    responses = {"200": {"description": "ok", "content": {"text/event-stream": {"schema": {"type": "object"}}}}}
    streaming = operation("stream", responses=responses, **{"x-stream-event": {"type": "string"}})
    async with client(build(tmp_path, {"/s": {"get": streaming}}, {"stream": stream}, is_checked=True)) as http:
        with pytest.raises(RuntimeError, match="failed after the answer had begun"):
            await http.get("/s")
    async with client(build(tmp_path, {"/s": {"get": streaming}}, {"stream": stream})) as http:
        assert "event: error\n" in (await http.get("/s")).text
