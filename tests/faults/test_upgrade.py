"""A server starts on a database of an older Homeport, of a newer one, and after a start that was ended in the middle of the migration."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from adapters.postgres import known_revisions, migrate
from homeport.key_text import hash_secret, make_key
from homeport.migrations import SCRIPTS
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, Servers, eventually
from tests.faults.parts import call
from tests.faults.table import Row
from tests.integration.conftest import with_names
from tests.integration.external_postgres import ExternalServer, external_binaries, run_external
from tests.integration.servers import run_sql

NUMBERS = count(1)
REVISIONS = known_revisions(SCRIPTS)
PREVIOUS = REVISIONS[-2]
APP, SESSION, RUN, TASK = (str(UUID(int=number)) for number in range(1, 5))
# What every table gets that there is at a revision, in this order. Columns that came later have defaults.
ROWS = {
    "apps": f"(id, slug, name) VALUES ('{APP}', 'old', 'Old app')",
    "grants": f"(app_id, permission, state, decided_by) SELECT '{APP}', unnest(ARRAY['activities.read', 'api.agents', 'api.task']), "
    "'granted', 'a test'",
    "permission_requests": f"(id, app_id, permission, app_name) VALUES ('{APP}', '{APP}', 'llm.chat', 'Old app')",
    "workspaces": "(slug, name) VALUES ('garden', 'Garden')",
    "threads": "(workspace_id, slug, name) SELECT id, 'beds', 'Beds' FROM workspaces WHERE slug = 'garden'",
    "agents": "(slug, display_name) VALUES ('gardener', 'Gardener')",
    "activities": f"(id, owner_id, raw_data, created_at) SELECT gen_random_uuid(), '{APP}', json_build_object('n', n), "
    "now() + n * interval '1 second' FROM generate_series(1, 1000) n",
    "user_tokens": f"(owner_id, token, source) VALUES ('{APP}', 'sealed', 'supabase')",
    "model_providers": "(name, kind, base_url, models) VALUES ('old', 'openai', 'http://127.0.0.1:9/v1', '{m}')",
    "model_limits": "(provider, retries) VALUES ('old', 1)",
    "jobs": f"(id, kind, owner_id, state, max_attempts, finished_at) VALUES ('{RUN}', 'vectors.ingest', '{APP}', 'completed', 5, now())",
    "events": f"(kind, subject) VALUES ('app.registered', '{APP}')",
    "agent_sessions": f"(id, owner_id, agent_id, workspace_id) SELECT '{SESSION}', '{APP}', agents.id, workspaces.id "
    "FROM agents, workspaces WHERE agents.slug = 'gardener' AND workspaces.slug = 'garden'",
    "agent_runs": f"(id, session_id, owner_id, agent, state, worker, held_until) VALUES ('{RUN}', '{SESSION}', '{APP}', 'gardener', "
    "'completed', 'w', now())",
    "agent_messages": "(session_id, run_id, role, content) "
    f"VALUES ('{SESSION}', '{RUN}', 'user', json_build_object('role', 'user', 'content', 'Hello'))",
    "tasks": "(id, calendar_event_id, owner_id, caller, title, auto_run, raw_data) "
    f"VALUES ('{TASK}', gen_random_uuid(), '{APP}', '{{}}', 'Water', false, '{{}}')",
}


@pytest.fixture(scope="module")
def external() -> Iterator[ExternalServer]:
    """A PostgreSQL with a database for each test."""
    with run_external(external_binaries()) as running:
        yield running


@pytest.fixture
def url(external: ExternalServer) -> str:
    """A database of this test's own."""
    name = f"old_{next(NUMBERS)}"
    run_sql(external.url, f"CREATE DATABASE {name}")
    return with_names(external.url, database=name)


def bring_to(url: str, revision: str, folder: Path) -> None:
    """Make the tables as the Homeport of a revision made them."""
    (folder / "versions").mkdir()
    for path in (SCRIPTS / "env.py", *(path for path in (SCRIPTS / "versions").glob("*.py") if path.name[:4] <= revision)):
        shutil.copy(path, folder / path.relative_to(SCRIPTS))
    asyncio.run(migrate(url, folder))
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [(revision,)]


def fill(url: str) -> str:
    """Put rows into all tables that there are; returns a key that may do everything."""
    prefix, key = make_key()
    secret = hash_secret(key).hex()
    run_sql(
        url, f"INSERT INTO api_keys (id, prefix, secret_hash, name, scopes) VALUES ('{APP}', '{prefix}', '\\x{secret}', 'old', '{{*}}')"
    )
    for table, rows in ROWS.items():
        if table in counts(url):
            run_sql(url, f"INSERT INTO {table} {rows}")
    return key


