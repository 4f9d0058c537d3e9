"""The token of the person who is signed in to an app: the app hands it over, and others of its parts ask for it back.

The token is another system's: its signature is not checked here and nothing in it is believed, except that it tells when it expires.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import orjson
from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert

from adapters.postgres import Database
from homeport.errors import InvalidRequest
from homeport.identity import Principal
from homeport.secrets import SecretBox
from homeport.tables import user_tokens

MAX_TOKEN_LENGTH = 16_384

_IS_CURRENT = or_(user_tokens.c.expires_at.is_(None), user_tokens.c.expires_at > func.now())


@dataclass(frozen=True, slots=True)
class UserToken:
    """A person's token as it was handed over."""

    token: str
    synced_at: datetime
    source: str

    def __repr__(self) -> str:
        return f"UserToken(token=…, synced_at={self.synced_at!r}, source={self.source!r})"


class UserTokens:
    """Keeps one token per app or key, encrypted."""

    def __init__(self, database: Database, secret_box: SecretBox) -> None:
        self._database = database
        self._box = secret_box

    async def sync(self, principal: Principal, token: str | None, source: str) -> UserToken:
        """Keep ``token`` in place of the one before. Raises InvalidRequest when it is empty, too long, or has expired."""
        token = (token or "").strip()
        if not token or len(token) > MAX_TOKEN_LENGTH:
            raise InvalidRequest(f"token must hold the user's access token, of at most {MAX_TOKEN_LENGTH} characters.")
        expires_at = read_expiry(token)
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise InvalidRequest("This token has expired; sign the user in again and send the new one.", code="TOKEN_EXPIRED")
        values = {
            "token": self._box.seal(token, _context(principal.owner_id)),
            "source": source,
            "expires_at": expires_at,
            "synced_at": func.now(),
        }
        statement = insert(user_tokens).values(owner_id=principal.owner_id, **values)
        statement = statement.on_conflict_do_update(index_elements=[user_tokens.c.owner_id], set_=values)
        async with self._database.transaction() as connection:
            synced_at = (await connection.execute(statement.returning(user_tokens.c.synced_at))).scalar_one()
        return UserToken(token, synced_at, source)

    async def get(self, principal: Principal) -> UserToken | None:
        """The token, or None when there is none or it has expired. Raises Unavailable when it cannot be decrypted."""
        statement = select(user_tokens).where(user_tokens.c.owner_id == principal.owner_id, _IS_CURRENT)
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        return UserToken(self._box.open(row.token, _context(principal.owner_id)), row.synced_at, row.source)

    async def has_current(self, principal: Principal) -> bool:
        """Whether there is a token that has not expired."""
        statement = select(user_tokens.c.owner_id).where(user_tokens.c.owner_id == principal.owner_id, _IS_CURRENT)
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).first() is not None


def read_expiry(token: str) -> datetime | None:
    """When ``token`` says it expires (a JWT's ``exp``, unverified); None when it does not say, or beyond the year 9999."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    try:
        return datetime.fromtimestamp(max(expiry, 0), UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _context(owner_id: UUID) -> str:
    return f"user_tokens:{owner_id}"
