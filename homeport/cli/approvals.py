"""``homeport approvals``: what agents ask before they use a tool, and the answers."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homeport.cli.apps import DECIDED_BY
from homeport.cli.running import each_item, with_home
from homeport.cli.writing import Json, print_json, print_table, printable, say, show_time

if TYPE_CHECKING:
    from homeport.agents import Approval
    from homeport.home import Home

SHOWN_ID_LENGTH = 8
ARGUMENTS_LENGTH = 60

app = typer.Typer(help="What agents ask before they use a tool. Each answer is about one call.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The approval's id, or how it begins.")]


@app.command("list")
def list_approvals(
    every: Annotated[bool, typer.Option("--all", help="Also those that are decided or have expired.")] = False, json: Json = False
) -> None:
    """List what agents wait for, oldest first."""

    async def work(home: "Home") -> "list[Approval]":
        state: Literal["pending"] | None = None if every else "pending"
        return [each async for each in each_item(lambda cursor: home.approvals.list(state=state, limit=200, cursor=cursor))]

    found = with_home(work)
    if json:
        return print_json(found)
    if not found:
        return say(
            "No agent has asked for anything." if every else "No agent waits for an answer. Earlier ones: homeport approvals list --all"
        )
    columns = ["id", "for", "agent", "tool", "with", "state", "asked"]
    print_table(columns, map(_row, found))
    if pending := [str(each.id)[:SHOWN_ID_LENGTH] for each in found if each.state == "pending"]:
        say("", "Look at one, then answer it, with deny instead of grant to refuse:", "")
        say(f"  homeport approvals show {pending[0]}", f"  homeport approvals grant {pending[0]}")


@app.command()
def show(approval_id: Id, json: Json = False) -> None:
    """Show what an agent asks, with what the tool would be called with."""
    found = with_home(lambda home: home.approvals.find(approval_id))
    if json:
        return print_json(found)
    say(
        f"The agent '{printable(found.agent)}' {'asks' if found.state == 'pending' else 'asked'} to use {_tool(found)}",
        "",
        f"  id          {found.id}",
        f"  for         {found.app_slug or 'an API key'}",
        f"  run         {found.run_id}",
        f"  state       {found.state}{f', by {printable(found.decided_by)}' if found.decided_by else ''}",
        f"  permission  {found.permission}",
        f"  asked       {show_time(found.requested_at, '')}",
        f"  expires     {show_time(found.expires_at, '')}",
        f"  used        {show_time(found.used_at, 'never')}",
        "",
        "It would be called with:" if found.state == "pending" else "It was to be called with:",
        "",
        f"  {printable(found.arguments)}{' … (cut: there is more)' if found.is_cut else ''}",
    )


@app.command()
def grant(
    approval_id: Id,
    remember: Annotated[bool, typer.Option("--remember", help="Grant the app the permission, so that it is not asked again.")] = False,
) -> None:
    """Allow the one call that an agent asks about. It goes on at once."""
    decided = _decide(approval_id, "granted", remember=remember)
    say(f"The agent '{printable(decided.agent)}' may use {_tool(decided)}{' this once' if not remember else ''}.")
    if remember:
        say(f"'{decided.app_slug}' may now do: {decided.permission}.")


@app.command()
def deny(
    approval_id: Id,
    remember: Annotated[bool, typer.Option("--remember", help="Deny the app the permission, so that it does not ask again.")] = False,
) -> None:
    """Refuse the call that an agent asks about. It is told so, and goes on without."""
    decided = _decide(approval_id, "denied", remember=remember)
    say(f"The agent '{printable(decided.agent)}' may not use {_tool(decided)}{' this time' if not remember else ''}.")
    if remember:
        say(f"'{decided.app_slug}' may not do: {decided.permission}.")


def _decide(start: str, decision: Literal["granted", "denied"], *, remember: bool) -> "Approval":
    async def work(home: "Home") -> "Approval":
        found = await home.approvals.find(start)
        return await home.approvals.decide(str(found.id), decision, DECIDED_BY, remember=remember)

    return with_home(work)


def _row(approval: "Approval") -> list[str]:
    arguments = approval.arguments
    shown = arguments if len(arguments) <= ARGUMENTS_LENGTH else f"{arguments[:ARGUMENTS_LENGTH]}…"
    who = approval.app_slug or "an API key"
    asked = show_time(approval.requested_at, "")
    return [str(approval.id)[:SHOWN_ID_LENGTH], who, approval.agent, f"{approval.server}/{approval.tool}", shown, approval.state, asked]


def _tool(approval: "Approval") -> str:
    return printable(f"{approval.server}/{approval.tool}")
