"""``homeport events``: what was done here, and by whom."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.apps import find_app
from homeport.cli.running import with_home
from homeport.cli.spans import parse_span
from homeport.cli.writing import Json, print_json, print_table, printable, say

if TYPE_CHECKING:
    from homeport.events import Event
    from homeport.home import Home

POLL_S = 1.0


def events(
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as tool.executed.")] = None,
    app: Annotated[str | None, typer.Option(metavar="APP", help="Only what this app did: its slug or id.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this, such as an agent's run by its id.")] = None,
    since: Annotated[str | None, typer.Option(metavar="SPAN", help="Only from so long ago on, such as 12h, 30d or 8w.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=200, help="How many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """List what was done here, oldest first. Events are kept for 90 days."""
    span = parse_span(since) if since is not None else None
    if since is not None and span is None:
        raise typer.BadParameter("write it like 12h, 30d, 8w or 1y.", param_hint="--since")

    async def work(home: "Home") -> "list[Event]":
        from datetime import UTC, datetime

        app_id = (await find_app(home, app)).id if app is not None else None
        filters: dict[str, Any] = {"kind": kind, "app_id": app_id, "subject": subject}
        start = datetime.now(UTC) - span if span is not None else None
        found = [*reversed((await home.events.list(since=start, limit=lines, **filters)).items)]
        if follow:
            await _follow(home, found, filters)
        return found

    try:
        found = with_home(work)
    except KeyboardInterrupt:
        return
    if json:
        return print_json(found)
    if not found:
        return say("There are no such events.")
    print_table(["when", "what", "by", "to", "more"], [_row(event) for event in found])


async def _follow(home: "Home", found: "Sequence[Event]", filters: dict[str, Any]) -> None:
    """Print these and then each that comes, until cancelled."""
    last = 0
    while True:
        for event in found:
            typer.echo("  ".join(printable(cell) for cell in _row(event)))
            last = event.id
        await asyncio.sleep(POLL_S)
        found = [event for event in reversed((await home.events.list(limit=200, **filters)).items) if event.id > last]


def _row(event: "Event") -> list[str]:
    shown = {name: value for name, value in event.data.items() if name not in {"by", "server", "tool"}}
    more = " ".join(f"{name}={value}" for name, value in shown.items())
    moment = event.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return [moment, event.kind, str(event.data.get("by", "-")), event.subject, more or "-"]
