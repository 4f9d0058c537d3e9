"""How a command runs: its settings, the parts it works on, and how it fails."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from homeport.errors import AppError

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.paging import Page
    from homeport.settings import Settings

T = TypeVar("T")


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="FOLDER", help="Where everything is kept; HOMEPORT_DATA_DIR, else ~/.homeport.", show_default=False),
]


def set_data_dir(data_dir: Path | None) -> None:
    """Use ``data_dir``, if it is given, in this process and in those it starts."""
    if data_dir is not None:
        os.environ["HOMEPORT_DATA_DIR"] = str(data_dir.expanduser().absolute())


def command_settings(*, has_warnings: bool = True) -> "Settings":
    """The settings for a short command, which logs warnings (unless it tells them itself) and errors, as text. Raises SettingsError."""
    from homeport.log import configure_logging
    from homeport.settings import load_settings

    settings = load_settings()
    quieter = {
        "log_level": ("warning" if has_warnings else "error") if settings.log_level == "info" else settings.log_level,
        "log_format": "console" if settings.log_format == "auto" else settings.log_format,
    }
    settings = settings.model_copy(update=quieter)
    configure_logging(settings)
    return settings


def with_home(work: "Callable[[Home], Awaitable[T]]", *, has_warnings: bool = True) -> T:
    """Open everything, do ``work`` and close it again; a server on the same data may run meanwhile. Raises what ``work`` raises."""
    settings = command_settings(has_warnings=has_warnings)
    # The clean-up runs on the way out, so that an embedded database is not left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    async def run() -> T:
        from homeport.home import open_home

        async with open_home(settings) as home:
            return await work(home)

    return asyncio.run(run())


async def each_item(list_page: "Callable[[str | None], Awaitable[Page[T]]]") -> AsyncIterator[T]:
    """Every item of a paged list; ``list_page`` gets a cursor."""
    cursor: str | None = None
    while True:
        page = await list_page(cursor)
        for item in page.items:
            yield item
        if (cursor := page.next_cursor) is None:
            return


def fail(error: Exception) -> NoReturn:
    """End the process because of ``error``: with its message on standard error, and its traceback only when HOMEPORT_LOG_LEVEL is debug."""
    if os.environ.get("HOMEPORT_LOG_LEVEL", "").lower() == "debug":
        raise error
    if isinstance(error, AppError):
        end(error.message)
    from homeport.contract import ContractError
    from homeport.http.serving import PortUnavailable, StartFailed
    from homeport.settings import SettingsError

    if isinstance(error, SettingsError):
        end(f"The settings are wrong:\n{indent(str(error), '  ')}", 2)
    if isinstance(error, ContractError):
        end(f"The OpenAPI document cannot be served:\n{indent(str(error), '  ')}")
    if isinstance(error, PortUnavailable | StartFailed):
        end(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        end(f"{error.filename} cannot be used: {error.strerror}. Check it, or choose another data directory with --data-dir.")
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    end(f"This failed unexpectedly ({reason}). Run it again with HOMEPORT_LOG_LEVEL=debug to see where.")


def end(message: str, status: int = 1) -> NoReturn:
    """End the process with ``message`` on standard error."""
    typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {message}", err=True)
    sys.exit(status)


def show_log(path: Path, lines: int, *, follow: bool, first_start: str) -> None:
    """Print the last lines of a program's log, and what follows until Ctrl-C. Without a log, say that it begins with ``first_start``."""
    from adapters.processes import follow_log, tail_log

    if follow:
        try:
            for line in follow_log(path, lines):
                typer.echo(line)
        except KeyboardInterrupt:
            return
    if not (found := tail_log(path, lines)):
        end(f"There is no log yet in {command_settings().data_dir}. It begins with the first start: {first_start}")
    typer.echo("\n".join(found))
