"""The client of the ``mcp`` library alone, as its documentation writes it, with one server.

``python -m tests.bench.peers.mcp_calls COMMAND …``: the command is that of the server.
Asked to boot, it starts a server and answers how many seconds passed until its first call was answered; the session stays until the next.
Asked for calls, it answers with their times in seconds, one after the other or all at once.
"""

import asyncio
import sys
import time
from typing import Any

from tests.bench.workers import answer_questions

TOOL = "echo"
ARGUMENTS = {"text": "hello"}


class Alone:
    """A session, entered and left by a task of its own: the library demands that."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._client: Any = None
        self._is_up = asyncio.Event()
        self._end = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None

    async def boot(self) -> float:
        """Start a server, in place of the one before; returns how long it took until the first call was answered."""
        if self._owner is not None:
            self._end.set()
            await self._owner
        self._is_up, self._end = asyncio.Event(), asyncio.Event()
        started = time.perf_counter()
        self._owner = asyncio.create_task(self._own())
        await self._is_up.wait()
        await self.call()
        return time.perf_counter() - started

    async def call(self) -> float:
        """Call the tool; returns how long it took."""
        started = time.perf_counter()
        result = await self._client.call_tool(TOOL, ARGUMENTS)
        if result.is_error:
            raise RuntimeError(f"the tool failed: {result.content}")
        return time.perf_counter() - started

    async def _own(self) -> None:
        from mcp import Client, StdioServerParameters

        async with Client(StdioServerParameters(command=self._command[0], args=self._command[1:])) as client:
            self._client = client
            self._is_up.set()
            await self._end.wait()


async def answer(alone: Alone, question: dict[str, Any]) -> Any:
    """The times that were asked for."""
    match question["ask"]:
        case "boot":
            return await alone.boot()
        case "calls":
            return [await alone.call() for _ in range(question["count"])]
        case _:
            started = time.perf_counter()
            await asyncio.gather(*(alone.call() for _ in range(question["count"])))
            return time.perf_counter() - started


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        used = Alone(sys.argv[1:])
        answer_questions(lambda question: runner.run(answer(used, question)))
