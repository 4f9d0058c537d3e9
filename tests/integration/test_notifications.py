"""LISTEN and NOTIFY on real PostgreSQL."""

import asyncio
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from adapters.postgres import Database, Notifications, notify
from homeport.errors import Unavailable
from tests.integration.servers import Restartable

pytestmark = pytest.mark.anyio


class Heard:
    """What a subscriber has been told."""

    def __init__(self) -> None:
        self.queue = asyncio.Queue[str]()

    def __call__(self, payload: str = "gap") -> None:
        self.queue.put_nowait(payload)

    async def next(self) -> str:
        with anyio.fail_after(5):
            return await self.queue.get()

    @property
    def is_empty(self) -> bool:
        return self.queue.empty()


async def say(database: Database, payload: str, channel: str = "news") -> None:
    async with database.transaction() as connection:
        await notify(connection, channel, payload)


async def test_a_notification_arrives_when_the_transaction_commits_and_not_before(database: Database, database_url: str) -> None:
    heard = Heard()
    async with Notifications(database_url) as notifications:
        notifications.subscribe("news", heard)
        await notifications.settle()
        async with database.transaction() as connection:
            await notify(connection, "news", "inside")
            await say(database, "from another transaction")
            assert await heard.next() == "from another transaction"
            assert heard.is_empty
        assert await heard.next() == "inside"


async def test_a_rollback_takes_a_notification_back(database: Database, database_url: str) -> None:
    heard = Heard()
    notifications = Notifications(database_url)
    notifications.subscribe("news", heard)
    async with notifications:
        with suppress(ZeroDivisionError):
            async with database.transaction() as connection:
                await notify(connection, "news", "undone")
                raise ZeroDivisionError
        await say(database, "after")
        assert await heard.next() == "after"


async def test_what_is_subscribed_before_entering_is_heard_at_once_in_order_on_its_channel_only(
    database: Database, database_url: str
) -> None:
    heard, other, odd = Heard(), Heard(), Heard()
    notifications = Notifications(database_url)
    notifications.subscribe("news", heard)
    notifications.subscribe("news", other)
    notifications.subscribe('Odd "name"; é', odd)
    assert not notifications.is_connected
    async with notifications:
        assert notifications.is_connected
        await say(database, "ignored", "nobody")
        for number in range(100):
            await say(database, str(number))
        assert [await heard.next() for _ in range(100)] == [str(number) for number in range(100)]
        assert other.queue.qsize() == 100
        assert odd.is_empty
        await say(database, "", 'Odd "name"; é')
        assert await odd.next() == ""
    assert not notifications.is_connected


async def test_a_channel_is_left_with_its_last_subscriber(database: Database, database_url: str) -> None:
    heard, other = Heard(), Heard()
    async with Notifications(database_url) as notifications:
        leave = notifications.subscribe("news", heard)
        leave_too = notifications.subscribe("news", other)
        await notifications.settle()
        leave()
        leave()
        await notifications.settle()
        await say(database, "one")
        assert await other.next() == "one"
        assert heard.is_empty
        leave_too()
        await notifications.settle()
        await say(database, "two")
        notifications.subscribe("news", heard)
        await notifications.settle()
        await say(database, "three")
        assert await heard.next() == "three"
        assert other.is_empty


async def test_a_subscriber_that_fails_harms_nobody(database: Database, database_url: str) -> None:
    heard = Heard()

    def fail(_payload: str = "") -> None:
        raise RuntimeError("broken subscriber")

    notifications = Notifications(database_url)
    for callback in (fail, heard):
        notifications.subscribe("news", callback)
        notifications.on_gap(callback)
    async with notifications:
        await say(database, "one")
        await say(database, "two")
        assert [await heard.next(), await heard.next()] == ["one", "two"]
        await end_listeners(database)
        assert [await heard.next(), await heard.next()] == ["gap", "gap"]
        await say(database, "three")
        assert await heard.next() == "three"


async def end_listeners(database: Database) -> None:
    async with database.transaction() as connection:
        query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        assert (await connection.execute(text(query))).scalars().all() == [True]


async def test_a_lost_connection_is_told_as_a_gap_twice_and_comes_back(database: Database, database_url: str) -> None:
    heard, gaps = Heard(), list[bool]()
    told = asyncio.Event()
    notifications = Notifications(database_url)
    notifications.subscribe("news", heard)

    def gap() -> None:
        gaps.append(notifications.is_connected)
        if len(gaps) == 2:
            told.set()

    notifications.on_gap(gap)
    async with notifications:
        await end_listeners(database)
        with anyio.fail_after(5):
            await told.wait()
        assert gaps == [False, True]
        await say(database, "back")
        assert await heard.next() == "back"


async def test_listening_survives_a_restart_of_the_server(restartable: Restartable) -> None:
    heard, late, gap = Heard(), Heard(), Heard()
    database = Database(restartable.url, 1)
    notifications = Notifications(restartable.url)
    notifications.subscribe("news", heard)
    notifications.on_gap(gap)
    async with notifications:
        await say(database, "before")
        assert await heard.next() == "before"
        restartable.stop()
        assert await gap.next() == "gap"
        assert not notifications.is_connected
        notifications.subscribe("late", late)
        restartable.start()
        assert await gap.next() == "gap"
        assert notifications.is_connected
        await say(database, "after")
        await say(database, "also", "late")
        assert [await heard.next(), await late.next()] == ["after", "also"]
    await database.close()


async def test_leaving_while_the_server_is_away_works(restartable: Restartable) -> None:
    gap = Heard()
    notifications = Notifications(restartable.url)
    notifications.on_gap(gap)
    with anyio.fail_after(5):
        async with notifications:
            restartable.stop()
            await gap.next()
    restartable.start()


async def test_entering_without_a_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Notifications(f"postgresql:///x?host={tmp_path}").__aenter__()


@pytest.mark.parametrize(("payload", "fits"), [("x" * 7999, True), ("é" * 3999, True), ("x" * 8000, False), ("é" * 4000, False)])
async def test_a_payload_has_a_limit_in_bytes(database: Database, database_url: str, payload: str, fits: bool) -> None:
    heard = Heard()
    notifications = Notifications(database_url)
    notifications.subscribe("news", heard)
    async with notifications:
        if fits:
            await say(database, payload)
            assert await heard.next() == payload
        else:
            with pytest.raises(ValueError, match="less than 8000 bytes"):
                await say(database, payload)


@pytest.mark.parametrize("channel", ["", "c" * 64])
async def test_a_channel_needs_a_name_that_the_server_does_not_cut(database: Database, database_url: str, channel: str) -> None:
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        await say(database, "", channel)
    with pytest.raises(ValueError, match="1 to 63 bytes"):
        Notifications(database_url).subscribe(channel, print)
