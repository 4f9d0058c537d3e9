"""API keys: ``hp_local_<id>_<secret><checksum>``.

The id is readable and found by index; the secret has 256 random bits, so a plain SHA-256 of it is kept and nothing slower is needed; the
checksum (CRC-32 of all before it) lets a typo be told without a database. The key itself is shown once and never stored.
"""

import asyncio
import hashlib
import secrets
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, notify
from homeport.errors import AppError, Forbidden, InvalidRequest, NotFound
from homeport.ids import check_name, parse_uuid, uuid7
from homeport.paging import Page, fetch_page
from homeport.permissions import IDENTITY_CHANNEL, check_scope, covers
from homeport.tables import api_keys

if TYPE_CHECKING:
    from homeport.identity import Identity

KEY_PREFIX = "hp_local_"
MAX_SCOPES = 100
USE_INTERVAL_S = 60.0
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
PREFIX_LENGTH = len(KEY_PREFIX) + _ID_LENGTH
_KEY_LENGTH = PREFIX_LENGTH + 1 + _SECRET_LENGTH + _CHECKSUM_LENGTH
_PUBLIC = [column for column in api_keys.c if column.name != "secret_hash"]
# Names the lock under which the first key is made, among all that a database may hold.
_FIRST_KEY_LOCK = zlib.crc32(b"homeport first key")

log = structlog.get_logger(__name__)


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


def make_key() -> tuple[str, str]:
    """A new random key: its prefix, and the whole text."""
    prefix = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    body = f"{prefix}_{_base62(secrets.randbits(256), _SECRET_LENGTH)}"
    return prefix, body + _checksum(body)


def looks_like_key(text: str) -> bool:
    """Whether ``text`` is meant to be one of our keys, right or wrong."""
    return text.startswith(KEY_PREFIX)


def parse_key(text: str) -> tuple[str, bytes] | None:
    """The prefix of the key and the SHA-256 of its secret; None when its length, its characters or its checksum are wrong."""
    if len(text) != _KEY_LENGTH or not text.isascii() or text[PREFIX_LENGTH] != "_":
        return None
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    if not looks_like_key(text) or checksum != _checksum(body):
        return None
    return text[:PREFIX_LENGTH], _hash_secret(text)


class KeyUsage:
    """Notes when keys were last used: in memory on the request's path, in the database a little later and at most once a minute a key."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[UUID, float] = {}
        self._unwritten: set[UUID] = set()
        self._has_unwritten = asyncio.Event()

    def record(self, key_id: UUID) -> None:
        """Note that the key was used just now."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -USE_INTERVAL_S) >= USE_INTERVAL_S:
            self._noted[key_id] = now
            self._unwritten.add(key_id)
            self._has_unwritten.set()

    async def flush(self) -> None:
        """Write what was noted since the last time. Raises Unavailable when the database does not answer; nothing is lost then."""
        used, self._unwritten = self._unwritten, set()
        self._has_unwritten.clear()
        if not used:
            return
        # Several processes see the same key: the first of a minute writes.
        is_due = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < func.now() - text("interval '1 minute'"))
        try:
            async with self._database.transaction() as connection:
                statement = update(api_keys).where(api_keys.c.id.in_(used), is_due)
                await connection.execute(statement.values(last_used_at=func.now()))
        except AppError:
            self._unwritten |= used
            raise

    async def run(self) -> None:
        """Write in the background until cancelled."""
        while True:
            await self._has_unwritten.wait()
            try:
                await self.flush()
            except AppError as error:
                log.warning("the last use of keys could not be written; trying again", reason=error.message)
            await asyncio.sleep(1)


class Keys:
    """Creates, lists and revokes API keys."""

    def __init__(self, database: Database, identity: "Identity") -> None:
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

    async def has_any(self) -> bool:
        """Whether a key was ever made, revoked ones included."""
        async with self._database.transaction() as connection:
            return (await connection.execute(select(api_keys.c.id).limit(1))).first() is not None


async def _insert_key(connection: AsyncConnection, name: str, scopes: Sequence[str], expires_at: datetime | None) -> tuple[ApiKey, str]:
    prefix, key = make_key()
    values = {"id": uuid7(), "prefix": prefix, "secret_hash": _hash_secret(key), "name": name, "scopes": scopes, "expires_at": expires_at}
    rows = await connection.execute(insert(api_keys).values(values).returning(*_PUBLIC))
    return ApiKey(**rows.mappings().one()), key


def _found(row: RowMapping | None) -> ApiKey:
    if row is None:
        raise NotFound("API key not found")
    return ApiKey(**row)


def _hash_secret(key: str) -> bytes:
    return hashlib.sha256(key[PREFIX_LENGTH + 1 : -_CHECKSUM_LENGTH].encode("ascii")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
