"""``homeport agents runs``, ``run`` and ``cancel``: what agents do and have done."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import with_home
from homeport.cli.writing import Json, as_dict, print_json, print_table, printable, say, show_time

if TYPE_CHECKING:
    from homeport.agents import Message, Run
    from homeport.events import Event
    from homeport.home import Home

SHORTENED = 2000

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run's id: homeport agents runs")]


class State(StrEnum):
    """The states of a run."""

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def list_runs(
    state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None,
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="Only those of this agent.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=200, help="How many.")] = 50,
    json: Json = False,
) -> None:
    """List what agents do and have done, newest first."""
    wanted = state.value if state is not None else None
    runs = with_home(lambda home: home.runs.list(state=wanted, agent=agent, limit=lines)).items
    if json:
        return print_json(runs)
    if not runs:
        return say("There are no such runs.")
    print_table(
        ["id", "agent", "state", "turns", "tool calls", "tokens", "began", "ended"],
        [
            [
                str(each.id),
                each.agent,
                each.state,
                str(each.turns),
                str(each.tool_calls),
                str(each.prompt_tokens + each.completion_tokens),
                show_time(each.created_at, ""),
                show_time(each.finished_at, "-"),
            ]
            for each in runs
        ],
    )


def show_run(run_id: RunId, json: Json = False) -> None:
    """Show a run: what was said and what was done in it, in the order in which it happened."""

    async def work(home: "Home") -> "tuple[Run, Sequence[Message], list[Event]]":
        run = await home.runs.get(run_id)
        events = await home.events.list(subject=str(run.id), limit=200)
        return run, await home.runs.messages(run_id), [*reversed(events.items)]

    run, messages, events = with_home(work)
    if json:
        return print_json(as_dict(run) | {"messages": [as_dict(each) for each in messages], "events": [as_dict(each) for each in events]})
    say(
        f"Run {run.id} of {run.agent}: {run.state}{f', {run.error}' if run.error else ''}",
        "",
        f"  session   {run.session_id}",
        f"  model     {run.provider or '-'}/{run.model or '-'}",
        f"  turns     {run.turns}, with {run.tool_calls} tool calls and {run.prompt_tokens + run.completion_tokens} tokens",
        f"  began     {show_time(run.created_at, '')}",
        f"  ended     {show_time(run.finished_at, 'it has not')}",
    )
    for message in messages:
        say("", *_said(message))
    say("", "What was done:", *(f"  {event.created_at.astimezone():%H:%M:%S}  {_done(event)}" for event in events))


def cancel_run(run_id: RunId) -> None:
    """Cancel a run, whichever server process carries it out. What was said until then stays."""
    run = with_home(lambda home: home.runs.cancel(run_id))
    say(f"The run is {run.state}.")


def _said(message: "Message") -> list[str]:
    who = {"user": "user", "assistant": "agent", "tool": f"result of {message.tool_call_id}"}[message.role]
    lines = [printable(line) for line in message.text[:SHORTENED].splitlines()]
    if len(message.text) > SHORTENED:
        lines.append(f"… ({len(message.text)} characters)")
    calls = [f"calls {call.name} {printable(call.arguments[:SHORTENED])} ({call.id})" for call in message.tool_calls]
    return [f"{who}:", *(f"  {line}" for line in [*lines, *calls])]


def _done(event: "Event") -> str:
    return " ".join([event.kind, *(f"{name}={printable(str(value))}" for name, value in event.data.items())])
