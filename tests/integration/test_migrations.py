"""From an empty database to the tables of the program, and the refusals on the way."""

import ast
import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from adapters.postgres import Database, DatabaseUnsuitable, SchemaTooNew, known_revisions, migrate
from adapters.postgres import migrations as migrations_module
from homeport.errors import Unavailable
from homeport.migrations import SCRIPTS
from homeport.tables import metadata
from tests.integration.conftest import with_names
from tests.integration.servers import run_sql

ROOT = Path(__file__).parents[2]

CATALOG = {
    "columns": """
        SELECT c.relname, a.attname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
               a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version'), 0)""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
}


def in_database(url: str, work: Callable[[Connection], Any]) -> Any:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()


def catalog(url: str) -> dict[str, list[tuple[object, ...]]]:
    return {name: sorted(run_sql(url, query), key=repr) for name, query in CATALOG.items()}


def test_the_steps_make_exactly_the_tables_of_the_program(database_url: str, empty_database_url: str) -> None:
    in_database(empty_database_url, metadata.create_all)
    migrated, wanted = catalog(database_url), catalog(empty_database_url)
    for name in CATALOG:
        assert len(wanted[name]) > 10
        assert migrated[name] == wanted[name]


def test_alembic_finds_no_difference_between_the_database_and_the_program(database_url: str) -> None:
    # Defaults are left to the comparison of the catalogs: Alembic cannot compare those of json.
    def compare(connection: Connection) -> Any:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    assert in_database(database_url, compare) == []


def test_no_rows_are_made_but_the_revision(database_url: str) -> None:
    assert [run_sql(database_url, f"SELECT count(*) FROM {table}") for table in metadata.tables] == [[(0,)]] * len(metadata.tables)
    assert run_sql(database_url, "SELECT version_num FROM alembic_version") == [(known_revisions(SCRIPTS)[-1],)]


def test_the_revisions_read_off_the_file_names_are_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == known_revisions(SCRIPTS)
    assert [scripts.get_current_head()] == known_revisions(SCRIPTS)[-1:]


@pytest.mark.parametrize("path", sorted((SCRIPTS / "versions").glob("*.py")), ids=lambda path: path.name)
def test_there_is_no_way_back(path: Path) -> None:
    names = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
    assert "upgrade" in names
    assert "downgrade" not in names


@pytest.mark.anyio
async def test_migrating_again_changes_nothing(database_url: str) -> None:
    before = catalog(database_url)
    await migrate(database_url, SCRIPTS)
    assert catalog(database_url) == before


def test_a_database_that_is_up_to_date_costs_no_import_of_alembic(database_url: str) -> None:
    program = """
import asyncio, sys
from adapters.postgres import migrate
from homeport.migrations import SCRIPTS
asyncio.run(migrate(sys.argv[1], SCRIPTS))
print("alembic" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program, database_url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "False\n"


MIGRATING = """
import asyncio, sys
from adapters.postgres import migrate
from homeport.migrations import SCRIPTS
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(migrate(sys.argv[1], SCRIPTS))
"""


def test_of_several_processes_that_start_at_once_one_migrates_and_the_others_wait(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATING, empty_database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    assert sum("migrating the database" in out for out, _ in answers) == 1
    assert run_sql(empty_database_url, "SELECT version_num FROM alembic_version") == [(known_revisions(SCRIPTS)[-1],)]


@pytest.mark.anyio
async def test_several_migrations_in_one_process_do_not_disturb_each_other(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate(empty_database_url, SCRIPTS) for _ in range(5)))
    assert run_sql(empty_database_url, "SELECT count(*) FROM alembic_version") == [(1,)]


@pytest.mark.anyio
async def test_a_migration_that_takes_too_long_elsewhere_is_not_waited_for_forever(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrations_module.LOCK_TIMEOUT_S == 60.0
    monkeypatch.setattr(migrations_module, "LOCK_TIMEOUT_S", 0.1)
    with psycopg.connect(empty_database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [migrations_module.LOCK])
        with pytest.raises(Unavailable, match="Another process has been migrating"):
            await migrate(empty_database_url, SCRIPTS)
    assert run_sql(empty_database_url, "SELECT to_regclass('alembic_version')") == [(None,)]
    await migrate(empty_database_url, SCRIPTS)


@pytest.mark.anyio
async def test_a_newer_database_is_refused_and_left_alone(database_url: str) -> None:
    run_sql(database_url, "UPDATE alembic_version SET version_num = '9999'")
    before = catalog(database_url)
    with pytest.raises(SchemaTooNew, match=r"newer Homeport \(schema 9999; this one knows up to \d{4}\). Upgrade Homeport, or use another"):
        await migrate(database_url, SCRIPTS)
    assert catalog(database_url) == before


@pytest.mark.anyio
async def test_a_step_that_fails_leaves_nothing_behind(empty_database_url: str, tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (tmp_path / "env.py").write_text((SCRIPTS / "env.py").read_text(encoding="utf-8"), encoding="utf-8")
    source = 'from alembic import op\nrevision = "{0}"\ndown_revision = {1}\n\n\ndef upgrade() -> None:\n    op.execute("{2}")\n'
    (versions / "0001_good.py").write_text(source.format("0001", None, "CREATE TABLE good ()"), encoding="utf-8")
    (versions / "0002_bad.py").write_text(source.format("0002", "'0001'", "CREATE TABLE good ()"), encoding="utf-8")
    with pytest.raises(Exception, match="already exists"):
        await migrate(empty_database_url, tmp_path)
    assert run_sql(empty_database_url, "SELECT to_regclass('good'), to_regclass('alembic_version')") == [(None, None)]
    (versions / "0002_bad.py").write_text(source.format("0002", "'0001'", "CREATE TABLE better ()"), encoding="utf-8")
    await migrate(empty_database_url, tmp_path)
    assert run_sql(empty_database_url, "SELECT version_num FROM alembic_version") == [("0002",)]


@pytest.mark.anyio
async def test_a_database_without_pgvector_gets_it_when_the_role_may_add_it(empty_database_url: str) -> None:
    name = empty_database_url.rpartition("?")[0].rpartition("/")[2]
    superuser_url = with_names(empty_database_url, user="postgres", database=name)
    run_sql(superuser_url, "DROP EXTENSION vector")
    with pytest.raises(DatabaseUnsuitable, match="CREATE EXTENSION vector"):
        await migrate(empty_database_url, SCRIPTS)
    await migrate(superuser_url, SCRIPTS)
    assert run_sql(empty_database_url, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == [("vector",)]


@pytest.mark.anyio
async def test_a_role_that_may_not_make_tables_is_told(empty_database_url: str) -> None:
    name = empty_database_url.rpartition("?")[0].rpartition("/")[2]
    run_sql(with_names(empty_database_url, user="postgres", database=name), f"ALTER DATABASE {name} OWNER TO postgres")
    with pytest.raises(DatabaseUnsuitable, match="permission denied for schema public.*Make the role the owner"):
        await migrate(empty_database_url, SCRIPTS)


@pytest.mark.anyio
async def test_a_database_that_is_not_there_cannot_be_migrated(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await migrate(f"postgresql:///x?host={tmp_path}", SCRIPTS)


@pytest.mark.anyio
async def test_the_migrated_database_is_one_that_homeport_opens(database_url: str) -> None:
    database = Database(database_url, 1)
    await database.open()
    await database.close()


@pytest.mark.anyio
async def test_the_provider_that_was_the_default_stays_it(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for name in ("env.py", "versions/0001_foundation.py"):
        (tmp_path / name).write_text((SCRIPTS / name).read_text(encoding="utf-8"), encoding="utf-8")
    await migrate(empty_database_url, tmp_path)
    run_sql(
        empty_database_url,
        "INSERT INTO model_providers (name, kind, base_url, models, is_default) "
        "VALUES ('one', 'openai', 'http://127.0.0.1:9/v1', '{}', false), ('two', 'openai', 'http://127.0.0.1:9/v1', '{m}', true)",
    )
    await migrate(empty_database_url, SCRIPTS)
    assert run_sql(empty_database_url, "SELECT role, position, provider, model FROM model_routes") == [("chat", 0, "two", None)]
    assert run_sql(empty_database_url, "SELECT name, models FROM model_providers ORDER BY name") == [("one", []), ("two", ["m"])]
