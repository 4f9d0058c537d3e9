"""The MCP servers that an operator has registered: added, changed, removed, and handed to the sessions as what they start."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.mcp import HttpTarget, McpSessions, ServerSpec, StdioTarget
from adapters.postgres import Database, notify
from adapters.processes import log_path, tail_log
from homeport.errors import AppError, Conflict, InvalidRequest, NotFound, TooManyRequests, Unavailable
from homeport.identity import Principal
from homeport.ids import parse_uuid, uuid7
from homeport.secrets import SecretBox
from homeport.tables import mcp_servers
from homeport.tools.audit import Audit
from homeport.tools.drafts import COMMON_FIELDS, HTTP_FIELDS, STDIO_FIELDS, ServerDraft, check_changes
from homeport.tools.import_file import parse_server_file
from homeport.tools.stored import TOOLS_CHANNEL, McpServer, StoredTools, open_server, seal

MAX_SERVERS = 500
# Two that add servers at once would both find room, or both find a name free.
_LOCK = 0x6D6370

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerImport:
    """What came of a file: the names that were registered or changed, those that were left as they are, and remarks for people."""

    imported: Sequence[str]
    skipped: Sequence[str]
    remarks: Sequence[str]


class McpServers:
    """Reads and changes the stored servers. What one process changes, the others know at once."""

    def __init__(
        self, database: Database, secret_box: SecretBox, stored: StoredTools, sessions: McpSessions, audit: Audit, log_dir: Path
    ) -> None:
        self._database = database
        self._secret_box = secret_box
        self._stored = stored
        self._sessions = sessions
        self._audit = audit
        self._log_dir = log_dir
        self._changed = asyncio.Event()
        stored.on_forget(self._changed.set)

    async def list(self) -> Sequence[McpServer]:
        """All servers, by name."""
        return [*(await self._stored.get()).servers.values()]

    async def get(self, name: str) -> McpServer:
        """The server with this name or id. Raises NotFound (MCP_SERVER_NOT_FOUND)."""
        # One that is not known may have been added by another process a moment ago.
        found = _find((await self._stored.get()).servers, name) or _find((await self._stored.get_anew()).servers, name)
        if found is None:
            raise NotFound(f"There is no MCP server '{name[:200]}'.", code="MCP_SERVER_NOT_FOUND")
        return found

    async def add(self, draft: ServerDraft, *, principal: Principal | None = None) -> McpServer:
        """Add a server. It is not started. Raises InvalidRequest, and Conflict (MCP_SERVER_EXISTS) when the name is taken."""
        (added,) = await self.add_all([draft], replace=False, principal=principal)
        return added

    async def add_all(self, drafts: Iterable[ServerDraft], *, replace: bool, principal: Principal | None = None) -> Sequence[McpServer]:
        """Add servers, all or none. With ``replace`` one of the same name is changed into what is given; without, raises Conflict."""
        checked = [draft.checked() for draft in drafts]
        async with self._database.transaction() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            rows = await connection.execute(select(mcp_servers.c.name, mcp_servers.c.id))
            known = {row.name: row.id for row in rows}
            if taken := [draft.name for draft in checked if draft.name in known and not replace]:
                message = f"There is an MCP server '{taken[0]}' already. Remove it first, or choose another name."
                raise Conflict(message, code="MCP_SERVER_EXISTS")
            if len(known.keys() | {draft.name for draft in checked}) > MAX_SERVERS:
                raise TooManyRequests(f"A server keeps at most {MAX_SERVERS} MCP servers. Remove those that are not used.")
            added = [await self._write(connection, draft, known.get(draft.name)) for draft in checked]
            await notify(connection, TOOLS_CHANNEL, "servers")
        self._stored.forget()
        for server in added:
            await self._note("mcp_server.changed" if server.name in known else "mcp_server.added", principal, server)
        return added

    async def import_file(self, content: str | bytes, *, replace: bool = False, principal: Principal | None = None) -> ServerImport:
        """Add what stands in a file of ``mcpServers``, all of it or nothing. Names that are taken are left as they are, or replaced.

        Raises InvalidRequest that lists everything that is wrong.
        """
        file = parse_server_file(content)
        known = (await self._stored.get_anew()).servers
        wanted = [draft for draft in file.drafts if replace or draft.name not in known]
        await self.add_all(wanted, replace=replace, principal=principal)
        skipped = [draft.name for draft in file.drafts if draft not in wanted]
        return ServerImport([draft.name for draft in wanted], skipped, file.remarks)

    async def update(self, name: str, changes: Mapping[str, Any], *, principal: Principal | None = None) -> McpServer:
        """Change fields of the server with this name or id: those of ServerDraft but its name and transport. ``env`` and ``headers``
        are replaced as a whole. A running session ends when what it was started from has changed.

        Raises NotFound, and InvalidRequest for a bad value or a field that servers of this transport do not have.
        """
        server = await self.get(name)
        values = check_changes(server.transport, changes)
        for kind in ("env", "headers"):
            if kind in values:
                values[kind] = seal(self._secret_box, values[kind], server.id, kind)
        statement = update(mcp_servers).where(mcp_servers.c.id == server.id).values(updated_at=func.now(), **values).returning(mcp_servers)
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            await notify(connection, TOOLS_CHANNEL, "servers")
        self._stored.forget()
        if row is None:
            raise NotFound(f"There is no MCP server '{name[:200]}'.", code="MCP_SERVER_NOT_FOUND")
        changed = open_server(row, self._secret_box)
        await self._note("mcp_server.changed", principal, changed)
        return changed

    async def remove(self, name: str, *, principal: Principal | None = None) -> McpServer:
        """Remove the server with this name or id, its secrets and what was approved of it. Rules that name it stay. Raises NotFound."""
        server = await self.get(name)
        async with self._database.transaction() as connection:
            await connection.execute(delete(mcp_servers).where(mcp_servers.c.id == server.id))
            await notify(connection, TOOLS_CHANNEL, "servers")
        self._stored.forget()
        await self._sessions.remove(server.id)
        await self._note("mcp_server.removed", principal, server)
        return server

    async def read_log(self, name: str, lines: int) -> Sequence[str]:
        """The last lines of the log of the server with this name or id. Raises NotFound."""
        return await asyncio.to_thread(tail_log, self.log_path(await self.get(name)), lines)

    def log_path(self, server: McpServer) -> Path:
        """Where the log of a server is; the file is there once the server has been started."""
        return log_path(self._log_dir, server.id)

    def spec_of(self, server: McpServer) -> ServerSpec:
        """What a session of this server is started from. Raises Unavailable when its secrets cannot be read."""
        if server.problem is not None:
            raise Unavailable(
                f"The stored secrets of the MCP server '{server.name}' cannot be decrypted with this server's secret key. Set them again.",
                code="MCP_SERVER_UNAVAILABLE",
            ) from server.problem
        return ServerSpec(server.id, server.name, _revision(server), _target(server), server.timeout_s)

    async def run(self) -> None:
        """End sessions whose server was removed, switched off or changed, by whatever process, until cancelled."""
        known: dict[UUID, str] = {}
        while True:
            self._changed.clear()
            try:
                servers = await self.list()
            except AppError as error:
                log.warning("changes to MCP servers cannot be read; trying again", reason=error.message)
                await asyncio.sleep(1)
                continue
            wanted = {server.id: _revision(server) for server in servers if server.enabled}
            kept = {server.id for server in servers}
            for server_id in [each for each, revision in known.items() if wanted.get(each) != revision]:
                await (self._sessions.stop(server_id) if server_id in kept else self._sessions.remove(server_id))
            known = wanted
            await self._changed.wait()

    async def _write(self, connection: AsyncConnection, draft: ServerDraft, server_id: UUID | None) -> McpServer:
        new_id = server_id or uuid7()
        values = {name: getattr(draft, name) for name in (*COMMON_FIELDS, *STDIO_FIELDS, *HTTP_FIELDS, "name", "transport")}
        values |= {kind: seal(self._secret_box, values[kind], new_id, kind) for kind in ("env", "headers")}
        statement: Any
        if server_id is None:
            statement = insert(mcp_servers).values(id=new_id, **values)
        else:
            statement = update(mcp_servers).where(mcp_servers.c.id == server_id).values(updated_at=func.now(), **values)
        return open_server((await connection.execute(statement.returning(mcp_servers))).mappings().one(), self._secret_box)

    async def _note(self, kind: str, principal: Principal | None, server: McpServer) -> None:
        # Which program runs here is told; its arguments are not, because people put secrets there, and so is no address's query.
        url = server.url.partition("?")[0] if server.url is not None else None
        await self._audit.note(kind, principal, server.name, transport=server.transport, command=server.command, url=url)


def _find(servers: Mapping[str, McpServer], name: str) -> McpServer | None:
    if (found := servers.get(name)) is not None:
        return found
    server_id = parse_uuid(name)
    return next((server for server in servers.values() if server.id == server_id), None) if server_id else None


def _target(server: McpServer) -> StdioTarget | HttpTarget:
    if server.command is not None:
        return StdioTarget(server.command, server.args, server.env, Path(server.cwd) if server.cwd else None)
    if server.url is None or server.transport == "stdio":
        raise InvalidRequest(f"The MCP server '{server.name}' has neither a command nor an address.")
    return HttpTarget(server.url, server.headers, server.transport)


def _revision(server: McpServer) -> str:
    """The same for as long as what a session is started from stays the same."""
    parts = (server.command, server.args, server.cwd, server.env, server.url, server.headers, server.transport, server.timeout_s)
    return hashlib.sha256(orjson.dumps([*parts, server.problem is None], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
