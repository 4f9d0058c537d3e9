"""The tools of a session, kept until the server says that they have changed, or for as long as they may be taken to be the same."""

import asyncio
import time

from mcp import Client, MCPError
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import METHOD_NOT_FOUND

from adapters.mcp.tools import MAX_SCHEMA_BYTES, MAX_TOOLS, McpTool, ToolList, read_tools
from adapters.processes import ProcessLog

# How long a list is good: when the server tells of changes, and the bounds of what it may say otherwise (most say 0, as they cannot know).
WATCHED_S = 300.0
MIN_S, MAX_S = 30.0, 300.0


class ToolCache:
    """The last list of tools that was read. ``is_known``: there is one, however old."""

    def __init__(self) -> None:
        self._tools: list[McpTool] = []
        self._good_until = 0.0
        self._changes = 0
        self._is_watched = False
        self._lock = asyncio.Lock()
        self.is_known = False

    async def read(self, client: Client, log: ProcessLog, *, is_fresh: bool = False) -> list[McpTool]:
        """The tools, from the server when the list is no longer good or ``is_fresh`` asks for it. Raises what the client raises."""
        if is_fresh:
            self.forget()
        async with self._lock:
            if time.monotonic() >= self._good_until:
                changes = self._changes
                found = await _read_if_any(client)
                if found.is_cut:
                    log.note(f"it has more than {MAX_TOOLS} tools, or more than {MAX_SCHEMA_BYTES} bytes of schemas: the rest is left out")
                self._tools = found.tools
                self.is_known = True
                # What changed while it was read may be missing from it: such a list is good for this answer only.
                if changes == self._changes:
                    self._good_until = time.monotonic() + (WATCHED_S if self._is_watched else min(max(found.ttl_s, MIN_S), MAX_S))
            return self._tools

    def forget(self) -> None:
        """The server says that its tools have changed."""
        self._changes += 1
        self._good_until = 0.0

    async def watch(self, client: Client) -> None:
        """Hear of changes for as long as the server tells of them. With the older protocol it does so unasked: call ``forget``."""
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                self._is_watched = bool(changes.honored.tools_list_changed)
                async for _ in changes:
                    self.forget()
        except ListenNotSupportedError:  # the older protocol
            self._is_watched = True
            return
        except (MCPError, SubscriptionLost):  # it does not take subscriptions, or has ended this one
            pass
        self._is_watched = False
        self.forget()


async def _read_if_any(client: Client) -> ToolList:
    try:
        return await read_tools(client)
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND:  # a server of resources or prompts only
            return ToolList([], 0.0, is_cut=False)
        raise
