"""What is written of a run while it is carried out: one entry after the other, so that what is read later is the order of what happened."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from homeport.agents.run_rows import Asked, Begun, Entry, RunRows
from homeport.identity import Principal

Value = TypeVar("Value")


class RunLost(Exception):
    """The run is not this process's any more: it was ended from outside, or another process took it over."""


class Journal:
    """Writes the entries of one run, counts what it has taken, and holds its clock, which stands still while a person is waited for."""

    def __init__(self, rows: RunRows, begun: Begun, principal: Principal, time_s: float) -> None:
        self.begun = begun
        self.principal = principal
        self.clock = asyncio.timeout(time_s)
        self.turns = begun.turns
        self.tokens = begun.tokens
        self._started = time.monotonic()
        self.has_asked = False
        self._rows = rows
        self._writing = asyncio.Lock()
        self._soon: list[asyncio.Task[Any]] = []
        self._waiting = 0
        self._left_s = 0.0

    @property
    def duration_ms(self) -> float:
        """For how long this process has carried it out."""
        return round((time.monotonic() - self._started) * 1000, 1)

    async def write(self, entry: Entry) -> int:
        """Write an entry; returns the number of messages of the session when the run ends with it. Raises RunLost, and Unavailable, also
        for what was to be written soon, unless the run fails with this entry anyway."""
        failure = await self.settle()
        if failure is not None and entry.error_code is None:
            raise failure
        return await self._write(entry)

    def write_soon(self, entry: Entry) -> None:
        """Write an entry while the run goes on. The next ``write`` waits for it, and raises what has become of it."""
        self.wait_for(asyncio.create_task(self._write(entry)))

    def wait_for(self, writing: asyncio.Task[Any]) -> None:
        """Have the next ``write`` wait for this, too."""
        self._soon.append(writing)

    async def settle(self) -> BaseException | None:
        """Return when nothing is being written any more; gives what has failed first of what was to be written soon."""
        while pending := [task for task in self._soon if not task.done()]:
            await asyncio.wait(pending)
        failures = [task.exception() for task in self._soon if not task.cancelled()]
        self._soon.clear()
        return next(filter(None, failures), None)

    async def _write(self, entry: Entry) -> int:
        async with self._writing:
            count = await self._rows.write(self.begun, self.principal, entry)
        if count is None:
            raise RunLost
        self.turns += entry.turns
        self.tokens += entry.prompt_tokens + entry.completion_tokens
        return count

    async def wait_for_person(self, wait: Callable[[], Awaitable[Value]]) -> Value:
        """Wait for something that a person decides: the run is ``waiting`` meanwhile, and its clock stands still."""
        loop = asyncio.get_running_loop()
        self._waiting += 1
        if self._waiting == 1:
            self._left_s = (self.clock.when() or loop.time()) - loop.time()
            self.clock.reschedule(None)
        try:
            await self.write(Entry(state="waiting", is_quick=True))
            return await wait()
        finally:
            self._waiting -= 1
            if self._waiting == 0 and not self.clock.expired():
                self.clock.reschedule(loop.time() + self._left_s)

    async def go_on(self) -> None:
        """Say that nobody is waited for any more, unless somebody still is."""
        if self._waiting == 0:
            await self.write(Entry(state="running", is_quick=True))

    async def asked_for(self, call_id: str) -> Asked | None:
        """What a person was asked about a call; None when nobody was."""
        return await self._rows.asked_for(self.begun.id, call_id)

    def event(self, name: str, **data: Any) -> tuple[str, Mapping[str, Any]]:
        """An event of this run; what is None is left out."""
        return f"agent.{name}", {"session_id": str(self.begun.session_id)} | {
            key: value for key, value in data.items() if value is not None
        }
