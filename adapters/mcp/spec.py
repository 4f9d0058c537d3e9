"""Which MCP server is meant and how it is reached, and what is known of its session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

SessionState = Literal["stopped", "starting", "running", "backing off"]


@dataclass(frozen=True, slots=True)
class StdioTarget:
    """A program to start: no shell, ``args`` as they are. It gets HOME, LOGNAME, PATH, SHELL, TERM and USER of this process, and ``env``.

    It runs in ``cwd``, else in an empty folder of its own.
    """

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A server elsewhere: streamable HTTP (``http``), or the older HTTP with server-sent events (``sse``)."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transport: Literal["http", "sse"] = "http"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server. A session serves one ``revision``: when another one is asked for, the old session ends and a new one starts.

    ``timeout_s`` is how long a call may go without a sign of progress, starting the server included.
    """

    id: UUID
    name: str
    revision: str
    target: StdioTarget | HttpTarget
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """What a server does: since when, why it last failed (None: it did not), and its process (None: there is none, or it is elsewhere)."""

    state: SessionState
    since: datetime
    error: str | None = None
    pid: int | None = None
