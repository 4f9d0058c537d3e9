"""The MCP endpoint over a small contract: what becomes of a tool's answer, of its errors, and of a client that leaves.

The messages are written by hand, in both generations of the protocol; the library's own client is used against a running server.
"""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from homeport.errors import NotFound, Unavailable
from homeport.identity import Principal
from homeport.log import request_id_var
from homeport.replies import McpMessage, Reply
from tests.unit.contract_app import KnownCallers, build, client, operation

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

ID = UUID("0190b4a2-6c1e-7d3f-8a55-2f1e9c7b4d10")
APP = "an app"
KEY = "hp_local_000000000000_0"
EVERYBODY: Json = {"security": [{"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}]}
TOOL: Json = EVERYBODY | {"x-mcp": True}
ANYTHING: Json = {"type": "object"}
MODERN = "2026-07-28"
MODERN_META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
WAV = b"RIFF\x00\x01"
TIMEOUT_S = 5.0


async def send_message(body: Any) -> McpMessage:
    return McpMessage(body)


async def look(principal: Any, x_trace: str | None = None, n: int = 0) -> Json:
    return {"who": principal.name, "kind": principal.kind, "trace": x_trace, "n": n, "request": request_id_var.get()}


async def speak() -> Reply:
    return Reply(WAV, media_type="audio/wav")


async def crash() -> Json:
    raise RuntimeError("SECRET-DETAIL")


async def miss() -> Json:
    raise NotFound("There is no such thing; look at the list.", code="THING_NOT_FOUND")


async def fail() -> Json:
    raise Unavailable


async def refuse() -> Reply:
    return Reply({"error": "Not now."}, status=409)


async def say_nothing() -> Reply:
    return Reply(status=204)


async def listing() -> Any:
    return [1]


async def secret() -> Json:
    return {"told": True}


class Slow:
    """A handler that never ends by itself."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def wait(self) -> Json:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}


def content(**types: Json) -> Json:
    return {"description": "ok", "content": {name.replace("_", "/"): {"schema": schema} for name, schema in types.items()}}


def get_tool(name: str, **members: Any) -> Json:
    return {"get": operation(name, **(TOOL | members))}


def make_app(folder: Path, wait: Callable[..., Any] = secret, *, is_checked: bool = False) -> Any:
    message = {"required": True, "content": {"application/json": {"schema": {"type": "object", "required": ["jsonrpc"]}}}}
    answers = {"200": content(application_json=ANYTHING), "202": {"description": "taken"}, "400": content(application_json=ANYTHING)}
    look_parameters = [
        {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
        {"name": "n", "in": "query", "schema": {"type": "integer"}},
    ]
    paths = {
        "/mcp": {"post": operation("send_message", **EVERYBODY, requestBody=message, responses=answers)},
        "/look": get_tool("look", parameters=look_parameters),
        "/speak": get_tool("speak", responses={"200": content(audio_wav={"type": "string", "format": "binary"})}),
        "/crash": get_tool("crash"),
        "/miss": get_tool("miss"),
        "/fail": get_tool("fail"),
        "/refuse": get_tool("refuse"),
        "/nothing": get_tool("say_nothing", responses={"204": {"description": "nothing"}}),
        "/list": get_tool("listing"),
        "/secret": get_tool("secret", **{"x-permission": "secrets.read"}),
        "/wait": get_tool("wait", **{"x-permission": "waiting.long"}),
        "/hidden": {"get": operation("hidden", **EVERYBODY)},
    }
    functions: list[Any] = [send_message, look, speak, crash, miss, fail, refuse, say_nothing, listing, secret]
    named: dict[str, Any] = {each.__name__: each for each in functions} | {"hidden": secret, "wait": wait}
    known = {
        APP: Principal("app", ID, "App", ID, str(ID), frozenset({"waiting.*"}), frozenset()),
        KEY: Principal("key", ID, "Key", ID, None, frozenset({"secrets.read"}), frozenset()),
    }
    return build(folder, paths, named, identity=KnownCallers(**known), is_checked=is_checked)


def message(method: str, params: Json | None = None) -> Json:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}


async def post(app: Any, said: Any, **headers: str) -> Any:
    async with client(app, **({"X-App-Id": APP} | headers)) as http:
        return await http.post("/mcp", json=said)


async def ask(app: Any, method: str, params: Json | None = None, *, is_modern: bool = False, **headers: str) -> Json:
    """The result of a request that must have one."""
    if is_modern:
        headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **({"Mcp-Name": params["name"]} if params else {})}
        params = (params or {}) | {"_meta": MODERN_META}
    answer = await post(app, message(method, params), **headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    said: Json = answer.json()
    assert (said["jsonrpc"], said["id"]) == ("2.0", 7)
    result: Json = said["result"]
    return result


async def call(app: Any, name: str, *, is_modern: bool = False, headers: Json | None = None, **arguments: Any) -> Json:
    return await ask(app, "tools/call", {"name": name, "arguments": arguments}, is_modern=is_modern, **(headers or {}))


def text_of(result: Json) -> str:
    (block,) = result["content"]
    text: str = block["text"]
    return text


both_generations = pytest.mark.parametrize("is_modern", [False, True], ids=["2025-11-25", "2026-07-28"])


@both_generations
async def test_a_tool_answers_in_structure_and_in_text_as_the_caller(tmp_path: Path, is_modern: bool) -> None:
    result = await call(make_app(tmp_path), "look", is_modern=is_modern, headers={"X-Request-Id": "the-outer-one"}, n=5)
    expected = {"who": "App", "kind": "app", "trace": None, "n": 5, "request": "the-outer-one"}
    assert result["structuredContent"] == expected
    assert orjson.loads(text_of(result)) == expected
    assert not result.get("isError")


@both_generations
async def test_what_listed_tools_say_is_what_the_document_says(tmp_path: Path, is_modern: bool) -> None:
    listed = {each["name"]: each for each in (await ask(make_app(tmp_path), "tools/list", is_modern=is_modern))["tools"]}
    assert listed["look"]["inputSchema"] == {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    assert listed["look"]["annotations"] == {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}
    assert "outputSchema" not in listed["speak"]


async def test_only_what_the_caller_may_do_is_listed(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    free = ["crash", "fail", "listing", "look", "miss", "refuse", "say_nothing", "speak"]
    callers: list[tuple[Json, set[str]]] = [({"X-App-Id": APP}, {"wait"}), ({"X-App-Id": "", "x-api-key": KEY}, {"secret"})]
    for headers, also in callers:
        listed = (await ask(app, "tools/list", **headers))["tools"]
        assert [each["name"] for each in listed] == sorted({*free, *also})


@pytest.mark.parametrize(
    ("headers", "to_do"),
    [
        ({"X-App-Id": APP}, "homeport apps grant APP secrets.read"),
        ({"X-App-Id": "", "Authorization": f"Bearer {KEY}"}, "homeport keys create NAME --scope waiting.long"),
    ],
)
async def test_a_permission_that_is_missing_is_named_with_what_to_do(tmp_path: Path, headers: Json, to_do: str) -> None:
    name = to_do.rpartition(" ")[2]
    result = await call(make_app(tmp_path), "secret" if name == "secrets.read" else "wait", headers=headers)
    assert result["isError"] is True
    text = text_of(result)
    assert f"'{name}'" in text.split("\n")[0]
    assert f"Permission: {name}" in text
    assert text.endswith(to_do)


async def test_headers_of_the_message_are_not_those_of_the_operation(tmp_path: Path) -> None:
    result = await call(make_app(tmp_path), "look", headers={"X-Trace": "outer"})
    assert result["structuredContent"]["trace"] is None


async def test_audio_comes_as_audio(tmp_path: Path) -> None:
    result = await call(make_app(tmp_path), "speak")
    assert result["content"] == [{"type": "audio", "data": base64.b64encode(WAV).decode(), "mimeType": "audio/wav"}]
    assert "structuredContent" not in result


async def test_an_empty_answer_and_a_list_have_no_structure(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    assert (await call(app, "say_nothing"))["content"] == []
    result = await call(app, "listing")
    assert text_of(result) == "[1]"
    assert "structuredContent" not in result


@both_generations
@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("miss", {}, "There is no such thing; look at the list.\nCode: THING_NOT_FOUND"),
        ("fail", {}, "This is not available at the moment.\nCode: UNAVAILABLE"),
        ("crash", {}, "Something went wrong inside the server; the log has the details under this request id.\nCode: INTERNAL_ERROR"),
        ("refuse", {}, '{"error":"Not now."}'),
        ("look", {"n": "five"}, 'arguments/n: the value is not of type "integer"\nCode: VALIDATION_ERROR'),
    ],
)
async def test_what_goes_wrong_is_a_result_that_says_so(tmp_path: Path, is_modern: bool, name: str, arguments: Json, text: str) -> None:
    result = await call(make_app(tmp_path), name, is_modern=is_modern, **arguments)
    assert result["isError"] is True
    assert text_of(result) == text
    assert "structuredContent" not in result


async def test_with_checks_an_answer_that_is_not_declared_is_an_error(tmp_path: Path) -> None:
    result = await call(make_app(tmp_path, is_checked=True), "listing")
    assert result["isError"] is True
    assert "INTERNAL_ERROR" in text_of(result)


async def test_an_operation_without_the_mark_is_no_tool(tmp_path: Path) -> None:
    answer = await post(make_app(tmp_path), message("tools/call", {"name": "hidden", "arguments": {}}))
    assert answer.json()["error"] == {"code": -32602, "message": "There is no tool 'hidden'; tools/list names those that there are."}


@pytest.mark.parametrize("said", [[], [message("tools/list")], "text", None, 5, {}, {"id": 1, "method": "tools/list"}])
async def test_what_is_no_message_is_refused_in_our_own_body(tmp_path: Path, said: Any) -> None:
    answer = await post(make_app(tmp_path), said)
    assert answer.status_code == 400
    assert answer.json()["code"] == "VALIDATION_ERROR"


async def test_a_notification_is_taken_and_a_version_of_the_future_refused_with_those_there_are(tmp_path: Path) -> None:
    app = make_app(tmp_path, is_checked=True)
    taken = await post(app, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (taken.status_code, taken.content) == (202, b"")
    future = {**MODERN_META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    headers = {"MCP-Protocol-Version": "2099-01-01", "Mcp-Method": "tools/list"}
    refused = await post(app, message("tools/list", {"_meta": future}), **headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["data"] == {"supported": [MODERN], "requested": "2099-01-01"}


async def test_a_stranger_is_told_how_to_authenticate(tmp_path: Path) -> None:
    for headers in ({"X-App-Id": ""}, {"X-App-Id": "nobody"}, {"X-App-Id": "", "x-api-key": "hp_local_000000000000_1"}):
        answer = await post(make_app(tmp_path), message("tools/list"), **headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="homeport"'


@both_generations
async def test_a_client_that_leaves_stops_the_operation(tmp_path: Path, is_modern: bool) -> None:
    slow = Slow()
    app = make_app(tmp_path, slow.wait)
    params: Json = {"name": "wait", "arguments": {}} | ({"_meta": MODERN_META} if is_modern else {})
    body = orjson.dumps(message("tools/call", params))
    headers = {"host": "localhost", "x-app-id": APP, "content-type": "application/json", "content-length": str(len(body))}
    if is_modern:
        headers |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "wait"}
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await slow.begun.wait()
        return {"type": "http.disconnect"}

    async def send(what: Any) -> None:
        sent.append(what)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": raw}
    async with asyncio.timeout(TIMEOUT_S):
        await app(scope, receive, send)
    assert slow.cancelled.is_set()
    assert sent == []


async def test_messages_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    results = await asyncio.gather(*(call(app, "look", is_modern=bool(n % 2), n=n) for n in range(50)))
    assert [result["structuredContent"]["n"] for result in results] == list(range(50))
