"""How much models are used. Counted in memory on a request's path, added to the rows of ``model_usage`` a little later, in batches.

Several server processes add to the same rows. A number that nobody told, such as the tokens of a stream that its reader left, counts 0.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from adapters.chat import Endpoint, Usage
from adapters.model_catalog import Role, price_of
from adapters.postgres import Database
from homeport.errors import AppError
from homeport.identity import Principal
from homeport.models.environment import catalog_name
from homeport.models.providers import NATIVE
from homeport.tables import model_usage

log = structlog.get_logger(__name__)

NOBODY = UUID(int=0)
FLUSH_S = 2.0
HOUR_S = 3600
# Models are named by requests, and counts are kept while the database is away: beyond this, those of a provider are counted together.
MAX_COUNTS = 10_000
MAX_TOKENS = 10**12  # of one call; whatever an upstream claims must fit into the sums
BATCH_ROWS = 1000


class _Key(NamedTuple):
    """What is counted together. ``hour`` counts from 1970."""

    hour: int
    app_id: UUID
    key_id: UUID
    provider: str
    model: str
    operation: str


@dataclass(slots=True)
class _Count:
    endpoint: Endpoint
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_sum_s: float = 0.0
    latency_max_s: float = 0.0

    def add(self, other: "_Count") -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.latency_sum_s += other.latency_sum_s
        self.latency_max_s = max(self.latency_max_s, other.latency_max_s)


def _adding() -> Any:
    """The statement that adds rows to those that are there."""
    statement = insert(model_usage)
    old, new = model_usage.c, statement.excluded
    sums = ("requests", "errors", "prompt_tokens", "completion_tokens", "latency_sum_s")
    values = {name: old[name] + new[name] for name in sums}
    values["latency_max_s"] = func.greatest(old.latency_max_s, new.latency_max_s)
    values["cost_usd"] = func.coalesce(old.cost_usd + new.cost_usd, old.cost_usd, new.cost_usd)
    return statement.on_conflict_do_update(constraint=model_usage.primary_key, set_=values)


_ADD = _adding()


class ModelUsage:
    """Counts calls of models; run ``run()`` in the background."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[_Key, _Count] = {}
        self._has_counts = asyncio.Event()
        self._flushing = asyncio.Lock()

    def record(
        self,
        operation: Role,
        caller: Principal | None,
        endpoint: Endpoint,
        model: str,
        latency_s: float,
        usage: Usage,
        error: AppError | None,
    ) -> None:
        """Count one call, which took ``latency_s`` in all."""
        app_id, key_id = _ids(caller)
        if (error is not None and error.code == "INVALID_MODEL") or not model.isprintable():
            model = ""  # no model has this name: it is whatever somebody typed
        key = _Key(int(time.time()) // HOUR_S, app_id, key_id, endpoint.provider, model, operation)
        prompt, completion = (min(tokens or 0, MAX_TOKENS) for tokens in (usage.prompt_tokens, usage.completion_tokens))
        self._count(key, _Count(endpoint, 1, int(error is not None), prompt, completion, latency_s, latency_s))
        self._has_counts.set()

    async def flush(self) -> None:
        """Write what was counted since the last time. Raises Unavailable when the database does not answer; nothing is lost then."""
        # Whoever is told to stop meanwhile leaves it to end: broken off, nobody would know whether it has been written.
        await asyncio.shield(self._flush())

    async def run(self) -> None:
        """Write in the background until cancelled."""
        while True:
            await self._has_counts.wait()
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except AppError as error:
                log.warning("the use of models could not be written; trying again", reason=error.message)

    async def close(self) -> None:
        """Write what is left, if the database is there."""
        try:
            await self.flush()
        except AppError as error:
            log.error("the use of models could not be written and is lost", calls=self._calls(), reason=error.message)

    async def _flush(self) -> None:
        async with self._flushing:
            counts, self._counts = self._counts, {}
            self._has_counts.clear()
            if not counts:
                return
            try:
                rows = await asyncio.to_thread(_rows, counts)
                async with self._database.transaction() as connection:
                    for start in range(0, len(rows), BATCH_ROWS):
                        await connection.execute(_ADD, rows[start : start + BATCH_ROWS])
            except BaseException:
                for key, count in counts.items():
                    self._count(key, count)
                self._has_counts.set()
                raise

    def _count(self, key: _Key, count: _Count) -> None:
        known = self._counts.get(key)
        if known is None and len(self._counts) >= MAX_COUNTS:
            key = key._replace(model="")
            known = self._counts.get(key)
        if known is None:
            self._counts[key] = count
        else:
            known.add(count)

    def _calls(self) -> int:
        return sum(count.requests for count in self._counts.values())


def _ids(caller: Principal | None) -> tuple[UUID, UUID]:
    """The app and the key by which a call is counted."""
    if caller is None:
        return NOBODY, NOBODY
    if caller.kind == "app":
        return caller.id, NOBODY
    # A key may speak for an app: then the rows of that app are its own.
    return (caller.owner_id if caller.owner_id != caller.id else NOBODY), caller.id


def _rows(counts: dict[_Key, _Count]) -> list[dict[str, Any]]:
    """The rows to add, in one order everywhere: two processes that lock the same rows must not wait for each other."""
    return [
        {
            "hour": datetime.fromtimestamp(key.hour * HOUR_S, UTC),
            "app_id": key.app_id,
            "key_id": key.key_id,
            "provider": key.provider,
            "model": key.model,
            "operation": key.operation,
            "requests": count.requests,
            "errors": count.errors,
            "prompt_tokens": count.prompt_tokens,
            "completion_tokens": count.completion_tokens,
            "latency_sum_s": count.latency_sum_s,
            "latency_max_s": count.latency_max_s,
            "cost_usd": _cost_usd(count, key),
        }
        for key, count in sorted(counts.items(), key=lambda item: item[0])
    ]


def _cost_usd(count: _Count, key: _Key) -> Decimal | None:
    """What the tokens cost by LiteLLM's list of prices, nothing in this server itself; None when the list does not have the model, and for
    speech that is not paid by tokens that are told."""
    if count.endpoint.kind == NATIVE:
        return Decimal(0)
    if key.operation == "speech" and not count.completion_tokens:
        return None
    provider = catalog_name(count.endpoint)
    price = price_of(provider, key.model) if provider else None
    return price.prompt_usd * count.prompt_tokens + price.completion_usd * count.completion_tokens if price else None
