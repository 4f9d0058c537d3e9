"""How an app is started, as options of commands and as lines for people."""

import os
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.mcp import find_program
from homeport.cli.named_values import read_env_file, read_named
from homeport.cli.writing import printable, show_time

if TYPE_CHECKING:
    from homeport.apps import App
    from homeport.launcher import AppProcess
    from homeport.launcher.manifest import Manifest

ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", metavar="FILE", help="A JSON file that says all this; what is given besides it comes first.")
]
Command = Annotated[
    str | None,
    typer.Option("--command", metavar="PROGRAM", help="The program; {python} is the server's own Python. No shell reads it."),
]
Arguments = Annotated[list[str] | None, typer.Option("--arg", help="An argument; again for more. {port} is the port that it is given.")]
WorkingDir = Annotated[Path | None, typer.Option("--working-dir", metavar="FOLDER", help="Where it runs; its own folder when left out.")]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env", metavar="NAME[=VALUE]", help="An environment variable, stored encrypted; without a value from this shell, or asked for."
    ),
]
EnvFile = Annotated[Path | None, typer.Option("--env-file", metavar="FILE", help="Environment variables, one NAME=VALUE a line.")]
HomeUrl = Annotated[str | None, typer.Option("--home-url", help="Where its page is, such as http://127.0.0.1:{port}/.")]
HealthPath = Annotated[str | None, typer.Option("--health-path", help="What is asked to see whether it is well; its page when left out.")]
Autostart = Annotated[bool | None, typer.Option("--autostart/--no-autostart", help="Start it whenever the server starts.")]


def read_manifest_file(file: Path | None) -> "Manifest":
    """What stands in the manifest; nothing when there is none. Raises InvalidRequest, OSError."""
    from homeport.launcher.manifest import Manifest, read_manifest

    return Manifest() if file is None else read_manifest(file.expanduser())


def read_launch_options(
    command: str | None,
    arg: list[str] | None,
    working_dir: Path | None,
    env: list[str] | None,
    env_file: Path | None,
    home_url: str | None,
    health_path: str | None,
    autostart: bool | None,
) -> dict[str, Any]:
    """The fields of Launch that are given."""
    given: dict[str, Any] = {
        "command": None if command is None else find_program(command),
        "args": arg or None,
        "working_dir": None if working_dir is None else str(working_dir.expanduser().absolute()),
        "home_url": home_url,
        "health_path": health_path,
        "autostart": autostart,
    }
    if env or env_file is not None:
        given["env"] = (read_env_file(env_file) if env_file is not None else {}) | read_named(env or [], "--env", os.environ)
    return {name: value for name, value in given.items() if value is not None}


def describe_launch(app: "App", process: "AppProcess") -> list[str]:
    """How an app is started and what it does now, of its variables the names; nothing for one that is not started from here."""
    if (launch := app.launch) is None:
        return []
    rows = {
        "command": join([launch.command, *launch.args]),
        "folder": launch.working_dir,
        "variables": ", ".join(launch.env),
        "page": launch.home_url,
        "health": launch.health_path,
        "autostart": "yes" if launch.autostart else "no",
    }
    return [*(f"  {label:<13}  {printable(value)}" for label, value in rows.items() if value), *describe_process(process)]


def describe_process(process: "AppProcess") -> list[str]:
    """What the process of an app does now."""
    is_waiting = process.state in ("starting", "running", "stopping") and not process.is_held
    rows = {
        "state": process.state + (" (no server looks after it)" if is_waiting else ""),
        "url": process.url,
        "port": process.port and str(process.port),
        "process": process.pid and str(process.pid),
        "started": show_time(process.started_at, "") if process.pid else None,
        "restarts": process.restarts and str(process.restarts),
        "wanted": "yes" if process.is_wanted else "no",
        "error": process.error,
    }
    return [f"  {label:<13}  {printable(str(value))}" for label, value in rows.items() if value]
