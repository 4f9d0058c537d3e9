"""What a run tells whoever listens: a buffer between the task that carries it out and its reader."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self
from uuid import UUID

from homeport.agents.steps import Answer, Chunk, Silence, Step

SILENCE_S = 15.0
MAX_JOINED_CHARS = 4096


class RunStream:
    """The steps of one run, in order: iterate, and ``aclose()`` to leave. The last one is the Answer; what fails is raised.

    The run never waits for its reader. What is not read yet is bounded, because the run is: pieces of text are joined, everything else is
    limited by the number of turns and calls. ``leave`` is called when the reader leaves before the end. Where nothing happens for
    SILENCE_S, a Silence says so.
    """

    def __init__(self, run_id: UUID, leave: Callable[[], Awaitable[None]], *, silence_s: float = SILENCE_S) -> None:
        self.run_id = run_id
        self._leave = leave
        self._silence_s = silence_s
        self._steps: deque[Step] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._is_over = False
        self._is_left = False

    def put(self, step: Step) -> None:
        """Tell something. Once nobody listens it is forgotten."""
        if self._is_left:
            return
        last = self._steps[-1] if self._steps else None
        if isinstance(step, Chunk) and isinstance(last, Chunk) and len(last.text) < MAX_JOINED_CHARS:
            self._steps[-1] = Chunk(last.text + step.text)
        else:
            self._steps.append(step)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """There is no more; with an ``error`` because the run has failed."""
        self._error = error
        self._is_over = True
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Step:
        while not self._steps:
            if self._is_over:
                error, self._error = self._error, None
                raise error if error is not None else StopAsyncIteration
            self._changed.clear()
            try:
                async with asyncio.timeout(self._silence_s):
                    await self._changed.wait()
            except TimeoutError:
                return Silence()
        return self._steps.popleft()

    async def answer(self) -> Answer:
        """Read until the end and return the answer. Raises what the run has failed with."""
        async for step in self:
            if isinstance(step, Answer):
                return step
        raise RuntimeError("the run has ended without an answer")

    async def aclose(self) -> None:
        """Stop listening. When this returns, the run has ended, unless it is to go on without a reader."""
        if self._is_left:
            return
        self._is_left = True
        self._steps.clear()
        if not self._is_over:
            await self._leave()
