"""Homeport as an MCP server: the official client, in both generations of the protocol, uses a running server as any MCP client would."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from contract.upstream import RunningUpstream
from tests.acceptance.servers import TIMEOUT_S, Admin, Server, Servers, eventually

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
Mode = Literal["auto", "legacy"]

ALL_TOOLS = {
    "chat", "chat_with_agent", "create_activity", "create_agent_session", "embed_texts", "get_activity", "get_agent_session",
    "get_ingest_job", "ingest_documents", "list_activities", "list_agents", "list_chat_providers", "list_embed_providers",
    "list_threads", "list_vector_workspaces", "list_workspaces", "query_vectors", "update_activity", "upsert_vectors",
}  # fmt: skip
ACTIVITY_TOOLS = {"create_activity", "get_activity", "list_activities", "update_activity"}
# Every caller may see these.
OPEN_TOOLS = {"list_recognizers", "list_voices"}
MESSAGES = [{"role": "user", "content": "hello"}]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}

both_generations = pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])


@asynccontextmanager
async def connected(
    server: Server, headers: Mapping[str, str], mode: Mode = "auto", transport: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[Client]:
    """The official client, connected with these credentials."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False, transport=transport) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def bearer(admin: Admin) -> Json:
    return {"Authorization": f"Bearer {admin.key}"}


