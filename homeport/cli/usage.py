"""``homeport usage``: how much models are used."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import with_home
from homeport.cli.spans import parse_span
from homeport.cli.writing import Json, print_json, print_table, say, show_time

if TYPE_CHECKING:
    from homeport.models import UsageNumbers, UsageRow

COLUMNS = ("calls", "errors", "tokens in", "tokens out", "seconds", "longest", "cost")


class By(StrEnum):
    """What to add up by."""

    APP = "app"
    KEY = "key"
    MODEL = "model"
    HOUR = "hour"


def parse_since(text: str) -> datetime:
    """The moment that ``text`` means: a span before now (``24h``, ``7d``), a date or a time."""
    try:
        if (span := parse_span(text)) is not None:
            return datetime.now(UTC) - span
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter("write a span like 7d (h, d, w, y), a date like 2030-01-31, or a time like 2030-01-31T12:00Z.") from error


def usage(
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_since, metavar="WHEN", help="24h, 7d, 4w or a date like 2030-01-31. The last 7 days when left out."),
    ] = None,
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.MODEL,
    json: Json = False,
) -> None:
    """Show how much models are used: calls, tokens, seconds and cost. Running servers write theirs down every few seconds."""
    report = with_home(lambda home: home.models.report_usage(since, None, by.value))
    if json:
        return print_json(report)
    since_text = show_time(report.since, "")
    if not report.items:
        return say(f"No model was called since {since_text}.")
    print_table(
        [by.value, *COLUMNS],
        [*([_name(by, row), *_show(row.numbers)] for row in report.items), ["total", *_show(report.totals)]],
    )
    say("", f"Since {since_text}. Costs are by LiteLLM's list of prices.")
    if report.totals.unpriced_requests and report.totals.cost_usd is not None:
        say(f"Not in them: {report.totals.unpriced_requests} calls of models that the list does not have.")


def _name(by: By, row: "UsageRow") -> str:
    match by:
        case By.APP:
            return row.app_slug or (str(row.app_id) if row.app_id else "no app")
        case By.KEY:
            return row.key_name or (str(row.key_id) if row.key_id else "no key")
        case By.HOUR:
            return show_time(row.hour, "")
        case By.MODEL:
            return f"{row.provider}/{row.model or '(unknown)'} {row.operation}"


def _show(numbers: "UsageNumbers") -> list[str]:
    return [
        str(numbers.requests),
        str(numbers.errors),
        str(numbers.prompt_tokens),
        str(numbers.completion_tokens),
        f"{numbers.latency_avg_s:.2f}",
        f"{numbers.latency_max_s:.2f}",
        "unknown" if numbers.cost_usd is None else f"${numbers.cost_usd:.4f}",
    ]
