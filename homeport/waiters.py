"""Who in this process waits for a change of something in the database."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID


class Waiters:
    """Events by the ids of what is waited for. Whoever hears of a change calls ``wake``; of a gap in what is heard, ``wake_all``."""

    def __init__(self) -> None:
        self._events: dict[UUID, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._events.values()))

    @contextmanager
    def waiting(self, *ids: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these may have changed. Clear it before reading what may change, not after."""
        changed = asyncio.Event()
        for each in ids:
            self._events.setdefault(each, set()).add(changed)
        try:
            yield changed
        finally:
            for each in ids:
                self._events[each].discard(changed)
                if not self._events[each]:
                    del self._events[each]

    def wake(self, changed: UUID | None) -> None:
        """Tell those who wait for this one; for None nobody."""
        for event in self._events.get(changed, ()) if changed is not None else ():
            event.set()

    def wake_all(self) -> None:
        """Tell everybody."""
        for events in self._events.values():
            for event in events:
                event.set()


async def wait_for_change(changed: asyncio.Event, at_most_s: float) -> None:
    """Return when ``changed`` is set, or after so many seconds."""
    # Not wait_for, which in Python 3.11 may lose a cancellation.
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await changed.wait()
