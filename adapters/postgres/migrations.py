"""Bring the database to the schema of this program, at start.

Each file ``<scripts>/versions/<revision>_<name>.py`` is one step; revisions are numbers of four digits, so that their order, and with
it the newest one, can be read off the file names. A database that is up to date costs one query; Alembic is imported only when there is
something to do.
"""

import asyncio
import time
from pathlib import Path

import psycopg
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from adapters.postgres.connection import DatabaseUnsuitable, connect
from adapters.postgres.database import check_server
from adapters.postgres.database_errors import translated_errors
from homeport.errors import Unavailable

__all__ = ["SchemaTooNew", "known_revisions", "migrate"]

LOCK = int.from_bytes(b"homeport")  # the number of an advisory lock; any that no other program takes
LOCK_TIMEOUT_S = 60.0
LOCK_POLL_S = 0.05

log = structlog.get_logger(__name__)


class SchemaTooNew(Unavailable):
    """The database was written by a newer Homeport."""

    code = "DATABASE_UNAVAILABLE"


def known_revisions(scripts: Path) -> list[str]:
    """The revisions that this program brings, oldest first."""
    return sorted(path.name.split("_", 1)[0] for path in (scripts / "versions").glob("[0-9]*_*.py"))


async def migrate(url: str, scripts: Path) -> None:
    """Bring the database at ``url`` to the newest revision in ``scripts``. Several processes may do this at once: one works, others wait.

    Raises SchemaTooNew; DatabaseUnsuitable when the server or the role's rights do not do; Unavailable when the database is out of
    reach or another process takes longer than a minute.
    """
    known = known_revisions(scripts)
    with translated_errors():
        async with await connect(url, autocommit=True) as connection:
            try:
                row = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
            except psycopg.errors.UndefinedTable:
                row = None
        if not _is_up_to_date(row[0] if row else None, known):
            await _upgrade(url, scripts, known)


def _is_up_to_date(revision: str | None, known: list[str]) -> bool:
    if revision is not None and revision not in known:
        raise SchemaTooNew(
            f"This data directory or database was written by a newer Homeport (schema {revision}; this one knows up to {known[-1]}). "
            "Upgrade Homeport, or use another data directory or database."
        )
    return revision == known[-1]


async def _upgrade(url: str, scripts: Path, known: list[str]) -> None:
    engine = create_async_engine("postgresql+psycopg://", async_creator=lambda: connect(url), poolclass=NullPool, use_native_hstore=False)
    try:
        async with engine.begin() as connection:
            await check_server(connection)
            await _lock(connection)
            before = await connection.run_sync(_current_revision)
            if not _is_up_to_date(before, known):
                log.info("migrating the database", from_revision=before, to_revision=known[-1])
                await connection.run_sync(_run_alembic, scripts)
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise DatabaseUnsuitable(
            f"The database role may not create what Homeport needs ({error.orig.diag.message_primary}). Make the role the owner of the "
            "database; if it is about the extension, have an administrator run CREATE EXTENSION vector in it."
        ) from error
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection) -> None:
    """Exclude other migrations until the end of the transaction, which is also where a crash or a kill ends."""
    give_up_at = time.monotonic() + LOCK_TIMEOUT_S
    # Asking again instead of waiting inside the server leaves no snapshot open that the other migration might have to wait for.
    while not (await connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK})).scalar():
        if time.monotonic() > give_up_at:
            raise Unavailable(
                f"Another process has been migrating this database for {LOCK_TIMEOUT_S:.0f} s. Start again when it is done.",
                code="DATABASE_UNAVAILABLE",
            )
        await asyncio.sleep(LOCK_POLL_S)


def _current_revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _run_alembic(connection: Connection, scripts: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
