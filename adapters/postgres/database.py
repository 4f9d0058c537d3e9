"""Transactions on PostgreSQL, and the check that the server is one that Homeport can use."""

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
import structlog
from psycopg.adapt import AdaptersMap
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy import event, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from adapters.postgres.binary import BinaryParameter, BinaryParameterDumper
from adapters.postgres.connection import Connection, DatabaseUnsuitable, connect_with, parse_url
from adapters.postgres.database_errors import database_unavailable, translated_errors
from homeport.errors import InvalidRequest

__all__ = ["Database", "DatabaseUnsuitable", "check_server", "dump_json"]

POOL_TIMEOUT_S = 5.0
ENVELOPE_LEVELS = 8
RECONNECT_S = 4.0
RECONNECT_EVERY_S = 0.1
OLDEST_SERVER = 14
# 0.8 brought scans of an index that go on until enough rows match a filter.
OLDEST_VECTOR = (0, 8)
# How every connection searches vector indexes: where more are asked for than the index gives at first, or a filter leaves too few of them,
# it goes on until there are enough.
VECTOR_SEARCH = "SET hnsw.iterative_scan = strict_order"
# Whoever waits for a lock longer than this gives its connection back: all locks of ours are held for moments, and what somebody else holds
# (a maintenance of the tables, say) must not use up the pool.
LOCK_LIMIT = "SET lock_timeout = '10s'"

log = structlog.get_logger(__name__)


class Database:
    """A pool of at most ``pool_size`` connections to the database at ``source``: a URL, or parameters of libpq that were checked.

    Before a connection is lent its socket is looked at (a few microseconds, no round trip): one that the server has closed is
    replaced. New connections are tried for a few seconds. So a PostgreSQL that restarts fails the requests that were in
    the middle of something, and no others.
    """

    def __init__(self, source: str | dict[str, Any], pool_size: int) -> None:
        self._parameters = parse_url(source) if isinstance(source, str) else source
        self._adapters = AdaptersMap(psycopg.adapters)
        set_json_dumps(dump_json, self._adapters)
        set_json_loads(orjson.loads, self._adapters)
        self._adapters.register_dumper(BinaryParameter, BinaryParameterDumper)
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            hide_parameters=True,
            use_native_hstore=False,
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)
        # The pool itself lets newcomers overtake those who wait, so that under load some wait until their time is over.
        self._line = asyncio.Semaphore(pool_size)

    async def open(self) -> None:
        """Connect once and check the server. Raises Unavailable with the server's reason, or DatabaseUnsuitable."""
        try:
            connection = await self._connect()
        except psycopg.OperationalError as error:
            where = f"{self._parameters.get('host', 'localhost')}:{self._parameters.get('port', 5432)}"
            raise database_unavailable(f"The database at {where} cannot be reached: {error}") from error
        await connection.close()
        async with self.transaction() as checked:
            await check_server(checked)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back when the block fails.

        Raises Unavailable when the database is out of reach, busy or stopping, InvalidRequest for a value that it cannot store;
        sqlalchemy.exc.IntegrityError for a violated constraint, for the domain to decide on.
        """
        with translated_errors():
            async with self._place_in_line(), self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        """psycopg's own connection, each statement a transaction of its own: half the cost of ``transaction`` for a single statement.

        Raises as ``transaction`` does, with psycopg's exceptions in place of SQLAlchemy's.
        """
        with translated_errors():
            async with self._place_in_line(), self._engine.connect() as pooled:
                driver: Any = (await pooled.get_raw_connection()).driver_connection
                await driver.set_autocommit(True)
                try:
                    yield driver
                finally:
                    if not driver.closed:
                        await driver.set_autocommit(False)

    @asynccontextmanager
    async def _place_in_line(self) -> AsyncIterator[None]:
        """Wait for one of the connections to be free; who came first is served first. Raises SQLAlchemy's TimeoutError."""
        if self._line.locked():
            try:
                async with asyncio.timeout(POOL_TIMEOUT_S):
                    await self._line.acquire()
            except TimeoutError as error:
                raise PoolTimeout from error
        else:
            await self._line.acquire()  # at once
        try:
            yield
        finally:
            self._line.release()

    async def _connect(self) -> Connection:
        give_up_at = asyncio.get_running_loop().time() + RECONNECT_S
        while True:
            try:
                return await connect_with(self._parameters, context=self._adapters, first=f"{VECTOR_SEARCH}; {LOCK_LIMIT}")
            except psycopg.OperationalError:
                # A server that is restarting refuses connections for a moment.
                if asyncio.get_running_loop().time() + RECONNECT_EVERY_S > give_up_at:
                    raise
            await asyncio.sleep(RECONNECT_EVERY_S)


