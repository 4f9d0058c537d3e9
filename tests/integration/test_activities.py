"""Activities: isolation, the claim rules, races, and indexes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql

from adapters.postgres import Database
from homeport.activities import Activities, Activity, select_newest, select_stale
from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.identity import Principal
from tests.integration.parts import Parts, eventually, key_principal, open_parts

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def an_app(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Parts, Principal]]:
    async with open_parts(database_url, tmp_path) as here:
        yield here, await here.app("App")


async def age_lock(parts: Parts, age: timedelta) -> None:
    await parts.run_sql("UPDATE activities SET locked_at = now() - CAST(:age AS interval)", age=age)


STALE, FRESH = timedelta(minutes=5, seconds=5), timedelta(minutes=4, seconds=30)


# Rows.


@pytest.mark.parametrize(
    "data", [{"type": "order", "amount": 1.5, "z": 1, "a": [None, True, "\u0000 ü 😀"]}, [], {}, "text", "", 0, False, None, 2**53, 1e300]
)
async def test_data_comes_back_as_it_was_sent(database_url: str, tmp_path: Path, data: Any) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        created = await here.activities.create(app, data)
        assert (created.status, created.retry_count, created.attempted_by) == ("pending", 0, [])
        assert (created.locked_by, created.completed_at, created.result, created.old_data) == (None, None, None, None)
        changed = await here.activities.update(app, str(created.id), {"old_data": data, "result": data, "raw_data": data})
        read = await here.activities.get(app, str(created.id))
        assert repr(read.raw_data) == repr(read.old_data) == repr(read.result) == repr(data)
        assert read == changed
        assert await here.activities.list(app) == [read]


async def test_another_owners_activity_is_not_found_and_not_touched(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        other = await here.app("Other")
        mine = await here.activities.create(app, {"mine": True})
        for stranger in (other, key_principal(uuid4())):
            for call in (
                here.activities.get(stranger, str(mine.id)),
                here.activities.update(stranger, str(mine.id), {"status": "claimed"}),
                here.activities.update(stranger, str(mine.id), {}),
                here.activities.delete(stranger, str(mine.id)),
            ):
                with pytest.raises(NotFound, match="not found"):
                    await call
            assert await here.activities.list(stranger) == []
        assert await here.activities.get(app, str(mine.id)) == mine


@pytest.mark.parametrize("activity_id", ["7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09", "x", "", "\x00"])
async def test_an_activity_that_is_not_there_is_not_found(database_url: str, tmp_path: Path, activity_id: str) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        for call in (here.activities.get, here.activities.delete):
            with pytest.raises(NotFound, match="not found"):
                await call(app, activity_id)
        with pytest.raises(NotFound, match="not found"):
            await here.activities.update(app, activity_id, {"status": "completed"})


async def test_a_deleted_activity_is_returned_once_more_and_gone(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        created = await here.activities.create(app, {})
        assert await here.activities.delete(app, str(created.id).upper()) == created
        with pytest.raises(NotFound):
            await here.activities.delete(app, str(created.id))


async def test_the_list_is_newest_first_filtered_and_the_same_every_time(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        made = [await here.activities.create(app, number) for number in range(6)]
        await here.run_sql("UPDATE activities SET created_at = '2024-01-01T00:00:00Z'")  # now only the ids tell them apart
        await here.activities.update(app, str(made[2].id), {"status": "processed"})
        assert [each.raw_data for each in await here.activities.list(app)] == [5, 4, 3, 2, 1, 0]
        assert [each.raw_data for each in await here.activities.list(app, limit=2, offset=1)] == [4, 3]
        assert [each.raw_data for each in await here.activities.list(app, offset=5)] == [0]
        assert [each.raw_data for each in await here.activities.list(app, offset=6)] == []
        assert [each.raw_data for each in await here.activities.list(app, status="pending", limit=3)] == [5, 4, 3]
        assert [each.raw_data for each in await here.activities.list(app, status="processed")] == [2]
        assert len(await here.activities.list(app, status="")) == 6
        assert await here.activities.list(app, status="nothing") == []


async def test_an_app_sets_its_own_fields_and_no_others(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        created = await here.activities.create(app, {"a": 1})
        foreign = {
            "id": str(uuid4()),
            "owner_id": str(uuid4()),
            "retry_count": 9,
            "attempted_by": ["x"],
            "created_at": "x",
            "locked_at": "x",
            "foo": 1,
        }
        assert await here.activities.update(app, str(created.id), foreign) == created
        assert await here.activities.update(app, str(created.id), {"status": None, "raw_data": None}) == created
        changed = await here.activities.update(app, str(created.id), foreign | {"error_message": "careful", "result": {"b": 2}})
        assert (changed.error_message, changed.result, changed.raw_data) == ("careful", {"b": 2}, {"a": 1})
        cleared = await here.activities.update(app, str(created.id), {"error_message": None, "result": None})
        assert cleared == created


async def test_a_status_of_the_apps_own_is_stored_as_it_is(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        created = await here.activities.create(app, {})
        changed = await here.activities.update(app, str(created.id), {"status": "processed", "result": {"summary": "Order processed"}})
        assert (changed.status, changed.result, changed.completed_at) == ("processed", {"summary": "Order processed"}, None)
        assert (await here.activities.update(app, str(created.id), {"status": "completed"})).status == "completed"
        for status in ("", "x" * 101):
            with pytest.raises(InvalidRequest, match="status"):
                await here.activities.update(app, str(created.id), {"status": status})


# The life of an activity. Each line: what was done before, the change, and the status after it, or None for a conflict.

A, B = "machine-a", "machine-b"


def by(machine: str | None, status: str | None = None, **more: Any) -> dict[str, Any]:
    return ({"locked_by": machine} if machine else {}) | ({"status": status} if status else {}) | more


CHANGES: list[tuple[list[dict[str, Any]], timedelta | None, dict[str, Any], str | None]] = [
    # A claim takes what is free, and only that.
    ([], None, by(A, "claimed"), "claimed"),
    ([by(A, "failed")], None, by(B, "claimed"), "claimed"),
    ([by(A, "claimed")], FRESH, by(B, "claimed"), None),
    ([by(A, "claimed")], FRESH, by(A, "claimed"), None),
    ([by(A, "claimed"), by(A, "processing")], FRESH, by(B, "claimed"), None),
    ([by(A, "claimed")], STALE, by(B, "claimed"), "claimed"),
    ([by(A, "claimed"), by(A, "processing")], STALE, by(B, "claimed"), "claimed"),
    ([by(A, "completed")], None, by(B, "claimed"), None),
    ([by(None, "processed")], None, by(A, "claimed"), None),
    # Not by a machine that has failed it.
    ([by(A, "claimed"), by(A, "failed")], None, by(A, "claimed"), None),
    ([by(A, "claimed"), by(A, "failed"), by(None, "pending")], None, by(A, "claimed"), None),
    ([by(A, "claimed"), by(A, "failed"), by(None, "pending")], None, by(A, "processing"), None),
    # Processing goes on with one's own, or starts on what nobody has.
    ([by(A, "claimed")], FRESH, by(A, "processing"), "processing"),
    ([by(A, "claimed"), by(A, "processing")], STALE, by(A, "processing"), "processing"),
    ([by(A, "claimed")], FRESH, by(None, "processing"), "processing"),
    ([by(A, "claimed")], FRESH, by(B, "processing"), None),
    ([by(A, "claimed")], STALE, by(B, "processing"), None),
    ([], None, by(A, "processing"), "processing"),
    ([by(A, "completed")], None, by(A, "processing"), None),
    ([by(A, "failed")], None, by(B, "processing"), None),
    # Finishing.
    ([by(A, "claimed")], FRESH, by(A, "completed"), "completed"),
    ([by(A, "claimed"), by(A, "processing")], FRESH, by(None, "completed"), "completed"),
    ([by(A, "claimed")], FRESH, by(B, "completed"), None),
    ([by(A, "claimed")], STALE, by(B, "completed"), "completed"),
    ([], None, by(None, "completed"), "completed"),
    ([], None, by(None, "failed"), "failed"),
    ([by(A, "claimed")], FRESH, by(B, "failed"), None),
    ([by(A, "claimed")], FRESH, by(A, "failed"), "failed"),
    ([by(None, "completed")], None, by(None, "failed"), None),
    ([by(None, "failed")], None, by(None, "completed"), None),
    ([by(None, "completed")], None, by(B, "completed"), "completed"),
    ([by(None, "failed")], None, by(B, "failed"), "failed"),
    # Letting go.
    ([by(A, "claimed")], FRESH, by(None, "pending"), "pending"),
    ([by(A, "claimed")], FRESH, by(A, "pending"), "pending"),
    ([by(A, "claimed")], FRESH, by(B, "pending"), None),
    ([by(A, "completed")], None, by(None, "pending"), "pending"),
    # A machine that only says that it is there.
    ([by(A, "claimed")], FRESH, by(A), "claimed"),
    ([by(A, "claimed")], FRESH, by(B), None),
    ([by(A, "claimed")], STALE, by(B), "claimed"),
]


async def test_changes_of_status(database_url: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        for before, lock_age, change, expected in CHANGES:
            activity_id = str((await here.activities.create(app, {})).id)
            for step in before:
                await here.activities.update(app, activity_id, step)
            if lock_age is not None:
                await age_lock(here, lock_age)
            was = await here.activities.get(app, activity_id)
            with subtests.test(before=before, lock_age=lock_age, change=change):
                if expected is not None:
                    assert (await here.activities.update(app, activity_id, change)).status == expected
                    continue
                with pytest.raises(Conflict) as refused:
                    await here.activities.update(app, activity_id, change)
                assert refused.value.code == "ACTIVITY_CONFLICT"
                assert not was.locked_by or f"by '{A}' since 20" in refused.value.message
                assert await here.activities.get(app, activity_id) == was


async def test_a_claim_is_held_in_the_name_of_the_machine_or_of_the_caller(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        for change, holder in ((by(A, "claimed"), A), (by(None, "claimed"), "App"), ({"status": "claimed", "locked_by": None}, "App")):
            created = await here.activities.create(app, {})
            claimed = await here.activities.update(app, str(created.id), change)
            assert claimed.locked_by == holder
            assert claimed.locked_at is not None
        with pytest.raises(Conflict, match="claimed by 'App' since 20"):
            await here.activities.update(app, str(created.id), {"status": "claimed"})


async def test_going_on_refreshes_the_lock(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        activity_id = str((await here.activities.create(app, {})).id)
        await here.activities.update(app, activity_id, by(A, "claimed"))
        for change in (by(A, "processing"), by(A, "processing"), by(None, "processing"), by(A)):
            await age_lock(here, FRESH)
            old = (await here.activities.get(app, activity_id)).locked_at
            changed = await here.activities.update(app, activity_id, change)
            assert old is not None
            assert changed.locked_at is not None
            assert changed.locked_at - old > timedelta(minutes=4)
            assert changed.locked_by == A


async def test_completing_releases_the_lock_and_keeps_the_first_time(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        activity_id = str((await here.activities.create(app, {})).id)
        await here.activities.update(app, activity_id, by(A, "claimed"))
        done = await here.activities.update(app, activity_id, by(A, "completed", result={"ok": 1}))
        assert (done.locked_by, done.locked_at, done.result) == (None, None, {"ok": 1})
        assert done.completed_at is not None
        again = await here.activities.update(app, activity_id, by(None, "completed", result={"ok": 2}))
        assert (again.completed_at, again.result) == (done.completed_at, {"ok": 2})
        reopened = await here.activities.update(app, activity_id, {"status": "pending"})
        assert reopened.completed_at is None


async def test_failing_counts_and_remembers_the_machine_once(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        activity_id = str((await here.activities.create(app, {})).id)

        async def step(change: dict[str, Any]) -> Activity:
            return await here.activities.update(app, activity_id, change)

        await step(by(A, "claimed"))
        failed = await step(by(None, "failed", error_message="no network"))
        assert (failed.attempted_by, failed.retry_count, failed.error_message, failed.locked_by, failed.locked_at) == (
            [A],
            1,
            "no network",
            None,
            None,
        )
        assert await step(by(B, "failed")) == failed  # the same state again
        await step(by(B, "claimed"))
        assert ((failed := await step(by(B, "failed"))).attempted_by, failed.retry_count) == ([A, B], 2)
        await step({"status": "pending"})
        assert ((failed := await step(by(A, "failed"))).attempted_by, failed.retry_count) == ([A, B], 3)
        await step({"status": "pending"})
        assert ((failed := await step({"status": "failed"})).attempted_by, failed.retry_count) == ([A, B], 4)


async def test_letting_go_without_a_status_frees_the_row(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        activity_id = str((await here.activities.create(app, {})).id)
        await here.activities.update(app, activity_id, by(A, "claimed"))
        freed = await here.activities.update(app, activity_id, {"locked_by": None})
        assert (freed.locked_by, freed.locked_at) == (None, None)
        assert (await here.activities.update(app, activity_id, by(B, "claimed"))).locked_by == B


async def test_of_several_machines_in_two_processes_exactly_one_gets_each_activity(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app), open_parts(database_url, tmp_path) as there:
        made = [await here.activities.create(app, number) for number in range(50)]
        winners: dict[UUID, list[str]] = {each.id: [] for each in made}

        async def claim(parts: Parts, machine: str, status: str) -> None:
            for each in made:
                with suppress(Conflict):
                    await parts.activities.update(app, str(each.id), by(machine, status))
                    winners[each.id].append(machine)

        async with anyio.create_task_group() as tasks:
            for number, parts in enumerate((here, there) * 2):
                tasks.start_soon(claim, parts, f"machine {number}", "processing" if number == 3 else "claimed")
        assert {len(names) for names in winners.values()} == {1}
        held = {each.id: [each.locked_by] for each in await there.activities.list(app)}
        assert held == winners


# Locks that return by themselves.


async def test_stale_locks_return_and_fresh_ones_stay(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app):
        made = [str((await here.activities.create(app, number)).id) for number in range(6)]
        for activity_id, status in zip(made, ("claimed", "processing", "claimed", "completed", "claimed", "processed"), strict=True):
            await here.activities.update(app, activity_id, by(A, status))
        await here.run_sql(
            "UPDATE activities SET locked_at = now() - interval '5 minutes 1 second' WHERE id = ANY(CAST(:ids AS uuid[]))",
            ids=made[:2] + made[5:],
        )
        await here.run_sql("UPDATE activities SET locked_at = NULL WHERE id = CAST(:id AS uuid)", id=made[4])
        assert await here.activities.return_stale() == 3
        assert await here.activities.return_stale() == 0
        after = [await here.activities.get(app, activity_id) for activity_id in made]
        assert [each.status for each in after] == ["pending", "pending", "claimed", "completed", "pending", "processed"]
        assert [each.locked_by for each in after] == [None, None, A, None, None, A]
        assert all(each.attempted_by == [] for each in after)


async def test_two_sweepers_at_once_return_each_activity_once(database_url: str, tmp_path: Path) -> None:
    async with an_app(database_url, tmp_path) as (here, app), open_parts(database_url, tmp_path) as there:
        for number in range(100):
            created = await here.activities.create(app, number)
            await here.activities.update(app, str(created.id), by(A, "claimed"))
        await age_lock(here, STALE)
        counts: list[int] = []

        async def sweep(parts: Parts) -> None:
            counts.append(await parts.activities.return_stale())

        async with anyio.create_task_group() as tasks:
            for parts in (here, there) * 2:
                tasks.start_soon(sweep, parts)
        assert sum(counts) == 100
        assert len(await here.activities.list(app, status="pending", limit=200)) == 100


async def test_the_sweeper_works_by_itself_and_outlives_a_failing_database(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeport.activities.SWEEP_INTERVAL_S", 0.01)
    async with an_app(database_url, tmp_path) as (here, app):
        created = await here.activities.create(app, {})
        sweeping_database = Database(database_url, 1)
        sweeper = Activities(sweeping_database, here.user_tokens)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweeper.run_sweeper)
            for _ in range(2):
                await here.activities.update(app, str(created.id), by(A, "claimed"))
                await age_lock(here, STALE)
                await eventually(lambda: here.activities.get(app, str(created.id)), lambda it: it.status == "pending")
                await here.run_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
            tasks.cancel_scope.cancel()
        await sweeping_database.close()


# Indexes.


async def plan(database: Database, statement: Select[Any]) -> str:
    sql = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    async with database.transaction() as connection:
        rows = await connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {sql}")
        return "\n".join(line for (line,) in rows)


async def test_lists_and_the_sweeper_use_an_index_at_20_000_rows(database: Database) -> None:
    owner = uuid4()
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO activities (id, owner_id, raw_data, status, locked_at, created_at) "
            f"SELECT gen_random_uuid(), CASE WHEN mod(n, 4) = 0 THEN gen_random_uuid() ELSE '{owner}' END, '{{}}', "
            "(ARRAY['pending', 'completed', 'completed', 'failed', 'claimed'])[1 + mod(n, 5)], now(), now() - n * interval '1 second' "
            "FROM generate_series(1, 20000) AS n"
        )
        await connection.exec_driver_sql("ANALYZE activities")
    newest = await plan(database, select_newest(owner, None, limit=50, offset=0))
    assert "activities_owner_idx" in newest
    filtered = await plan(database, select_newest(owner, "failed", limit=50, offset=0))
    assert "activities_owner_status_idx" in filtered
    stale = await plan(database, select_stale())
    assert "activities_locked_idx" in stale
    # What a deep page passes over is counted in the index, without its rows.
    deep = await plan(database, select_newest(owner, None, limit=50, offset=10_000))
    assert "Index Only Scan using activities_owner_idx" in deep
    deep_filtered = await plan(database, select_newest(owner, "failed", limit=50, offset=1_000))
    assert "Index Only Scan using activities_owner_status_idx" in deep_filtered
    for text in (newest, filtered, stale, deep, deep_filtered):
        assert "Seq Scan" not in text
        assert "Sort" not in text
