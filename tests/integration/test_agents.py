"""Agents as data: made, read, changed and removed."""

from dataclasses import asdict, replace
from typing import Any

import anyio
import pytest

from adapters.postgres import Database
from homeport.agents import DEFAULT_AGENT, Agents, Limits
from homeport.agents.limits import BOUNDS
from homeport.errors import Conflict, InvalidRequest, NotFound

pytestmark = pytest.mark.anyio

WHOLE: dict[str, Any] = {
    "instructions": "File notes.\nAsk when in doubt.",
    "provider": "openai",
    "model": "gpt-4o",
    "tools": ["homeport/search_vectors", "files/*", "a/b/read"],
    "limits": {"turns": 3, "time_s": 1.5, "answer_tokens": 100},
}


@pytest.fixture
def agents(database: Database) -> Agents:
    """The agents of a database of the test's own; none are there."""
    return Agents(database)


async def test_the_default_agent_is_made_once_and_stays(agents: Agents) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(agents.ensure_defaults)
    (agent,) = await agents.list()
    assert (agent.slug, agent.display_name, agent.hub_id) == (DEFAULT_AGENT, "Agent", None)
    assert agent.description
    assert (agent.instructions, agent.provider, agent.model, agent.tools, agent.limits) == ("", None, None, [], Limits())
    with pytest.raises(Conflict):
        await agents.remove(DEFAULT_AGENT)


async def test_the_default_agent_can_be_changed_and_stays_so(agents: Agents) -> None:
    await agents.ensure_defaults()
    changed = await agents.update(DEFAULT_AGENT, instructions="Be brief.", tools=["*"])
    await agents.ensure_defaults()
    assert await agents.get(DEFAULT_AGENT) == changed
    assert (changed.instructions, changed.tools) == ("Be brief.", ["*"])


async def test_agents_are_made_listed_and_removed(agents: Agents) -> None:
    first = await agents.create("Order Processor", description="Processes orders", hub_id="hub-1")
    second = await agents.create("Order Processor")
    third = await agents.create("Helper", slug="@helper")
    assert (first.slug, first.description, first.hub_id) == ("order-processor", "Processes orders", "hub-1")
    assert (second.slug, third.slug) == ("order-processor-2", "@helper")
    assert await agents.remove("order-processor") == first
    assert await agents.list() == [second, third]
    for looked_for in (agents.remove, agents.get, agents.update):
        with pytest.raises(NotFound, match="There is no agent 'order-processor'") as caught:
            await looked_for("order-processor")
        assert caught.value.code == "AGENT_NOT_FOUND"


async def test_pages_follow_each_other(agents: Agents) -> None:
    made = [await agents.create(f"Agent {number}") for number in range(5)]
    first = await agents.list_page(limit=2)
    second = await agents.list_page(limit=2, cursor=first.next_cursor)
    third = await agents.list_page(limit=2, cursor=second.next_cursor)
    assert [*first.items, *second.items, *third.items] == made
    assert third.next_cursor is None


async def test_an_agent_is_read_as_it_was_made(agents: Agents) -> None:
    made = await agents.create("Note Keeper", **WHOLE)
    assert (made.instructions, made.provider, made.model, made.tools) == tuple(
        WHOLE[name] for name in ("instructions", "provider", "model", "tools")
    )
    assert made.limits == Limits(turns=3, time_s=1.5, answer_tokens=100)
    assert await agents.get("note-keeper") == made
    assert "File notes" not in repr(made)


async def test_a_change_leaves_the_rest_as_it_is(agents: Agents) -> None:
    made = await agents.create("Note Keeper", description="Files", hub_id="hub-1", **WHOLE)
    changed = await agents.update("note-keeper", display_name="Keeper", limits={"tokens": 5000})
    assert changed == replace(made, display_name="Keeper", limits=replace(made.limits, tokens=5000), updated_at=changed.updated_at)
    assert changed.updated_at > made.updated_at
    assert await agents.get("note-keeper") == changed


