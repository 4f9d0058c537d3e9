"""Events: what was done here, by whom and to what, kept for RETENTION.

An event is a fact that has happened; nothing is derived from it, and it never holds what was said: no arguments, no results, no secrets.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, dump_json
from homeport.errors import AppError
from homeport.identity import Principal
from homeport.paging import Page, fetch_page
from homeport.tables import events

RETENTION = timedelta(days=90)
SWEEP_INTERVAL_S = 3600.0

# Nobody waits for the disk: a crash of the machine may take the events of the last moment, and nothing else.
_INSERT = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO events (kind, app_id, key_id, subject, data) SELECT %s::text, %s::uuid, %s::uuid, %s::text, %s::json FROM quick
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``subject`` is what it was done to; ``app_id`` and ``key_id`` say who did it, both None for the CLI."""

    id: int
    kind: str
    app_id: UUID | None
    key_id: UUID | None
    subject: str
    data: dict[str, Any]
    created_at: datetime


class Events:
    """Writes events down and reads them again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        kind: str,
        *,
        principal: Principal | None,
        subject: str,
        data: Mapping[str, Any],
        connection: AsyncConnection | None = None,
    ) -> None:
        """Write one event: with a ``connection`` in its transaction, else at once, so that it can be read when this returns.

        Raises Unavailable.
        """
        app_id, key_id = _ids(principal)
        if connection is not None:
            values = {"kind": kind, "app_id": app_id, "key_id": key_id, "subject": subject, "data": data}
            await connection.execute(insert(events).values(values))
            return
        async with self._database.autocommit() as driver:
            await driver.execute(_INSERT, (kind, app_id, key_id, subject, dump_json(data).decode()))

    async def list(
        self,
        *,
        kind: str | None = None,
        app_id: UUID | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Event]:
        """Events, newest first; only those of a kind, of an app, about a subject, or from a time on."""
        statement = select(events)
        for column, wanted in ((events.c.kind, kind), (events.c.app_id, app_id), (events.c.subject, subject)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        if since is not None:
            statement = statement.where(events.c.created_at >= since)
        scope = f"events {kind or ''} {app_id or ''} {since or ''} {subject or ''}"
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, [events.c.id], scope=scope, limit=limit, cursor=cursor, descending=True)
        return Page([Event(**row) for row in page.items], page.next_cursor)

    async def run_sweeper(self) -> None:
        """Once an hour, until cancelled, remove events that are older than RETENTION."""
        while True:
            try:
                if count := await self.remove_old():
                    log.info("old events removed", count=count)
            except AppError as error:
                log.warning("old events could not be removed; trying again in an hour", reason=error.message)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def remove_old(self) -> int:
        """Remove events that are older than RETENTION; returns how many. Raises Unavailable."""
        async with self._database.transaction() as connection:
            return (await connection.execute(delete(events).where(events.c.created_at < func.now() - RETENTION))).rowcount


def _ids(principal: Principal | None) -> tuple[UUID | None, UUID | None]:
    """The app and the key that did it. A key may speak for an app."""
    if principal is None:
        return None, None
    if principal.kind == "app":
        return principal.id, None
    return (principal.owner_id if principal.owner_id != principal.id else None), principal.id
