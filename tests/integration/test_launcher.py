"""Apps as real programs: started, watched, started again, ended with all they have started, and taken over when their server dies."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

from adapters.processes.log import MAX_BYTES
from homeport.errors import Conflict, NotFound
from homeport.events import Events
from homeport.launcher import AppProcess, Launcher, Timing
from tests.integration.mcp_parts import runs, until
from tests.integration.parts import Parts, open_parts

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "tests" / "local_app.py")
QUICK = Timing(
    lease_s=1.5,
    poll_s=0.3,
    start_s=20,
    settle_s=0.1,
    ask_s=0.02,
    watch_s=0.1,
    unhealthy_s=0.5,
    first_delay_s=0.02,
    last_delay_s=0.05,
    stable_s=30,
    failures=3,
)
PAGE = "http://127.0.0.1:{port}/"


@dataclass(frozen=True)
class Here:
    """A server process with its launcher."""

    parts: Parts
    launcher: Launcher
    work: "asyncio.Task[None]"

    async def register(self, *moods: str, name: str = "App", **launch: Any) -> str:
        """Register an app that behaves so; returns its slug."""
        fields = {"command": sys.executable, "args": ["-S", PROGRAM, *moods], "home_url": PAGE} | launch
        return (await self.parts.apps.register(name, launch=fields)).slug

    async def reach(self, app: str, state: str) -> AppProcess:
        """Wait until an app is in a state."""
        found = await self.launcher.wait(app, lambda each: each.state == state, 20)
        assert found.state == state, found
        return found

    async def run(self, app: str) -> AppProcess:
        """Start an app and wait until it runs."""
        await self.launcher.start(app)
        return await self.reach(app, "running")

    async def end(self) -> None:
        """End as a server does that is told to."""
        self.work.cancel()
        await asyncio.wait([self.work])

    async def events(self) -> list[str]:
        """What has happened, oldest first."""
        return [each[0] for each in await self.parts.run_sql("SELECT kind FROM events WHERE kind LIKE 'app.%' ORDER BY id")]


@asynccontextmanager
async def open_here(url: str, folder: Path, timing: Timing = QUICK, **settings: Any) -> AsyncIterator[Here]:
    async with open_parts(url, folder, **settings) as parts:
        values = parts.permissions._settings.model_copy(update={})
        launcher = Launcher(values, parts.database, parts.notifications, parts.apps, Events(parts.database), timing=timing)
        await parts.notifications.settle()
        here = Here(parts, launcher, asyncio.create_task(launcher.run()))
        try:
            yield here
        finally:
            await here.end()


async def page_of(process: AppProcess) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        page: dict[str, Any] = (await http.get(str(process.url))).json()
        return page


def children_in(lines: list[str]) -> list[psutil.Process]:
    return [psutil.Process(int(pid)) for pid in re.findall(r"^child (\d+)$", "\n".join(lines), re.MULTILINE)]


async def test_an_app_runs_with_its_own_environment_and_port(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_SECRET_KEY", "x")
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    async with open_here(database_url, tmp_path) as here:
        app = await here.register(env={"OWN": "on {port}"})
        process = await here.run(app)
        page = await page_of(process)
        environment = page["environment"]
        assert (page["pid"], environment["RTX_PORT"]) == (process.pid, str(process.port))
        assert (environment["RTX_APP_ID"], environment["OWN"]) == (str(process.app_id), f"on {process.port}")
        assert environment.keys() & {"HOMEPORT_SECRET_KEY", "OPENAI_API_KEY", "RTX_API_KEY"} == set()
        assert process.port in range(8100, 9000)
        stored = await here.parts.run_sql("SELECT launch, env FROM apps")
        assert "on {port}" not in str(stored)
        await here.launcher.stop(app)
        stopped = await here.reach(app, "stopped")
        assert (stopped.pid, stopped.port, stopped.is_held) == (None, None, False)
        assert not psutil.pid_exists(process.pid or 0)
        assert await here.events() == ["app.started", "app.stopped"]


async def test_starting_what_runs_changes_nothing_and_restarting_gives_another_process(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        first = await here.run(app)
        assert (await here.launcher.start(app)).pid == first.pid
        await here.launcher.restart(app)
        again = await here.launcher.wait(app, lambda each: each.state == "running" and each.pid != first.pid, 10)
        assert (again.port, again.restarts) == (first.port, 0)
        assert not psutil.pid_exists(first.pid or 0)


async def test_an_app_without_a_command_is_not_started(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        await here.parts.apps.register("Bare")
        with pytest.raises(Conflict, match="apps update bare --command"):
            await here.launcher.start("bare")
        with pytest.raises(NotFound):
            await here.launcher.stop("nobody")
        assert (await here.launcher.state("bare")).state == "stopped"
        assert (await here.launcher.stop("bare")).state == "stopped"


async def test_an_app_without_a_page_runs_once_it_has_lived_a_moment(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        process = await here.run(await here.register("plain", home_url=None))
        assert process.url is None
        assert psutil.Process(process.pid).cwd() == str(tmp_path / "apps" / str(process.app_id))


async def test_an_app_that_keeps_crashing_is_given_up_with_its_last_words(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("crash")
        await here.launcher.start(app)
        failed = await here.reach(app, "error")
        assert failed.error is not None
        assert "ended with status 3" in failed.error
        assert "hello" in failed.error
        assert "3 times in a row" in failed.error
        assert (failed.exit_code, failed.restarts, failed.is_held) == (3, 2, False)
        assert await here.events() == ["app.failed"] * 3
        # Nobody tries it again until somebody asks for it.
        assert (await here.launcher.logs(app)).count("hello") == 3
        await here.launcher.start(app)
        await here.launcher.wait(app, lambda each: each.state == "error" and each.updated_at != failed.updated_at, 10)
        assert (await here.launcher.logs(app)).count("hello") == 6


@pytest.mark.parametrize(
    ("launch", "complaint"),
    [
        ({"command": "/no/such/program"}, "was not found"),
        ({"command": "/etc/passwd"}, "may not be executed"),
        ({"working_dir": "/no"}, "working dir"),
    ],
)
async def test_what_cannot_be_started_is_not_tried_again(database_url: str, tmp_path: Path, launch: dict[str, Any], complaint: str) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register(**launch)
        await here.launcher.start(app)
        assert complaint in str((await here.reach(app, "error")).error)
        assert await here.events() == ["app.failed"]


async def test_an_app_that_is_killed_is_started_again(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        first = await here.run(app)
        os.kill(first.pid or 0, signal.SIGKILL)
        again = await here.launcher.wait(app, lambda each: each.state == "running" and each.pid != first.pid, 10)
        assert (again.restarts, again.error) == (1, None)
        assert await here.events() == ["app.started", "app.failed", "app.started"]


async def test_an_app_that_never_answers_is_not_taken_for_running(database_url: str, tmp_path: Path) -> None:
    async with open_here(
        database_url, tmp_path, Timing(**{each: getattr(QUICK, each) for each in QUICK.__slots__} | {"start_s": 0.3})
    ) as here:
        app = await here.register("mute")
        await here.launcher.start(app)
        assert "did not answer" in str((await here.reach(app, "error")).error)
        assert "app.started" not in await here.events()


async def test_an_app_that_stops_answering_is_started_again(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        first = await here.run(app)
        os.kill(first.pid or 0, signal.SIGSTOP)
        again = await here.launcher.wait(app, lambda each: each.state == "running" and each.pid != first.pid, 20)
        assert again.restarts == 1
        assert any("has not answered" in line for line in await here.launcher.logs(app))


async def test_nothing_is_left_of_an_app_that_does_not_hear(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("deaf", "child")
        process = await here.run(app)
        children = children_in(await here.launcher.logs(app))
        assert len(children) == 2
        await here.launcher.stop(app)
        await here.reach(app, "stopped")
        assert not psutil.pid_exists(process.pid or 0)
        await until(lambda: not any(runs(child) for child in children))


async def test_a_stop_of_the_server_ends_apps_and_the_next_one_starts_them(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("child")
        first = await here.run(app)
        children = children_in(await here.launcher.logs(app))
        await here.end()
        left = await here.launcher.state(app)
        assert (left.state, left.is_wanted, left.is_held) == ("stopped", True, False)
        assert not psutil.pid_exists(first.pid or 0)
        await until(lambda: not any(runs(child) for child in children))
        async with open_here(database_url, tmp_path) as there:
            again = await there.reach(app, "running")
            assert again.port == first.port


async def test_another_process_takes_over_at_once_when_one_ends(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        first = await here.run(app)
        async with open_here(database_url, tmp_path) as there:
            await here.end()
            again = await there.launcher.wait(app, lambda each: each.state == "running" and each.pid != first.pid, 10)
            assert not runs_pid(first.pid or 0)
            assert runs_pid(again.pid or 0)
            await there.end()
            assert (await here.launcher.state(app)).state == "stopped"
            assert not runs_pid(again.pid or 0)


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_launcher import open_here

async def main():
    async with open_here({url!r}, Path({folder!r})) as here:
        process = await here.run({app!r})
        print(process.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_after_a_kill_the_next_process_ends_what_is_left_and_starts_it_again(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("child", "deaf")
        await here.end()
        program = KILLED.format(url=database_url, folder=str(tmp_path), app=app)
        victim = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        with anyio.fail_after(30):
            first = int(await victim.stdout.readline())
        children = children_in(await here.launcher.logs(app))
        victim.kill()
        await victim.wait()
        async with open_here(database_url, tmp_path) as there:
            again = await there.launcher.wait(app, lambda each: each.state == "running" and each.pid != first, 20)
            assert again.pid != first
            assert not runs_pid(first)
            assert not any(runs(child) for child in children)
            page = await page_of(again)
            assert page["pid"] == again.pid


async def test_a_stranger_with_the_number_of_an_earlier_process_is_left_alone(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        app_id = (await here.parts.apps.get(app)).id
        stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
        try:
            await here.parts.run_sql(
                "INSERT INTO app_processes (app_id, is_wanted, state, holder, held_until, pid, pid_started_at) "
                "VALUES (:app, true, 'running', 'gone', now() - interval '1 s', :pid, :started)",
                app=app_id,
                pid=stranger.pid,
                started=psutil.Process(stranger.pid).create_time() - 100,
            )
            again = await here.launcher.wait(app, lambda each: each.state == "running" and each.pid != stranger.pid, 10)
            assert again.pid != stranger.pid
            assert stranger.returncode is None
        finally:
            stranger.kill()
            await stranger.wait()


async def test_two_homes_do_not_take_each_others_ports(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    from adapters.postgres import migrate
    from homeport.migrations import SCRIPTS

    await migrate(empty_database_url, SCRIPTS)
    ports = "18300-18303"
    async with (
        open_here(database_url, tmp_path / "a", app_ports=ports) as here,
        open_here(empty_database_url, tmp_path / "b", app_ports=ports) as there,
    ):
        running = [await home.run(await home.register(name=name)) for name in ("One", "Two") for home in (here, there)]
        assert sorted(process.port or 0 for process in running) == [18300, 18301, 18302, 18303]
        assert {(await page_of(process))["pid"] for process in running} == {process.pid for process in running}
        app = await here.register(name="Three")
        await here.launcher.start(app)
        assert "HOMEPORT_APP_PORTS" in str((await here.reach(app, "error")).error)


async def test_an_app_keeps_its_port_unless_somebody_else_has_it(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register()
        first = await here.run(app)
        await here.launcher.stop(app)
        await here.reach(app, "stopped")
        with closing(socket.socket()) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", first.port or 0))
            taken.listen()
            moved = await here.run(app)
            assert moved.port != first.port
        await here.launcher.restart(app)
        again = await here.launcher.wait(app, lambda each: each.state == "running" and each.pid != moved.pid, 10)
        assert again.port == moved.port


async def test_a_log_is_bounded_also_when_an_app_floods_it(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("flood", home_url=None)
        await here.run(app)
        folder = tmp_path / "app-logs"
        await until(lambda: any(file.name.endswith(".1") for file in folder.iterdir()))
        # It is held up, and the server is not: it answers meanwhile.
        assert (await here.launcher.state(app)).state == "running"
        assert all(file.stat().st_size < 2 * MAX_BYTES for file in folder.iterdir())
        assert len(list(folder.iterdir())) == 2


async def test_an_app_that_is_removed_ends(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        app = await here.register("child")
        process = await here.run(app)
        await here.parts.apps.remove(app)
        await until(lambda: not runs_pid(process.pid or 0))


async def test_only_what_starts_with_the_server_or_is_wanted_is_started(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as here:
        auto, manual = (
            await here.register("plain", home_url=None, autostart=True),
            await here.register("plain", name="Manual", home_url=None),
        )
        await here.launcher.want_autostarted()
        await here.reach(auto, "running")
        assert (await here.launcher.state(manual)).state == "stopped"
        await here.launcher.stop(auto)
        await here.reach(auto, "stopped")
        assert not (await here.launcher.state(auto)).is_wanted


async def test_an_app_runs_in_a_terminal_until_it_is_over_and_a_server_leaves_it_alone(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as server, open_here(database_url, tmp_path) as terminal:
        await terminal.end()
        app = await server.register()
        said, is_over = bytearray(), asyncio.Event()
        running = asyncio.create_task(terminal.launcher.run_here(app, said.extend, is_over))
        process = await server.reach(app, "running")
        assert not process.is_wanted
        with pytest.raises(Conflict, match="apps stop app"):
            await server.launcher.run_here(app, said.extend, is_over)
        is_over.set()
        assert (await running).state == "stopped"
        assert b"hello\n" in said
        assert not runs_pid(process.pid or 0)


async def test_what_runs_in_a_terminal_is_stopped_from_elsewhere(database_url: str, tmp_path: Path) -> None:
    async with open_here(database_url, tmp_path) as server, open_here(database_url, tmp_path) as terminal:
        await terminal.end()
        app = await server.register()
        running = asyncio.create_task(terminal.launcher.run_here(app, lambda _: None, asyncio.Event()))
        await server.reach(app, "running")
        await server.launcher.stop(app)
        with anyio.fail_after(10):
            assert (await running).state == "stopped"


def runs_pid(pid: int) -> bool:
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
