"""What commands print: tables for people (colour on a terminal, aligned text otherwise) and JSON for programs."""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result.")]

COLOURS = {
    "granted": "green",
    "active": "green",
    "ok": "green",
    "denied": "red",
    "revoked": "red",
    "fail": "red",
    "pending": "yellow",
    "expired": "yellow",
    "warn": "yellow",
}


def say(*lines: str) -> None:
    """Print lines of text."""
    typer.echo("\n".join(lines))


def print_json(value: Any) -> None:
    """Print dataclasses, or a list of them, with the admin surface's names and times."""
    import orjson

    from homeport.clock import format_time

    def default(item: Any) -> Any:
        return format_time(item) if isinstance(item, datetime) else str(item)

    options = orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    plain = [as_dict(item) for item in value] if isinstance(value, list) else as_dict(value)
    typer.echo(orjson.dumps(plain, default=default, option=options).decode())


def as_dict(item: Any) -> Any:
    """A dataclass as a dictionary; anything else as it is."""
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under headings. On a terminal they are folded to its width; elsewhere each stays on one line."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        return _print_aligned([[column.upper() for column in columns], *cells])
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)


def show_time(moment: datetime | None, otherwise: str) -> str:
    """``moment`` to the minute in UTC, or ``otherwise`` when there is none."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else otherwise


def printable(text: str) -> str:
    """``text`` without anything that would move the cursor or break a line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip())


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1 for character in text)
