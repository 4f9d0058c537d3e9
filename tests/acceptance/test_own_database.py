"""A vector database of an app's own: the official SDK registers a second, external PostgreSQL."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from realtimex_sdk import RealtimeXSDK, SDKConfig  # type: ignore[import-untyped]
from realtimex_sdk.llm import VectorRecord  # type: ignore[import-untyped]

from tests.acceptance.servers import Admin, Server, Servers
from tests.integration.external_postgres import ENCODED_PASSWORD, ExternalServer, external_binaries, run_external

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

GRANTED = ("vectors.read", "vectors.write")


@pytest.fixture(scope="module")
def external() -> Iterator[ExternalServer]:
    """A PostgreSQL that somebody else runs."""
    with run_external(external_binaries()) as running:
        yield running


@pytest.fixture
def allowing(servers: Servers) -> Server:
    """A server whose operator lets apps have it connect to this machine."""
    return servers.start("allowing", HOMEPORT_PRIVATE_HOSTS="localhost")


async def test_vectors_go_to_the_registered_database_until_it_is_taken_back(allowing: Server, external: ExternalServer) -> None:
    assert allowing.first_key is not None
    admin = Admin(allowing.url, allowing.first_key)
    with admin.http:
        app_id = admin.register("Archivist", granted=GRANTED)
    sdk = RealtimeXSDK(SDKConfig(url=allowing.url, app_id=app_id))
    vectors = sdk.llm.vectors
    assert (await vectors.get_config()).provider == "homeport"
    await vectors.upsert([VectorRecord("here", [1.0, 0.0])])

    registered = await vectors.register_config("pgvector", {"databaseUrl": external.url, "tableName": "app_vectors"})
    assert (registered.success, registered.message) == (True, "Vector configuration registered successfully.")
    await vectors.upsert([VectorRecord("there", [1.0, 0.0, 0.0])])
    assert [each.id for each in (await vectors.query([1.0, 0.0, 0.0])).results] == ["there"]
    with psycopg.connect(external.url) as connection:
        rows = connection.execute("SELECT owner_id::text, workspace, dimensions FROM app_vectors").fetchall()
    assert rows == [(app_id, "default", 3)]

    shown = await vectors.get_config()
    assert (shown.success, shown.provider, shown.config["tableName"]) == (True, "pgvector", "app_vectors")
    assert f"owner:****@127.0.0.1:{external.port}/" in shown.config["databaseUrl"]
    assert (await vectors.register_config(shown.provider, shown.config)).success

    external.stop()
    try:
        failed = await vectors.query([1.0, 0.0, 0.0])
        assert (failed.success, failed.code) == (False, "DATABASE_UNAVAILABLE")
        assert failed.error == "The vector database that this app registered cannot be used: connection refused."
        refused = await vectors.register_config("pgvector", {"databaseUrl": external.url, "tableName": "other"})
        assert (refused.success, refused.error) == (False, "Failed to connect to PGVector: connection refused")
    finally:
        external.start()
    assert [each.id for each in (await vectors.query([1.0, 0.0, 0.0])).results] == ["there"]

    assert (await vectors.register_config("homeport", {})).success
    assert [each.id for each in (await vectors.query([1.0, 0.0])).results] == ["here"]
    assert allowing.stop() == 0
    log = allowing.log
    assert ENCODED_PASSWORD not in log
    assert "app_vectors" not in log


async def test_this_machine_is_refused_by_default(sdk: Sdk, admin: Admin, external: ExternalServer) -> None:
    app = sdk(app_id=admin.register("Archivist", granted=GRANTED))
    refused = await app.llm.vectors.register_config("pgvector", {"databaseUrl": external.url, "tableName": None})
    assert (refused.success, refused.code) == (False, "PRIVATE_ADDRESS")
    assert "HOMEPORT_PRIVATE_HOSTS" in refused.error
    assert (await app.llm.vectors.get_config()).provider == "homeport"


async def test_providers_are_listed_without_any_permission(sdk: Sdk, admin: Admin) -> None:
    listed = await sdk(app_id=admin.register("Newcomer")).llm.vectors.list_providers()
    assert listed.success
    assert [provider.name for provider in listed.providers] == ["homeport", "pgvector"]
    fields = [(field.name, field.type, field.placeholder) for field in listed.providers[1].fields]
    assert fields == [("databaseUrl", "string", "postgresql://user:pass@host:5432/dbname"), ("tableName", "string", "vectors")]
