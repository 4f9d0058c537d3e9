"""How long a call may take."""

import asyncio
from types import TracebackType
from typing import Self

PROGRESS_FACTOR = 10
MAX_S = 600.0


class Limit:
    """Raises TimeoutError in its block after ``idle_s`` without a sign of life, and after ten times that, or 10 minutes, in any case.

    With ``limit_s`` that is the end in any case.
    """

    def __init__(self, idle_s: float, limit_s: float | None = None) -> None:
        self._idle_s = idle_s
        self._limit_s = max(idle_s, min(idle_s * PROGRESS_FACTOR, MAX_S)) if limit_s is None else limit_s
        self._timeout = asyncio.timeout(idle_s)
        self._last = 0.0
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._last = asyncio.get_running_loop().time() + self._limit_s
        await self._timeout.__aenter__()
        self._is_open = True
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None) -> None:
        self._is_open = False
        await self._timeout.__aexit__(exc_type, exc_val, exc_tb)

    def renew(self) -> None:
        """There was a sign of life. Without effect once the block is over or too late."""
        if self._is_open and not self._timeout.expired():
            self._timeout.reschedule(min(asyncio.get_running_loop().time() + self._idle_s, self._last))
