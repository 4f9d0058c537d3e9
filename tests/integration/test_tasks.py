"""Tasks on a real database: handed over, reported on, deduplicated, seen only by their owners."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from homeport.clock import format_time
from homeport.errors import AppError, Conflict, InvalidRequest, NotFound, PermissionMissing, Unauthorized
from homeport.tasks.contract_events import as_report, canonical_event
from homeport.tasks.signatures import Signed
from tests.integration.parts import key_principal
from tests.integration.task_parts import SECRET, TaskParts, new_event_id, open_tasks

pytestmark = pytest.mark.anyio

DONE: dict[str, Any] = {"result": {"answer": 42}}


@pytest.fixture
async def one(database_url: str, tmp_path: Path) -> AsyncIterator[TaskParts]:
    async with open_tasks(database_url, tmp_path, works=False, contract_secret=SECRET) as opened:
        yield opened


async def refusal(awaitable: Any) -> AppError:
    with pytest.raises(AppError) as caught:
        await awaitable
    return caught.value


def signature(event: str, task_id: str, event_id: str, *, timestamp: str, **data: Any) -> str:
    return Signed(event_id, as_report(canonical_event(event) or "task.failed"), task_id, "", timestamp, data).sign(SECRET)


async def test_an_external_program_takes_a_task_through_its_life(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app, prompt="Process this order\nat once", raw_data={"z": 1, "a": None})
    for event, status in (("claim", "claimed"), ("task-start", "processing"), ("PROGRESS", "processing"), ("Task-Complete", "completed")):
        receipt = await one.report(app, event, task_id, "agent-001", **(DONE if status == "completed" else {"percent": 50}))
        assert (receipt.status, receipt.attempt_id, receipt.is_repeated) == (status, "run-1", False)
    task = await one.tasks.get(app, task_id)
    assert (task.title, task.raw_data, task.result) == ("[App] Process this order", {"z": 1, "a": None}, {"answer": 42})
    assert (task.progress, task.machine_id, task.error) == ({"percent": 50}, "agent-001", None)
    (run,) = task.runs
    assert (run.status, run.machine_id, run.number) == ("completed", "agent-001", 1)
    assert run.started_at is not None
    assert run.completed_at is not None
    assert await one.kinds(task_id) == ["task.created", "task.claimed", "task.started", "task.progress", "task.completed"]


async def test_a_failed_task_is_tried_again_as_the_next_attempt(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    await one.report(app, "start", task_id, "a")
    await one.report(app, "fail", task_id, "a", error="Connection timeout")
    assert (await one.tasks.get(app, task_id)).error == "Connection timeout"
    await one.report(app, "claimed", task_id, "b", attempt_id="7")
    task = await one.tasks.get(app, task_id)
    assert (task.status, task.machine_id, task.error) == ("claimed", "b", None)
    assert [(run.attempt_id, run.status, run.error) for run in task.runs] == [
        ("run-1", "failed", "Connection timeout"),
        ("run-7", "pending", None),
    ]
    late = await refusal(one.report(app, "complete", task_id, "b", attempt_id="run-1", **DONE))
    assert (late.code, late.message) == ("TASK_STATE", "The attempt 'run-1' at this task is over; the last one is 'run-7'.")
    assert (await one.report(app, "complete", task_id, "b", attempt_id="run-7", **DONE)).status == "completed"


async def test_a_failure_without_a_reason_says_so(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    await one.report(app, "start", task_id)
    await one.report(app, "fail", task_id)
    assert (await one.tasks.get(app, task_id)).error == "It failed, and whoever worked on it gave no reason."


async def test_an_illegal_step_says_from_where_to_where_and_changes_nothing(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    error = await refusal(one.report(app, "complete", task_id, event_id="e-1", **DONE))
    assert isinstance(error, Conflict)
    assert (error.code, error.message) == ("TASK_STATE", "This task is pending, and cannot become completed from there.")
    assert await one.kinds(task_id) == ["task.created"]
    # What was refused does not count as having come.
    await one.report(app, "start", task_id)
    assert not (await one.report(app, "complete", task_id, event_id="e-1", **DONE)).is_repeated


async def test_another_machine_cannot_touch_what_one_works_on_but_can_cancel_it(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    await one.report(app, "claim", task_id, "a")
    for event in ("claim", "start", "progress", "complete", "fail"):
        error = await refusal(one.report(app, event, task_id, "b"))
        assert (error.code, error.message) == ("TASK_CLAIMED", "This task is claimed by 'a'.")
    assert (await refusal(one.report(app, "claim", task_id))).code == "TASK_CLAIMED"
    assert (await one.report(app, "cancel", task_id, "b", error="not needed")).status == "canceled"
    assert (await one.tasks.get(app, task_id)).error == "not needed"


async def test_who_gave_no_name_holds_a_task_against_other_claims_only(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    await one.report(app, "claim", task_id)
    assert (await refusal(one.report(app, "claim", task_id))).message == "This task is claimed by a machine that gave no name."
    await one.report(app, "start", task_id, "agent-001")
    assert (await one.tasks.get(app, task_id)).machine_id == "agent-001"


async def test_the_same_report_of_the_same_machine_changes_nothing(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    for event in ("claim", "claim", "start", "start"):
        await one.report(app, event, task_id, "a")
    await one.report(app, "start", task_id)
    for _ in range(2):
        await one.report(app, "canceled", task_id)
    assert await one.kinds(task_id) == ["task.created", "task.claimed", "task.started", "task.canceled"]
    assert (await refusal(one.report(app, "claim", task_id, "a"))).code == "TASK_STATE"


async def test_of_two_machines_that_claim_at_once_one_gets_the_task(database_url: str, tmp_path: Path) -> None:
    async with (
        open_tasks(database_url, tmp_path / "one", works=False) as one,
        open_tasks(database_url, tmp_path / "two", works=False) as two,
    ):
        app = await one.app()
        for _ in range(10):
            task_id = await one.waiting(app)
            claims = [each.report(app, "claim", task_id, machine) for each, machine in ((one, "a"), (two, "b"))]
            outcomes = await asyncio.gather(*claims, return_exceptions=True)
            assert sorted(getattr(each, "code", "claimed") for each in outcomes) == ["TASK_CLAIMED", "claimed"]
            assert len((await one.tasks.get(app, task_id)).runs) == 1


async def test_an_event_that_comes_again_is_answered_as_before(one: TaskParts) -> None:
    app, event_id = await one.app(), new_event_id()
    first = await one.trigger(app, event_id=event_id)
    again = await one.trigger(app, "something else", event_id=event_id)
    assert not first.is_repeated
    assert again.is_repeated
    assert (again.task_id, again.calendar_event_id) == (first.task_id, first.calendar_event_id)
    await one.report(app, "start", first.task_id, event_id="start")
    await one.report(app, "complete", first.task_id, **DONE)
    assert (await one.report(app, "start", first.task_id, event_id="start")).status == "processing"
    assert len((await one.tasks.list()).items) == 1
    # Another app's events have nothing to do with it.
    assert not (await one.trigger(await one.app(), event_id=event_id)).is_repeated


async def test_an_event_that_comes_twice_at_once_counts_once(database_url: str, tmp_path: Path) -> None:
    async with (
        open_tasks(database_url, tmp_path / "one", works=False) as one,
        open_tasks(database_url, tmp_path / "two", works=False) as two,
    ):
        app = await one.app()
        for _ in range(10):
            event_id = new_event_id()
            receipts = await asyncio.gather(*(each.trigger(app, event_id=event_id) for each in (one, two, one, two)))
            assert sorted(receipt.is_repeated for receipt in receipts) == [False, True, True, True]
            assert len({receipt.task_id for receipt in receipts}) == 1
            task_id = receipts[0].task_id
            told = await asyncio.gather(*(each.report(app, "start", task_id, event_id=f"start {event_id}") for each in (one, two)))
            assert sorted(receipt.is_repeated for receipt in told) == [False, True]
        assert len((await one.tasks.list()).items) == 10


async def test_events_are_remembered_for_seven_days(one: TaskParts) -> None:
    app = await one.app()
    for event_id in ("old", "new"):
        await one.trigger(app, event_id=event_id)
    await one.parts.run_sql("UPDATE webhook_events SET created_at = now() - interval '7 days 1 minute' WHERE event_id = 'old'")
    assert await one.tasks.keeper.remove_old_events() == 1
    assert not (await one.trigger(app, event_id="old")).is_repeated
    assert (await one.trigger(app, event_id="new")).is_repeated


async def test_tasks_of_others_are_not_found(one: TaskParts) -> None:
    app, other = await one.app(), await one.app()
    task_id = await one.waiting(app)
    for stranger in (other, key_principal(uuid4())):
        with pytest.raises(NotFound):
            await one.tasks.get(stranger, task_id)
    with pytest.raises(NotFound):
        await one.report(other, "start", task_id)
    assert await one.kinds(task_id) == ["task.created"]
    for task in ("", "x", str(uuid4())):
        with pytest.raises((NotFound, InvalidRequest)):
            await one.report(app, "start", task)


async def test_an_app_is_known_by_its_id_in_the_body(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    assert (await one.report(None, "start", task_id, app_id=str(app.id))).status == "processing"
    for app_id, code in (("", "MISSING_APP_ID"), (None, "MISSING_APP_ID"), (str(uuid4()), "INVALID_APP_ID"), ("x", "INVALID_APP_ID")):
        error = await refusal(one.report(None, "complete", task_id, app_id=app_id))
        assert (type(error), error.code) == (Unauthorized, code)


async def test_without_the_permission_nothing_is_taken_in(one: TaskParts) -> None:
    app = await one.parts.app()
    for event in ("trigger-agent", "task-start"):
        error = await refusal(one.report(app, event, str(uuid4())))
        assert isinstance(error, PermissionMissing)
        assert error.permission == "webhook.trigger"
    assert (await one.report(app, "ping", None)).app_name == "App"
    assert (await one.report(None, "system.ping", None, app_id="nobody")).event == "system.ping"


async def test_an_unknown_event_is_refused(one: TaskParts) -> None:
    assert (await refusal(one.report(None, "task-explode", None))).code == "UNKNOWN_EVENT"


async def test_a_signed_report_needs_nobody_who_sends_it(one: TaskParts) -> None:
    app = await one.app()
    task_id, now = await one.waiting(app), format_time(datetime.now(UTC))
    signed = signature("task-start", task_id, "e-1", timestamp=now)
    assert (await one.report(None, "task-start", task_id, event_id="e-1", timestamp=now, signature=signed)).status == "processing"
    assert (await one.report(None, "task-start", task_id, event_id="e-1", timestamp=now, signature=signed)).is_repeated
    last = (await one.events.list(kind="task.started")).items[0]
    assert (last.data["by"], last.app_id) == ("signature", app.id)


@pytest.mark.parametrize("has_identity", [True, False])
async def test_a_wrong_signature_is_refused(one: TaskParts, has_identity: bool) -> None:
    app = await one.app()
    task_id, now = await one.waiting(app), format_time(datetime.now(UTC))
    signed = signature("task-start", task_id, "e-1", timestamp=now)
    error = await refusal(one.report(app if has_identity else None, "task-fail", task_id, event_id="e-1", timestamp=now, signature=signed))
    assert (type(error), error.code) == (Unauthorized, "INVALID_SIGNATURE")


async def test_an_old_signature_does_not_stand_for_somebody(one: TaskParts) -> None:
    app = await one.app()
    task_id = await one.waiting(app)
    old = format_time(datetime.now(UTC) - timedelta(minutes=6))
    signed = signature("task-start", task_id, "e-1", timestamp=old)
    told = {"event_id": "e-1", "timestamp": old, "signature": signed}
    assert (await refusal(one.report(None, "task-start", task_id, **told))).code == "MISSING_APP_ID"
    assert (await one.report(app, "task-start", task_id, **told)).status == "processing"


async def test_a_signed_report_without_an_event_id_does_not_stand_for_somebody(one: TaskParts) -> None:
    task_id, now = await one.waiting(await one.app()), format_time(datetime.now(UTC))
    signed = signature("task-start", task_id, "", timestamp=now)
    assert (await refusal(one.report(None, "task-start", task_id, timestamp=now, signature=signed))).code == "MISSING_APP_ID"


async def test_while_the_secret_is_changed_the_one_before_counts_too(database_url: str, tmp_path: Path) -> None:
    now = format_time(datetime.now(UTC))
    for secrets, is_right in (
        ({"contract_secret": "new", "previous_contract_secret": SECRET}, True),
        ({"contract_secret": "new", "previous_contract_secret": "older"}, False),
    ):
        async with open_tasks(database_url, tmp_path, works=False, **secrets) as tasks:
            task_id = await tasks.waiting(await tasks.app())
            told = {"event_id": "e-1", "timestamp": now, "signature": signature("task-start", task_id, "e-1", timestamp=now)}
            if is_right:
                assert (await tasks.report(None, "task-start", task_id, **told)).status == "processing"
            else:
                assert (await refusal(tasks.report(None, "task-start", task_id, **told))).code == "INVALID_SIGNATURE"


async def test_without_a_secret_a_signature_means_nothing(database_url: str, tmp_path: Path) -> None:
    async with open_tasks(database_url, tmp_path, works=False) as one:
        app = await one.app()
        task_id, now = await one.waiting(app), format_time(datetime.now(UTC))
        told = {"event_id": "e-1", "timestamp": now, "signature": signature("task-start", task_id, "e-1", timestamp=now)}
        assert (await refusal(one.report(None, "task-start", task_id, **told))).code == "MISSING_APP_ID"
        assert (await one.report(app, "task-start", task_id, **told)).status == "processing"


@pytest.mark.parametrize(
    ("order", "code", "named"),
    [
        ({"auto_run": True, "agent": "@agent"}, "VALIDATION_ERROR", "workspace_slug"),
        ({"auto_run": True, "workspace": "default"}, "VALIDATION_ERROR", "agent_name"),
        ({"agent": "nobody"}, "AGENT_NOT_FOUND", "'nobody'"),
        ({"workspace": "nowhere"}, "WORKSPACE_NOT_FOUND", "'nowhere'"),
        ({"thread": "none"}, "THREAD_NOT_FOUND", "'none'"),
        ({"auto_run": True, "agent": "@agent", "workspace": "default", "thread": "none"}, "THREAD_NOT_FOUND", "'none'"),
        ({"callback_url": "ftp://app.example/"}, "URL_REFUSED", "https://"),
        ({"callback_url": "https://user:pass@app.example/"}, "URL_REFUSED", "password"),
        ({"callback_url": "http://127.0.0.1:1/"}, "PRIVATE_ADDRESS", "127.0.0.1"),
        ({"callback_url": "https://[::1]/"}, "PRIVATE_ADDRESS", "::1"),
        ({"callback_url": "not a url"}, "URL_REFUSED", "https://"),
    ],
)
async def test_an_order_that_cannot_be_carried_out_is_refused_at_once(one: TaskParts, order: dict[str, Any], code: str, named: str) -> None:
    error = await refusal(one.trigger(await one.app(), event_id="e-1", **order))
    assert error.code == code
    assert named in error.message
    assert (await one.tasks.list()).items == []


async def test_empty_texts_of_an_order_count_as_none(one: TaskParts) -> None:
    app = await one.app()
    task = await one.tasks.get(app, await one.waiting(app, prompt="", agent="", workspace="", thread="", callback_url=""))
    assert (task.agent, task.workspace, task.thread, task.callback_url) == (None, None, None, None)
    assert task.title == "[App] New task"


async def test_tasks_are_listed_newest_first_by_state_and_owner(one: TaskParts) -> None:
    app, other = await one.app(), await one.app()
    ids = [await one.waiting(each) for each in (app, other, app)]
    await one.report(app, "start", ids[2])
    assert [str(task.id) for task in (await one.tasks.list()).items] == ids[::-1]
    assert [str(task.id) for task in (await one.tasks.list(status="pending")).items] == ids[1::-1]
    assert [str(task.id) for task in (await one.tasks.list(owner_id=app.owner_id, limit=1)).items] == [ids[2]]
    page = await one.tasks.list(owner_id=app.owner_id, limit=1)
    rest = await one.tasks.list(owner_id=app.owner_id, limit=1, cursor=page.next_cursor)
    assert [str(task.id) for task in rest.items] == [ids[0]]
