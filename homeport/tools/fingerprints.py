"""What of a tool was approved. A tool that its server describes in another way afterwards is refused until a person has looked at it."""

import hashlib

import orjson

from adapters.mcp import McpTool


def fingerprint(tool: McpTool) -> str:
    """SHA-256 of everything by which a model or a person decides to use a tool, and of what it takes."""
    parts = [
        tool.name,
        tool.title,
        tool.description,
        tool.input_schema,
        tool.output_schema,
        tool.is_read_only,
        tool.is_destructive,
        tool.is_idempotent,
    ]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
