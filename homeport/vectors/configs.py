"""Which database an app's vectors are in: Homeport's, or a PostgreSQL that the app registered.

A request costs no query: what was read is kept, and a change notifies every process in the same transaction.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.outbound import AddressRefused, Outbound
from adapters.pgvector import VectorStore
from adapters.postgres import (
    GuestDatabase,
    GuestDatabases,
    GuestUnavailable,
    GuestUrl,
    Notifications,
    notify,
    parse_guest_url,
    reason_of,
)
from homeport.errors import AppError, InvalidRequest
from homeport.identity import Principal
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.tables import vector_configs
from homeport.vectors.providers import DEFAULT_TABLE, HOMEPORT, PGVECTOR, PROVIDERS

# A change to an app's configuration is told here, by the owner's id, in the transaction that makes it.
CHANNEL = "homeport_vector_configs"
MAX_AGE_S = 60.0
CACHE_SIZE = 10_000
REGISTER_S = 10.0

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """Where an app's vectors are; ``config`` as it may be shown."""

    provider: str
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class _OwnDatabase:
    url: GuestUrl
    table: str


@dataclass(slots=True)
class _Entry:
    """A store that is kept; ``sealed`` is the configuration that it was made from, None for Homeport's own."""

    store: VectorStore
    sealed: bytes | None
    loaded_at: float


