"""Permissions: which app holds what, and how an app asks for more.

Asking is never consent. What an app asks for becomes a pending request; the answer comes from the policy in the settings, from the
command line, or from the admin surface, in this process or another one on the same database.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import select

from adapters.postgres import Database, Notifications, notify
from homeport import grants as storage
from homeport.errors import Conflict, InvalidRequest, NotFound, TooManyRequests
from homeport.grants import Grant, PermissionRequest, State
from homeport.identity import IDENTITY_CHANNEL, Identity
from homeport.ids import parse_uuid
from homeport.paging import Page, fetch_page
from homeport.permission_names import MAX_NAME_LENGTH, check_grantable, check_permission, is_reserved
from homeport.settings import Settings
from homeport.tables import grants, permission_requests
from homeport.waiters import Waiters, wait_for_change

MAX_PENDING_PER_APP = 100
MAX_GRANTS_PER_APP = 1000
MAX_WAITERS = 256

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the permissions that an app asked for, in the order it named them; ``undecided`` ones are still pending."""

    granted: list[str]
    denied: list[str]
    undecided: list[str]
    message: str


class Permissions:
    """Grants per app, and the handshake by which an app asks for one.

    ``recheck_s`` is how often a waiting request looks at the database although no notification came.
    """

    def __init__(
        self, settings: Settings, database: Database, notifications: Notifications, identity: Identity, *, recheck_s: float = 5.0
    ) -> None:
        self._settings = settings
        self._database = database
        self._identity = identity
        self._recheck_s = recheck_s
        self._waiters = Waiters()
        notifications.subscribe(IDENTITY_CHANNEL, self._wake)
        notifications.on_gap(self._waiters.wake_all)

    async def register(self, app_id: str | None, app_name: str | None, permissions: Iterable[str]) -> Answer:
        """Ask for all ``permissions`` at once and wait, at most the setting ``permission_wait_s``, until each is decided.

        Raises InvalidRequest (no app id, bad name), NotFound (APP_NOT_FOUND), TooManyRequests.
        """
        names = [check_permission(name) for name in dict.fromkeys(permissions)]
        if len(names) > MAX_PENDING_PER_APP:
            raise InvalidRequest(f"An app can ask for at most {MAX_PENDING_PER_APP} permissions at once.")
        owner = _require_app_id(app_id)
        states = await self._read(owner, names)
        if missing := [name for name in names if name not in states]:
            states |= await self._ask(owner, app_name, missing)
        if "granted" in states.values():
            # The client repeats its call at once; what this process cached before the grant must not refuse it.
            self._identity.forget(f"app:{owner}")
        return _answer(owner, names, states, was_asked=bool(missing))

    async def request(self, app_id: str | None, app_name: str | None, permission: str) -> bool:
        """Ask for one permission; True when it is granted. Waits and raises like ``register``."""
        return bool((await self.register(app_id, app_name, [permission])).granted)

    async def grant_by_policy(self, app_id: UUID, permission: str) -> None:
        """Grant a permission if the policy grants it without a person and nothing is decided about it. Raises NotFound, TooManyRequests."""
        if self._settings.permission_policy != "prompt" and not is_reserved(permission):
            await self._ask(app_id, None, [permission])

    async def list_grants(self, app_id: UUID, *, limit: int = 50, cursor: str | None = None) -> Page[Grant]:
        """The app's remembered decisions, by name."""
        statement = select(*storage.GRANT_COLUMNS).where(grants.c.app_id == app_id)
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, [grants.c.permission], scope=f"grants {app_id}", limit=limit, cursor=cursor)
        return Page([Grant(**row) for row in page.items], page.next_cursor)

    async def set_grant(self, app_id: UUID, permission: str, state: State, decided_by: str) -> Grant:
        """Grant or deny a permission, whether or not the app asked for it; a pending request for it is decided with it.

        Raises NotFound (no such app) and InvalidRequest (bad name, or ``admin.*``, which no app can hold).
        """
        check_grantable(permission)
        asked = (permission_requests.c.app_id == app_id, permission_requests.c.permission == permission)
        async with self._database.transaction() as connection:
            await storage.lock_app(connection, app_id)
            grant = await storage.store_grant(connection, app_id, permission, state, decided_by)
            await storage.close_request(connection, state, *asked)
            await notify(connection, IDENTITY_CHANNEL, f"app:{app_id}")
        self._identity.forget(f"app:{app_id}")
        return grant

    async def reset_grant(self, app_id: UUID, permission: str) -> Grant:
        """Forget one decision, so that the app may ask again; returns what was forgotten. Raises NotFound."""
        forgotten = await self._forget_grants(app_id, permission)
        if not forgotten:
            raise NotFound(f"There is no decision about '{permission[:MAX_NAME_LENGTH]}' for this app.")
        return forgotten[0]

    async def reset_grants(self, app_id: UUID) -> list[Grant]:
        """Forget every decision about the app; returns what was forgotten. Raises NotFound when there is no such app."""
        return await self._forget_grants(app_id)

    async def list_requests(self, *, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[PermissionRequest]:
        """Requests of all apps, oldest first, only those in ``state`` when it is given."""
        statement = storage.select_requests()
        if state:
            statement = statement.where(permission_requests.c.state == state)
        order = [permission_requests.c.requested_at, permission_requests.c.id]
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, statement, order, scope=f"permission_requests {state or ''}", limit=limit, cursor=cursor)
        return Page([PermissionRequest(**row) for row in page.items], page.next_cursor)

    async def get_request(self, request_id: str) -> PermissionRequest:
        """One request. Raises NotFound."""
        async with self._database.transaction() as connection:
            return await storage.find_request(connection, _require_request_id(request_id))

    async def decide(self, request_id: str, decision: State, decided_by: str) -> PermissionRequest:
        """Decide a pending request and remember it as the app's grant, in one transaction. Deciding the same again changes nothing.

        Raises NotFound, and Conflict when it was already decided the other way.
        """
        key = _require_request_id(request_id)
        async with self._database.transaction() as connection:
            found = await storage.find_request(connection, key)
            await storage.lock_app(connection, found.app_id)
            if await storage.close_request(connection, decision, permission_requests.c.id == key):
                await storage.store_grant(connection, found.app_id, found.permission, decision, decided_by)
                await notify(connection, IDENTITY_CHANNEL, f"app:{found.app_id}")
            decided = await storage.find_request(connection, key)
        self._identity.forget(f"app:{found.app_id}")
        if decided.state != decision:
            raise Conflict(f"This request was already {decided.state}; change the app's grant for '{decided.permission}' instead.")
        return decided

    async def _read(self, app_id: UUID, names: Sequence[str]) -> dict[str, State]:
        async with self._database.transaction() as connection:
            states = await storage.read_states(connection, app_id, names)
        return states | dict.fromkeys(filter(is_reserved, names), "denied")

    async def _ask(self, app_id: UUID, app_name: str | None, names: Sequence[str]) -> dict[str, State]:
        """Settle ``names``, none of which is decided yet, by the policy."""
        if self._settings.permission_policy == "prompt":
            with self._waiting(app_id) as changed:
                await self._record_requests(app_id, app_name, names)
                return await self._wait(app_id, names, changed)
        async with self._database.transaction() as connection:
            app = await storage.lock_app(connection, app_id)
            declared = names if self._settings.permission_policy == "allow" else app["manifest"].get("permissions", ())
            # Read again under the lock: a decision made meanwhile by a person stands.
            states = await storage.read_states(connection, app_id, names)
            allowed = [name for name in names if name in declared and name not in states]
            count = await storage.count_grants(connection, app_id)
            if count + len(allowed) > MAX_GRANTS_PER_APP:
                raise TooManyRequests(f"{count} decisions are remembered for this app; reset those that it does not need.")
            for name in allowed:
                await storage.store_grant(connection, app_id, name, "granted", f"policy:{self._settings.permission_policy}")
                states[name] = "granted"
            await notify(connection, IDENTITY_CHANNEL, f"app:{app_id}")
        return {name: states.get(name, "denied") for name in names}

    async def _record_requests(self, app_id: UUID, app_name: str | None, names: Sequence[str]) -> None:
        async with self._database.transaction() as connection:
            app = await storage.lock_app(connection, app_id)
            pending = await storage.pending_permissions(connection, app_id)
            # Read again under the lock: what was decided meanwhile, for another request of the app, is not asked about.
            decided = await storage.read_states(connection, app_id, names)
            new = [name for name in names if name not in pending and name not in decided]
            if len(pending) + len(new) > MAX_PENDING_PER_APP:
                raise TooManyRequests(
                    f"{len(pending)} permission requests of this app wait for a decision; decide them before it asks for more."
                )
            if new:
                await storage.add_requests(connection, app_id, _printable(app_name) or app["name"], new)
        if new:
            log.info("permission requested", app=app["slug"], permissions=new, decide_with=f"homeport apps grant {app['slug']} {new[0]}")

    async def _wait(self, app_id: UUID, names: Sequence[str], changed: asyncio.Event) -> dict[str, State]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._settings.permission_wait_s
        while True:
            # Cleared before reading: a change that arrives while we read sets it again and is not lost.
            changed.clear()
            states = await self._read(app_id, names)
            remaining_s = deadline - clock()
            if len(states) == len(names) or remaining_s <= 0:
                return states
            await wait_for_change(changed, min(remaining_s, self._recheck_s))

    @contextmanager
    def _waiting(self, app_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever a decision about the app may have been made."""
        if len(self._waiters) >= MAX_WAITERS:
            raise TooManyRequests("Too many apps are waiting for permissions; decide some of the pending requests, then try again.")
        with self._waiters.waiting(app_id) as changed:
            yield changed

    def _wake(self, payload: str) -> None:
        kind, _, text = payload.partition(":")
        self._waiters.wake(parse_uuid(text) if kind == "app" else None)

    async def _forget_grants(self, app_id: UUID, permission: str | None = None) -> list[Grant]:
        only = () if permission is None else (grants.c.permission == permission,)
        async with self._database.transaction() as connection:
            await storage.lock_app(connection, app_id)
            forgotten = await storage.delete_grants(connection, app_id, *only)
            await notify(connection, IDENTITY_CHANNEL, f"app:{app_id}")
        self._identity.forget(f"app:{app_id}")
        return forgotten


def _require_app_id(app_id: str | None) -> UUID:
    if not app_id:
        raise InvalidRequest("This call needs app_id: the id that the app was registered with.", code="MISSING_APP_ID")
    if (parsed := parse_uuid(app_id)) is None:
        raise storage.app_not_found()
    return parsed


def _require_request_id(request_id: str) -> UUID:
    if (parsed := parse_uuid(request_id)) is None:
        raise NotFound("Permission request not found")
    return parsed


def _printable(name: str | None) -> str:
    """The name that an app gave itself, safe to show on a terminal."""
    return "".join(character if character.isprintable() else " " for character in (name or "")[:200]).strip()


def _answer(app_id: UUID, names: Sequence[str], states: dict[str, State], *, was_asked: bool) -> Answer:
    granted, denied = ([name for name in names if states.get(name) == state] for state in ("granted", "denied"))
    undecided = [name for name in names if name not in states]
    if undecided:
        message = (
            f"Nobody has decided yet about: {', '.join(undecided)}. "
            f"Grant with 'homeport apps grant {app_id} {undecided[0]}' (or deny), then start the app again."
        )
    else:
        message = "Permissions decided" if was_asked else "All permissions already processed"
    return Answer(granted, denied, undecided, message)
