"""When API keys were last used. Noted coarsely, because nobody needs it to the second and every request would pay for it."""

import asyncio
import time
from uuid import UUID

import structlog
from sqlalchemy import func, or_, text, update

from adapters.postgres import Database
from homeport.errors import AppError
from homeport.tables import api_keys

USE_INTERVAL_S = 60.0

log = structlog.get_logger(__name__)


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
