"""The command line. One module a noun; what is slow to import is imported inside the commands, so that ``--help`` is quick.

    serve       start the server
    keys, apps, models, workspaces, threads, agents    look at and change what the database holds, with or without a running server
    usage       how much models are used
    vectors     take files in as vectors, and search them
    speech      say a text, listen, and what does it
    mcp         MCP servers, whose tools apps can use
    tools       who may use which tool
    tasks       work that apps have handed over
    events      what was done here, and by whom
    doctor      check everything that Homeport needs

Exit status: 0 done, 1 it could not be done (one or two lines on standard error say why), 2 the command or the settings are wrong.
"""

from typing import Annotated

import typer

from homeport import __version__
from homeport.cli import (
    agents,
    app_processes,
    approvals,
    doctor,
    events,
    keys,
    mcp,
    models,
    serve,
    speech,
    tasks,
    threads,
    tools,
    usage,
    vectors,
    workspaces,
)
from homeport.cli.running import DataDir, fail, set_data_dir
from homeport.cli.writing import MARKUP

__all__ = ["main"]

app = typer.Typer(
    name="homeport",
    help="Homeport: the one local server that AI apps dock at.",
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(app_processes.app, name="apps")
app.add_typer(models.app, name="models")
app.add_typer(vectors.app, name="vectors")
app.add_typer(speech.app, name="speech")
app.add_typer(mcp.app, name="mcp")
app.add_typer(tools.app, name="tools")
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(threads.app, name="threads")
app.add_typer(agents.app, name="agents")
app.add_typer(approvals.app, name="approvals")
app.add_typer(tasks.app, name="tasks")
app.command("usage")(usage.usage)
app.command("events")(events.events)
app.command("doctor")(doctor.doctor)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"homeport {__version__}")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    data_dir: DataDir = None,
    _version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Homeport: the one local server that AI apps dock at."""
    set_data_dir(data_dir)


def main() -> None:
    """Run the command line and end the process with its status."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - fail() re-raises what it has no sentence for, when details are wanted
        fail(error)
