"""Reading what LiteLLM streams, and noticing when nothing comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

SILENCE: Any = object()


class ChunkReader:
    """Reads LiteLLM's chunks and notices silence. A read that is given up would lose a chunk, so it goes on in a task."""

    def __init__(self, answer: Any, idle_s: float, heartbeat_s: float) -> None:
        self._answer = answer
        self._chunks: AsyncIterator[Any] = aiter(answer)
        self._idle_s = idle_s
        self._heartbeat_s = heartbeat_s
        self._silent_s = 0.0
        self._pending: asyncio.Task[Any] | None = None

    async def read(self) -> Any:
        """The next chunk, None at the end, SILENCE when there was none for a heartbeat. Raises TimeoutError, and what LiteLLM raises."""
        if self._pending is None:
            self._pending = asyncio.create_task(self._next())
        wait_s = min(self._heartbeat_s, self._idle_s - self._silent_s)
        done, _ = await asyncio.wait({self._pending}, timeout=wait_s)
        if done:
            self._silent_s = 0
            chunk, self._pending = self._pending, None
            return chunk.result()
        self._silent_s += wait_s
        if self._silent_s >= self._idle_s:
            raise TimeoutError
        return SILENCE

    async def close(self) -> None:
        """Give up reading and close the connection."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        await self._answer.aclose()

    async def _next(self) -> Any:
        return await anext(self._chunks, None)
