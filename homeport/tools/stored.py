"""What the database holds about tools, read together: servers, what was approved of their tools, and rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
import structlog
from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, Notifications
from homeport.errors import AppError
from homeport.remembered import Remembered
from homeport.secrets import SecretBox
from homeport.tables import mcp_servers, mcp_tools, tool_rules
from homeport.tools.checking import find_command_problem
from homeport.tools.rules import Rules, ToolRule

# Every change of what is read here is told on this channel, in the transaction that makes it.
TOOLS_CHANNEL = "homeport_tools"

Transport = Literal["stdio", "http", "sse"]
Provider = Literal["local", "remote"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class McpServer:
    """A registered MCP server. ``env`` and ``headers`` are secrets; ``problem`` says why they cannot be read."""

    id: UUID
    name: str
    display_name: str
    description: str
    tags: tuple[str, ...]
    transport: Transport
    command: str | None
    args: tuple[str, ...]
    cwd: str | None
    url: str | None
    enabled: bool
    timeout_s: float
    created_at: datetime
    updated_at: datetime
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    problem: AppError | None = None

    @property
    def provider(self) -> Provider:
        """``local`` for a program on this machine, ``remote`` for an address."""
        return "local" if self.transport == "stdio" else "remote"


@dataclass(frozen=True, slots=True)
class Stored:
    """What was read. ``servers`` are by name; ``approved`` holds, by server and tool, the fingerprint that was approved."""

    servers: Mapping[str, McpServer]
    approved: Mapping[UUID, Mapping[str, str]]
    rules: Rules


class StoredTools(Remembered[Stored]):
    """Reads it, and keeps it until it changes."""

    def __init__(self, database: Database, notifications: Notifications, secret_box: SecretBox) -> None:
        self._database = database
        self._secret_box = secret_box
        super().__init__(notifications, TOOLS_CHANNEL, self._read_all)

    async def _read_all(self) -> Stored:
        async with self._database.transaction() as connection:
            servers = await read_servers(connection, self._secret_box)
            approved: dict[UUID, dict[str, str]] = {}
            for server_id, name, fingerprint in await connection.execute(
                select(mcp_tools.c.server_id, mcp_tools.c.name, mcp_tools.c.fingerprint)
            ):
                approved.setdefault(server_id, {})[name] = fingerprint
            rules = await read_rules(connection)
        return Stored({server.name: server for server in servers}, approved, rules)


async def read_servers(connection: AsyncConnection, secret_box: SecretBox) -> list[McpServer]:
    """Every server, by name."""
    rows = (await connection.execute(select(mcp_servers).order_by(mcp_servers.c.name))).mappings()
    return [open_server(row, secret_box) for row in rows]


def find_problem(server: McpServer) -> str | None:
    """What can be seen to be wrong with a server without starting it, in a sentence; None when there is nothing."""
    if server.problem is not None:
        return "Its stored secrets cannot be decrypted with this server's secret key. Set them again."
    return find_command_problem(server.command, server.cwd) if server.command is not None else None


async def read_rules(connection: AsyncConnection) -> Rules:
    """Every rule, by subject and pattern."""
    order = (tool_rules.c.subject, tool_rules.c.server, tool_rules.c.tool)
    columns = [column for column in tool_rules.c if column.name != "app_id"]
    rows = (await connection.execute(select(*columns).order_by(*order))).mappings()
    return Rules(tuple(ToolRule(**row) for row in rows))


def open_server(row: RowMapping, secret_box: SecretBox) -> McpServer:
    """A row with its secrets decrypted."""
    values: dict[str, Any] = {name: value for name, value in row.items() if name not in {"env", "headers"}}
    values |= {"tags": tuple(row["tags"]), "args": tuple(row["args"])}
    try:
        secrets: dict[str, Any] = {name: _unseal(secret_box, row[name], row["id"], name) for name in ("env", "headers")}
    except AppError as error:
        log.warning("the stored secrets of an MCP server cannot be read", server=row["name"], reason=error.message)
        return McpServer(**values, problem=error)
    return McpServer(**values, **secrets)


def seal(secret_box: SecretBox, secrets: Mapping[str, str], server_id: UUID, kind: str) -> bytes | None:
    """Environment variables or headers (``kind``) as they are stored; None for none."""
    return secret_box.seal(orjson.dumps(dict(secrets)).decode(), _context(server_id, kind)) if secrets else None


def _unseal(secret_box: SecretBox, sealed: bytes | None, server_id: UUID, kind: str) -> dict[str, str]:
    if sealed is None:
        return {}
    secrets: dict[str, str] = orjson.loads(secret_box.open(sealed, _context(server_id, kind)))
    return secrets


def _context(server_id: UUID, kind: str) -> str:
    return f"mcp_server:{server_id}:{kind}"
