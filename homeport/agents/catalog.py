"""Agents that apps can name. The default one is always there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from adapters.postgres import Database, notify
from homeport.agents.checking import CHECKS, check_agent_slug
from homeport.agents.limits import Limits, check_limits
from homeport.agents.run_ends import IS_OPEN, RUNS_CHANNEL
from homeport.errors import Conflict, NotFound
from homeport.paging import Page, fetch_page
from homeport.slugs import insert_with_slug, slugs_for
from homeport.tables import agent_runs, agent_sessions, agents

DEFAULT_AGENT = "@agent"


@dataclass(frozen=True, slots=True)
class Agent:
    """A model with instructions, known by its slug.

    ``provider`` None is the default provider, ``model`` None the provider's default model. ``tools`` are patterns of the tools that it may
    use: ``server/tool``, ``server/*`` or ``*``; without one it has no tools.
    """

    id: int
    slug: str
    display_name: str
    description: str
    hub_id: str | None
    created_at: datetime
    instructions: str = field(repr=False)
    provider: str | None
    model: str | None
    tools: list[str]
    limits: Limits
    updated_at: datetime


class Agents:
    """Creates, lists, changes and removes agents."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_defaults(self) -> None:
        """Make the default agent if it is missing; any number of processes may do so at once."""
        values = {"slug": DEFAULT_AGENT, "display_name": "Agent", "description": "Answers in a conversation with the default model."}
        async with self._database.transaction() as connection:
            await connection.execute(insert(agents).values(values).on_conflict_do_nothing())

    async def list(self) -> Sequence[Agent]:
        """All agents, oldest first."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(agents).order_by(agents.c.id))
            return [read_agent(row) for row in rows.mappings()]

    async def list_page(self, *, limit: int = 50, cursor: str | None = None) -> Page[Agent]:
        """Agents page by page, oldest first."""
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, select(agents), [agents.c.id], scope="agents", limit=limit, cursor=cursor)
        return Page([read_agent(row) for row in page.items], page.next_cursor)

    async def get(self, slug: str) -> Agent:
        """The agent with this slug. Raises NotFound (AGENT_NOT_FOUND)."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(agents).where(agents.c.slug == slug))
            return _found(rows.mappings().one_or_none(), slug)

    async def create(
        self,
        display_name: str,
        slug: str | None = None,
        description: str = "",
        hub_id: str | None = None,
        *,
        instructions: str = "",
        provider: str | None = None,
        model: str | None = None,
        tools: Sequence[str] = (),
        limits: Mapping[str, float | None] | None = None,
    ) -> Agent:
        """Make an agent; its slug (which may begin with @) is made from the name unless it is given.

        ``limits`` names fields of Limits; those that it leaves out are at their defaults. Raises InvalidRequest for a bad value, and
        Conflict when the slug is taken.
        """
        values = _checked(
            display_name=display_name,
            description=description,
            hub_id=hub_id,
            instructions=instructions,
            provider=provider,
            model=model,
            tools=tools,
        )
        slugs = [check_agent_slug(slug)] if slug else slugs_for(values["display_name"], "agent")
        values["limits"] = check_limits(limits or {})
        async with self._database.transaction() as connection:
            return read_agent(await insert_with_slug(connection, agents, values, slugs, [agents.c.slug]))

    async def update(
        self,
        slug: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        hub_id: str | None = None,
        instructions: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        tools: Sequence[str] | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> Agent:
        """Change what is not None. An empty ``hub_id``, ``provider`` or ``model`` is none at all, which for the last two is the default.

        ``tools`` are replaced as a whole; of the limits those that are named are changed, and one that is None is at its default again.
        Runs that have begun go on as they are. Raises NotFound (AGENT_NOT_FOUND), and InvalidRequest for a bad value.
        """
        values = _checked(
            display_name=display_name,
            description=description,
            hub_id=hub_id,
            instructions=instructions,
            provider=provider,
            model=model,
            tools=tools,
        )
        changed_limits, is_this = check_limits(limits or {}), agents.c.slug == slug
        async with self._database.transaction() as connection:
            if limits:
                stored = (await connection.execute(select(agents.c.limits).where(is_this).with_for_update())).scalar_one_or_none() or {}
                values["limits"] = {name: value for name, value in stored.items() if name not in limits} | changed_limits
            statement = update(agents).where(is_this).values(updated_at=func.now(), **values).returning(agents)
            return _found((await connection.execute(statement)).mappings().one_or_none(), slug)

    async def remove(self, slug: str) -> Agent:
        """Remove an agent, and with it its conversations: those that are open end. Rules about its tools stay.

        Raises NotFound (AGENT_NOT_FOUND), and Conflict for the default one.
        """
        if slug == DEFAULT_AGENT:
            raise Conflict("The default agent cannot be removed.")
        async with self._database.transaction() as connection:
            # What is done in its sessions has nowhere to be written any more; whoever does it is told, and stops.
            sessions = select(agent_sessions.c.id).join(agents).where(agents.c.slug == slug)
            open_runs = select(agent_runs.c.id).where(agent_runs.c.session_id.in_(sessions), IS_OPEN)
            for run_id in (await connection.execute(open_runs)).scalars():
                await notify(connection, RUNS_CHANNEL, str(run_id))
            rows = await connection.execute(delete(agents).where(agents.c.slug == slug).returning(agents))
            return _found(rows.mappings().one_or_none(), slug)


def read_agent(row: RowMapping | Mapping[str, Any]) -> Agent:
    """The agent in a row that has all columns of the table."""
    return Agent(**{**row, "limits": Limits(**row["limits"])})


def _found(row: RowMapping | None, slug: str) -> Agent:
    if row is None:
        raise NotFound(f"There is no agent '{slug[:80]}'.", code="AGENT_NOT_FOUND")
    return read_agent(row)


def _checked(**values: Any) -> dict[str, Any]:
    """What is given, as it is stored. Raises InvalidRequest."""
    return {name: CHECKS[name](value) for name, value in values.items() if value is not None}
