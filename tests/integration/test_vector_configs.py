"""An app's own vector database: registered, used, shown without its password, and what happens when it does not work."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from adapters.pgvector import VectorBatch, VectorStore
from adapters.postgres import Database, GuestUnavailable, Notifications
from handlers.local_apps import vector_config
from homeport.errors import AppError, InvalidRequest, Unavailable
from homeport.identity import Principal
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.vectors import configs as configs_module
from homeport.vectors.configs import VectorConfigs, remove_config
from tests.integration.conftest import with_names
from tests.integration.external_postgres import ENCODED_PASSWORD, PASSWORD, ExternalServer
from tests.integration.parts import eventually, key_principal
from tests.integration.servers import run_sql

pytestmark = pytest.mark.anyio

APP, OTHER = key_principal(UUID(int=1)), key_principal(UUID(int=2))


@dataclass(frozen=True)
class Process:
    """As much of a server process as configurations need."""

    configs: VectorConfigs
    database: Database
    notifications: Notifications
    own_store: VectorStore

    async def write(self, principal: Principal, *ids: str) -> int:
        batch = VectorBatch.pack([{"id": id, "vector": [1.0, 2.0, 3.0], "metadata": {}} for id in ids])
        return await (await self.configs.store_for(principal.owner_id)).upsert(principal.owner_id, "notes", batch)

    async def find(self, principal: Principal) -> list[str]:
        store = await self.configs.store_for(principal.owner_id)
        return sorted(match.id for match in await store.query(principal.owner_id, "notes", [1.0, 2.0, 3.0], top_k=10))

    async def register(self, principal: Principal, url: str, table: str | None = "app_vectors") -> None:
        await self.configs.register(principal, "pgvector", {"databaseUrl": url, "tableName": table})


@asynccontextmanager
async def run_process(url: str, data_dir: Path, *private_hosts: str, key: bytes = bytes(32)) -> AsyncIterator[Process]:
    database, notifications = Database(url, 5), Notifications(url)
    store = VectorStore(database)
    configs = VectorConfigs(Settings(data_dir=data_dir, private_hosts=private_hosts), store, notifications, SecretBox(key))
    try:
        async with notifications:
            yield Process(configs, database, notifications, store)
    finally:
        await configs.close()
        await database.close()


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    async with run_process(database_url, tmp_path, "localhost") as process:
        yield process


@pytest.fixture
def poor_url(guest_url: str) -> Iterator[str]:
    """The same database for a user who may do nothing in it but connect."""
    name, database = f"poor_{uuid4().hex[:8]}", guest_url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(guest_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'poor'").format(Identifier(name)))
    yield guest_url.replace(f"owner:{ENCODED_PASSWORD}", f"{name}:poor")
    with psycopg.connect(guest_url, autocommit=True) as connection:
        connection.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM {}").format(Identifier(database), Identifier(name)))
        connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def user_of(url: str) -> str:
    return url.partition("://")[2].partition(":")[0]


def tables_in(url: str) -> set[str]:
    return {str(row[0]) for row in run_sql(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


async def test_every_call_after_registering_goes_to_the_apps_database(here: Process, guest_url: str, database_url: str) -> None:
    await here.write(APP, "before")
    before = tables_in(database_url)
    await here.register(APP, guest_url)
    assert await here.find(APP) == []
    assert await here.write(APP, "a", "b") == 2
    assert await here.find(APP) == ["a", "b"]
    assert tables_in(guest_url) == {"app_vectors", "app_vectors_1"}
    assert tables_in(database_url) == before
    store = await here.configs.store_for(APP.owner_id)
    assert await store.list_workspaces(APP.owner_id) == ["notes"]
    assert await store.delete_namespace(APP.owner_id, "notes") == 2
    assert tables_in(guest_url) == {"app_vectors"}


async def test_one_can_go_back_to_the_servers_own_database_and_forth_again(here: Process, guest_url: str) -> None:
    await here.write(APP, "here")
    await here.register(APP, guest_url)
    await here.write(APP, "there")
    await here.configs.register(APP, "homeport", None)
    assert await here.find(APP) == ["here"]
    shown = await here.configs.show(APP)
    assert (shown.provider, shown.config) == ("homeport", {})
    await here.register(APP, guest_url)
    assert await here.find(APP) == ["there"]


async def test_others_are_not_concerned_and_not_seen_in_a_shared_database(here: Process, guest_url: str) -> None:
    await here.write(OTHER, "other")
    await here.register(APP, guest_url)
    await here.write(APP, "mine")
    assert await here.find(OTHER) == ["other"]
    assert (await here.configs.show(OTHER)).provider == "homeport"
    await here.register(OTHER, guest_url)
    assert await here.find(OTHER) == []
    await here.write(OTHER, "also there")
    assert (await here.find(APP), await here.find(OTHER)) == (["mine"], ["also there"])


async def test_a_call_costs_no_query_for_the_configuration(
    here: Process, guest_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.register(APP, guest_url)
    # A process that begins now is not told of that change any more, so nothing makes it read again.
    async with run_process(database_url, tmp_path, "localhost") as process:
        stores = [await process.configs.store_for(owner.owner_id) for owner in (APP, OTHER)]
        with monkeypatch.context() as patch:
            patch.setattr(process.database, "transaction", None)
            assert [await process.configs.store_for(owner.owner_id) for owner in (APP, OTHER)] == stores
        assert stores[1] is process.own_store


async def test_a_change_reaches_other_processes(here: Process, guest_url: str, database_url: str, tmp_path: Path) -> None:
    async with run_process(database_url, tmp_path, "localhost") as there:
        assert await there.configs.store_for(APP.owner_id) is there.own_store
        await here.register(APP, guest_url)
        await here.write(APP, "a")
        await eventually(lambda: there.find(APP), lambda found: found == ["a"])
        await there.configs.register(APP, "homeport", {})
        await eventually(lambda: here.configs.store_for(APP.owner_id), lambda store: store is here.own_store)


async def test_without_notifications_each_call_asks_and_the_store_stays(
    here: Process, guest_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.register(APP, guest_url)
    store = await here.configs.store_for(APP.owner_id)
    monkeypatch.setattr(Notifications, "is_connected", property(lambda self: False))
    assert await here.configs.store_for(APP.owner_id) is store
    async with here.database.transaction() as connection:
        await remove_config(connection, APP.owner_id)
    assert await here.configs.store_for(APP.owner_id) is here.own_store


async def test_several_first_calls_at_once_share_one_pool(here: Process, guest_url: str) -> None:
    await here.register(APP, guest_url)
    stores = await asyncio.gather(*(here.configs.store_for(APP.owner_id) for _ in range(10)))
    assert len(set(stores)) == 1


async def test_the_configuration_is_encrypted_where_it_is_stored(here: Process, guest_url: str, database_url: str) -> None:
    await here.register(APP, guest_url)
    ((stored,),) = run_sql(database_url, "SELECT config FROM vector_configs")
    assert isinstance(stored, bytes)
    assert not any(secret.encode() in stored for secret in (PASSWORD, ENCODED_PASSWORD, "postgresql", "app_vectors"))


async def test_what_is_shown_can_be_registered_again(here: Process, guest_url: str) -> None:
    await here.register(APP, guest_url, None)
    shown = await here.configs.show(APP)
    url = guest_url.replace(f":{ENCODED_PASSWORD}@", ":****@").replace("postgres:", "postgresql:")
    assert (shown.provider, shown.config) == ("pgvector", {"databaseUrl": url, "tableName": "vectors"})
    await here.write(APP, "a")
    await here.configs.register(APP, shown.provider, shown.config)
    assert await here.configs.show(APP) == shown
    assert await here.find(APP) == ["a"]
    await here.register(APP, shown.config["databaseUrl"], "other_vectors")
    assert await here.find(APP) == []
    assert tables_in(guest_url) == {"vectors", "vectors_1", "other_vectors"}


async def test_a_mask_never_sends_the_password_to_another_place(here: Process, guest_url: str) -> None:
    await here.register(APP, guest_url)
    shown = await here.configs.show(APP)
    masked = shown.config["databaseUrl"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for url in (
            masked.replace("127.0.0.1", "127.0.0.2"),
            masked.replace("owner", "other"),
            f"postgresql://owner:****@127.0.0.1:{port}/x",
        ):
            with pytest.raises(InvalidRequest, match="Send the password"):
                await here.register(APP, url)
    with pytest.raises(InvalidRequest, match="Send the password"):
        await here.register(OTHER, masked)
    assert await here.configs.show(APP) == shown


Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url.replace(ENCODED_PASSWORD, "s3cr3t"), 'password authentication failed for user "owner"'),
        (lambda url: url.replace("owner:", "nobody:"), 'password authentication failed for user "nobody"'),
        (lambda url: url.replace(f":{ENCODED_PASSWORD}", ""), "fe_sendauth: no password supplied"),
        (lambda url: with_names(url, database="nowhere"), 'database "nowhere" does not exist'),
        (lambda url: f"postgresql://owner:{ENCODED_PASSWORD}@127.0.0.1:1/x", "connection refused"),
        (lambda url: f"postgresql://owner:{ENCODED_PASSWORD}@nowhere.example/x", 'could not translate host name "nowhere.example"'),
        (lambda url: f"{url}&sslmode=verify-full", "server does not support SSL, but SSL was required"),
    ],
)
async def test_a_database_that_does_not_work_is_refused_with_the_reason(
    here: Process, guest_url: str, change: Change, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.register(APP, guest_url)
    await here.write(APP, "kept")
    shown = await here.configs.show(APP)
    monkeypatch.setattr(socket, "getaddrinfo", known_here(socket.getaddrinfo))
    with anyio.fail_after(5), pytest.raises(InvalidRequest) as caught:
        await here.register(APP, change(guest_url))
    assert caught.value.message == f"Failed to connect to PGVector: {reason}"
    assert (caught.value.status, caught.value.code) == (400, "VECTOR_DATABASE_FAILED")
    assert await here.configs.show(APP) == shown
    assert await here.find(APP) == ["kept"]


def known_here(getaddrinfo: Callable[..., Any]) -> Callable[..., Any]:
    """Only addresses are resolved: no test asks the network for a name."""

    def resolve(host: str, port: Any, **options: Any) -> Any:
        return getaddrinfo(host, port, **{**options, "flags": socket.AI_NUMERICHOST})

    return resolve


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "databaseUrl"),
        (None, "databaseUrl"),
        ({"databaseUrl": ""}, "databaseUrl"),
        ({"databaseUrl": None, "tableName": "t"}, "databaseUrl"),
        ({"databaseUrl": 5}, "databaseUrl"),
        ({"databaseUrl": "mysql://u:s3cr3t@h/d"}, "not a PostgreSQL URL"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d?passfile=/etc/passwd"}, "'passfile'"),
        ({"databaseUrl": "postgresql://u:s3cr3t@%2Ftmp/d"}, "one host"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": "a-b"}, "tableName"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": '"; DROP TABLE x'}, "tableName"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": "1a"}, "tableName"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": "a" * 49}, "tableName"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": "public.t"}, "tableName"),
        ({"databaseUrl": "postgresql://u:s3cr3t@h/d", "tableName": 5}, "tableName"),
    ],
)
async def test_a_configuration_that_is_none_is_refused(here: Process, config: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        await here.configs.register(APP, "pgvector", config)
    assert "s3cr3t" not in caught.value.message
    with pytest.raises(InvalidRequest, match=r"'chroma'.* homeport, pgvector"):
        await here.configs.register(APP, "chroma", {})


async def test_a_private_host_is_refused_unless_the_operator_allows_it(database_url: str, tmp_path: Path, guest_url: str) -> None:
    async with run_process(database_url, tmp_path) as process:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(InvalidRequest, match="Failed to connect to PGVector: the host .*HOMEPORT_PRIVATE_HOSTS") as caught:
                await process.register(APP, guest_url.replace("127.0.0.1", host))
            assert caught.value.code == "PRIVATE_ADDRESS"
        assert (await process.configs.show(APP)).provider == "homeport"
    async with run_process(database_url, tmp_path, "127.0.0.0/8") as process:
        await process.register(APP, guest_url)
    # What was allowed once is looked at again: the operator may have changed his mind.
    async with run_process(database_url, tmp_path) as process:
        with pytest.raises(GuestUnavailable, match="HOMEPORT_PRIVATE_HOSTS") as refused:
            await process.find(APP)
        assert (refused.value.status, refused.value.code) == (503, "DATABASE_UNAVAILABLE")
        assert await process.find(OTHER) == []


async def test_a_user_without_rights_is_told_which_are_missing(here: Process, guest_url: str, poor_url: str) -> None:
    with pytest.raises(InvalidRequest, match="its user may not create tables there"):
        await here.register(APP, poor_url)
    run_sql(guest_url, f"GRANT CREATE ON SCHEMA public TO {user_of(poor_url)}")
    with pytest.raises(InvalidRequest, match="extension") as caught:
        await here.register(APP, poor_url)
    assert caught.value.message.startswith("Failed to connect to PGVector: ")
    assert "\n" not in caught.value.message
    run_sql(guest_url, "CREATE EXTENSION vector")
    await here.register(APP, poor_url)
    assert await here.write(APP, "a") == 1


async def test_a_table_that_is_something_else_is_left_alone(here: Process, guest_url: str) -> None:
    run_sql(guest_url, "CREATE TABLE mine (id int)")
    with pytest.raises(InvalidRequest, match="there is a table 'mine' already"):
        await here.register(APP, guest_url, "mine")
    assert tables_in(guest_url) == {"mine"}


async def test_many_may_register_one_fresh_database_at_once(here: Process, guest_url: str) -> None:
    owners = [key_principal(uuid4()) for _ in range(8)]
    async with anyio.create_task_group() as tasks:
        for owner in owners:
            tasks.start_soon(here.register, owner, guest_url)
    for owner in owners:
        await here.write(owner, "a")
        assert await here.find(owner) == ["a"]


async def test_a_server_that_does_not_answer_is_given_up_in_time(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs_module, "REGISTER_S", 0.2)
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, anyio.fail_after(3), pytest.raises(InvalidRequest, match="Failed to connect to PGVector: timeout expired"):
        await here.register(APP, f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d")
    assert (await here.configs.show(APP)).provider == "homeport"


async def test_a_database_that_goes_away_is_an_error_of_its_app_alone(
    here: Process, external_server: ExternalServer, guest_url: str
) -> None:
    await here.register(APP, guest_url)
    await here.write(APP, "mine")
    await here.write(OTHER, "other")
    external_server.stop()
    try:
        for call in (lambda: here.find(APP), lambda: here.write(APP, "lost")):
            with anyio.fail_after(3), pytest.raises(Unavailable, match="that this app registered .*connection refused") as caught:
                await call()
            assert (caught.value.status, caught.value.code) == (503, "DATABASE_UNAVAILABLE")
        assert await here.find(OTHER) == ["other"]
        assert await here.write(OTHER, "more") == 1
        assert (await here.configs.show(APP)).provider == "pgvector"
        with pytest.raises(InvalidRequest, match="connection refused"):
            await here.register(APP, guest_url, "elsewhere")
    finally:
        external_server.start()
    assert await here.find(APP) == ["mine"]


async def test_a_table_that_was_dropped_in_the_apps_database_is_an_error_there(here: Process, guest_url: str) -> None:
    await here.register(APP, guest_url)
    run_sql(guest_url, "DROP TABLE app_vectors")
    with pytest.raises(AppError) as caught:
        await here.write(APP, "a")
    assert caught.value.status == 503
    await here.register(APP, guest_url)
    assert await here.write(APP, "a") == 1


async def test_a_configuration_of_another_key_can_only_be_replaced(
    here: Process, guest_url: str, database_url: str, tmp_path: Path
) -> None:
    await here.register(APP, guest_url)
    async with run_process(database_url, tmp_path, "localhost", key=bytes(range(32))) as changed:
        for call in (changed.configs.show(APP), changed.configs.store_for(APP.owner_id)):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.code == "SECRET_UNREADABLE"
        assert await changed.find(OTHER) == []
        await changed.register(APP, guest_url)
        assert (await changed.configs.show(APP)).provider == "pgvector"


async def test_registering_leaves_no_connection_behind(here: Process, guest_url: str) -> None:
    await here.register(APP, f"{guest_url}&application_name=trial")
    with pytest.raises(InvalidRequest):
        await here.register(APP, f"{guest_url}&application_name=trial&sslmode=require")

    async def count() -> int:
        ((found,),) = await asyncio.to_thread(run_sql, guest_url, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trial'")
        assert isinstance(found, int)
        return found

    await eventually(count, lambda found: found == 0)


async def test_the_handlers_answer_as_the_reference_does(here: Process, guest_url: str) -> None:
    home: Any = SimpleNamespace(vectors=SimpleNamespace(configs=here.configs))
    listed = await vector_config.list_providers()
    assert listed["success"] is True
    assert listed["providers"][-1] == {
        "name": "pgvector",
        "label": "PGVector",
        "description": "PostgreSQL with pgvector extension",
        "fields": [
            {"name": "databaseUrl", "label": "Database URL", "type": "string", "placeholder": "postgresql://user:pass@host:5432/dbname"},
            {"name": "tableName", "label": "Table Name", "type": "string", "placeholder": "vectors"},
        ],
    }
    assert listed["providers"][0]["name"] == "homeport"
    assert listed["providers"][0]["fields"] == []
    assert await vector_config.get_config(home, APP) == {"success": True, "provider": "homeport", "config": {}}
    body = {"provider": "pgvector", "config": {"databaseUrl": guest_url, "tableName": "app_vectors"}}
    answer = await vector_config.register_config(home, APP, body)
    assert answer == {"success": True, "message": "Vector configuration registered successfully."}
    shown = await vector_config.get_config(home, APP)
    assert (shown["provider"], shown["config"]["tableName"]) == ("pgvector", "app_vectors")