async def names_of_tools(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert block.type == "text"
    return block.text


async def succeed(client: Client, name: str, **arguments: Any) -> Json:
    """What a tool says, which must be a success."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content == json.loads(text_of(result))
    said: Json = result.structured_content
    return said


# --- tools


@both_generations
async def test_a_developer_uses_everything(server: Server, admin: Admin, mode: Mode, version: str) -> None:
    async with connected(server, bearer(admin), mode) as client:
        assert client.protocol_version == version
        assert await names_of_tools(client) >= ALL_TOOLS
        assert (await succeed(client, "chat", messages=MESSAGES, model="echo"))["response"]["content"] == "You said: hello"
        assert (await succeed(client, "list_agents"))["agents"]
        (workspace, *_) = (await succeed(client, "list_workspaces"))["workspaces"]
        assert (await succeed(client, "list_threads", slug=workspace["slug"]))["threads"]
        assert [each["active"] for each in (await succeed(client, "list_embed_providers"))["providers"]].count(True) == 1


@both_generations
async def test_an_app_is_shown_and_may_use_only_what_it_was_granted(server: Server, admin: Admin, mode: Mode, version: str) -> None:
    app_id = admin.register("Worker", granted=("activities.read", "activities.write"))
    async with connected(server, {"X-App-Id": app_id}, mode) as client:
        assert await names_of_tools(client) == ACTIVITY_TOOLS | OPEN_TOOLS
        made = (await succeed(client, "create_activity", raw_data={"n": 1}))["data"]
        assert (await succeed(client, "get_activity", id=made["id"]))["data"] == made
        changed = (await succeed(client, "update_activity", id=made["id"], status="claimed", locked_by="me"))["data"]
        assert (changed["status"], changed["locked_by"]) == ("claimed", "me")
        assert (await succeed(client, "list_activities", status="claimed", limit=5))["data"] == [changed]

        refused = await client.call_tool("chat", {"messages": MESSAGES})
        assert refused.is_error
        assert "Permission: llm.chat" in text_of(refused)
        admin.grant(app_id, "llm.chat")
        assert (await succeed(client, "chat", messages=MESSAGES, model="echo"))["success"] is True
        assert await names_of_tools(client) == ACTIVITY_TOOLS | OPEN_TOOLS | {"chat"}


async def test_what_belongs_to_another_app_is_not_found(server: Server, admin: Admin) -> None:
    owner, other = (admin.register(name, granted=("activities.read", "activities.write")) for name in ("Owner", "Other"))
    async with connected(server, {"X-App-Id": owner}) as client:
        made = (await succeed(client, "create_activity", raw_data={}))["data"]
    async with connected(server, {"X-App-Id": other}) as client:
        found = await client.call_tool("get_activity", {"id": made["id"]})
        assert found.is_error
        assert "Code: NOT_FOUND" in text_of(found)
        assert (await succeed(client, "list_activities"))["data"] == []


async def test_texts_are_embedded_stored_and_found(server: Server, admin: Admin) -> None:
    app_id = admin.register("Librarian", granted=("llm.embed", "vectors.read", "vectors.write"))
    async with connected(server, {"X-App-Id": app_id}) as client:
        texts = ["Beetroot likes sun.", "Interest rates rose."]
        embedded = await succeed(client, "embed_texts", input=texts)
        records = [{"id": text, "vector": vector} for text, vector in zip(texts, embedded["embeddings"], strict=True)]
        assert (await succeed(client, "upsert_vectors", vectors=records, workspaceId="notes"))["upserted"] == 2
        found = await succeed(client, "query_vectors", text="garden vegetables", topK=1, workspaceId="notes")
        assert [each["id"] for each in found["results"]] == ["Beetroot likes sun."]
        assert (await succeed(client, "list_vector_workspaces"))["workspaces"] == ["notes"]

        job = (await succeed(client, "ingest_documents", documents=[{"id": "a", "text": "The spade stands behind the shed."}]))["job"]
        assert (await succeed(client, "get_ingest_job", job_id=job["id"]))["job"]["total"] in (0, 1)


async def test_a_conversation_with_an_agent_goes_on_from_call_to_call(server: Server, admin: Admin) -> None:
    admin.call("POST", "/agents", {"display_name": "Asked by tools", "slug": "asked-by-tools", "model": "echo"})
    app_id = admin.register("Delegator", granted=("agent.chat",))
    async with connected(server, {"X-App-Id": app_id}) as client:
        assert await names_of_tools(client) == {"chat_with_agent", "create_agent_session", "get_agent_session"} | OPEN_TOOLS
        session_id = (await succeed(client, "create_agent_session", agent_name="asked-by-tools"))["session"]["session_id"]
        for count in (2, 4):
            answer = (await succeed(client, "chat_with_agent", session_id=session_id, message="hello"))["response"]
            assert (answer["text"], answer["message_count"]) == ("You said: hello", count)
        assert (await succeed(client, "get_agent_session", session_id=session_id))["session"]["message_count"] == 4


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("list_activities", {"limit": 0}, "arguments/limit"),
        ("list_activities", {"limt": 1}, "'limt' was unexpected"),
        ("get_activity", {}, "id"),
        ("chat", {"messages": [{"role": "user"}]}, "arguments/messages/0"),
        ("chat", {"messages": MESSAGES, "provider": "nobody"}, "is not configured"),
        ("get_activity", {"id": "../agents"}, "Code: NOT_FOUND"),
    ],
)
async def test_arguments_that_do_not_fit_are_explained(server: Server, admin: Admin, name: str, arguments: Json, told: str) -> None:
    async with connected(server, bearer(admin)) as client:
        result = await client.call_tool(name, arguments)
        assert result.is_error
        assert told in text_of(result)


@both_generations
async def test_an_unknown_tool_is_an_error_of_the_protocol(server: Server, admin: Admin, mode: Mode, version: str) -> None:
    async with connected(server, bearer(admin), mode) as client:
        with pytest.raises(MCPError, match="There is no tool 'delete_everything'") as caught:
            await client.call_tool("delete_everything", {})
        assert caught.value.error.code == -32602


@both_generations
async def test_fifty_calls_at_once_are_answered_each_with_its_own(server: Server, admin: Admin, mode: Mode, version: str) -> None:
    async with connected(server, bearer(admin), mode) as client:
        calls = (succeed(client, "chat", messages=[{"role": "user", "content": f"number {n}"}], model="echo") for n in range(50))
        answers = await asyncio.gather(*calls)
    assert [each["response"]["content"] for each in answers] == [f"You said: number {n}" for n in range(50)]


async def test_a_call_that_is_cancelled_stops_the_model(server: Server, admin: Admin, upstream: RunningUpstream) -> None:
    async with connected(server, bearer(admin)) as client:
        calling = asyncio.create_task(client.call_tool("chat", {"messages": MESSAGES, "model": "stall"}))
        await asyncio.to_thread(eventually, lambda: upstream.state.open, lambda count: count == 1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.to_thread(eventually, lambda: upstream.state.cancelled, lambda count: count == 1)
        assert (await succeed(client, "list_agents"))["success"] is True


async def test_the_log_tells_the_tool_and_the_operation_under_the_id_of_the_request(server: Server, admin: Admin) -> None:
    async with connected(server, bearer(admin) | {"X-Request-Id": "from-an-mcp-client"}) as client:
        await succeed(client, "list_agents")
    lines = [line for line in server.logged("tool call") if line.get("request_id") == "from-an-mcp-client"]
    assert [(line["tool"], line["operation"], line["status"]) for line in lines] == [("list_agents", "local_apps.agents.list_agents", 200)]
    requests = [line for line in server.logged("request") if line.get("request_id") == "from-an-mcp-client"]
    assert {line["operation"] for line in requests} == {"system.mcp.send_message"}


# --- server processes


class Alternating(httpx2.AsyncHTTPTransport):
    """Sends every message to the other of two servers, as a balancer may."""

    def __init__(self, *servers: Server) -> None:
        super().__init__()
        self.ports = [server.port for server in servers]
        self.sent: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.ports.reverse()
        self.sent.append(self.ports[0])
        request.url = request.url.copy_with(port=self.ports[0])
        return await super().handle_async_request(request)


@both_generations
async def test_any_process_can_answer_any_message(servers: Servers, mode: Mode, version: str) -> None:
    first = servers.start(f"pair-{mode}")
    second = servers.start(f"pair-{mode}")
    headers = {"Authorization": f"Bearer {first.first_key}"}
    transport = Alternating(first, second)
    async with connected(first, headers, mode, transport) as client:
        made = [(await succeed(client, "create_activity", raw_data={"n": n}))["data"]["id"] for n in range(6)]
        assert [each["id"] for each in (await succeed(client, "list_activities"))["data"]] == made[::-1]
    assert min(transport.sent.count(port) for port in (first.port, second.port)) >= 3


# --- HTTP


def post(server: Server, said: Any, **headers: str) -> httpx.Response:
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    headers = {"Content-Type": "application/json"} | headers
    return httpx.post(f"{server.url}/mcp", content=content, headers=headers, timeout=TIMEOUT_S, trust_env=False)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_every_credential_that_the_rest_of_the_server_takes_is_taken(server: Server, admin: Admin) -> None:
    app_id = admin.register("Any", granted=("api.agents",))
    for headers in (
        bearer(admin),
        {"x-api-key": admin.key},
        {"x-app-id": app_id},
        {"Authorization": "Bearer a-users-own", "x-app-id": app_id},
    ):
        assert post(server, INITIALIZE, **headers).json()["result"]["serverInfo"]["name"] == "homeport"


async def test_strangers_and_wrong_keys_are_told_how_to_authenticate(server: Server, admin: Admin) -> None:
    wrong = f"{admin.key[:-1]}{'a' if admin.key[-1] != 'a' else 'b'}"
    for headers, code in (
        ({}, "missing-app-id"),
        ({"Authorization": f"Bearer {wrong}"}, "invalid-api-key"),
        ({"x-api-key": wrong}, "invalid-api-key"),
        ({"x-app-id": "nobody"}, "invalid-app-id"),
    ):
        answer = post(server, INITIALIZE, **headers)
        assert_problem(answer, 401, code)
        assert answer.headers["www-authenticate"] == 'Bearer realm="homeport"'
    with pytest.raises((MCPError, ExceptionGroup)):
        async with connected(server, {"x-api-key": wrong}) as client:
            await client.list_tools()


def test_pages_and_foreign_names_are_kept_out(server: Server, admin: Admin) -> None:
    assert_problem(post(server, INITIALIZE, **bearer(admin), Host="attacker.example"), 421, "misdirected-request")
    assert_problem(post(server, INITIALIZE, **bearer(admin), Origin="https://attacker.example"), 403, "origin-not-allowed")
    assert_problem(post(server, INITIALIZE, **bearer(admin), **{"Sec-Fetch-Site": "cross-site"}), 403, "origin-not-allowed")


NO_MESSAGES = {
    "nothing": b"",
    "half": b"{",
    "no UTF-8": b"\xff",
    "empty batch": b"[]",
    "batch": [INITIALIZE, INITIALIZE],
    "number": b"5",
    "deep": b"[" * 5000,
    "another version": {"jsonrpc": "1.0", "id": 1, "method": "ping"},
    "no method": {"jsonrpc": "2.0", "id": 1},
}


@pytest.mark.parametrize("said", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_refused(server: Server, admin: Admin, said: Any) -> None:
    assert_problem(post(server, said, **bearer(admin)), 400, "validation-error")


def test_other_types_and_sizes_are_refused(server: Server, admin: Admin) -> None:
    assert_problem(post(server, b"x=1", **bearer(admin), **{"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    lines = ["Host: localhost", f"x-api-key: {admin.key}", "Content-Type: application/json", "Content-Length: 99999999"]
    head = "".join(f"{line}\r\n" for line in ["POST /mcp HTTP/1.1", *lines, ""])
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_streams_and_no_sessions(server: Server, admin: Admin, method: str) -> None:
    headers = bearer(admin) | {"Accept": "text/event-stream"}
    answer = httpx.request(method, f"{server.url}/mcp", headers=headers, timeout=TIMEOUT_S, trust_env=False)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert "mcp-session-id" not in post(server, INITIALIZE, **bearer(admin)).headers


def test_a_plain_http_client_gets_json_whatever_it_accepts(server: Server, admin: Admin) -> None:
    for accept in ("*/*", "application/json", "text/event-stream"):
        answer = post(server, {"jsonrpc": "2.0", "id": "a", "method": "tools/list"}, **bearer(admin), Accept=accept)
        assert (answer.status_code, answer.headers["content-type"], answer.json()["id"]) == (200, "application/json", "a")


def test_methods_that_are_not_served_are_errors_of_the_protocol(server: Server, admin: Admin) -> None:
    answer = post(server, {"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, **bearer(admin))
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32601)
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    unserved: dict[str, Json] = {"resources/list": {}, "subscriptions/listen": {"notifications": {}}}
    for method, params in unserved.items():
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        answer = post(server, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}, **bearer(admin), **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
        assert answer.json()["id"] == 1
