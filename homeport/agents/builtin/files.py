"""Files in the folder that an owner has for each workspace: ``<data_dir>/apps/<owner>/workspaces/<slug>/``."""

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.folder import FileEntry, Folder
from homeport.agents.builtin.describing import output, schema
from homeport.apps import Apps
from homeport.clock import format_time
from homeport.errors import InvalidRequest
from homeport.tools import BuiltinTool, McpTool, ToolContext, ToolOutput

PERMISSION = "agent.files"
MAX_LISTED = 500
MAX_TEXT = 16_000
MAX_BINARY_BYTES = 12_000
MAX_CONTENT = 7_000_000

_PATH = {
    "type": "string",
    "minLength": 1,
    "maxLength": 500,
    "description": "The path within the folder, such as notes/today.md. Not absolute, and without '..'.",
}
_LIST = McpTool(
    "list_files",
    "List files",
    "List the files in the folder of this conversation's workspace, with sizes in bytes and times of change.",
    schema({"folder": {"type": "string", "maxLength": 500, "description": "Only what is in this folder, such as notes."}}),
    is_read_only=True,
    is_idempotent=True,
)
_READ = McpTool(
    "read_file",
    "Read a file",
    f"Read a file of the workspace. Text is returned as it is, at most {MAX_TEXT} characters at once; anything else as base64, at most "
    f"{MAX_BINARY_BYTES} bytes at once. When there is more, the result says from where to read on.",
    schema(
        {
            "path": _PATH,
            "start": {
                "type": "integer",
                "minimum": 0,
                "maximum": 10_000_000,
                "description": "Where to begin: characters of a text, bytes of anything else. 0 when left out.",
            },
        },
        ["path"],
    ),
    is_read_only=True,
    is_idempotent=True,
)
_WRITE = McpTool(
    "write_file",
    "Write a file",
    "Write a file in the workspace, in place of an older one of that path. Folders on the way are made. Read a file before changing it: "
    "the whole content has to be given.",
    schema(
        {
            "path": _PATH,
            "content": {"type": "string", "maxLength": MAX_CONTENT, "description": "The whole content of the file."},
            "encoding": {
                "type": "string",
                "enum": ["text", "base64"],
                "description": "How the content is given; text when left out. Use base64 for what is no text.",
            },
        },
        ["path", "content"],
    ),
    is_read_only=False,
    is_destructive=True,
    is_idempotent=True,
)


def file_tools(apps: Apps) -> Sequence[BuiltinTool]:
    """The tools about files."""

    async def folder_of(context: ToolContext) -> Folder:
        return Folder(await apps.data_dir(context.principal), "workspaces", context.workspace)

    async def list_files(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        folder = await folder_of(context)
        below = arguments.get("folder", "").removeprefix("./").strip("/")
        found = [entry for entry in await asyncio.to_thread(folder.list) if below in ("", ".") or entry.path.startswith(f"{below}/")]
        lines = [f"{entry.path}  {entry.size_bytes} bytes  {format_time(entry.modified_at)}" for entry in found[:MAX_LISTED]]
        if len(found) > MAX_LISTED:
            lines.append(f"… and {len(found) - MAX_LISTED} more; list a folder of it.")
        return output("\n".join(lines) or "There are no files.", {"files": [_shape(entry) for entry in found[:MAX_LISTED]]})

    async def read_file(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        folder, path = await folder_of(context), arguments["path"]
        content = await asyncio.to_thread(folder.read, path)
        return _show(path, content, arguments.get("start", 0))

    async def write_file(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        folder, content = await folder_of(context), _encode(arguments["content"], arguments.get("encoding", "text"))
        written = await asyncio.to_thread(folder.write, arguments["path"], content)
        return output(f"Wrote {written.path} ({written.size_bytes} bytes).", {"files": [_shape(written)]})

    return [
        BuiltinTool(_LIST, PERMISSION, list_files),
        BuiltinTool(_READ, PERMISSION, read_file),
        BuiltinTool(_WRITE, PERMISSION, write_file),
    ]


def _shape(entry: FileEntry) -> dict[str, Any]:
    return {"path": entry.path, "size": entry.size_bytes, "media_type": _media_type(entry.path)}


def _media_type(path: str) -> str:
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


def _encode(content: str, encoding: str) -> bytes:
    try:
        return content.encode("utf-8") if encoding == "text" else base64.b64decode(content, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        what = "text that can be stored" if encoding == "text" else "base64"
        raise InvalidRequest(f"The content is no {what}.") from error


def _show(path: str, content: bytes, start: int) -> ToolOutput:
    text = _text_of(content)
    whole, limit = (content, MAX_BINARY_BYTES) if text is None else (text, MAX_TEXT)
    piece, end = whole[start : start + limit], min(start + limit, len(whole))
    shown = piece if isinstance(piece, str) else base64.b64encode(piece).decode("ascii")
    facts = {"path": path, "size": len(content), "encoding": "text" if text is not None else "base64", "start": start, "end": end}
    note = f"\n\n(There is more: read on with start={end}, of {len(whole)}.)" if end < len(whole) else ""
    return output(shown + note or "(The file is empty.)", facts)


def _text_of(content: bytes) -> str | None:
    """The content as text; None when it is something else."""
    try:
        return None if b"\0" in content else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
