"""How attempts ended is written for many jobs at once: those that end while a write is under way are in the next one."""

import asyncio

from homeport.errors import Unavailable
from homeport.jobs.rows import Ending, JobRows


class Endings:
    """Writes how the attempts of one worker ended."""

    def __init__(self, rows: JobRows) -> None:
        self._rows = rows
        self._waiting: list[tuple[Ending, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, ending: Ending) -> None:
        """Return when it is written, or the lease is found to be lost. Who is cancelled meanwhile may find it written all the same.

        Raises Unavailable, and InvalidRequest for an ending that cannot be stored.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ending, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting(), name="ends of jobs")
        await written

    async def close(self) -> None:
        """Return when everything is written, or could not be."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._write(batch)
        finally:
            self._writing = None

    async def _write(self, batch: list[tuple[Ending, asyncio.Future[None]]]) -> None:
        try:
            await self._rows.end([ending for ending, _ in batch])
        except Exception as error:  # noqa: BLE001 - told to those who wait for it
            if len(batch) > 1 and not isinstance(error, Unavailable):
                # One of them cannot be stored: the others are none the worse for it.
                for each in batch:
                    await self._write([each])
                return
            _settle(batch, error)
        else:
            _settle(batch, None)


def _settle(batch: list[tuple[Ending, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, written in batch:
        if written.done():  # nobody waits any more
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
