"""Starts and stops apps for the rest of the program, and looks after those that this process has claimed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias
from uuid import UUID, uuid4

import structlog

from adapters.postgres import Database, Notifications
from adapters.processes import log_path, tail_log
from homeport.apps import App, Apps
from homeport.errors import AppError, Conflict
from homeport.events import Events
from homeport.launcher.rows import LAUNCHER_CHANNEL, AppProcess, Claim, ProcessRows
from homeport.launcher.supervisor import Supervisor
from homeport.launcher.timing import Timing
from homeport.settings import Settings

Lines: TypeAlias = list[str]

log = structlog.get_logger(__name__)


class Launcher:
    """What is wanted and what is seen is in the database; whoever runs ``run``, in whatever process, brings about what is wanted.

    Each app is looked after by one process. When that one is killed, another ends what it has left and starts the app again. As long as the
    database is out of reach, apps run on; what another process has taken over meanwhile is ended here as soon as that is known.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        notifications: Notifications,
        apps: Apps,
        events: Events,
        *,
        timing: Timing | None = None,
    ) -> None:
        self._settings = settings
        self._apps = apps
        self._rows = ProcessRows(database, events, str(uuid4()))
        self._timing = timing or Timing()
        self._supervised: dict[UUID, tuple[Supervisor, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()
        notifications.subscribe(LAUNCHER_CHANNEL, self._hear)
        notifications.on_gap(self._hear)

    async def list(self) -> list[AppProcess]:
        """The processes of all apps that can be started from here, by slug."""
        return await self._rows.read()

    async def state(self, app: str) -> AppProcess:
        """The process of the app with this id or slug; of one that was never started, too. Raises NotFound (APP_NOT_FOUND)."""
        return await self._read((await self._apps.get(app)).id)

    async def start(self, app: str) -> AppProcess:
        """Have an app run; it is started a moment later. One that runs already is left as it is.

        Raises NotFound, and Conflict (APP_NOT_LAUNCHABLE) when nobody has said how it is started.
        """
        found = await self._launchable(app)
        await self._rows.want(found.id)
        return await self._read(found.id)

    async def stop(self, app: str) -> AppProcess:
        """Have an app not run; it is ended a moment later, with all that it has started. Raises NotFound."""
        found = await self._apps.get(app)
        await self._rows.request_end(found.id, again=False)
        return await self._read(found.id)

    async def restart(self, app: str) -> AppProcess:
        """End an app and start it again, or start it. Raises what ``start`` raises."""
        found = await self._launchable(app)
        await self._rows.request_end(found.id, again=True)
        await self._rows.want(found.id)
        return await self._read(found.id)

    async def logs(self, app: str, lines: int = 100) -> Lines:
        """The last lines that an app has written, and lines about its starts and ends. Raises NotFound."""
        return await asyncio.to_thread(tail_log, self.log_path(await self._apps.get(app)), lines)

    def log_path(self, app: App) -> Path:
        """Where the log of an app is; the file is there once the app was started on this machine."""
        return log_path(self._apps.log_dir, app.id)

    async def want_autostarted(self) -> None:
        """Once at the start of a server: have run what starts with it, and try again what is wanted and has failed."""
        await self._rows.want_autostarted()

    async def wait(self, app: str, is_it: Callable[[AppProcess], bool], limit_s: float) -> AppProcess:
        """The process of an app as soon as it is as wanted; as it is after ``limit_s``, if it is not. Raises NotFound."""
        heard = asyncio.Event()
        self._waiting.add(heard)
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    heard.clear()
                    if is_it(found := await self.state(app)):
                        return found
                    try:
                        async with asyncio.timeout(1):
                            await heard.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            return await self.state(app)
        finally:
            self._waiting.discard(heard)

    async def run(self) -> None:
        """Look after apps until cancelled; then end them, for another process to start them again. Background work."""
        try:
            while True:
                await self._tend(claims=True)
        finally:
            await self._leave_all()

    async def run_here(self, app: str, echo: Callable[[bytes], object], is_over: asyncio.Event) -> AppProcess:
        """Run an app here until ``is_over`` is set, it is stopped from elsewhere, or it fails for good. ``echo`` gets what it writes.

        Raises NotFound, and Conflict when nobody has said how it is started (APP_NOT_LAUNCHABLE), or it runs already (APP_RUNNING).
        """
        found = await self._launchable(app)
        claim = await self._rows.claim_one(found.id, self._timing.lease_s)
        if claim is None:
            raise Conflict(f"The app '{found.slug}' runs already. Stop it first: homeport apps stop {found.slug}", code="APP_RUNNING")
        await self._rows.write(found.id, {"state": "starting", "error": None, "restarts": 0})
        task = self._supervise(replace(claim, state="starting", is_wanted=True), echo)
        ending = asyncio.create_task(is_over.wait())
        try:
            while not task.done() and not ending.done():
                tending = asyncio.create_task(self._tend(claims=False))
                await asyncio.wait([task, ending, tending], return_when=asyncio.FIRST_COMPLETED)
                tending.cancel()
                await asyncio.wait([tending])
        finally:
            ending.cancel()
            await self._leave_all()
        return await self._read(found.id)

    async def tidy(self, app: str) -> AppProcess:
        """End what a killed server has left of an app that is to be stopped and that nobody looks after. Raises NotFound."""
        found = await self._apps.get(app)
        claim = await self._rows.claim_one(found.id, self._timing.lease_s)
        if claim is not None:
            task = self._supervise(claim, None)
            self._supervised[found.id][0].leave()
            await asyncio.wait([task])
        return await self._read(found.id)

    async def _tend(self, *, claims: bool) -> None:
        """Bring about what is wanted now, then wait until that may have changed."""
        self._wake.clear()
        try:
            states = await self._rows.renew(self._timing.lease_s)
            for app_id, (supervisor, _) in self._supervised.items():
                if app_id not in states:
                    supervisor.lose()
                elif states[app_id] == "stopping":
                    supervisor.stop()
            # What nobody looks after here although the row says so can be claimed again.
            await self._rows.abandon(states.keys() - self._supervised.keys())
            if claims:
                for claim in await self._rows.claim(self._timing.lease_s, skip=[*self._supervised]):
                    self._supervise(claim, None)
        except AppError as error:
            log.warning("apps cannot be looked after; trying again", reason=error.message)
        try:
            async with asyncio.timeout(self._timing.poll_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _supervise(self, claim: Claim, echo: Callable[[bytes], object] | None) -> asyncio.Task[None]:
        path = log_path(self._apps.log_dir, claim.app_id)
        supervisor = Supervisor(claim, self._settings, self._rows, self._apps, path, self._timing, echo)
        task = asyncio.create_task(supervisor.run(), name=f"app {claim.app_id}")
        self._supervised[claim.app_id] = supervisor, task
        task.add_done_callback(partial(self._ended, claim.app_id))
        return task

    def _ended(self, app_id: UUID, task: asyncio.Task[None]) -> None:
        del self._supervised[app_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("looking after an app failed", app_id=str(app_id), exc_info=error)
        self._wake.set()

    async def _leave_all(self) -> None:
        supervised = [*self._supervised.values()]
        for supervisor, _ in supervised:
            supervisor.leave()
        if supervised:
            await asyncio.wait([task for _, task in supervised])

    async def _launchable(self, app: str) -> App:
        found = await self._apps.get(app)
        if found.launch is None:
            raise Conflict(
                f"Nobody has said how the app '{found.slug}' is started. Say it: homeport apps update {found.slug} --command PROGRAM",
                code="APP_NOT_LAUNCHABLE",
            )
        return found

    async def _read(self, app_id: UUID) -> AppProcess:
        found = await self._rows.read([app_id])
        return found[0] if found else await self.state(str(app_id))

    def _hear(self, _payload: str = "") -> None:
        self._wake.set()
        for each in self._waiting:
            each.set()
