"""Tasks in one process of Homeport, with agents, real jobs and the stand-in as model. Two of them on one URL are two processes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from adapters.mcp import McpSessions
from adapters.outbound import Outbound
from contract.upstream import RunningUpstream
from homeport.agents import Agents
from homeport.agents.approvals import Approvals
from homeport.agents.run_ends import RunEnds
from homeport.agents.runs import Runs
from homeport.agents.runs import Timing as RunTiming
from homeport.agents.sessions import Sessions
from homeport.events import Events
from homeport.identity import Principal
from homeport.jobs import Jobs, Timing
from homeport.models import Models
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.tasks import Message, Order, Receipt, Task, Tasks
from homeport.tools import Tools
from homeport.workspaces import Workspaces
from tests.integration.parts import Parts, eventually, open_parts

SECRET = "the secret of the contract"
TIMING = Timing(poll=0.05, lease=3.0, report=0.05, backoff=0.05, stop=1.0)
RUN_TIMING = RunTiming(keep=0.1, hold=3.0, look=0.05)


@dataclass(frozen=True)
class TaskParts:
    parts: Parts
    tasks: Tasks
    jobs: Jobs
    runs: Runs
    events: Events
    agents: Agents
    background: list["asyncio.Task[None]"]

    async def app(self) -> Principal:
        """An app that may use the webhook."""
        app = await self.parts.app()
        await self.parts.permissions.set_grant(app.id, "webhook.trigger", "granted", "test")
        return app

    async def trigger(self, principal: Principal, prompt: str | None = None, *, event_id: str | None = None, **order: Any) -> Receipt:
        """Hand work over."""
        return await self.tasks.webhook.receive(principal, Message("task.trigger", Order(prompt=prompt, **order), event_id=event_id))

    async def auto_run(self, principal: Principal, steps: list[dict[str, Any]], **order: Any) -> Receipt:
        """Have the default agent do what a script says."""
        prompt = f"script: {json.dumps(steps)}"
        return await self.trigger(principal, prompt, auto_run=True, agent="@agent", workspace="default", **order)

    async def report(
        self, principal: Principal | None, event: str, task_id: str | None, machine: str | None = None, **said: Any
    ) -> Receipt:
        """Tell something of a task."""
        names = ("event_id", "attempt_id", "timestamp", "signature", "app_id")
        envelope = {name: said.pop(name) for name in names if name in said}
        message = Message(event, Order(), task_id=task_id, machine_id=machine, data=said, **envelope)
        return await self.tasks.webhook.receive(principal, message)

    async def waiting(self, principal: Principal, **order: Any) -> str:
        """The id of a new task that nobody works on."""
        task_id = (await self.trigger(principal, **order)).task_id
        assert task_id is not None
        return task_id

    async def becomes(self, task_id: str | None, *statuses: str) -> Task:
        """The task, once it is in one of these states."""
        assert task_id is not None
        return await eventually(lambda: self.tasks.find(task_id), lambda task: task.status in statuses)

    async def kinds(self, task_id: str | None) -> list[str]:
        """The kinds of the events of a task, in order."""
        page = await self.events.list(subject=task_id, limit=200)
        return [event.kind for event in reversed(page.items)]

    async def die(self) -> None:
        """Stop everything at once, as a kill does: nothing is given back, nothing is written."""
        for task in self.background:
            task.cancel()

    def work(self) -> None:
        """Carry out jobs, and look after tasks and runs."""
        for each in (self.jobs.run_worker(), self.runs.run_keeper(), self.tasks.keeper.run()):
            self.background.append(asyncio.ensure_future(each))


@asynccontextmanager
async def open_tasks(
    url: str, folder: Path, upstream: RunningUpstream | None = None, *, works: bool = True, **settings: Any
) -> AsyncIterator[TaskParts]:
    async with open_parts(url, folder) as parts:
        values = Settings(data_dir=folder, ollama_url="off", **settings)
        events, box = Events(parts.database), SecretBox(bytes(32))
        models = Models(values, parts.database, box, {})
        sessions = McpSessions(folder / "mcp", Outbound())
        tools = Tools(parts.database, parts.notifications, box, parts.identity, sessions, events, folder / "mcp")
        approvals = Approvals(parts.database, parts.notifications, parts.permissions, events, recheck_s=0.1)
        ends = RunEnds(approvals)
        conversations = Sessions(parts.database, models, ends)
        runs = Runs(parts.database, parts.notifications, models, tools, approvals, ends, timing=RUN_TIMING)
        jobs = Jobs(parts.database, parts.notifications, timing=TIMING)
        outbound = Outbound(values.private_hosts)
        tasks = Tasks(values, parts.database, parts.identity, jobs, events, outbound, sessions=conversations, runs=runs, ends=ends)
        agents = Agents(parts.database)
        await agents.ensure_defaults()
        await Workspaces(parts.database).ensure_defaults()
        if upstream is not None and "stand-in" not in {each.name for each in await models.configured_providers()}:
            await models.add_provider("stand-in", base_url=upstream.base_url, models=["script"])
        await parts.notifications.settle()
        opened = TaskParts(parts, tasks, jobs, runs, events, agents, [])
        if works:
            opened.work()
        try:
            yield opened
        finally:
            await opened.die()
            await asyncio.gather(*opened.background, return_exceptions=True)
            await runs.close()
            await sessions.close()
            await models.close()


@dataclass
class Receiver:
    """A program that events are posted to. It answers with ``statuses`` in turn, and then with 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[Mapping[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        """The names of the events that came, each as often as it came."""
        return [body["event"] for _, body in self.got]

    async def receive(self, request: web.Request) -> web.Response:
        """Take a message in."""
        self.got.append((request.headers, await request.json()))
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": f"{self.url}elsewhere"} if status == 302 else None)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://localhost:{site._server.sockets[0].getsockname()[1]}/"  # type: ignore[union-attr]
    try:
        yield receiver
    finally:
        await runner.cleanup()


def new_event_id() -> str:
    """A name that no event has had."""
    return str(uuid4())
