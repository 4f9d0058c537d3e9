"""``DATABASE_URL``: a PostgreSQL that somebody else runs, over TCP, with a password, of another version, in another time zone."""

import asyncio
from datetime import timedelta

import anyio
import pytest
from sqlalchemy import select, text

from adapters.postgres import Database, DatabaseUnsuitable, Notifications, migrate, notify
from adapters.postgres import database as database_module
from homeport.errors import Unavailable
from homeport.migrations import SCRIPTS
from homeport.tables import apps
from tests.integration.external_postgres import ENCODED_PASSWORD, PASSWORD

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def migrated_url(external_postgres_url: str) -> str:
    asyncio.run(migrate(external_postgres_url, SCRIPTS))
    return external_postgres_url


async def test_an_external_database_is_migrated_and_used(migrated_url: str) -> None:
    database = Database(migrated_url, 2)
    await database.open()
    async with database.transaction() as connection:
        await connection.execute(
            apps.insert().values(id="5b0f8e32-8c4b-4a5c-9d3e-2f0f6a0c7d11", slug="a", name="A", manifest={"b": 1, "a": "\x00"})
        )
    async with database.transaction() as connection:
        row = (await connection.execute(select(apps))).one()
    await database.close()
    assert row.manifest == {"b": 1, "a": "\x00"}
    assert list(row.manifest) == ["b", "a"]
    assert row.created_at.utcoffset() == timedelta(0)


async def test_statements_are_not_prepared_over_tcp(migrated_url: str) -> None:
    database = Database(migrated_url, 1)
    async with database.transaction() as connection:
        for _ in range(10):
            await connection.execute(text("SELECT slug FROM apps WHERE slug = :slug"), {"slug": "a"})
        prepared = (await connection.execute(text("SELECT count(*) FROM pg_prepared_statements"))).scalar()
    await database.close()
    assert prepared == 0


async def test_notifications_arrive_over_tcp(migrated_url: str) -> None:
    database = Database(migrated_url, 1)
    heard = asyncio.Queue[str]()
    notifications = Notifications(migrated_url)
    notifications.subscribe("news", heard.put_nowait)
    async with notifications:
        async with database.transaction() as connection:
            await notify(connection, "news", "hello")
        with anyio.fail_after(5):
            assert await heard.get() == "hello"
    await database.close()


async def test_a_wrong_password_is_told_without_showing_it(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "RECONNECT_S", 0.0)
    database = Database(migrated_url.replace(ENCODED_PASSWORD, "not-this-one"), 1)
    with pytest.raises(Unavailable, match="password authentication failed") as caught:
        await database.open()
    await database.close()
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert "not-this-one" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://u:{}@localhost/x", "postgresql://u:{}%zz@localhost/x", "{}", "postgresql://u:{}@localhost/x?no=1"]
)
def test_a_url_that_is_none_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnsuitable, match="DATABASE_URL is not a PostgreSQL URL") as caught:
        Database(url.format(PASSWORD[:4]), 1)
    assert PASSWORD[:4] not in str(caught.value)
    assert caught.value.__cause__ is None
