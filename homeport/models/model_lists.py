"""The lists of models that providers give, remembered for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from adapters.chat import Endpoint
from adapters.model_catalog import ModelIds
from adapters.model_failures import too_slow
from homeport.errors import AppError

LIST_S = 60.0
FAILURE_S = 10.0
WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class _Entry:
    fetched_at: float
    models: ModelIds
    error: AppError | None


class ModelLists:
    """Asks each provider at most once at a time, and not again for LIST_S (FAILURE_S after a failure)."""

    def __init__(self, fetch: Callable[[Endpoint], Awaitable[ModelIds]]) -> None:
        self._fetch = fetch
        self._entries: dict[Endpoint, _Entry] = {}
        self._running: dict[Endpoint, asyncio.Task[None]] = {}

    async def get(self, endpoint: Endpoint, *, fresh_s: float = LIST_S, may_be_old: bool = False) -> ModelIds:
        """The provider's models. Waits for WAIT_S at most; with ``may_be_old`` not at all when any are known. Raises AppError."""
        entry = self._entries.get(endpoint)
        if entry is None or monotonic() - entry.fetched_at >= (min(fresh_s, FAILURE_S) if entry.error else fresh_s):
            task = self._running.get(endpoint) or self._start(endpoint)
            if not (may_be_old and entry and any(entry.models)):
                done, _ = await asyncio.wait({task}, timeout=WAIT_S)
                if not done:
                    raise too_slow(endpoint, WAIT_S)
                task.result()
                entry = self._entries[endpoint]
        if entry.error is not None:
            raise entry.error
        return entry.models

    async def close(self) -> None:
        """Stop asking."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start(self, endpoint: Endpoint) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ask(endpoint))
        self._running[endpoint] = task
        task.add_done_callback(lambda _: self._running.pop(endpoint, None))
        return task

    async def _ask(self, endpoint: Endpoint) -> None:
        models = ModelIds()
        failure: AppError | None = None
        try:
            models = await self._fetch(endpoint)
        except AppError as error:
            failure = error
        self._entries[endpoint] = _Entry(monotonic(), models, failure)
