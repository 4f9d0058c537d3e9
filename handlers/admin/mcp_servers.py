"""MCP servers: registered, looked at, tried, changed, and their tools approved. Secrets go in and never come out."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.paging import slice_page
from homeport.tools import McpServer, OfferedTool, ServerDraft, find_problem, tool_permission

SORTED_LENGTH = 50


async def list_servers(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List the servers by name."""
    servers = await home.tools.servers.list()
    page = slice_page(servers, lambda each: _position(each.name, str(each.id)), scope="mcp_servers", limit=limit, cursor=cursor)
    return page.render(lambda server: _server(home, server))


async def register_server(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Register a server."""
    return _server(home, await home.tools.servers.add(ServerDraft(**_given(body)), principal=principal))


async def import_servers(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Register what stands in a file."""
    imported = await home.tools.servers.import_file(body["content"], replace=body.get("replace", False), principal=principal)
    return {"imported": imported.imported, "skipped": imported.skipped, "remarks": imported.remarks}


async def get_server(home: Home, server: str) -> dict[str, Any]:
    """Return one server."""
    return _server(home, await home.tools.servers.get(server))


async def update_server(home: Home, principal: Principal, server: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change a server."""
    return _server(home, await home.tools.servers.update(server, _given(body), principal=principal))


async def remove_server(home: Home, principal: Principal, server: str) -> dict[str, Any]:
    """Remove a server."""
    return _server(home, await home.tools.servers.remove(server, principal=principal))


async def test_server(home: Home, server: str) -> dict[str, Any]:
    """Try a server."""
    tested = await home.tools.test(server)
    return {"works": tested.works, "message": tested.message}


async def get_log(home: Home, server: str, lines: int = 100) -> dict[str, Any]:
    """The last lines of a server's log."""
    return {"lines": await home.tools.servers.read_log(server, lines)}


async def list_tools(home: Home, server: str, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List all tools of a server."""
    found = await home.tools.servers.get(server)
    offered = await home.tools.offered(found.name)
    page = slice_page(
        offered, lambda each: _position(each.tool.name, each.fingerprint), scope=f"mcp_tools {found.id}", limit=limit, cursor=cursor
    )
    return page.render(lambda each: _tool(found.name, each))


async def approve_tools(home: Home, principal: Principal, server: str) -> dict[str, Any]:
    """Approve the tools of a server."""
    before = await home.tools.approve(server, principal=principal)
    return {"approved": len(before), "changed": [each.tool.name for each in before if each.is_changed]}


def _position(name: str, unique: str) -> str:
    """By name, but not longer than a cursor can hold."""
    return f"{name[:SORTED_LENGTH]}\t{unique}"


def _given(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body as the domain names them; variables and headers by name."""
    return {name: {each["name"]: each["value"] for each in value} if name in ("env", "headers") else value for name, value in body.items()}


def _server(home: Home, server: McpServer) -> dict[str, Any]:
    status = home.mcp.status(server.id)
    return {
        "id": str(server.id),
        "name": server.name,
        "display_name": server.display_name,
        "description": server.description,
        "tags": server.tags,
        "provider": server.provider,
        "transport": server.transport,
        "command": server.command,
        "args": server.args,
        "cwd": server.cwd,
        "env": sorted(server.env),
        "url": server.url,
        "headers": sorted(server.headers),
        "enabled": server.enabled,
        "timeout_s": server.timeout_s,
        "state": status.state,
        "problem": find_problem(server) or status.error,
        "created_at": format_time(server.created_at),
        "updated_at": format_time(server.updated_at),
    }


def _tool(server: str, offered: OfferedTool) -> dict[str, Any]:
    tool = offered.tool
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "input_schema": tool.input_schema,
        "is_read_only": tool.is_read_only,
        "is_destructive": tool.is_destructive,
        "is_idempotent": tool.is_idempotent,
        "permission": tool_permission(server, tool.name),
        "changed": offered.is_changed,
    }
