"""What was counted of the use of models, added up: by app, key, model or hour."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Label, RowMapping, Select, func, select

from adapters.postgres import Database
from homeport.models.usage import NOBODY
from homeport.tables import api_keys, apps, model_usage

GroupBy = Literal["app", "key", "model", "hour"]

GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)


@dataclass(frozen=True, slots=True)
class UsageNumbers:
    """Numbers added up. ``requests`` are calls of a model: a request that a fallback answered is two, a repeated one is one.

    ``cost_usd`` is by LiteLLM's list of prices, None when it has none of the models; ``unpriced_requests`` are not in it.
    """

    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    latency_avg_s: float
    latency_max_s: float
    cost_usd: float | None
    unpriced_requests: int


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The use by one app, of one model and so on. What it is not grouped by is None, and so is an app or key that there was none of.

    ``app_slug`` and ``key_name`` are None when the app or key has been removed.
    """

    hour: datetime | None
    app_id: UUID | None
    app_slug: str | None
    key_id: UUID | None
    key_name: str | None
    provider: str | None
    model: str | None
    operation: str | None
    numbers: UsageNumbers


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The use item by item, the most used first (hours: the newest first), and all of it together."""

    since: datetime
    until: datetime
    group_by: GroupBy
    items: Sequence[UsageRow]
    totals: UsageNumbers


async def read_usage(database: Database, since: datetime, until: datetime, group_by: GroupBy) -> UsageReport:
    """The use from the hour in which ``since`` lies until before ``until``."""
    first_hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    is_in_range = (model_usage.c.hour >= first_hour, model_usage.c.hour < until)
    async with database.transaction() as connection:
        rows = (await connection.execute(_grouped(group_by).where(*is_in_range))).mappings().all()
        totals = (await connection.execute(select(*_sums()).where(*is_in_range))).mappings().one()
    return UsageReport(since, until, group_by, [_row(row) for row in rows], _numbers(totals))


def _sums() -> list[Label[Any]]:
    column = model_usage.c
    return [
        func.coalesce(func.sum(column.requests), 0).label("requests"),
        func.coalesce(func.sum(column.errors), 0).label("errors"),
        func.coalesce(func.sum(column.prompt_tokens), 0).label("prompt_tokens"),
        func.coalesce(func.sum(column.completion_tokens), 0).label("completion_tokens"),
        func.coalesce(func.sum(column.latency_sum_s), 0.0).label("latency_sum_s"),
        func.coalesce(func.max(column.latency_max_s), 0.0).label("latency_max_s"),
        func.sum(column.cost_usd).label("cost_usd"),
        func.coalesce(func.sum(column.requests).filter(column.cost_usd.is_(None)), 0).label("unpriced_requests"),
    ]


def _grouped(group_by: GroupBy) -> Select[Any]:
    column = model_usage.c
    columns: dict[str, ColumnElement[Any]] = {}
    source: FromClause = model_usage
    match group_by:
        case "app":
            columns = {"app_id": column.app_id, "app_slug": apps.c.slug}
            source = model_usage.outerjoin(apps, apps.c.id == column.app_id)
        case "key":
            columns = {"key_id": column.key_id, "key_name": api_keys.c.name}
            source = model_usage.outerjoin(api_keys, api_keys.c.id == column.key_id)
        case "model":
            columns = {"provider": column.provider, "model": column.model, "operation": column.operation}
        case "hour":
            columns = {"hour": column.hour}
    order = [column.hour.desc()] if group_by == "hour" else [func.sum(column.requests).desc(), *columns.values()]
    groups = [each.label(name) for name, each in columns.items()]
    return select(*groups, *_sums()).select_from(source).group_by(*columns.values()).order_by(*order)


def _row(row: RowMapping) -> UsageRow:
    groups = {name: row.get(name) for name in ("hour", "app_id", "app_slug", "key_id", "key_name", "provider", "model", "operation")}
    return UsageRow(**{name: None if value == NOBODY else value for name, value in groups.items()}, numbers=_numbers(row))


def _numbers(row: RowMapping) -> UsageNumbers:
    requests = int(row["requests"])
    cost = row["cost_usd"]
    return UsageNumbers(
        requests=requests,
        errors=int(row["errors"]),
        prompt_tokens=int(row["prompt_tokens"]),
        completion_tokens=int(row["completion_tokens"]),
        latency_avg_s=round(row["latency_sum_s"] / requests, 6) if requests else 0.0,
        latency_max_s=round(row["latency_max_s"], 6),
        cost_usd=None if cost is None else float(cost),
        unpriced_requests=int(row["unpriced_requests"]),
    )
