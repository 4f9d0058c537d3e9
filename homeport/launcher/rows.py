"""The rows of app processes: what is wanted, what is seen, and who looks after it.

A process looks after an app as long as its lease lasts, and writes only while the row names it. ``stopping`` is a request as well as a
state: whoever looks after the app ends it then, and starts it again if it is wanted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, false, func, literal, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, notify
from homeport.events import Events
from homeport.launch import read_launch
from homeport.tables import app_processes as processes
from homeport.tables import apps

LAUNCHER_CHANNEL = "homeport_launcher"

State = Literal["stopped", "starting", "running", "error", "stopping"]

IS_HELD = func.coalesce(processes.c.held_until > func.now(), false())
IS_ALIVE = processes.c.state.in_(("starting", "running", "stopping"))
FREE = {"holder": None, "held_until": None, "pid": None, "pid_started_at": None}
_SEEN = ("pid", "exit_code", "error", "started_at", "updated_at")


@dataclass(frozen=True, slots=True)
class AppProcess:
    """The process of an app. ``is_wanted``: it is to run. ``is_held``: a server, or a terminal, looks after it now.

    ``port`` and ``url`` are known while it starts and runs; ``error`` says why it failed, also while it is tried again.
    """

    app_id: UUID
    slug: str
    name: str
    state: State
    is_wanted: bool
    is_held: bool
    restarts: int
    url: str | None
    port: int | None
    pid: int | None
    exit_code: int | None
    error: str | None
    started_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An app that this process looks after from now on, and what another one that did has left."""

    app_id: UUID
    state: State
    is_wanted: bool
    port: int | None
    pid: int | None
    pid_started_at: float | None
    earlier_holder: str | None


