"""Databases that apps brought along, on a second real PostgreSQL: bounded pools, errors of their own, and nothing of ours given away."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from adapters.outbound import Outbound
from adapters.postgres import GuestDatabase, GuestDatabases, GuestUnavailable, parse_guest_url
from adapters.postgres import database as database_module
from homeport.errors import InvalidRequest
from tests.integration.conftest import with_names
from tests.integration.external_postgres import ENCODED_PASSWORD, ExternalServer
from tests.integration.listening_server import CLEARTEXT_PASSWORD, GSS, MD5_PASSWORD, SSPI, run_listening
from tests.integration.parts import eventually

pytestmark = pytest.mark.anyio

HERE = Outbound(("localhost",))


async def ask(database: GuestDatabase, question: str = "SELECT current_database()") -> Any:
    async with database.transaction() as connection:
        return (await connection.execute(text(question))).scalar()


def count_connections(url: str, *applications: str) -> int:
    """How many connections with these names are open on the server."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = ANY(%s)", [list(applications)]).fetchone()
        assert row is not None
        return int(row[0])


def named(url: str, application: str) -> str:
    return f"{url}&application_name={application}"


async def test_transactions_go_to_the_apps_database_in_utc(guest_url: str) -> None:
    guests = GuestDatabases(HERE)
    database = guests.database(parse_guest_url(guest_url))
    assert guests.open_count == 0
    assert await ask(database) == parse_guest_url(guest_url).database
    assert await ask(database, "SHOW timezone") == "UTC"
    assert await ask(database, "SHOW hnsw.iterative_scan") == "strict_order"
    async with database.autocommit() as connection:
        row = await (await connection.execute("SELECT current_database()")).fetchone()
    assert row == (parse_guest_url(guest_url).database,)
    await guests.close()
    assert guests.open_count == 0


async def test_a_database_has_at_most_its_connections_open(guest_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "POOL_TIMEOUT_S", 0.2)
    guests = GuestDatabases(HERE, pool_size=2)
    database = guests.database(parse_guest_url(named(guest_url, "bounded")))
    async with database.transaction() as one, database.transaction() as two:
        assert await one.scalar(text("SELECT 1")) == await two.scalar(text("SELECT 1"))
        with pytest.raises(GuestUnavailable, match="all database connections are in use"):
            await ask(database)
        assert count_connections(guest_url, "bounded") == 2
    assert await ask(database, "SELECT 1") == 1
    await guests.close()
    assert count_connections(guest_url, "bounded") == 0


async def test_the_database_that_was_idle_longest_makes_room_for_another(guest_url: str) -> None:
    guests = GuestDatabases(HERE, max_open=2)
    first, second, third = (guests.database(parse_guest_url(named(guest_url, name))) for name in ("first", "second", "third"))
    for database in (first, second, first, third):
        assert await ask(database, "SELECT 1") == 1
        assert guests.open_count <= 2
    assert [count_connections(guest_url, name) for name in ("first", "second", "third")] == [1, 0, 1]
    assert await ask(second, "SELECT 1") == 1
    assert [count_connections(guest_url, name) for name in ("first", "second", "third")] == [0, 1, 1]
    await guests.close()


async def test_a_database_in_use_is_not_closed_for_another(guest_url: str) -> None:
    guests = GuestDatabases(HERE, max_open=1)
    used, other = (guests.database(parse_guest_url(named(guest_url, name))) for name in ("used", "other"))
    async with used.transaction() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE mine (id int)"))
        with pytest.raises(GuestUnavailable, match="in use at once") as caught:
            await ask(other)
        await guests.sweep()
        assert (await connection.execute(text("SELECT count(*) FROM mine"))).scalar() == 0
    assert (caught.value.status, caught.value.code) == (503, "DATABASE_UNAVAILABLE")
    assert await ask(other, "SELECT 1") == 1
    assert count_connections(guest_url, "used") == 0
    await guests.close()


async def test_many_at_once_stay_within_the_bound_and_all_are_answered(guest_url: str) -> None:
    guests = GuestDatabases(HERE, max_open=3, pool_size=1)
    names = [f"crowd{number}" for number in range(6)]
    databases = [guests.database(parse_guest_url(named(guest_url, name))) for name in names]

    async def use(database: GuestDatabase) -> None:
        for _ in range(10):
            try:
                assert await ask(database, "SELECT 1") == 1
            except GuestUnavailable as error:
                assert "in use at once" in error.message  # noqa: PT017
                await asyncio.sleep(0)
            assert guests.open_count <= 3

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for database in databases * 2:
                tasks.start_soon(use, database)
    assert count_connections(guest_url, *names) <= 3
    await guests.close()
    assert count_connections(guest_url, *names) == 0


