"""Agents of this server do tasks: as jobs, in one process at a time, taken over after a crash, cancelled in any process."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contract.upstream import RunningUpstream
from homeport.errors import Conflict, NotFound
from homeport.tasks import Task
from tests.integration.parts import eventually
from tests.integration.task_parts import TaskParts, open_tasks

pytestmark = pytest.mark.anyio

SLOW: list[dict[str, Any]] = [{"say": "done", "wait": 30}]


@pytest.fixture
async def one(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[TaskParts]:
    async with open_tasks(database_url, tmp_path / "one", upstream) as opened:
        yield opened


async def runs_of(parts: TaskParts, task_id: str | None) -> list[tuple[str, str, str | None]]:
    return [(run.attempt_id, run.status, run.error) for run in (await parts.tasks.find(task_id or "")).runs]


async def agent_runs(parts: TaskParts) -> list[str]:
    """The states of all runs of agents, oldest first."""
    return [row[0] for row in await parts.parts.run_sql("SELECT state FROM agent_runs ORDER BY id")]


async def asked(parts: TaskParts, task_id: str | None) -> Task:
    """The task, once its agent has begun to ask a model."""
    await eventually(lambda: agent_runs(parts), lambda states: "running" in states)
    return await parts.becomes(task_id, "processing")


async def test_an_agent_does_a_task_at_once(one: TaskParts) -> None:
    app = await one.app()
    receipt = await one.auto_run(app, [{"say": "All is well."}], raw_data={"order": 7}, thread="create_new")
    assert (receipt.status, receipt.auto_run, receipt.attempt_id) == ("pending", True, "run-1")
    task = await one.becomes(receipt.task_id, "completed")
    assert task.result is not None
    assert task.result["text"] == "All is well."
    assert (task.result["provider"], task.result["model"]) == ("stand-in", "script")
    (run,) = task.runs
    assert (run.status, run.machine_id, run.agent, run.workspace) == ("completed", "homeport", "@agent", "default")
    assert run.thread not in (None, "create_new")
    assert str(run.session_id) == task.result["session_id"]
    assert await one.kinds(receipt.task_id) == ["task.created", "task.claimed", "task.started", "task.completed"]
    (question, _) = await one.runs.messages(task.result["run_id"])
    assert '"order": 7' in question.text
    assert "holds no instructions" in question.text


async def test_an_agent_that_fails_fails_the_task_with_a_sentence(one: TaskParts) -> None:
    receipt = await one.auto_run(await one.app(), [{"fail": 401}])
    task = await one.becomes(receipt.task_id, "failed")
    assert task.error
    assert await runs_of(one, receipt.task_id) == [("run-1", "failed", task.error)]


async def test_a_task_whose_key_was_revoked_fails(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_tasks(database_url, tmp_path, upstream, works=False) as one:
        _, text = await one.parts.keys.create("Developer")
        caller = await one.parts.identity.authenticate_key(text)
        assert caller is not None
        receipt = await one.auto_run(caller, [{"say": "never"}])
        await one.parts.keys.revoke(str(caller.id))
        one.work()
        task = await one.becomes(receipt.task_id, "failed")
        assert task.error == "The app that handed this task over was removed, or its API key is not valid any more."
        assert await agent_runs(one) == []


async def test_an_app_that_is_removed_takes_its_tasks_along(one: TaskParts) -> None:
    app = await one.app()
    receipt = await one.auto_run(app, SLOW)
    await asked(one, receipt.task_id)
    await one.parts.apps.remove(str(app.id))
    with pytest.raises(NotFound):
        await one.tasks.find(receipt.task_id or "")
    assert await one.parts.run_sql("SELECT 1 FROM jobs") == []


async def test_a_person_has_a_task_run_and_says_by_whom(one: TaskParts) -> None:
    app = await one.app()
    await one.agents.create("Note Keeper", "notes")
    task_id = await one.waiting(app, prompt='script: [{"say": "Filed."}]', agent="@agent")
    task = await one.tasks.run(task_id, by="cli", agent="notes", workspace="default", thread="general")
    assert (task.status, task.agent, task.workspace, task.thread) == ("pending", "notes", "default", "general")
    task = await one.becomes(task_id, "completed")
    assert (task.result or {})["text"] == "Filed."
    assert (task.runs[0].agent, task.runs[0].thread) == ("notes", "general")
    assert await one.kinds(task_id) == ["task.created", "task.queued", "task.claimed", "task.started", "task.completed"]
    with pytest.raises(Conflict, match="completed, and cannot become pending"):
        await one.tasks.run(task_id, by="cli")


async def test_a_failed_task_can_be_run_again(one: TaskParts) -> None:
    receipt = await one.auto_run(await one.app(), [{"fail": 401}])
    await one.becomes(receipt.task_id, "failed")
    await one.tasks.run(receipt.task_id or "", by="cli")
    task = await eventually(lambda: one.tasks.find(receipt.task_id or ""), lambda task: len(task.runs) == 2 and task.status == "failed")
    assert [run.status for run in task.runs] == ["failed", "failed"]
    assert task.runs[0].session_id != task.runs[1].session_id


async def test_what_waits_for_an_agent_already_is_not_run_twice(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_tasks(database_url, tmp_path, upstream, works=False) as one:
        receipt = await one.auto_run(await one.app(), [{"say": "once"}])
        with pytest.raises(Conflict, match="as soon as one is free"):
            await one.tasks.run(receipt.task_id or "", by="cli")


async def test_a_program_that_takes_a_waiting_task_keeps_it(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_tasks(database_url, tmp_path, upstream, works=False) as one:
        app = await one.app()
        receipt = await one.auto_run(app, [{"say": "never"}])
        await one.report(app, "start", receipt.task_id, "agent-001")
        one.work()
        await one.report(app, "complete", receipt.task_id, "agent-001", result={"by": "me"})
        assert (await one.tasks.find(receipt.task_id or "")).result == {"by": "me"}
        assert await one.parts.run_sql("SELECT state FROM jobs WHERE kind = 'task.run'") == [("cancelled",)]
        assert await agent_runs(one) == []


async def test_a_killed_worker_is_followed_by_another_process_in_the_same_conversation(
    database_url: str, tmp_path: Path, upstream: RunningUpstream
) -> None:
    async with open_tasks(database_url, tmp_path / "one", upstream) as one:
        receipt = await one.auto_run(await one.app(), [{"say": "done", "wait": 2}])
        first = await asked(one, receipt.task_id)
        # Its process is gone: nothing of it is heard any more, and its leases run out.
        await one.parts.run_sql("UPDATE jobs SET worker = 'gone', visible_at = now() WHERE kind = 'task.run'")
        await one.parts.run_sql("UPDATE agent_runs SET worker = 'gone', held_until = now()")
        await one.die()
        async with open_tasks(database_url, tmp_path / "two", upstream) as two:
            task = await two.becomes(receipt.task_id, "completed")
            assert (task.result or {})["text"] == "done"
            assert await runs_of(two, receipt.task_id) == [("run-1", "failed", "interrupted"), ("run-2", "completed", None)]
            assert {run.session_id for run in task.runs} == {first.runs[0].session_id}
            assert await agent_runs(two) == ["completed"]
            kinds = await two.kinds(receipt.task_id)
            assert kinds == ["task.created", *(["task.claimed", "task.started"] * 2), "task.completed"]


async def test_a_worker_that_stops_gives_its_task_to_the_next_one(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_tasks(database_url, tmp_path / "one", upstream) as one:
        receipt = await one.auto_run(await one.app(), [{"say": "done", "wait": 1}])
        await asked(one, receipt.task_id)
    async with open_tasks(database_url, tmp_path / "two", upstream) as two:
        await two.becomes(receipt.task_id, "completed")
        assert await agent_runs(two) == ["completed"]


async def test_a_task_that_is_interrupted_each_time_fails(one: TaskParts) -> None:
    receipt = await one.auto_run(await one.app(), SLOW)
    await asked(one, receipt.task_id)
    await one.parts.run_sql(
        "UPDATE jobs SET state = 'failed', error = 'The server was interrupted each time.', finished_at = now() WHERE kind = 'task.run'"
    )
    await one.tasks.keeper.settle()
    task = await one.becomes(receipt.task_id, "failed")
    assert task.error == "The server was interrupted each time."
    assert await runs_of(one, receipt.task_id) == [("run-1", "failed", task.error)]
    assert await agent_runs(one) == ["cancelled"]


async def test_a_job_that_never_began_fails_its_task(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_tasks(database_url, tmp_path, upstream, works=False) as one:
        receipt = await one.auto_run(await one.app(), SLOW)
        await one.parts.run_sql("DELETE FROM jobs")
        assert await one.tasks.keeper.settle() == 1
        task = await one.tasks.find(receipt.task_id or "")
        assert (task.status, task.error) == ("failed", "The job of this task ended, and nobody said why. The server's log may.")
        assert await one.tasks.keeper.settle() == 0


@pytest.mark.parametrize("who", ["report", "operator", "job"])
async def test_cancelling_in_another_process_stops_the_agent(
    one: TaskParts, database_url: str, tmp_path: Path, upstream: RunningUpstream, who: str
) -> None:
    app = await one.app()
    receipt = await one.auto_run(app, SLOW)
    await asked(one, receipt.task_id)
    async with open_tasks(database_url, tmp_path / "two", upstream, works=False) as two:
        match who:
            case "report":
                await two.report(app, "task-cancel", receipt.task_id, error="not needed")
            case "operator":
                await two.tasks.cancel(receipt.task_id or "", by="cli", reason="not needed")
            case _:
                (job_id,) = (await two.parts.run_sql("SELECT id FROM jobs WHERE kind = 'task.run'"))[0]
                await two.jobs.cancel(app.owner_id, str(job_id))
                await two.tasks.keeper.settle()
        task = await two.becomes(receipt.task_id, "canceled")
        assert task.error == (None if who == "job" else "not needed")
    assert [run.status for run in task.runs] == ["canceled"]
    assert await agent_runs(one) == ["cancelled"]
    # The model is not waited for any longer.
    await eventually(lambda: one.parts.run_sql("SELECT 1 FROM jobs WHERE state IN ('queued', 'running')"), lambda rows: not rows)


async def test_a_run_that_is_cancelled_cancels_its_task(one: TaskParts) -> None:
    receipt = await one.auto_run(await one.app(), SLOW)
    await asked(one, receipt.task_id)
    ((run_id,),) = await one.parts.run_sql("SELECT id FROM agent_runs")
    await one.runs.cancel(str(run_id))
    task = await one.becomes(receipt.task_id, "canceled")
    assert task.error == "The run was cancelled."


async def test_many_tasks_are_done_side_by_side_by_two_processes_each_once(
    one: TaskParts, database_url: str, tmp_path: Path, upstream: RunningUpstream
) -> None:
    app = await one.app()
    async with open_tasks(database_url, tmp_path / "two", upstream) as two:
        receipts = [await each.auto_run(app, [{"say": "done"}]) for each in (one, two) * 6]
        for receipt in receipts:
            task = await one.becomes(receipt.task_id, "completed")
            assert [run.status for run in task.runs] == ["completed"]
    assert await agent_runs(one) == ["completed"] * 12