def dump_json(value: Any) -> bytes:
    """``value`` as JSON. Raises InvalidRequest for what orjson reads but does not write: more than 254 levels.

    It is written inside ENVELOPE_LEVELS lists, which are cut off again: what is stored can be sent inside an answer as well.
    """
    for _ in range(ENVELOPE_LEVELS):
        value = [value]
    try:
        return orjson.dumps(value)[ENVELOPE_LEVELS:-ENVELOPE_LEVELS]
    except orjson.JSONEncodeError as error:
        if "ecursion" not in str(error):
            raise
        message = f"A JSON value is nested too deeply to be stored (more than {254 - ENVELOPE_LEVELS} levels)."
        raise InvalidRequest(message) from error


def _refuse_closed(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that says something while nobody asked: nearly always that it was closed."""
    if not record.info.setdefault("was_lent", False):
        record.info["was_lent"] = True
        return
    connection: Connection = dbapi_connection.driver_connection
    poller = select.poll()
    try:
        poller.register(connection.fileno(), select.POLLIN)
    except psycopg.OperationalError as error:
        raise DisconnectionError("the connection is closed") from error
    if poller.poll(0):
        log.info("database connection replaced")
        raise DisconnectionError("the server has closed the connection")


async def check_server(connection: AsyncConnection) -> None:
    """Raise DatabaseUnsuitable, saying what was found and what to do, unless Homeport can work with this server and database."""
    settings = [f"current_setting('{name}')" for name in ("server_version", "server_version_num", "server_encoding")]
    version, number, encoding = (await connection.execute(text(f"SELECT {', '.join(settings)}"))).one()
    major = int(number) // 10000
    if major < OLDEST_SERVER:
        raise DatabaseUnsuitable(f"Homeport needs PostgreSQL {OLDEST_SERVER} or newer, and this server is {version}. Upgrade it.")
    if encoding != "UTF8":
        raise DatabaseUnsuitable(
            f"Homeport needs a database with the encoding UTF8, and this one has {encoding}. "
            "Make a new one: CREATE DATABASE homeport ENCODING 'UTF8' TEMPLATE template0."
        )
    found = await connection.execute(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    if (installed := found.scalar()) is not None and _numbers(installed) >= OLDEST_VECTOR:
        return
    found = await connection.execute(text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"))
    _check_vector(installed, found.scalar(), major)


def _check_vector(installed: str | None, available: str | None, major: int) -> None:
    wanted = ".".join(map(str, OLDEST_VECTOR))
    if available is None:
        raise DatabaseUnsuitable(
            f"Homeport needs the PostgreSQL extension pgvector {wanted} or newer, and this server has none. Install it beside the server: "
            f"on Debian and Ubuntu the package postgresql-{major}-pgvector, in containers the image pgvector/pgvector:pg{major}; "
            "managed services have it in their list of extensions."
        )
    if _numbers(available) < OLDEST_VECTOR:
        raise DatabaseUnsuitable(f"Homeport needs pgvector {wanted} or newer, and this server has {available}. Upgrade it on the server.")
    if installed is not None:
        raise DatabaseUnsuitable(
            f"Homeport needs pgvector {wanted} or newer. This server has {available}, but the database still uses {installed}: "
            "run ALTER EXTENSION vector UPDATE in it as its owner."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
