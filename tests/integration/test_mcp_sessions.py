"""The life of sessions with MCP servers: started once, kept, left alone after failures, replaced when lost, ended when idle."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psutil
import pytest

from adapters.mcp import McpSessions, ServerSpec, StdioTarget
from homeport.errors import AppError, Unavailable, UpstreamError, UpstreamTimeout
from tests.integration.mcp_parts import log_of, open_sessions, text_of, until
from tests.mcp_servers import bare, own, spec_of

pytestmark = pytest.mark.anyio


async def pid_of(sessions: McpSessions, spec: ServerSpec) -> int:
    """The process that answers a call."""
    return int(text_of(await sessions.call(spec, "pid", {})))


@asynccontextmanager
async def ending_idle(sessions: McpSessions) -> AsyncIterator[None]:
    """The background work while the block lasts."""
    work = asyncio.create_task(sessions.run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait([work])


async def test_a_server_starts_with_the_first_call_and_stays(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        before = sessions.status(spec.id)
        assert (before.state, before.error, before.pid) == ("stopped", None, None)
        first = await pid_of(sessions, spec)
        running = sessions.status(spec.id)
        assert (running.state, running.error, running.pid) == ("running", None, first)
        assert running.since >= before.since
        assert await pid_of(sessions, spec) == first
        await sessions.stop(spec.id)
        assert sessions.status(spec.id).state == "stopped"
        assert await pid_of(sessions, spec) != first


async def test_first_callers_at_the_same_time_share_one_start(tmp_path: Path) -> None:
    spec = spec_of(bare("late", "0.3"))
    async with open_sessions(tmp_path) as sessions:
        calls = [asyncio.create_task(pid_of(sessions, spec)) for _ in range(20)]
        await until(lambda: sessions.status(spec.id).state == "starting")
        assert len(set(await asyncio.gather(*calls))) == 1
    assert log_of(tmp_path, spec).count("starting:") == 1


async def test_a_caller_that_leaves_does_not_stop_the_start_for_the_others(tmp_path: Path) -> None:
    spec = spec_of(bare("late", "0.5"))
    async with open_sessions(tmp_path) as sessions:
        first, second = (asyncio.create_task(pid_of(sessions, spec)) for _ in range(2))
        await until(lambda: sessions.status(spec.id).state == "starting")
        first.cancel()
        assert await second > 0
        assert first.cancelled()


@pytest.mark.parametrize(("target", "reason"), [
    (StdioTarget("no-such-command-anywhere"), "its command was not found"),
    (StdioTarget("/etc/passwd"), "its command may not be executed"),
    (StdioTarget(sys.executable, ("-c", "zero\0byte")), "its command cannot be executed"),
    (StdioTarget(sys.executable, cwd=Path("/no/such/place")), "its working directory does not exist"),
    (StdioTarget(sys.executable, ("-c", "raise SystemExit(3)")), "it ended with status 3"),
    (StdioTarget(sys.executable, ("-c", "import os; os.kill(os.getpid(), 9)")), "it was ended by signal 9"),
    (StdioTarget("sh", ("-c", "exec >&-; sleep 60")), "it closed its standard input or output"),
])  # fmt: skip
async def test_a_server_that_cannot_start_is_unavailable_at_once_with_the_reason(tmp_path: Path, target: StdioTarget, reason: str) -> None:
    spec = spec_of(target, name="broken")
    async with open_sessions(tmp_path) as sessions:
        started = monotonic()
        with pytest.raises(Unavailable) as caught:
            await sessions.list_tools(spec)
        assert monotonic() - started < 10
        assert caught.value.code == "MCP_SERVER_UNAVAILABLE"
        assert f"The MCP server 'broken' cannot be started: {reason}." in caught.value.message
        assert int(caught.value.headers["Retry-After"]) in (1, 2)
        status = sessions.status(spec.id)
        assert (status.state, status.error) == ("backing off", reason)
    assert "starting:" in log_of(tmp_path, spec)


async def test_a_server_that_never_answers_is_given_up_within_the_time_for_a_start(tmp_path: Path) -> None:
    spec = spec_of(bare("mute"))
    async with open_sessions(tmp_path, start_timeout_s=0.5) as sessions:
        started = monotonic()
        with pytest.raises(Unavailable, match="it did not answer within 0.5 s"):
            await sessions.list_tools(spec)
        assert monotonic() - started < 2
        process = _last_started(tmp_path, spec)
        await until(lambda: not psutil.pid_exists(process))


async def test_a_server_that_is_slow_to_start_holds_a_call_only_to_its_limit_and_serves_the_next(tmp_path: Path) -> None:
    spec = spec_of(bare("late", "1.5"))
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(UpstreamTimeout) as caught:
            await sessions.call(spec, "pid", {}, timeout_s=0.3)
        assert caught.value.code == "MCP_TIMEOUT"
        assert await pid_of(sessions, spec) > 0
    assert log_of(tmp_path, spec).count("starting:") == 1


async def test_a_server_that_failed_is_left_alone_for_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(StdioTarget(sys.executable, ("-c", "raise SystemExit(3)")))
    now = [1000.0]
    monkeypatch.setattr("adapters.mcp.sessions.time.monotonic", lambda: now[0])
    waits = []
    async with open_sessions(tmp_path) as sessions:
        for attempt in range(9):
            for _ in range(3):  # the first is an attempt, the others are told to wait
                with pytest.raises(Unavailable) as caught:
                    await sessions.list_tools(spec)
            assert log_of(tmp_path, spec).count("starting:") == attempt + 1
            assert caught.value.retry_in_s is not None
            waits.append(caught.value.retry_in_s)
            now[0] += waits[-1] + 0.001
    for attempt, wait in enumerate(waits):
        assert min(2**attempt, 60) <= wait <= min(2**attempt * 1.5, 60)


async def test_a_server_that_failed_is_started_at_once_when_it_was_stopped_in_between(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"[ -e {flag} ] || exit 1; exec {sys.executable} {' '.join(bare().args)}"
    spec = spec_of(StdioTarget("sh", ("-c", script)))
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(Unavailable):
            await pid_of(sessions, spec)
        flag.touch()
        with pytest.raises(Unavailable):
            await pid_of(sessions, spec)
        await sessions.stop(spec.id)
        assert sessions.status(spec.id).error is None
        assert await pid_of(sessions, spec) > 0


async def test_a_server_that_is_killed_during_calls_fails_those_clearly_and_the_next_call_works(tmp_path: Path) -> None:
    spec = spec_of(own(), name="victim")
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        calls = [asyncio.create_task(sessions.call(spec, "slow", {"seconds": 60})) for _ in range(5)]
        await asyncio.sleep(0.2)
        pid = sessions.status(spec.id).pid
        assert pid is not None
        killed_at = monotonic()
        os.kill(pid, signal.SIGKILL)
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert monotonic() - killed_at < 2
        for error in errors:
            assert isinstance(error, UpstreamError)
            assert error.code == "MCP_SERVER_FAILED"
            assert "'victim' failed during the call: it was ended by signal 9" in error.message
        assert text_of(await sessions.call(spec, "echo", {"text": "anew"})) == "anew"
        assert sessions.status(spec.id).pid != pid


@pytest.mark.parametrize(("tool", "arguments", "reason"), [
    ("crash", {}, "it was ended by signal 9"),
    ("leave", {"status": 4}, "it ended with status 4"),
])  # fmt: skip
async def test_a_server_that_dies_of_a_call_fails_it_and_starts_with_the_next(
    tmp_path: Path, tool: str, arguments: dict[str, int], reason: str
) -> None:
    spec = spec_of(own())
    async with open_sessions(tmp_path) as sessions:
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, tool, arguments)
        # It has not answered anything yet but was started: that is no failed start.
        assert caught.value.code == "MCP_SERVER_FAILED"
        assert reason in caught.value.message


async def test_a_server_that_closes_its_output_during_a_call_is_lost(tmp_path: Path) -> None:
    spec = spec_of(bare("closing"))
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        pid = sessions.status(spec.id).pid
        assert pid is not None
        with pytest.raises(UpstreamError) as caught:
            await sessions.call(spec, "echo", {})
        assert caught.value.code == "MCP_SERVER_FAILED"
        await until(lambda: not psutil.pid_exists(pid))
        await sessions.list_tools(spec)
        assert sessions.status(spec.id).pid != pid


async def test_the_last_words_of_a_server_that_ends_are_heard(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        for _ in range(5):
            assert text_of(await sessions.call(spec, "answer-then-end", {})) == "bye"
            await until(lambda: sessions.status(spec.id).state == "stopped")


async def test_the_death_of_a_server_that_nobody_calls_is_noticed(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        pid = await pid_of(sessions, spec)
        process = psutil.Process(pid)
        process.kill()
        await until(lambda: sessions.status(spec.id).state == "stopped")
        await until(lambda: sessions.status(spec.id).error == "it was ended by signal 9")
        assert not process.is_running()
        assert await pid_of(sessions, spec) != pid


async def test_a_server_that_dies_each_time_before_it_was_of_use_is_left_alone(tmp_path: Path) -> None:
    spec = spec_of(bare("forgetful"))
    async with open_sessions(tmp_path) as sessions:
        call = asyncio.create_task(sessions.list_tools(spec))
        await until(lambda: sessions.status(spec.id).state == "running")
        await asyncio.sleep(0.1)
        os.kill(sessions.status(spec.id).pid or 0, signal.SIGKILL)
        with pytest.raises(UpstreamError):
            await call
        with pytest.raises(Unavailable, match="it was ended by signal 9|it ended right after its start"):
            await sessions.list_tools(spec)
        assert sessions.status(spec.id).state == "backing off"


async def test_another_revision_of_a_server_ends_the_old_one(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        old = psutil.Process(await pid_of(sessions, spec))
        new = await pid_of(sessions, replace(spec, revision="2"))
        assert new != old.pid
        assert not old.is_running()
        assert sessions.status(spec.id).pid == new


async def test_a_session_that_nobody_uses_ends_and_one_in_use_does_not(tmp_path: Path) -> None:
    idle, busy = spec_of(bare()), spec_of(own())
    async with open_sessions(tmp_path, idle_s=0.4) as sessions, ending_idle(sessions):
        process = psutil.Process(await pid_of(sessions, idle))
        call = asyncio.create_task(sessions.call(busy, "slow", {"seconds": 2}))
        await until(lambda: sessions.status(idle.id).state == "stopped")
        await until(lambda: not process.is_running())
        assert sessions.status(idle.id).error is None
        assert text_of(await call) == "done"
        assert await pid_of(sessions, idle) != process.pid


async def test_stopping_a_server_fails_its_calls_and_lets_it_start_again(tmp_path: Path) -> None:
    spec = spec_of(own())
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        call = asyncio.create_task(sessions.call(spec, "slow", {"seconds": 60}))
        await asyncio.sleep(0.1)
        await sessions.stop(spec.id)
        with pytest.raises(UpstreamError, match="it was stopped"):
            await call
        assert text_of(await sessions.call(spec, "echo", {"text": "again"})) == "again"


async def test_stopping_a_server_while_it_starts_does_not_wait_for_it(tmp_path: Path) -> None:
    spec = spec_of(bare("mute"))
    async with open_sessions(tmp_path) as sessions:
        call = asyncio.create_task(sessions.list_tools(spec))
        await until(lambda: sessions.status(spec.id).pid is not None)
        process = psutil.Process(sessions.status(spec.id).pid)
        started = monotonic()
        await sessions.stop(spec.id)
        assert monotonic() - started < 5
        assert not process.is_running()
        with pytest.raises(Unavailable, match="is being stopped"):
            await call
        assert sessions.status(spec.id).state == "stopped"


async def test_stopping_a_server_in_the_moment_it_is_asked_for_is_no_accident(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec_of(bare()))  # the library is loaded
        call = asyncio.create_task(sessions.list_tools(spec))
        await asyncio.sleep(0)
        assert sessions.status(spec.id).state == "starting"
        await sessions.stop(spec.id)
        with pytest.raises(Unavailable, match="is being stopped"):
            await call


async def test_stopping_a_server_whose_start_has_just_failed_leaves_nothing_of_it(tmp_path: Path) -> None:
    spec = spec_of(StdioTarget("sh", ("-c", "trap '' TERM; exec >&-; while true; do sleep 1; done")))
    async with open_sessions(tmp_path, start_timeout_s=1) as sessions:
        call = asyncio.create_task(sessions.list_tools(spec))
        await until(lambda: "started: process" in log_of(tmp_path, spec))
        process = psutil.Process(_last_started(tmp_path, spec))
        await asyncio.sleep(1.5)  # the start has failed and the time for it has passed, while the process is being ended
        await asyncio.gather(*(sessions.stop(spec.id) for _ in range(3)))
        assert not process.is_running()
        with pytest.raises(Unavailable, match="it closed its standard input or output"):
            await call


async def test_a_server_that_is_stuck_is_replaced_after_a_call_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(bare(), timeout_s=0.5)
    async with open_sessions(tmp_path) as sessions:
        stuck = await pid_of(sessions, spec)
        monkeypatch.setattr("adapters.mcp.session.PATIENCE_S", 0.5)
        with pytest.raises(UpstreamTimeout):
            await sessions.call(spec, "sleep", {"seconds": 600})
        await until(lambda: sessions.status(spec.id).error == "it does not answer any more")
        await until(lambda: not psutil.pid_exists(stuck))
        assert await pid_of(sessions, replace(spec, timeout_s=20)) != stuck


async def test_a_server_that_was_only_slow_is_kept(tmp_path: Path) -> None:
    spec = spec_of(bare(), timeout_s=0.5)
    async with open_sessions(tmp_path) as sessions:
        pid = await pid_of(sessions, spec)
        with pytest.raises(UpstreamTimeout):
            await sessions.call(spec, "sleep", {"seconds": 1.5})
        assert await pid_of(sessions, replace(spec, timeout_s=20)) == pid


async def test_nothing_starts_once_the_sessions_are_closed(tmp_path: Path) -> None:
    spec, other = spec_of(bare()), spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        process = psutil.Process(await pid_of(sessions, spec))
        await sessions.close()
        assert not process.is_running()
        for each in (spec, other):
            with pytest.raises(AppError) as caught:
                await sessions.list_tools(each)
            assert caught.value.code == "MCP_SERVER_UNAVAILABLE"


async def test_a_server_that_is_removed_leaves_no_files(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        await pid_of(sessions, spec)
        assert len(os.listdir(tmp_path)) == 2
        await sessions.remove(spec.id)
        assert os.listdir(tmp_path) == []
        await sessions.remove(uuid4())


async def test_ten_servers_start_at_once(tmp_path: Path) -> None:
    specs = [spec_of(bare()) for _ in range(10)]
    async with open_sessions(tmp_path) as sessions:
        pids = await asyncio.gather(*(pid_of(sessions, spec) for spec in specs))
    assert len(set(pids)) == 10
    assert not any(psutil.pid_exists(pid) for pid in pids)


def _last_started(folder: Path, spec: ServerSpec) -> int:
    return int(log_of(folder, spec).rpartition("started: process ")[2].split()[0])
