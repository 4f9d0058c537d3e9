"""How the run treats tools: it may draw any command, and the server would run it. So whatever is registered is the stand-in, or leads
nowhere; and the server that the run's tools come from stays as it is. What is meant to be wrong stays wrong."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

from schemathesis import Case

Json = dict[str, Any]

# The server that the document's examples name, and those that may be changed and removed.
SERVER = "time"
SPARE_SERVERS = tuple(f"spare {number}" for number in range(4))
STAND_IN: Json = {"command": sys.executable, "args": [str(Path(__file__).with_name("mcp_server.py"))]}
NOWHERE = "http://127.0.0.1:1/mcp"
ARGUMENTS = {"get_current_time": {"timezone": "Europe/Berlin"}, "echo": {"text": "x"}}
# Each drawn server that is tried is a process: a few names are enough.
DRAWN_NAMES = 6

_removed = count()


def keep_tools(case: Case[Any], operation: str, *, is_right: bool) -> None:
    """Change a request to an operation on tools before it is sent. ``is_right``: its body is what the operation takes."""
    names, body = case.path_parameters, case.body
    if names.get("server") == SERVER and operation == "update_server":
        names["server"] = SPARE_SERVERS[0]
    if names.get("server") == SERVER and operation == "remove_server":
        names["server"] = SPARE_SERVERS[next(_removed) % len(SPARE_SERVERS)]
    # What is wrong is refused as a whole, and is to stay wrong.
    if is_right and isinstance(body, dict):
        match operation:
            case "register_server":
                case.body = _registered(body)
            case "update_server":
                case.body = _harmless(body)
            case "import_servers":
                case.body = _importable(body)
            case "set_rule":
                case.body = _allowing(body)
            case "execute_tool":
                case.body = _fitting(body, str(names.get("tool")))


def _registered(body: Json) -> Json:
    """A program where there is neither one nor an address, and few names."""
    whole = _harmless(body if "url" in body else body | STAND_IN)
    return whole | {"name": f"drawn/{crc32(body['name'].encode(errors='replace')) % DRAWN_NAMES}"}


def _harmless(body: Json) -> Json:
    """No program but the stand-in, no address but one where nobody is, and not both of them."""
    if "command" in body:
        return _without(body, "url", "headers", "transport") | STAND_IN
    if "url" in body:
        return _without(body, "args", "cwd", "env", "transport") | {"url": NOWHERE}
    return body


def _importable(body: Json) -> Json:
    """A file that can be imported, in three of four cases: a drawn text is hardly ever one."""
    if crc32(body["content"].encode(errors="replace")) % 4:
        return body | {"content": json.dumps({"mcpServers": {"imported": STAND_IN}})}
    return body


def _allowing(body: Json) -> Json:
    """What the run executes stays allowed, because those who call are bound by rules for everybody."""
    is_about_ours = body["subject"] == "everybody" and body.get("server", "") in ("", SERVER)
    return body | {"decision": "allow"} if is_about_ours else body


def _fitting(body: Json, tool: str) -> Json:
    """Arguments that the tool takes, in three of four cases."""
    if (fitting := ARGUMENTS.get(tool)) and crc32(repr(body).encode(errors="replace")) % 4:
        return body | {"arguments": fitting}
    return body


def _without(body: Json, *names: str) -> Json:
    return {name: value for name, value in body.items() if name not in names}
