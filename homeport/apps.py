"""Apps: registered programs with an id, a slug, a manifest and a folder of their own."""

import asyncio
import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import ColumnElement, RowMapping, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.pgvector import forget_namespaces
from adapters.postgres import Database, notify
from adapters.processes import log_path, remove_log
from homeport.errors import Conflict, InvalidRequest, NotFound, Unavailable
from homeport.identity import IDENTITY_CHANNEL, Identity, Principal
from homeport.ids import check_name, parse_uuid, uuid7
from homeport.launch import Launch, change_launch, read_launch
from homeport.paging import Page, fetch_page
from homeport.permission_names import check_grantable
from homeport.secrets import SecretBox
from homeport.settings import Settings
from homeport.slugs import check_slug, insert_with_slug, slug_taken, slugs_for
from homeport.tables import activities, agent_sessions, api_keys, apps, jobs, tasks, user_tokens, webhook_events
from homeport.vectors.configs import remove_config

MAX_DECLARED = 100
MAX_DESCRIPTION = 2000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """A registered app. ``permissions`` is what its manifest declares, not what it holds; ``launch`` is how it is
    started from here, None when it is not."""

    id: UUID
    slug: str
    name: str
    description: str
    kind: str
    permissions: list[str]
    requires_user: bool
    launch: Launch | None
    created_at: datetime
    updated_at: datetime


