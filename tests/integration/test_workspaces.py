"""Workspaces and threads."""

from pathlib import Path

import anyio
import pytest

from adapters.postgres import Database
from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.workspaces import Workspaces

pytestmark = pytest.mark.anyio


async def test_the_defaults_are_made_once_by_any_number_of_processes(database_url: str, database: Database) -> None:
    other = Database(database_url, 5)
    await other.open()
    try:
        async with anyio.create_task_group() as tasks:
            for each in (database, other) * 5:
                tasks.start_soon(Workspaces(each).ensure_defaults)
    finally:
        await other.close()
    workspaces = Workspaces(database)
    (workspace,) = await workspaces.list()
    assert (workspace.slug, workspace.name, workspace.type) == ("default", "Default", "workspace")
    found, threads = await workspaces.list_threads("default")
    assert found == workspace
    assert [(thread.slug, thread.name) for thread in threads] == [("general", "General")]


async def test_workspaces_and_threads_are_made_listed_and_removed(database: Database) -> None:
    workspaces = Workspaces(database)
    await workspaces.ensure_defaults()
    operations = await workspaces.create("Operations")
    again = await workspaces.create("Operations")
    assert (operations.slug, again.slug) == ("operations", "operations-2")
    first = await workspaces.create_thread("operations", "Daily news")
    second = await workspaces.create_thread("operations", "Daily news")
    elsewhere = await workspaces.create_thread("operations-2", "Daily news")
    assert (first.slug, second.slug, elsewhere.slug) == ("daily-news", "daily-news-2", "daily-news")
    assert (await workspaces.list_threads("operations"))[1] == [first, second]
    assert await workspaces.remove_thread("operations", "daily-news") == first
    assert (await workspaces.list_threads("operations"))[1] == [second]
    assert await workspaces.remove("operations") == operations
    assert [workspace.slug for workspace in await workspaces.list()] == ["default", "operations-2"]
    assert (await workspaces.list_threads("operations-2"))[1] == [elsewhere]


async def test_the_defaults_cannot_be_removed(database: Database) -> None:
    workspaces = Workspaces(database)
    await workspaces.ensure_defaults()
    with pytest.raises(Conflict):
        await workspaces.remove("default")
    with pytest.raises(Conflict):
        await workspaces.remove_thread("default", "general")
    await workspaces.create("Other")
    await workspaces.create_thread("other", "General")
    assert (await workspaces.remove_thread("other", "general")).slug == "general"


async def test_a_slug_is_taken_once_and_must_be_one(database: Database) -> None:
    workspaces = Workspaces(database)
    await workspaces.create("One", slug="one")
    await workspaces.create_thread("one", "T", slug="t")
    with pytest.raises(Conflict, match="'one' is taken"):
        await workspaces.create("Two", slug="one")
    with pytest.raises(Conflict, match="'t' is taken"):
        await workspaces.create_thread("one", "T", slug="t")
    with pytest.raises(InvalidRequest):
        await workspaces.create("Two", slug="Two words")
    with pytest.raises(InvalidRequest):
        await workspaces.create_thread("one", "New", slug="create_new")
    with pytest.raises(InvalidRequest):
        await workspaces.create(" ")


async def test_what_is_not_there_is_not_found(database: Database, tmp_path: Path) -> None:
    workspaces = Workspaces(database)
    await workspaces.create("One")
    for call in (
        workspaces.list_threads("none"),
        workspaces.remove("none"),
        workspaces.create_thread("none", "T"),
        workspaces.remove_thread("none", "t"),
        workspaces.remove_thread("one", "t"),
    ):
        with pytest.raises(NotFound, match="not found"):
            await call
