"""MCP servers that are published for Node.js, from the lock file beside this, and started by their own files."""

from pathlib import Path

from tests.npm import installed, node


def npm_server(name: str) -> list[str]:
    """The command line of ``@modelcontextprotocol/server-<name>``. Skips the test where there is no Node.js; fails it in CI."""
    return [node(), str(installed(Path(__file__).parent) / "node_modules/@modelcontextprotocol" / f"server-{name}" / "dist/index.js")]
