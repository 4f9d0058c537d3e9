"""Who is calling: an app by its id, or a developer by an API key, with what each may do.

A request costs no query: principals are cached in the process. A change notifies every process in the same transaction; while
notifications are not connected nothing is cached, and when some may have been missed all is dropped.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hmac import compare_digest
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import RowMapping, func, select

from adapters.postgres import Database, Notifications
from homeport.errors import PermissionMissing, Unauthorized
from homeport.ids import parse_uuid
from homeport.key_text import PREFIX_LENGTH, looks_like_key, parse_key
from homeport.key_usage import KeyUsage
from homeport.permission_names import covers, is_reserved
from homeport.tables import api_keys, apps, grants

# Every change to an app, a key or a grant is told here, in the transaction that makes it: ``app:<id>`` or ``key:<prefix>``.
IDENTITY_CHANNEL = "homeport_identity"
CACHE_SIZE = 10_000
# A connection can be dead without telling: nothing is believed for longer than this.
MAX_AGE_S = 60.0


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever makes a request.

    ``owner_id`` says whose rows it sees: the app's id, or the key's id. ``app_id`` is what it calls itself (``/sdk/ping`` reports it).
    ``granted`` and ``denied`` are permission patterns.
    """

    kind: Literal["app", "key"]
    id: UUID
    name: str
    owner_id: UUID
    app_id: str | None
    granted: frozenset[str]
    denied: frozenset[str]
    requires_user: bool = False

    def decide(self, permission: str) -> Literal["granted", "denied", "undecided"]:
        """Whether this principal may do what needs ``permission``. Only an app can be undecided: it may ask; a key's scopes are fixed."""
        if self.kind == "app" and is_reserved(permission):
            return "denied"
        if self.denied and _any_covers(self.denied, permission):
            return "denied"
        if permission in self.granted or _any_covers(self.granted, permission):
            return "granted"
        return "undecided" if self.kind == "app" else "denied"

    def remember(self) -> dict[str, Any]:
        """Who this is, as JSON, for work that is done later; what it may do is asked for again then (``Identity.recall``)."""
        return {"kind": self.kind, "id": str(self.id), "name": self.name, "app_id": self.app_id, "owner_id": str(self.owner_id)}

    @property
    def label(self) -> str:
        """How decisions made by this principal are signed."""
        return f"{self.kind}:{self.name}"


class _Dated(Protocol):
    @property
    def loaded_at(self) -> float: ...


Entry = TypeVar("Entry", bound=_Dated)


@dataclass(frozen=True, slots=True)
class _CachedApp:
    principal: Principal
    loaded_at: float


@dataclass(frozen=True, slots=True)
class _CachedKey:
    principal: Principal
    loaded_at: float
    digest: bytes
    expires_at: float | None


