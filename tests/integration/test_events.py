"""Events: written at once, listed page by page, and removed when they are old."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeport.errors import InvalidRequest
from homeport.events import RETENTION, Events
from homeport.identity import Principal
from tests.integration.parts import key_principal, open_parts

pytestmark = pytest.mark.anyio


async def test_events_are_listed_newest_first_by_kind_app_and_time(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as parts:
        events, app, start = Events(parts.database), await parts.app(), datetime.now(UTC)
        key = key_principal(app.id)
        speaking = Principal("key", key.id, "Key", app.id, "x", frozenset("*"), frozenset())
        for number, principal in enumerate([app, key, speaking, None]):
            await events.record("a.b" if number % 2 else "c.d", principal=principal, subject=f"ä {number}", data={"n": number, "s": "\0é"})
        found = (await events.list()).items
        assert [event.subject for event in found] == ["ä 3", "ä 2", "ä 1", "ä 0"]
        assert found[0].data == {"n": 3, "s": "\0é"}
        assert [(event.app_id, event.key_id) for event in found] == [(None, None), (None, key.id), (None, key.id), (app.id, None)]
        assert [event.subject for event in (await events.list(kind="a.b")).items] == ["ä 3", "ä 1"]
        assert [event.subject for event in (await events.list(app_id=app.id)).items] == ["ä 0"]
        assert len((await events.list(since=start - timedelta(minutes=1))).items) == 4
        assert (await events.list(since=datetime.now(UTC) + timedelta(minutes=1))).items == []


async def test_pages_go_on_where_the_last_one_ended(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as parts:
        events = Events(parts.database)
        for number in range(5):
            await events.record("a", principal=None, subject=str(number), data={})
        first = await events.list(limit=2)
        await events.record("a", principal=None, subject="later", data={})
        second = await events.list(limit=2, cursor=first.next_cursor)
        assert [event.subject for event in (*first.items, *second.items)] == ["4", "3", "2", "1"]
        with pytest.raises(InvalidRequest):
            await events.list(kind="b", cursor=first.next_cursor)


async def test_old_events_are_removed(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as parts:
        events = Events(parts.database)
        for subject in ("old", "new"):
            await events.record("a", principal=None, subject=subject, data={})
        await parts.run_sql("UPDATE events SET created_at = now() - CAST(:age AS interval) WHERE subject = 'old'", age=RETENTION)
        assert await events.remove_old() == 1
        assert [event.subject for event in (await events.list()).items] == ["new"]


async def test_nobody_waits_for_the_disk(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as parts:
        await Events(parts.database).record("a", principal=None, subject="x", data={})
        # The pool has one connection so far: the one that wrote it. What it does afterwards is as safe as ever.
        assert await parts.run_sql("SHOW synchronous_commit") == [("on",)]
