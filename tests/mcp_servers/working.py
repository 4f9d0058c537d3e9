"""A server whose tools leave traces in files, so that a test sees when they are called, and how often."""

import asyncio
from pathlib import Path

from mcp.server.mcpserver import MCPServer

LOOK_S = 0.02

server = MCPServer("working", log_level="ERROR")


@server.tool()
async def hold(file: str) -> str:
    """Make a file, and take until somebody removes it."""
    path = Path(file)
    await asyncio.to_thread(path.touch)
    while await asyncio.to_thread(path.exists):  # noqa: ASYNC110 - another process removes it
        await asyncio.sleep(LOOK_S)
    return "released"


@server.tool()
def append(file: str, line: str) -> str:
    """Add a line to a file."""
    with Path(file).open("a", encoding="utf-8") as opened:
        opened.write(f"{line}\n")
    return "added"


if __name__ == "__main__":
    server.run()