class ProcessRows:
    """Reads them, and writes them as ``holder``."""

    def __init__(self, database: Database, events: Events, holder: str) -> None:
        self._database = database
        self._events = events
        self.holder = holder

    async def read(self, app_ids: Collection[UUID] | None = None) -> list[AppProcess]:
        """The processes of these apps, or of all apps that can be started, by slug."""
        statement = _reading().order_by(apps.c.slug)
        condition = apps.c.launch.is_not(None) if app_ids is None else apps.c.id.in_(app_ids)
        async with self._database.transaction() as connection:
            return [_process(row._mapping) for row in await connection.execute(statement.where(condition))]

    async def want(self, app_id: UUID) -> None:
        """Have an app run: what is stopped or has failed is started."""
        fresh = {"is_wanted": True, "state": "starting"}
        is_down = processes.c.state.in_(("stopped", "error"))
        changes = {
            "is_wanted": True,
            "state": case((is_down, "starting"), else_=processes.c.state),
            "error": case((is_down, null()), else_=processes.c.error),
            "restarts": case((is_down, 0), else_=processes.c.restarts),
            "updated_at": func.now(),
        }
        statement = insert(processes).values(app_id=app_id, **fresh).on_conflict_do_update(index_elements=["app_id"], set_=changes)
        async with self._database.transaction() as connection:
            await connection.execute(statement)
            await notify(connection, LAUNCHER_CHANNEL, str(app_id))

    async def request_end(self, app_id: UUID, *, again: bool) -> None:
        """Have whoever looks after an app end it; and start it ``again``, or not. What nobody has started yet is stopped at once."""
        is_left = and_(IS_ALIVE, or_(IS_HELD, processes.c.pid.is_not(None)))
        changes = {"is_wanted": again, "state": case((is_left, "stopping"), else_="starting" if again else "stopped")}
        changes |= {"error": null(), "restarts": 0, "updated_at": func.now()}
        async with self._database.transaction() as connection:
            await connection.execute(update(processes).where(processes.c.app_id == app_id).values(changes))
            await notify(connection, LAUNCHER_CHANNEL, str(app_id))

    async def want_autostarted(self) -> None:
        """Have run what starts with the server, and try again what is wanted and has failed."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(apps.c.id, apps.c.launch).where(apps.c.launch.is_not(None)).with_for_update(read=True))
            for app_id in [row.id for row in rows if row.launch["autostart"]]:
                values = {"app_id": app_id, "is_wanted": True}
                await connection.execute(
                    insert(processes).values(values).on_conflict_do_update(index_elements=["app_id"], set_={"is_wanted": True})
                )
            is_failed = (processes.c.is_wanted, processes.c.state == "error")
            await connection.execute(update(processes).where(*is_failed).values(state="stopped", error=None, restarts=0))
            await notify(connection, LAUNCHER_CHANNEL, "")

    async def claim(self, lease_s: float, *, skip: Collection[UUID] = ()) -> list[Claim]:
        """Look after what nobody does: apps that are to run, and whatever is left of others."""
        is_due = or_(and_(processes.c.is_wanted, processes.c.state != "error"), IS_ALIVE, processes.c.pid.is_not(None))
        return await self._claim(lease_s, ~IS_HELD, is_due, processes.c.app_id.not_in(skip))

    async def claim_one(self, app_id: UUID, lease_s: float) -> Claim | None:
        """Look after this app, if nobody does."""
        async with self._database.transaction() as connection:
            fresh = insert(processes).values(app_id=app_id, is_wanted=False).on_conflict_do_nothing()
            await connection.execute(fresh)
        found = await self._claim(lease_s, ~IS_HELD, processes.c.app_id == app_id)
        return found[0] if found else None

    async def renew(self, lease_s: float) -> dict[UUID, State]:
        """Renew the leases of all that this process looks after; their states by app."""
        statement = update(processes).where(processes.c.holder == self.holder).values(held_until=_until(lease_s))
        async with self._database.transaction() as connection:
            rows = await connection.execute(statement.returning(processes.c.app_id, processes.c.state))
            return {row.app_id: row.state for row in rows}

    async def abandon(self, app_ids: Collection[UUID]) -> None:
        """Let others look after these."""
        if app_ids:
            where = (processes.c.holder == self.holder, processes.c.app_id.in_(app_ids))
            async with self._database.transaction() as connection:
                await connection.execute(update(processes).where(*where).values(held_until=func.now()))

    async def used_ports(self) -> set[int]:
        """The ports that apps have, those that are stopped, too: they keep them as long as there are others."""
        async with self._database.transaction() as connection:
            return set((await connection.execute(select(processes.c.port).where(processes.c.port.is_not(None)))).scalars())

    async def take_port(self, app_id: UUID, port: int) -> bool:
        """Give an app a port; False when another app has it."""
        try:
            async with self._database.transaction() as connection:
                await connection.execute(update(processes).where(*self._mine(app_id)).values(port=port))
        except IntegrityError:
            return False
        return True

    async def write(
        self,
        app_id: UUID,
        values: Mapping[str, Any],
        *,
        only_from: State | None = None,
        event: tuple[str, Mapping[str, Any]] | None = None,
    ) -> bool:
        """Write what is seen of an app, and an event with it; False when it is not this process's, or not in a state of ``only_from``."""
        where = [*self._mine(app_id), *([processes.c.state == only_from] if only_from is not None else [])]
        statement = update(processes).where(*where).values(updated_at=func.now(), **values)
        async with self._database.transaction() as connection:
            is_written = (await connection.execute(statement)).rowcount > 0
            if is_written:
                await self._tell(connection, app_id, event)
        return is_written

    async def finish_stopping(self, app_id: UUID) -> bool:
        """After what was ``stopping`` has ended: whether it is to be started again; if not, this process is done with it."""
        again = {"state": "starting", "pid": None, "pid_started_at": None}
        async with self._database.transaction() as connection:
            where = self._mine(app_id)
            found = (await connection.execute(select(processes.c.is_wanted).where(*where).with_for_update())).scalar_one_or_none()
            if found is None:
                return False
            values = again if found else FREE | {"state": "stopped"}
            await connection.execute(update(processes).where(*where).values(updated_at=func.now(), **values))
            await self._tell(connection, app_id, ("app.stopped", {}))
        return bool(found)

    async def _claim(self, lease_s: float, *conditions: ColumnElement[bool]) -> list[Claim]:
        before = select(processes).where(*conditions).with_for_update(skip_locked=True).cte("before")
        is_to_run = and_(before.c.is_wanted, before.c.state != "stopping")
        state = case((is_to_run, "starting"), else_=before.c.state)
        statement = (
            update(processes)
            .where(processes.c.app_id == before.c.app_id)
            .values(holder=self.holder, held_until=_until(lease_s), state=state)
            .returning(
                *(before.c[name] for name in ("app_id", "state", "is_wanted", "port", "pid", "pid_started_at")),
                before.c.holder.label("earlier_holder"),
            )
        )
        async with self._database.transaction() as connection:
            claims = [Claim(**row._mapping) for row in await connection.execute(statement)]
            for claim in claims:
                await notify(connection, LAUNCHER_CHANNEL, str(claim.app_id))
        return claims

    async def _tell(self, connection: AsyncConnection, app_id: UUID, event: tuple[str, Mapping[str, Any]] | None) -> None:
        if event is not None:
            await self._events.record(event[0], principal=None, subject=str(app_id), data=event[1], connection=connection)
        await notify(connection, LAUNCHER_CHANNEL, str(app_id))

    def _mine(self, app_id: UUID) -> tuple[ColumnElement[bool], ...]:
        return processes.c.app_id == app_id, processes.c.holder == self.holder


def _until(lease_s: float) -> ColumnElement[datetime]:
    return func.now() + literal(timedelta(seconds=lease_s))


def _reading() -> Select[Any]:
    columns = [apps.c.id, apps.c.slug, apps.c.name, apps.c.launch, processes.c.state, processes.c.is_wanted, processes.c.port]
    seen = [processes.c[name] for name in (*_SEEN, "restarts")]
    return select(*columns, *seen, IS_HELD.label("is_held")).select_from(apps.outerjoin(processes, processes.c.app_id == apps.c.id))


def _process(row: Any) -> AppProcess:
    launch = read_launch(row["launch"])
    state: State = row["state"] or "stopped"
    port = row["port"] if state in ("starting", "running") else None
    return AppProcess(
        app_id=row["id"],
        slug=row["slug"],
        name=row["name"],
        state=state,
        is_wanted=bool(row["is_wanted"]),
        is_held=row["is_held"],
        restarts=row["restarts"] or 0,
        port=port,
        url=launch.url(port) if launch is not None and port is not None else None,
        **{name: row[name] for name in _SEEN},
    )
