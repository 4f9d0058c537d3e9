"""Looks after one app: starts it, watches it, starts it again when it has ended, and ends it with everything it has started."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import func

from adapters.processes import (
    NotStarted,
    ProcessLog,
    Program,
    ask_status,
    describe_exit,
    end_leftovers,
    see_through,
    tail_log,
)
from homeport.apps import App, Apps
from homeport.errors import AppError, Conflict, Unavailable
from homeport.launch import Launch
from homeport.launcher.environment import LAUNCH_ID, make_environment
from homeport.launcher.ports import choose_port
from homeport.launcher.rows import FREE, Claim, ProcessRows
from homeport.launcher.timing import Timing
from homeport.settings import Settings

MAX_LINE_LENGTH = 200
DATABASE_RETRY_S = 1.0

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class _Over(Exception):
    """There is nothing more to do for this app here."""


class Supervisor:
    """Looks after the app of ``claim`` in ``run``. The log is at ``log_path``; ``echo`` gets what the app writes, too."""

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        rows: ProcessRows,
        apps: Apps,
        log_path: Path,
        timing: Timing,
        echo: Callable[[bytes], object] | None = None,
    ) -> None:
        self._id = claim.app_id
        self._claim = claim
        self._port = claim.port
        self._settings = settings
        self._rows = rows
        self._apps = apps
        self._log_path = log_path
        self._log = ProcessLog(log_path)
        self._timing = timing
        self._echo = echo
        self._stir = asyncio.Event()
        self._is_asked_to_stop = claim.state == "stopping"
        self._is_leaving = False
        self._is_lost = False
        self._failures = 0
        self._restarts = 0

    def stop(self) -> None:
        """End the app; the row says whether it is to be started again."""
        self._is_asked_to_stop = True
        self._stir.set()

    def leave(self) -> None:
        """End the app and let another process have it, because this one ends."""
        self._is_leaving = True
        self._stir.set()

    def lose(self) -> None:
        """End the app: another process looks after it, or it was removed."""
        self._is_lost = True
        self._stir.set()

    async def run(self) -> None:
        """Look after the app until it is stopped, has failed for good, or is left. Whatever happens, nothing of it runs afterwards."""
        try:
            await self._clear()
            # What nobody wants was only claimed for what is left of it.
            while self._claim.is_wanted and not (self._is_leaving or self._is_lost):
                if self._is_asked_to_stop:
                    await self._finish_stopping()
                await self._live()
            await self._release()
        except _Over:
            pass
        except AppError as error:
            log.warning("an app is not looked after any more", app_id=str(self._id), reason=error.message)
        finally:
            self._log.close()

    async def _clear(self) -> None:
        """End what an earlier process has left, one that was killed."""
        claim = self._claim
        if claim.earlier_holder is not None or claim.pid is not None:
            mark = (LAUNCH_ID, self._launch_id(claim.earlier_holder or ""))
            if count := await end_leftovers(claim.pid, claim.pid_started_at, mark):
                self._log.note(f"ended what was left of an earlier start: {count} processes")
            await self._must_write({"pid": None, "pid_started_at": None})

    async def _live(self) -> None:
        """One life of the app, from its start to its end, and the wait before the next one."""
        self._stir.clear()
        if self._is_to_end:
            return
        program: Program | None = None
        begun = asyncio.get_running_loop().time()
        try:
            app, launch, env = await self._persist(lambda: self._apps.open_launch(str(self._id)))
            port = await self._persist(lambda: choose_port(self._rows, self._id, self._port, self._settings.app_port_range))
            self._port = port
            program = await self._start(app, launch, env, port)
            problem = await self._watch(program, launch, port)
        except NotStarted as error:
            self._log.note(f"not started, because {error}")
            return await self._fail(f"It could not be started, because {error}.", None, is_final=error.is_lasting)
        except (Conflict, Unavailable) as error:
            self._log.note(f"not started: {error.message}")
            return await self._fail(f"It could not be started. {error.message}", None, is_final=True)
        finally:
            if program is not None:
                await see_through(asyncio.create_task(self._end(program)))
        if problem is not None:
            if asyncio.get_running_loop().time() - begun >= self._timing.stable_s:
                self._failures = 0
            await self._fail(problem, program.exit_status)

    async def _start(self, app: App, launch: Launch, env: Mapping[str, str], port: int) -> Program:
        command, *args = launch.command_line(port)
        cwd = Path(launch.working_dir) if launch.working_dir is not None else await self._apps.folder(app.id)
        launch_id = self._launch_id(self._rows.holder)
        environment = make_environment(self._settings, app, port, env, launch_id=launch_id, inherited=os.environ)
        self._log.note(f"starting on port {port}: {launch.command}")
        program = await Program.start(command, args, env=environment, cwd=cwd, log=self._log, echo=self._echo)
        seen = {"pid": program.pid, "pid_started_at": program.started_at, "started_at": func.now(), "exit_code": None}
        try:
            await self._must_write(seen)
        except BaseException:
            await see_through(asyncio.create_task(self._end(program)))
            raise
        return program

    async def _watch(self, program: Program, launch: Launch, port: int) -> str | None:
        """Until it has ended, or is to end: what is wrong, in a sentence; None when nothing is."""
        loop, timing = asyncio.get_running_loop(), self._timing
        waiting = asyncio.create_task(program.wait())
        waiting.add_done_callback(self._note_end)
        started = well_at = loop.time()
        is_running = False
        try:
            while True:
                if self._is_to_end:
                    return None
                if waiting.done():
                    return f"It {describe_exit(program.exit_status or 0)}."
                if await self._unless_stirred(self._is_well(launch, port, loop.time() - started)):
                    well_at = loop.time()
                    if not is_running and not program.has_exited:
                        is_running = await self._note_running(port)
                        await program.look()
                elif not is_running and loop.time() - started > timing.start_s:
                    return f"It did not answer at {launch.health_url(port)} within {timing.start_s:g} s."
                elif is_running and loop.time() - well_at > timing.unhealthy_s:
                    return f"It has not answered at {launch.health_url(port)} for {timing.unhealthy_s:g} s."
                await self._pause(timing.watch_s if is_running else timing.ask_s)
        finally:
            waiting.remove_done_callback(self._note_end)
            waiting.cancel()

    async def _is_well(self, launch: Launch, port: int, age_s: float) -> bool:
        if (url := launch.health_url(port)) is None:
            return age_s >= self._timing.settle_s
        status = await ask_status(url, self._timing.watch_s)
        # A page may want a sign-in first; a path that is there to tell about health says so.
        return status is not None and (status < 400 if launch.health_path is not None else status < 500)

    async def _note_running(self, port: int) -> bool:
        values = {"state": "running", "error": None}
        return await self._persist(lambda: self._rows.write(self._id, values, only_from="starting", event=("app.started", {"port": port})))

    async def _fail(self, problem: str, status: int | None, *, is_final: bool = False) -> None:
        """Write down that it has failed, and wait before it is started again; or give up."""
        self._failures += 1
        last = tail_log(self._log_path, 20)
        said = next((line[:MAX_LINE_LENGTH] for line in reversed(last) if line and not line.startswith("--- ")), None)
        error = problem + (f" The last line of its log: {said}" if said else "")
        is_final = is_final or self._failures >= self._timing.failures
        if is_final:
            times = f" It has failed {self._failures} times in a row." if self._failures > 1 else ""
            values = FREE | {
                "state": "error",
                "error": f"{error}{times} Look at its log, put it right, and start it again.",
                "exit_code": status,
            }
        else:
            self._restarts += 1
            values = {"pid": None, "pid_started_at": None, "error": error, "exit_code": status, "restarts": self._restarts}
        self._log.note(problem)
        if not is_final:
            await self._persist(lambda: self._rows.write(self._id, {"state": "starting"}, only_from="running"))
        told = ("app.failed", {"exit_code": status, "is_final": is_final})
        await self._must_write(values, event=told)
        if is_final:
            raise _Over
        delay_s = min(self._timing.first_delay_s * 2.0 ** (self._failures - 1), self._timing.last_delay_s)
        self._log.note(f"started again in {delay_s:g} s")
        self._stir.clear()
        if not self._is_to_end:
            await self._pause(delay_s)

    async def _end(self, program: Program) -> None:
        await program.end()
        if program.exit_status is not None:
            self._log.note(f"it {describe_exit(program.exit_status)}")

    async def _finish_stopping(self) -> None:
        self._is_asked_to_stop = False
        self._failures = self._restarts = 0
        if not await self._persist(lambda: self._rows.finish_stopping(self._id)):
            raise _Over

    async def _release(self) -> None:
        if not self._is_lost:
            await self._must_write(FREE | {"state": "stopped"}, event=("app.stopped", {}))

    async def _must_write(self, values: Mapping[str, Any], *, event: tuple[str, Mapping[str, Any]] | None = None) -> None:
        if not await self._persist(lambda: self._rows.write(self._id, values, event=event)):
            self._is_lost = True
            raise _Over

    async def _persist(self, work: Callable[[], Awaitable[Value]]) -> Value:
        """Do something with the database; while it is out of reach, again and again, unless this process ends."""
        while True:
            try:
                return await work()
            except Unavailable as error:
                if error.code == "SECRET_UNREADABLE":
                    raise
                if self._is_leaving or self._is_lost:
                    raise _Over from error
                log.warning("what is seen of an app cannot be written; trying again", app_id=str(self._id), reason=error.message)
            await asyncio.sleep(DATABASE_RETRY_S)

    async def _pause(self, limit_s: float) -> None:
        """Wait, but not when something is to be done."""
        try:
            async with asyncio.timeout(limit_s):
                await self._stir.wait()
        except TimeoutError:
            return

    async def _unless_stirred(self, question: Coroutine[Any, Any, bool]) -> bool:
        """The answer; False when something is to be done before it is there."""
        asking, stirred = asyncio.create_task(question), asyncio.create_task(self._stir.wait())
        try:
            await asyncio.wait([asking, stirred], return_when=asyncio.FIRST_COMPLETED)
            return asking.done() and asking.result()
        finally:
            asking.cancel()
            stirred.cancel()

    @property
    def _is_to_end(self) -> bool:
        return self._is_asked_to_stop or self._is_leaving or self._is_lost

    def _note_end(self, _waiting: asyncio.Task[None]) -> None:
        self._stir.set()

    def _launch_id(self, holder: str) -> str:
        return f"{self._id}/{holder}"