async def test_what_was_set_can_be_taken_back(agents: Agents) -> None:
    await agents.create("Note Keeper", hub_id="hub-1", description="Files", **WHOLE)
    limits = {"turns": None, "answer_tokens": None}
    plain = await agents.update("note-keeper", hub_id="", provider="", model="", instructions="", description="", tools=[], limits=limits)
    assert (plain.hub_id, plain.provider, plain.model, plain.instructions, plain.description, plain.tools) == (None, None, None, "", "", [])
    assert plain.limits == Limits(time_s=1.5)


async def test_changes_of_different_limits_at_once_are_all_kept(agents: Agents) -> None:
    await agents.create("Busy")
    values = {"turns": 2, "tokens": 3000, "time_s": 4.0, "tool_time_s": 5.0, "approval_s": 6.0, "result_chars": 700, "answer_tokens": 8}

    async def change(name: str, value: float) -> None:
        await agents.update("busy", limits={name: value})

    async with anyio.create_task_group() as tasks:
        for name, value in values.items():
            tasks.start_soon(change, name, value)
    assert asdict((await agents.get("busy")).limits) == values


async def test_a_slug_is_taken_once_and_must_be_one(agents: Agents) -> None:
    await agents.create("One", slug="@one")
    with pytest.raises(Conflict):
        await agents.create("Other", slug="@one")
    for slug in ("@", "@@one", "One", "a@b"):
        with pytest.raises(InvalidRequest):
            await agents.create("Other", slug=slug)
    with pytest.raises(InvalidRequest):
        await agents.create("\n")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "long description": ({"description": "x" * 2001}, "A description has at most 2000 characters, not 2001."),
    "long instructions": ({"instructions": "x" * 100_001}, "Instructions have at most 100000 characters, not 100001."),
    "a null character": ({"instructions": "a\0b"}, "Instructions have no character U+0000."),
    "two lines": ({"hub_id": "a\nb"}, "The id in a hub has at most 200 characters, without control characters."),
    "long provider": ({"provider": "x" * 201}, "The name of a provider has at most 200 characters"),
    "a bell": ({"model": "\x07"}, "The name of a model has at most 200 characters"),
    "no slash": ({"tools": ["files"]}, "'files' names no tool: write SERVER/TOOL"),
    "no server": ({"tools": ["/files"]}, "'/files' names no tool"),
    "no tool": ({"tools": ["files/"]}, "'files/' names no tool"),
    "any server": ({"tools": ["*/read"]}, "'*/read' names no tool"),
    "a null character in a tool": ({"tools": ["files/re\0ad"]}, "names no tool"),
    "long pattern": ({"tools": [f"files/{'x' * 400}"]}, "names no tool"),
    "many patterns": ({"tools": [f"files/{number}" for number in range(101)]}, "An agent takes at most 100 patterns of tools, not 101."),
    "no such limit": ({"limits": {"speed": 1}}, "There is no limit 'speed'. There are turns, tokens, time_s"),
}


@pytest.mark.parametrize(("values", "told"), WRONG.values(), ids=WRONG)
async def test_what_an_agent_cannot_be_is_refused_with_what_it_can(agents: Agents, values: dict[str, Any], told: str) -> None:
    await agents.create("There")
    with pytest.raises(InvalidRequest) as caught:
        await agents.create("Other", **values)
    assert told in caught.value.message
    with pytest.raises(InvalidRequest) as caught:
        await agents.update("there", **values)
    assert told in caught.value.message
    assert [agent.slug for agent in await agents.list()] == ["there"]


@pytest.mark.parametrize("name", BOUNDS)
async def test_each_limit_has_a_least_and_a_most(agents: Agents, name: str) -> None:
    least, most = BOUNDS[name]
    for number, fits in enumerate((least, most)):
        assert getattr((await agents.create(f"Fits {number}", limits={name: fits})).limits, name) == fits
    wrong = [least - 0.01, most + 1, float("nan"), float("inf"), True] + ([] if name.endswith("_s") else [least + 0.5])
    for value in wrong:
        with pytest.raises(InvalidRequest, match=f"The limit {name} must be a (whole )?number .*from {least:g} to {most:.0f}"):
            await agents.create("Does not", limits={name: value})


async def test_a_tool_is_named_once(agents: Agents) -> None:
    assert (await agents.create("Twice", tools=["files/read", "*", "files/read"])).tools == ["files/read", "*"]
