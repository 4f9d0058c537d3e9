"""Who a caller is: credentials, the cache, and how it learns of changes made elsewhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from adapters.postgres import Notifications
from homeport.errors import Unauthorized
from homeport.identity import Identity
from homeport.key_text import make_key
from tests.integration.parts import eventually, open_parts

pytestmark = pytest.mark.anyio


async def test_an_app_is_known_by_its_id_in_either_letter_case(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.apps.register("Notes", requires_user=True)
        await here.permissions.set_grant(app.id, "llm.chat", "granted", "test")
        await here.permissions.set_grant(app.id, "llm.embed", "denied", "test")
        for spelling in (str(app.id), str(app.id).upper()):
            principal = await here.identity.authenticate_app(spelling)
            assert principal is not None
            assert (principal.kind, principal.id, principal.owner_id, principal.app_id) == ("app", app.id, app.id, str(app.id))
            assert (set(principal.granted), set(principal.denied)) == ({"llm.chat"}, {"llm.embed"})
            assert (principal.name, principal.requires_user) == ("Notes", True)


@pytest.mark.parametrize("app_id", ["7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09", "", "notes", "' OR 1=1", "x" * 5000, "0" * 36, "\x00"])
async def test_what_is_no_registered_id_is_nobody(database_url: str, tmp_path: Path, app_id: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        await here.apps.register("Notes")
        assert await here.identity.authenticate_app(app_id) is None


async def test_a_key_is_a_principal_with_its_scopes_and_its_own_rows(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, text = await here.keys.create("laptop", ["activities.*", "llm.chat"])
        for _ in range(2):
            principal = await here.identity.authenticate_key(text)
            assert principal is not None
            assert (principal.kind, principal.id, principal.owner_id, principal.app_id) == ("key", key.id, key.id, None)
            assert principal.granted == {"activities.*", "llm.chat"}
            assert (principal.name, principal.requires_user) == ("laptop", False)


async def test_a_token_of_somebody_else_is_not_ours_to_judge(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        await here.keys.create("laptop")
        assert await here.identity.authenticate_key("eyJhbGciOiJIUzI1NiJ9.e30.c2ln") is None
        assert await here.identity.authenticate_key("") is None


async def test_a_bad_key_is_refused_alike_whatever_is_wrong_with_it(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        _, good = await here.keys.create("good")
        other = make_key()[1]
        revoked, revoked_text = await here.keys.create("revoked")
        await here.keys.revoke(str(revoked.id))
        expired, expired_text = await here.keys.create("expired", expires_at=datetime.now(UTC) + timedelta(days=1))
        await here.run_sql("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = :id", id=expired.id)
        mixed = good[:22] + other[22:]
        bad = [
            other,
            revoked_text,
            expired_text,
            mixed,
            good[:-1],
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            "hp_local_",
            "hp_local_é" * 9,
        ]
        messages = set()
        for is_warm in (False, True):
            if is_warm:
                assert await here.identity.authenticate_key(good)
            for text in bad:
                with pytest.raises(Unauthorized) as refused:
                    await here.identity.authenticate_key(text)
                assert refused.value.code == "INVALID_API_KEY"
                messages.add(refused.value.message)
        assert messages == {"The API key is not valid (unknown, revoked or expired)."}


async def test_a_key_beside_an_app_id_works_on_that_apps_rows_with_the_keys_permissions(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.apps.register("Notes", requires_user=True)
        await here.permissions.set_grant(app.id, "llm.chat", "denied", "test")
        key, text = await here.keys.create("laptop", ["llm.*"])
        principal = await here.identity.authenticate_key(text, str(app.id))
        assert principal is not None
        assert (principal.kind, principal.id, principal.owner_id, principal.app_id) == ("key", key.id, app.id, str(app.id))
        assert principal.decide("llm.chat") == "granted"
        assert not principal.requires_user


@pytest.mark.parametrize("app_id", ["7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09", "my-own-app"])
async def test_a_key_beside_an_unknown_app_id_keeps_its_own_rows(database_url: str, tmp_path: Path, app_id: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, text = await here.keys.create("laptop")
        principal = await here.identity.authenticate_key(text, app_id)
        assert principal is not None
        assert (principal.owner_id, principal.app_id) == (key.id, app_id)


async def test_a_second_request_asks_the_database_nothing(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app("Before")
        _, text = await here.keys.create("Before")
        assert await here.identity.authenticate_key(text)
        await here.run_sql("UPDATE apps SET name = 'After'")
        await here.run_sql("UPDATE api_keys SET name = 'After'")
        for name in ("Before", "After"):
            by_id, by_key = await here.identity.authenticate_app(str(app.id)), await here.identity.authenticate_key(text)
            assert by_id is not None
            assert by_key is not None
            assert (by_id.name, by_key.name) == (name, name)
            here.identity.forget_all()


async def test_a_change_is_in_force_in_its_own_process_when_the_call_returns(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        key, text = await here.keys.create("laptop")
        assert await here.identity.authenticate_key(text)
        await here.permissions.set_grant(app.id, "llm.chat", "granted", "test")
        granted = await here.identity.authenticate_app(str(app.id))
        assert granted is not None
        assert granted.decide("llm.chat") == "granted"
        await here.permissions.reset_grants(app.id)
        reset = await here.identity.authenticate_app(str(app.id))
        assert reset is not None
        assert reset.decide("llm.chat") == "undecided"
        await here.apps.remove(str(app.id))
        assert await here.identity.authenticate_app(str(app.id)) is None
        await here.keys.revoke(str(key.id))
        with pytest.raises(Unauthorized):
            await here.identity.authenticate_key(text)


async def test_a_change_in_another_process_is_learnt_by_notification(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        key, text = await here.keys.create("laptop")
        assert await here.identity.authenticate_key(text)

        await there.permissions.set_grant(app.id, "llm.chat", "granted", "test")
        await eventually(
            lambda: here.identity.authenticate_app(str(app.id)), lambda it: it is not None and it.decide("llm.chat") == "granted"
        )
        await there.apps.update(str(app.id), name="Renamed", requires_user=True)
        await eventually(lambda: here.identity.authenticate_app(str(app.id)), lambda it: it is not None and it.requires_user)
        await there.apps.remove(str(app.id))
        await eventually(lambda: here.identity.authenticate_app(str(app.id)), lambda it: it is None)

        await there.keys.revoke(str(key.id))

        async def is_refused() -> bool:
            try:
                await here.identity.authenticate_key(text)
            except Unauthorized:
                return True
            return False

        await eventually(is_refused)


async def test_everything_is_dropped_when_notifications_may_have_been_missed(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        lost_and_back = [anyio.Event(), anyio.Event()]
        gaps = iter(lost_and_back)
        here.notifications.on_gap(lambda: next(gaps).set())
        app = await here.app("Before")
        await here.run_sql("UPDATE apps SET name = 'After'")
        await here.drop_listeners()
        with anyio.fail_after(5):
            for gap in lost_and_back:
                await gap.wait()
        assert here.notifications.is_connected
        principal = await here.identity.authenticate_app(str(app.id))
        assert principal is not None
        assert principal.name == "After"


async def test_nothing_is_cached_while_notifications_are_not_connected(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        identity = Identity(here.database, Notifications(database_url))
        app = await here.apps.register("Before")
        _, text = await here.keys.create("Before")
        for name in ("Before", "After"):
            await here.run_sql("UPDATE apps SET name = :name", name=name)
            await here.run_sql("UPDATE api_keys SET name = :name", name=name)
            by_id, by_key = await identity.authenticate_app(str(app.id)), await identity.authenticate_key(text)
            assert by_id is not None
            assert by_key is not None
            assert (by_id.name, by_key.name) == (name, name)


async def test_a_load_that_a_change_overtakes_is_answered_but_not_kept(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await there.apps.register("Before")
        _, text = await there.keys.create("Before")
        async with anyio.create_task_group() as tasks, there.database.transaction() as connection:
            await connection.exec_driver_sql("LOCK TABLE apps, api_keys IN ACCESS EXCLUSIVE MODE")
            tasks.start_soon(here.identity.authenticate_app, str(app.id))
            tasks.start_soon(here.identity.authenticate_key, text)
            waiting = (
                "SELECT count(*) FROM pg_locks JOIN pg_database ON database = pg_database.oid "
                "WHERE NOT granted AND datname = current_database()"
            )
            await eventually(lambda: here.run_sql(waiting), lambda rows: rows[0][0] == 2)
            here.identity.forget("app:another")
        await here.run_sql("UPDATE apps SET name = 'After'")
        await here.run_sql("UPDATE api_keys SET name = 'After'")
        by_id, by_key = await here.identity.authenticate_app(str(app.id)), await here.identity.authenticate_key(text)
        assert by_id is not None
        assert by_key is not None
        assert (by_id.name, by_key.name) == ("After", "After")


async def test_a_cached_key_is_refused_from_the_moment_it_expires(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        expires_at = datetime.now(UTC) + timedelta(seconds=3)
        _, text = await here.keys.create("short", expires_at=expires_at)
        assert await here.identity.authenticate_key(text)
        await here.run_sql("UPDATE api_keys SET expires_at = NULL")  # only the cached expiry can refuse it now

        async def is_refused() -> bool:
            try:
                await here.identity.authenticate_key(text)
            except Unauthorized:
                return True
            return False

        await eventually(is_refused)
        assert datetime.now(UTC) >= expires_at


async def test_refreshing_reads_what_no_notification_told(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        _, text = await here.keys.create("laptop", ["llm.chat"])
        by_key = await here.identity.authenticate_key(text, str(app.id))
        assert by_key is not None
        await here.run_sql(
            "INSERT INTO grants (app_id, permission, state, decided_by) VALUES (:id, 'llm.chat', 'granted', 'sql')", id=app.id
        )
        await here.run_sql("UPDATE api_keys SET scopes = '{llm.embed}'")
        fresh_app, fresh_key = await here.identity.refresh(app), await here.identity.refresh(by_key)
        assert fresh_app is not None
        assert fresh_app.decide("llm.chat") == "granted"
        assert fresh_key is not None
        assert fresh_key.granted == {"llm.embed"}
        assert (fresh_key.app_id, fresh_key.owner_id) == (str(app.id), app.id)
        cached = await here.identity.authenticate_app(str(app.id))
        assert cached == fresh_app
        await here.run_sql("DELETE FROM apps")
        await here.run_sql("UPDATE api_keys SET revoked_at = now()")
        assert await here.identity.refresh(app) is None
        assert await here.identity.refresh(by_key) is None


async def test_the_cache_does_not_grow_without_end(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeport.identity.CACHE_SIZE", 3)
    async with open_parts(database_url, tmp_path) as here:
        apps = [await here.app(f"App {number}") for number in range(5)]
        await here.run_sql("UPDATE apps SET name = 'After'")
        names = [principal.name for app in reversed(apps) if (principal := await here.identity.authenticate_app(str(app.id)))]
        assert names == ["App 4", "App 3", "App 2", "After", "After"]
