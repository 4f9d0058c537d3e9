"""The JSON file in which desktop clients keep their MCP servers, read as servers to be registered.

    {"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"], "env": {}}, "docs": {"type": "http", "url": "https://…"}}}

VS Code calls the outer key ``servers``. What is wrong is told all at once; what is not understood is passed over and told as a remark.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from homeport.errors import FieldProblem, InvalidRequest
from homeport.tools import checking
from homeport.tools.drafts import ServerDraft

MAX_FILE_BYTES = 256 * 1024
MAX_SERVERS = 100
_OUTER_KEYS = ("mcpServers", "servers")
# What a server of each kind may have besides, in this file format, that is kept.
_TEXTS = {"command": "command", "cwd": "cwd", "url": "url", "serverUrl": "url", "description": "description", "name": "display_name"}
_KNOWN = frozenset({*_TEXTS, "args", "env", "headers", "type", "transport", "disabled", "enabled", "tags"})
_TRANSPORTS: Mapping[str, Literal["stdio", "http", "sse"]] = {
    "stdio": "stdio",
    "local": "stdio",
    "http": "http",
    "streamable-http": "http",
    "streamableHttp": "http",
    "streamable_http": "http",
    "remote": "http",
    "sse": "sse",
}


@dataclass(slots=True)
class ServerFile:
    """What stands in a file: servers that can be registered, and sentences about what was passed over."""

    drafts: list[ServerDraft] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def parse_server_file(content: str | bytes) -> ServerFile:
    """Read the text of such a file. Raises InvalidRequest that lists everything that is wrong with it."""
    servers = _servers_in(content)
    found, problems = ServerFile(), []
    for name, entry in servers.items():
        try:
            found.drafts.append(_read_entry(name, entry, found.remarks).checked())
        except InvalidRequest as error:
            problems.append(FieldProblem("body", f"/{_escape(name)}", error.message))
    if problems:
        raise InvalidRequest("\n".join(f"{each.pointer[1:]}: {each.detail}" for each in problems), problems=tuple(problems))
    return found


def _servers_in(content: str | bytes) -> dict[str, Any]:
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequest(f"The file is larger than {MAX_FILE_BYTES // 1024} KiB.")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The file is not JSON: {error}") from error
    outer = next((key for key in _OUTER_KEYS if isinstance(document, dict) and isinstance(document.get(key), dict)), None)
    if outer is None:
        raise InvalidRequest('The file has no "mcpServers": it should be {"mcpServers": {"name": {"command": "…"}}}.')
    servers: dict[str, Any] = document[outer]
    if len(servers) > MAX_SERVERS:
        raise InvalidRequest(f"The file names {len(servers)} servers; at most {MAX_SERVERS} can be imported at once.")
    return servers


def _read_entry(name: str, entry: Any, remarks: list[str]) -> ServerDraft:
    if not isinstance(entry, dict):
        raise InvalidRequest('This must be an object with "command" or "url".')
    values: dict[str, Any] = {field: _text(entry, key) for key, field in _TEXTS.items() if entry.get(key) is not None}
    values |= {key: tuple(_list(entry, key)) for key in ("args", "tags")}
    values |= {key: _map(entry, key) for key in ("env", "headers")}
    kind = entry.get("type", entry.get("transport"))
    if kind is not None and (not isinstance(kind, str) or kind not in _TRANSPORTS):
        raise InvalidRequest(f'"type" must be one of stdio, http and sse, not {str(kind)[:40]!r}.')
    draft = ServerDraft(
        checking.check_server_name(name),
        transport=_TRANSPORTS[kind] if kind is not None else None,
        enabled=not _flag(entry, "disabled", False) and _flag(entry, "enabled", True),
        **values,
    )
    remarks += _remarks(draft, entry)
    return draft


def _remarks(draft: ServerDraft, entry: Mapping[str, Any]) -> Iterator[str]:
    if unknown := sorted(set(entry) - _KNOWN):
        yield f"{draft.name}: passed over {', '.join(unknown)}, which mean nothing here."
    texts = (draft.command or "", *draft.args, draft.cwd or "", *draft.env.values(), draft.url or "", *draft.headers.values())
    if checking.has_placeholder(texts):
        yield f"{draft.name}: placeholders such as ${{NAME}} are kept as they are. Nothing fills them in; put the values in their place."
    if draft.command is not None and (problem := checking.find_command_problem(draft.command, draft.cwd)) is not None:
        yield f"{draft.name}: {problem}"


def _text(entry: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := entry[key], str):
        raise InvalidRequest(f'"{key}" must be a text.')
    return value


def _list(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRequest(f'"{key}" must be a list of texts.')
    return value


def _map(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    value = entry.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str | int | float | bool) for item in value.values()):
        raise InvalidRequest(f'"{key}" must hold texts by name.')
    # Numbers are common there, and mean their spelling; true and false are spelt as JSON does.
    return {name: item if isinstance(item, str) else orjson.dumps(item).decode() for name, item in value.items()}


def _flag(entry: Mapping[str, Any], key: str, default: bool) -> bool:
    value = entry.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f'"{key}" must be true or false.')
    return value


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
