"""Built-in tools in the registry: the same rules, the same record, and a gate of their own for agents that work for somebody."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from homeport.errors import InvalidRequest, NotFound, PermissionMissing, Unauthorized, UpstreamTimeout
from homeport.identity import Principal
from homeport.tools import (
    BUILTIN_SERVER,
    EVERYBODY,
    BuiltinTool,
    McpTool,
    ServerDraft,
    ToolContext,
    ToolOutput,
    agent_subject,
    app_subject,
    parse_pattern,
    tool_permission,
)
from tests.integration.parts import key_principal
from tests.integration.tool_parts import ToolParts, open_tools

pytestmark = pytest.mark.anyio

AGENT = "@agent"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
OWN = tool_permission(BUILTIN_SERVER, "note")


async def note(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
    return ToolOutput([{"type": "text", "text": f"{arguments['text']} for {context.principal.name} in {context.workspace}"}])


async def hang(_context: ToolContext, _arguments: Mapping[str, Any]) -> ToolOutput:
    await asyncio.Event().wait()
    raise AssertionError


async def fail_slowly(_context: ToolContext, _arguments: Mapping[str, Any]) -> ToolOutput:
    raise TimeoutError("of its own")


TOOLS = (
    BuiltinTool(McpTool("note", None, "Notes.", SCHEMA), "notes.write", note),
    BuiltinTool(McpTool("hang", None, "Hangs.", {"type": "object"}), None, hang),
    BuiltinTool(McpTool("fail", None, "Fails.", {"type": "object"}), None, fail_slowly),
)


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[ToolParts]:
    async with open_tools(database_url, tmp_path) as parts:
        parts.tools.add_builtins(TOOLS)
        yield parts


def context_of(principal: Principal) -> ToolContext:
    return ToolContext(principal, AGENT, "default", uuid4())


async def use(here: ToolParts, principal: Principal, tool: str = "note", *, server: str = BUILTIN_SERVER, **values: Any) -> ToolOutput:
    """Execute a tool as the agent does."""
    return await here.tools.execute(
        principal, server, tool, {"text": "x"} if tool in ("note", "echo") else {}, context=context_of(principal), **values
    )


async def missing(here: ToolParts, principal: Principal, tool: str = "note", **values: Any) -> tuple[str, str]:
    """The permission that is missing, and how it is told."""
    with pytest.raises(PermissionMissing) as caught:
        await use(here, principal, tool, **values)
    return caught.value.permission, caught.value.code


async def granted(here: ToolParts, *permissions: str) -> Principal:
    app = await here.parts.app()
    for permission in permissions:
        await here.parts.permissions.set_grant(app.id, permission, "granted", "test")
    return app


async def test_a_built_in_tool_is_executed_and_recorded_like_any_other(here: ToolParts) -> None:
    app, run = await granted(here, "notes.write"), uuid4()
    output = await here.tools.execute(app, BUILTIN_SERVER, "note", {"text": "x"}, context=ToolContext(app, AGENT, "home", run))
    assert output.content[0]["text"] == "x for App in home"
    (recorded,) = await here.executed()
    assert recorded.pop("duration_ms") >= 0
    assert recorded == {
        "by": "app:App",
        "server": "homeport",
        "tool": "note",
        "agent": AGENT,
        "run_id": str(run),
        "decision": "allow",
        "outcome": "ok",
    }


async def test_only_the_calls_of_agents_reach_them(here: ToolParts) -> None:
    app = await granted(here, "notes.write", "mcp.tools")
    for principal, agent in ((app, None), (app, AGENT), (None, None)):
        with pytest.raises(NotFound) as caught:
            await here.tools.execute(principal, BUILTIN_SERVER, "note", {"text": "x"}, agent=agent)
        assert caught.value.code == "MCP_SERVER_NOT_FOUND"
    assert await here.tools.list_servers(app) == []
    with pytest.raises(NotFound):
        await here.tools.list(app, BUILTIN_SERVER)
    with pytest.raises(NotFound) as caught:
        await use(here, app, "nothing")
    assert caught.value.code == "MCP_TOOL_NOT_FOUND"


@pytest.mark.parametrize("name", ["homeport", "Homeport", " HOMEPORT "])
async def test_no_mcp_server_can_have_their_name(here: ToolParts, name: str) -> None:
    with pytest.raises(InvalidRequest, match="built in"):
        await here.tools.servers.add(ServerDraft(name, command="true"))
    with pytest.raises(InvalidRequest):
        await here.tools.servers.import_file(json.dumps({"mcpServers": {name: {"command": "true"}}}))
    assert parse_pattern("homeport/note", [BUILTIN_SERVER]) == ("homeport", "note")


async def test_an_app_needs_the_permission_of_the_tool_and_is_asked_for_it(here: ToolParts) -> None:
    app = await here.parts.app()
    assert await missing(here, app) == ("notes.write", "PERMISSION_REQUIRED")
    assert (await use(here, app, approved=True)).content, "a person has allowed this call"
    assert await missing(here, app) == ("notes.write", "PERMISSION_REQUIRED"), "and only this one"
    await here.parts.permissions.set_grant(app.id, "notes.write", "granted", "test")
    assert (await use(here, app)).content
    await here.parts.permissions.set_grant(app.id, "notes.write", "denied", "test")
    for approved in (False, True):
        assert await missing(here, app, approved=approved) == ("notes.write", "PERMISSION_DENIED")
    await here.parts.apps.remove(str(app.id))
    for approved in (False, True):
        with pytest.raises(Unauthorized):
            await use(here, app, approved=approved)


@pytest.mark.parametrize("subject", ["everybody", "app", "agent"])
async def test_rules_count_for_them(here: ToolParts, subject: str) -> None:
    app = await granted(here, "notes.write")
    about = {"everybody": EVERYBODY, "app": app_subject(app.id), "agent": agent_subject(AGENT)}[subject]
    await here.tools.rules.set(about, BUILTIN_SERVER, "note", "ask", by="test")
    assert await missing(here, app) == (OWN, "PERMISSION_REQUIRED")
    assert (await use(here, app, approved=True)).content
    await here.tools.rules.set(about, BUILTIN_SERVER, "", "deny", by="test")
    await here.tools.rules.remove(str((await here.tools.rules.list(about))[1].id))
    for approved in (False, True):
        assert await missing(here, app, approved=approved) == (OWN, "PERMISSION_DENIED")
    assert await here.tools.list(app, BUILTIN_SERVER, agent=AGENT) == []
    await here.tools.rules.set(about, BUILTIN_SERVER, "note", "allow", by="test")
    assert [tool.name for tool in await here.tools.list(app, BUILTIN_SERVER, agent=AGENT)] == ["note"]
    assert (await use(here, app)).content


async def test_a_person_is_asked_for_a_key_only_where_a_rule_is_about_the_agent_itself(here: ToolParts) -> None:
    key = key_principal((await here.parts.app()).id)
    await here.tools.rules.set(EVERYBODY, "", "", "ask", by="test")
    assert (await use(here, key)).content, "a key that holds everything holds this, too"
    await here.tools.rules.set(agent_subject(AGENT), BUILTIN_SERVER, "note", "ask", by="test")
    assert await missing(here, key) == (OWN, "PERMISSION_REQUIRED")
    assert (await use(here, key, approved=True)).content
    await here.tools.rules.set(agent_subject(AGENT), BUILTIN_SERVER, "note", "allow", by="test")
    assert (await use(here, key)).content


async def test_nobody_is_asked_about_a_call_that_cannot_work(here: ToolParts) -> None:
    app = await here.parts.app()
    await here.add()
    await here.tools.rules.set(EVERYBODY, "", "", "ask", by="test")
    for server, tool in ((BUILTIN_SERVER, "note"), ("time", "echo")):
        with pytest.raises(InvalidRequest):
            await here.tools.execute(app, server, tool, {"text": 5}, context=context_of(app))


async def test_an_agent_may_use_the_tools_of_mcp_servers_only_for_who_holds_them(here: ToolParts) -> None:
    app, echo = await here.parts.app(), tool_permission("time", "echo")
    await here.add()
    assert await missing(here, app, "echo", server="time") == (echo, "PERMISSION_REQUIRED"), "the smaller one is asked for"
    assert (await use(here, app, "echo", server="time", approved=True)).content
    await here.parts.permissions.set_grant(app.id, echo, "granted", "test")
    assert (await use(here, app, "echo", server="time")).content
    assert (await missing(here, app, "structured", server="time"))[1] == "PERMISSION_REQUIRED"
    await here.parts.permissions.set_grant(app.id, "mcp.tools", "granted", "test")
    assert (await use(here, app, "structured", server="time")).structured == {}
    await here.parts.permissions.set_grant(app.id, "mcp.tools", "denied", "test")
    for approved in (False, True):
        assert await missing(here, app, "structured", server="time", approved=approved) == ("mcp.tools", "PERMISSION_DENIED")
    key = await here.parts.identity.authenticate_key((await here.parts.keys.create("Key", ["agent.chat"]))[1])
    assert key is not None
    assert await missing(here, key, "echo", server="time", approved=True) == ("mcp.tools", "PERMISSION_DENIED"), "scopes are fixed"


async def test_a_tool_that_an_agent_waits_for_has_a_time_limit(here: ToolParts) -> None:
    app = await granted(here, "mcp.tools")
    await here.add()
    with pytest.raises(UpstreamTimeout) as caught:
        await use(here, app, "hang", timeout_s=0.05)
    assert caught.value.code == "TOOL_TIMEOUT"
    with pytest.raises(TimeoutError, match="of its own"):
        await use(here, app, "fail", timeout_s=60.0)
    with pytest.raises(UpstreamTimeout) as caught:
        await here.tools.execute(app, "time", "slow", {"seconds": 20}, context=context_of(app), timeout_s=0.5)
    assert caught.value.code == "MCP_TIMEOUT"
    assert [each["outcome"] for each in await here.executed()] == ["failed"] * 3


async def test_progress_does_not_move_the_time_limit(here: ToolParts, own_url: str) -> None:
    app = await granted(here, "mcp.tools")
    await here.tools.servers.add(ServerDraft("own", url=own_url))
    await here.tools.list(app, "own")
    arguments = {"steps": 1000, "step_s": 0.05}
    with pytest.raises(UpstreamTimeout) as caught:
        await here.tools.execute(app, "own", "progress", arguments, context=context_of(app), timeout_s=0.5)
    assert caught.value.code == "MCP_TIMEOUT"
