"""What agents do to answer a message: the loop, its limits and its end, with a real database, a model server and an MCP server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from contract.upstream import RunningUpstream
from homeport.agents import Answer, Block, Chunk, RunStream, Thought
from homeport.errors import AppError, Conflict, Unavailable, UpstreamError, UpstreamTimeout
from homeport.tools import ServerDraft
from tests.integration.agent_parts import AgentParts, call, open_agents, script, steps_of
from tests.integration.parts import eventually

pytestmark = pytest.mark.anyio

ENDLESS = {"wait": 60, "say": "too late"}


@pytest.fixture
async def parts(database_url: str, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[AgentParts]:
    async with open_agents(database_url, tmp_path, upstream) as opened:
        yield opened


@pytest.fixture
async def with_tools(parts: AgentParts, own_url: str) -> AgentParts:
    await parts.add_tools(own_url)
    return parts


async def kinds(parts: AgentParts, session_id: str) -> list[str]:
    [run, *_] = (await parts.runs.list(session_id=session_id)).items
    return [event.kind.removeprefix("agent.") for event in await parts.told(run.id)]


async def is_open(parts: AgentParts, session_id: str) -> bool:
    return bool([run for run in (await parts.runs.list(session_id=session_id)).items if run.finished_at is None])


async def test_an_agent_answers_and_remembers(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app)
    first = await parts.runs.answer(app, str(session.id), "Hello")
    second = await parts.runs.answer(app, str(session.id), "Again")
    assert (first.text, first.message_count, first.provider, first.model) == ("You said: Hello", 2, "stand-in", "echo")
    assert (second.text, second.message_count) == ("You said: Again", 4)
    asked = [(message["role"], message["content"]) for message in upstream.state.last_request["messages"]]
    assert asked == [("user", "Hello"), ("assistant", "You said: Hello"), ("user", "Again")]
    assert await kinds(parts, str(session.id)) == ["run.started", "model.answered", "run.completed"]


async def test_instructions_come_first(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(model="echo", tools=[], instructions="Be brief."))
    await parts.runs.answer(app, str(session.id), "Hello")
    assert upstream.state.last_request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "tools" not in upstream.state.last_request


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_tools_are_used_and_every_step_is_told_and_written_in_order(with_tools: AgentParts, in_chunks: bool) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    message = script({"think": "Two.", "say": "Both.", "call": [call("echo", text="hi"), call("add", a=1, b=2)]}, {"say": "Got {results}"})
    steps = await steps_of(await parts.runs.stream(app, str(session.id), message, in_chunks=in_chunks))
    answer = steps[-1]
    assert isinstance(answer, Answer)
    assert answer.text == "Got hi\n3"
    assert answer.thoughts == ("Two.", "Both.", "Using echo …", "Using add …")
    assert [step.text for step in steps if isinstance(step, Thought)] == [*answer.thoughts]
    assert "".join(step.text for step in steps if isinstance(step, Chunk)) == ("Both.Got hi\n3" if in_chunks else "")
    used = sorted((block.data["tool"], block.data["server"], block.data["status"], block.data["output"]) for block in answer.blocks)
    assert used == [("add", "own", "ok", "3"), ("echo", "own", "ok", "hi")]
    assert [block.data["arguments"] for block in answer.blocks if block.data["tool"] == "add"] == [{"a": 1, "b": 2}]
    said = await parts.said(session)
    assert said[1:] == [("assistant", "Both."), ("tool", "hi"), ("tool", "3"), ("assistant", "Got hi\n3")]
    told = await kinds(parts, str(session.id))
    assert told[:4] == ["run.started", "model.answered", "tool.started", "tool.started"]
    assert told[4:] == ["tool.finished", "tool.finished", "model.answered", "run.completed"]
    run = await parts.last_run(session)
    assert (run.state, run.turns, run.tool_calls) == ("completed", 2, 2)
    assert (await parts.sessions.get(app, str(session.id))).message_count == 2


async def test_events_never_hold_what_was_said(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    await parts.answer(app, session, {"call": [call("echo", text="SECRET-1")]}, {"say": "SECRET-2"})
    rows = await parts.parts.run_sql("SELECT data::text FROM events")
    assert not [row for (row,) in rows if "SECRET" in row]


async def test_rich_content_of_tools_becomes_blocks(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    answer = await parts.answer(
        app, session, {"call": [call("picture")]}, {"call": [call("move", point={"x": 1, "y": 2}, by=3)]}, {"say": "ok"}
    )
    blocks = [(block.data_type, dict(block.data)) for block in answer.blocks if block.data_type != "toolUse"]
    assert [kind for kind, _ in blocks] == ["image", "json"]
    assert blocks[0][1]["mimeType"] == "image/gif"
    assert blocks[1][1] == {"x": 4, "y": 5}


async def test_parallel_calls_run_at_the_same_time(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    calls = [call("slow", seconds=0.3, name=str(number)) for number in range(3)]
    await parts.answer(app, session, {"call": [call("echo", text="warm")]}, {"call": calls}, {"say": "ok"})
    told = await kinds(parts, str(session.id))
    assert told.count("tool.finished") == 4
    starts = [event.created_at for event in await parts.told((await parts.last_run(session)).id) if event.kind == "agent.tool.started"][1:]
    ends = [event.created_at for event in await parts.told((await parts.last_run(session)).id) if event.kind == "agent.tool.finished"][1:]
    assert max(starts) < min(ends)
    executed = await parts.tool_parts.all_events("tool.executed")
    spans = [(event.created_at.timestamp() - event.data["duration_ms"] / 1000, event.created_at.timestamp()) for event in executed[:3]]
    assert max(start for start, _ in spans) < min(end for _, end in spans)


async def test_what_a_model_does_wrong_is_told_to_it(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    wrong = [call("nothing"), {"tool": "echo", "arguments": '{"text": '}, call("echo", other=1)]
    answer = await parts.answer(app, session, {"call": wrong}, {"say": "{results}"})
    assert "There is no tool 'nothing'. The tools are: own__add, " in answer.text
    assert "The arguments are not a JSON object." in answer.text
    assert "'text' is missing" in answer.text or "text" in answer.text
    assert [block.data["status"] for block in answer.blocks] == ["error"] * 3


@pytest.mark.parametrize("model", ["script-noid", "script-object", "script-atonce", "script-again", "script-stop"])
@pytest.mark.parametrize("in_chunks", [False, True])
async def test_whatever_way_calls_are_written_each_has_an_id_of_its_own(with_tools: AgentParts, model: str, in_chunks: bool) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(model=model))
    twice = {"call": [call("add", a=1, b=1), call("add", a=2, b=2)]}
    await steps_of(await parts.runs.stream(app, str(session.id), script(twice, twice, {"say": "{results}"}), in_chunks=in_chunks))
    messages = await parts.runs.messages(str((await parts.last_run(session)).id))
    ids = [each["id"] for message in messages for each in message.content.get("tool_calls", ())]
    assert len(set(ids)) == 4
    assert messages[-1].content["content"] == "2\n4\n2\n4"


async def test_a_tool_that_fails_three_times_in_a_row_is_switched_off(with_tools: AgentParts, upstream: RunningUpstream) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    failing = {"call": [call("own__fail")]}
    answer = await parts.answer(app, session, failing, failing, {"call": [call("echo", text="x")]}, failing, failing, {"say": "ok"})
    results = [block.data["output"] for block in answer.blocks if block.data["tool"].endswith("fail")]
    assert "switched off" in results[2]
    assert "switched off for the rest of this answer, because" in results[3]
    assert "own__fail" not in [each["function"]["name"] for each in upstream.state.last_request["tools"]]
    executed = [each["tool"] for each in await parts.tool_parts.executed()]
    assert executed.count("fail") == 3


async def test_the_last_turn_is_without_tools(with_tools: AgentParts, upstream: RunningUpstream) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(limits={"turns": 3}))
    answer = await parts.answer(app, session, {"call": [call("echo", text="again")]})
    assert (await parts.last_run(session)).turns == 3
    assert "again" in answer.text
    asked = upstream.state.last_request
    assert "tools" not in asked
    assert "no more tools can be used" in asked["messages"][0]["content"]


async def test_a_run_that_takes_too_many_tokens_fails(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(limits={"tokens": 20}))
    with pytest.raises(UpstreamError) as caught:
        await parts.answer(app, session, {"call": [call("echo", text="a b c d e f g h i j k l m n o p")]}, {"say": "never"})
    assert caught.value.code == "AGENT_TOKEN_LIMIT"
    run = await parts.last_run(session)
    assert (run.state, run.error_code, run.error) == ("failed", "AGENT_TOKEN_LIMIT", caught.value.message)
    assert [role for role, _ in await parts.said(session)] == ["user", "assistant", "tool"]


async def test_a_run_that_takes_too_long_fails(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[], limits={"time_s": 0.2}))
    with pytest.raises(UpstreamTimeout) as caught:
        await parts.answer(app, session, ENDLESS)
    assert caught.value.code == "AGENT_TIMEOUT"
    assert (await parts.last_run(session)).error_code == "AGENT_TIMEOUT"
    await eventually(lambda: _count(upstream), lambda count: count == 1)


async def _count(upstream: RunningUpstream) -> int:
    return upstream.state.cancelled


async def test_a_tool_that_takes_too_long_is_an_error_for_the_model(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(limits={"tool_time_s": 2}))
    answer = await parts.answer(
        app, session, {"call": [call("slow", seconds=60, name="late")]}, {"call": [call("cancelled")]}, {"say": "{results}"}
    )
    assert [block.data["status"] for block in answer.blocks if block.data_type == "toolUse"] == ["error", "ok"]
    assert "late" in answer.text


async def test_a_long_result_is_cut_with_a_note(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(limits={"result_chars": 1000}))
    await parts.answer(app, session, {"call": [call("huge", megabytes=1)]}, {"say": "ok"})
    result = (await parts.said(session))[2][1]
    assert len(result) < 1100
    assert result.endswith("more characters are left out]")


async def test_a_model_without_tool_calling_still_chats(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(model="script-notools"))
    assert (await parts.answer(app, session, {"say": "Hello", "call": [call("echo", text="x")]})).text == "Hello"


async def test_a_conversation_that_is_too_long_for_the_model_is_cut_and_sent_again(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    for number in range(10):
        await parts.answer(app, session, {"say": f"{number} " * 400})
    before = len(upstream.state.last_request["messages"])
    with pytest.raises(AppError):
        await parts.answer(app, session, {"fail": "context"})
    assert len(upstream.state.last_request["messages"]) < before
    assert (await parts.answer(app, session, {"say": "still there"})).text == "still there"


async def test_what_the_model_raises_ends_the_run(parts: AgentParts) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(model="401", tools=[]))
    with pytest.raises(Unavailable) as caught:
        await parts.runs.answer(app, str(session.id), "Hello")
    run = await parts.last_run(session)
    assert (run.state, run.error_code) == ("failed", caught.value.code)
    assert await kinds(parts, str(session.id)) == ["run.started", "run.failed"]


async def test_of_two_messages_at_once_one_is_refused(parts: AgentParts) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    ask = [parts.answer(app, session, {"wait": 0.3, "say": "done"}) for _ in range(2)]
    results = await asyncio.gather(*ask, return_exceptions=True)
    [answer] = [each for each in results if isinstance(each, Answer)]
    [refused] = [each for each in results if isinstance(each, Conflict)]
    assert (answer.text, refused.code) == ("done", "SESSION_BUSY")
    assert answer.message_count == 2


async def test_messages_in_a_row_from_several_sides_are_answered_or_refused(parts: AgentParts) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(model="instant", tools=[]))

    async def send() -> list[str]:
        told = []
        for _ in range(25):
            try:
                told.append((await parts.runs.answer(app, str(session.id), "Hello")).text)
            except AppError as error:
                told.append(error.code)
        return told

    results = [each for told in await asyncio.gather(send(), send(), send()) for each in told]
    answers = [each for each in results if each != "SESSION_BUSY"]
    assert len(set(answers)) == 1
    assert (await parts.sessions.get(app, str(session.id))).message_count == 2 * len(answers)
    roles = await parts.parts.run_sql("SELECT role FROM agent_messages ORDER BY id")
    assert [role for (role,) in roles] == ["user", "assistant"] * len(answers)


async def test_who_leaves_a_stream_cancels_the_run(parts: AgentParts, upstream: RunningUpstream) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    stream = await parts.runs.stream(app, str(session.id), script(ENDLESS))
    await eventually(lambda: _open(upstream), lambda count: count == 1)
    with anyio.fail_after(1):
        await stream.aclose()
    run = await parts.last_run(session)
    assert (run.state, run.error_code) == ("cancelled", "RUN_CANCELLED")
    await eventually(lambda: _count(upstream), lambda count: count == 1)
    assert await kinds(parts, str(session.id)) == ["run.started", "run.cancelled"]
    assert (await parts.answer(app, session, {"say": "again"})).text == "again"


async def _open(upstream: RunningUpstream) -> int:
    return upstream.state.open


async def test_who_is_cancelled_while_waiting_for_an_answer_cancels_the_run(with_tools: AgentParts) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent())
    steps = ({"say": "First.", "call": [call("echo", text="x")]}, {"call": [call("slow", seconds=60, name="left")]})
    asking = asyncio.create_task(parts.answer(app, session, *steps))
    await eventually(lambda: kinds_or_none(parts, str(session.id)), lambda told: told.count("tool.started") == 2)
    asking.cancel()
    await asyncio.wait([asking])
    assert (await parts.last_run(session)).state == "cancelled"
    assert [role for role, _ in await parts.said(session)] == ["user", "assistant", "tool", "assistant"]

    async def names() -> str:
        output = await parts.tools.execute(app, "own", "cancelled")
        return str(output.content)

    await eventually(names, lambda told: "left" in told)


async def kinds_or_none(parts: AgentParts, session_id: str) -> list[str]:
    return await kinds(parts, session_id) if (await parts.runs.list(session_id=session_id)).items else []


async def test_a_run_that_goes_on_does_not_need_its_reader(parts: AgentParts) -> None:
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=[]))
    stream = await parts.runs.stream(app, str(session.id), script({"wait": 0.2, "say": "done"}), goes_on=True)
    await stream.aclose()
    assert await is_open(parts, str(session.id))
    await eventually(lambda: is_open(parts, str(session.id)), lambda still: not still)
    assert (await parts.said(session))[-1] == ("assistant", "done")


async def test_a_server_that_cannot_start_is_left_out_with_a_word(with_tools: AgentParts) -> None:
    parts = with_tools
    await parts.tools.servers.add(ServerDraft("broken", command="/nonexistent-program"))
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=["*"]))
    answer = await parts.answer(app, session, {"call": [call("echo", text="hi")]}, {"say": "{results}"})
    assert answer.text == "hi"
    assert answer.thoughts[0].startswith("The tools of 'broken' cannot be used now:")


async def test_only_the_tools_of_the_patterns_are_offered(with_tools: AgentParts, upstream: RunningUpstream) -> None:
    parts = with_tools
    app = await parts.app()
    session = await parts.session(app, await parts.agent(tools=["own/add", "own/files/read.v2", "gone/*"]))
    answer = await parts.answer(app, session, {"call": [call("own__files_read_v2", path="a")]}, {"say": "{results}"})
    assert answer.text == "content of a"
    assert answer.thoughts[0] == "The tools of 'gone/*' are not there."
    assert [each["function"]["name"] for each in upstream.state.last_request["tools"]] == ["own__add", "own__files_read_v2"]


async def test_where_nothing_happens_silence_says_so() -> None:
    async def leave() -> None:
        return None

    stream = RunStream(uuid4(), leave, silence_s=0.01)
    assert type(await anext(stream)).__name__ == "Silence"
    stream.put(Chunk("a"))
    stream.put(Chunk("b"))
    stream.put(Block("json", {}))
    stream.end(Conflict("over"))
    assert await anext(stream) == Chunk("ab")
    assert await anext(stream) == Block("json", {})
    with pytest.raises(Conflict):
        await anext(stream)
