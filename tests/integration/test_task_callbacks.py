"""What happens to a task is posted to a real HTTP server: signed, in order, again after failures, and never where it must not go."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from realtimex_sdk import contract as sdk  # type: ignore[import-untyped]

from contract.upstream import RunningUpstream
from tests.integration.parts import eventually
from tests.integration.task_parts import SECRET, Receiver, TaskParts, open_tasks, receiving

pytestmark = pytest.mark.anyio

LIFE = ("task.claimed", "task.started", "task.progress", "task.completed")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def one(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[TaskParts]:
    async with open_tasks(database_url, tmp_path, upstream, contract_secret=SECRET, private_hosts="localhost") as opened:
        yield opened


async def live(one: TaskParts, url: str) -> str:
    """The id of a task that was taken through its life."""
    app = await one.app()
    task_id = await one.waiting(app, callback_url=url)
    await one.report(app, "claim", task_id, "a", event_id=f"claim {task_id}")
    await one.report(app, "start", task_id, "a")
    await one.report(app, "progress", task_id, "a", percent=50, message="Hälfte")
    await one.report(app, "complete", task_id, "a", result={"z": 1, "a": [None]})
    return task_id


async def callback_jobs(one: TaskParts) -> list[tuple[str, int, str | None]]:
    rows = await one.parts.run_sql("SELECT state, attempts, error_code FROM jobs WHERE kind = 'task.callback' ORDER BY id")
    return [tuple(row) for row in rows]


async def finished(one: TaskParts) -> list[tuple[str, int, str | None]]:
    return await eventually(lambda: callback_jobs(one), lambda jobs: all(job[0] in ("completed", "failed") for job in jobs))


async def test_every_change_is_posted_in_order_and_signed(one: TaskParts, receiver: Receiver) -> None:
    task_id = await live(one, receiver.url)
    assert [job[0] for job in await finished(one)] == ["completed"] * 4
    assert receiver.events == [*LIFE]
    for headers, body in receiver.got:
        assert headers["x-rtx-event-id"] == body["event_id"]
        parts: dict[str, Any] = {"event_id": body["event_id"], "event_type": body["event"], "attempt_id": body["attempt_id"]}
        expected = sdk.sign_contract_event(secret=SECRET, task_id=task_id, timestamp=body["timestamp"], payload=body["data"], **parts)
        assert headers["x-rtx-contract-signature"] == expected
    first, last = receiver.got[0][1], receiver.got[-1][1]
    assert first["event_id"] == f"claim {task_id}"
    assert (last["action"], last["status"], last["task_uuid"], last["machine_id"]) == ("complete", "completed", task_id, "a")
    assert last["data"] == {"result": {"z": 1, "a": [None]}}
    assert (last["attempt_id"], last["user_email"], last["activity_id"], last["table_name"]) == ("run-1", None, None, None)


async def test_what_an_agent_does_is_posted_too(one: TaskParts, receiver: Receiver) -> None:
    receipt = await one.auto_run(await one.app(), [{"say": "done"}], callback_url=receiver.url)
    await one.becomes(receipt.task_id, "completed")
    await finished(one)
    assert receiver.events == ["task.claimed", "task.started", "task.completed"]
    assert receiver.got[-1][1]["data"]["result"]["text"] == "done"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_what_fails_is_posted_again_before_anything_later(one: TaskParts, receiver: Receiver, status: int) -> None:
    receiver.statuses = [status, status]
    await live(one, receiver.url)
    assert [job[:2] for job in await finished(one)] == [("completed", 3), *[("completed", 1)] * 3]
    assert receiver.events == [*[LIFE[0]] * 2, *LIFE]
    assert len({body["event_id"] for _, body in receiver.got}) == len(LIFE)


@pytest.mark.parametrize("status", [302, 400, 404])
async def test_a_refusal_is_the_end_of_one_event(one: TaskParts, receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    await live(one, receiver.url)
    jobs = await finished(one)
    assert jobs[0] == ("failed", 1, "CALLBACK_REFUSED")
    assert [job[0] for job in jobs[1:]] == ["completed"] * 3
    assert receiver.events == [*LIFE]


async def test_an_address_that_is_gone_is_not_asked_again(one: TaskParts, receiver: Receiver) -> None:
    receiver.statuses = [410]
    task_id = await live(one, receiver.url)
    await finished(one)
    assert receiver.events == [LIFE[0]]
    assert (await one.tasks.find(task_id)).callback_url is None


async def test_where_nobody_listens_is_tried_again(one: TaskParts, receiver: Receiver) -> None:
    app = await one.app()
    task_id = await one.waiting(app, callback_url="http://localhost:1/")
    await one.report(app, "start", task_id)
    await eventually(lambda: callback_jobs(one), lambda jobs: jobs[0][1] >= 2)
    assert (await callback_jobs(one))[0][2] == "UPSTREAM_ERROR"


async def test_what_became_private_is_not_connected_to(
    database_url: str, tmp_path: Path, one: TaskParts, receiver: Receiver, upstream: RunningUpstream
) -> None:
    await one.die()
    app = await one.app()
    task_id = await one.waiting(app, callback_url=receiver.url)
    async with open_tasks(database_url, tmp_path / "strict", upstream) as strict:
        await strict.report(app, "start", task_id)
        assert await finished(strict) == [("failed", 1, "PRIVATE_ADDRESS")]
    assert receiver.got == []


async def test_without_a_secret_nothing_is_signed(database_url: str, tmp_path: Path, receiver: Receiver) -> None:
    async with open_tasks(database_url, tmp_path, private_hosts="127.0.0.0/8,::1") as one:
        await live(one, receiver.url.replace("localhost", "127.0.0.1"))
        await finished(one)
    assert receiver.events == [*LIFE]
    assert all("x-rtx-contract-signature" not in headers for headers, _ in receiver.got)


async def test_http_is_for_hosts_that_the_operator_names(database_url: str, tmp_path: Path) -> None:
    async with open_tasks(database_url, tmp_path, works=False) as one:
        with pytest.raises(Exception, match="use https://"):
            await one.waiting(await one.app(), callback_url="http://93.184.215.14/")
        assert await one.waiting(await one.app(), callback_url="https://93.184.215.14/")
