"""Agents that apps can name. The default one is always there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, delete, select
from sqlalchemy.dialects.postgresql import insert

from adapters.postgres import Database
from homeport.agents.limits import Limits
from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.ids import check_name
from homeport.slugs import check_slug, insert_with_slug, slugs_for
from homeport.tables import agents

DEFAULT_AGENT = "@agent"
MAX_DESCRIPTION = 2000


@dataclass(frozen=True, slots=True)
class Agent:
    """A model with instructions, known by its slug."""

    id: int
    slug: str
    display_name: str
    description: str
    hub_id: str | None
    created_at: datetime
    instructions: str
    provider: str | None
    model: str | None
    tools: list[str]
    limits: Limits
    updated_at: datetime


class Agents:
    """Creates, lists and removes agents."""

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
            return [_agent(row) for row in rows.mappings()]

    async def create(self, display_name: str, slug: str | None = None, description: str = "", hub_id: str | None = None) -> Agent:
        """Make an agent; its slug (which may begin with @) is made from the name unless it is given.

        Raises InvalidRequest for a bad name, slug or description, and Conflict when the slug is taken.
        """
        display_name = check_name(display_name, "an agent")
        slugs = [_check_agent_slug(slug)] if slug else slugs_for(display_name, "agent")
        if len(description) > MAX_DESCRIPTION:
            raise InvalidRequest(f"A description has at most {MAX_DESCRIPTION} characters.")
        values = {"display_name": display_name, "description": description, "hub_id": hub_id}
        async with self._database.transaction() as connection:
            return _agent(await insert_with_slug(connection, agents, values, slugs, [agents.c.slug]))

    async def remove(self, slug: str) -> Agent:
        """Remove an agent. Raises NotFound, and Conflict for the default one."""
        if slug == DEFAULT_AGENT:
            raise Conflict("The default agent cannot be removed.")
        async with self._database.transaction() as connection:
            rows = await connection.execute(delete(agents).where(agents.c.slug == slug).returning(agents))
            row = rows.mappings().one_or_none()
        if row is None:
            raise NotFound("Agent not found")
        return _agent(row)


def _agent(row: RowMapping) -> Agent:
    return Agent(**{**row, "limits": Limits(**row["limits"])})


def _check_agent_slug(slug: str) -> str:
    check_slug(slug.removeprefix("@"))
    return slug
