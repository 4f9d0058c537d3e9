"""Tools that are part of Homeport: in the same registry as those of MCP servers, under a server name that no MCP server can have.

Only an agent's calls reach them: they work on behalf of somebody, in a workspace.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from adapters.mcp import McpTool, ToolOutput
from homeport.identity import Principal
from homeport.tools.fingerprints import fingerprint
from homeport.tools.offers import OfferedTool


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom and where an agent works: ``workspace`` is a slug, ``run_id`` the run that the call is part of. ``wait_for`` is given what
    is still being written of a call when it returns; without it, the call waits."""

    principal: Principal
    agent: str
    workspace: str
    run_id: UUID
    wait_for: Callable[[asyncio.Task[None]], None] | None = None


@dataclass(frozen=True, slots=True)
class BuiltinTool:
    """A tool, and the function behind it. ``permission``: what an app must hold to use it; None: nothing."""

    tool: McpTool
    permission: str | None
    run: Callable[[ToolContext, Mapping[str, Any]], Awaitable[ToolOutput]]


@dataclass(frozen=True, slots=True)
class OfferedBuiltin:
    """A built-in tool as the registry offers it: never changed, because it comes with the program."""

    builtin: BuiltinTool
    offered: OfferedTool


def offer_builtins(tools: Iterable[BuiltinTool]) -> dict[str, OfferedBuiltin]:
    """Built-in tools by name, in that order."""
    by_name = sorted(tools, key=lambda each: each.tool.name)
    return {each.tool.name: OfferedBuiltin(each, OfferedTool(each.tool, fingerprint(each.tool), is_changed=False)) for each in by_name}
