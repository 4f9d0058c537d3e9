"""API keys in the database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from homeport.errors import Forbidden, InvalidRequest, NotFound
from homeport.key_text import parse_key
from homeport.keys import ApiKey
from tests.integration.parts import eventually, open_parts

pytestmark = pytest.mark.anyio


async def test_a_key_is_stored_without_its_secret(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        expires_at = datetime.now(UTC) + timedelta(days=1)
        key, text = await here.keys.create("  laptop ", ["llm.chat", "activities.*", "llm.chat"], expires_at)
        assert (key.name, key.scopes, key.expires_at) == ("laptop", ["llm.chat", "activities.*"], expires_at)
        assert key.last_used_at is None
        assert key.revoked_at is None
        assert text.startswith(key.prefix + "_")
        assert await here.keys.get(str(key.id)) == key
        stored = (await here.run_sql("SELECT api_keys::text FROM api_keys"))[0][0]
        assert text[len(key.prefix) + 1 :] not in stored
        parsed = parse_key(text)
        assert parsed is not None
        assert parsed[1].hex() in stored


@pytest.mark.parametrize(
    ("scopes", "granted_by"),
    [(["*"], ["llm.*"]), (["llm.*"], ["llm.chat"]), (["llm.chat", "admin.keys.read"], ["llm.*"]), (["llm.chat"], [])],
)
async def test_a_key_cannot_be_given_what_its_creator_does_not_hold(
    database_url: str, tmp_path: Path, scopes: list[str], granted_by: list[str]
) -> None:
    async with open_parts(database_url, tmp_path) as here:
        with pytest.raises(Forbidden, match="creator") as refused:
            await here.keys.create("child", scopes, granted_by=granted_by)
        assert refused.value.code == "SCOPE_NOT_HELD"
        assert not (await here.keys.list()).items


async def test_a_key_can_be_given_part_of_what_its_creator_holds(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, _ = await here.keys.create("child", ["llm.chat", "activities.read.*"], granted_by=["llm.*", "activities.*"])
        assert key.scopes == ["llm.chat", "activities.read.*"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": " "}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["LLM.chat"]}, "LLM.chat"),
        ({"name": "k", "expires_at": datetime.now(UTC)}, "expires_at"),
    ],
)
async def test_a_key_needs_a_name_good_scopes_and_a_future(
    database_url: str, tmp_path: Path, values: dict[str, object], complaint: str
) -> None:
    async with open_parts(database_url, tmp_path) as here:
        with pytest.raises(InvalidRequest, match=complaint):
            await here.keys.create(**values)  # type: ignore[arg-type]
        assert not (await here.keys.list()).items


async def test_revoking_again_keeps_the_first_time(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, _ = await here.keys.create("laptop")
        first = await here.keys.revoke(str(key.id))
        assert first.revoked_at is not None
        assert await here.keys.revoke(str(key.id)) == first == await here.keys.get(str(key.id))


@pytest.mark.parametrize("key_id", ["7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09", "laptop", ""])
async def test_a_key_that_is_not_there_is_not_found(database_url: str, tmp_path: Path, key_id: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        await here.keys.create("laptop")
        for call in (here.keys.get, here.keys.revoke):
            with pytest.raises(NotFound):
                await call(key_id)


async def test_keys_are_listed_newest_first_page_by_page_and_each_once(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        made = [(await here.keys.create(f"key {number}"))[0] for number in range(5)]
        await here.run_sql("UPDATE api_keys SET created_at = '2024-01-01T00:00:00Z' WHERE name <> 'key 4'")
        seen: list[ApiKey] = []
        cursor = None
        for expected in (2, 2, 1):
            page = await here.keys.list(limit=2, cursor=cursor)
            assert len(page.items) == expected
            seen += page.items
            cursor = page.next_cursor
        assert cursor is None
        assert [key.id for key in seen] == [key.id for key in reversed(made)]


async def test_only_one_of_several_processes_makes_the_first_key(database_url: str, tmp_path: Path) -> None:
    made = []
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        assert not (await here.keys.list()).items

        async def make(keys: object) -> None:
            made.append(await keys.create_first("first"))  # type: ignore[attr-defined]

        async with anyio.create_task_group() as tasks:
            for parts in (here, there) * 4:
                tasks.start_soon(make, parts.keys)
        keys = [each for each in made if each is not None]
        assert len(keys) == 1
        assert keys[0][0].scopes == ["*"]
        await here.keys.revoke(str(keys[0][0].id))
        assert (await there.keys.list()).items
        assert await there.keys.create_first("again") is None


async def test_the_last_use_is_written_afterwards_and_at_most_once_a_minute(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        key, text = await here.keys.create("laptop")

        async def last_used() -> datetime | None:
            return (await here.keys.get(str(key.id))).last_used_at

        await here.identity.authenticate_key(text)
        assert await last_used() is None
        await here.identity.usage.flush()
        first = await last_used()
        assert first is not None

        for parts in (here, there):  # another process may see the key in the same minute
            await parts.identity.authenticate_key(text)
            await parts.identity.usage.flush()
        assert await last_used() == first

        await here.run_sql("UPDATE api_keys SET last_used_at = now() - interval '2 minutes'")
        await here.identity.usage.flush()
        assert await last_used() != first  # nothing was noted within the minute, so nothing was written
        there.identity.usage.record(key.id)
        await there.identity.usage.flush()


async def test_the_writer_in_the_background_writes_by_itself(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, text = await here.keys.create("laptop")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.identity.usage.run)
            await here.identity.authenticate_key(text)
            await eventually(lambda: here.keys.get(str(key.id)), lambda it: it.last_used_at is not None)
            tasks.cancel_scope.cancel()