async def test_an_idle_database_is_closed_and_opens_again_when_it_is_used(guest_url: str) -> None:
    guests = GuestDatabases(HERE, idle_s=0.05)
    database = guests.database(parse_guest_url(named(guest_url, "idle")))
    sweeping = asyncio.create_task(guests.run())
    try:
        async with database.transaction() as connection:
            await guests.sweep()
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        await eventually(lambda: asyncio.to_thread(count_connections, guest_url, "idle"), lambda count: count == 0)
        assert await ask(database, "SELECT 1") == 1
    finally:
        sweeping.cancel()
        await asyncio.wait([sweeping])
        await guests.close()


async def test_a_retired_database_is_closed_by_the_next_sweep(guest_url: str) -> None:
    guests = GuestDatabases(HERE)
    retired, kept = (guests.database(parse_guest_url(named(guest_url, name))) for name in ("retired", "kept"))
    for database in (retired, kept):
        await ask(database)
    guests.retire(retired)
    await guests.sweep()
    assert (guests.open_count, count_connections(guest_url, "retired"), count_connections(guest_url, "kept")) == (1, 0, 1)
    await guests.close()


async def test_a_database_that_goes_away_is_an_error_until_it_is_back(external_server: ExternalServer, guest_url: str) -> None:
    guests = GuestDatabases(HERE)
    database = guests.database(parse_guest_url(guest_url))
    assert await ask(database, "SELECT 1") == 1
    external_server.stop()
    try:
        for _ in range(2):
            with anyio.fail_after(2), pytest.raises(GuestUnavailable, match="that this app registered .*: connection refused") as caught:
                await ask(database)
    finally:
        external_server.start()
    assert (caught.value.status, caught.value.code) == (503, "DATABASE_UNAVAILABLE")
    assert await ask(database, "SELECT 1") == 1
    await guests.close()


async def test_what_goes_wrong_in_an_apps_database_is_not_an_error_of_the_server(guest_url: str) -> None:
    guests = GuestDatabases(HERE)
    database = guests.database(parse_guest_url(guest_url))
    with pytest.raises(GuestUnavailable, match='cannot be used: column "nothing" does not exist') as caught:
        await ask(database, "SELECT nothing")
    assert "SELECT" not in caught.value.message
    with pytest.raises(GuestUnavailable, match="took too long"):
        await ask(database, "SET LOCAL statement_timeout = 1; SELECT pg_sleep(5)")
    with pytest.raises(InvalidRequest, match="outside the range"):
        await ask(database, "SELECT 100000::smallint")
    with pytest.raises(IntegrityError):
        await ask(database, "CREATE TEMPORARY TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UndefinedTable):
        async with database.autocommit() as connection:
            await connection.execute("SELECT * FROM no_such_table")
    await guests.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace(ENCODED_PASSWORD, "wrong"), 'password authentication failed for user "owner"'),
        (lambda url: url.replace("owner:", "stranger:"), 'password authentication failed for user "stranger"'),
        (lambda url: url.replace(f":{ENCODED_PASSWORD}", ""), "no password supplied"),
        (lambda url: with_names(url, database="nowhere"), 'database "nowhere" does not exist'),
        (lambda url: f"{url}&sslmode=require", "server does not support SSL, but SSL was required"),
    ],
)
async def test_why_a_connection_fails_is_told_in_the_drivers_words(guest_url: str, change: Callable[[str], str], reason: str) -> None:
    guests = GuestDatabases(HERE)
    with pytest.raises(GuestUnavailable) as caught:
        await ask(guests.database(parse_guest_url(change(guest_url))))
    assert caught.value.reason.endswith(reason)
    assert caught.value.message.count("\n") == 0
    assert "127.0.0.1" not in caught.value.message
    await guests.close()


