"""Home: everything of one running Homeport, put together once and given to every handler as ``home``.

``open_home`` is the only place that starts and stops parts, in one order and its reverse. The server, each of its worker processes
and each command of the CLI open one; several on one database are normal.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from adapters.mcp import McpSessions
from adapters.outbound import Outbound
from adapters.postgres import Database, EmbeddedPostgres, EmbeddedPostgresError, Notifications, migrate
from homeport.activities import Activities
from homeport.agents import Agents
from homeport.agents.approvals import Approvals
from homeport.agents.builtin import builtin_tools
from homeport.agents.run_ends import RunEnds
from homeport.agents.runs import Runs
from homeport.agents.sessions import Sessions
from homeport.apps import Apps
from homeport.events import Events
from homeport.identity import Identity
from homeport.jobs import Jobs
from homeport.keys import Keys
from homeport.launcher import Launcher
from homeport.migrations import SCRIPTS
from homeport.models import Models
from homeport.permissions import Permissions
from homeport.secrets import SecretBox, load_secret_key
from homeport.settings import Settings
from homeport.speech.listening import Listening
from homeport.speech.recognition import Recognition
from homeport.speech.speaking import Speaking
from homeport.tasks import Tasks
from homeport.tools import Tools
from homeport.user_tokens import UserTokens
from homeport.vectors import Ingest, Vectors
from homeport.workspaces import Workspaces

# Between two attempts to start an embedded database that does not start, because its disk is full, say.
REVIVE_EVERY_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Home:
    """The parts of a running Homeport."""

    settings: Settings
    database: Database
    identity: Identity
    keys: Keys
    apps: Apps
    permissions: Permissions
    activities: Activities
    workspaces: Workspaces
    agents: Agents
    user_tokens: UserTokens
    models: Models
    vectors: Vectors
    jobs: Jobs
    ingest: Ingest
    events: Events
    mcp: McpSessions
    tools: Tools
    approvals: Approvals
    sessions: Sessions
    runs: Runs
    tasks: Tasks
    speaking: Speaking
    recognition: Recognition
    listening: Listening
    launcher: Launcher


def make_data_dir(settings: Settings) -> Path:
    """The data directory, made for this user alone when it is missing. Whatever wants to write there calls this first."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.data_dir


@asynccontextmanager
async def open_home(settings: Settings, *, is_server: bool = False) -> AsyncIterator[Home]:
    """Start the database (the embedded one unless ``database_url`` names another), migrate it, and put the parts together.

    A server also runs the background work; a command of the CLI does not. Raises AppError, or the database adapter's own errors, each
    with a message for people.
    """
    async with AsyncExitStack() as stack:
        url, embedded = await _start_database(settings, stack)
        database = Database(url, settings.database_pool_size)
        stack.push_async_callback(database.close)
        await database.open()
        await migrate(url, SCRIPTS)
        notifications = Notifications(url)
        gap = asyncio.Event()
        notifications.on_gap(gap.set)
        home = _assemble(settings, database, notifications)
        # Listening begins once everybody has subscribed: nothing is missed in between.
        await stack.enter_async_context(notifications)
        if embedded is None:
            await notifications.check(database)
        stack.push_async_callback(home.models.close)
        stack.push_async_callback(home.speaking.close)
        stack.push_async_callback(home.recognition.close)
        stack.push_async_callback(home.vectors.configs.close)
        stack.push_async_callback(home.mcp.close)
        stack.push_async_callback(home.runs.close)
        await home.workspaces.ensure_defaults()
        await home.agents.ensure_defaults()
        if is_server:
            work = _background(home)
            if embedded is not None:
                work.append(("keep the embedded database running", _keep_database(embedded, gap)))
            stack.push_async_callback(_stop, [asyncio.create_task(_keep_running(*each)) for each in work])
        yield home


