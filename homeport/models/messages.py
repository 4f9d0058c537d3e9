"""Messages as clients write them, brought into the one shape that OpenAI's protocol takes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from homeport.errors import FieldProblem, InvalidRequest

URL_SCHEMES = ("https://", "http://", "data:")
NOT_IN_TOOL_NAME = re.compile(r"[^a-zA-Z0-9_-]")
MAX_TOOL_NAME = 64


def normalize_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with content as a text or as blocks of OpenAI's chat protocol. Raises InvalidRequest for a block that lacks its part.

    Known are text and input_text, image_url and input_image (the address as a text or an object), file and input_file; other blocks pass
    as they are. Explicit nulls are left out. In tool calls, names and arguments that providers would not take back from a model are made
    right: arguments that are no JSON object become an empty one.
    """
    return [_message(message, f"/messages/{index}") for index, message in enumerate(messages)]


def _message(message: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    rest = {name: value for name, value in message.items() if value is not None}
    content = rest.get("content")
    if isinstance(content, list):
        blocks = [_block(block, f"{pointer}/content/{index}") for index, block in enumerate(content)]
        # One block of text is the same as the text, which more servers understand.
        is_text = len(blocks) == 1 and isinstance(blocks[0], dict) and blocks[0].get("type") == "text" and len(blocks[0]) == 2
        rest["content"] = blocks[0]["text"] if is_text else blocks
    if "tool_calls" in rest:
        calls = rest.pop("tool_calls")
        if not isinstance(calls, list):
            raise _wrong(f"{pointer}/tool_calls", "tool calls are a list")
        if calls:  # OpenAI refuses an empty list
            rest["tool_calls"] = [_tool_call(call, f"{pointer}/tool_calls/{index}") for index, call in enumerate(calls)]
    return rest


def _tool_call(call: Any, pointer: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(call.get("id"), str):
        raise _wrong(pointer, "a tool call needs an id and a function with a name and arguments")
    name = NOT_IN_TOOL_NAME.sub("_", str(function.get("name") or "unknown"))[:MAX_TOOL_NAME]
    return {**call, "type": "function", "function": {**function, "name": name, "arguments": _arguments(function.get("arguments"))}}


def _arguments(written: Any) -> str:
    """The arguments as the JSON text of an object: Ollama, vLLM and others refuse a conversation in which a model wrote something else."""
    if not isinstance(written, str):
        return orjson.dumps(written).decode() if isinstance(written, Mapping) else "{}"
    try:
        return written if isinstance(orjson.loads(written), dict) else "{}"
    except orjson.JSONDecodeError:
        return "{}"


def _block(block: Any, pointer: str) -> Any:
    match block.get("type") if isinstance(block, Mapping) else None:
        case "text" | "input_text":
            if not isinstance(block.get("text"), str):
                raise _wrong(f"{pointer}/text", "a text block needs a text")
            return {**_without(block, "text"), "type": "text", "text": block["text"]}
        case "image_url" | "input_image":
            return {"type": "image_url", "image_url": _image(block, f"{pointer}/image_url")}
        case "file" | "input_file":
            return {"type": "file", "file": _file(block, pointer)}
    return block


def _image(block: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    image = block.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, Mapping) else (image, block.get("detail"))
    if not isinstance(url, str) or not url.lower().startswith(URL_SCHEMES):
        raise _wrong(pointer, "an image block needs an image_url: an http, https or data address, or an object with one as its url")
    return {"url": url} | ({"detail": detail} if detail else {})


def _file(block: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    file = block["file"] if isinstance(block.get("file"), Mapping) else block
    found = {name: file[name] for name in ("file_id", "filename", "file_data") if isinstance(file.get(name), str)}
    if isinstance(url := file.get("file_url"), str):
        found.setdefault("file_data", url)
    if "file_id" not in found and "file_data" not in found:
        raise _wrong(pointer, "a file block needs a file_url or a file_id")
    if any("://" in value[:32] and not value.lower().startswith(URL_SCHEMES) for value in found.values()):
        raise _wrong(pointer, "a file block's address must be an http, https or data address")
    return found


def _without(block: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name not in names and value is not None}


def _wrong(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {detail}.", problems=(FieldProblem("body", pointer, detail),))
