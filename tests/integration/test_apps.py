"""Registered apps and their folders."""

import os
import stat
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from homeport.apps import App
from homeport.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tests.integration.parts import Parts, key_principal, open_parts

pytestmark = pytest.mark.anyio


async def test_an_app_gets_an_id_and_a_slug_of_its_own(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.apps.register(" Café Notes! ", description="Keeps notes", permissions=["llm.chat", "llm.chat"], requires_user=True)
        assert (app.name, app.slug, app.description, app.kind) == ("Café Notes!", "cafe-notes", "Keeps notes", "local")
        assert (app.permissions, app.requires_user) == (["llm.chat"], True)
        assert await here.apps.get(str(app.id)) == await here.apps.get("cafe-notes") == app


async def test_apps_of_one_name_get_different_slugs_also_at_once(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        made: list[App] = []

        async def register(parts: Parts) -> None:
            made.append(await parts.apps.register("Notes"))

        async with anyio.create_task_group() as tasks:
            for parts in (here, there) * 6:
                tasks.start_soon(register, parts)
        slugs = {app.slug for app in made}
        assert len(slugs) == 12
        assert slugs > {"notes", *(f"notes-{number}" for number in range(2, 10))}
        assert all(slug.startswith("notes") for slug in slugs)


@pytest.mark.parametrize(
    ("name", "slug"), [("日本", "app"), ("--", "app"), ("x" * 200, "x" * 63), ("0190d2c8-0000-7000-8000-000000000000",) * 2]
)
async def test_every_name_has_a_slug_and_none_looks_like_an_id(database_url: str, tmp_path: Path, name: str, slug: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.apps.register(name)
        assert app.slug == (f"app-{slug}" if slug == name else slug)
        assert await here.apps.get(app.slug) == app


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"name": "  "}, "name"),
        ({"name": "a\x1b[2Jb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "Notes", "slug": "Notes"}, "slug"),
        ({"name": "Notes", "slug": "a/b"}, "slug"),
        ({"name": "Notes", "slug": "0190d2c8-0000-7000-8000-000000000000"}, "slug"),
        ({"name": "Notes", "app_id": "notes"}, "UUID"),
        ({"name": "Notes", "permissions": ["llm.*"]}, "llm"),
        ({"name": "Notes", "permissions": ["admin.apps.read"]}, "admin.apps.read"),
        ({"name": "Notes", "permissions": [f"a.p{number}" for number in range(101)]}, "100"),
        ({"name": "Notes", "description": "x" * 2001}, "2000"),
        ({"name": "Notes", "description": "\x00"}, "U"),
    ],
)
async def test_what_cannot_be_registered_is_refused_with_the_reason(
    database_url: str, tmp_path: Path, values: dict[str, Any], complaint: str
) -> None:
    async with open_parts(database_url, tmp_path) as here:
        with pytest.raises(InvalidRequest, match=complaint):
            await here.apps.register(**values)
        assert (await here.apps.list()).items == []


async def test_an_id_or_slug_can_be_chosen_once(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app_id = str(uuid4())
        app = await here.apps.register("Notes", app_id=app_id, slug="mine")
        assert (str(app.id), app.slug) == (app_id, "mine")
        with pytest.raises(Conflict) as refused:
            await here.apps.register("Other", app_id=app_id)
        assert refused.value.code == "APP_EXISTS"
        with pytest.raises(Conflict) as refused:
            await here.apps.register("Other", slug="mine")
        assert refused.value.code == "SLUG_TAKEN"
        assert (await here.apps.list()).items == [app]


async def test_an_app_cannot_take_the_rows_of_a_key_by_its_id(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        key, _ = await here.keys.create("laptop")
        await here.activities.create(key_principal(key.id), {"private": True})
        with pytest.raises(Conflict, match="belongs to an API key"):
            await here.apps.register("Thief", app_id=str(key.id))
        assert len(await here.activities.list(key_principal(key.id))) == 1


async def test_changing_an_app_touches_only_what_is_given(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.apps.register("Notes", description="old", permissions=["llm.chat"])
        other = await here.apps.register("Other")
        renamed = await here.apps.update("notes", name="Better notes")
        assert (renamed.name, renamed.slug, renamed.description, renamed.permissions) == ("Better notes", "notes", "old", ["llm.chat"])
        assert renamed.updated_at > app.updated_at
        assert renamed.created_at == app.created_at
        changed = await here.apps.update(str(app.id), slug="better", description="", permissions=[], requires_user=True)
        assert (changed.slug, changed.description, changed.permissions, changed.requires_user) == ("better", "", [], True)
        assert not (await here.apps.update("better", requires_user=False)).requires_user
        with pytest.raises(Conflict, match="'other' is taken"):
            await here.apps.update("better", name="X", slug="other")
        assert await here.apps.get("other") == other
        assert (await here.apps.get("better")).name == "Better notes"


@pytest.mark.parametrize("app_id", ["7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09", "nobody", "", "\x00"])
async def test_an_app_that_is_not_there_is_not_found(database_url: str, tmp_path: Path, app_id: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        expected = InvalidRequest if "\x00" in app_id else NotFound
        for call in (here.apps.get, here.apps.update, here.apps.remove):
            with pytest.raises(expected):
                await call(app_id)


async def test_removing_an_app_removes_everything_of_it_and_nothing_of_others(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        gone, kept = await here.app("Gone"), await here.app("Kept")
        for app in (gone, kept):
            await here.activities.create(app, {})
            await here.permissions.set_grant(app.id, "llm.chat", "granted", "test")
            await here.permissions.request(str(app.id), None, "llm.embed")
            await here.user_tokens.sync(app, "token", "test")
            (await here.apps.data_dir(app) / "file").write_text("x", encoding="utf-8")
        assert (await here.apps.remove("gone")).id == gone.id
        for table, column in (
            ("apps", "id"),
            ("activities", "owner_id"),
            ("grants", "app_id"),
            ("permission_requests", "app_id"),
            ("user_tokens", "owner_id"),
        ):
            assert await here.run_sql(f"SELECT {column} FROM {table}") == [(kept.id,)]
        assert not (tmp_path / "apps" / str(gone.id)).exists()
        (aside,) = (tmp_path / "apps" / ".removed").iterdir()
        assert aside.name.startswith(str(gone.id))
        assert (aside / "file").exists()
        assert (tmp_path / "apps" / str(kept.id) / "file").exists()


async def test_an_id_that_is_used_again_inherits_nothing(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        first = await here.app()
        await here.permissions.set_grant(first.id, "llm.chat", "granted", "test")
        await here.apps.remove(str(first.id))
        await here.activities.create(first, {"late": True})  # a request that was under way during the removal
        second = await here.app(app_id=str(first.id))
        assert second.granted == frozenset()
        assert await here.activities.list(second) == []


async def test_apps_are_listed_oldest_first_page_by_page(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        made = [await here.apps.register(f"App {number}") for number in range(5)]
        first = await here.apps.list(limit=3)
        second = await here.apps.list(limit=3, cursor=first.next_cursor)
        assert first.items + second.items == made
        assert second.next_cursor is None
        keys = await here.keys.list()
        assert keys.items == []
        assert keys.next_cursor is None
        with pytest.raises(InvalidRequest):
            await here.keys.list(cursor=first.next_cursor)


# The folder.


async def test_an_apps_folder_is_its_own_and_private(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path / "data") as here:
        app, other = await here.app("One"), await here.app("Two")
        folder = await here.apps.data_dir(app)
        assert folder == tmp_path / "data" / "apps" / str(app.id)
        assert folder.is_absolute()
        assert folder.is_dir()
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert await here.apps.data_dir(other) != folder


async def test_a_folder_that_exists_keeps_its_files_and_loses_its_openness(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        folder = await here.apps.data_dir(app)
        (folder / "file").write_text("kept", encoding="utf-8")
        folder.chmod(0o755)
        assert await here.apps.data_dir(app) == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "file").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("what", ["link to a folder", "dangling link", "file", "link above"])
async def test_what_is_no_folder_of_ours_is_refused(database_url: str, tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    async with open_parts(database_url, tmp_path / "data") as here:
        app = await here.app()
        folder = tmp_path / "data" / "apps" / str(app.id)
        folder.parent.mkdir(parents=True)
        if what == "file":
            folder.touch()
        elif what == "link above":
            folder.parent.rmdir()
            folder.parent.symlink_to(elsewhere)
        else:
            folder.symlink_to(elsewhere if what == "link to a folder" else tmp_path / "nowhere")
        with pytest.raises(Conflict) as refused:
            await here.apps.data_dir(app)
        assert refused.value.code == "UNSAFE_DATA_DIR"
        assert os.listdir(elsewhere) == []
        assert not (tmp_path / "nowhere").exists()
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


async def test_a_folder_that_cannot_be_made_is_reported(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    async with open_parts(database_url, tmp_path / "data") as here:
        with pytest.raises(Unavailable) as refused:
            await here.apps.data_dir(key_principal(uuid4()))
        assert refused.value.code == "DATA_DIR_UNAVAILABLE"
