"""Transactions on real PostgreSQL: what is kept, what is told about errors, and what a restart costs."""

import asyncio
import signal
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from adapters.postgres import Database, DatabaseUnsuitable, check_server
from adapters.postgres import database as database_module
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.tables import activities, agents, apps, workspaces
from tests.integration.conftest import with_names
from tests.integration.servers import Restartable

pytestmark = pytest.mark.anyio


async def count_apps(database: Database) -> int:
    async with database.transaction() as connection:
        return (await connection.execute(select(func.count()).select_from(apps))).scalar_one()


def an_app(slug: str = "a", **values: Any) -> dict[str, Any]:
    return {"id": uuid4(), "slug": slug, "name": slug, **values}


async def test_a_transaction_is_kept_when_it_ends_well_and_undone_when_it_does_not(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(apps).values(an_app("kept")))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with database.transaction() as connection:
            await connection.execute(insert(apps).values(an_app("undone")))
            raise ZeroDivisionError
    assert await count_apps(database) == 1


async def test_json_comes_back_as_it_was_sent(database: Database) -> None:
    sent = {"z": 1, "a": [1.5, None, True, "\x00 ü \U0001f600"], "": {"deep": {}}, "big": 2**63 - 1}
    async with database.transaction() as connection:
        await connection.execute(insert(activities).values(id=uuid4(), owner_id=uuid4(), raw_data=sent, old_data=None, result=[]))
        row = (await connection.execute(select(activities))).one()
        stored = (await connection.execute(text("SELECT raw_data::text, old_data IS NULL FROM activities"))).one()
    assert row.raw_data == sent
    assert list(row.raw_data) == ["z", "a", "", "big"]
    assert (row.old_data, row.result) == (None, [])
    assert stored == ('{"z":1,"a":[1.5,null,true,"\\u0000 ü \U0001f600"],"":{"deep":{}},"big":9223372036854775807}', True)


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (an_app("a\x00b"), "U+0000"),
        (an_app("half of a pair: \ud800"), "surrogate"),
        (an_app("x" + "".join(str(uuid4()) for _ in range(2000))), "too long"),
        (an_app("deep", manifest=nested(247)), "nested too deeply"),
    ],
)
async def test_a_value_that_cannot_be_stored_is_an_invalid_request(database: Database, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence.replace("+", r"\+")) as caught:
        async with database.transaction() as connection:
            await connection.execute(insert(apps).values(values))
    assert caught.value.__cause__ is not None
    assert "INSERT" not in caught.value.message
    assert await count_apps(database) == 0