class Apps:
    """Registers, changes and removes apps, and keeps each one's folder."""

    def __init__(self, settings: Settings, database: Database, identity: Identity, secret_box: SecretBox) -> None:
        self._root = settings.data_dir / "apps"
        self._database = database
        self._identity = identity
        self._secret_box = secret_box
        # Not in the apps' folders: an app may do there what it wants.
        self.log_dir = settings.data_dir / "app-logs"

    async def register(
        self,
        name: str,
        *,
        slug: str | None = None,
        app_id: str | None = None,
        description: str | None = None,
        permissions: Sequence[str] | None = None,
        requires_user: bool | None = None,
        launch: Mapping[str, Any] | None = None,
    ) -> App:
        """Register an app. Without ``slug`` one is made from the name; without ``app_id`` one is drawn. ``launch`` are fields of
        Launch, and ``env`` with its values.

        Raises InvalidRequest (bad name, slug, id, permission or launch) and Conflict (id or slug taken).
        """
        name = check_name(name, "an app")
        slugs = [check_slug(slug)] if slug else slugs_for(name, "app")
        values: dict[str, Any] = {
            "id": _check_id(app_id) if app_id else uuid7(),
            "name": name,
            "description": _check_description(description or ""),
            "manifest": {"permissions": _check_declared(permissions or ())},
            "requires_user": bool(requires_user),
        }
        if launch is not None:
            values |= self._launch_values(values["id"], None, launch)
        async with self._database.transaction() as connection:
            try:
                app = _app(await insert_with_slug(connection, apps, values, slugs, [apps.c.slug]))
            except IntegrityError as error:
                raise Conflict(f"An app with the id {values['id']} is registered already.", code="APP_EXISTS") from error
            if app_id:
                await _claim_rows(connection, app.id)
        return app

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[App]:
        """All apps, oldest first."""
        order = [apps.c.created_at, apps.c.id]
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, select(apps), order, scope="apps", limit=limit, cursor=cursor)
        return Page([_app(row) for row in page.items], page.next_cursor)

    async def get(self, app: str) -> App:
        """The app with this id or slug. Raises NotFound (APP_NOT_FOUND)."""
        async with self._database.transaction() as connection:
            return _found((await connection.execute(select(apps).where(_named(app)))).mappings().one_or_none())

    async def update(
        self,
        app: str,
        *,
        name: str | None = None,
        slug: str | None = None,
        description: str | None = None,
        permissions: Sequence[str] | None = None,
        requires_user: bool | None = None,
        launch: Mapping[str, Any] | None = None,
    ) -> App:
        """Change what is given of the app with this id or slug; None leaves a value as it is. What it holds is not touched, and how it is
        started holds from its next start on.

        Raises NotFound, InvalidRequest, and Conflict when the slug is taken.
        """
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(apps).where(_named(app)).with_for_update())
            before = _found_row(rows.mappings().one_or_none())
            changes: dict[str, Any] = {
                "name": None if name is None else check_name(name, "an app"),
                "slug": None if slug is None else check_slug(slug),
                "description": None if description is None else _check_description(description),
                "manifest": None if permissions is None else before["manifest"] | {"permissions": _check_declared(permissions)},
                "requires_user": requires_user,
            }
            if launch is not None:
                changes |= self._launch_values(before["id"], read_launch(before["launch"]), launch)
            given = {column: value for column, value in changes.items() if value is not None}
            statement = update(apps).where(apps.c.id == before["id"]).values(updated_at=func.now(), **given).returning(apps)
            try:
                changed = _app((await connection.execute(statement)).mappings().one())
            except IntegrityError as error:
                raise slug_taken(changes["slug"]) from error
            await notify(connection, IDENTITY_CHANNEL, f"app:{changed.id}")
        self._identity.forget(f"app:{changed.id}")
        return changed

    async def remove(self, app: str) -> App:
        """Remove the app with this id or slug, its activities, vectors, jobs, grants, requests and user token.

        Its folder is not deleted but moved to ``apps/.removed/<id>-<unix time>``, for a person to delete. Raises NotFound.
        """
        async with self._database.transaction() as connection:
            removed = _found((await connection.execute(delete(apps).where(_named(app)).returning(apps))).mappings().one_or_none())
            await _delete_rows(connection, removed.id)
            await notify(connection, IDENTITY_CHANNEL, f"app:{removed.id}")
        self._identity.forget(f"app:{removed.id}")
        await asyncio.to_thread(self._set_folder_aside, removed.id)
        await asyncio.to_thread(remove_log, log_path(self.log_dir, removed.id))
        return removed

    async def open_launch(self, app: str) -> tuple[App, Launch, dict[str, str]]:
        """The app with this id or slug, how it is started, and its own environment variables.

        Raises NotFound, Conflict (APP_NOT_LAUNCHABLE) when it is not started from here, and Unavailable (SECRET_UNREADABLE).
        """
        async with self._database.transaction() as connection:
            row = _found_row((await connection.execute(select(apps).where(_named(app)))).mappings().one_or_none())
        found = _app(row)
        if found.launch is None:
            raise Conflict("Nobody has said how it is started.", code="APP_NOT_LAUNCHABLE")
        sealed = row["env"]
        return found, found.launch, {} if sealed is None else orjson.loads(self._secret_box.open(sealed, _env_context(found.id)))

    async def folder(self, app_id: UUID) -> Path:
        """The folder of an app, as ``data_dir`` gives it."""
        return await self._make_folder(app_id)

    async def data_dir(self, principal: Principal) -> Path:
        """The folder that belongs to the principal alone, absolute, made with mode 0700 if it is missing.

        Raises Conflict (UNSAFE_DATA_DIR) when a symbolic link or a file stands in its place, Unavailable when it cannot be made.
        """
        return await self._make_folder(principal.owner_id)

    async def _make_folder(self, owner_id: UUID) -> Path:
        folder = self._root / str(owner_id)
        try:
            await asyncio.to_thread(_make_private_folder, self._root, folder)
        except OSError as error:
            message = f"The app's data directory {folder} cannot be made: {error.strerror}."
            raise Unavailable(message, code="DATA_DIR_UNAVAILABLE") from error
        return folder

    def _launch_values(self, app_id: UUID, before: Launch | None, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of how an app is started."""
        launch, env = change_launch(before, changes)
        sealed = {} if env is None else {"env": self._secret_box.seal(orjson.dumps(env).decode(), _env_context(app_id))}
        return {"launch": launch.as_stored(), **sealed}

    def _set_folder_aside(self, app_id: UUID) -> None:
        folder, aside = self._root / str(app_id), self._root / ".removed"
        try:
            if os.path.lexists(folder):
                _make_private_folder(self._root, aside)
                folder.rename(aside / f"{app_id}-{time.time_ns() // 1_000_000_000}")
        except (OSError, Conflict) as error:
            log.warning("the folder of a removed app was left in place", folder=str(folder), reason=str(error))


def _make_private_folder(*folders: Path) -> None:
    folders[0].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in folders:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # What lies behind a link is not ours to hand out.
        mode = folder.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise Conflict(f"{folder} is a symbolic link or a file instead of a folder; remove it.", code="UNSAFE_DATA_DIR")
        if os.name == "posix" and stat.S_IMODE(mode) != 0o700:
            folder.chmod(0o700)


async def _claim_rows(connection: AsyncConnection, app_id: UUID) -> None:
    """Make sure that a chosen id owns nothing yet."""
    if (await connection.execute(select(api_keys.c.id).where(api_keys.c.id == app_id))).first():
        raise Conflict(f"The id {app_id} belongs to an API key; choose another.", code="APP_EXISTS")
    # What a request of an earlier app with this id wrote while that app was being removed is nobody's.
    await _delete_rows(connection, app_id)


async def _delete_rows(connection: AsyncConnection, app_id: UUID) -> None:
    await connection.execute(delete(activities).where(activities.c.owner_id == app_id))
    await connection.execute(delete(user_tokens).where(user_tokens.c.owner_id == app_id))
    await connection.execute(delete(jobs).where(jobs.c.owner_id == app_id))
    await connection.execute(delete(agent_sessions).where(agent_sessions.c.owner_id == app_id))
    await connection.execute(delete(tasks).where(tasks.c.owner_id == app_id))
    await connection.execute(delete(webhook_events).where(webhook_events.c.owner_id == app_id))
    await forget_namespaces(connection, app_id)
    await remove_config(connection, app_id)


def _env_context(app_id: UUID) -> str:
    return f"app:{app_id}:env"


def _named(app: str) -> ColumnElement[bool]:
    app_id = parse_uuid(app)
    return apps.c.id == app_id if app_id else apps.c.slug == app


def _app(row: RowMapping) -> App:
    values = {field: row[field] for field in App.__slots__ if field not in ("permissions", "launch")}
    return App(permissions=list(row["manifest"].get("permissions", ())), launch=read_launch(row["launch"]), **values)


def _found_row(row: RowMapping | None) -> RowMapping:
    if row is None:
        raise NotFound("App not found", code="APP_NOT_FOUND")
    return row


def _found(row: RowMapping | None) -> App:
    return _app(_found_row(row))


def _check_id(app_id: str) -> UUID:
    if (parsed := parse_uuid(app_id)) is None:
        raise InvalidRequest(f"'{app_id[:80]}' is not a UUID; an app's id is one, or leave it out.")
    return parsed


def _check_description(description: str) -> str:
    if len(description) > MAX_DESCRIPTION:
        raise InvalidRequest(f"A description has at most {MAX_DESCRIPTION} characters.")
    return description


def _check_declared(permissions: Sequence[str]) -> list[str]:
    declared = [check_grantable(permission) for permission in dict.fromkeys(permissions)]
    if len(declared) > MAX_DECLARED:
        raise InvalidRequest(f"A manifest declares at most {MAX_DECLARED} permissions.")
    return declared
