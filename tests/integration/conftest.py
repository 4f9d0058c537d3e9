"""Real PostgreSQL for every test: one embedded server a run, one database a test, cloned from a migrated template.

Where the cluster lies in memory, cloning by copying files takes 12 ms (writing pages through the log: 22 ms) and dropping 5 ms; on the
disk of the same machine each was 100 to 400 ms. So the cluster lies in memory where there is room.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy.engine import make_url

from adapters.postgres import Database, EmbeddedPostgres, migrate
from homeport.migrations import SCRIPTS
from tests.integration.external_postgres import ExternalServer, external_binaries, run_external
from tests.integration.servers import Restartable, pid_of, wait_until
from tests.mcp_servers import own_over
from tests.upstream_plugin import running_upstream as running_upstream
from tests.upstream_plugin import upstream as upstream
from tests.virtual_microphone import VirtualMicrophone, virtual_microphone

MEMORY = Path("/dev/shm")
ROOM_BYTES = 1024**3
TEMPLATE = "template_homeport"

_numbers = count(1)


def with_names(url: str, *, user: str | None = None, database: str) -> str:
    """``url`` with another user and database."""
    changed = make_url(url).set(database=database)
    return (changed.set(username=user) if user else changed).render_as_string(hide_password=False)


def make_folder() -> Path:
    """A new folder, in memory where there is room."""
    has_room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    return Path(tempfile.mkdtemp(prefix="homeport-tests-", dir=MEMORY if has_room else None))


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for clusters, in memory where there is room; other users cannot enter it."""
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(scratch: Path) -> Iterator[str]:
    """The embedded server of this run: the URL of its own, empty database ``homeport``."""
    server = EmbeddedPostgres(scratch / "session")
    try:
        url = server.start()
        # The data is thrown away: a crash of the machine may take it.
        with psycopg.connect(with_names(url, user="postgres", database="postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def administrator(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the server of this run, outside of the tests' databases."""
    with psycopg.connect(with_names(postgres_url, user="postgres", database="postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(postgres_url: str, administrator: psycopg.Connection) -> str:
    """The name of a migrated database that nobody is connected to."""
    names = {"template": Identifier(TEMPLATE), "role": Identifier("homeport"), "database": Identifier("homeport")}
    administrator.execute(SQL("CREATE DATABASE {template} OWNER {role} TEMPLATE {database}").format(**names))
    asyncio.run(migrate(with_names(postgres_url, database=TEMPLATE), SCRIPTS))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_url: str, administrator: psycopg.Connection, template: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    name = f"test_{next(_numbers)}"
    names = {"name": Identifier(name), "template": Identifier(template), "role": Identifier("homeport")}
    administrator.execute(SQL("CREATE DATABASE {name} OWNER {role} TEMPLATE {template} STRATEGY FILE_COPY").format(**names))
    yield with_names(postgres_url, database=name)
    administrator.execute(SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture
def empty_database_url(postgres_url: str, administrator: psycopg.Connection) -> Iterator[str]:
    """A database of this test's own, as EmbeddedPostgres makes it: with pgvector, without tables."""
    name = f"test_{next(_numbers)}"
    names = {"name": Identifier(name), "template": Identifier("homeport"), "role": Identifier("homeport")}
    administrator.execute(SQL("CREATE DATABASE {name} OWNER {role} TEMPLATE {template}").format(**names))
    yield with_names(postgres_url, database=name)
    administrator.execute(SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open Database on this test's own database."""
    database = Database(database_url, 5)
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def external_server() -> Iterator[ExternalServer]:
    """A PostgreSQL that is not ours, reached over TCP with a password. Who stops it starts it again."""
    with run_external(external_binaries()) as server:
        yield server


@pytest.fixture(scope="session")
def external_postgres_url(external_server: ExternalServer) -> str:
    """The URL of an empty database in it."""
    return external_server.url


@pytest.fixture
def guest_url(external_server: ExternalServer) -> Iterator[str]:
    """An empty database in it of this test's own, as an app would bring it along."""
    name = f"guest_{next(_numbers)}"
    with psycopg.connect(external_server.url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    yield with_names(external_server.url, database=name)
    with psycopg.connect(external_server.url, autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def data_dir(scratch: Path) -> Iterator[Path]:
    """A data directory that is not there yet; a server that a failed test leaves behind is ended."""
    parent = Path(tempfile.mkdtemp(dir=scratch))
    yield parent / "home"
    if (pid := pid_of(parent / "home")) is not None:
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: pid_of(parent / "home") is None)
    shutil.rmtree(parent)


@pytest.fixture(scope="session")
def made_once(scratch: Path) -> Path:
    """A data directory with a cluster in it, to be copied: making one takes a second, copying a tenth."""
    server = EmbeddedPostgres(scratch / "made-once")
    server.start()
    server.stop()
    return scratch / "made-once"


@pytest.fixture
def used_dir(data_dir: Path, made_once: Path) -> Path:
    """A data directory that has been used before."""
    subprocess.run(["cp", "-a", made_once, data_dir], check=True)
    return data_dir


@pytest.fixture
def restartable(used_dir: Path) -> Iterator[Restartable]:
    """A server of this test's own that it may stop and start."""
    server = Restartable(used_dir)
    yield server
    server.leave()


@pytest.fixture(scope="session")
def own_url() -> Iterator[str]:
    """Our MCP server over HTTP, for all who neither end it nor look at its process: its start takes two seconds of the processor."""
    with own_over("http") as (url, _):
        yield url


@pytest.fixture(scope="module")
def sound_system() -> Iterator[VirtualMicrophone]:
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def microphone(sound_system: VirtualMicrophone, monkeypatch: pytest.MonkeyPatch) -> VirtualMicrophone:
    """The microphone that recordings of this process find."""
    for name, value in sound_system.environment.items():
        monkeypatch.setenv(name, value)
    return sound_system
