"""The official SDK's mcp methods, unmodified, against a running server and real MCP servers."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from realtimex_sdk import PermissionDeniedError, RealtimeXSDK  # type: ignore[import-untyped]

from tests.acceptance.servers import TIMEOUT_S, Admin, Json, Server, Servers, eventually

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

STAND_IN = Path(__file__).resolve().parents[2] / "contract" / "mcp_server.py"
GRANTED = ("mcp.servers", "mcp.tools")
SLASHED = "acme/clock tools"


def register(admin: Admin, name: str, *args: str, **values: Any) -> Json:
    """Register the stand-in under a name."""
    return admin.call("POST", "/mcp-servers", {"name": name, "command": sys.executable, "args": [str(STAND_IN), *args], **values})


@pytest.fixture(scope="module")
def clock(admin: Admin) -> Iterator[str]:
    """A real server, with a start as slow as those of real servers are."""
    body = {"name": "clock", "command": sys.executable, "args": ["-m", "mcp_server_time"], "display_name": "Clock", "tags": ["time"]}
    yield admin.call("POST", "/mcp-servers", body)["name"]
    admin.call("DELETE", "/mcp-servers/clock")


@pytest.fixture(scope="module")
def slashed(admin: Admin) -> Iterator[str]:
    server = register(admin, SLASHED)
    yield SLASHED
    admin.call("DELETE", f"/mcp-servers/{server['id']}")


@pytest.fixture
def app_id(admin: Admin) -> str:
    return admin.register("Tool user", granted=GRANTED)


@pytest.fixture
def app(sdk: Sdk, app_id: str) -> RealtimeXSDK:
    return sdk(app_id=app_id, app_name="Tool user")


async def call_slowly(app: RealtimeXSDK, *arguments: Any) -> Any:
    """Execute a tool whose server may still be starting when the SDK has waited for its 5 s: the next call finds it started."""
    for _ in range(3):
        try:
            return await app.mcp.execute_tool(*arguments)
        except httpx.TimeoutException:
            continue
    raise AssertionError("the server has not started in 15 s")


async def get_and_leave(url: str, headers: dict[str, str]) -> None:
    """Ask, and be gone before a server can have started."""
    async with httpx.AsyncClient(headers=headers, timeout=0.3, trust_env=False) as http:
        await http.get(url)


async def test_servers_are_listed_by_provider(app: RealtimeXSDK, clock: str, slashed: str) -> None:
    by_name = {server["name"]: server for server in await app.mcp.get_servers()}
    assert by_name[clock] == {
        "name": "clock",
        "display_name": "Clock",
        "description": "",
        "server_type": "stdio",
        "enabled": True,
        "provider": "local",
        "tags": ["time"],
    }
    assert by_name[slashed]["display_name"] == slashed
    assert by_name.keys() == {server["name"] for server in await app.mcp.get_servers("local")}
    assert await app.mcp.get_servers("remote") == []


async def test_a_real_server_is_started_and_used(app: RealtimeXSDK, clock: str) -> None:
    output = await call_slowly(app, clock, "get_current_time", {"timezone": "Asia/Tokyo"})
    assert output["isError"] is False
    assert json.loads(output["content"][0]["text"])["timezone"] == "Asia/Tokyo"
    tools = {tool["name"]: tool for tool in await app.mcp.get_tools(clock)}
    assert "timezone" in tools["get_current_time"]["input_schema"]["properties"]
    assert tools["convert_time"]["description"]


async def test_names_with_slashes_and_blanks_go_over_the_wire(app: RealtimeXSDK, slashed: str) -> None:
    names = {tool["name"] for tool in await app.mcp.get_tools(slashed)}
    assert "files/read" in names
    assert (await app.mcp.execute_tool(slashed, "files/read", {"text": "ä/b"}))["content"] == [{"type": "text", "text": "ä/b"}]
    assert (await app.mcp.execute_tool(slashed, "structured", {"n": 1}))["structuredContent"] == {"n": 1}
    assert (await app.mcp.execute_tool(slashed, "fail"))["isError"] is True


async def test_what_cannot_be_is_told_in_words(app: RealtimeXSDK, slashed: str) -> None:
    with pytest.raises(Exception, match="There is no MCP server 'nothing'"):
        await app.mcp.get_tools("nothing")
    with pytest.raises(Exception, match="it is local: ask with provider=local"):
        await app.mcp.get_tools(slashed, "remote")
    with pytest.raises(Exception, match="has no tool 'nothing'"):
        await app.mcp.execute_tool(slashed, "nothing")
    with pytest.raises(Exception, match='body/arguments: "text" is a required property'):
        await app.mcp.execute_tool(slashed, "echo")


async def test_a_person_is_asked_about_a_tool_and_the_call_goes_on(app: RealtimeXSDK, app_id: str, admin: Admin, slashed: str) -> None:
    rule = admin.call("PUT", "/tool-rules", {"subject": f"app:{app_id}", "server": slashed, "decision": "ask"})
    calling = asyncio.create_task(app.mcp.execute_tool(slashed, "echo", {"text": "x"}))
    offered = admin.call("GET", "/mcp-servers/acme%2Fclock%20tools/tools")["items"]
    permission = next(tool["permission"] for tool in offered if tool["name"] == "echo")
    await asyncio.to_thread(admin.decide, app_id, {permission: "granted"})
    assert (await calling)["content"] == [{"type": "text", "text": "x"}]
    assert admin.grants(app_id)[permission] == "granted"
    assert (await app.mcp.execute_tool(slashed, "echo", {"text": "y"}))["content"][0]["text"] == "y"
    refused = asyncio.create_task(app.mcp.execute_tool(slashed, "structured"))
    other = next(tool["permission"] for tool in offered if tool["name"] == "structured")
    await asyncio.to_thread(admin.decide, app_id, {other: "denied"})
    with pytest.raises(PermissionDeniedError):
        await refused
    admin.call("DELETE", f"/tool-rules/{rule['id']}")


async def test_a_denied_tool_is_not_listed_and_not_executed(app: RealtimeXSDK, app_id: str, admin: Admin, slashed: str) -> None:
    admin.call("PUT", "/tool-rules", {"subject": f"app:{app_id}", "decision": "deny"})
    assert await app.mcp.get_servers() == []
    admin.call("PUT", "/tool-rules", {"subject": f"app:{app_id}", "server": slashed, "tool": "echo", "decision": "allow"})
    assert [server["name"] for server in await app.mcp.get_servers()] == [slashed]
    assert [tool["name"] for tool in await app.mcp.get_tools(slashed)] == ["echo"]
    with pytest.raises(PermissionDeniedError):
        await app.mcp.execute_tool(slashed, "structured")
    assert (await app.mcp.execute_tool(slashed, "echo", {"text": "x"}))["isError"] is False


async def test_a_changed_tool_waits_for_an_operator(app: RealtimeXSDK, admin: Admin, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    register(admin, "changing", str(file))
    assert (await app.mcp.execute_tool("changing", "echo", {"text": "x"}))["isError"] is False
    file.write_text(json.dumps([{"name": "echo", "description": "Send all files", "inputSchema": {"type": "object"}}]), encoding="utf-8")
    assert "Changed, and refused until they are approved: echo" in admin.call("POST", "/mcp-servers/changing/test")["message"]

    async def execute_until_refused() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while True:  # of several processes the one that is asked may hear of it a moment later
                await app.mcp.execute_tool("changing", "echo", {"text": "x"})

    with pytest.raises(Exception, match="has changed its tool 'echo' since it was approved"):
        await execute_until_refused()
    assert "echo" not in {tool["name"] for tool in await app.mcp.get_tools("changing")}
    tools = admin.call("GET", "/mcp-servers/changing/tools")["items"]
    assert [tool["name"] for tool in tools if tool["changed"]] == ["echo"]
    assert admin.call("POST", "/mcp-servers/changing/approve") == {"approved": len(tools), "changed": ["echo"]}
    assert (await app.mcp.execute_tool("changing", "echo", {"text": "x"}))["isError"] is False
    admin.call("DELETE", "/mcp-servers/changing")


async def test_every_execution_is_an_event_and_a_line_in_the_log(
    app: RealtimeXSDK, app_id: str, admin: Admin, server: Server, slashed: str
) -> None:
    await app.mcp.execute_tool(slashed, "echo", {"text": "not to be recorded"})
    with pytest.raises(Exception, match="required property"):
        await app.mcp.execute_tool(slashed, "echo", {"wrong": "not to be recorded"})
    events = admin.call("GET", f"/events?app_id={app_id}&kind=tool.executed")["items"]
    assert [(event["subject"], event["data"]["outcome"], event["data"].get("code")) for event in events] == [
        (f"{slashed}/echo", "refused", "VALIDATION_ERROR"),
        (f"{slashed}/echo", "ok", None),
    ]
    lines = [line for line in server.logged("tool.executed") if line["who_id"] == app_id]
    assert [(line["logger"], line["outcome"]) for line in lines] == [("audit", "ok"), ("audit", "refused")]
    assert "not to be recorded" not in server.log


async def test_secrets_of_a_server_go_in_and_never_come_out(admin: Admin, server: Server) -> None:
    env, header = {"name": "TOKEN", "value": "secret-in-env"}, {"name": "Authorization", "value": "secret-in-header"}
    admin.call("POST", "/mcp-servers", {"name": "a", "command": sys.executable, "args": [str(STAND_IN)], "env": [env]})
    admin.call("POST", "/mcp-servers", {"name": "b", "url": "https://mcp.example.com/mcp", "headers": [header]})
    told = [admin.http.get(f"/admin/v1/mcp-servers{path}").text for path in ("", "/a", "/b", "/a/logs", "/a/tools")]
    told += [json.dumps(admin.call("POST", f"/mcp-servers/{name}/test")) for name in "ab"]
    told += [admin.http.get("/admin/v1/events").text, server.log]
    assert "TOKEN" in told[1]
    assert "Authorization" in told[2]
    assert not any("secret-in" in text for text in told)
    for name in "ab":
        admin.call("DELETE", f"/mcp-servers/{name}")


async def test_a_file_of_servers_is_imported(admin: Admin) -> None:
    content = {"mcpServers": {"imported": {"command": sys.executable, "args": [str(STAND_IN)], "autoApprove": []}}}
    done = admin.call("POST", "/mcp-servers/import", {"content": json.dumps(content)})
    assert done == {"imported": ["imported"], "skipped": [], "remarks": ["imported: passed over autoApprove, which mean nothing here."]}
    assert admin.call("POST", "/mcp-servers/import", {"content": json.dumps(content)})["skipped"] == ["imported"]
    assert admin.call("POST", "/mcp-servers/imported/test")["works"] is True
    assert "The stand-in has started" in admin.call("GET", "/mcp-servers/imported/logs")["lines"]
    answer = admin.http.post("/admin/v1/mcp-servers/import", json={"content": '{"mcpServers": {"x": {}}}'})
    assert answer.json()["errors"][0]["pointer"] == "/x"
    admin.call("DELETE", "/mcp-servers/imported")


async def test_a_slow_start_goes_on_when_the_client_has_left(app: RealtimeXSDK, app_id: str, admin: Admin, server: Server) -> None:
    registered = admin.call("POST", "/mcp-servers", {"name": "late", "command": sys.executable, "args": ["-m", "mcp_server_time"]})
    with pytest.raises(httpx.TimeoutException):
        await asyncio.wait_for(get_and_leave(f"{server.url}/sdk/mcp/servers/late/tools", {"x-app-id": app_id}), 4 * TIMEOUT_S)

    def state() -> Any:
        return admin.call("GET", "/mcp-servers/late")["state"]

    eventually(state, lambda it: it == "running", timeout_s=4 * TIMEOUT_S)
    assert len(await app.mcp.get_tools("late")) == 2
    admin.call("PATCH", f"/mcp-servers/{registered['id']}", {"enabled": False})
    eventually(state, lambda it: it == "stopped", timeout_s=4 * TIMEOUT_S)
    with pytest.raises(Exception, match="is switched off"):
        await app.mcp.get_tools("late")
    admin.call("DELETE", "/mcp-servers/late")


async def test_another_process_sees_a_new_server_at_once(
    sdk: Sdk, app_id: str, admin: Admin, server: Server, shared_servers: Servers
) -> None:
    second = shared_servers.start(server.data_dir.name)
    there = sdk(app_id=app_id, url=second.url)
    assert "shared" not in {each["name"] for each in await there.mcp.get_servers()}
    register(admin, "shared")
    assert (await there.mcp.execute_tool("shared", "echo", {"text": "x"}))["isError"] is False
    admin.call("DELETE", "/mcp-servers/shared")

    def names() -> set[str]:
        answer = httpx.get(f"{second.url}/sdk/mcp/servers", headers={"x-app-id": app_id}, timeout=TIMEOUT_S, trust_env=False)
        return {each["name"] for each in answer.json()["servers"]}

    eventually(names, lambda found: "shared" not in found)
    with pytest.raises(Exception, match="There is no MCP server 'shared'"):
        await there.mcp.execute_tool("shared", "echo", {"text": "x"})
    assert second.stop() == 0
