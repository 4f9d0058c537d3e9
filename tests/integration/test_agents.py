"""Agents."""

import anyio
import pytest

from adapters.postgres import Database
from homeport.agents import Agents
from homeport.errors import Conflict, InvalidRequest, NotFound

pytestmark = pytest.mark.anyio


async def test_the_default_agent_is_made_once_and_stays(database: Database) -> None:
    agents = Agents(database)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(agents.ensure_defaults)
    (agent,) = await agents.list()
    assert (agent.slug, agent.display_name, agent.hub_id) == ("@agent", "Agent", None)
    assert agent.description
    with pytest.raises(Conflict):
        await agents.remove("@agent")


async def test_agents_are_made_listed_and_removed(database: Database) -> None:
    agents = Agents(database)
    first = await agents.create("Order Processor", description="Processes orders", hub_id="hub-1")
    second = await agents.create("Order Processor")
    third = await agents.create("Helper", slug="@helper")
    assert (first.slug, first.description, first.hub_id) == ("order-processor", "Processes orders", "hub-1")
    assert (second.slug, third.slug) == ("order-processor-2", "@helper")
    assert await agents.remove("order-processor") == first
    assert await agents.list() == [second, third]
    with pytest.raises(NotFound):
        await agents.remove("order-processor")


async def test_a_slug_is_taken_once_and_must_be_one(database: Database) -> None:
    agents = Agents(database)
    await agents.create("One", slug="@one")
    with pytest.raises(Conflict):
        await agents.create("Other", slug="@one")
    for slug in ("@", "@@one", "One", "a@b"):
        with pytest.raises(InvalidRequest):
            await agents.create("Other", slug=slug)
    with pytest.raises(InvalidRequest):
        await agents.create("\n")
    with pytest.raises(InvalidRequest):
        await agents.create("Long", description="x" * 2001)
