"""``homeport apps start`` and what goes with it: the processes of apps, and their logs."""

import asyncio
import signal
import sys
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homeport.cli.app_launch import describe_process
from homeport.cli.apps import AppName, app, find_app
from homeport.cli.running import end, show_log, with_home
from homeport.cli.writing import Json, as_dict, print_json, say

if TYPE_CHECKING:
    from pathlib import Path

    from homeport.home import Home
    from homeport.launcher import AppProcess

__all__ = ["app"]

# For a server to take note, which takes it milliseconds unless it is very busy.
NOTICE_S = 4.0
START_S = 70.0
STOP_S = 15.0


@app.command()
def start(name: AppName) -> None:
    """Have an app run, and wait until it does. It runs as long as a server does, and again with the next one, until it is stopped."""
    _start(name, is_again=False)


@app.command()
def restart(name: AppName) -> None:
    """End an app and start it again."""
    _start(name, is_again=True)


@app.command()
def stop(name: AppName) -> None:
    """Stop an app, with all that it has started, and wait until it has ended."""

    async def work(home: "Home") -> "AppProcess":
        app_id = str((await find_app(home, name)).id)
        process = await home.launcher.stop(app_id)
        if process.state == "stopping" and not process.is_held:
            process = await home.launcher.tidy(app_id)
        return await home.launcher.wait(app_id, lambda each: each.state in ("stopped", "error"), STOP_S)

    process = with_home(work)
    if process.state != "stopped":
        end(f"'{process.slug}' is {process.state} still. Look again: homeport apps status {process.slug}")
    say(f"'{process.slug}' is stopped.")


@app.command()
def status(name: AppName, json: Json = False) -> None:
    """Tell what the process of an app does now."""

    async def work(home: "Home") -> "AppProcess":
        return await home.launcher.state(str((await find_app(home, name)).id))

    process = with_home(work)
    if json:
        return print_json(as_dict(process))
    say(process.slug, "", *describe_process(process))


@app.command()
def autostart(
    name: AppName, switch: Annotated[Literal["on", "off"] | None, typer.Argument(help="Left out: tell how it is now.")] = None
) -> None:
    """Start an app whenever the server starts, or not. Whether it runs now stays as it is."""

    async def work(home: "Home") -> bool:
        found = await find_app(home, name)
        if switch is not None:
            found = await home.apps.update(str(found.id), launch={"autostart": switch == "on"})
        return found.launch is not None and found.launch.autostart

    say(f"'{name}' starts with the server." if with_home(work) else f"'{name}' does not start with the server.")


@app.command()
def logs(
    name: AppName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> None:
    """Show what an app has written, and when it was started and ended here."""

    async def work(home: "Home") -> "Path":
        return home.launcher.log_path(await find_app(home, name))

    show_log(with_home(work), lines, follow=follow, first_start=f"homeport apps start {quote(name)}")


@app.command()
def run(name: AppName) -> None:
    """Run an app in this terminal until Ctrl-C, and show what it writes. A server need not run, but the app may want one."""

    async def work(home: "Home") -> "AppProcess":
        found = await find_app(home, name)
        is_over, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, is_over.set)
        try:
            return await home.launcher.run_here(str(found.id), _echo, is_over)
        finally:
            # Once is enough: what takes things down is not to be interrupted.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    process = with_home(work)
    if process.state == "error":
        end(process.error or "It has failed.")
    say(f"'{process.slug}' is stopped.")


def _start(name: str, *, is_again: bool) -> None:
    async def work(home: "Home") -> "AppProcess":
        app_id = str((await find_app(home, name)).id)
        await (home.launcher.restart(app_id) if is_again else home.launcher.start(app_id))
        seen = await home.launcher.wait(app_id, lambda each: each.is_held or each.state == "error", NOTICE_S)
        if not seen.is_held and seen.state != "error":
            return seen
        return await home.launcher.wait(app_id, lambda each: each.state in ("running", "error", "stopped"), START_S)

    process = with_home(work)
    if process.state == "running":
        return say(f"'{process.slug}' runs{f' at {process.url}' if process.url else ''}.")
    if process.state == "error":
        end(f"'{process.slug}' does not run. {process.error} Its log: homeport apps logs {process.slug}")
    if not process.is_held:
        return say(
            f"'{process.slug}' is started as soon as a server runs: homeport serve",
            f"Or run it in this terminal: homeport apps run {process.slug}",
        )
    end(f"'{process.slug}' is {process.state} still. {process.error or ''} Its log: homeport apps logs -f {process.slug}")


def _echo(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