class VectorConfigs:
    """Keeps each owner's configuration, encrypted, and the stores that they lead to. ``store`` is the one in Homeport's own database.

    Run ``run()`` in the background, and ``close()`` at the end.
    """

    def __init__(self, settings: Settings, store: VectorStore, notifications: Notifications, secret_box: SecretBox) -> None:
        self._guests = GuestDatabases(Outbound(settings.private_hosts))
        self._store = store
        self._notifications = notifications
        self._box = secret_box
        self._entries: dict[UUID, _Entry] = {}
        self._generation = 0
        self._abandoned: set[asyncio.Task[None]] = set()
        notifications.subscribe(CHANNEL, self._forget)
        notifications.on_gap(self._forget_all)

    async def run(self) -> None:
        """Close databases of apps that nobody uses any more, until cancelled."""
        await self._guests.run()

    async def close(self) -> None:
        """Close the databases of apps."""
        await self._guests.close()

    async def store_for(self, owner_id: UUID) -> VectorStore:
        """Where this owner's vectors are. Raises Unavailable when the stored configuration cannot be decrypted."""
        entry = self._entries.get(owner_id)
        if entry is not None and self._notifications.is_connected and time.monotonic() - entry.loaded_at < MAX_AGE_S:
            return entry.store
        generation = self._generation
        sealed = await self._read(owner_id)
        # Of several that load at once the first one's store is used by all: each has a pool of its own.
        entry = self._entries.get(owner_id)
        if entry is None or entry.sealed != sealed:
            entry = self._keep(owner_id, _Entry(self._open_store(owner_id, sealed), sealed, float("-inf")))
        if generation == self._generation:
            entry.loaded_at = time.monotonic()
        return entry.store

    async def show(self, principal: Principal) -> VectorConfig:
        """The configuration that is in force, with passwords masked."""
        sealed = await self._read(principal.owner_id)
        if sealed is None:
            return VectorConfig(HOMEPORT, {})
        own = self._unseal(principal.owner_id, sealed)
        return VectorConfig(PGVECTOR, {"databaseUrl": own.url.masked, "tableName": own.table})

    async def register(self, principal: Principal, provider: str, config: Mapping[str, Any] | None) -> None:
        """Keep a configuration, for all later calls of this owner, if it works: a database is connected to and made ready first.

        A masked password means the one that is stored. Raises InvalidRequest, and the configuration before stays in force.
        """
        if provider == HOMEPORT:
            await self._save(principal.owner_id, None)
        elif provider == PGVECTOR:
            own = await self._check(principal.owner_id, config or {})
            await self._try(own)
            await self._save(principal.owner_id, own)
        else:
            known = ", ".join(each.name for each in PROVIDERS)
            raise InvalidRequest(f"There is no vector provider '{provider[:80]}'. Providers: {known}.")

    async def _check(self, owner_id: UUID, config: Mapping[str, Any]) -> _OwnDatabase:
        url, table = config.get("databaseUrl"), config.get("tableName") or DEFAULT_TABLE
        if not isinstance(url, str) or not url:
            raise InvalidRequest("config.databaseUrl must hold the URL of the database: postgresql://user:password@host:5432/database.")
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            raise InvalidRequest(
                "config.tableName must be a plain name: at most 48 letters, digits and underscores, not beginning with a digit."
            )
        parsed = parse_guest_url(url)
        if parsed.is_masked:
            sealed = await self._read(owner_id)
            parsed = parsed.unmasked(self._unseal(owner_id, sealed).url if sealed is not None else None)
        return _OwnDatabase(parsed, table)

    async def _try(self, own: _OwnDatabase) -> None:
        """Connect and make the database ready. Raises InvalidRequest with the reason, after REGISTER_S at the latest."""
        database = self._guests.database(own.url, is_new=True)
        work = asyncio.create_task(self._prepare(database, own.table), name="prepare a database of an app")
        # What the driver does to end a statement that hangs may take as long again; the answer does not wait for that.
        self._abandoned.add(work)
        work.add_done_callback(self._forget_work)
        try:
            async with asyncio.timeout(REGISTER_S):
                await asyncio.shield(work)
        except TimeoutError as error:
            raise _failed("timeout expired") from error
        except GuestUnavailable as error:
            refused = isinstance(error.__cause__, AddressRefused)
            raise _failed(error.reason, AddressRefused.code if refused else None) from error
        except AppError as error:
            raise _failed(error.message) from error
        except DBAPIError as error:
            raise _failed(reason_of(error)) from error
        finally:
            work.cancel()

    async def _prepare(self, database: GuestDatabase, table: str) -> None:
        try:
            await VectorStore(database, table).prepare()
        finally:
            self._guests.retire(database)
            await self._guests.sweep()

    def _forget_work(self, work: "asyncio.Task[None]") -> None:
        self._abandoned.discard(work)
        if not work.cancelled() and (error := work.exception()):
            log.info("a database of an app was not made ready", reason=str(error).partition("\n")[0])

    async def _read(self, owner_id: UUID) -> bytes | None:
        async with self._store.database.transaction() as connection:
            return (await connection.execute(select(vector_configs.c.config).where(vector_configs.c.owner_id == owner_id))).scalar()

    async def _save(self, owner_id: UUID, own: _OwnDatabase | None) -> None:
        async with self._store.database.transaction() as connection:
            if own is None:
                await remove_config(connection, owner_id)
            else:
                values = {"provider": PGVECTOR, "config": self._seal(owner_id, own), "updated_at": func.now()}
                statement = insert(vector_configs).values(owner_id=owner_id, **values)
                await connection.execute(statement.on_conflict_do_update(index_elements=[vector_configs.c.owner_id], set_=values))
                await notify(connection, CHANNEL, str(owner_id))
        self._forget(str(owner_id))

    def _seal(self, owner_id: UUID, own: _OwnDatabase) -> bytes:
        return self._box.seal(orjson.dumps({"databaseUrl": own.url.text, "tableName": own.table}).decode(), _context(owner_id))

    def _unseal(self, owner_id: UUID, sealed: bytes) -> _OwnDatabase:
        config = orjson.loads(self._box.open(sealed, _context(owner_id)))
        return _OwnDatabase(parse_guest_url(config["databaseUrl"]), config["tableName"])

    def _open_store(self, owner_id: UUID, sealed: bytes | None) -> VectorStore:
        if sealed is None:
            return self._store
        own = self._unseal(owner_id, sealed)
        store = VectorStore(self._guests.database(own.url), own.table)
        store.on_written = self._store.on_written
        return store

    def _keep(self, owner_id: UUID, entry: _Entry) -> _Entry:
        self._drop(owner_id)
        if len(self._entries) >= CACHE_SIZE:
            self._drop(next(iter(self._entries)))
        self._entries[owner_id] = entry
        return entry

    def _drop(self, owner_id: UUID) -> None:
        entry = self._entries.pop(owner_id, None)
        if entry is not None and isinstance(entry.store.database, GuestDatabase):
            self._guests.retire(entry.store.database)

    def _forget(self, owner_id: str) -> None:
        self._generation += 1
        if entry := self._entries.get(UUID(owner_id)):
            entry.loaded_at = float("-inf")

    def _forget_all(self) -> None:
        self._generation += 1
        for entry in self._entries.values():
            entry.loaded_at = float("-inf")


async def remove_config(connection: AsyncConnection, owner_id: UUID) -> None:
    """Forget what an owner registered, in a transaction of the caller's: its vectors are in Homeport's own database again."""
    await connection.execute(delete(vector_configs).where(vector_configs.c.owner_id == owner_id))
    await notify(connection, CHANNEL, str(owner_id))


def _context(owner_id: UUID) -> str:
    return f"vector_configs:{owner_id}"


def _failed(reason: str, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"Failed to connect to PGVector: {reason}", code=code or "VECTOR_DATABASE_FAILED")
