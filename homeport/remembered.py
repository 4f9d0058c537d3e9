"""What a process keeps of the database in memory, until a notification says that it has changed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from adapters.postgres import Notifications

# A connection can be dead without telling: nothing is believed for longer than this.
MAX_AGE_S = 60.0

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """A value that ``read`` reads from the database, and that every notification of ``channel`` makes forgotten."""

    def __init__(self, notifications: Notifications, channel: str, read: Callable[[], Awaitable[Value]]) -> None:
        self._notifications = notifications
        self._read = read
        self._kept: tuple[Value, float] | None = None
        self._generation = 0
        self._listeners: list[Callable[[], object]] = []
        self._reading = asyncio.Lock()
        notifications.subscribe(channel, self.forget)
        notifications.on_gap(self.forget)

    async def get(self) -> Value:
        """The value; read again when it may have changed. Raises what ``read`` raises."""
        if (kept := self._fresh()) is not None:
            return kept[0]
        async with self._reading:
            # Of several that have waited, the first one reads for all.
            if (kept := self._fresh()) is not None:
                return kept[0]
            generation, started = self._generation, time.monotonic()
            value = await self._read()
            if generation == self._generation:
                self._kept = value, started
            return value

    async def get_anew(self) -> Value:
        """The value as the database has it now: what another process has just changed may not have been told here yet."""
        self.forget()
        return await self.get()

    def on_forget(self, callback: Callable[[], object]) -> None:
        """Call ``callback()`` whenever the value may have changed."""
        self._listeners.append(callback)

    def forget(self, _payload: str = "") -> None:
        """Read again at the next use; what is being read now is not kept."""
        self._generation += 1
        self._kept = None
        for callback in self._listeners:
            callback()

    def _fresh(self) -> tuple[Value, float] | None:
        if self._kept is None or not self._notifications.is_connected or time.monotonic() - self._kept[1] >= MAX_AGE_S:
            return None
        return self._kept
