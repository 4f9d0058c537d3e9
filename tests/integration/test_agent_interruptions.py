"""Runs whose process dies, hangs or stops, runs that are cancelled from elsewhere, and runs of tasks that another process goes on with.

Two opened parts are two processes. One is taken for dead when what it holds has lapsed; the one that is only slow is fenced then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from sqlalchemy import text

from contract.upstream import RunningUpstream
from homeport.agents import Answer, Session
from homeport.agents.context import NO_RESULT
from homeport.agents.runs import Timing
from homeport.errors import AppError, Conflict, NotFound, Unavailable
from homeport.identity import Principal
from tests.integration.agent_parts import AgentParts, call, open_agents, script
from tests.integration.parts import eventually

pytestmark = pytest.mark.anyio

WAIT = {"wait": 60, "say": "never"}
SLOW = {"call": [call("slow", seconds=60)]}


@dataclass
class Two:
    """Two processes on one database."""

    first: AgentParts
    second: AgentParts
    upstream: RunningUpstream

    async def lapse(self) -> None:
        """Have nobody heard of any run for too long."""
        await self.first.parts.run_sql("UPDATE agent_runs SET held_until = now() - interval '1 second'")

    async def begin(self, app: Principal, session: Session, *steps: dict[str, Any]) -> asyncio.Task[Answer]:
        """Begin a run in the first process that asks its model and gets no answer."""
        asking = asyncio.create_task(self.first.answer(app, session, *steps))
        await self.is_asking()
        return asking

    async def is_asking(self) -> None:
        """Return when the model is being asked."""

        async def count() -> int:
            return self.upstream.state.open

        await eventually(count)

    async def times_asked(self) -> int:
        """How often the model was asked so far."""
        state = self.upstream.state
        return state.open + state.finished + state.cancelled

    async def written_of(self, run_id: UUID) -> list[str]:
        """The roles of the messages of a run, in order."""
        rows = await self.second.parts.run_sql("SELECT role FROM agent_messages WHERE run_id = :run ORDER BY id", run=run_id)
        return [role for (role,) in rows]

    async def state(self, session: Session) -> tuple[str, str | None]:
        """How the newest run stands."""
        run = await self.second.last_run(session)
        return run.state, run.error_code

    async def has_told(self, session: Session, kind: str, times: int = 1) -> UUID:
        """Return the newest run when it has told this so often."""

        async def count() -> int:
            runs = (await self.second.runs.list(session_id=str(session.id))).items
            return [event.kind for event in await self.second.told(runs[0].id)].count(kind) if runs else 0

        await eventually(count, lambda found: found >= times)
        run = await self.second.last_run(session)
        assert isinstance(run.id, UUID)
        return run.id


@pytest.fixture
async def two(database_url: str, tmp_path: Path, upstream: RunningUpstream, own_url: str) -> AsyncIterator[Two]:
    async with (
        open_agents(database_url, tmp_path / "1", upstream) as first,
        open_agents(database_url, tmp_path / "2", upstream, timing=Timing(keep=0.05, look=0.02)) as second,
    ):
        await first.add_tools(own_url)
        yield Two(first, second, upstream)


async def failure_of(work: Awaitable[Any]) -> AppError:
    with anyio.fail_after(20), pytest.raises(AppError) as caught:
        await work
    return caught.value


async def test_a_run_that_lost_its_process_fails_and_what_was_said_is_kept(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent())
    asking = await two.begin(app, session, {"say": "First.", "call": [call("echo", text="x")]}, WAIT)
    await two.has_told(session, "agent.tool.finished")
    await two.lapse()
    await two.second.runs.fail_orphans()
    assert await two.state(session) == ("failed", "INTERRUPTED")
    assert [text for _, text in (await two.second.said(session))[1:]] == ["First.", "x"]
    assert (await failure_of(asking)).code == "INTERRUPTED"
    run = await two.second.last_run(session)
    assert [event.kind for event in await two.second.told(run.id)].count("agent.run.failed") == 1
    assert (await two.second.answer(app, session, {"say": "again"})).text == "again"


async def test_a_run_that_is_heard_of_is_left_alone(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = await two.begin(app, session, WAIT)
    await two.lapse()
    await two.first.runs.keep()
    await two.second.runs.fail_orphans()
    assert await two.state(session) == ("running", None)
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_new_message_ends_a_run_that_lost_its_process(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = await two.begin(app, session, WAIT)
    await two.lapse()
    assert (await two.second.answer(app, session, {"say": "I am here"})).text == "I am here"
    # The first process is not dead, only slow: it notices when it looks after its runs.
    await two.first.runs.keep()
    assert (await failure_of(asking)).code == "INTERRUPTED"
    states = [(run.state, run.error_code) for run in (await two.second.runs.list(session_id=str(session.id))).items]
    assert states == [("completed", None), ("failed", "INTERRUPTED")]


async def test_a_process_that_was_taken_for_dead_writes_nothing_any_more(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = asyncio.create_task(two.first.answer(app, session, {"wait": 0.5, "say": "too late"}))
    await two.is_asking()
    await two.first.parts.run_sql("UPDATE agent_runs SET state = 'failed', error_code = 'INTERRUPTED', finished_at = now()")
    assert (await failure_of(asking)).code == "INTERRUPTED"
    assert [role for role, _ in await two.second.said(session)] == ["user"]


async def test_a_run_is_cancelled_in_whatever_process_it_is(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent())
    asking = await two.begin(app, session, {"say": "First.", "call": [call("echo", text="x")]}, WAIT)
    run = await two.second.runs.cancel(str((await two.second.last_run(session)).id))
    assert (run.state, run.error_code) == ("cancelled", "RUN_CANCELLED")
    assert (await failure_of(asking)).code == "RUN_CANCELLED"

    async def left() -> int:
        return two.upstream.state.cancelled

    await eventually(left)
    assert await two.second.runs.cancel(str(run.id)) == run
    assert [event.kind for event in await two.second.told(run.id)].count("agent.run.cancelled") == 1
    for wrong in ("x", str(uuid4())):
        with pytest.raises(NotFound):
            await two.second.runs.cancel(wrong)


async def test_a_cancellation_that_was_not_heard_is_seen_a_moment_later(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = await two.begin(app, session, WAIT)
    await two.first.parts.run_sql("UPDATE agent_runs SET state = 'cancelled', error_code = 'RUN_CANCELLED', finished_at = now()")
    await two.first.runs.keep()
    assert (await failure_of(asking)).code == "RUN_CANCELLED"


async def test_the_keeper_fails_what_lost_its_process(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = await two.begin(app, session, WAIT)
    keeping = asyncio.create_task(two.second.runs.run_keeper())
    await two.lapse()

    async def state() -> str:
        return (await two.state(session))[0]

    await eventually(state, lambda found: found == "failed")
    keeping.cancel()
    await asyncio.wait([keeping])
    assert (await failure_of(asking)).code == "INTERRUPTED"


async def test_a_server_that_stops_fails_what_runs_as_interrupted(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    asking = await two.begin(app, session, WAIT)
    with anyio.fail_after(5):
        await two.first.runs.close()
    assert await two.state(session) == ("failed", "INTERRUPTED")
    assert isinstance(await failure_of(asking), Unavailable)
    assert isinstance(await failure_of(two.first.answer(app, session, {"say": "x"})), Unavailable)


async def test_a_run_of_a_task_is_done_once_and_its_answer_told_again(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    task_id = uuid4()
    message = script({"say": "Done."})
    first = await two.first.runs.carry_out(app, session.id, message, task_id=task_id)
    again = await two.second.runs.carry_out(app, session.id, message, task_id=task_id)
    assert (first.text, again.text, again.run_id, again.message_count) == ("Done.", "Done.", first.run_id, 2)
    assert (await two.second.runs.get(str(first.run_id))).task_id == task_id


Begin = Callable[..., Awaitable[tuple[Principal, Session, UUID, "asyncio.Task[Answer]"]]]


@pytest.fixture
def begin_task(two: Two) -> Begin:
    """Begin a run for a task in the first process."""

    async def begin(*steps: dict[str, Any], app: Principal | None = None) -> tuple[Principal, Session, UUID, "asyncio.Task[Answer]"]:
        caller = app or await two.first.app()
        session = await two.first.session(caller, await two.first.agent())
        task_id = uuid4()
        work = two.first.runs.carry_out(caller, session.id, script(*steps), task_id=task_id)
        return caller, session, task_id, asyncio.create_task(work)

    return begin


async def test_a_stopped_attempt_leaves_its_run_to_the_next_one(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task({"say": "First.", "call": [call("echo", text="x")]}, {"wait": 0.5, "say": "Last."})
    await two.has_told(session, "agent.tool.finished")
    attempt.cancel()
    await asyncio.wait([attempt])
    assert attempt.cancelled()
    assert await two.state(session) == ("running", None)
    answer = await two.second.runs.carry_out(app, session.id, "not said again", task_id=task_id)
    assert answer.text == "Last."
    [run] = (await two.second.runs.list(session_id=str(session.id))).items
    assert (run.state, run.id, run.turns) == ("completed", answer.run_id, 2)
    assert [role for role, _ in await two.second.said(session)] == ["user", "assistant", "tool", "assistant"]


async def test_the_model_is_asked_while_the_result_of_a_tool_is_written_and_a_stop_waits_for_it(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task({"call": [call("slow", seconds=1)]}, {"wait": 0.3, "say": "{results}"})
    run_id = await two.has_told(session, "agent.tool.started")
    async with two.second.parts.database.transaction() as connection:
        await connection.execute(text("LOCK TABLE agent_messages IN EXCLUSIVE MODE"))
        await eventually(two.times_asked, lambda found: found == 2)
        assert await two.written_of(run_id) == ["user", "assistant"]
        attempt.cancel()
        await asyncio.wait([attempt], timeout=0.2)
        assert not attempt.done()
    await asyncio.wait([attempt])
    assert await two.written_of(run_id) == ["user", "assistant", "tool"]
    answer = await two.second.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert answer.text not in ("", NO_RESULT)
    assert [each["outcome"] for each in await two.second.tool_parts.executed()] == ["ok"]


async def test_a_run_whose_result_could_not_be_written_says_so_before_its_answer(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent())
    asking = asyncio.create_task(two.first.answer(app, session, {"call": [call("slow", seconds=0.5)]}, {"say": "Never told."}))
    run_id = await two.has_told(session, "agent.tool.started")
    # Nobody tells the first process.
    await two.first.parts.run_sql("UPDATE agent_runs SET state = 'failed', error_code = 'INTERRUPTED', finished_at = now()")
    assert (await failure_of(asking)).code == "INTERRUPTED"
    assert await two.written_of(run_id) == ["user", "assistant"]
    assert [each["outcome"] for each in await two.second.tool_parts.executed()] == ["ok"]


async def test_a_server_that_stops_leaves_the_runs_of_tasks_to_others(two: Two, begin_task: Begin) -> None:
    _, session, _, attempt = await begin_task(WAIT)
    await two.is_asking()
    await two.first.runs.close()
    assert (await failure_of(attempt)).code == "INTERRUPTED"
    assert await two.state(session) == ("running", None)
    [(is_free,)] = await two.first.parts.run_sql("SELECT held_until <= now() FROM agent_runs")
    assert is_free


async def test_what_another_process_holds_is_waited_for(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task({"wait": 0.3, "say": "Mine."})
    await two.is_asking()
    with anyio.fail_after(5):
        answer = await two.second.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert (answer.text, answer.run_id) == ("Mine.", (await attempt).run_id)


async def test_a_call_that_may_have_taken_effect_is_not_made_again(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task(SLOW, {"say": "{results}"})
    await two.has_told(session, "agent.tool.started")
    await two.lapse()
    answer = await two.second.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert answer.text == NO_RESULT
    await two.first.runs.keep()
    assert (await failure_of(attempt)).code == "INTERRUPTED"
    assert await two.state(session) == ("completed", None)
    executed = await two.second.tool_parts.executed()
    assert [each["outcome"] for each in executed if each["tool"] == "slow"] == ["cancelled"]


async def test_a_call_that_does_no_harm_is_made_again(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task(
        {"call": [call("echo", text="again"), call("slow", seconds=60)]}, {"say": "{results}"}
    )
    run_id = await two.has_told(session, "agent.tool.finished")
    await two.lapse()
    # As if the process had died before the result of the harmless one was there.
    await two.first.parts.run_sql("DELETE FROM agent_messages WHERE role = 'tool' AND run_id = :run", run=run_id)
    answer = await two.second.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert answer.text == f"again\n{NO_RESULT}"
    attempt.cancel()
    await asyncio.wait([attempt])


async def test_a_cancelled_task_is_not_begun_again(two: Two, begin_task: Begin) -> None:
    app, session, task_id, attempt = await begin_task(WAIT)
    await two.is_asking()
    await two.second.runs.cancel(str((await two.second.last_run(session)).id))
    assert (await failure_of(attempt)).code == "RUN_CANCELLED"
    assert isinstance(await failure_of(two.second.runs.carry_out(app, session.id, "x", task_id=task_id)), Conflict)
    assert len((await two.second.runs.list(session_id=str(session.id))).items) == 1


async def test_an_attempt_after_one_that_failed_begins_anew(two: Two) -> None:
    app = await two.first.app()
    session = await two.first.session(app, await two.first.agent(tools=[]))
    task_id = uuid4()
    with pytest.raises(AppError):
        await two.first.runs.carry_out(app, session.id, script({"fail": 500}), task_id=task_id)
    assert (await two.second.runs.carry_out(app, session.id, script({"say": "ok"}), task_id=task_id)).text == "ok"
    assert [run.state for run in (await two.second.runs.list(session_id=str(session.id))).items] == ["completed", "failed"]
