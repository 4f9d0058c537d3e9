"""A server that is to be registered, and changes to one: what may be given, and whether it is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from homeport.errors import InvalidRequest
from homeport.tools import checking
from homeport.tools.stored import Transport

COMMON_FIELDS = ("display_name", "description", "tags", "enabled", "timeout_s")
STDIO_FIELDS = ("command", "args", "cwd", "env")
HTTP_FIELDS = ("url", "headers")

_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "display_name": lambda text: checking.check_text(text, "A display name", limit=checking.MAX_NAME_LENGTH),
    "description": lambda text: checking.check_text(text, "A description"),
    "tags": lambda tags: checking.check_texts(tags, "Tags"),
    "enabled": bool,
    "timeout_s": checking.check_timeout,
    "command": checking.check_command,
    "args": lambda args: checking.check_texts(args, "An argument"),
    "cwd": lambda cwd: None if cwd is None else checking.check_cwd(cwd),
    "env": checking.check_env,
    "url": checking.check_url,
    "headers": checking.check_headers,
}


@dataclass(frozen=True, slots=True)
class ServerDraft:
    """A server to be registered: ``command``, with ``args``, ``cwd`` and ``env``, or ``url``, with ``headers``.

    ``transport`` None is ``stdio`` for a command and ``http`` for an address.
    """

    name: str
    transport: Transport | None = None
    command: str | None = None
    args: Sequence[str] = ()
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    display_name: str = ""
    description: str = ""
    tags: Sequence[str] = ()
    enabled: bool = True
    timeout_s: float = checking.DEFAULT_TIMEOUT_S

    def checked(self) -> "ServerDraft":
        """The same, as it is stored. Raises InvalidRequest."""
        if (self.command is None) == (self.url is None):
            raise InvalidRequest(f"The MCP server '{self.name[:200]}' needs either a command or a URL.")
        transport = self.transport or ("stdio" if self.command is not None else "http")
        if (transport == "stdio") != (self.command is not None):
            raise InvalidRequest("An MCP server with the transport stdio has a command, one with http or sse has a URL.")
        foreign = [name for name in (HTTP_FIELDS if transport == "stdio" else STDIO_FIELDS) if getattr(self, name)]
        if foreign:
            raise _foreign(foreign, transport)
        own = (*COMMON_FIELDS, *(STDIO_FIELDS if transport == "stdio" else HTTP_FIELDS))
        values = {name: _CHECKS[name](getattr(self, name)) for name in own}
        return replace(self, name=checking.check_server_name(self.name), transport=transport, **values)


def check_changes(transport: Transport, changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` as they are stored. Raises InvalidRequest, also for fields that a server of this transport does not have."""
    own = (*COMMON_FIELDS, *(STDIO_FIELDS if transport == "stdio" else HTTP_FIELDS))
    if foreign := [name for name in changes if name not in own]:
        raise _foreign(foreign, transport)
    return {name: _CHECKS[name](value) for name, value in changes.items()}


def _foreign(names: list[str], transport: Transport) -> InvalidRequest:
    return InvalidRequest(f"An MCP server with the transport {transport} has no {' and no '.join(names)}.")
