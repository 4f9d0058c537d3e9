"""MCP servers and their tools: /sdk/mcp/servers…"""

from typing import Any, Literal

from homeport.home import Home
from homeport.identity import Principal
from homeport.tools import McpServer, McpTool, Provider


async def list_servers(home: Home, principal: Principal, provider: Literal["local", "remote", "all"] = "all") -> dict[str, Any]:
    """List the servers."""
    servers = await home.tools.list_servers(principal, provider=None if provider == "all" else provider)
    return {"success": True, "servers": [_server(server) for server in servers]}


async def list_tools(home: Home, principal: Principal, server: str, provider: Provider = "local") -> dict[str, Any]:
    """List the tools of a server."""
    tools = await home.tools.list(principal, server, provider=provider)
    return {"success": True, "server": server, "provider": provider, "tools": [_tool(tool) for tool in tools]}


async def execute_tool(
    home: Home, principal: Principal, server: str, tool: str, body: dict[str, Any], provider: Provider = "local"
) -> dict[str, Any]:
    """Execute a tool."""
    output = await home.tools.execute(principal, server, tool, body.get("arguments"), provider=provider)
    result: dict[str, Any] = {"content": output.content, "isError": output.is_error}
    if output.structured is not None:
        result["structuredContent"] = output.structured
    return {"success": True, "server": server, "tool": tool, "provider": provider, "result": result}


def _server(server: McpServer) -> dict[str, Any]:
    return {
        "name": server.name,
        "display_name": server.display_name or server.name,
        "description": server.description,
        "server_type": server.transport,
        "enabled": server.enabled,
        "provider": server.provider,
        "tags": server.tags,
    }


def _tool(tool: McpTool) -> dict[str, Any]:
    """A tool; what its server does not say is left out, but for the description, which the clients expect."""
    known = {"title": tool.title, "output_schema": tool.output_schema}
    return {
        "name": tool.name,
        "description": tool.description or "",
        "input_schema": tool.input_schema,
        **{name: value for name, value in known.items() if value is not None},
    }
