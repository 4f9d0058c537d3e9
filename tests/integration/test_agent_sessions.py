"""Conversations: whose they are, where, for how long, and that any process continues any of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.upstream import RunningUpstream
from homeport.agents import Answer
from homeport.agents.asking import ANSWER_SHARE
from homeport.agents.context import DEFAULT_WINDOW, LEFT_OUT, estimate
from homeport.errors import AppError, Conflict, NotFound
from tests.integration.agent_parts import AgentParts, open_agents, script
from tests.integration.parts import eventually, key_principal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def parts(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[AgentParts]:
    async with open_agents(database_url, tmp_path, upstream) as opened:
        yield opened


async def grow_older(parts: AgentParts, table: str, column: str, by: str) -> None:
    await parts.parts.run_sql(f"UPDATE {table} SET {column} = {column} - CAST(:by AS interval)", by=by)


async def test_the_defaults_are_the_default_agent_the_default_workspace_and_no_thread(parts: AgentParts) -> None:
    session = await parts.sessions.create(await parts.app(), workspace="", thread="", agent="")
    assert (session.agent.slug, session.workspace, session.workspace_name, session.thread) == ("@agent", "default", "Default", None)
    assert (session.message_count, session.last_message_at, session.state) == (0, None, "open")
    assert await parts.sessions.model_of(session) == ("stand-in", "echo")


async def test_a_session_is_in_a_workspace_and_a_thread_of_it(parts: AgentParts) -> None:
    app = await parts.app()
    await parts.workspaces.create("Work")
    thread = await parts.workspaces.create_thread("work", "Plans")
    session = await parts.sessions.create(app, workspace="work", thread=thread.slug)
    assert (session.workspace, session.thread, session.thread_name) == ("work", "plans", "Plans")
    made = [await parts.sessions.create(app, workspace="work", thread="create_new") for _ in range(2)]
    assert len({each.thread for each in made}) == 2
    assert {each.slug for each in (await parts.workspaces.list_threads("work"))[1]} == {"plans", *(each.thread for each in made)}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"agent": "nobody"}, "AGENT_NOT_FOUND"),
        ({"workspace": "nowhere"}, "WORKSPACE_NOT_FOUND"),
        ({"thread": "none"}, "THREAD_NOT_FOUND"),
        ({"workspace": "work", "thread": "general"}, "THREAD_NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_not_found(parts: AgentParts, asked: dict[str, str], code: str) -> None:
    await parts.workspaces.create("Work")
    with pytest.raises(NotFound) as caught:
        await parts.sessions.create(await parts.app(), **asked)
    assert caught.value.code == code


async def test_an_owner_sees_its_own_sessions_alone(parts: AgentParts) -> None:
    mine, other = await parts.app("Mine"), await parts.app("Other")
    session = await parts.session(mine)
    assert (await parts.sessions.get(mine, str(session.id))).id == session.id
    for stranger in (other, key_principal(other.id)):
        with pytest.raises(NotFound):
            await parts.sessions.get(stranger, str(session.id))
        with pytest.raises(NotFound):
            await parts.sessions.close(stranger, str(session.id))
        with pytest.raises(NotFound):
            await parts.runs.answer(stranger, str(session.id), "Hello")
    for wrong in ("", "x", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFound):
            await parts.runs.answer(mine, wrong, "Hello")
    assert (await parts.runs.list()).items == []


async def test_a_closed_session_is_gone_and_what_is_done_in_it_ends(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    asking = asyncio.create_task(parts.answer(app, session, {"wait": 60, "say": "never"}))

    async def is_asked() -> bool:
        return upstream.state.open == 1

    await eventually(is_asked)
    assert (await parts.sessions.close(app, str(session.id))).state == "open"
    with pytest.raises(Conflict) as caught:
        await asking
    assert caught.value.code == "RUN_CANCELLED"
    with pytest.raises(NotFound):
        await parts.sessions.get(app, str(session.id))
    with pytest.raises(NotFound) as missing:
        await parts.answer(app, session, {"say": "x"})
    assert missing.value.code == "SESSION_NOT_FOUND"
    assert [each.state for each in (await parts.sessions.list()).items] == ["closed"]


async def test_sessions_are_closed_at_any_moment_of_a_run(parts: AgentParts) -> None:
    app = await parts.app()
    agent = await parts.agent(model="instant", tools=[])

    async def end_in_the_middle(delay_s: float) -> None:
        session = await parts.session(app, agent)
        asking = asyncio.create_task(parts.runs.answer(app, str(session.id), "Hello"))
        await asyncio.sleep(delay_s)
        await parts.sessions.close(app, str(session.id))
        [result] = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(result, Answer) or (isinstance(result, AppError) and result.code in ("RUN_CANCELLED", "SESSION_NOT_FOUND"))

    for number in range(40):
        await end_in_the_middle(number / 8000)
    states = await parts.parts.run_sql("SELECT DISTINCT state FROM agent_runs")
    assert {state for (state,) in states} <= {"completed", "cancelled"}


async def test_an_idle_session_expires_after_an_hour(parts: AgentParts) -> None:
    app = await parts.app()
    session = await parts.session(app)
    await parts.runs.answer(app, str(session.id), "Hello")
    await grow_older(parts, "agent_sessions", "last_active_at", "59 minutes")
    await parts.runs.answer(app, str(session.id), "Again")
    await grow_older(parts, "agent_sessions", "last_active_at", "61 minutes")
    with pytest.raises(NotFound):
        await parts.sessions.get(app, str(session.id))
    with pytest.raises(NotFound):
        await parts.runs.answer(app, str(session.id), "Too late")
    assert [each.state for each in (await parts.sessions.list(owner_id=app.id, agent="@agent")).items] == ["expired"]


async def test_old_sessions_are_removed_with_what_was_said(parts: AgentParts) -> None:
    app = await parts.app()
    old, new = await parts.session(app), await parts.session(app)
    for session in (old, new):
        await parts.runs.answer(app, str(session.id), "Hello")
    statement = "UPDATE agent_sessions SET last_active_at = now() - interval '91 days' WHERE id = :id"
    await parts.parts.run_sql(statement, id=old.id)
    assert await parts.sessions.remove_old() == 1
    assert [each.id for each in (await parts.sessions.list()).items] == [new.id]
    assert await parts.parts.run_sql("SELECT count(*) FROM agent_messages") == [(2,)]


async def test_any_process_continues_any_session(parts: AgentParts, database_url: str, tmp_path: Path, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app)
    async with open_agents(database_url, tmp_path / "other", upstream) as other:
        await parts.runs.answer(app, str(session.id), "One")
        await other.runs.answer(app, str(session.id), "Two")
        answer = await parts.runs.answer(app, str(session.id), "Three")
        assert answer.message_count == 6
    asked = [message["content"] for message in upstream.state.last_request["messages"]]
    assert asked == ["One", "You said: One", "Two", "You said: Two", "Three"]


async def test_of_two_processes_one_is_refused_while_the_other_answers(
    parts: AgentParts, database_url: str, tmp_path: Path, upstream: RunningUpstream
) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    async with open_agents(database_url, tmp_path / "other", upstream) as other:
        stream = await parts.runs.stream(app, str(session.id), script({"wait": 0.3, "say": "done"}))
        with pytest.raises(Conflict) as caught:
            await other.answer(app, session, {"say": "x"})
        assert caught.value.code == "SESSION_BUSY"
        assert (await stream.answer()).text == "done"
        assert (await other.answer(app, session, {"say": "now"})).text == "now"


async def test_a_long_history_is_read_as_far_as_the_model_can_be_shown_it(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app)
    for number in range(130):
        await parts.runs.answer(app, str(session.id), f"Message {number}")
    asked = [message["content"] for message in upstream.state.last_request["messages"]]
    assert len(asked) == 259
    assert (asked[0], asked[-1]) == ("Message 0", "Message 129")
    # Far more than fits: the newest of it, without a gap, and as much as there is room for.
    statement = """
        INSERT INTO agent_messages (session_id, run_id, role, content)
        SELECT session_id, id, role, json_build_object('role', role, 'content', 'Note ' || number)
        FROM (SELECT session_id, id FROM agent_runs WHERE session_id = :session LIMIT 1) AS run, generate_series(0, 1999) AS number,
        LATERAL (SELECT CASE WHEN number % 2 = 0 THEN 'user' ELSE 'assistant' END) AS spoken (role)
    """
    await parts.parts.run_sql(statement, session=session.id)
    await parts.runs.answer(app, str(session.id), "The last")
    told, *notes, last = upstream.state.last_request["messages"]
    assert (told["content"], last["content"]) == (LEFT_OUT, "The last")
    assert [each["content"] for each in notes] == [f"Note {number}" for number in range(2000 - len(notes), 2000)]
    assert 0.95 < estimate(upstream.state.last_request["messages"]) / (DEFAULT_WINDOW * (1 - ANSWER_SHARE)) <= 1
