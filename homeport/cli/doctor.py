"""``homeport doctor``: what works, what does not, and what to do."""

import asyncio
from textwrap import indent
from typing import TYPE_CHECKING

import typer

from homeport.cli.running import command_settings
from homeport.cli.writing import COLOURS, Json, print_json, say

if TYPE_CHECKING:
    from homeport.cli.checks import Check
    from homeport.settings import Settings


def doctor(json: Json = False) -> None:
    """Check what Homeport needs. Exit status 1 when something is missing."""
    checks = asyncio.run(_check(command_settings(has_warnings=False), is_silent=json))
    if json:
        print_json(checks)
    elif failed := [check.name for check in checks if check.status == "fail"]:
        say("", f"Homeport cannot work yet: {', '.join(failed)}.")
    else:
        say("", "Everything that Homeport needs is there.")
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


async def _check(settings: "Settings", *, is_silent: bool) -> "list[Check]":
    from homeport.cli.checks import check_everything

    checks = []
    async for check in check_everything(settings):
        checks.append(check)
        if not is_silent:
            _print(check)
    return checks


def _print(check: "Check") -> None:
    status = typer.style(f"{check.status:4}", fg=COLOURS[check.status])
    say(f"{status}  {check.name}: {check.found}")
    if check.advice:
        say(indent(check.advice, "      "))
