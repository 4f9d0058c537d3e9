"""Providers that an operator added: rows of ``model_providers``, their keys encrypted."""

from collections.abc import Sequence
from time import monotonic

import structlog
from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.chat import Endpoint
from adapters.postgres import Database
from homeport.errors import AppError, Conflict, NotFound, Unavailable
from homeport.models.providers import ConfiguredProvider
from homeport.secrets import SecretBox
from homeport.tables import model_providers

log = structlog.get_logger(__name__)

REREAD_S = 2.0


class StoredProviders:
    """Reads and changes the rows. What was read is kept for REREAD_S, so a change made by another process is seen a little later."""

    def __init__(self, database: Database, secret_box: SecretBox) -> None:
        self._database = database
        self._secret_box = secret_box
        self._known: list[ConfiguredProvider] = []
        self._read_at = float("-inf")

    async def list(self) -> "list[ConfiguredProvider]":
        """All of them, the default first, the others by name."""
        if monotonic() - self._read_at >= REREAD_S:
            statement = select(model_providers).order_by(model_providers.c.is_default.desc(), model_providers.c.name)
            async with self._database.transaction() as connection:
                rows = (await connection.execute(statement)).mappings().all()
            self._known = [self._open(row) for row in rows]
            self._read_at = monotonic()
        return self._known

    async def add(self, endpoint: Endpoint, models: Sequence[str], *, is_default: bool) -> None:
        """Add a row. Raises Conflict (PROVIDER_EXISTS) when the name is taken."""
        context = _context(endpoint.provider)
        row = {
            "name": endpoint.provider,
            "kind": endpoint.kind,
            "base_url": endpoint.base_url,
            "api_key": self._secret_box.seal(endpoint.api_key, context) if endpoint.api_key else None,
            "models": list(models),
            "is_default": is_default,
        }
        async with self._database.transaction() as connection:
            taken = select(model_providers.c.name).where(model_providers.c.name == endpoint.provider)
            if (await connection.execute(taken)).first() is not None:
                message = f"There is a provider '{endpoint.provider}' already. Remove it first, or choose another name."
                raise Conflict(message, code="PROVIDER_EXISTS")
            if is_default:
                await _clear_default(connection)
            await connection.execute(insert(model_providers).values(row))
        self.forget()

    async def remove(self, name: str) -> None:
        """Remove a row. Raises NotFound."""
        async with self._database.transaction() as connection:
            statement = delete(model_providers).where(model_providers.c.name == name)
            if (await connection.execute(statement.returning(model_providers.c.name))).first() is None:
                raise _not_added(name)
        self.forget()

    async def set_default(self, name: str) -> None:
        """Make a row the default in place of the one before. Raises NotFound."""
        async with self._database.transaction() as connection:
            await _clear_default(connection)
            statement = update(model_providers).where(model_providers.c.name == name).values(is_default=True)
            if (await connection.execute(statement.returning(model_providers.c.name))).first() is None:
                raise _not_added(name)
        self.forget()

    def forget(self) -> None:
        """Read again at the next use."""
        self._read_at = float("-inf")

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


def _not_added(name: str) -> NotFound:
    return NotFound(f"No provider '{name}' was added to this server. One that the environment configures is changed there.")


async def _clear_default(connection: AsyncConnection) -> None:
    await connection.execute(update(model_providers).where(model_providers.c.is_default).values(is_default=False))
