"""Workspaces and the threads in them: where conversations live. Those named default and general are always there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database
from homeport.errors import Conflict, NotFound
from homeport.ids import check_name
from homeport.slugs import check_slug, insert_with_slug, slugs_for
from homeport.tables import threads, workspaces

DEFAULT_WORKSPACE = "default"
DEFAULT_THREAD = "general"

_THREAD_COLUMNS = (threads.c.id, threads.c.slug, threads.c.name, threads.c.created_at)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A place for threads."""

    id: int
    slug: str
    name: str
    type: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation in a workspace; its slug is unique there."""

    id: int
    slug: str
    name: str
    created_at: datetime


class Workspaces:
    """Creates, lists and removes workspaces and threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_defaults(self) -> None:
        """Make the default workspace and thread if they are missing; any number of processes may do so at once."""
        async with self._database.transaction() as connection:
            workspace = {"slug": DEFAULT_WORKSPACE, "name": "Default"}
            await connection.execute(insert(workspaces).values(workspace).on_conflict_do_nothing())
            default_id = select(workspaces.c.id).where(workspaces.c.slug == DEFAULT_WORKSPACE).scalar_subquery()
            thread = {"workspace_id": default_id, "slug": DEFAULT_THREAD, "name": "General"}
            await connection.execute(insert(threads).values(thread).on_conflict_do_nothing())

    async def list(self) -> Sequence[Workspace]:
        """All workspaces, oldest first."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(workspaces).order_by(workspaces.c.id))
            return [Workspace(**row) for row in rows.mappings()]

    async def create(self, name: str, slug: str | None = None) -> Workspace:
        """Make a workspace; its slug is made from the name unless it is given. Raises InvalidRequest, and Conflict for a taken slug."""
        values = {"name": check_name(name, "a workspace")}
        slugs = [check_slug(slug)] if slug else slugs_for(name, "workspace")
        async with self._database.transaction() as connection:
            return Workspace(**await insert_with_slug(connection, workspaces, values, slugs, [workspaces.c.slug]))

    async def remove(self, slug: str) -> Workspace:
        """Remove a workspace and its threads. Raises NotFound, and Conflict for the default one."""
        if slug == DEFAULT_WORKSPACE:
            raise Conflict("The default workspace cannot be removed.")
        async with self._database.transaction() as connection:
            rows = await connection.execute(delete(workspaces).where(workspaces.c.slug == slug).returning(workspaces))
            return _found(rows.mappings().one_or_none())

    async def list_threads(self, slug: str) -> tuple[Workspace, Sequence[Thread]]:
        """A workspace and its threads, oldest first. Raises NotFound."""
        async with self._database.transaction() as connection:
            workspace = await _find(connection, slug)
            statement = select(*_THREAD_COLUMNS).where(threads.c.workspace_id == workspace.id).order_by(threads.c.id)
            rows = await connection.execute(statement)
            return workspace, [Thread(**row) for row in rows.mappings()]

    async def create_thread(self, workspace_slug: str, name: str, slug: str | None = None) -> Thread:
        """Make a thread in a workspace. Raises NotFound, InvalidRequest, and Conflict when the slug is taken there."""
        slugs = [check_slug(slug)] if slug else slugs_for(name, "thread")
        async with self._database.transaction() as connection:
            workspace = await _find(connection, workspace_slug, lock=True)
            values = {"workspace_id": workspace.id, "name": check_name(name, "a thread")}
            row = await insert_with_slug(connection, threads, values, slugs, [threads.c.workspace_id, threads.c.slug])
            return Thread(**{column.name: row[column.name] for column in _THREAD_COLUMNS})

    async def remove_thread(self, workspace_slug: str, slug: str) -> Thread:
        """Remove a thread. Raises NotFound, and Conflict for the default thread of the default workspace."""
        if (workspace_slug, slug) == (DEFAULT_WORKSPACE, DEFAULT_THREAD):
            raise Conflict("The default thread cannot be removed.")
        async with self._database.transaction() as connection:
            workspace = await _find(connection, workspace_slug)
            statement = delete(threads).where(threads.c.workspace_id == workspace.id, threads.c.slug == slug)
            row = (await connection.execute(statement.returning(*_THREAD_COLUMNS))).mappings().one_or_none()
        if row is None:
            raise NotFound("Thread not found")
        return Thread(**row)


async def _find(connection: AsyncConnection, slug: str, *, lock: bool = False) -> Workspace:
    statement = select(workspaces).where(workspaces.c.slug == slug)
    rows = await connection.execute(statement.with_for_update(read=True, key_share=True) if lock else statement)
    return _found(rows.mappings().one_or_none())


def _found(row: RowMapping | None) -> Workspace:
    if row is None:
        raise NotFound("Workspace not found")
    return Workspace(**row)
