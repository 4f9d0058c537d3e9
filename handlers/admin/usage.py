"""How much models are used."""

from dataclasses import asdict
from typing import Any

from homeport.clock import format_time, parse_time
from homeport.home import Home
from homeport.models import GroupBy, UsageRow


async def show_usage(
    home: Home, since: str | None = None, until: str | None = None, group_by: GroupBy = "model", limit: int = 200
) -> dict[str, Any]:
    """The use of models by app, key, model or hour."""
    report = await home.models.report_usage(parse_time(since), parse_time(until), group_by)
    return {
        "since": format_time(report.since),
        "until": format_time(report.until),
        "group_by": report.group_by,
        "items": [_row(row) for row in report.items[:limit]],
        "omitted": max(0, len(report.items) - limit),
        "totals": asdict(report.totals),
    }


def _row(row: UsageRow) -> dict[str, Any]:
    ids = {"app_id": row.app_id and str(row.app_id), "key_id": row.key_id and str(row.key_id)}
    shown = asdict(row) | {"hour": format_time(row.hour), **ids}
    return {name: value for name, value in shown.items() if value is not None}
