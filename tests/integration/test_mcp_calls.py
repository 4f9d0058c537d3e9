"""Calls to MCP servers: results as they are, progress, cancellation, limits, refusals, and servers that ask back."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from adapters.mcp import McpSessions, McpTool, ServerSpec, StdioTarget
from homeport.errors import AppError, InvalidRequest, UpstreamError, UpstreamTimeout
from tests.integration.mcp_parts import log_of, open_sessions, text_of, until, until_answer
from tests.mcp_servers import bare, own, spec_of

pytestmark = pytest.mark.anyio

OwnServer = tuple[McpSessions, ServerSpec]


@pytest.fixture(scope="module")
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnServer]:
    """A session with our server, for all whose calls leave it as it is: its start takes two seconds of the processor."""
    async with open_sessions(tmp_path_factory.mktemp("own")) as sessions:
        yield sessions, spec_of(own())


async def test_tools_are_described_as_their_server_does_in_the_order_of_their_names(own_server: OwnServer) -> None:
    sessions, spec = own_server
    tools = await sessions.list_tools(spec)
    names = [tool.name for tool in tools]
    assert names == sorted(names)
    assert "files/read.v2" in names
    by_name = {tool.name: tool for tool in tools}
    echo = by_name["echo"]
    assert (echo.title, echo.description) == ("Echo", "Say the same.")
    assert (echo.is_read_only, echo.is_destructive, echo.is_idempotent) == (True, False, True)
    assert echo.input_schema["required"] == ["text"]
    add = by_name["add"]
    assert (add.title, add.is_read_only, add.is_destructive, add.is_idempotent) == (None, None, None, None)
    assert add.output_schema is not None
    assert add.output_schema["properties"]["result"]["type"] == "integer"


async def test_results_come_as_the_server_gives_them(own_server: OwnServer) -> None:
    sessions, spec = own_server
    assert text_of(await sessions.call(spec, "echo", {"text": "ünï\ncode \u2028"})) == "ünï\ncode \u2028"
    assert text_of(await sessions.call(spec, "files/read.v2", {"path": "/a b"})) == "content of /a b"
    moved = await sessions.call(spec, "move", {"point": {"x": 1, "y": 2}, "by": 3})
    assert moved.structured == {"x": 4, "y": 5}
    assert json.loads(text_of(moved)) == {"x": 4, "y": 5}
    picture = await sessions.call(spec, "picture", {})
    assert [block["type"] for block in picture.content] == ["image", "text"]
    assert picture.content[0]["mimeType"] == "image/gif"
    failed = await sessions.call(spec, "fail", {})
    assert failed.is_error
    assert not moved.is_error


async def test_a_server_of_the_older_protocol_is_spoken_to_as_well(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        assert [tool.name for tool in await sessions.list_tools(spec)] == [
            "answer-then-end", "ask", "code", "echo", "large", "nothing", "pid", "sleep", "with-id-last",
        ]  # fmt: skip
        assert json.loads(text_of(await sessions.call(spec, "echo", {"a": [1, None]}))) == {"a": [1, None]}


async def test_noise_on_standard_output_does_no_harm_and_is_logged(tmp_path: Path) -> None:
    spec = spec_of(bare("noisy"))
    async with open_sessions(tmp_path) as sessions:
        assert text_of(await sessions.call(spec, "echo", {})) == "{}"
    assert "noise on standard output" in log_of(tmp_path, spec)
    assert "but no message" in log_of(tmp_path, spec)


async def test_a_hundred_calls_at_once_all_get_their_own_answer(own_server: OwnServer) -> None:
    sessions, spec = own_server
    outputs = await asyncio.gather(*(sessions.call(spec, "add", {"a": number, "b": 1}) for number in range(100)))
    assert [output.structured for output in outputs] == [{"result": number + 1} for number in range(100)]


async def test_a_call_without_an_answer_ends_at_its_limit_and_the_session_stays_good(own_server: OwnServer) -> None:
    sessions, spec = own_server
    await sessions.list_tools(spec)
    pid = sessions.status(spec.id).pid
    started = monotonic()
    with pytest.raises(UpstreamTimeout) as caught:
        await sessions.call(spec, "slow", {"seconds": 60, "name": "late"}, timeout_s=0.3)
    assert monotonic() - started < 5
    assert caught.value.code == "MCP_TIMEOUT"
    assert text_of(await sessions.call(spec, "echo", {"text": "still here"})) == "still here"
    assert sessions.status(spec.id).pid == pid
    await _until_cancelled(sessions, spec, "late")


async def test_cancelling_a_call_cancels_it_on_the_server_and_the_session_stays_good(own_server: OwnServer) -> None:
    sessions, spec = own_server
    await sessions.list_tools(spec)
    pid = sessions.status(spec.id).pid
    call = asyncio.create_task(sessions.call(spec, "slow", {"seconds": 60, "name": "left"}))
    await asyncio.sleep(0.2)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    await _until_cancelled(sessions, spec, "left")
    assert sessions.status(spec.id).pid == pid


async def _until_cancelled(sessions: McpSessions, spec: ServerSpec, name: str) -> None:
    await until_answer(lambda: sessions.call(spec, "cancelled", {}), lambda output: name in str(output.structured))


async def test_progress_is_handed_on_and_keeps_a_call_alive(own_server: OwnServer) -> None:
    sessions, spec = own_server
    seen: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    await sessions.list_tools(spec)
    output = await sessions.call(spec, "progress", {"steps": 5, "step_s": 0.25}, timeout_s=0.8, on_progress=note)
    assert text_of(output) == "done"
    assert seen == [(float(step), 5.0, f"step {step}") for step in range(1, 6)]


async def test_progress_cannot_keep_a_call_alive_for_ever(own_server: OwnServer) -> None:
    sessions, spec = own_server
    await sessions.list_tools(spec)
    started = monotonic()
    with pytest.raises(UpstreamTimeout):
        await sessions.call(spec, "progress", {"steps": 1000, "step_s": 0.05}, timeout_s=0.2)
    assert 1.9 < monotonic() - started < 5


async def test_a_broken_progress_callback_does_not_break_the_call(own_server: OwnServer) -> None:
    sessions, spec = own_server

    async def fail(progress: float, total: float | None, message: str | None) -> None:
        raise ValueError(progress)

    assert text_of(await sessions.call(spec, "progress", {"steps": 2, "step_s": 0}, on_progress=fail)) == "done"
    assert text_of(await sessions.call(spec, "echo", {"text": "on"})) == "on"


@pytest.mark.parametrize(("target", "tool", "arguments"), [
    (own(), "huge", {"megabytes": 9}),
    (bare(), "large", {"bytes": 9 * 1024 * 1024}),
    (bare(), "with-id-last", {"bytes": 9 * 1024 * 1024}),
])  # fmt: skip
async def test_a_result_that_is_too_large_is_refused_and_the_session_stays_good(
    tmp_path: Path, target: StdioTarget, tool: str, arguments: dict[str, int]
) -> None:
    spec = spec_of(target)
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        pid = sessions.status(spec.id).pid
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, tool, arguments)
        assert caught.value.code == "MCP_RESULT_TOO_LARGE"
        assert sessions.status(spec.id).pid == pid
        assert not (await sessions.call(spec, "echo", {"text": "on"})).is_error


async def test_a_large_result_comes_whole(own_server: OwnServer) -> None:
    sessions, spec = own_server
    assert len(text_of(await sessions.call(spec, "huge", {"megabytes": 5}))) == 5 * 1024 * 1024


async def test_arguments_that_the_server_refuses_are_the_callers_fault(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(InvalidRequest, match="does not take this call: no such file"):
            await sessions.call(spec, "code", {"code": -32602, "message": "no such file"})


@pytest.mark.parametrize("code", [-32603, -32000, -32001, 1, -32601])
async def test_any_other_error_of_the_protocol_is_the_servers_in_short_harmless_words(tmp_path: Path, code: int) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        pid = sessions.status(spec.id).pid
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, "code", {"code": code, "message": "bad\n\x1b[31m" + "x" * 5000})
        assert caught.value.code == "MCP_ERROR"
        assert "bad [31mxxx" in caught.value.message
        assert len(caught.value.message) < 700
        assert sessions.status(spec.id).pid == pid


async def test_an_answer_against_the_protocol_is_the_servers_error(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, "nothing", {})
        assert caught.value.code == "MCP_ERROR"
        assert text_of(await sessions.call(spec, "echo", {})) == "{}"


@pytest.mark.parametrize("method", ["elicitation/create", "sampling/createMessage", "roots/list"])
async def test_a_server_of_the_older_protocol_that_asks_back_is_declined(tmp_path: Path, method: str) -> None:
    spec = spec_of(bare())
    params: dict[str, dict[str, Any]] = {
        "elicitation/create": {"message": "Your name?", "requestedSchema": {"type": "object", "properties": {}}},
        "sampling/createMessage": {"messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}], "maxTokens": 5},
    }
    async with open_sessions(tmp_path) as sessions:
        answer = json.loads(text_of(await sessions.call(spec, "ask", {"method": method, "params": params.get(method, {})})))
        assert answer["id"] == "asked"
        assert "not supported" in answer["error"]["message"]


@pytest.mark.parametrize("tool", ["ask", "ask_in_result"])
async def test_a_server_that_asks_back_is_declined_and_the_session_stays_good(own_server: OwnServer, tool: str) -> None:
    sessions, spec = own_server
    await sessions.list_tools(spec)
    pid = sessions.status(spec.id).pid
    with pytest.raises(UpstreamError) as caught:
        await sessions.call(spec, tool, {}, timeout_s=5)
    assert caught.value.code == "MCP_ERROR"
    assert text_of(await sessions.call(spec, "echo", {"text": "on"})) == "on"
    assert sessions.status(spec.id).pid == pid


async def test_a_tool_that_a_server_has_learned_is_listed_once_it_said_so(tmp_path: Path) -> None:
    spec = spec_of(own())
    async with open_sessions(tmp_path) as sessions:
        assert "trick" not in [tool.name for tool in await sessions.list_tools(spec)]
        await sessions.call(spec, "learn", {"name": "trick"})
        await until_answer(lambda: sessions.list_tools(spec), lambda tools: "trick" in [tool.name for tool in tools])
        assert text_of(await sessions.call(spec, "trick", {})) == "trick"


async def test_tools_are_listed_anew_only_when_asked_for_or_changed(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        first = await sessions.list_tools(spec)
        assert await sessions.list_tools(spec) is first
        fresh = await sessions.list_tools(spec, is_fresh=True)
        assert fresh is not first
        assert fresh == first


async def test_a_list_of_tools_without_end_is_cut(tmp_path: Path) -> None:
    spec = spec_of(bare("endless"))
    async with open_sessions(tmp_path) as sessions:
        tools: list[McpTool] = await sessions.list_tools(spec)
    assert 0 < len(tools) <= 1000
    assert "the rest is left out" in log_of(tmp_path, spec)


async def test_what_a_server_writes_to_standard_error_is_in_its_log_beside_our_own_lines(tmp_path: Path) -> None:
    spec = spec_of(own(SECRET="hunter2"))
    async with open_sessions(tmp_path) as sessions:
        await sessions.call(spec, "complain", {"text": "something is odd \x1b[2J"})
        await until(lambda: "something is odd" in log_of(tmp_path, spec))
    lines = log_of(tmp_path, spec).splitlines()
    assert "something is odd [2J" in lines
    assert f"starting: {sys.executable}" in lines[0]
    assert "started: process" in lines[1]
    assert lines[-1].endswith("over")
    assert "hunter2" not in log_of(tmp_path, spec)


async def test_a_server_sees_only_the_harmless_part_of_our_environment_and_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_SECRET_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    spec = spec_of(own(TOKEN="abc"))
    async with open_sessions(tmp_path) as sessions:
        seen = (await sessions.call(spec, "environment", {})).structured
        assert seen is not None
        assert seen["TOKEN"] == "abc"
        assert set(seen) <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "TOKEN", "LC_CTYPE"}
        folder = Path(text_of(await sessions.call(spec, "working_directory", {})))
        assert folder == tmp_path / str(spec.id)
    assert os.listdir(folder) == []


async def test_a_server_runs_in_the_directory_that_it_was_given(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    spec = spec_of(StdioTarget(own().command, own().args, cwd=place))
    async with open_sessions(tmp_path) as sessions:
        assert text_of(await sessions.call(spec, "working_directory", {})) == str(place)


async def test_every_error_has_words_that_name_the_server(tmp_path: Path) -> None:
    spec = spec_of(bare("forgetful"), name="forgetful one", timeout_s=0.5)
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(AppError, match="The MCP server 'forgetful one' did not answer within 0.5 s"):
            await sessions.list_tools(spec)
