"""MCP servers as they are kept: added, changed, imported, removed, and what may not be."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.tools import ServerDraft, find_problem
from tests.integration.parts import key_principal
from tests.integration.tool_parts import STAND_IN, ToolParts, open_tools

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[ToolParts]:
    async with open_tools(database_url, tmp_path) as parts:
        yield parts


async def test_secrets_are_stored_encrypted_and_read_again(here: ToolParts) -> None:
    added = await here.add("time", env={"TOKEN": "secret-1"})
    await here.tools.servers.add(ServerDraft("docs", url="https://mcp.example.com/mcp", headers={"Authorization": "secret-2"}))
    rows = await here.parts.run_sql("SELECT mcp_servers::text FROM mcp_servers")
    assert "secret" not in "".join(str(row) for row in rows)
    assert "secret" not in repr(await here.tools.servers.list())
    spec = here.tools.servers.spec_of(await here.tools.servers.get(str(added.id)))
    assert spec.target.env == {"TOKEN": "secret-1"}  # type: ignore[union-attr]
    assert (await here.tools.servers.get("docs")).headers == {"Authorization": "secret-2"}


async def test_a_session_is_another_one_only_when_what_it_starts_from_changes(here: ToolParts) -> None:
    await here.add()
    servers = here.tools.servers

    async def revision() -> str:
        return servers.spec_of(await servers.get("time")).revision

    first = await revision()
    await servers.update("time", {"description": "x", "tags": ["a"], "display_name": "Time", "enabled": False})
    assert await revision() == first
    changed = await servers.update("time", {"env": {"A": "1"}, "cwd": "/tmp"})
    assert (second := await revision()) != first
    assert (changed.cwd, changed.tags, changed.enabled) == ("/tmp", ("a",), False)
    await servers.update("time", {"cwd": None, "env": {}})
    assert await revision() == first != second
    assert (await servers.get("time")).updated_at > (await servers.get("time")).created_at


async def test_what_may_not_be_is_refused_and_nothing_is_stored(here: ToolParts) -> None:
    await here.add()
    servers = here.tools.servers
    with pytest.raises(Conflict) as taken:
        await here.add()
    assert taken.value.code == "MCP_SERVER_EXISTS"
    wrong: list[dict[str, Any]] = [
        {"name": str(uuid4()), "command": "x"},
        {"name": " ", "command": "x"},
        {"name": "a\nb", "command": "x"},
        {"name": "x", "command": "bin/x"},
        {"name": "x", "command": ""},
        {"name": "x", "command": "x", "cwd": "relative"},
        {"name": "x", "command": "x", "transport": "http"},
        {"name": "x", "command": "x", "headers": {"A": "b"}},
        {"name": "x", "command": "x", "timeout_s": 0},
        {"name": "x", "command": "x", "args": ["a\0b"]},
        {"name": "x", "command": "x", "env": {"": "b"}},
        {"name": "x", "url": "ftp://mcp.example.com"},
        {"name": "x", "url": "https://user@mcp.example.com"},
        {"name": "x", "url": "https://mcp.example.com/#a"},
        {"name": "x", "url": "https://mcp.example.com", "headers": {"content-length": "1"}},
        {"name": "x", "url": "https://mcp.example.com", "headers": {"A": "b\r\nC: d"}},
        {"name": "x"},
    ]
    for values in wrong:
        with pytest.raises(InvalidRequest):
            await servers.add(ServerDraft(**values))
    with pytest.raises(InvalidRequest, match="has no url"):
        await servers.update("time", {"url": "https://mcp.example.com"})
    with pytest.raises(NotFound):
        await servers.update("nothing", {"enabled": False})
    assert [server.name for server in await servers.list()] == ["time"]


async def test_a_program_that_is_not_there_is_stored_and_its_problem_told(here: ToolParts) -> None:
    added = await here.tools.servers.add(ServerDraft("later", command="no-such-program-here"))
    assert "not on the server's PATH" in (find_problem(added) or "")
    tested = await here.tools.test("later")
    assert not tested.works
    assert "Install it" in tested.message
    good = await here.add()
    assert find_problem(good) is None
    assert find_problem(await here.tools.servers.update("time", {"cwd": "/no/such/folder"})) == (
        "The working directory /no/such/folder does not exist."
    )


async def test_a_file_is_imported_whole_or_not_at_all(here: ToolParts) -> None:
    await here.add("kept", description="as it was")
    entry = {"command": sys.executable, "args": [str(STAND_IN)]}
    servers = here.tools.servers
    with pytest.raises(InvalidRequest):
        await servers.import_file(json.dumps({"mcpServers": {"good": entry, "bad": {}}}))
    assert [server.name for server in await servers.list()] == ["kept"]
    content = json.dumps({"mcpServers": {"good": entry, "kept": entry | {"env": {"A": "b"}, "description": "new"}}})
    done = await servers.import_file(content)
    assert (done.imported, done.skipped) == (["good"], ["kept"])
    before = await servers.get("kept")
    assert before.description == "as it was"
    done = await servers.import_file(content, replace=True)
    assert (done.imported, done.skipped) == (["good", "kept"], [])
    after = await servers.get("kept")
    assert (after.id, after.description, after.env) == (before.id, "new", {"A": "b"})
    assert (await here.tools.test("good")).works


async def test_what_is_done_to_servers_is_recorded_without_their_secrets(here: ToolParts) -> None:
    principal = key_principal((await here.parts.app()).id)
    draft = ServerDraft("docs", url="https://mcp.example.com/mcp?key=secret", headers={"A": "secret"})
    await here.tools.servers.add(draft, principal=principal)
    await here.tools.servers.update("docs", {"description": "x"}, principal=principal)
    await here.tools.servers.remove("docs", principal=principal)
    events = await here.all_events()
    assert [event.kind for event in events] == ["mcp_server.removed", "mcp_server.changed", "mcp_server.added"]
    assert all(event.data == {"by": "key:Key", "transport": "http", "url": "https://mcp.example.com/mcp"} for event in events)


async def test_a_server_that_is_removed_leaves_nothing_but_its_rules(here: ToolParts) -> None:
    server = await here.add()
    await here.tools.rules.set("everybody", "time", "echo", "deny", by="test")
    assert (await here.tools.test("time")).works
    assert await here.tools.servers.read_log("time", 10)
    assert here.tools.servers.log_path(server).exists()
    await here.tools.servers.remove("time")
    assert not here.tools.servers.log_path(server).exists()
    assert await here.parts.run_sql("SELECT * FROM mcp_tools") == []
    assert here.sessions.status(server.id).state == "stopped"
    await here.add()
    assert "echo" not in {tool.name for tool in await here.tools.list(await here.parts.app(), "time")}
