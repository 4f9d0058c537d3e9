"""LISTEN and NOTIFY: how server processes on one database tell each other that something changed.

A notification is a hint, never the only copy of a fact: it is lost while a listener is not connected. Listeners hear of such a gap
(``on_gap``) and read again what they keep. A pooler in transaction mode takes LISTEN and passes nothing on, without an error; ``check``
finds that out.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import psycopg
import structlog
from psycopg.sql import SQL, Identifier
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.connection import Connection, DatabaseUnsuitable, connect
from adapters.postgres.database_errors import database_unavailable

if TYPE_CHECKING:
    from adapters.postgres.database import Database

PAYLOAD_LIMIT_BYTES = 8000  # PostgreSQL takes less than this
CHANNEL_LIMIT_BYTES = 63
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 5.0
SETTLE_S = 5.0
CHECK_S = 5.0

log = structlog.get_logger(__name__)


async def notify(connection: AsyncConnection, channel: str, payload: str) -> None:
    """Tell every listener of ``channel`` when the transaction commits; a rollback takes it back.

    Raises ValueError for a payload of 8000 bytes or more: send an id and let the listener read the rest.
    """
    if len(payload.encode()) >= PAYLOAD_LIMIT_BYTES:
        raise ValueError(f"a notification carries less than {PAYLOAD_LIMIT_BYTES} bytes; send an id instead")
    _check_channel(channel)
    await connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


class Notifications:
    """One connection of its own that listens, and comes back by itself when it is lost. Use it as a context manager.

    Callbacks are plain functions, called on the event loop: they set an event or drop a cache, and return at once. What one raises
    is logged.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._callbacks: dict[str, list[Callable[[str], object]]] = {}
        self._gap_callbacks: list[Callable[[], object]] = []
        self._listening: set[str] = set()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._connected = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether notifications arrive at the moment, those of every subscription."""
        return self._connected and self._settled.is_set()

    def subscribe(self, channel: str, callback: Callable[[str], object]) -> Callable[[], None]:
        """Call ``callback(payload)`` for each notification of ``channel``; returns the function that ends this.

        It takes effect a moment later; ``settle`` waits for that. Subscriptions made before the context is entered are in force when it is.
        """
        _check_channel(channel)
        self._callbacks.setdefault(channel, []).append(callback)
        self._change()

        def unsubscribe() -> None:
            callbacks = self._callbacks.get(channel, [])
            if callback in callbacks:
                callbacks.remove(callback)
            if not callbacks:
                self._callbacks.pop(channel, None)
            self._change()

        return unsubscribe

    def on_gap(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever notifications may have been missed: when the connection is lost and when it is back."""
        self._gap_callbacks.append(callback)

    async def settle(self) -> None:
        """Return when everything subscribed so far is in force on the server: what is committed after this is heard.

        Raises Unavailable when the connection is lost and not back within 5 s.
        """
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        except TimeoutError as error:
            raise database_unavailable("The database does not pass on notifications at the moment. Try again.") from error

    async def check(self, database: "Database") -> None:
        """Return when a notification of ``database`` has arrived here. Raises DatabaseUnsuitable when none does within 5 s; Unavailable."""
        heard = asyncio.Event()
        channel = f"homeport_check_{uuid4().hex}"
        unsubscribe = self.subscribe(channel, lambda _: heard.set())
        try:
            await self.settle()
            async with database.transaction() as connection:
                await notify(connection, channel, "")
            async with asyncio.timeout(CHECK_S):
                await heard.wait()
        except TimeoutError as error:
            raise DatabaseUnsuitable(
                "The database does not pass on notifications (LISTEN and NOTIFY), without which a server process does not learn what "
                "others have changed. As a rule DATABASE_URL leads through a pooler in transaction mode (PgBouncer's pool_mode, or the "
                "pooled address of a managed service): use its session mode, or the direct address."
            ) from error
        finally:
            unsubscribe()

    async def __aenter__(self) -> Self:
        """Connect and listen. Raises Unavailable."""
        try:
            connection = await self._open()
        except psycopg.Error as error:
            raise database_unavailable(f"The database cannot be reached: {error}") from error
        self._task = asyncio.create_task(self._run(connection), name="database notifications")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _change(self) -> None:
        self._settled.clear()
        self._wake.set()

    async def _run(self, connection: Connection) -> None:
        while True:
            try:
                while True:
                    await self._wait(connection)
                    self._receive(connection)
                    await self._follow_subscriptions(connection)
            except psycopg.Error as error:
                log.warning("database notifications lost", reason=str(error).splitlines()[0])
            except Exception:
                log.exception("listening to the database failed")
            finally:
                self._connected = False
                self._settled.clear()
                await connection.close()
            self._report_gap()
            connection = await self._reopen()
            self._report_gap()

    async def _open(self) -> Connection:
        connection = await connect(self._url, autocommit=True)
        try:
            connection.add_notify_handler(lambda notice: self._deliver(notice.channel, notice.payload))
            self._listening = set()
            await self._follow_subscriptions(connection)
        except BaseException:
            await connection.close()
            raise
        self._connected = True
        return connection

    async def _reopen(self) -> Connection:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                connection = await self._open()
            except psycopg.Error as error:
                log.debug("database notifications still lost", reason=str(error).splitlines()[0])
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, LAST_RETRY_S)
            else:
                log.info("database notifications are back")
                return connection

    async def _wait(self, connection: Connection) -> None:
        """Return when the server has sent something or the subscriptions have changed."""
        loop = asyncio.get_running_loop()
        descriptor = connection.fileno()
        loop.add_reader(descriptor, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            loop.remove_reader(descriptor)
        self._wake.clear()

    def _receive(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while notice := connection.pgconn.notifies():
            self._deliver(notice.relname.decode(), notice.extra.decode())

    async def _follow_subscriptions(self, connection: Connection) -> None:
        wanted = set(self._callbacks)
        commands = [SQL("LISTEN {}").format(Identifier(name)) for name in sorted(wanted - self._listening)]
        commands += [SQL("UNLISTEN {}").format(Identifier(name)) for name in sorted(self._listening - wanted)]
        if commands:
            await connection.execute(SQL("; ").join(commands))
        self._listening = wanted
        if wanted == set(self._callbacks):
            self._settled.set()

    def _deliver(self, channel: str, payload: str) -> None:
        for callback in tuple(self._callbacks.get(channel, ())):
            try:
                callback(payload)
            except Exception:
                log.exception("a listener failed", channel=channel)

    def _report_gap(self) -> None:
        for callback in self._gap_callbacks:
            try:
                callback()
            except Exception:
                log.exception("a listener failed on a gap")


def _check_channel(channel: str) -> None:
    if not 0 < len(channel.encode()) <= CHANNEL_LIMIT_BYTES:
        raise ValueError(f"the name of a channel has 1 to {CHANNEL_LIMIT_BYTES} bytes: {channel!r}")