def _assemble(settings: Settings, database: Database, notifications: Notifications) -> Home:
    secret_box = SecretBox(load_secret_key(settings))
    identity = Identity(database, notifications)
    user_tokens = UserTokens(database, secret_box)
    models = Models(settings, database, secret_box)
    models.follow(notifications)
    vectors = Vectors(settings, database, notifications, secret_box, identity, models)
    jobs = Jobs(database, notifications)
    events = Events(database)
    recognition = Recognition(settings)
    mcp_dir = settings.data_dir / "mcp"
    outbound = Outbound(settings.private_hosts)
    mcp = McpSessions(mcp_dir, outbound)
    permissions = Permissions(settings, database, notifications, identity)
    apps = Apps(settings, database, identity, secret_box)
    activities = Activities(database, user_tokens)
    tools = Tools(database, notifications, secret_box, identity, mcp, events, mcp_dir)
    tools.add_builtins(builtin_tools(vectors, models, activities, apps, outbound))
    approvals = Approvals(database, notifications, permissions, events)
    ends = RunEnds(approvals)
    sessions = Sessions(database, models, ends)
    runs = Runs(database, notifications, models, tools, approvals, ends)
    tasks = Tasks(settings, database, identity, jobs, events, outbound, sessions=sessions, runs=runs, ends=ends)
    return Home(
        settings=settings,
        database=database,
        identity=identity,
        keys=Keys(database, identity),
        apps=apps,
        permissions=permissions,
        activities=activities,
        workspaces=Workspaces(database),
        agents=Agents(database),
        user_tokens=user_tokens,
        models=models,
        vectors=vectors,
        jobs=jobs,
        ingest=Ingest(identity, models, vectors, jobs),
        events=events,
        mcp=mcp,
        tools=tools,
        approvals=approvals,
        sessions=sessions,
        runs=runs,
        tasks=tasks,
        speaking=Speaking(settings, models),
        recognition=recognition,
        listening=Listening(recognition, settings.data_dir),
        launcher=Launcher(settings, database, notifications, apps, events),
    )


async def _start_database(settings: Settings, stack: AsyncExitStack) -> tuple[str, EmbeddedPostgres | None]:
    """The URL of the database, and the embedded one when that is used."""
    make_data_dir(settings)
    if settings.database_url is not None:
        return settings.database_url.get_secret_value(), None
    embedded = EmbeddedPostgres(settings.data_dir)
    starting = asyncio.ensure_future(asyncio.to_thread(embedded.start))
    # A thread cannot be cancelled: whoever is told to stop meanwhile waits for it, and then stops what it has started.
    stack.push_async_callback(_stop_embedded, embedded, starting)
    return await asyncio.shield(starting), embedded


async def _keep_database(embedded: EmbeddedPostgres, gap: asyncio.Event) -> None:
    """Whenever the connection that listens is lost, have the embedded database started again if it has ended."""
    while True:
        await gap.wait()
        gap.clear()
        try:
            await asyncio.to_thread(embedded.revive)
        except EmbeddedPostgresError as error:
            log.error("the embedded database has ended and does not start; trying again", reason=str(error), in_s=REVIVE_EVERY_S)
            await asyncio.sleep(REVIVE_EVERY_S)
            gap.set()


async def _stop_embedded(embedded: EmbeddedPostgres, starting: asyncio.Future[str]) -> None:
    await asyncio.wait([starting])
    await asyncio.to_thread(embedded.stop)


def _background(home: Home) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    return [
        ("return stale activities", home.activities.run_sweeper()),
        ("note the use of keys", home.identity.usage.run()),
        ("warm the model transport", home.models.warm()),
        ("note the use of models", home.models.usage.run()),
        ("build vector indexes", home.vectors.indexes.run()),
        ("close idle databases of apps", home.vectors.configs.run()),
        ("carry out jobs", home.jobs.run_worker()),
        ("remove old jobs", home.jobs.run_sweeper()),
        ("remove old events", home.events.run_sweeper()),
        ("look after runs of agents", home.runs.run_keeper()),
        ("remove old agent sessions", home.sessions.run_sweeper()),
        ("look after tasks", home.tasks.keeper.run()),
        ("expire approvals", home.approvals.run_sweeper()),
        ("end idle MCP servers", home.mcp.run()),
        ("end changed MCP servers", home.tools.servers.run()),
        ("look after apps", home.launcher.run()),
    ]


async def _keep_running(name: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("background work ended", work=name)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
