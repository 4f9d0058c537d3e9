"""What a tool gave, as the model reads it and as people see it. All of it is a stranger's text."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from homeport.agents.context import cut_end
from homeport.agents.steps import Block
from homeport.tools import BUILTIN_SERVER, ToolOutput

EXCERPT_CHARS = 1000
MAX_ARGUMENT_BYTES = 10_000
MAX_JSON_BYTES = 100_000
MAX_IMAGE_CHARS = 2_000_000


def text_of(output: ToolOutput, limit: int) -> str:
    """A result as text of about ``limit`` characters at most."""
    parts = [_text_of_block(block) for block in output.content]
    if not parts and output.structured is not None:
        parts = [_dump(output.structured)]
    text = "\n".join(parts).encode("utf-8", "replace").decode()
    return cut_end(text, limit) if text else "(The tool gave nothing.)"


def blocks_of(server: str, output: ToolOutput) -> Iterator[Block]:
    """Images, files and JSON data of a result, as far as they are not too large to be shown."""
    for block in output.content:
        if block.get("type") == "image" and len(data := str(block.get("data", ""))) <= MAX_IMAGE_CHARS:
            yield Block("image", {"mimeType": str(block.get("mimeType", "image/png")), "data": data})
    structured = output.structured
    if structured is None or output.is_error:
        return
    if server == BUILTIN_SERVER and isinstance(structured, Mapping) and isinstance(files := structured.get("files"), list):
        yield Block("files", {"files": files})
    elif not _says_the_same(output) and len(dumped := _dump(structured)) <= MAX_JSON_BYTES:
        yield Block("json", structured if isinstance(structured, Mapping) else {"value": orjson.loads(dumped)})


def tool_use(
    *, tool: str, server: str, call_id: str, status: str, duration_s: float, arguments: Mapping[str, Any] | None, text: str
) -> Block:
    """The block that tells that a tool was used, and with what result."""
    data = {
        "tool": tool,
        "server": server,
        "tool_call_id": call_id,
        "status": status,
        "duration_ms": round(duration_s * 1000, 1),
        "output": cut_end(text, EXCERPT_CHARS),
    }
    if arguments is not None and len(_dump(arguments)) <= MAX_ARGUMENT_BYTES:
        data["arguments"] = dict(arguments)
    return Block("toolUse", data)


def _says_the_same(output: ToolOutput) -> bool:
    """Whether the structured content is the text once more, in an envelope."""
    structured = output.structured
    if not isinstance(structured, Mapping) or structured.keys() != {"result"} or len(output.content) != 1:
        return False
    return str(output.content[0].get("text")) == str(structured["result"])


def _text_of_block(block: Mapping[str, Any]) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio":
            return f"[{block['type']} {block.get('mimeType', '')}: shown to the user]"
        case "resource" if isinstance(resource := block.get("resource"), Mapping) and isinstance(resource.get("text"), str):
            return f"[{resource.get('uri', 'resource')}]\n{resource['text']}"
        case "resource" | "resource_link":
            uri = block.get("uri") or (block.get("resource") or {}).get("uri", "")
            return f"[resource {uri}]"
    return f"[{block.get('type', 'something')}]"


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError):
        return str(value).encode("utf-8", "replace").decode()
