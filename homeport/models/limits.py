"""How long, how often and how many at once: what was set for calls of a provider or of one of its models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.errors import InvalidRequest, NotFound
from homeport.models.routes import Target
from homeport.tables import model_limits

DEFAULT_RETRIES = 1
MIN_TIMEOUT_S = 0.1
MAX_TIMEOUT_S = 3600.0
MAX_RETRIES = 10
MAX_CONCURRENCY = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a provider (``model`` None) or of one of its models. What is None is as it would be without them.

    ``timeout_s``: seconds for an answer, of a stream for its beginning and between its pieces; after so long nothing is tried again.
    ``concurrency``: calls at once in each server process.
    """

    provider: str
    model: str | None = None
    timeout_s: float | None = None
    retries: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is in force for calls of one model. ``places`` are the limits of concurrency to be kept, each with whom it is for."""

    timeout_s: float | None = None
    retries: int = DEFAULT_RETRIES
    places: tuple[tuple[Target, int], ...] = ()


UNLIMITED = Allowance()


class LimitTable:
    """All limits that are set."""

    def __init__(self, rows: Sequence[Limits] = ()) -> None:
        self._rows: Mapping[Target, Limits] = {Target(row.provider, row.model): row for row in rows}

    def get(self, target: Target) -> Limits | None:
        """What was set for exactly this provider, or model of it."""
        return self._rows.get(target)

    def all(self) -> list[Limits]:
        """Everything that was set, by provider and model."""
        return list(self._rows.values())

    def allow(self, provider: str, model: str) -> Allowance:
        """What is in force for a model: its own limits before those of its provider; limits of concurrency both."""
        if not self._rows:
            return UNLIMITED
        own, common = self._rows.get(Target(provider, model)), self._rows.get(Target(provider))
        rows = [row for row in (own, common) if row is not None]
        if not rows:
            return UNLIMITED
        timeout_s = next((row.timeout_s for row in rows if row.timeout_s is not None), None)
        retries = next((row.retries for row in rows if row.retries is not None), DEFAULT_RETRIES)
        places = tuple((Target(row.provider, row.model), row.concurrency) for row in rows if row.concurrency is not None)
        return Allowance(timeout_s, retries, places)


def check_limits(limits: Limits) -> None:
    """Raise InvalidRequest unless something is limited, and to what can be kept."""
    values = (limits.timeout_s, limits.retries, limits.concurrency)
    if all(value is None for value in values):
        raise InvalidRequest("Say what is limited: the time, the retries or how many calls may run at once.")
    if limits.timeout_s is not None and not MIN_TIMEOUT_S <= limits.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidRequest(f"A timeout must be {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g} seconds.")
    if limits.retries is not None and not 0 <= limits.retries <= MAX_RETRIES:
        raise InvalidRequest(f"Retries must be 0 to {MAX_RETRIES}.")
    if limits.concurrency is not None and not 1 <= limits.concurrency <= MAX_CONCURRENCY:
        raise InvalidRequest(f"A limit of calls at once must be 1 to {MAX_CONCURRENCY}.")


async def read_limits(connection: AsyncConnection) -> list[Limits]:
    """Everything that is set, by provider and model."""
    rows = await connection.execute(select(model_limits).order_by(model_limits.c.provider, model_limits.c.model))
    return [Limits(**{**row, "model": row["model"] or None}) for row in rows.mappings()]


async def write_limits(connection: AsyncConnection, limits: Limits) -> None:
    """Set limits in place of those before."""
    values = {"timeout_s": limits.timeout_s, "retries": limits.retries, "concurrency": limits.concurrency}
    statement = insert(model_limits).values(provider=limits.provider, model=limits.model or "", **values)
    await connection.execute(statement.on_conflict_do_update(constraint=model_limits.primary_key, set_=values))


async def delete_limits(connection: AsyncConnection, target: Target) -> Limits:
    """Forget limits; returns them. Raises NotFound when there were none."""
    only = (model_limits.c.provider == target.provider, model_limits.c.model == (target.model or ""))
    row = (await connection.execute(delete(model_limits).where(*only).returning(model_limits))).mappings().one_or_none()
    if row is None:
        raise NotFound(f"No limits are set for '{target}'.")
    return Limits(**{**row, "model": row["model"] or None})


async def drop_limits(connection: AsyncConnection, provider: str) -> None:
    """Forget all limits of a provider and of its models."""
    await connection.execute(delete(model_limits).where(model_limits.c.provider == provider))
