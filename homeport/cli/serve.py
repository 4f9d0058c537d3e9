"""``homeport serve``: prepares what can fail, says where the server is, then serves until it is told to stop."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from homeport import __version__
from homeport.cli.running import DataDir, set_data_dir
from homeport.cli.writing import say

if TYPE_CHECKING:
    from pydantic import SecretStr

    from homeport.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; HOMEPORT_HOST, else localhost (127.0.0.1 and ::1).", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; HOMEPORT_PORT, else 3001. 0 takes a free one.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port; HOMEPORT_WORKERS, else 1.", show_default=False)
    ] = None,
) -> None:
    """Start the server. The first start makes the database and prints an API key."""
    from homeport.http.serving import bind
    from homeport.log import configure_logging
    from homeport.settings import SettingsError, load_settings

    set_data_dir(data_dir)
    # In the environment, because the server's processes build their settings from it.
    for name, value in {"HOST": host, "PORT": port, "WORKERS": workers}.items():
        if value is not None:
            os.environ[f"HOMEPORT_{name}"] = str(value)
    settings = load_settings()
    if settings.host not in LOOPBACK and not settings.behind_proxy:
        raise SettingsError(
            f"HOMEPORT_HOST: other machines can reach {settings.host}, and API keys would travel in clear text. "
            "Put a proxy with TLS in front and say so with HOMEPORT_BEHIND_PROXY=true, or listen on localhost."
        )
    configure_logging(settings)
    _end_on_signals()
    sockets = bind(settings.host, settings.port)
    port_taken = sockets[0].getsockname()[1]
    os.environ["HOMEPORT_PORT"] = str(port_taken)
    _run(settings.model_copy(update={"port": port_taken}), sockets)


def _run(settings: "Settings", sockets: list[socket.socket]) -> None:
    with _database_starting(settings) as wait_for_url:
        from homeport.http.app import create_app, load_server_contract
        from homeport.http.serving import serve as serve_until_stopped

        # Whatever is wrong with the document or its handlers shows here, before the first key is made and the address is told.
        app = create_app(settings, load_server_contract(settings))
        first_key = asyncio.run(_prepare(settings.model_copy(update={"database_url": wait_for_url()})))
        _announce(settings, first_key)
        serve_until_stopped(settings, sockets, app)
        _ignore_signals()


def _end_on_signals() -> None:
    """While the server does not handle signals itself, SIGTERM and SIGINT end the process in an orderly way, too."""

    def end(*_: object) -> None:
        _ignore_signals()
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _ignore_signals() -> None:
    """Once is enough: a second signal must not interrupt what takes things down."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _database_starting(settings: "Settings") -> Iterator[Callable[[], "SecretStr"]]:
    """Start the embedded database, if it is used, beside what else is to be done, and stop it at the end; yields how to wait for its URL.

    It is held here besides in the server's processes, so that it does not stop between preparation and serving.
    """
    from pydantic import SecretStr

    if (url := settings.database_url) is not None:
        yield lambda: url
        return
    from adapters.postgres import EmbeddedPostgres

    if sys.stderr.isatty() and not (settings.data_dir / "postgres").exists():
        typer.echo(f"Setting up a new database in {settings.data_dir}, once; this takes a few seconds.", err=True)
    embedded = EmbeddedPostgres(settings.data_dir)
    executor = ThreadPoolExecutor(1)
    try:
        # Inside: a signal may end this at any point, and from the next line on there is something to stop.
        started = executor.submit(embedded.start)
        yield lambda: SecretStr(started.result())
    finally:
        executor.shutdown()
        embedded.stop()


async def _prepare(settings: "Settings") -> str | None:
    """Migrate the database, have run what starts with the server, and make the first API key; None when there has been one before."""
    from homeport.home import open_home

    async with open_home(settings) as home:
        created = await home.keys.create_first("first key")
        # Once for all processes of this server, so that one that is started anew does not start what was stopped meanwhile.
        await home.launcher.want_autostarted()
        return created[1] if created else None


def database_name(settings: "Settings") -> str:
    """Which database is used, without its password."""
    if settings.database_url is None:
        return "PostgreSQL, embedded in the data folder"
    from adapters.postgres.connection import parse_url

    parameters = parse_url(settings.database_url.get_secret_value())
    return f"PostgreSQL, {parameters.get('dbname') or 'the default database'} on {parameters.get('host') or 'this machine'}"


def _announce(settings: "Settings", first_key: str | None) -> None:
    url = settings.base_url
    say(
        f"Homeport {__version__} serves {url}",
        "",
        f"  Docs      {url}/docs",
        f"  Data      {settings.data_dir}",
        f"  Database  {database_name(settings)}",
        "",
    )
    if first_key:
        say(
            "The first API key. It may do everything and is shown once; store it now:",
            "",
            f"  {first_key}",
            "",
            "Try it:",
            "",
            f'  curl -H "Authorization: Bearer {first_key}" {url}/sdk/ping',
            "",
            "Then give it a model (homeport models add --help) and register an app (homeport apps register --help).",
        )
    else:
        say("More API keys: homeport keys create NAME. What works and what does not: homeport doctor.")
    say("Stop with Ctrl-C.")
    sys.stdout.flush()
    if settings.host not in LOOPBACK and not settings.allowed_hosts:
        warning = typer.style("Warning:", fg="yellow", bold=True)
        typer.echo(f"{warning} only localhost is admitted as Host. Set HOMEPORT_ALLOWED_HOSTS to the names that clients use.", err=True)