class _Cache(Generic[Entry]):
    """At most CACHE_SIZE entries; the oldest goes first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def get(self, name: str) -> Entry | None:
        entry = self._entries.get(name)
        return entry if entry is not None and time.monotonic() - entry.loaded_at < MAX_AGE_S else None

    def put(self, name: str, entry: Entry) -> None:
        self._entries.pop(name, None)
        if len(self._entries) >= CACHE_SIZE:
            del self._entries[next(iter(self._entries))]
        self._entries[name] = entry

    def drop(self, name: str) -> None:
        self._entries.pop(name, None)

    def clear(self) -> None:
        self._entries.clear()


class Identity:
    """Turns credentials into principals. ``usage`` notes when keys were last used; run ``usage.run()`` in the background."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self.usage = KeyUsage(database)
        self._database = database
        self._notifications = notifications
        self._apps: _Cache[_CachedApp] = _Cache()
        self._keys: _Cache[_CachedKey] = _Cache()
        self._generation = 0
        notifications.subscribe(IDENTITY_CHANNEL, self.forget)
        notifications.on_gap(self.forget_all)

    async def authenticate_app(self, app_id: str) -> Principal | None:
        """The app with this id, or None when the text is no id or no such app is registered."""
        name = app_id.lower()
        if self._notifications.is_connected and (entry := self._apps.get(name)):
            return entry.principal
        return await self._load_app(name)

    async def authenticate_key(self, text: str, app_id: str | None = None) -> Principal | None:
        """The holder of the key ``text``; None when the text is not one of our keys.

        ``app_id`` is the app that the caller says it is: its rows are used if it is registered, with the key's permissions.
        Raises Unauthorized (INVALID_API_KEY) for a key that is mistyped, unknown, revoked or expired.
        """
        if not looks_like_key(text):
            return None
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        entry = self._keys.get(text[:PREFIX_LENGTH]) if self._notifications.is_connected else None
        if entry is None:
            entry = await self._load_key(text, digest)
        if entry is None or not compare_digest(entry.digest, digest) or _has_passed(entry.expires_at):
            raise Unauthorized("The API key is not valid (unknown, revoked or expired).", code="INVALID_API_KEY")
        self.usage.record(entry.principal.id)
        return await self._as_app(entry.principal, app_id) if app_id else entry.principal

    async def require(self, principal: Principal, permission: str) -> Principal | None:
        """The principal as one that holds ``permission``; None when it has been removed, revoked or has expired. Raises PermissionMissing.

        What this process remembers may be older than a grant that another has just made, so the database is asked before refusing.
        """
        if principal.decide(permission) == "granted":
            return principal
        refreshed = await self.refresh(principal)
        if refreshed is not None and (decision := refreshed.decide(permission)) != "granted":
            raise PermissionMissing(permission, denied=decision == "denied")
        return refreshed

    async def refresh(self, principal: Principal) -> Principal | None:
        """The same principal as the database knows it now; None when it has been removed, revoked or has expired."""
        if principal.kind == "app":
            return await self._load_app(str(principal.id))
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == principal.id))).mappings().one_or_none()
        if row is None or not _is_valid(row):
            return None
        return replace(principal, name=row["name"], granted=frozenset(row["scopes"]))

    async def recall(self, remembered: Mapping[str, Any]) -> Principal | None:
        """Whom ``Principal.remember`` has noted, with what it may do now; None as in ``refresh``."""
        return await self.refresh(principal_without_grants(remembered))

    def forget(self, subject: str) -> None:
        """Drop what is cached of ``subject``: ``app:<uuid>`` or ``key:<prefix>``. Loads that are under way will not be cached."""
        self._generation += 1
        kind, _, name = subject.partition(":")
        if kind == "app":
            self._apps.drop(name)
        elif kind == "key":
            self._keys.drop(name)

    def forget_all(self) -> None:
        """Drop everything that is cached."""
        self._generation += 1
        self._apps.clear()
        self._keys.clear()

    async def _as_app(self, key: Principal, app_id: str) -> Principal:
        app = await self.authenticate_app(app_id)
        return Principal("key", key.id, key.name, app.id if app else key.id, app_id, key.granted, key.denied)

    async def _load_app(self, app_id: str) -> Principal | None:
        if (parsed := parse_uuid(app_id)) is None:
            return None
        generation = self._generation
        by_state = [func.array_agg(grants.c.permission).filter(grants.c.state == state) for state in ("granted", "denied")]
        statement = (
            select(apps.c.id, apps.c.name, apps.c.requires_user, *by_state)
            .select_from(apps.outerjoin(grants))
            .where(apps.c.id == parsed)
            .group_by(apps.c.id)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        key, name, requires_user, granted, denied = row
        principal = Principal("app", key, name, key, str(key), frozenset(granted or ()), frozenset(denied or ()), requires_user)
        if self._may_cache(generation):
            self._apps.put(str(key), _CachedApp(principal, time.monotonic()))
        return principal

    async def _load_key(self, text: str, digest: bytes) -> _CachedKey | None:
        if (parsed := parse_key(text)) is None:
            return None
        prefix, secret_hash = parsed
        generation = self._generation
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.prefix == prefix))).mappings().one_or_none()
        if row is None or not compare_digest(row["secret_hash"], secret_hash) or not _is_valid(row):
            return None
        principal = Principal("key", row["id"], row["name"], row["id"], None, frozenset(row["scopes"]), frozenset())
        expires_at = row["expires_at"].timestamp() if row["expires_at"] else None
        entry = _CachedKey(principal, time.monotonic(), digest, expires_at)
        if self._may_cache(generation):
            self._keys.put(prefix, entry)
        return entry

    def _may_cache(self, generation: int) -> bool:
        """Whether nothing can have changed unnoticed since a load began."""
        return generation == self._generation and self._notifications.is_connected


def principal_without_grants(remembered: Mapping[str, Any]) -> Principal:
    """Whom ``Principal.remember`` has noted, as one that may do nothing: good for saying on whose behalf something is done."""
    ids = UUID(remembered["id"]), UUID(remembered["owner_id"])
    return Principal(remembered["kind"], ids[0], remembered["name"], ids[1], remembered["app_id"], frozenset(), frozenset())


def _any_covers(patterns: Iterable[str], permission: str) -> bool:
    return any(covers(pattern, permission) for pattern in patterns)


def _is_valid(key: RowMapping) -> bool:
    return key["revoked_at"] is None and not _has_passed(key["expires_at"].timestamp() if key["expires_at"] else None)


def _has_passed(moment: float | None) -> bool:
    return moment is not None and moment <= time.time()
