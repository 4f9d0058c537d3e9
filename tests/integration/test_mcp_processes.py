"""The processes of MCP servers: nothing of them is left, whatever they have started, refuse to hear, or are in the middle of."""

import asyncio
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from adapters.mcp import McpSessions, ServerSpec, StdioTarget
from tests.integration.mcp_parts import children_told, log_of, open_sessions, runs, text_of, until
from tests.mcp_servers import bare, own, spec_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
BOOTS = 50


@pytest.fixture(scope="module", params=[pytest.param(False, id="asyncio", marks=pytest.mark.long), pytest.param(True, id="uvloop")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Processes are each event loop's own affair; the server runs on uvloop, the commands on asyncio."""
    return "asyncio", {"use_uvloop": request.param}


async def started(sessions: McpSessions, spec: ServerSpec) -> psutil.Process:
    """The process of a server, started."""
    await sessions.list_tools(spec)
    return psutil.Process(sessions.status(spec.id).pid)


async def test_a_server_that_hears_ends_when_its_input_is_closed(tmp_path: Path) -> None:
    spec = spec_of(bare())
    async with open_sessions(tmp_path) as sessions:
        process = await started(sessions, spec)
        begun = monotonic()
        await sessions.stop(spec.id)
        assert monotonic() - begun < 2
        assert not process.is_running()
    assert "it ended with status 0" in log_of(tmp_path, spec)


async def test_a_server_that_does_not_hear_is_killed(tmp_path: Path) -> None:
    spec = spec_of(bare("deaf"))
    async with open_sessions(tmp_path) as sessions:
        process = await started(sessions, spec)
        await sessions.stop(spec.id)
        assert not process.is_running()
    assert "it was ended by signal 9" in log_of(tmp_path, spec)


async def test_a_server_that_floods_is_held_up_and_still_answers(tmp_path: Path) -> None:
    spec = spec_of(bare("flood"), timeout_s=60)
    async with open_sessions(tmp_path) as sessions:
        await sessions.list_tools(spec)
        assert text_of(await sessions.call(spec, "echo", {})) == "{}"


@pytest.mark.parametrize("mood", ["child", "orphan"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
async def test_what_a_server_has_started_in_its_group_ends_with_it(tmp_path: Path, mood: str, is_killed: bool) -> None:
    spec = spec_of(bare(mood))
    async with open_sessions(tmp_path) as sessions:
        process = await started(sessions, spec)
        await until(lambda: "child" in log_of(tmp_path, spec))
        [child] = children_told(log_of(tmp_path, spec))
        assert runs(child)
        if is_killed:
            process.kill()
        else:
            await sessions.stop(spec.id)
        await until(lambda: not runs(child))
        assert not process.is_running()


async def test_a_child_that_left_the_group_ends_with_its_server(tmp_path: Path) -> None:
    spec = spec_of(own())
    async with open_sessions(tmp_path) as sessions:
        pids = [int(text_of(await sessions.call(spec, "start_child", {"detached": detached}))) for detached in (False, True)]
        children = [psutil.Process(pid) for pid in pids]
        await sessions.stop(spec.id)
        await until(lambda: not any(runs(child) for child in children))


async def test_a_server_behind_a_shell_ends_with_it(tmp_path: Path) -> None:
    script = f"exec 3<&0; {sys.executable} {' '.join(bare('deaf').args)} <&3 & wait"
    spec = spec_of(StdioTarget("sh", ("-c", script)))
    async with open_sessions(tmp_path) as sessions:
        shell = await started(sessions, spec)
        server = psutil.Process(int(text_of(await sessions.call(spec, "pid", {}))))
        assert server.pid != shell.pid
        await sessions.stop(spec.id)
        assert not runs(server)
        assert not runs(shell)


async def test_orphans_of_a_server_that_fall_to_this_process_are_buried(tmp_path: Path) -> None:
    """As the first process of a container does, this one inherits the orphans of its children."""
    libc = ctypes.CDLL(None)
    become_reaper = 36
    assert libc.prctl(become_reaper, 1, 0, 0, 0) == 0
    try:
        spec = spec_of(bare("orphan"))
        async with open_sessions(tmp_path) as sessions:
            await started(sessions, spec)
            await until(lambda: "child" in log_of(tmp_path, spec))
            [child] = children_told(log_of(tmp_path, spec))
            await sessions.stop(spec.id)
            assert not psutil.pid_exists(child.pid)
    finally:
        assert libc.prctl(become_reaper, 0, 0, 0, 0) == 0


@pytest.mark.long
async def test_many_starts_and_stops_leave_nothing_behind(tmp_path: Path) -> None:
    spec = spec_of(bare())
    before: tuple[set[int], set[str], set[int]] | None = None
    async with open_sessions(tmp_path) as sessions:
        for boot in range(BOOTS + 1):
            await sessions.call(spec, "echo", {})
            await sessions.stop(spec.id)
            if boot == 0:  # what the first start makes for good: the library, a thread for looking at processes
                before = _belongings()
        await until(lambda: _belongings() == before)


async def test_a_crashing_server_leaves_nothing_behind(tmp_path: Path) -> None:
    spec = spec_of(bare())
    before: tuple[set[int], set[str], set[int]] | None = None
    async with open_sessions(tmp_path) as sessions:
        for boot in range(10):
            await started(sessions, spec)
            os.kill(sessions.status(spec.id).pid or 0, signal.SIGKILL)
            await until(lambda: sessions.status(spec.id).error is not None)
            if boot == 0:
                await until(lambda: _descriptors_are_closed(tmp_path))
                before = _belongings()
        await until(lambda: _belongings() == before)


async def test_servers_end_when_the_program_that_started_them_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
from tests.integration.mcp_parts import open_sessions
from tests.mcp_servers import bare, own, spec_of

async def main():
    async with open_sessions(Path({str(tmp_path)!r})) as sessions:
        for spec in (spec_of(bare()), spec_of(own())):
            await sessions.list_tools(spec)
            print(sessions.status(spec.id).pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT, stdout=subprocess.PIPE)
    assert running.stdout is not None
    servers = [psutil.Process(int(await running.stdout.readline())) for _ in range(2)]
    running.kill()
    await running.wait()
    await until(lambda: not any(runs(server) for server in servers))


def _belongings() -> tuple[set[int], set[str], set[int]]:
    """This process's children, threads and descriptors."""
    gc.collect()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    return children, {thread.name for thread in threading.enumerate()}, {int(name) for name in os.listdir("/proc/self/fd")}


def _descriptors_are_closed(folder: Path) -> bool:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return not any(target.startswith(str(folder)) for target in targets)
