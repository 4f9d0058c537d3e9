"""``homeport tasks``: work that apps have handed over.

A command only says what is to be done; a running server does it.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.apps import find_app
from homeport.cli.running import with_home
from homeport.cli.writing import Json, print_json, print_table, printable, say, show_time

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.tasks import Task

app = typer.Typer(help="Work that apps have handed over.", no_args_is_help=True)

STATUSES = ("pending", "claimed", "processing", "completed", "failed", "canceled")
BY = "cli"

TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]


@app.command("list")
def list_tasks(
    status: Annotated[str | None, typer.Option(help=f"Only tasks in this state: {', '.join(STATUSES)}.")] = None,
    app_name: Annotated[str | None, typer.Option("--app", metavar="APP", help="Only tasks of this app: its slug or id.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=200, help="How many.")] = 50,
    json: Json = False,
) -> None:
    """List tasks, newest first. Those that are pending and not 'auto' wait for a person: homeport tasks run TASK"""
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"choose one of {', '.join(STATUSES)}.", param_hint="--status")

    async def work(home: "Home") -> "list[Task]":
        owner_id = (await find_app(home, app_name)).id if app_name is not None else None
        return (await home.tasks.list(status=status, owner_id=owner_id, limit=lines)).items  # type: ignore[arg-type]

    found = with_home(work)
    if json:
        return print_json(found)
    if not found:
        return say("There are no such tasks.")
    rows = [
        [str(task.id), task.status, "auto" if task.auto_run else "person", task.agent or "-", task.title, show_time(task.created_at, "-")]
        for task in found
    ]
    print_table(["task", "state", "runs by", "agent", "title", "since"], rows)


@app.command()
def show(task_id: TaskId, json: Json = False) -> None:
    """Show a task, the attempts at it, and what came out."""
    task = with_home(lambda home: home.tasks.find(task_id))
    if json:
        return print_json(task)
    rows = {
        "id": str(task.id),
        "state": task.status,
        "agent": task.agent,
        "workspace": task.workspace,
        "thread": task.thread,
        "worker": task.machine_id,
        "prompt": task.prompt,
        "result": str(task.result["text"]) if task.result and "text" in task.result else task.result and str(task.result),
        "error": task.error,
        "since": show_time(task.created_at, ""),
        "changed": show_time(task.updated_at, ""),
    }
    say(printable(task.title), "", *(f"  {label:<10} {printable(value)}" for label, value in rows.items() if value))
    if task.runs:
        say("")
        print_table(
            ["attempt", "state", "agent", "worker", "session", "error"],
            [
                [run.attempt_id, run.status, run.agent or "-", run.machine_id or "-", str(run.session_id or "-"), run.error or "-"]
                for run in task.runs
            ],
        )


@app.command()
def run(
    task_id: TaskId,
    agent: Annotated[str | None, typer.Option(metavar="SLUG", help="Another agent than the app named.")] = None,
    workspace: Annotated[str | None, typer.Option(metavar="SLUG", help="Another workspace.")] = None,
    thread: Annotated[str | None, typer.Option(metavar="SLUG", help="Another thread of the workspace; create_new makes one.")] = None,
) -> None:
    """Have an agent do a task that waits for a person, or has failed."""
    task = with_home(lambda home: home.tasks.run(task_id, by=BY, agent=agent, workspace=workspace, thread=thread))
    say(f"An agent takes up {printable(task.title)} as soon as one is free; a server has to be running.", f"homeport tasks show {task.id}")


@app.command()
def cancel(task_id: TaskId, reason: Annotated[str | None, typer.Option(help="Why, for the app.")] = None) -> None:
    """Cancel a task. The agent that works on it is stopped, in whatever process."""
    task = with_home(lambda home: home.tasks.cancel(task_id, by=BY, reason=reason))
    say(f"Cancelled {printable(task.title)}.")
