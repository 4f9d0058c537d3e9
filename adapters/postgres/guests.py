"""Databases that apps brought along: reached over the network, each with a small pool of its own that is closed when nobody uses it.

What goes wrong with one is told as an error of that database, never as one of the server's own.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.outbound import AddressRefused, HostUnknown, Outbound
from adapters.postgres.connection import Connection, connect_with
from adapters.postgres.database import VECTOR_SEARCH, Database
from adapters.postgres.guest_url import GuestUrl
from homeport.errors import Unavailable

MAX_OPEN = 32
POOL_SIZE = 4
IDLE_S = 300.0
SWEEP_EVERY_S = 30.0
CONNECT_S = 8.0
MAX_ADDRESSES = 4
MAX_REASON = 200
# What the caller decides on: a constraint, and a table that somebody else has dropped.
FOR_THE_CALLER = (IntegrityError, psycopg.errors.IntegrityError, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject)

# "connection failed: connection to server at "db.example" (192.0.2.1), port 5432 failed: FATAL:  …"
_PREFIX = re.compile(r"^(connection (failed|is bad): |connection (?=timeout ))?(connection to server at .*?, port \d+ failed: )?(\S+:  )?")

log = structlog.get_logger(__name__)


class GuestUnavailable(Unavailable):
    """The vector database that this app registered is not available."""

    code = "DATABASE_UNAVAILABLE"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"The vector database that this app registered cannot be used: {reason.rstrip('.')}.")


class GuestDatabase(Database):
    """An app's own database. Its pool opens with the first transaction and may be closed between two of them.

    Its owner may change it at any time. So where a statement fails in a way that would be a mistake of ours in our own database
    (a column that is missing, a right that was taken back), that is GuestUnavailable as well; not while ``is_new``.
    """

    def __init__(self, url: GuestUrl, guests: "GuestDatabases", pool_size: int, *, is_new: bool) -> None:
        super().__init__(url.parameters(()), pool_size)
        self.host = url.host
        self._url = url
        self._guests = guests
        self._passes = (DBAPIError, psycopg.Error) if is_new else FOR_THE_CALLER

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """As ``Database.transaction``. Raises GuestUnavailable where that raises Unavailable."""
        async with self._as_guest(), super().transaction() as connection:
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Connection]:
        """As ``Database.autocommit``. Raises GuestUnavailable where that raises Unavailable."""
        async with self._as_guest(), super().autocommit() as connection:
            yield connection

    @asynccontextmanager
    async def _as_guest(self) -> AsyncIterator[None]:
        async with self._guests.in_use(self):
            try:
                yield
            except (GuestUnavailable, *self._passes):
                raise
            except Unavailable as error:
                raise GuestUnavailable(continued(error.message)) from error
            except (DBAPIError, psycopg.Error) as error:
                raise GuestUnavailable(reason_of(error)) from error

    async def _connect(self) -> Connection:
        """A connection to an address that was checked just now. One attempt each: who waits is told at once what is wrong."""
        try:
            async with asyncio.timeout(CONNECT_S):
                addresses = await self._guests.outbound.resolve(self._url.host, self._url.port)
                parameters = self._url.parameters(addresses[:MAX_ADDRESSES])
                return await connect_with(parameters, context=self._adapters, first=VECTOR_SEARCH)
        except TimeoutError as error:
            raise GuestUnavailable("timeout expired") from error
        except HostUnknown as error:
            raise GuestUnavailable(f'could not translate host name "{self._url.host}"') from error
        except AddressRefused as error:
            raise GuestUnavailable(continued(error.message)) from error
        except psycopg.Error as error:
            raise GuestUnavailable(reason_of(error)) from error


@dataclass(slots=True)
class _Use:
    users: int
    last_used: float


class GuestDatabases:
    """Keeps at most ``max_open`` of them open, of ``pool_size`` connections each; one that was idle for ``idle_s`` seconds is closed."""

    def __init__(self, outbound: Outbound, *, max_open: int = MAX_OPEN, pool_size: int = POOL_SIZE, idle_s: float = IDLE_S) -> None:
        self.outbound = outbound
        self._max_open = max_open
        self._pool_size = pool_size
        self._idle_s = idle_s
        # The one that was used last comes last.
        self._open: dict[GuestDatabase, _Use] = {}
        self._changing = asyncio.Lock()

    @property
    def open_count(self) -> int:
        """How many are open."""
        return len(self._open)

    def database(self, url: GuestUrl, *, is_new: bool = False) -> GuestDatabase:
        """The database at ``url``; nothing is opened yet. ``is_new``: what its statements raise passes, for whoever sets it up."""
        return GuestDatabase(url, self, self._pool_size, is_new=is_new)

    @asynccontextmanager
    async def in_use(self, database: GuestDatabase) -> AsyncIterator[None]:
        """Keep ``database`` open inside the block. Raises GuestUnavailable when too many others are in use."""
        use = self._open.get(database) or await self._enter(database)
        use.users += 1
        try:
            yield
        finally:
            use.users -= 1
            use.last_used = time.monotonic()
            if self._open.get(database) is use:
                self._open[database] = self._open.pop(database)

    def retire(self, database: GuestDatabase) -> None:
        """Say that ``database`` is not going to be used again: the next sweep closes it, unless something in it is still under way."""
        if use := self._open.get(database):
            use.last_used = float("-inf")

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            await asyncio.sleep(min(SWEEP_EVERY_S, self._idle_s))
            await self.sweep()

    async def sweep(self) -> None:
        """Close every database that was idle for long enough."""
        async with self._changing:
            idle_since = time.monotonic() - self._idle_s
            for database in [each for each, use in self._open.items() if not use.users and use.last_used <= idle_since]:
                await self._close(database)

    async def close(self) -> None:
        """Close all of them."""
        async with self._changing:
            for database in list(self._open):
                await self._close(database)

    async def _enter(self, database: GuestDatabase) -> _Use:
        async with self._changing:  # whoever is being closed comes back when that is done
            if database not in self._open:
                if len(self._open) >= self._max_open:
                    await self._close(self._longest_idle())
                self._open[database] = _Use(0, time.monotonic())
            return self._open[database]

    def _longest_idle(self) -> GuestDatabase:
        idle = next((each for each, use in self._open.items() if not use.users), None)
        if idle is None:
            raise GuestUnavailable(f"{self._max_open} databases of apps are in use at once, and more are not opened. Try again later")
        return idle

    async def _close(self, database: GuestDatabase) -> None:
        del self._open[database]
        await database.close()
        log.debug("database of an app closed", host=database.host)


def reason_of(error: BaseException) -> str:
    """Why a connection or a statement failed: the driver's or the server's reason in one short line, without addresses and SQL."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    diagnosis = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    first = (diagnosis or str(cause) or "the connection failed").splitlines()[0]
    printable = "".join(character if character.isprintable() else " " for character in _PREFIX.sub("", first))
    return continued(printable[:MAX_REASON])


def continued(sentence: str) -> str:
    """``sentence`` as it stands after a colon."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