def counts(url: str) -> dict[str, int]:
    """How many rows each table has."""
    names = run_sql(url, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    return {str(name): int(str(run_sql(url, f"SELECT count(*) FROM {name}")[0][0])) for (name,) in names if name != "alembic_version"}


def check_served(server: Server, key: str, url: str, before: dict[str, int]) -> None:
    """All that was there is there, and is served."""
    after = counts(url)
    lost = {name: (number, after.get(name)) for name, number in before.items() if after.get(name, 0) < number}
    assert lost == {}
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [(REVISIONS[-1],)]
    listed = call(server, "GET", "/activities?limit=100", APP)
    assert listed.status_code == 200
    assert [each["raw_data"] for each in listed.json()["data"]] == [{"n": n} for n in range(1000, 900, -1)]
    admin = Admin(server.url, key)
    with admin.http:
        assert "gardener" in {agent["slug"] for agent in admin.call("GET", "/agents")["items"]}
        assert "old" in {provider["name"] for provider in admin.call("GET", "/model-providers")["items"]}
        assert set(admin.grants(APP)) == {"activities.read", "api.agents", "api.task"}
        assert admin.pending(APP).keys() == {"llm.chat"}
        if "tasks" in before:
            assert admin.call("GET", f"/tasks/{TASK}")["status"] == "pending"
            assert len(admin.call("GET", f"/agent-runs/{RUN}")["messages"]) == 1


@pytest.mark.parametrize(
    "revision",
    [pytest.param(each, marks=[] if each == REVISIONS[0] else pytest.mark.long) for each in REVISIONS[:-1]],
)
def test_a_database_of_an_older_homeport(servers: Servers, url: str, tmp_path: Path, row: Row, revision: str) -> None:
    row.fault(
        f"Upgrade from schema {revision}",
        done="A server starts on a database that the older Homeport made, with rows in all of its tables.",
        promised=f"It is brought to schema {REVISIONS[-1]}, nothing is lost, and what was there is served.",
    )
    bring_to(url, revision, tmp_path)
    key = fill(url)
    before = counts(url)
    server = servers.start(f"from-{revision}", DATABASE_URL=url)
    (told,) = server.logged("migrating the database")
    assert (told["from_revision"], told["to_revision"]) == (revision, REVISIONS[-1])
    assert server.first_key is None
    check_served(server, key, url, before)
    assert server.stop() == 0
    row.happened(f"{sum(before.values())} rows in {len(before)} tables, all there and served.")


@pytest.mark.long
def test_a_database_of_a_newer_homeport(servers: Servers, url: str, tmp_path: Path, row: Row) -> None:
    row.fault(
        "A server older than its database (a downgrade)",
        done="The database says that it was made by schema 9999.",
        promised="The server does not start and says what to do; the database is left alone.",
    )
    bring_to(url, REVISIONS[-1], tmp_path)
    fill(url)
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    before = counts(url)
    server = servers.begin("newer", DATABASE_URL=url)
    assert server.wait() == 1
    assert "written by a newer Homeport (schema 9999; this one knows up to" in server.log
    assert "Upgrade Homeport, or use another" in server.log
    assert "Traceback" not in server.log
    assert counts(url) == before
    row.happened(
        "Status 1, 'written by a newer Homeport … Upgrade Homeport, or use another data directory or database'; no row was changed."
    )


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_start_that_is_ended_in_the_middle_of_the_migration(
    servers: Servers, url: str, tmp_path: Path, row: Row, number: signal.Signals
) -> None:
    row.fault(
        f"{number.name} in the middle of a migration",
        done=f"The upgrade from {PREVIOUS} is held up by a lock on a table that it changes; the server is ended; it is started again.",
        promised="The database is as it was before; the next start migrates it.",
    )
    bring_to(url, PREVIOUS, tmp_path)
    key = fill(url)
    before = counts(url)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE apps IN ACCESS EXCLUSIVE MODE")
        server = servers.begin("interrupted", DATABASE_URL=url)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: run_sql(url, waits), lambda found: found == [(1,)], PROCESS_TIMEOUT_S)
        server.process.send_signal(number)
        status = server.wait()
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    eventually(lambda: run_sql(url, waits), lambda found: found == [(0,)], PROCESS_TIMEOUT_S)
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [(PREVIOUS,)]
    assert counts(url) == before
    again = servers.start("interrupted", DATABASE_URL=url)
    check_served(again, key, url, before)
    row.happened(
        f"Ended with status {status}, the database still at {PREVIOUS}; the next start brought it to {REVISIONS[-1]}, nothing lost."
    )
