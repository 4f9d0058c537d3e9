"""Tool calling through both transports: the same calls, however a server writes them, and the same ways out where it takes no tools."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest

from adapters.chat import ContextTooLong, Delta, Finish, ToolCall, ToolSpec
from adapters.tool_calls import MAX_CALLS
from contract.upstream import RunningUpstream
from homeport.errors import AppError, Unavailable, UpstreamError
from tests.integration.sides import LIBRARY_WARNINGS, TRANSPORTS, Side, open_side

pytestmark = [pytest.mark.anyio, LIBRARY_WARNINGS]

PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
TOOLS = (ToolSpec("files__read", "Read a file.", PATH), ToolSpec("clock__now", "The time.", {"type": "object", "properties": {}}))
CALL = {"tool": "read", "arguments": {"path": "notes/ä.txt"}}
ARGUMENTS = CALL["arguments"]
WAYS = ["script", "script-noid", "script-object", "script-atonce", "script-again", "script-stop", "script-noid-atonce", "script-noid-again"]


@pytest.fixture(params=TRANSPORTS)
async def side(request: pytest.FixtureRequest, upstream: RunningUpstream) -> AsyncIterator[Side]:
    async for side in open_side(request.param, upstream, chat_timeout_s=60, stream_idle_s=60):
        yield side


def saying(*steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"script: {orjson.dumps(steps).decode()}"}]


def history(content: str = "It is empty.") -> list[dict[str, Any]]:
    """A conversation in which a tool was called, with a script that tells what the tool answered."""
    call = {"id": "call_1", "type": "function", "function": {"name": "files__read", "arguments": '{"path":"a"}'}}
    return [
        *saying({"call": [CALL]}, {"say": "It says: {results}"}),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    ]


async def ask(side: Side, is_stream: bool, model: str, messages: list[dict[str, Any]], **options: Any) -> tuple[str, Any]:
    """The text of the answer, and the result or the end of the stream."""
    options = {"tools": TOOLS} | options
    if not is_stream:
        result = await side.chat(model, messages, **options)
        return result.content, result
    *pieces, last = await side.stream(model, messages, **options)
    assert isinstance(last, Finish)
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta)), last


def read(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, orjson.loads(call.arguments)) for call in calls]


whole_and_streamed = pytest.mark.parametrize("is_stream", [False, True])


@whole_and_streamed
async def test_tools_and_the_choice_reach_the_provider_and_only_when_there_are_any(side: Side, is_stream: bool) -> None:
    await ask(side, is_stream, "script", saying({"say": "ok"}), tool_choice="required")
    sent = side.upstream.state.last_request
    function = {"name": "files__read", "description": "Read a file.", "parameters": PATH}
    assert sent["tools"][0] == {"type": "function", "function": function}
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["files__read", "clock__now"]
    assert sent["tool_choice"] == "required"
    await ask(side, is_stream, "script", saying({"say": "ok"}))
    assert "tool_choice" not in side.upstream.state.last_request
    await ask(side, is_stream, "script", saying({"say": "ok"}), tools=(), tool_choice="auto")
    assert not {"tools", "tool_choice"} & set(side.upstream.state.last_request)


@whole_and_streamed
@pytest.mark.parametrize("model", WAYS)
async def test_calls_are_the_same_however_a_server_writes_them(side: Side, is_stream: bool, model: str) -> None:
    text, end = await ask(side, is_stream, model, saying({"say": "One moment.", "call": [CALL, {"tool": "now"}, CALL]}))
    assert text == "One moment."
    assert read(end.tool_calls) == [("files__read", ARGUMENTS), ("clock__now", {}), ("files__read", ARGUMENTS)]
    assert len({call.id for call in end.tool_calls}) == 3
    assert all(call.id for call in end.tool_calls)
    assert end.usage.completion_tokens > 0


@whole_and_streamed
async def test_the_ids_are_those_of_the_provider(side: Side, is_stream: bool) -> None:
    _, end = await ask(side, is_stream, "script", saying({"call": [CALL, CALL]}))
    assert [call.id for call in end.tool_calls] == ["call_1_0", "call_1_1"]


@whole_and_streamed
async def test_calls_without_a_text_are_a_good_answer(side: Side, is_stream: bool) -> None:
    text, end = await ask(side, is_stream, "script", saying({"call": [CALL]}))
    assert text == ""
    assert read(end.tool_calls) == [("files__read", ARGUMENTS)]


@whole_and_streamed
async def test_a_name_that_was_not_offered_and_broken_arguments_are_passed_on(side: Side, is_stream: bool) -> None:
    calls = [{"tool": "weather.today"}, {"tool": "read", "arguments": '{"path": "no'}]
    _, end = await ask(side, is_stream, "script", saying({"call": calls}))
    assert [(call.name, call.arguments) for call in end.tool_calls] == [("weather.today", "{}"), ("files__read", '{"path": "no')]


@whole_and_streamed
async def test_many_calls_at_once_are_taken_and_too_many_are_a_bad_answer(side: Side, is_stream: bool) -> None:
    _, end = await ask(side, is_stream, "script", saying({"call": [{**CALL, "times": 40}]}))
    assert read(end.tool_calls) == [("files__read", ARGUMENTS)] * 40
    with pytest.raises(UpstreamError, match=f"called more than {MAX_CALLS} tools at once") as caught:
        await ask(side, is_stream, "script", saying({"call": [{**CALL, "times": MAX_CALLS + 1}]}))
    assert caught.value.code == "LLM_ERROR"


@whole_and_streamed
async def test_arguments_that_are_too_long_are_a_bad_answer(side: Side, is_stream: bool) -> None:
    messages = saying({"call": [{"tool": "read", "arguments": {"path": "x" * 300_000}}]})
    with pytest.raises(UpstreamError, match="arguments that are too long"):
        await ask(side, is_stream, "script-atonce", messages)


@whole_and_streamed
@pytest.mark.parametrize("model", ["script", "script-reasoning"])
async def test_reasoning_is_collected_beside_the_answer(side: Side, is_stream: bool, model: str) -> None:
    text, end = await ask(side, is_stream, model, saying({"think": "The file has to be read first.", "say": "Well.", "call": [CALL]}))
    assert (text, end.reasoning) == ("Well.", "The file has to be read first.")
    assert len(end.tool_calls) == 1
    text, end = await ask(side, is_stream, model, saying({"think": "Easy.", "say": "Done."}), tools=())
    assert (text, end.reasoning, end.tool_calls) == ("Done.", "Easy.", ())


@whole_and_streamed
async def test_results_go_back_as_they_are(side: Side, is_stream: bool) -> None:
    text, end = await ask(side, is_stream, "script", history())
    assert (text, end.tool_calls) == ("It says: It is empty.", ())
    sent = side.upstream.state.last_request["messages"]
    assert sent[1]["tool_calls"] == history()[1]["tool_calls"]
    assert sent[2] == history()[2]


@whole_and_streamed
@pytest.mark.parametrize("model", ["script-notools", "script-notools-vllm", "script-notools-openai", "script-notools-strict"])
async def test_a_model_that_refuses_tools_is_asked_without_them_from_then_on(side: Side, is_stream: bool, model: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    text, end = await ask(side, is_stream, model, messages, tool_choice="auto")
    assert (text, end.tool_calls) == ("You said: hi", ())
    assert not {"tools", "tool_choice"} & set(side.upstream.state.last_request)
    asked = side.upstream.state.finished
    await ask(side, is_stream, model, messages)
    assert side.upstream.state.finished == asked + 1, "what was learned is remembered"
    await ask(side, is_stream, "script", messages)
    assert "tools" in side.upstream.state.last_request, "and holds for that model only"


@whole_and_streamed
async def test_without_tools_calls_and_results_of_the_past_are_told_as_text(side: Side, is_stream: bool) -> None:
    messages = [*history(), {"role": "assistant", "content": "It is."}, {"role": "user", "content": "Sure?"}]
    text, _ = await ask(side, is_stream, "script-notools", messages)
    assert text == "You said: Sure?"
    sent = side.upstream.state.last_request["messages"]
    assert sent[1:] == [
        {"role": "assistant", "content": '[Called files__read with {"path":"a"}]'},
        {"role": "user", "content": "[Result of files__read]\nIt is empty."},
        {"role": "assistant", "content": "It is."},
        {"role": "user", "content": "Sure?"},
    ]


@whole_and_streamed
@pytest.mark.parametrize(("how", "expected"), [("context", ContextTooLong), (503, Unavailable), ("cut", UpstreamError)])
async def test_failures_are_the_same_with_tools(side: Side, is_stream: bool, how: Any, expected: type[AppError]) -> None:
    with pytest.raises(expected):
        await ask(side, is_stream, "script", [*history()[:1], {"role": "assistant", "content": "x"}, *saying({"fail": how})])
