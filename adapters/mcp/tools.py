"""Tools and their results, out of the library's classes; and reading all tools of a server, within bounds."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

MAX_TOOLS = 1000
MAX_SCHEMA_BYTES = 1024 * 1024
MAX_PAGES = 100

ProgressCallback = Callable[[float, float | None, str | None], Coroutine[Any, Any, None]]
"""Called with how far a call is, of how much (None: unknown), and a word about it (None: none)."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as its server describes it; None: the server does not say. Texts and schemas are the server's: untrusted."""

    name: str
    title: str | None
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    is_read_only: bool | None = None
    is_destructive: bool | None = None
    is_idempotent: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a tool gave: ``content`` are MCP's content blocks under their names on the wire (``type``, ``text``, ``data``, ``mimeType``, …).

    ``is_error``: the tool itself says that it failed. ``structured``: the structured content, None without one; an object, or with
    the protocol of 2026 any JSON value. All of it is the server's: untrusted.
    """

    content: list[dict[str, Any]]
    is_error: bool = False
    structured: Any = None


@dataclass(frozen=True, slots=True)
class ToolList:
    """All tools of a server in the order of their names, and for how many seconds the server calls the list good.

    ``is_cut``: there were more than MAX_TOOLS, or more than MAX_SCHEMA_BYTES.
    """

    tools: list[McpTool]
    ttl_s: float
    is_cut: bool


async def read_tools(client: "Client") -> ToolList:
    """Every page of the tools of a server. Raises what the client raises."""
    found: dict[str, McpTool] = {}
    size_bytes = 0
    cursor: str | None = None
    ttl_s = 0.0
    for page_number in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        if page_number == 0:
            ttl_s = page.ttl_ms / 1000
        for tool in page.tools:
            size_bytes += len(orjson.dumps([tool.description, tool.input_schema, tool.output_schema]))
            if len(found) >= MAX_TOOLS or size_bytes > MAX_SCHEMA_BYTES:
                return ToolList(_ordered(found), ttl_s, is_cut=True)
            found.setdefault(tool.name, _to_tool(tool))
        if not (cursor := page.next_cursor):
            return ToolList(_ordered(found), ttl_s, is_cut=False)
    return ToolList(_ordered(found), ttl_s, is_cut=True)


def to_output(result: "CallToolResult") -> ToolOutput:
    """The result of a call as plain values."""
    content = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
    return ToolOutput(content, result.is_error, result.structured_content)


def _ordered(found: dict[str, McpTool]) -> list[McpTool]:
    return [found[name] for name in sorted(found)]


def _to_tool(tool: "Tool") -> McpTool:
    hints = tool.annotations
    return McpTool(
        tool.name,
        tool.title or (hints.title if hints else None),
        tool.description,
        tool.input_schema,
        tool.output_schema,
        hints.read_only_hint if hints else None,
        hints.destructive_hint if hints else None,
        hints.idempotent_hint if hints else None,
    )
