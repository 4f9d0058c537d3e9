"""Runs that wait for a person before a tool is used."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from contract.upstream import RunningUpstream
from homeport.agents import Answer, Session
from homeport.agents.context import NO_RESULT
from homeport.agents.runs import Timing
from homeport.agents.stored_approvals import Approval
from homeport.identity import Principal
from tests.integration.agent_parts import AgentParts, call, open_agents, script
from tests.integration.parts import eventually, key_principal

pytestmark = pytest.mark.anyio

ECHO = {"call": [call("echo", text="allowed")]}
ADD = {"call": [call("add", a=1, b=2)]}
TELL = {"say": "{results}"}


@pytest.fixture
async def parts(database_url: str, tmp_path: Path, upstream: RunningUpstream, own_url: str) -> AsyncIterator[AgentParts]:
    async with open_agents(database_url, tmp_path, upstream, timing=Timing(look=0.02)) as opened:
        await opened.add_tools(own_url)
        yield opened


async def ask(parts: AgentParts, *steps: dict[str, Any], **limits: Any) -> tuple[Principal, Session, "asyncio.Task[Answer]"]:
    """Have an agent of an app that was granted no tools do something."""
    app = await parts.app("App", "agent.chat")
    session = await parts.session(app, await parts.agent(limits=limits))
    return app, session, asyncio.create_task(parts.answer(app, session, *steps))


async def pending(parts: AgentParts, number: int = 1) -> list[Approval]:
    """The open questions, when there are so many."""

    async def read() -> list[Approval]:
        return (await parts.approvals.list(state="pending")).items

    return await eventually(read, lambda found: len(found) == number)


async def state_is(parts: AgentParts, session: Session, wanted: str) -> None:
    async def read() -> str:
        return str((await parts.last_run(session)).state)

    await eventually(read, lambda found: found == wanted)


def statuses(answer: Answer) -> list[str]:
    return [block.data["status"] for block in answer.blocks if block.data_type == "toolUse"]


async def test_a_granted_call_is_made_once(parts: AgentParts) -> None:
    _, session, asking = await ask(parts, ECHO, TELL)
    [approval] = await pending(parts)
    assert (approval.server, approval.tool, approval.arguments) == ("own", "echo", '{"text":"allowed"}')
    await state_is(parts, session, "waiting")
    await parts.approvals.decide(str(approval.id), "granted", "test")
    answer = await asking
    assert answer.text == "allowed"
    assert statuses(answer) == ["ok"]
    assert answer.thoughts == ("Using echo …", f"Waiting for a person to allow own/echo: homeport approvals grant {approval.id}")
    assert (await parts.approvals.get(str(approval.id))).used_at is not None
    told = [event.kind.removeprefix("agent.") for event in await parts.told(answer.run_id)]
    assert told[2:6] == ["tool.started", "approval.requested", "approval.decided", "tool.finished"]


async def test_what_is_refused_is_told_to_the_model(parts: AgentParts) -> None:
    _, _, asking = await ask(parts, ECHO, TELL)
    [approval] = await pending(parts)
    await parts.approvals.decide(str(approval.id), "denied", "test")
    answer = await asking
    assert statuses(answer) == ["denied"]
    assert "A person has refused this call" in answer.text
    assert "echo" not in [each["tool"] for each in await parts.tool_parts.executed() if each["outcome"] == "ok"]


async def test_what_nobody_decides_expires_and_the_run_goes_on(parts: AgentParts) -> None:
    _, _, asking = await ask(parts, ECHO, TELL, approval_s=0.2)
    answer = await asking
    assert statuses(answer) == ["expired"]
    assert "Nobody has allowed this call in time" in answer.text


async def test_the_clock_of_the_run_stands_still_while_a_person_is_waited_for(parts: AgentParts) -> None:
    await parts.tools.list(None, "own")
    _, _, asking = await ask(parts, ECHO, TELL, time_s=1, approval_s=1.5)
    assert statuses(await asking) == ["expired"]


async def test_a_call_beside_one_that_waits_is_made_at_once(parts: AgentParts) -> None:
    _, session, asking = await ask(
        parts, {"call": [call("echo", text="waits"), {"tool": "nothing", "arguments": {}}, call("add", a=1, b=2)]}, TELL
    )
    echo, add = sorted(await pending(parts, 2), key=lambda each: each.tool, reverse=True)
    await parts.approvals.decide(str(add.id), "granted", "test")

    async def results() -> list[str]:
        return [text for role, text in await parts.said(session) if role == "tool"]

    await eventually(results, lambda found: "3" in found)
    assert (await parts.last_run(session)).state == "waiting"
    await parts.approvals.decide(str(echo.id), "granted", "test")
    answer = await asking
    first, *_, last = answer.text.splitlines()
    assert (first, last) == ("waits", "3")


async def test_who_gets_the_permission_meanwhile_need_not_wait(parts: AgentParts) -> None:
    app, _, asking = await ask(parts, ECHO, ECHO, TELL)
    [approval] = await pending(parts)
    await parts.parts.permissions.set_grant(app.id, approval.permission, "granted", "test")
    assert (await asking).text == "allowed\nallowed"
    assert len((await parts.approvals.list()).items) == 1


async def test_a_rule_of_the_agent_asks_also_for_a_key(parts: AgentParts) -> None:
    agent = await parts.agent()
    await parts.tools.rules.set(f"agent:{agent.slug}", "own", "echo", "ask", by="test")
    key = key_principal(uuid4())
    session = await parts.session(key, agent)
    asking = asyncio.create_task(parts.answer(key, session, ECHO, TELL))
    [approval] = await pending(parts)
    await parts.approvals.decide(str(approval.id), "granted", "test")
    assert (await asking).text == "allowed"


async def test_a_cancelled_run_asks_nobody_any_more(parts: AgentParts) -> None:
    _, session, asking = await ask(parts, ECHO, TELL)
    [approval] = await pending(parts)
    asking.cancel()
    await asyncio.wait([asking])
    assert (await parts.last_run(session)).state == "cancelled"
    assert (await parts.approvals.get(str(approval.id))).state == "expired"


@pytest.fixture
async def other(database_url: str, tmp_path: Path, upstream: RunningUpstream, parts: AgentParts) -> AsyncIterator[AgentParts]:
    """Another process on the same database; it is opened after the first one."""
    async with open_agents(database_url, tmp_path / "other", upstream, timing=Timing(look=0.02)) as opened:
        yield opened


async def begin_task(parts: AgentParts) -> tuple[Principal, Session, UUID, "asyncio.Task[Answer]", Approval]:
    """A run for a task that waits for a person."""
    app = await parts.app("App", "agent.chat")
    session = await parts.session(app, await parts.agent())
    task_id = uuid4()
    attempt = asyncio.create_task(parts.runs.carry_out(app, session.id, script(ADD, TELL), task_id=task_id))
    [approval] = await pending(parts)
    await state_is(parts, session, "waiting")
    return app, session, task_id, attempt, approval


async def stop(attempt: "asyncio.Task[Answer]") -> None:
    attempt.cancel()
    await asyncio.wait([attempt])


async def test_a_question_outlives_the_process_that_asked(parts: AgentParts, other: AgentParts) -> None:
    app, session, task_id, attempt, approval = await begin_task(parts)
    await stop(attempt)
    assert [each.id for each in (await other.approvals.list(state="pending")).items] == [approval.id]
    going_on = asyncio.create_task(other.runs.carry_out(app, session.id, "x", task_id=task_id))
    await state_is(other, session, "waiting")
    await parts.approvals.decide(str(approval.id), "granted", "test")
    assert (await going_on).text == "3"
    assert len((await other.approvals.list()).items) == 1


async def test_what_was_granted_meanwhile_is_done_by_the_next_process(parts: AgentParts, other: AgentParts) -> None:
    app, session, task_id, attempt, approval = await begin_task(parts)
    await stop(attempt)
    await other.approvals.decide(str(approval.id), "granted", "test")
    assert (await other.runs.carry_out(app, session.id, "x", task_id=task_id)).text == "3"


async def test_what_was_denied_meanwhile_is_told_by_the_next_process(parts: AgentParts, other: AgentParts) -> None:
    app, session, task_id, attempt, approval = await begin_task(parts)
    await stop(attempt)
    await other.approvals.decide(str(approval.id), "denied", "test")
    answer = await other.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert statuses(answer) == ["denied"]


async def test_a_granted_call_that_was_begun_is_not_made_again(parts: AgentParts, other: AgentParts) -> None:
    app, session, task_id, attempt, approval = await begin_task(parts)
    await stop(attempt)
    await other.approvals.decide(str(approval.id), "granted", "test")
    assert await other.approvals.mark_used(approval.id)
    answer = await other.runs.carry_out(app, session.id, "x", task_id=task_id)
    assert answer.text == NO_RESULT
