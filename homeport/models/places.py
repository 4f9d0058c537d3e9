"""How many calls run at once in this process, where that is limited."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from homeport.errors import TooManyRequests
from homeport.models.routes import Target

RETRY_AFTER_S = 5

Leave = Callable[[], None]


class Places:
    """The gates before all models and providers whose calls at once are limited."""

    def __init__(self) -> None:
        self._gates: dict[Target, _Gate] = {}

    async def take(self, places: Sequence[tuple[Target, int]], timeout_s: float, held: list[Leave]) -> None:
        """Pass each gate in turn, adding to ``held`` how to leave it again. Raises TooManyRequests after ``timeout_s``."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        for target, capacity in places:
            gate = self._gates.setdefault(target, _Gate())
            gate.set_capacity(capacity)
            if not gate.try_to_enter():
                try:
                    async with asyncio.timeout_at(deadline):
                        await gate.wait()
                except TimeoutError as error:
                    limit = f"The limit of '{target}', {capacity} calls at once, was reached for {timeout_s:g} s."
                    raise TooManyRequests(
                        f"{limit} Try again in {RETRY_AFTER_S} s.", headers={"Retry-After": str(RETRY_AFTER_S)}
                    ) from error
            held.append(gate.leave)


class _Gate:
    """Lets in so many at once; the others wait in line. Unlike a semaphore's, its capacity may change while it is used."""

    def __init__(self) -> None:
        self._capacity = 0
        self._inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    def set_capacity(self, capacity: int) -> None:
        self._capacity = capacity
        self._let_in()

    def try_to_enter(self) -> bool:
        is_free = self._inside < self._capacity and not self._line
        self._inside += is_free
        return is_free

    async def wait(self) -> None:
        """Enter when it is one's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # let in and given up in the same moment
            elif turn in self._line:
                self._line.remove(turn)
            raise

    def leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._line and self._inside < self._capacity:
            turn = self._line.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