async def test_json_of_246_levels_is_stored(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(insert(apps).values(an_app("deep", manifest=nested(246))))
        assert (await connection.execute(select(apps.c.manifest))).scalar_one() == nested(246)


@pytest.mark.parametrize(
    ("statement", "value", "sentence"),
    [
        ("SELECT CAST(:value AS integer)", 2**40, "number is outside the range"),
        ("SELECT CAST(:value AS bigint)", 2**70, "number is outside the range"),
        ("SELECT CAST(CAST(:value AS json) AS jsonb)", '"\\u0000"', r"U\+0000"),
        ("SELECT CAST(:value AS timestamptz)", "294277-01-01", "time is outside the range"),
        ("SELECT CAST(:value AS uuid)", "no-uuid", "cannot be stored"),
    ],
)
async def test_a_value_outside_its_type_is_an_invalid_request(database: Database, statement: str, value: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        async with database.transaction() as connection:
            await connection.execute(text(statement), {"value": value})


async def test_a_violated_constraint_is_for_the_domain_and_names_the_constraint_but_no_values(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with database.transaction() as connection:
            await connection.execute(insert(apps), [an_app("same", description="hunter2"), an_app("same", description="hunter2")])
    assert isinstance(caught.value.orig, psycopg.errors.UniqueViolation)
    assert caught.value.orig.diag.constraint_name == "apps_slug_key"
    assert "hunter2" not in str(caught.value)


async def test_a_mistake_of_ours_is_no_mistake_of_the_caller(database: Database) -> None:
    with pytest.raises(ProgrammingError):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT no_such_column"))


async def test_an_error_of_the_domain_passes_through(database: Database) -> None:
    with pytest.raises(AppError, match="mine"):
        async with database.transaction():
            raise AppError("mine")


@pytest.mark.parametrize("state", ["40001", "40P01", "53300", "53100", "55P03", "57014", "57P01", "58030", "25006", "08006"])
async def test_a_database_that_is_busy_or_going_away_is_unavailable(database: Database, state: str) -> None:
    with pytest.raises(Unavailable) as caught:
        async with database.transaction() as connection:
            await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '{state}'; END $$"))
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    assert "secret" not in caught.value.message
    assert await count_apps(database) == 0


async def test_who_waits_for_a_connection_is_served_before_those_who_come_later(database_url: str) -> None:
    database = Database(database_url, 1)
    served: list[int] = []

    async def use(number: int) -> None:
        async with database.transaction():
            served.append(number)

    async with database.transaction():
        waiting = [asyncio.create_task(use(number)) for number in range(5)]
        await asyncio.sleep(0)  # each begins to wait
    await use(5)
    await asyncio.gather(*waiting)
    await database.close()
    assert served == [0, 1, 2, 3, 4, 5]


async def test_a_pool_that_is_used_up_is_unavailable_after_a_bounded_wait(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_module.POOL_TIMEOUT_S == 5.0
    monkeypatch.setattr(database_module, "POOL_TIMEOUT_S", 0.05)
    database = Database(database_url, 1)
    async with database.transaction():
        with pytest.raises(Unavailable, match="in use"):
            await count_apps(database)
    assert await count_apps(database) == 0
    await database.close()


async def test_no_more_connections_are_opened_than_the_pool_has(database: Database) -> None:
    await asyncio.gather(*(count_apps(database) for _ in range(40)))
    async with database.transaction() as connection:
        query = "SELECT count(*), min(application_name), max(application_name) FROM pg_stat_activity WHERE datname = current_database()"
        assert (await connection.execute(text(query))).one() == (5, "homeport", "homeport")


async def test_a_cancelled_request_gives_its_connection_back(database: Database) -> None:
    async def wait_long() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    for _ in range(7):
        with anyio.move_on_after(0.05) as scope:
            await wait_long()
        assert scope.cancelled_caught
    with anyio.fail_after(5):
        assert await asyncio.gather(*(count_apps(database) for _ in range(5))) == [0] * 5
        async with database.transaction() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
            while (await connection.execute(text(query))).scalar_one():  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_connections_that_the_server_closed_are_replaced_without_an_error(database: Database) -> None:
    await asyncio.gather(*(count_apps(database) for _ in range(20)))
    async with database.transaction() as connection:
        others = "datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        query = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {others}"
        assert (await connection.execute(text(query))).scalar_one() == 4
    assert await asyncio.gather(*(count_apps(database) for _ in range(20))) == [0] * 20


async def test_every_form_of_url_is_understood(database_url: str) -> None:
    for scheme in ("postgres://", "postgresql://", "postgresql+psycopg://"):
        url = scheme + database_url.partition("://")[2]
        database = Database(url + "&application_name=mine&options=-c%20statement_timeout%3D4321", 1)
        async with database.transaction() as connection:
            query = "SELECT current_setting('application_name'), current_setting('statement_timeout')"
            assert (await connection.execute(text(query))).one() == ("mine", "4321ms")
        await database.close()


async def test_times_are_in_utc_whatever_the_database_says(database_url: str) -> None:
    database = Database(database_url + "&options=-c%20timezone%3DAsia/Tokyo", 1)
    async with database.transaction() as connection:
        assert (await connection.execute(text("SELECT now()"))).scalar_one().tzname() == "UTC"
    await database.close()


async def test_statements_are_prepared_on_a_socket(database: Database) -> None:
    async with database.transaction() as connection:
        for _ in range(10):
            await connection.execute(select(agents.c.slug).where(agents.c.slug == "a"))
        assert (
            await connection.execute(text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%agents%'"))
        ).scalar_one() == 1


async def test_a_database_that_is_not_there_is_unavailable_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "RECONNECT_S", 0.0)
    database = Database(f"postgresql:///homeport?host={tmp_path}", 1)
    with pytest.raises(Unavailable, match=f"database at {tmp_path}:5432 cannot be reached.*No such file") as caught:
        await database.open()
    assert caught.value.code == "DATABASE_UNAVAILABLE"
    with pytest.raises(Unavailable, match="cannot be reached at the moment. Try again.$") as caught:
        await count_apps(database)
    assert str(tmp_path) not in caught.value.message
    await database.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
async def test_a_restarted_server_fails_only_what_was_in_flight(restartable: Restartable, number: signal.Signals) -> None:
    database = Database(restartable.url, 5)

    async def work(value: int) -> int:
        async with database.transaction() as connection:
            return int((await connection.execute(text("SELECT CAST(:value AS integer)"), {"value": value})).scalar_one())

    await asyncio.gather(*(work(value) for value in range(20)))
    with pytest.raises(Unavailable):  # noqa: PT012
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            restartable.stop(number)
            # Requests that come while there is no server wait for it.
            waiting = [asyncio.create_task(work(value)) for value in range(3)]
            starter = threading.Thread(target=restartable.start)
            starter.start()
            await connection.execute(text("SELECT 1"))
    with anyio.fail_after(15):
        assert await asyncio.gather(*waiting) == [0, 1, 2]
        assert await asyncio.gather(*(work(value) for value in range(20))) == list(range(20))
    starter.join(10)
    await database.close()


async def test_a_server_that_will_do_passes(database: Database) -> None:
    async with database.transaction() as connection:
        await check_server(connection)


SHADOW = """
CREATE SCHEMA older;
CREATE FUNCTION older.current_setting(text) RETURNS text LANGUAGE sql RETURN
    CASE $1 WHEN 'server_version_num' THEN '130014' WHEN 'server_version' THEN '13.14' ELSE pg_catalog.current_setting($1) END;
"""


@pytest.mark.parametrize(
    ("preparation", "sentence"),
    [
        (SHADOW, "PostgreSQL 14 or newer, and this server is 13.14"),
        (
            "CREATE SCHEMA older; CREATE VIEW older.pg_extension AS SELECT 'vector' AS extname, '0.6.2' AS extversion",
            "still uses 0.6.2: run ALTER EXTENSION vector UPDATE",
        ),
        (
            "CREATE SCHEMA older; DROP EXTENSION vector;"
            "CREATE VIEW older.pg_available_extensions AS SELECT 'vector' AS name, '0.6.2' AS default_version",
            "pgvector 0.8 or newer, and this server has 0.6.2",
        ),
        (
            "CREATE SCHEMA older; DROP EXTENSION vector;"
            "CREATE VIEW older.pg_available_extensions AS SELECT 'x' AS name, '1' AS default_version WHERE false",
            "this server has none.*package postgresql-18-pgvector.*image pgvector/pgvector:pg18",
        ),
    ],
)
async def test_a_server_that_will_not_do_is_refused_with_what_to_do(
    empty_database_url: str, administrator: psycopg.Connection, preparation: str, sentence: str
) -> None:
    # Views and functions of the same names, found first, stand in for servers that cannot be had here.
    name = empty_database_url.rpartition("?")[0].rpartition("/")[2]
    with psycopg.connect(with_names(empty_database_url, user="postgres", database=name), autocommit=True) as connection:
        connection.execute(preparation.encode())
        connection.execute("GRANT USAGE ON SCHEMA older TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA older TO PUBLIC")
    administrator.execute(f"ALTER DATABASE {name} SET search_path = older, pg_catalog, public".encode())
    database = Database(empty_database_url, 1)
    with pytest.raises(DatabaseUnsuitable, match=sentence):
        await database.open()
    await database.close()


async def test_a_database_of_another_encoding_is_refused(postgres_url: str, administrator: psycopg.Connection) -> None:
    administrator.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    database = Database(with_names(postgres_url, database="latin"), 1)
    with pytest.raises(DatabaseUnsuitable, match="encoding UTF8, and this one has LATIN1"):
        await database.open()
    await database.close()
    administrator.execute("DROP DATABASE latin")


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_each_test_has_a_database_of_its_own(database: Database, turn: str) -> None:
    async with database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(workspaces))).scalar_one() == 0
        await connection.execute(insert(workspaces).values(slug=turn, name="W"))
