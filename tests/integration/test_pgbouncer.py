"""A real PgBouncer between Homeport and its database: session mode is as good as none, transaction mode is refused at the start."""

import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from adapters.postgres import Database, DatabaseUnsuitable, Notifications
from adapters.postgres import notifications as notifications_module
from homeport.home import open_home
from homeport.settings import Settings
from tests.bench.servers import free_port
from tests.integration.external_postgres import ENCODED_PASSWORD, PASSWORD, ExternalServer
from tests.system_packages import require_package

pytestmark = pytest.mark.anyio

START_LIMIT_S = 20.0
SECRET_KEY = base64.b64encode(bytes(32)).decode()
CONFIGURATION = """\
[databases]
postgres = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = {mode}
{user}
"""


@contextmanager
def running_pgbouncer(server: ExternalServer, mode: str) -> Iterator[str]:
    """PgBouncer before a PostgreSQL, for as long as the block runs; gives the URL of the database behind it."""
    require_package("pgbouncer")
    folder, port = Path(tempfile.mkdtemp(prefix="homeport-pgbouncer-")), free_port()
    (folder / "users").write_text(f'"owner" "{PASSWORD}"\n', encoding="utf-8")
    user = "user = nobody" if os.geteuid() == 0 else ""  # as root it does not run
    configuration = CONFIGURATION.format(folder=folder, server_port=server.port, port=port, mode=mode, user=user)
    (folder / "pgbouncer.ini").write_text(configuration, encoding="utf-8")
    folder.chmod(0o755)  # for that user
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/pgbouncer", folder / "pgbouncer.ini"], stdout=log, stderr=log)
    url = f"postgresql://owner:{ENCODED_PASSWORD}@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            with suppress(psycopg.OperationalError), psycopg.connect(url):
                break
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, (folder / "log").read_text(encoding="utf-8")
            time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(START_LIMIT_S)
        shutil.rmtree(folder)


def settings_for(url: str, folder: Path) -> Settings:
    """Those of a server on this database."""
    return Settings(data_dir=folder, database_url=SecretStr(url), secret_key=SecretStr(SECRET_KEY), ollama_url="off")


async def test_behind_session_mode_everything_is_as_without(external_server: ExternalServer, tmp_path: Path) -> None:
    with running_pgbouncer(external_server, "session") as url:
        async with open_home(settings_for(url, tmp_path)) as home, home.database.transaction() as connection:
            searching = (await connection.execute(text("SHOW hnsw.iterative_scan"))).scalar()
    assert searching == "strict_order"


async def test_transaction_mode_is_refused_with_what_to_do(
    external_server: ExternalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications_module, "CHECK_S", 0.5)
    with running_pgbouncer(external_server, "transaction") as url:
        with pytest.raises(DatabaseUnsuitable, match="transaction mode") as caught:
            async with open_home(settings_for(url, tmp_path)):
                pytest.fail("it has started")
        assert PASSWORD not in str(caught.value)
        # The check is about notifications alone: the same connection, the same statements, only that nothing arrives.
        database = Database(url, 2)
        async with Notifications(external_server.url) as direct:
            await direct.check(database)
        await database.close()
