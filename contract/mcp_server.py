"""A stand-in for an MCP server: a program that speaks MCP on its standard input and output, starts at once, and misbehaves on demand.

``python contract/mcp_server.py [FILE]``. It needs nothing but Python, so that its start is not what is measured. Its tools: one that works
as the document's examples say (``get_current_time``), and one for each way in which a tool can go wrong. FILE, if it is there, holds
further tools as JSON, or the same ones described in another way; it is read at every list.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL = "2025-11-25"
NOT_FOUND, INVALID = -32601, -32602

Json = dict[str, Any]

TEXT: Json = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
SECONDS: Json = {"type": "object", "properties": {"seconds": {"type": "number"}}}
TOOLS: list[Json] = [
    {
        "name": "get_current_time",
        "description": "Get current time in a specific timezone",
        "inputSchema": {
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "IANA timezone name"}},
            "required": ["timezone"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    },
    {"name": "echo", "description": "Says what it is told", "inputSchema": TEXT},
    {"name": "files/read", "description": "A name with a slash", "inputSchema": TEXT},
    {"name": "structured", "description": "Gives structured content", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Says that it has failed", "inputSchema": {"type": "object"}},
    {"name": "slow", "description": "Waits so many seconds", "inputSchema": SECONDS},
    {"name": "die", "description": "Ends the process", "inputSchema": {"type": "object"}},
    {
        "name": "elsewhere",
        "description": "Refers to a schema elsewhere",
        "inputSchema": {"type": "object", "$ref": "https://example.com/x"},
    },
]


class Refused(Exception):
    """An error of the protocol: its code, and what is told."""


def list_tools(file: Path | None) -> Json:
    """What ``tools/list`` answers."""
    tools = {tool["name"]: tool for tool in TOOLS}
    if file is not None and file.exists():
        tools |= {tool["name"]: tool for tool in json.loads(file.read_text(encoding="utf-8"))}
    return {"tools": list(tools.values())}


def call_tool(name: str, arguments: Json) -> Json:
    """What ``tools/call`` answers."""
    match name:
        case "get_current_time":
            return text(json.dumps({"timezone": arguments.get("timezone"), "datetime": "2024-01-15T10:30:00+00:00"}))
        case "echo" | "files/read":
            return text(str(arguments.get("text")))
        case "structured":
            return text("{}") | {"structuredContent": arguments}
        case "fail":
            return text("It failed") | {"isError": True}
        case "slow":
            time.sleep(float(arguments.get("seconds", 1)))
            return text("Done")
        case "die":
            os._exit(1)
    raise Refused(INVALID, f"Unknown tool: {name}")


def text(said: str) -> Json:
    """A result of one text."""
    return {"content": [{"type": "text", "text": said}], "isError": False}


def answer(method: str, params: Json, file: Path | None) -> Json:
    """The result of a request. Raises Refused."""
    match method:
        case "initialize":
            return {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": {"name": "stand-in", "version": "1"}}
        case "ping":
            return {}
        case "tools/list":
            return list_tools(file)
        case "tools/call":
            return call_tool(params["name"], params.get("arguments") or {})
    raise Refused(NOT_FOUND, f"Method not found: {method}")


def write(message: Json) -> None:
    """Send a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the client closes the input."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    print("The stand-in has started", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        try:
            write({"id": message["id"], "result": answer(message["method"], message.get("params") or {}, file)})
        except Refused as error:
            code, told = error.args
            write({"id": message["id"], "error": {"code": code, "message": told}})


if __name__ == "__main__":
    main()
