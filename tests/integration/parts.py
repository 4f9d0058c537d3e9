"""The domain of one server process on a database, without HTTP. Two of them on one URL are two processes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import anyio
from sqlalchemy import text

from adapters.postgres import Database, Notifications
from homeport.activities import Activities
from homeport.apps import Apps
from homeport.identity import Identity, Principal
from homeport.keys import Keys
from homeport.permissions import Permissions
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.user_tokens import UserTokens

Value = TypeVar("Value")


@dataclass(frozen=True)
class Parts:
    database: Database
    notifications: Notifications
    identity: Identity
    keys: Keys
    apps: Apps
    permissions: Permissions
    user_tokens: UserTokens
    activities: Activities

    async def app(self, name: str = "App", **values: Any) -> Principal:
        """Register an app and return it as a caller."""
        app = await self.apps.register(name, **values)
        principal = await self.identity.authenticate_app(str(app.id))
        assert principal is not None
        return principal

    async def run_sql(self, statement: str, **values: Any) -> list[Any]:
        """Change or read the database behind everybody's back: nobody is notified."""
        async with self.database.transaction() as connection:
            result = await connection.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    async def drop_listeners(self) -> None:
        """Cut every LISTEN connection on this database, from the server's side."""
        await self.run_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'listen%'"
        )


@asynccontextmanager
async def open_parts(url: str, data_dir: Path, *, recheck_s: float = 5.0, **settings: Any) -> AsyncIterator[Parts]:
    values = Settings(data_dir=data_dir, **{"permission_wait_s": 5.0} | settings)
    database = Database(url, 5)
    await database.open()
    try:
        notifications = Notifications(url)
        identity = Identity(database, notifications)
        secret_box = SecretBox(bytes(32))
        user_tokens = UserTokens(database, secret_box)
        parts = Parts(
            database,
            notifications,
            identity,
            Keys(database, identity),
            Apps(values, database, identity, secret_box),
            Permissions(values, database, notifications, identity, recheck_s=recheck_s),
            user_tokens,
            Activities(database, user_tokens),
        )
        # Entered last: what was subscribed before is in force when it is.
        async with notifications:
            yield parts
    finally:
        await database.close()


async def eventually(read: Callable[[], Awaitable[Value]], is_it: Callable[[Value], bool] = bool) -> Value:
    """Read until the value is as wanted; fail after 20 seconds, which even a busy machine does not need."""
    with anyio.fail_after(20):
        while not is_it(value := await read()):  # noqa: ASYNC110 - what is waited for happens in the database
            await anyio.sleep(0.01)
    return value


def key_principal(owner: UUID, *scopes: str, name: str = "Key") -> Principal:
    return Principal("key", owner, name, owner, None, frozenset(scopes or ("*",)), frozenset())
