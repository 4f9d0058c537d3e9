"""What an operator set: the providers that were added (rows of ``model_providers``, their keys encrypted), routes and limits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

import structlog
from sqlalchemy import RowMapping, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.chat import Endpoint
from adapters.model_catalog import Role
from adapters.postgres import Database, Notifications, notify
from homeport.errors import AppError, Conflict, NotFound, Unavailable
from homeport.models.limits import Limits, LimitTable, delete_limits, drop_limits, read_limits, write_limits
from homeport.models.providers import ConfiguredProvider
from homeport.models.routes import Routes, Target, drop_from_routes, lock_routes, read_routes, write_default, write_route
from homeport.secrets import SecretBox
from homeport.tables import model_providers

log = structlog.get_logger(__name__)

REREAD_S = 2.0
MODELS_CHANNEL = "homeport_models"


@dataclass(frozen=True, slots=True)
class Stored:
    """What was read together. ``providers`` are by name."""

    providers: "list[ConfiguredProvider]" = field(default_factory=list)
    routes: Routes = field(default_factory=dict)
    limits: LimitTable = field(default_factory=LimitTable)


class StoredProviders:
    """Reads and changes the rows. What was read is kept for REREAD_S, or until another process tells of a change (``follow``)."""

    def __init__(self, database: Database, secret_box: SecretBox) -> None:
        self._database = database
        self._secret_box = secret_box
        self._known = Stored()
        self._read_at = float("-inf")
        self._is_forgotten = False
        self._rereading = asyncio.Lock()

    async def read(self) -> Stored:
        """All of it, at most REREAD_S old."""
        if monotonic() - self._read_at >= REREAD_S:
            async with self._rereading:
                if monotonic() - self._read_at >= REREAD_S:
                    await self._reread()
        return self._known

    @property
    def limits(self) -> LimitTable:
        """The limits as they were last read."""
        return self._known.limits

    async def add(self, endpoint: Endpoint, models: Sequence[str], *, is_default: bool) -> None:
        """Add a row, and make it the default for chat. Raises Conflict (PROVIDER_EXISTS) when the name is taken."""
        context = _context(endpoint.provider)
        row = {
            "name": endpoint.provider,
            "kind": endpoint.kind,
            "base_url": endpoint.base_url,
            "api_key": self._secret_box.seal(endpoint.api_key, context) if endpoint.api_key else None,
            "models": list(models),
        }
        async with self._changing() as connection:
            taken = select(model_providers.c.name).where(model_providers.c.name == endpoint.provider)
            if (await connection.execute(taken)).first() is not None:
                message = f"There is a provider '{endpoint.provider}' already. Remove it first, or choose another name."
                raise Conflict(message, code="PROVIDER_EXISTS")
            await connection.execute(insert(model_providers).values(row))
            if is_default:
                await write_default(connection, "chat", Target(endpoint.provider))

    async def remove(self, name: str, *, is_still_configured: bool) -> None:
        """Remove a row; its routes and limits too, unless the provider goes on without the row. Raises NotFound."""
        async with self._changing() as connection:
            statement = delete(model_providers).where(model_providers.c.name == name)
            if (await connection.execute(statement.returning(model_providers.c.name))).first() is None:
                raise NotFound(f"No provider '{name}' was added to this server. One that the environment configures is changed there.")
            if not is_still_configured:
                await drop_from_routes(connection, name)
                await drop_limits(connection, name)

    async def set_route(self, role: Role, targets: Sequence[Target]) -> None:
        """Replace the route of a role; no targets is no route."""
        async with self._changing() as connection:
            await lock_routes(connection)
            await write_route(connection, role, targets)

    async def set_limits(self, limits: Limits) -> None:
        """Set limits in place of those before."""
        async with self._changing() as connection:
            await write_limits(connection, limits)

    async def reset_limits(self, target: Target) -> Limits:
        """Forget limits; returns them. Raises NotFound when there were none."""
        async with self._changing() as connection:
            return await delete_limits(connection, target)

    def follow(self, notifications: Notifications) -> None:
        """Know what another process changes as soon as it has; without this, after REREAD_S."""
        notifications.subscribe(MODELS_CHANNEL, lambda _: self.forget())

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes something, which all processes are told."""
        async with self._database.transaction() as connection:
            yield connection
            await notify(connection, MODELS_CHANNEL, "")
        self.forget()

    def forget(self) -> None:
        """Read again at the next use."""
        self._is_forgotten = True
        self._read_at = float("-inf")

    async def _reread(self) -> None:
        started, self._is_forgotten = monotonic(), False
        async with self._database.transaction() as connection:
            rows = (await connection.execute(select(model_providers).order_by(model_providers.c.name))).mappings().all()
            routes = await read_routes(connection)
            limits = LimitTable(await read_limits(connection))
        self._known = Stored([self._open(row) for row in rows], routes, limits)
        if not self._is_forgotten:  # what was changed meanwhile may have been read too early
            self._read_at = started

    def _open(self, row: RowMapping) -> ConfiguredProvider:
        api_key, problem = None, None
        try:
            if row["api_key"] is not None:
                api_key = self._secret_box.open(row["api_key"], _context(row["name"]))
        except AppError as error:
            log.warning("the stored key of a model provider cannot be read", provider=row["name"], reason=error.message)
            problem = Unavailable(
                f"The stored key of the model provider '{row['name']}' cannot be decrypted with this server's secret key. "
                "Remove the provider and add it again.",
                code="PROVIDER_UNAVAILABLE",
            )
        endpoint = Endpoint(row["name"], row["kind"], row["base_url"], api_key)
        return ConfiguredProvider(endpoint, "database", tuple(row["models"]), problem=problem)


def _context(name: str) -> str:
    return f"model_provider:{name}"
