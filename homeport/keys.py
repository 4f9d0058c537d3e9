"""API keys: made, listed, revoked. A key is shown once; what is kept is its readable prefix and the hash of its secret."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, notify
from homeport.errors import Forbidden, InvalidRequest, NotFound
from homeport.identity import IDENTITY_CHANNEL, Identity
from homeport.ids import check_name, parse_uuid, uuid7
from homeport.key_text import hash_secret, make_key
from homeport.paging import Page, fetch_page
from homeport.permission_names import check_scope, covers
from homeport.tables import api_keys

MAX_SCOPES = 100
_PUBLIC = [column for column in api_keys.c if column.name != "secret_hash"]
# Names the lock under which the first key is made, among all that a database may hold.
_FIRST_KEY_LOCK = zlib.crc32(b"homeport first key")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key after it was shown: never the key itself. ``prefix`` is its readable first part."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class Keys:
    """Creates, lists and revokes API keys."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._database = database
        self._identity = identity

    async def create(
        self,
        name: str,
        scopes: Sequence[str] = ("*",),
        expires_at: datetime | None = None,
        granted_by: Iterable[str] = ("*",),
    ) -> tuple[ApiKey, str]:
        """Make a key; returns what is stored and the key's text, which cannot be shown again.

        ``granted_by`` are the scopes of whoever creates it: a key can only narrow them. Raises Forbidden (SCOPE_NOT_HELD) when it would
        not, InvalidRequest for a bad name, bad scopes or an expiry that has passed.
        """
        wanted = [check_scope(scope) for scope in dict.fromkeys(scopes)]
        if not 1 <= len(wanted) <= MAX_SCOPES:
            raise InvalidRequest(f"A key needs 1 to {MAX_SCOPES} scopes; '*' gives everything.")
        held = tuple(granted_by)
        if missing := next((scope for scope in wanted if not any(covers(pattern, scope) for pattern in held)), None):
            raise Forbidden(f"A key can only be given what its creator holds, and '{missing}' is not among it.", code="SCOPE_NOT_HELD")
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidRequest("expires_at has passed; choose a time in the future, or none for a key that does not expire.")
        async with self._database.transaction() as connection:
            return await _insert_key(connection, check_name(name, "an API key"), wanted, expires_at)

    async def create_first(self, name: str) -> tuple[ApiKey, str] | None:
        """Make a key that may do everything if there has never been one; None when there has. Only one of several processes makes it."""
        async with self._database.transaction() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_FIRST_KEY_LOCK)))
            if (await connection.execute(select(api_keys.c.id).limit(1))).first():
                return None
            return await _insert_key(connection, check_name(name, "an API key"), ["*"], None)

    async def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[ApiKey]:
        """All keys, newest first, revoked and expired ones too."""
        order = [api_keys.c.created_at, api_keys.c.id]
        async with self._database.transaction() as connection:
            page = await fetch_page(connection, select(*_PUBLIC), order, scope="api_keys", limit=limit, cursor=cursor, descending=True)
        return Page([ApiKey(**row) for row in page.items], page.next_cursor)

    async def get(self, key_id: str) -> ApiKey:
        """One key by its id. Raises NotFound."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(*_PUBLIC).where(api_keys.c.id == parse_uuid(key_id)))
            return _found(rows.mappings().one_or_none())

    async def revoke(self, key_id: str) -> ApiKey:
        """Make a key useless from now on, everywhere. Revoking again changes nothing. Raises NotFound."""
        revoked_at = func.coalesce(api_keys.c.revoked_at, func.now())
        revoke = update(api_keys).where(api_keys.c.id == parse_uuid(key_id)).values(revoked_at=revoked_at)
        async with self._database.transaction() as connection:
            key = _found((await connection.execute(revoke.returning(*_PUBLIC))).mappings().one_or_none())
            await notify(connection, IDENTITY_CHANNEL, f"key:{key.prefix}")
        self._identity.forget(f"key:{key.prefix}")
        return key


async def _insert_key(connection: AsyncConnection, name: str, scopes: Sequence[str], expires_at: datetime | None) -> tuple[ApiKey, str]:
    prefix, key = make_key()
    values = {"id": uuid7(), "prefix": prefix, "secret_hash": hash_secret(key), "name": name, "scopes": scopes, "expires_at": expires_at}
    rows = await connection.execute(insert(api_keys).values(values).returning(*_PUBLIC))
    return ApiKey(**rows.mappings().one()), key


def _found(row: RowMapping | None) -> ApiKey:
    if row is None:
        raise NotFound("API key not found")
    return ApiKey(**row)