async def test_a_private_address_is_not_even_tried_unless_it_is_allowed() -> None:
    with run_listening(CLEARTEXT_PASSWORD) as server:
        for allowed, tried in ((), 0), (("localhost",), 1):
            guests = GuestDatabases(Outbound(allowed))
            with pytest.raises(GuestUnavailable) as caught:
                await ask(guests.database(parse_guest_url(f"postgresql://u@127.0.0.1:{server.port}/d")))
            assert len(server.startups) == tried
            assert ("HOMEPORT_PRIVATE_HOSTS" in caught.value.message) is (not allowed)


async def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[len(asked) - 1], port))]

    with run_listening(CLEARTEXT_PASSWORD) as server:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        guests = GuestDatabases(Outbound(("127.0.0.1",)))
        database = guests.database(parse_guest_url(f"postgresql://u:p@db.example:{server.port}/d"))
        with pytest.raises(GuestUnavailable, match="server closed the connection"):
            await ask(database)
        assert (asked, len(server.startups)) == (["db.example"], 1)
        with pytest.raises(GuestUnavailable, match="private network"):
            await ask(database)
        assert (len(asked), len(server.startups)) == (2, 1)


async def test_all_addresses_of_a_name_are_tried(guest_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    guests = GuestDatabases(HERE)
    database = guests.database(parse_guest_url(guest_url.replace("127.0.0.1", "db.example")))
    assert await ask(database, "SELECT 1") == 1
    await guests.close()


@pytest.fixture
def leaky_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment and the home of a server whose user has everything set that libpq looks at."""
    passwords = tmp_path / ".pgpass"
    passwords.write_text("*:*:*:*:from-pgpass\n", encoding="utf-8")
    passwords.chmod(0o600)
    (tmp_path / ".postgresql").mkdir()
    for name in ("postgresql.crt", "postgresql.key", "root.crt"):
        (tmp_path / ".postgresql" / name).write_text("not a certificate", encoding="utf-8")
        (tmp_path / ".postgresql" / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    secrets = {"PGPASSWORD": "from-environment", "PGPASSFILE": str(passwords), "PGUSER": "envuser", "PGDATABASE": "envdb"}
    elsewhere = {"PGHOST": "127.0.0.9", "PGHOSTADDR": "127.0.0.9", "PGPORT": "9", "PGREQUIREPEER": "x", "PGKRBSRVNAME": "x"}
    manner = {"PGSSLMODE": "require", "PGREQUIRESSL": "1", "PGGSSENCMODE": "require", "PGREQUIREAUTH": "gss", "PGCHANNELBINDING": "require"}
    more = {"PGOPTIONS": "-c search_path=leaked", "PGAPPNAME": "leaked", "PGTARGETSESSIONATTRS": "standby", "PGSSLNEGOTIATION": "direct"}
    for name, value in (secrets | elsewhere | manner | more | {"PGMINPROTOCOLVERSION": "3.2", "PGCONNECT_TIMEOUT": "x"}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("leaky_environment")
@pytest.mark.parametrize("asks", [CLEARTEXT_PASSWORD, MD5_PASSWORD, GSS, SSPI])
async def test_nothing_of_the_servers_user_is_sent_to_an_apps_database(asks: int) -> None:
    with run_listening(asks) as server:
        guests = GuestDatabases(HERE)
        with pytest.raises(GuestUnavailable):
            await ask(guests.database(parse_guest_url(f"postgresql://u@127.0.0.1:{server.port}")))
    assert [{**startup, "client_encoding": ""} for startup in server.startups] == [
        {"user": "u", "database": "u", "application_name": "homeport", "client_encoding": ""}
    ]
    assert server.answers == [b""]


@pytest.mark.usefixtures("leaky_environment")
async def test_the_password_of_the_url_is_the_one_that_is_sent() -> None:
    with run_listening(CLEARTEXT_PASSWORD) as server:
        guests = GuestDatabases(HERE)
        with pytest.raises(GuestUnavailable):
            await ask(guests.database(parse_guest_url(f"postgresql://u:from-url@127.0.0.1:{server.port}/d?application_name=mine")))
    assert server.answers == [b"pfrom-url\0"]
    assert (server.startups[0]["database"], server.startups[0]["application_name"]) == ("d", "mine")


async def test_an_apps_database_is_reached_whatever_the_environment_says(guest_url: str, leaky_environment: None) -> None:
    guests = GuestDatabases(HERE)
    database = guests.database(parse_guest_url(guest_url))
    assert await ask(database, "SELECT current_user") == "owner"
    assert await ask(database, "SHOW search_path") == '"$user", public'
    await guests.close()
